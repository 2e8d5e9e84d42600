"""Servers whose model converses, and a client for them: an unmodified one, of `websockets`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

PATH = "/invocations-bidirectional-stream"
SECONDS = 60  # for an answer, on a machine that does much else

# A message says what is answered. What must be seen from outside is a file in PLACES.
TALKER = '''
import os, pathlib, sys, threading, time
from byoa.algorithms import Algorithm, Messages
from byoa.container.errors import DataError

running = threading.Lock()

def alone(seconds=0.0):
    """The model is never called twice at the same time."""
    if not running.acquire(blocking=False):
        (places() / "twice").write_text("twice")
        raise AssertionError("the model runs twice")
    time.sleep(seconds)
    running.release()

def places():
    return pathlib.Path(os.environ["PLACES"])

def wait_for(name):
    while not (places() / name).exists():
        time.sleep(0.01)

class Mute(Exception):
    def __str__(self):
        raise TypeError("there is no text")

class Talker(Algorithm):
    def train(self, run): ...

    def load(self, model_dir, device):
        if os.environ.get("LOAD_WAITS"):
            wait_for("loaded")
        return {"name": "talker"}

    def predict(self, model, records):
        alone(0.001)
        return [threading.current_thread().name for _ in records]

    def converse(self, model, messages: Messages):
        assert model == {"name": "talker"}
        try:
            if "greet" in messages.query:
                yield f"hello {messages.query['greet']}"
            for message in messages:
                what, _, rest = (message if isinstance(message, str) else "").partition(" ")
                if what == "count":
                    for number in range(int(rest)):
                        alone()
                        yield str(number)
                elif what == "header":
                    yield messages.headers.get(rest, "none")
                elif what == "thread":
                    yield threading.current_thread().name
                elif what == "for-ever":
                    while True:
                        yield b"x" * 65536
                elif what == "until-told":  # speaks while it listens
                    spoken = 0
                    while (said := messages.get(0.01)) is None:
                        spoken += 1
                        yield "."
                    yield f"{said} after {spoken > 0}"
                elif what == "gate":
                    yield "waiting"
                    wait_for("gate")
                    yield "through"
                elif what == "deaf":  # hears nothing until it may
                    yield "deaf"
                    wait_for("gate")
                    yield b" ".join(next(messages)[:2] for _ in range(int(rest)))
                elif what == "only-look":
                    while True:
                        messages.get(0.01)
                elif what == "note":
                    (places() / rest).touch()
                elif what == "bye":
                    return
                elif what == "fail":
                    raise ValueError("the third law " * 20 if rest == "long" else "the third law")
                elif what == "mute":
                    raise Mute
                elif what == "data":
                    raise DataError("TEMPERATURE_LOW", "below absolute zero")
                elif what == "exit":
                    sys.exit(3)
                elif what == "object":
                    yield {"not": "a message"}
                elif what == "nothing":
                    yield ""
                    yield b""
                else:
                    yield message
            (places() / "ended").write_text(str(messages.ended))
            yield "the last word"
        finally:
            (places() / "closed").write_text("closed")
'''
SCRIPT = '''
def model_fn(model_dir):
    return {"prefix": "> "}

def converse_fn(messages, model, context):
    yield context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes") or "none"
    for message in messages:
        yield model["prefix"] + message
'''


def algorithm(code: str = TALKER, name: str = "Talker") -> Callable[[Path], None]:
    """Makes a model directory of this algorithm's."""

    def prepare(model: Path) -> None:
        (model / "code").mkdir()
        (model / "code" / "talker.py").write_text(code)
        (model / "byoa.json").write_text(json.dumps({"byoa": 1, "algorithm": f"talker:{name}"}))

    return prepare


def script(code: str = SCRIPT) -> Callable[[Path], None]:
    """Makes a model directory of this inference script's."""

    def prepare(model: Path) -> None:
        (model / "byoa.json").unlink()
        (model / "code").mkdir()
        (model / "code" / "inference.py").write_text(code)

    return prepare


def talk(server: Any, query: str = "", **options: Any) -> ClientConnection:
    options = {
        "proxy": None, "max_size": None, "open_timeout": SECONDS, "close_timeout": SECONDS,
        **options,
    }
    return connect(f"ws://127.0.0.1:{server.port}{PATH}{query}", **options)


def hear(client: ClientConnection, count: int = 1) -> list[str | bytes]:
    return [client.recv(SECONDS) for _ in range(count)]


def closed(client: ClientConnection) -> tuple[int, str]:
    """Code and reason of the close frame that the server sends now."""
    try:
        said = client.recv(SECONDS)
    except ConnectionClosed as error:
        assert error.rcvd is not None, error
        return error.rcvd.code, error.rcvd.reason
    raise AssertionError(f"not closed: the server said {said!r}")
