"""Stateful sessions: which instance of an endpoint keeps the context of which (SESS-01, SESS-02).

The container makes the id, says when it expires, and says when it has closed.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from byoa.local.runtime.routing import Backend

# The pattern of the API's NewSessionId.
_OPENED = re.compile(
    r"([a-zA-Z0-9](?:-*[a-zA-Z0-9])*);\sExpires=(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)"
)
_LIMIT_CHARACTERS = 256


class BadSession(Exception):
    """What the container says of its new session cannot be understood."""


def parse(value: str) -> tuple[str, float]:
    """The id in `<id>; Expires=<UTC>` and the epoch second of its end; raises BadSession."""
    match = _OPENED.fullmatch(value)
    if match is None or len(value) > _LIMIT_CHARACTERS:
        raise BadSession(value)
    try:
        moment = datetime.strptime(match[2], "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        raise BadSession(value) from None
    return match[1], moment.replace(tzinfo=timezone.utc).timestamp()


@dataclass(frozen=True)
class Session:
    """A session, and the start of the container that keeps it: the next one knows nothing of it."""

    backend: Backend
    start: int
    expires: float  # epoch seconds


class Sessions:
    """The sessions of one endpoint; safe for use by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def opened(self, value: str, backend: Backend) -> None:
        """Remember the session that `backend` tells of in its answer; raises BadSession."""
        opened, expires = parse(value)
        now = time.time()
        with self._lock:
            for name in [name for name, each in self._sessions.items() if each.expires <= now]:
                del self._sessions[name]
            self._sessions[opened] = Session(backend, backend.starts, expires)

    def closed(self, name: str) -> None:
        """Forget a session."""
        with self._lock:
            self._sessions.pop(name, None)

    def find(self, name: str) -> Backend | None:
        """The instance that keeps it; None where there is no such session, or no longer."""
        with self._lock:
            session = self._sessions.get(name)
            if session is None:
                return None
            if session.expires > time.time() and session.start == session.backend.starts:
                return session.backend
            del self._sessions[name]
            return None

    def keep(self, backends: Collection[Backend]) -> None:
        """Forget the sessions of all other instances."""
        with self._lock:
            for name in [n for n, each in self._sessions.items() if each.backend not in backends]:
                del self._sessions[name]
