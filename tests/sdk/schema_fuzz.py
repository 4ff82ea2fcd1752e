"""Holds the gate against its own /openapi.json: schemathesis makes thousands of calls of it, good and bad,
and every check it has must pass: no 5xx, no status, header, type or body that the document does not tell
of, good data taken, bad data refused, no call without its token, no method that is not there.

TOLLGATE_URL             where the gate is; it has no limit of rates, cheap bcrypt, and believes our X-Forwarded-For
TOLLGATE_ADMIN_PASSWORD  of the admin; everybody else is made here
TOLLGATE_FUZZ_EXAMPLES   calls that are made up for each operation, besides those the schema itself names

The same calls in every run. What a JSON Schema cannot say stands in `make_right`, one by one: there a good
call is put right before it is sent; or `UNSAID` names the refusal that the document tells of in words.
No operation and no check is left out, and no other failure is let pass.
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
from schemathesis.generation.meta import TestPhase

URL = os.environ["TOLLGATE_URL"].rstrip("/")
ADMIN_PASSWORD = os.environ["TOLLGATE_ADMIN_PASSWORD"]
EXAMPLES = os.environ.get("TOLLGATE_FUZZ_EXAMPLES", "30")
PASSWORD = "correct-horse-7"
LEAST_CALLS = 5000

NUMBERS = itertools.count()
SESSION = requests.Session()
SESSION.trust_env = False
SESSION.headers["X-Forwarded-For"] = "192.0.2.1"


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
        self.ended = {}

    def token(self, scheme):
        if scheme not in self.tokens:
            self.tokens[scheme] = getattr(self, scheme)()
        return self.tokens[scheme]

    def forget(self, token):
        """Whoever had this token is nobody any more."""
        for scheme in [one for one, had in self.tokens.items() if token == had]:
            self.ended[self.tokens.pop(scheme)] = scheme

    def renew(self, case):
        """Calls are made up in advance: one whose token has ended meanwhile gets one that has not."""
        for header, prefix in [("Authorization", "Bearer "), ("x-api-key", "")]:
            scheme = self.ended.get((case.headers.get(header) or "").removeprefix(prefix))
            if scheme:
                case.headers[header] = prefix + self.token(scheme)

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
        return self.user_session(self.account())["access_token"]

    def user_session(self, name):
        return ask("POST", "/api/v1/auth/login", body={"email": f"{name}@example.com", "password": PASSWORD})

    def api_key(self):
        """Of an account that has more left than will be asked for."""
        name = self.account()
        ask("PUT", f"/api/v1/admin/users/{name}", self.admin_token(),
            {"limits": {"conversation_limit": 1_000_000, "reset": 1_000_000}})
        return ask("GET", "/api/v1/auth/api-key?reveal=true", self.user_session(name)["access_token"])["api_key"]

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

# Calls that take the password of who calls.
PROVEN = {"change_email", "delete_account", "create_key", "update_key", "rotate_key", "regenerate_key"} | {
    f"{who}_{what}" for who in ("user", "staff", "admin") for what in ("totp_enroll", "totp_disable", "recovery_codes")}

def is_good(case):
    return case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE


def operation_of(case):
    return case.operation.definition.raw.get("operationId")


def right(name, value):
    """What becomes of one member of a body."""
    if name.endswith("email") and isinstance(value, str) and "@" in value:
        # 64 characters before the "@" (RFC 5321, section 4.5.3.1.1); a schema counts the whole.
        local, domain = value.rsplit("@", 1)
        return f"{local[:64].rstrip('.')}@{domain}"
    if name in ("password", "new_password") and isinstance(value, str) and len(value.encode("utf-8", "replace")) > 72:
        # bcrypt reads 72 bytes; a schema counts characters.
        return PASSWORD
    if name in ("plan", "subscription_plan") and isinstance(value, str):
        # The plans there are stand in the gate's configuration.
        return ["free", "premium"][zlib.crc32(value.encode("utf-8", "replace")) % 2]
    if name == "expires_at" and isinstance(value, str):
        # In the future.
        return "2099" + value[4:].replace("-02-29", "-02-28")
    if isinstance(value, float) and value.is_integer():
        # 18.0 is a whole number for JSON Schema; the gate, as most parsers, wants it written as one.
        return int(value)
    if isinstance(value, dict):
        return {inner: right(inner, value[inner]) for inner in value}
    return value


def make_right(case):
    """Puts right what the schema cannot ask for, in a call that is meant to be taken."""
    operation, body, query = operation_of(case), case.body, case.query
    if isinstance(body, dict):
        for name in body:
            body[name] = right(name, body[name])
        # What is said twice is the same twice.
        for name in ["password", "new_password"]:
            if "confirm_" + name in body:
                body["confirm_" + name] = body[name]
        # The present password of who calls.
        if operation == "change_password":
            body["current_password"] = PASSWORD
        if operation in PROVEN and ("password" in body or operation.endswith("disable") or operation == "change_email"):
            body["password"] = ADMIN_PASSWORD if operation.startswith("admin_") else PASSWORD
        # The default key keeps its name, and a key that was rotated may be that one.
        if operation == "update_key" and case.meta.phase.name == TestPhase.STATEFUL:
            body.pop("name", None)
        # Either a key or a user is asked about.
        if operation == "explain":
            if isinstance(body.get("key"), str):
                body.pop("username", None)
            elif not isinstance(body.get("username"), str):
                body["username"] = "ann_lee"
    if operation == "usage" and query:
        # Days begin in 1970, and from one to the other there are fewer than a thousand.
        for name in query.keys() & {"from", "to"}:
            query[name] = "2026" + query[name][4:].replace("-02-29", "-02-28")
        if query.get("from", "") > query.get("to", "9"):
            query["from"], query["to"] = query["to"], query["from"]
    if operation == "explain_ledger" and query and "day" in query:
        query["day"] = "2026" + query["day"][4:].replace("-02-29", "-02-28")


def aim(case):
    """Has every other good call meet somebody or something that is there, which nobody makes up by chance.
    Calls that follow others aim by themselves."""
    operation, path, body = operation_of(case), case.path_parameters, case.body
    if case.meta.phase.name == TestPhase.STATEFUL or next(AIMED) % 2:
        return
    if "username" in path:
        path["username"] = PEOPLE.member() if "/admin/staff/" in case.path else PEOPLE.account()
    is_ours = case.headers.get("Authorization", "").removeprefix("Bearer ") in PEOPLE.tokens.values()
    if is_ours and operation in ("get_key", "update_key", "revoke_key", "rotate_key"):
        jwt = PEOPLE.user_token()
        case.headers["Authorization"] = f"Bearer {jwt}"
        path["id"] = str(ask("POST", "/api/v1/auth/keys", jwt, {"name": "spare"})["id"])
    if operation == "revoke_user_key":
        jwt = PEOPLE.user_session(path["username"])["access_token"]
        path["id"] = str(ask("POST", "/api/v1/auth/keys", jwt, {"name": "spare"})["id"])
    if operation == "user_login":
        body.update(email=f"{PEOPLE.account()}@example.com", password=PASSWORD)
    if operation == "staff_login":
        body.update(username=PEOPLE.member(), password=PASSWORD)
    if operation == "user_refresh":
        body.update(refresh_token=PEOPLE.user_session(PEOPLE.account())["refresh_token"])


AIMED = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    PEOPLE.renew(case)
    # Failed logins are counted by address: every call comes from one of its own.
    number = next(CALLED)
    case.headers["X-Forwarded-For"] = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    if is_good(case):
        make_right(case)
        aim(case)


CALLED = itertools.count(1)

# Refusals of good data that the document tells of in words: operations, status, code.
UNSAID = [
    # Only who reads the letter has its token.
    ({"confirm_password_reset", "confirm_email_verification"}, 400, "wrong_mail_token"),
]


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """False where the failure is none."""
    if failure.title != "Schema-valid request rejected":
        return True
    code = response.json().get("code")
    return not any(
        operation_of(case) in operations and response.status_code == status and code == named
        for operations, status, named in UNSAID)


# === The run ===

CALLS = {}
# Operations that took a call, and that refused one.
TAKEN, MET = set(), set()
# Of a hundred operations, how many take a call at least.
LEAST_TAKEN = 80
ENDINGS = {"delete_account", "user_logout", "user_logout_all", "change_password", "change_email",
           "staff_logout", "staff_logout_all", "admin_logout", "admin_logout_all"}


@schemathesis.hook
def after_call(context, case, response):
    CALLS[response.status_code] = CALLS.get(response.status_code, 0) + 1
    (TAKEN if response.status_code < 300 else MET).add(operation_of(case))
    headers = response.request.headers
    had = headers.get("Authorization", headers.get("x-api-key", "")).removeprefix("Bearer ")
    ended = operation_of(case) in ENDINGS and response.status_code < 300
    if had and (ended or response.status_code == 401):
        PEOPLE.forget(had)


def main():
    arguments = ["run", f"{URL}/openapi.json", "--checks", "all", "--max-examples", EXAMPLES,
                 "--generation-deterministic", "--workers", "1", "--continue-on-failure", "--no-color", *sys.argv[1:]]
    code = 1
    try:
        command.main(arguments)
    except SystemExit as end:
        code = end.code
    calls = sum(CALLS.values())
    print(f"{calls} calls:", ", ".join(f"{n} x {status}" for status, n in sorted(CALLS.items())))
    refusing = sorted(str(one) for one in MET - TAKEN)
    share = 100 * len(TAKEN) / len(MET | TAKEN)
    print(f"{share:.0f} % of {len(MET | TAKEN)} operations took a call; the others: {', '.join(refusing)}")
    assert share >= LEAST_TAKEN, f"{share:.0f} % of the operations took a call"
    assert calls >= LEAST_CALLS, f"{calls} calls are fewer than {LEAST_CALLS}"
    sys.exit(code)


if __name__ == "__main__":
    main()
