"""GET /ping of a serving container, and the words for what it saw (HOST-20, HOST-21)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from time import monotonic

from byoa.container.contract import (
    DEFAULT_PORT,
    HOSTING_USER_AGENT,
    PING_PATH,
    PING_TIMEOUT_SECONDS,
)
from byoa.local.runtime.connection import Connection, ConnectionFailed, Unreachable

_BODY_LIMIT_BYTES = 65_536
_BODY_SHOWN_CHARACTERS = 300
_CODE_SHOWN_CHARACTERS = 60
_WORDS_SHOWN_CHARACTERS = 600  # leaves a FailureReason room for the end of the log
_REQUEST = (
    f"GET {PING_PATH} HTTP/1.1\r\nHost: localhost:{DEFAULT_PORT}\r\n"
    f"User-Agent: {HOSTING_USER_AGENT}\r\nConnection: close\r\n\r\n"
).encode()


@dataclass(frozen=True)
class Ping:
    """One look. Only the status 200 is healthy (HOST-21).

    The body of another answer is a reason, nothing more; unless it is 503 and a JSON object with
    `state`, `code` and `message`, as byoa's own images answer. Then `told` is true, `text` has the
    container's words, and `failed` is true when its state is "failed": it will never be healthy.
    `answered`: there was an answer, whatever it said.
    """

    healthy: bool
    text: str
    timed_out: bool = False
    told: bool = False
    failed: bool = False
    answered: bool = False


def ping(address: tuple[str, int]) -> Ping:
    """Ask once, on a connection of its own, for at most two seconds."""
    deadline = monotonic() + PING_TIMEOUT_SECONDS
    try:
        connection = Connection(address, deadline)
    except Unreachable as error:
        return Ping(False, f"nothing listens on port {DEFAULT_PORT} ({error})")
    except TimeoutError:
        return Ping(False, f"port {DEFAULT_PORT} did not take a connection in time", True)
    try:
        answer = connection.exchange(_REQUEST, b"", deadline, _BODY_LIMIT_BYTES)
    except TimeoutError:
        limit = f"{PING_TIMEOUT_SECONDS:g} s"
        return Ping(False, f"{PING_PATH} did not answer within {limit}", True)
    except (ConnectionFailed, OSError) as error:
        return Ping(False, f"{PING_PATH} failed: {error}")
    finally:
        connection.close()
    if answer.status == 200:
        return Ping(True, f"{PING_PATH} answered 200", answered=True)
    own = _own_words(answer.body) if answer.status == 503 else None
    if own is not None:
        state, words = own
        text = f"{PING_PATH} answered 503: {words}"
        return Ping(False, text, told=True, failed=state == "failed", answered=True)
    body = " ".join(answer.body.decode("utf-8", errors="replace").split())
    reason = f": {body[:_BODY_SHOWN_CHARACTERS]}" if body else " with an empty body"
    return Ping(False, f"{PING_PATH} answered {answer.status}{reason}", answered=True)


def _own_words(body: bytes) -> tuple[str, str] | None:
    """State and words of a body in the form of byoa's own images; None for any other body."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    fields = {
        name: " ".join(value.split()) for name, value in document.items() if isinstance(value, str)
    }
    state, code, message = (fields.get(name) for name in ("state", "code", "message"))
    if not (state and code and message):
        return None
    words = message
    if fields.get("where"):
        words += f" ({fields['where']})"
    if fields.get("remedy"):
        words += f"; to do: {fields['remedy']}"
    if len(words) > _WORDS_SHOWN_CHARACTERS:
        words = f"{words[: _WORDS_SHOWN_CHARACTERS - 1]}…"
    return state, f"{words} [{code[:_CODE_SHOWN_CHARACTERS]}]"
