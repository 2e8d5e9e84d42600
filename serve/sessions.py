"""Stateful sessions: what an inference script keeps between the requests of one caller (SESS-01 …
SESS-03).

A session is a directory in memory (/dev/shm) that all workers of the server see; the platform sends
every request of a session to the same instance. It is opened and closed by requests that the server
answers itself; all others are given to the script with it, as `context.session`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from byoa.container.errors import ByoaError, DataError
from byoa.serve.messages import Answer, Request

HEADER = "x-amzn-sagemaker-session-id"
NEW_HEADER = "X-Amzn-SageMaker-New-Session-Id"
CLOSED_HEADER = "X-Amzn-SageMaker-Closed-Session-Id"
NEW, CLOSE = "NEW_SESSION", "CLOSE"
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_EXPIRES = ".expires"
_REQUEST_TYPE = "requestType"
_ASKING_BYTES = 1024  # a body that opens or closes a session is no longer


class SessionLost(ByoaError):
    """The session is not there, or no longer: 424."""


class Session:
    """`path` is the session's own directory, for files; `get` and `put` keep JSON values in it."""

    def __init__(self, session_id: str, path: Path, expires: float) -> None:
        self.id = session_id
        self.path = path
        self.expires = expires  # seconds since the epoch

    def get(self, key: str, default: Any = None) -> Any:
        try:
            return json.loads(self._file(key).read_bytes())
        except FileNotFoundError:
            return default

    def put(self, key: str, value: Any) -> None:
        """Replace the value whole: another request of the session may read it meanwhile."""
        path, text = self._file(key), json.dumps(value)
        with tempfile.NamedTemporaryFile("w", dir=self.path, prefix=".", delete=False) as file:
            file.write(text)
        os.replace(file.name, path)

    def _file(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(
                f"the session's key {key!r} is none: letters, digits, '_', '.' and '-', up to 200"
            )
        return self.path / key


class Sessions:
    """The sessions of a server, in `directory`; each lives for `seconds`."""

    def __init__(self, directory: Path, seconds: float) -> None:
        self._directory = directory
        self._seconds = seconds

    def of(self, request: Request) -> Session | Answer | None:
        """The session of a request, None where it has none, or the answer where it opens or closes
        one. Raises SessionLost and DataError."""
        session_id = request.headers.get(HEADER, "")
        asked = _asked(request)
        if NEW in (session_id, asked):
            return self._open()
        if not session_id:
            if asked == CLOSE:
                raise DataError(
                    "SESSION_MISSING", "the request names no session to close",
                    expected=f"the session's id as SessionId, in the header {HEADER}",
                )
            return None
        if not _ID.fullmatch(session_id):
            raise DataError(
                "SESSION_INVALID", f"{session_id[:60]!r} is no session's id",
                expected=f"{NEW}, or the id that {NEW_HEADER} gave",
            )
        session = self._find(session_id)
        if asked != CLOSE:
            return session
        shutil.rmtree(session.path, ignore_errors=True)
        return _told({"sessionId": session_id, "state": "closed"}, (CLOSED_HEADER, session_id))

    def _open(self) -> Answer:
        self._sweep()
        session_id = str(uuid.uuid4())
        expires = time.time() + self._seconds
        path = self._directory / session_id
        path.mkdir(parents=True, mode=0o700)
        (path / _EXPIRES).write_text(repr(expires))
        until = f"{datetime.fromtimestamp(expires, timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
        return _told(
            {"sessionId": session_id, "expires": until},
            (NEW_HEADER, f"{session_id}; Expires={until}"),
        )

    def _find(self, session_id: str) -> Session:
        path = self._directory / session_id
        expires = _expires(path)
        if expires is None or expires < time.time():
            shutil.rmtree(path, ignore_errors=True)
            raise SessionLost(
                "SESSION_LOST", f"there is no session {session_id}, or it has expired",
                expected=f"a session of the last {self._seconds:g} s"
                " (SAGEMAKER_SESSIONS_EXPIRATION) that has not been closed",
                remedy=f"open another one with SessionId={NEW}",
            )
        return Session(session_id, path, expires)

    def _sweep(self) -> None:
        for path in self._paths():
            expires = _expires(path)
            if expires is not None and expires < time.time():
                shutil.rmtree(path, ignore_errors=True)

    def _paths(self) -> Iterator[Path]:
        try:
            yield from self._directory.iterdir()
        except FileNotFoundError:
            return


def _expires(path: Path) -> float | None:
    try:
        return float((path / _EXPIRES).read_text())
    except (OSError, ValueError):
        return None


def _asked(request: Request) -> str | None:
    if len(request.body) > _ASKING_BYTES or _REQUEST_TYPE.encode() not in request.body:
        return None
    try:
        document = json.loads(request.body)
    except (ValueError, RecursionError):
        return None
    asked = document.get(_REQUEST_TYPE) if isinstance(document, dict) else None
    return asked if isinstance(asked, str) else None


def _told(document: dict[str, str], header: tuple[str, str]) -> Answer:
    return Answer(200, json.dumps(document).encode(), headers=(header,))
