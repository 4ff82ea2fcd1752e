"""An app that answers a charged path, and says in a header when it did.

Run by `uvicorn spelling_app:app`, or `spelling_app:lax` for one that also ignores case, empty segments, parameters,
extensions, and whatever follows a blank or a question mark that came in an escape.
"""

import io
import json
import re

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from werkzeug.wrappers import Request as Form

app = FastAPI()


def served(what):
    return JSONResponse({"served": what}, headers={"x-served": what})


@app.post("/chat")
@app.post("/v1/chat/completions")
async def chat():
    return served("charged")


@app.get("/paid/{rest:path}")
async def paid(rest: str):
    return served("charged")


def said(value):
    if isinstance(value, list):
        return [model for each in value for model in said(each)]
    return [value["model"]] if isinstance(value, dict) and value.get("model") else []


@app.api_route("/read/{rest:path}", methods=["GET", "POST"])
async def models(rest: str, request: Request):
    """Every model that a request names: in its path, its query, its form, or its JSON whatever the label."""
    body = await request.body()
    found = re.findall(r"/(?:deployments|engines|models)/([^/:]+)", f"/{rest}")
    found += request.query_params.getlist("model") + request.query_params.getlist("deployment")
    try:
        found += said(json.loads(body))
    except (ValueError, RecursionError):
        pass
    environ = {
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }
    try:
        found += Form(environ).form.getlist("model")
    except ValueError:
        pass
    return JSONResponse(found, headers={"x-models": json.dumps(found)})


@app.get("/free")
@app.post("/free")
async def free():
    return served("free")


def laxly(path):
    for end in "?#\r\n\t\0 \u00a0\u2028":
        path = path.split(end)[0]
    segments = [segment.split(";")[0] for segment in path.replace("\\", "/").casefold().split("/")]
    path = "/" + "/".join(segment for segment in segments if segment not in ("", "."))
    return path.removesuffix(".json").rstrip(".")


async def lax(scope, receive, send):
    if scope["type"] == "http":
        scope = scope | {"path": laxly(scope["path"])}
    await app(scope, receive, send)
