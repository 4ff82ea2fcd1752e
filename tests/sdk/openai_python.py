"""openai-python with base URL and key swapped, and nothing else."""

import openai

from stage import BAD_KEY, CITY, HASTY_KEY, KEY, MODEL, QUESTION, URL, USED_UP_KEY, WEATHER
from stage import Attempts, met_the_limit, raised


def client(key, attempts=None):
    hooks = attempts.hooks() if attempts is not None else {}
    http_client = openai.DefaultHttpx2Client(event_hooks=hooks)
    return openai.OpenAI(base_url=f"{URL}/v1", api_key=key, http_client=http_client)


gate = client(KEY)

# Chat
answer = gate.chat.completions.create(model=MODEL, messages=QUESTION)
assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content
assert answer.usage.total_tokens > 0
whole = answer.choices[0].message.content

# Streamed chat, with its usage
options = {"include_usage": True}
chunks = list(gate.chat.completions.create(model=MODEL, messages=QUESTION, stream=True, stream_options=options))
said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
assert said == whole, f"streamed {said!r}, whole {whole!r}"
assert chunks[-1].usage.total_tokens > 0

# Tool calls
tools = [{"type": "function", "function": {"name": "get_weather", "parameters": CITY}}]
answer = gate.chat.completions.create(model=MODEL, messages=WEATHER, tools=tools)
assert answer.choices[0].finish_reason == "tool_calls"
assert answer.choices[0].message.tool_calls[0].function.name == "get_weather"
with gate.chat.completions.stream(model=MODEL, messages=WEATHER, tools=tools) as stream:
    final = stream.get_final_completion()
assert final.choices[0].message.tool_calls[0].function.name == "get_weather"

# Two choices
answer = gate.chat.completions.create(model=MODEL, messages=QUESTION, n=2)
assert [choice.index for choice in answer.choices] == [0, 1]

# Legacy completions
assert gate.completions.create(model=MODEL, prompt="Say hello.").choices[0].text

# Responses, whole and streamed
response = gate.responses.create(model=MODEL, input="Say hello to the gate.")
assert response.output_text and response.usage.total_tokens > 0
events = list(gate.responses.create(model=MODEL, input="Say hello to the gate.", stream=True))
assert events[-1].type == "response.completed"
assert events[-1].response.output_text == response.output_text

# Embeddings and models
vectors = gate.embeddings.create(model=MODEL, input=["one", "two"])
assert len(vectors.data) == 2 and len(vectors.data[0].embedding) > 0
assert [model.id for model in gate.models.list()]

# Request identifiers reach the SDK
assert answer._request_id

# A bad key
error = raised(openai.AuthenticationError, lambda: client(BAD_KEY).models.list())
assert error.status_code == 401 and error.code == "invalid_api_key" and error.request_id

# A used-up day: exactly one attempt
attempts = Attempts()
poor = client(USED_UP_KEY, attempts)
error = raised(openai.RateLimitError, lambda: poor.chat.completions.create(model=MODEL, messages=QUESTION))
assert error.code == "insufficient_quota" and error.type == "insufficient_quota", error.body
assert len(attempts) == 1, f"{len(attempts)} attempts"

# A refusal before the body is whole: it is read all the same, though the client sends on
LONG = [{"role": "user", "content": "x" * (9 << 20)}]
error = raised(openai.RateLimitError, lambda: poor.chat.completions.create(model=MODEL, messages=LONG))
assert error.code == "insufficient_quota" and len(attempts) == 2, (error.body, len(attempts))
attempts = Attempts()
bad = client(BAD_KEY, attempts)
error = raised(openai.AuthenticationError, lambda: bad.chat.completions.create(model=MODEL, messages=LONG))
assert error.code == "invalid_api_key" and len(attempts) == 1, (error.body, len(attempts))

# A rate limit: waited for and tried again
if HASTY_KEY:
    attempts = Attempts()
    hasty = client(HASTY_KEY, attempts)
    met_the_limit(attempts, lambda: hasty.chat.completions.create(model=MODEL, messages=QUESTION).choices)
    error = None
    try:
        for _ in range(5):
            hasty.with_options(max_retries=0).chat.completions.create(model=MODEL, messages=QUESTION)
    except openai.RateLimitError as limited:
        error = limited
    assert error is not None and error.code == "rate_limit_exceeded", error
    assert int(error.response.headers["retry-after"]) >= 1 and int(error.response.headers["retry-after-ms"]) > 0

print("openai-python", openai.__version__, "ok")
