"""A chat app that knows nothing of the gate: FastAPI, and what somebody writes in an afternoon.

Run by `uvicorn fastapi_app:app`. It refuses whoever does not send the operator's own credential, so a
client's key that slipped through would be noticed.
"""

import json

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

app = FastAPI()
WORDS = ["Hello", ",", " gate", "."]
USAGE = {"prompt_tokens": 4, "completion_tokens": 4, "total_tokens": 8}


@app.middleware("http")
async def only_the_operator(request: Request, call_next):
    if request.headers.get("authorization") != "Bearer the-operators-own":
        return JSONResponse({"detail": "who are you?"}, status_code=401)
    if any("pe-" in value for value in request.headers.values()):
        return JSONResponse({"detail": "that was not for me"}, status_code=400)
    return await call_next(request)


def events(documents, names=False, done=False):
    def lines():
        for document in documents:
            if names:
                yield f"event: {document['type']}\n"
            yield f"data: {json.dumps(document)}\n\n"
        if done:
            yield "data: [DONE]\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


def wants_weather(asked):
    last = asked["messages"][-1]["content"]
    return bool(asked.get("tools")) and "weather" in json.dumps(last)


@app.post("/v1/chat/completions")
async def chat(request: Request):
    asked = await request.json()
    head = {"id": "chatcmpl-1", "created": 1767225600, "model": asked["model"]}
    message, finish = {"role": "assistant", "content": "".join(WORDS)}, "stop"
    deltas = [{"role": "assistant", "content": ""}] + [{"content": word} for word in WORDS]
    if wants_weather(asked):
        call = {"id": "call_1", "type": "function"}
        function = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
        message = {"role": "assistant", "content": None, "tool_calls": [call | {"function": function}]}
        first = call | {"index": 0, "function": function | {"arguments": ""}}
        rest = {"index": 0, "function": {"arguments": function["arguments"]}}
        deltas = [{"role": "assistant", "tool_calls": [first]}, {"tool_calls": [rest]}]
        finish = "tool_calls"
    if not asked.get("stream"):
        choices = [{"index": i, "message": message, "finish_reason": finish} for i in range(asked.get("n", 1))]
        return head | {"object": "chat.completion", "choices": choices, "usage": USAGE}
    head["object"] = "chat.completion.chunk"
    chunks = [head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if (asked.get("stream_options") or {}).get("include_usage"):
        chunks.append(head | {"choices": [], "usage": USAGE})
    return events(chunks, done=True)


@app.post("/v1/completions")
async def complete(request: Request):
    asked = await request.json()
    choice = {"index": 0, "text": "".join(WORDS), "finish_reason": "stop", "logprobs": None}
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1767225600, "model": asked["model"]}
    return head | {"choices": [choice], "usage": USAGE}


@app.post("/v1/responses")
async def respond(request: Request):
    asked = await request.json()
    text = {"type": "output_text", "text": "".join(WORDS), "annotations": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    usage = {"input_tokens": 4, "output_tokens": 4, "total_tokens": 8}
    usage |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    begun = {"id": "resp_1", "object": "response", "created_at": 1767225600, "model": asked["model"]}
    begun |= {"status": "in_progress", "output": [], "tools": [], "tool_choice": "auto"}
    begun |= {"parallel_tool_calls": True}
    whole = begun | {"status": "completed", "output": [item], "usage": usage}
    if not asked.get("stream"):
        return whole
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    empty = item | {"status": "in_progress", "content": []}
    said = [{"type": "response.created", "response": begun}]
    said += [{"type": "response.output_item.added", "output_index": 0, "item": empty}]
    said += [place | {"type": "response.content_part.added", "part": text | {"text": ""}}]
    said += [place | {"type": "response.output_text.delta", "delta": word, "logprobs": []} for word in WORDS]
    said += [{"type": "response.output_item.done", "output_index": 0, "item": item}]
    said += [{"type": "response.completed", "response": whole}]
    return events([event | {"sequence_number": i} for i, event in enumerate(said)], names=True)


@app.post("/v1/embeddings")
async def embed(request: Request):
    asked = await request.json()
    inputs = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
    data = [{"object": "embedding", "index": i, "embedding": "AACAPwAAAEA="} for i in range(len(inputs))]
    return {"object": "list", "data": data, "model": asked["model"], "usage": USAGE}


@app.get("/v1/models")
async def models():
    return {"object": "list", "data": [{"id": "demo", "object": "model", "created": 1, "owned_by": "us"}]}


@app.post("/v1/messages")
async def messages(request: Request):
    asked = await request.json()
    usage = {"input_tokens": 4, "output_tokens": 4}
    block, stop = {"type": "text", "text": "".join(WORDS)}, "end_turn"
    if wants_weather(asked):
        block = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}
        stop = "tool_use"
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"]}
    message |= {"content": [block], "stop_reason": stop, "stop_sequence": None, "usage": usage}
    if not asked.get("stream"):
        return message
    said = [{"type": "message_start", "message": message | {"content": [], "stop_reason": None}}]
    said += [{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}]
    deltas = [{"type": "text_delta", "text": word} for word in WORDS]
    said += [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas]
    said += [{"type": "content_block_stop", "index": 0}]
    ending = {"stop_reason": stop, "stop_sequence": None}
    said += [{"type": "message_delta", "delta": ending, "usage": {"output_tokens": 4}}, {"type": "message_stop"}]
    return events(said, names=True)


@app.post("/api/chat")
async def ollama_chat(request: Request):
    asked = await request.json()
    head = {"model": asked["model"], "created_at": "2026-01-01T00:00:00Z"}
    last = {"done": True, "done_reason": "stop", "prompt_eval_count": 4, "eval_count": 4}
    if asked.get("stream") is False:
        return head | {"message": {"role": "assistant", "content": "".join(WORDS)}} | last
    parts = [head | {"message": {"role": "assistant", "content": word}, "done": False} for word in WORDS]
    parts.append(head | {"message": {"role": "assistant", "content": ""}} | last)
    lines = (json.dumps(part) + "\n" for part in parts)
    return StreamingResponse(lines, media_type="application/x-ndjson")
