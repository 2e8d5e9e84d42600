"""A container's output from the engine's own record to the log file, each byte once.

The engine keeps every line until the container is removed, and replays them in one order. What the
file holds already is skipped, so that a server goes on where an earlier one was killed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import docker.errors

from byoa.local.runners.docker_errors import BROKEN, status

# Whatever the engine's own default is, nothing is rotated away before it is read. Of its drivers
# `local` would keep bytes that are no text, too, but drops the newline of a line over 16 kB.
LOG_CONFIG = {
    "type": "json-file", "config": {"max-size": "1000t", "max-file": "1", "compress": "false"}
}

PAUSE_SECONDS = 0.2  # before a broken stream is read again
RELATIVE_PAUSE = 5.0  # to the time that reading the whole record took
STALL_SECONDS = 5.0  # without progress, after the container's end, a stream is given up
FINISH_SECONDS = 30.0  # of failing to write or read the rest

log = logging.getLogger("byoa.docker")


class LogPump:
    """Copies one container's output; `offset` is the file's size before its first byte.

    Podman's followed stream drops lines of a burst: there the whole record is read again and again,
    with pauses that grow with it (`follow` False).
    """

    def __init__(
        self, api: Any, container: str, path: Path, offset: int, *, follow: bool = True
    ) -> None:
        self._api = api
        self._follow = follow
        self._container = container
        self._path = path
        self._offset = offset
        self._last = b""  # the last entry seen, with its time
        self._moved = time.monotonic()
        self._ended = threading.Event()
        self._lock = threading.Lock()  # one stream at a time writes
        self._given_up = False
        self._left = False
        self._thread = threading.Thread(
            target=self._pump, name=f"docker-log-{container[:12]}", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def leave(self) -> None:
        """Write nothing from here on: the next server does."""
        with self._lock:
            self._left = self._given_up = True

    def finish(self) -> None:
        """Return when the file has everything; call it after the container's end."""
        self._ended.set()
        while self._thread.is_alive():
            self._thread.join(0.5)
            if time.monotonic() - self._moved > STALL_SECONDS:
                break
        with self._lock:
            self._given_up = True  # of the followed stream: from here on nobody else writes
        deadline = time.monotonic() + FINISH_SECONDS
        problem: Exception | None = None
        pause = 0.0
        while True:
            try:
                # A followed stream may end before the last lines, and the SDK takes a broken one
                # for one that ended: the engine's last entry tells.
                if self._api.logs(self._container, timestamps=True, tail=1) == self._last:
                    return
                self._copy(follow=False)
                if not self._follow:  # Podman's last entry is not the last of the whole
                    return
            except BROKEN as error:
                if _is_gone(error):
                    return
                problem = error
            if time.monotonic() > deadline:
                log.error("the end of %s cannot be written: %s", self._path, problem or "it grows")
                return
            time.sleep(pause)
            pause = PAUSE_SECONDS

    def abandon(self) -> None:
        """Stop following a container that nobody can ask about any more."""
        self._given_up = True
        self._ended.set()

    def _pump(self) -> None:
        told = False
        while True:
            began, pause = time.monotonic(), PAUSE_SECONDS
            try:
                self._copy(follow=self._follow)
                told = False
                if not self._follow:
                    pause += RELATIVE_PAUSE * (time.monotonic() - began)
            except BROKEN as error:
                if _is_gone(error):
                    return
                if not told:
                    log.warning("the log %s is interrupted: %s", self._path, error)
                told = True
            if self._ended.wait(pause) or self._given_up:
                return

    def _copy(self, *, follow: bool) -> None:
        """Append what the file lacks; raises one of BROKEN."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        stream, whole = None, False
        try:
            skip = os.fstat(file).st_size - self._offset
            # With timestamps each entry of the engine's record is one item: "<time> <bytes>".
            stream = self._api.logs(
                self._container, stream=True, follow=follow, timestamps=True
            )
            for entry in stream:
                data = entry.partition(b" ")[2]
                with self._lock:
                    if self._left or (follow and self._given_up):
                        return
                    if skip < len(data):
                        _write(file, data[max(0, skip) :])
                    skip -= len(data)
                    self._last, self._moved = entry, time.monotonic()
            whole = True
        finally:
            os.close(file)
            if stream is not None and not whole:
                with contextlib.suppress(Exception):  # the SDK reaches for the socket itself
                    stream.close()
                    stream._response.close()  # which it leaves to the garbage collector


def _is_gone(error: Exception) -> bool:
    """Whether somebody removed the container, or is about to."""
    return isinstance(error, docker.errors.APIError) and status(error) in (404, 409)


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
