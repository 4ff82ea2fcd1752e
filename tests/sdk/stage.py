"""What every script here is given: an address, keys, and a way to count what is really sent.

TOLLGATE_URL          where the gate is
TOLLGATE_KEY          a good key with plenty left
TOLLGATE_USED_UP_KEY  a key whose day is used up
TOLLGATE_HASTY_KEY    a key that may ask once a second; without one, rates are not asked about
TOLLGATE_MODEL        the model to ask for; "demo-chat" when not given
"""

import os
import time

URL = os.environ["TOLLGATE_URL"].rstrip("/")
KEY = os.environ["TOLLGATE_KEY"]
USED_UP_KEY = os.environ["TOLLGATE_USED_UP_KEY"]
HASTY_KEY = os.environ.get("TOLLGATE_HASTY_KEY")
MODEL = os.environ.get("TOLLGATE_MODEL", "demo-chat")
BAD_KEY = "pe-" + "x" * 32

QUESTION = [{"role": "user", "content": "Say hello to the gate."}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


class Attempts:
    """Counts requests as they leave: an event hook of an httpx client."""

    def __init__(self):
        self.times = []

    def __call__(self, request):
        self.times.append(time.monotonic())

    def hooks(self):
        return {"request": [self]}

    def __len__(self):
        return len(self.times)


def raised(kind, call):
    """The exception of `kind` that `call` raises; anything else fails the script."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def met_the_limit(attempts, call):
    """Calls until the SDK had to try one call again, and waited before it did."""
    calls = 0
    while calls < 3 and len(attempts) == calls:
        assert call()
        calls += 1
    assert len(attempts) > calls, "the rate limit was never met"
    waited = attempts.times[-1] - attempts.times[-2]
    assert waited >= 0.3, f"tried again after {waited:.3f} s"
