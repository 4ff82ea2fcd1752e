"""openai-python beyond chat: Azure's client, and what other users of one account would share."""

import openai

from stage import KEY, MODEL, QUESTION, URL, USED_UP_KEY, raised


def client(key, path):
    return openai.OpenAI(base_url=f"{URL}{path}/v1", api_key=key, max_retries=0)


def azure(key):
    return openai.AzureOpenAI(azure_endpoint=URL, api_key=key, api_version="2024-10-21", max_retries=0)


def calls(gate):
    """Whatever makes a model work, or stores something for it."""
    wav = ("a.wav", b"RIFF", "audio/wav")
    png = ("a.png", b"\x89PNG", "image/png")
    return [
        lambda: gate.responses.create(model=MODEL, input="Hello"),
        lambda: gate.images.generate(model=MODEL, prompt="a gate"),
        lambda: gate.images.edit(model=MODEL, image=png, prompt="a gate"),
        lambda: gate.audio.speech.create(model=MODEL, input="Hello", voice="alloy"),
        lambda: gate.audio.transcriptions.create(model=MODEL, file=wav),
        lambda: gate.chat.completions.create(model=MODEL, messages=QUESTION),
    ]


def shared(gate):
    return [
        lambda: gate.files.create(file=("b.jsonl", b"{}"), purpose="batch"),
        lambda: gate.batches.create(input_file_id="f", endpoint="/v1/chat/completions", completion_window="24h"),
        lambda: gate.fine_tuning.jobs.create(model=MODEL, training_file="f"),
        lambda: gate.responses.cancel("resp_1"),
        lambda: gate.vector_stores.create(name="v"),
    ]


def read(gate):
    return [
        lambda: gate.files.list(),
        lambda: gate.files.content("file-1"),
        lambda: gate.files.delete("file-1"),
        lambda: gate.batches.list(),
        lambda: gate.fine_tuning.jobs.list(),
        lambda: gate.responses.retrieve("resp_1"),
        lambda: gate.responses.delete("resp_1"),
        lambda: gate.chat.completions.list(),
        lambda: gate.models.delete("m"),
    ]


# With the day used up nothing that makes a model work is served, however wide the route is
open_wide = client(USED_UP_KEY, "/open")
usual = client(USED_UP_KEY, "")
for call in calls(open_wide) + shared(open_wide) + calls(usual) + calls(azure(USED_UP_KEY)):
    error = raised(openai.RateLimitError, call)
    assert error.code == "insufficient_quota", error

# What is free still is
assert usual.embeddings.create(model=MODEL, input=["one"]).data
assert azure(USED_UP_KEY).embeddings.create(model=MODEL, input=["one"]).data

# What the users of one account share is not open
gate = client(KEY, "")
for call in shared(gate) + read(gate):
    error = raised(openai.PermissionDeniedError, call)
    assert error.code == "call_not_allowed", error

for call in calls(gate)[:5]:
    call()
assert azure(KEY).chat.completions.create(model=MODEL, messages=QUESTION).choices
print("openai-python", openai.__version__, "ok")
