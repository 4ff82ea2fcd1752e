"""A client as the documentation of the earlier Python service has it, through its whole flow. It uses
nothing that is newer; members that answers have since (`refresh_token`, `id`, `is_active`, `allowed_ips`)
are named where they come, and nothing else may be there.

TOLLGATE_URL             where the gate is
TOLLGATE_ADMIN_PASSWORD  of the admin
"""

import base64
import json
import os
import re
import urllib.error
import urllib.request

URL = os.environ["TOLLGATE_URL"].rstrip("/")
ADMIN_PASSWORD = os.environ["TOLLGATE_ADMIN_PASSWORD"]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
API_KEY = re.compile(r"pe-[A-Za-z0-9]{32}")
SEALED = re.compile(r"gAAAAA[A-Za-z0-9_=-]+")
JWT = re.compile(r"eyJ[\w-]+\.eyJ[\w-]+\.[\w-]+")
NUMBER = re.compile(r"\d+")


class Refused(Exception):
    def __init__(self, status, body, headers):
        super().__init__(f"{status}: {body}")
        self.status, self.body, self.headers = status, body, headers


def call(method, path, token=None, body=None):
    """The answer's JSON, as the examples of the documentation get it."""
    request = urllib.request.Request(URL + path, method=method)
    data = None
    if body is not None:
        data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, data, timeout=30) as answer:
            call.status, call.headers = answer.status, answer.headers
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise Refused(error.code, json.load(error), error.headers) from None


def is_like(got, shape, where="answer"):
    """Holds a value against a type, a pattern, a value, or a list or object of these."""
    if isinstance(shape, dict):
        assert isinstance(got, dict) and got.keys() == shape.keys(), f"{where}: {got} is not {shape}"
        for name, inner in shape.items():
            is_like(got[name], inner, f"{where}.{name}")
    elif isinstance(shape, list):
        assert isinstance(got, list) and len(got) == len(shape), f"{where}: {got} is not {shape}"
        for n, inner in enumerate(shape):
            is_like(got[n], inner, f"{where}[{n}]")
    elif isinstance(shape, type):
        fits = type(got) is shape or (shape is float and type(got) is int)
        assert fits, f"{where}: {got!r} is no {shape.__name__}"
    elif isinstance(shape, re.Pattern):
        assert isinstance(got, str) and shape.fullmatch(got), f"{where}: {got!r} is no {shape.pattern}"
    else:
        assert got == shape and type(got) is type(shape), f"{where}: {got!r} is not {shape!r}"
    return got


def refused(status, method, path, token=None, body=None):
    """The members that the earlier service's errors have, of a call that must fail."""
    try:
        got = call(method, path, token, body)
    except Refused as error:
        assert error.status == status, f"{method} {path}: {error}"
        told = {name: error.body[name] for name in ("error", "status_code", "timestamp", "detail")}
        is_like(told, {"error": True, "status_code": status, "timestamp": TIME,
                       "detail": list if status == 422 and isinstance(told["detail"], list) else str})
        return error
    raise AssertionError(f"{method} {path} was not refused: {got}")


def profile_like(**changed):
    shape = {
        "username": "testuser", "name": "Test User", "email": "test@example.com", "about_me": "", "hobbies": "",
        "type": "Personal", "time_created": TIME, "subscription_plan": "free",
        "credits": {"main": 5, "reset": 5}, "limits": {"conversation_limit": 10, "reset": 10},
        "access_rtype": ["bpe", "tot"], "level": "basic", "additional_notes": "",
    }
    return shape | changed


LOGIN = {"access_token": JWT, "token_type": "bearer", "expires_in": "1800", "refresh_token": str}
FORM = {"username": "testuser", "name": "Test User", "email": "test@example.com", "password": "password123",
        "confirm_password": "password123", "type": "Personal"}


def login(email, password):
    form = {"email": email, "password": password}
    return is_like(call("POST", "/api/v1/auth/login", body=form), LOGIN)["access_token"]


def the_service_introduces_itself():
    root = call("GET", "/")
    assert root["status"] == "running" and root["docs"] == "/docs" and root["health"] == "/health"
    info = call("GET", "/api/v1/info")
    assert {"authentication", "admin", "staff"} <= info["endpoints"].keys()
    assert {"jwt_token", "api_key"} <= info["authentication_methods"].keys()
    is_like(call("GET", "/health"), {
        "status": "healthy", "timestamp": TIME, "database": "healthy",
        "memory": {"used_percent": float, "used_mb": float, "available_mb": float},
        "disk": {"used_percent": float, "free_gb": float},
        "message_buffer_size": int, "scheduler_running": True,
    })


