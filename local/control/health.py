"""GET /ping of a serving container, and the words for what it saw (HOST-20, HOST-21)."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from byoa.container.contract import DEFAULT_PORT, PING_PATH, PING_TIMEOUT_SECONDS
from byoa.local.runtime.connection import Connection, ConnectionFailed, Unreachable

_BODY_LIMIT_BYTES = 65_536
_BODY_SHOWN_CHARACTERS = 300
_REQUEST = (
    f"GET {PING_PATH} HTTP/1.1\r\nHost: localhost:{DEFAULT_PORT}\r\nConnection: close\r\n\r\n"
).encode()


@dataclass(frozen=True)
class Ping:
    """One look. Only the status 200 is healthy; the body is a reason, nothing more."""

    healthy: bool
    text: str
    timed_out: bool = False


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
        return Ping(True, f"{PING_PATH} answered 200")
    body = " ".join(answer.body.decode("utf-8", errors="replace").split())
    reason = f": {body[:_BODY_SHOWN_CHARACTERS]}" if body else " with an empty body"
    return Ping(False, f"{PING_PATH} answered {answer.status}{reason}")
