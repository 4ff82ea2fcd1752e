"""openai-python on its WebSockets: five answers cost five, and a day that is used up ends the socket."""

import os

import openai
import websockets.exceptions

from stage import KEY, MODEL, URL, USED_UP_KEY

ONE_LEFT_KEY = os.environ["TOLLGATE_ONE_LEFT_KEY"]


def client(key):
    sockets = URL.replace("http", "ws", 1) + "/v1"
    return openai.OpenAI(base_url=f"{URL}/v1", websocket_base_url=sockets, api_key=key, max_retries=0)


def realtime(gate):
    return gate.realtime.connect(model=MODEL)


def responses(gate):
    return gate.responses.connect()


def ask(connection, kind):
    if kind is realtime:
        connection.response.create()
    else:
        connection.response.create(model=MODEL, input="Hello")


def heard(connection):
    """The last event of a response, or the error."""
    while True:
        event = connection.recv()
        if event.type in ("response.done", "response.completed", "error"):
            return event


def main():
    for kind, times in ((realtime, 5), (responses, 2)):
        with kind(client(KEY)) as connection:
            for _ in range(times):
                ask(connection, kind)
                assert heard(connection).response.usage.total_tokens == 12
    with realtime(client(ONE_LEFT_KEY)) as connection:
        ask(connection, realtime)
        assert heard(connection).type == "response.done"
        ask(connection, realtime)
        refused = heard(connection)
        assert refused.type == "error" and refused.error.code == "insufficient_quota", refused
        try:
            connection.recv()
            raise AssertionError("the socket is still open")
        except websockets.exceptions.ConnectionClosed as closed:
            assert closed.rcvd.code == 1008, closed
    for kind in (realtime, responses):
        try:
            with kind(client(USED_UP_KEY)):
                raise AssertionError("a socket was opened")
        except websockets.exceptions.InvalidStatus as refused:
            assert refused.response.status_code == 429, refused


main()
