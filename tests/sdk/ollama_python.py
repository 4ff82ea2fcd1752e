"""ollama's Python client with host and key swapped, and nothing else."""

import ollama

from stage import BAD_KEY, KEY, MODEL, QUESTION, URL, USED_UP_KEY, raised


def client(key):
    return ollama.Client(host=URL, headers={"Authorization": f"Bearer {key}"})


whole = client(KEY).chat(model=MODEL, messages=QUESTION)
assert whole.message.content and whole.done
parts = list(client(KEY).chat(model=MODEL, messages=QUESTION, stream=True))
assert "".join(part.message.content or "" for part in parts) == whole.message.content
assert parts[-1].done and parts[-1].eval_count > 0

error = raised(ollama.ResponseError, lambda: client(BAD_KEY).chat(model=MODEL, messages=QUESTION))
assert error.status_code == 401 and error.error, error
error = raised(ollama.ResponseError, lambda: client(USED_UP_KEY).chat(model=MODEL, messages=QUESTION))
assert error.status_code == 429, error

print("ollama ok")
