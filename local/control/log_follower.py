"""What a container prints, from the growing log file to CloudWatch and whoever else listens.

The file is the record: a server that starts again reads it from its beginning, and nothing is lost.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from byoa.local.settings import Caller

POLL_SECONDS = 0.1
CHUNK_BYTES = 1 << 20
TAIL_BYTES = 8192
FINISH_SECONDS = 60.0  # to read what is left of a log, after its writer has ended

NOTE_PREFIX = "byoa: "  # of what this service adds to a log

log = logging.getLogger(__name__)

Event = tuple[float, str]  # epoch seconds when the line was seen, and the line
Sink = Callable[[Sequence[Event]], None]


class LogService(Protocol):
    """The writer's side of CloudWatch Logs (`local.aws.logs.Logs`)."""

    def append(
        self, caller: Caller, group: str, stream: str, events: Sequence[Event]
    ) -> None: ...

    def delete_stream(self, caller: Caller, group: str, stream: str) -> None: ...


class LogFollower:
    """Follows one file in a thread of its own and hands its lines on in batches, in order.

    A sink's first failure is in the server's log; it gets the next batch all the same, and stops no
    other. Lines that the file holds before `start` carry the file's time: no server saw them come.
    """

    def __init__(self, path: Path, *sinks: Sink, poll: float = POLL_SECONDS) -> None:
        self._path = path
        self._sinks = sinks
        self._failed: list[Sink] = []
        self._poll = poll
        self._ended = threading.Event()
        self._rest = b""
        self._offset = 0
        self._backlog: tuple[int, float] = (0, 0.0)
        self._thread = threading.Thread(
            target=self._follow, name=f"log-{path.name}", daemon=True
        )

    def start(self) -> None:
        try:
            status = self._path.stat()
            self._backlog = (status.st_size, status.st_mtime)
        except FileNotFoundError:
            pass  # the container's first line makes the file
        self._thread.start()

    def finish(self, timeout: float = FINISH_SECONDS) -> None:
        """Hand on what is left, the last line without a newline included, and stop.

        Call it when nobody writes to the file any more.
        """
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _follow(self) -> None:
        while True:
            # Looked at before reading: what was written before the end is read in this round.
            last = self._ended.is_set()
            while self._read_chunk():
                pass
            if last:
                break
            self._ended.wait(self._poll)
        if self._rest:
            self._hand_on([self._rest], self._moment(self._offset))

    def _read_chunk(self) -> bool:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(CHUNK_BYTES)
        except FileNotFoundError:
            return False
        if not data:
            return False
        moment = self._moment(self._offset)
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines:
            self._hand_on(lines, moment)
        return True

    def _moment(self, offset: int) -> float:
        size, modified = self._backlog
        return modified if offset < size else time.time()

    def _hand_on(self, lines: Sequence[bytes], moment: float) -> None:
        events = [(moment, line.decode("utf-8", "replace")) for line in lines]
        for sink in self._sinks:
            try:
                sink(events)
            except Exception:
                if sink not in self._failed:
                    self._failed.append(sink)
                    log.exception("%d lines of %s are not handed on", len(events), self._path)


def begin(path: Path, note: str | None) -> None:
    """Begin a log with a line of byoa's own, if there is something to say and no log yet."""
    if note is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError), path.open("x", encoding="utf-8") as file:
        file.write(f"{NOTE_PREFIX}{note}\n")


def tail(path: Path, lines: int, *, patience: float = 0.0) -> str:
    """The last lines of a log, of its last 8 KiB; for the first one it waits so many seconds: an
    engine hands it on a moment after it was written."""
    until = time.monotonic() + patience
    while not (found := _end(path, lines)) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    return found


def _end(path: Path, lines: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])


def cloudwatch(logs: LogService, caller: Caller, group: str, stream: str) -> Sink:
    """A sink that appends to a log stream; one event a line, none for empty lines (WIRE-41)."""

    def append(events: Sequence[Event]) -> None:
        logs.append(caller, group, stream, events)

    return append


def mirror_path(home: Path, caller: Caller, group: str, stream: str) -> Path:
    """Where a stream's lines are as a file: the same path below the log directory (WIRE-42)."""
    base = home / "logs" / caller.account / caller.region
    return base.joinpath(*filter(None, [*group.split("/"), *stream.split("/")]))
