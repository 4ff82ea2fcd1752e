"""An app that answers a charged path, and says in a header when it did.

Run by `uvicorn spelling_app:app`, or `spelling_app:lax` for one that also ignores case, empty segments, parameters,
extensions, and whatever follows a blank or a question mark that came in an escape.
"""

from fastapi import FastAPI
from fastapi.responses import JSONResponse

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
