"""Holds the gate against its own /openapi.json: schemathesis makes thousands of calls of it, good and bad,
and every check it has must pass: no 5xx, no status, header, type or body that the document does not tell
of, good data taken, bad data refused, no call without its token, no method that is not there.

TOLLGATE_URL             where the gate is; it has no limit of rates, and cheap bcrypt
TOLLGATE_ADMIN_PASSWORD  of the admin; everybody else is made here
TOLLGATE_FUZZ_EXAMPLES   calls that are made up for each operation, besides those the schema itself names

What a JSON Schema cannot say is in `Rules`, one by one: there the call is put right before it is sent, or
`UNSAID` names the refusal that the document tells of in words. Nothing else is let pass.
"""

import datetime
import itertools
import os
import sys
import zlib

import requests
import schemathesis
from schemathesis.cli import schemathesis as command
from schemathesis.generation import GenerationMode

URL = os.environ["TOLLGATE_URL"].rstrip("/")
ADMIN_PASSWORD = os.environ["TOLLGATE_ADMIN_PASSWORD"]
EXAMPLES = os.environ.get("TOLLGATE_FUZZ_EXAMPLES", "25")
PASSWORD = "correct-horse-7"
LEAST_CALLS = 5000

NUMBERS = itertools.count()
SESSION = requests.Session()
SESSION.trust_env = False


def ask(method, path, token=None, body=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = SESSION.request(method, URL + path, headers=headers, json=body, timeout=30)
    assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
    return answer.json()


# === Who calls ===

class People:
    """Whoever is needed, made when they are, and made anew once a call has ended what they were: it logged
    them out, changed their password, or deleted them."""

    def __init__(self):
        self.tokens = {}
        self.names = {}

    def token(self, scheme):
        if scheme not in self.tokens:
            self.tokens[scheme] = getattr(self, scheme)()
        return self.tokens[scheme]

    def forget(self, token):
        """Whoever had this `Authorization` is nobody any more."""
        for scheme in [one for one, had in self.tokens.items() if token in (had, f"Bearer {had}")]:
            del self.tokens[scheme]

    def account(self):
        name = f"fuzz_{next(NUMBERS)}"
        ask("POST", "/api/v1/auth/register", body={
            "username": name, "name": name, "email": f"{name}@example.com", "password": PASSWORD,
            "confirm_password": PASSWORD})
        return name

    def member(self):
        name = f"staff_{next(NUMBERS)}"
        ask("POST", "/api/v1/admin/staff", self.admin_token(), {
            "username": name, "name": name, "email": f"{name}@example.com", "password": PASSWORD,
            "staff_level": "advanced"})
        return name

    def admin_token(self):
        form = {"username": "admin", "password": ADMIN_PASSWORD}
        return ask("POST", "/api/v1/admin/login", body=form)["access_token"]

    def staff_token(self):
        form = {"username": self.member(), "password": PASSWORD}
        return ask("POST", "/api/v1/staff/login", body=form)["access_token"]

    def user_token(self):
        form = {"email": f"{self.account()}@example.com", "password": PASSWORD}
        return ask("POST", "/api/v1/auth/login", body=form)["access_token"]

    def api_key(self):
        """Of an account that has more left than will be asked for."""
        name = self.account()
        ask("PUT", f"/api/v1/admin/users/{name}", self.admin_token(),
            {"limits": {"conversation_limit": 1_000_000, "reset": 1_000_000}})
        form = {"email": f"{name}@example.com", "password": PASSWORD}
        jwt = ask("POST", "/api/v1/auth/login", body=form)["access_token"]
        return ask("GET", "/api/v1/auth/api-key?reveal=true", jwt)["api_key"]

    api_key_header = api_key


PEOPLE = People()


def schemes_of(operation):
    return [name for one in operation.definition.raw.get("security", []) for name in one]


def provide(scheme, is_bearer=True):
    """One provider of credentials for each scheme of the document. Where either of two will do, a call
    has the one or the other."""

    class Provider:
        def get(self, case, context):
            schemes = schemes_of(context.operation)
            if scheme not in schemes:
                return None
            turn = next(TURNS) % len(schemes) if len(schemes) > 1 else 0
            return PEOPLE.token(scheme) if schemes[turn] == scheme or scheme == schemes[-1] else None

        def set(self, case, data, context):
            if is_bearer:
                case.headers["Authorization"] = f"Bearer {data}"
            else:
                case.headers["x-api-key"] = data

    schemathesis.auth(refresh_interval=None)(Provider)


TURNS = itertools.count()
for bearer in ["user_token", "staff_token", "admin_token", "api_key"]:
    provide(bearer)
provide("api_key_header", is_bearer=False)


# === What a JSON Schema cannot say ===

def is_good(case):
    return case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE


def operation_of(case):
    return case.operation.definition.raw.get("operationId")


def make_right(case):
    """Puts right what the schema cannot ask for, in a call that is meant to be taken."""
    body = case.body
    if isinstance(body, dict):
        # A password has 72 bytes at most (bcrypt reads no more); a schema counts characters.
        for name in ["password", "new_password", "confirm_password", "confirm_new_password"]:
            if isinstance(body.get(name), str) and len(body[name].encode(errors="replace")) > 72:
                body[name] = PASSWORD
        # What is said twice is the same twice.
        for name in ["password", "new_password"]:
            if "confirm_" + name in body:
                body["confirm_" + name] = body[name]
        # The present password, and whose a call is.
        if operation_of(case) == "change_password":
            body["current_password"] = PASSWORD
        if operation_of(case) in ("change_email", "user_totp_disable", "staff_totp_disable"):
            body["password"] = PASSWORD
        if operation_of(case) == "admin_totp_disable":
            body["password"] = ADMIN_PASSWORD


@schemathesis.hook
def before_call(context, case, kwargs):
    if is_good(case):
        make_right(case)


# Refusals that the document tells of in words; each is (operations, status, what the refusal says).
UNSAID = []


@schemathesis.hook
def filter_failure(context, failure, case, response):
    return True


# === The run ===

CALLS = {}
ENDINGS = {"delete_account", "user_logout", "user_logout_all", "change_password", "change_email",
           "staff_logout", "staff_logout_all", "admin_logout", "admin_logout_all"}


@schemathesis.hook
def after_call(context, case, response):
    CALLS[response.status_code] = CALLS.get(response.status_code, 0) + 1
    had = response.request.headers.get("Authorization") or response.request.headers.get("x-api-key")
    ended = operation_of(case) in ENDINGS and response.status_code < 300
    if had and (ended or response.status_code == 401):
        PEOPLE.forget(had)


def main():
    arguments = ["run", f"{URL}/openapi.json", "--checks", "all", "--seed", "1", "--workers", "1", "--max-examples", EXAMPLES,
                 "--generation-deterministic", "--no-color", "--continue-on-failure", *sys.argv[1:]]
    try:
        command.main(arguments, standalone_mode=True)
    except SystemExit as end:
        code = end.code
    calls = sum(CALLS.values())
    print(f"{calls} calls:", ", ".join(f"{n} x {status}" for status, n in sorted(CALLS.items())))
    assert calls >= LEAST_CALLS, f"{calls} calls are fewer than {LEAST_CALLS}"
    sys.exit(code)


if __name__ == "__main__":
    main()