def a_user_looks_after_an_account():
    told = call("POST", "/api/v1/auth/register", body=FORM)
    assert call.status == 201
    is_like(told, {"message": "User registered successfully", "user_id": NUMBER, "username": "testuser"})
    refused(409, "POST", "/api/v1/auth/register", body=FORM)
    short = refused(422, "POST", "/api/v1/auth/register", body=FORM | {"username": "x", "password": "short"})
    places = [one["loc"] for one in short.body["detail"]]
    assert ["body", "username"] in places and ["body", "password"] in places, short.body
    assert all({"loc", "msg", "type"} <= one.keys() for one in short.body["detail"])
    wrong = refused(401, "POST", "/api/v1/auth/login", body={"email": FORM["email"], "password": "password124"})
    assert wrong.headers["WWW-Authenticate"] == "Bearer"

    jwt = login("test@example.com", "password123")
    is_like(call("GET", "/api/v1/auth/profile", jwt), profile_like())
    refused(401, "GET", "/api/v1/auth/profile")
    change = {"name": "John Smith", "about_me": "Updated about me", "hobbies": "chess"}
    is_like(call("PUT", "/api/v1/auth/profile", jwt, change), {"message": "Profile updated successfully"})
    is_like(call("GET", "/api/v1/auth/profile", jwt), profile_like(**change))

    change = {"current_password": "password123", "new_password": "password456", "confirm_new_password": "password456"}
    is_like(call("PUT", "/api/v1/auth/password", jwt, change), {"message": "Password updated successfully"})
    refused(401, "POST", "/api/v1/auth/login", body={"email": FORM["email"], "password": "password123"})
    jwt = login("test@example.com", "password456")
    change = {"new_email": "john@example.com", "password": "password456"}
    is_like(call("PUT", "/api/v1/auth/email", jwt, change), {"message": str})
    refused(401, "POST", "/api/v1/auth/login", body={"email": FORM["email"], "password": "password456"})
    return login("john@example.com", "password456")


def a_user_reads_and_replaces_the_key(jwt):
    old = is_like(call("GET", "/api/v1/auth/api-key", jwt), {"key": SEALED, "created_at": TIME})
    new = is_like(call("POST", "/api/v1/auth/regenerate-key", jwt), {"key": SEALED, "created_at": TIME})
    assert old["key"] != new["key"]
    # The token is dated as the earlier service dated it: a version, then seconds of Unix.
    assert base64.urlsafe_b64decode(new["key"])[0] == 0x80


def an_app_verifies_and_logs(key):
    shape = {"valid": True, "username": "testuser", "email": "john@example.com", "remaining_conversations": 9}
    is_like(call("POST", "/api/v1/auth/verify-key", key), shape)
    assert call.headers["X-RateLimit-Limit"] == "10" and call.headers["X-RateLimit-Remaining"] == "9"
    form = {
        "model": "gpt-3.5-turbo",
        "messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there!"}],
        "research_model": False,
    }
    logged = is_like(call("POST", "/api/v1/auth/log-message", key, form),
                     {"message": "Message logged successfully", "log_id": str})
    refused(401, "POST", "/api/v1/auth/verify-key", "pe-" + "x" * 32)
    for left in range(8, -1, -1):
        is_like(call("POST", "/api/v1/auth/verify-key", key), shape | {"remaining_conversations": left})
    spent = refused(429, "POST", "/api/v1/auth/verify-key", key)
    assert int(spent.headers["Retry-After"]) > 0
    return form, logged["log_id"]


def an_admin_looks_after_users(admin):
    seen = profile_like(name="John Smith", about_me="Updated about me", hobbies="chess", email="john@example.com")
    seen |= {"id": NUMBER, "is_active": True, "allowed_ips": []}
    is_like(call("GET", "/api/v1/admin/users?limit=100&offset=0", admin), [seen])
    assert call.headers["X-Total-Count"] == "1"
    is_like(call("GET", "/api/v1/admin/users/testuser", admin), seen)
    refused(404, "GET", "/api/v1/admin/users/nobody", admin)
    change = {"subscription_plan": "premium", "limits": {"conversation_limit": 100, "reset": 100},
              "credits": {"main": 7, "reset": 7}, "level": "gold", "additional_notes": "pays well"}
    is_like(call("PUT", "/api/v1/admin/users/testuser", admin, change), {"message": "User updated successfully"})
    is_like(call("GET", "/api/v1/admin/users/testuser", admin), seen | change)
    made = {"message": "API key regenerated successfully", "new_key": API_KEY}
    is_like(call("PUT", "/api/v1/admin/users/testuser", admin, {"limits": {"conversation_limit": 10, "reset": 10}}),
            {"message": "User updated successfully"})
    return is_like(call("POST", "/api/v1/admin/users/testuser/regenerate-key", admin), made)["new_key"]


