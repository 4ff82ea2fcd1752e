"""anthropic-python with base URL and key swapped, and nothing else."""

import anthropic

from stage import BAD_KEY, CITY, HASTY_KEY, KEY, MODEL, QUESTION, URL, USED_UP_KEY, WEATHER
from stage import Attempts, met_the_limit, raised


def client(key, attempts=None):
    hooks = attempts.hooks() if attempts is not None else {}
    return anthropic.Anthropic(
        base_url=URL, api_key=key, http_client=anthropic.DefaultHttpxClient(event_hooks=hooks)
    )


def ask(who, **more):
    return who.messages.create(model=MODEL, max_tokens=100, messages=QUESTION, **more)


gate = client(KEY)

# A message
answer = ask(gate)
assert answer.type == "message" and answer.content[0].text and answer.usage.output_tokens > 0
assert answer._request_id

# The same, streamed
with gate.messages.stream(model=MODEL, max_tokens=100, messages=QUESTION) as stream:
    said = "".join(stream.text_stream)
    final = stream.get_final_message()
assert said == answer.content[0].text == final.content[0].text
assert final.stop_reason == answer.stop_reason

# A tool
tools = [{"name": "get_weather", "input_schema": CITY}]
answer = gate.messages.create(model=MODEL, max_tokens=100, messages=WEATHER, tools=tools)
assert [block.name for block in answer.content if block.type == "tool_use"] == ["get_weather"]

# A bad key
error = raised(anthropic.AuthenticationError, lambda: ask(client(BAD_KEY)))
assert error.body["error"]["type"] == "authentication_error" and error.request_id

# A used-up day: exactly one attempt
attempts = Attempts()
error = raised(anthropic.RateLimitError, lambda: ask(client(USED_UP_KEY, attempts)))
assert error.body["type"] == "error" and error.body["error"]["type"] == "rate_limit_error", error.body
assert error.response.headers["x-should-retry"] == "false"
assert len(attempts) == 1, f"{len(attempts)} attempts"

# A rate limit: waited for and tried again
if HASTY_KEY:
    attempts = Attempts()
    hasty = client(HASTY_KEY, attempts)
    met_the_limit(attempts, lambda: ask(hasty).content)

print("anthropic-python", anthropic.__version__, "ok")
