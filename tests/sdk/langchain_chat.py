"""LangChain's ChatOpenAI with base URL and key swapped, and nothing else."""

import openai
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from stage import BAD_KEY, KEY, MODEL, URL, USED_UP_KEY, raised


def chat(key):
    return ChatOpenAI(base_url=f"{URL}/v1", api_key=key, model=MODEL)


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return "sunny in " + city


answer = chat(KEY).invoke("Say hello to the gate.")
assert answer.content and answer.usage_metadata["total_tokens"] > 0
assert "".join(chunk.content for chunk in chat(KEY).stream("Say hello to the gate.")) == answer.content
called = chat(KEY).bind_tools([get_weather]).invoke("What is the weather in Paris?")
assert called.tool_calls[0]["name"] == "get_weather"

error = raised(openai.AuthenticationError, lambda: chat(BAD_KEY).invoke("Hi"))
assert error.code == "invalid_api_key"
error = raised(openai.RateLimitError, lambda: chat(USED_UP_KEY).invoke("Hi"))
assert error.code == "insufficient_quota"

print("langchain-openai ok")