def the_admin_reads_the_log_and_gives_the_day_back(admin, key, form, log_id):
    rows = call("GET", "/api/v1/admin/message-logs?username=testuser&model=gpt-3.5-turbo", admin)
    assert len(rows) == 1 and rows[0]["id"] == log_id, rows
    row = {name: rows[0][name] for name in ("username", "email", "model", "messages", "research_model", "time")}
    is_like(row, form | {"username": "testuser", "email": "john@example.com", "time": TIME})
    is_like(call("POST", "/api/v1/admin/reset-limits", admin), {"message": "All user limits reset successfully"})
    assert call("POST", "/api/v1/auth/verify-key", key)["remaining_conversations"] == 9


def staff_help_as_far_as_their_level_goes(admin):
    for n, level in enumerate(["new", "support", "advanced"], 1):
        form = {"name": "Support User", "username": f"support{n}", "email": f"support{n}@example.com",
                "password": "support123", "staff_level": level}
        hired = call("POST", "/api/v1/admin/staff", admin, form)
        assert call.status == 201
        is_like(hired, {"message": "Staff member created successfully", "staff_id": NUMBER, "username": f"support{n}"})
    tokens = []
    for n, level in enumerate(["new", "support", "advanced"], 1):
        form = {"username": f"support{n}", "password": "support123"}
        told = call("POST", "/api/v1/staff/login", body=form)
        tokens.append(is_like(told, LOGIN | {"staff_level": level})["access_token"])
    new, support, advanced = tokens
    is_like(call("GET", "/api/v1/staff/profile", support), {
        "id": int, "name": "Support User", "username": "support2", "email": "support2@example.com",
        "staff_level": "support", "time_created": TIME, "is_active": True,
    })
    assert [user["username"] for user in call("GET", "/api/v1/staff/users", support)] == ["testuser"]
    assert call("GET", "/api/v1/staff/users/testuser", support)["additional_notes"] == "pays well"
    assert call("GET", "/api/v1/staff/users/testuser", new)["additional_notes"] == ""
    change = {"limits": {"conversation_limit": 20, "reset": 20}, "subscription_plan": "free"}
    refused(403, "PUT", "/api/v1/staff/users/testuser", new, change)
    is_like(call("PUT", "/api/v1/staff/users/testuser", support, change), {"message": "User updated successfully"})
    refused(403, "DELETE", "/api/v1/staff/users/testuser", support)
    refused(401, "GET", "/api/v1/admin/users", advanced)
    return advanced


def accounts_are_deleted(jwt, admin, advanced, key):
    is_like(call("DELETE", "/api/v1/auth/account", jwt), {"message": "Account deleted successfully"})
    refused(401, "GET", "/api/v1/auth/profile", jwt)
    refused(401, "POST", "/api/v1/auth/verify-key", key)
    refused(401, "POST", "/api/v1/auth/login", body={"email": "john@example.com", "password": "password456"})
    for token, path in [(admin, "/api/v1/admin/users/testuser"), (advanced, "/api/v1/staff/users/testuser")]:
        call("POST", "/api/v1/auth/register", body=FORM)
        is_like(call("DELETE", path, token), {"message": "User deleted successfully"})
        refused(404, "DELETE", path, token)
    is_like(call("GET", "/api/v1/admin/users", admin), [])


the_service_introduces_itself()
jwt = a_user_looks_after_an_account()
a_user_reads_and_replaces_the_key(jwt)
form = {"username": "admin", "password": ADMIN_PASSWORD}
admin = is_like(call("POST", "/api/v1/admin/login", body=form), LOGIN)["access_token"]
key = an_admin_looks_after_users(admin)
form, log_id = an_app_verifies_and_logs(key)
the_admin_reads_the_log_and_gives_the_day_back(admin, key, form, log_id)
advanced = staff_help_as_far_as_their_level_goes(admin)
jwt = login("john@example.com", "password456")  # the level was changed, which ends sessions
accounts_are_deleted(jwt, admin, advanced, key)
