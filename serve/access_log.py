"""One JSON line on stdout for each request, written beside the work (BYOA_ACCESS_LOG).

Whoever answers a request only puts its facts into a queue. A thread encodes and writes them; where
stdout is slower than the requests, lines are dropped, counted, and their number is told.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

Line = dict[str, Any]  # what is None is left out

_LIMIT_LINES = 10_000
# Lines of several processes meet in one pipe: up to this many bytes at once they stay whole.
_ATOMIC_BYTES = 4096
_PAUSE_SECONDS = 0.05  # what comes meanwhile is written together
STDOUT = 1


class AccessLog:
    """`write` may be called from any thread, and never waits."""

    def __init__(
        self, *, descriptor: int = STDOUT, limit: int = _LIMIT_LINES,
        on_drop: Callable[[], None] = lambda: None,
    ) -> None:
        self._descriptor = descriptor
        self._limit = limit
        self._on_drop = on_drop
        self._lines: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        self._dropped = 0
        self._told = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    def write(self, line: Line) -> None:
        """Queue a line; `time` in it is seconds since 1970."""
        if self._lines.qsize() >= self._limit:
            self._dropped += 1
            self._on_drop()
        else:
            self._lines.put(line)

    def close(self, seconds: float) -> None:
        """Write what is queued, for `seconds` at most."""
        self._closed.set()
        self._lines.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            while (line := self._lines.get()) is not None:
                self._closed.wait(_PAUSE_SECONDS)
                if not self._write_all(line):
                    return
        except OSError:  # nobody reads stdout any more
            self._limit = 0

    def _write_all(self, line: Line) -> bool:
        """Write this line and what is queued behind it; whether there may be more."""
        part = b""
        waiting: Line | None = line
        more = True
        while waiting is not None:
            encoded = _encoded(waiting)
            if len(part) + len(encoded) > _ATOMIC_BYTES:
                self._put(part)
                part = b""
            part += encoded
            try:
                waiting = self._lines.get_nowait()
                more = waiting is not None
            except queue.Empty:
                break
        self._put(part)
        dropped = self._dropped
        if dropped > self._told:
            self._put(_encoded({
                "time": time.time(), "message": "stdout is slow: lines were dropped",
                "dropped": dropped - self._told,
            }))
            self._told = dropped
        return more

    def _put(self, part: bytes) -> None:
        while part:
            try:
                part = part[os.write(self._descriptor, part) :]
            except BlockingIOError:  # whoever shares stdout has made it so
                time.sleep(_PAUSE_SECONDS)


def _encoded(line: Line) -> bytes:
    when = datetime.fromtimestamp(line["time"], timezone.utc)
    stamp = when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    facts = {name: value for name, value in line.items() if value is not None}
    return json.dumps({**facts, "time": stamp}, separators=(",", ":")).encode() + b"\n"
