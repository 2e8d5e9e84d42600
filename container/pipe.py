"""Pipe channels: a FIFO an epoch, `<channel>_<n>`, read once and one at a time (TRAIN-94 … 96)."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from byoa.container.errors import ContractError, UnsupportedError
from byoa.container.prefetch import Abandoned

__all__ = ["PATIENCE_SECONDS", "Fifo", "Pipe"]

PATIENCE_SECONDS = 600.0  # for a FIFO to appear, and for its next byte
_LOOK_SECONDS = 0.02
_BUSY_SECONDS = 5.0  # for the reader of the last FIFO, which has been told to, to close it
_CAPACITY_BYTES = 1 << 20  # the most that Linux grants to anybody; 16 times the default


class Pipe:
    """The FIFOs of one channel. Threads may share it, but only one reads at a time (TRAIN-95)."""

    def __init__(
        self, channel: str, path: Callable[[int], Path], patience: float = PATIENCE_SECONDS
    ) -> None:
        self.channel = channel
        self.patience = patience
        self._path = path
        self._next = 0
        self._reading = threading.Lock()

    def open(self, abandoned: Callable[[], bool]) -> Fifo:
        """The next FIFO, as soon as it is there. Raises Abandoned, ContractError PIPE_MISSING,
        UnsupportedError PIPE_BUSY."""
        if not self._reading.acquire(timeout=_BUSY_SECONDS):
            raise UnsupportedError(
                "PIPE_BUSY", f"channel {self.channel!r} is being read already",
                expected="one pass over a Pipe channel at a time: the platform writes one FIFO"
                " after the other (TRAIN-95)",
                remedy="read the first iterator to its end, or close() it, before the next one",
            )
        try:
            fifo = Fifo(self._appeared(abandoned), abandoned, self.patience, self._reading.release)
        except BaseException:
            self._reading.release()
            raise
        self._next += 1
        return fifo

    def _appeared(self, abandoned: Callable[[], bool]) -> Path:
        """The path of the next FIFO; the platform may make it only now (TRAIN-96)."""
        path = self._path(self._next)
        until = time.monotonic() + self.patience
        while True:
            try:
                mode = path.stat().st_mode
            except FileNotFoundError:
                pass
            else:
                if stat.S_ISFIFO(mode):
                    return path
                raise ContractError(
                    "PIPE_NOT_A_FIFO", "it is no FIFO", where=str(path),
                    expected="the platform makes a FIFO for each epoch of a Pipe channel",
                )
            if abandoned():
                raise Abandoned
            if time.monotonic() > until:
                raise ContractError(
                    "PIPE_MISSING", f"it did not appear within {self.patience:g} s",
                    where=str(path),
                    expected="the platform makes a Pipe channel's next FIFO at latest when the last"
                    " one has been closed",
                    remedy="FastFile needs no FIFO and streams from S3 as well",
                )
            time.sleep(_LOOK_SECONDS)


class Fifo(io.RawIOBase):
    """A FIFO's read end. Its reads wait for bytes, but end when nobody wants these any more."""

    def __init__(
        self, path: Path, abandoned: Callable[[], bool], patience: float,
        closed: Callable[[], None],
    ) -> None:
        self.name = path.name
        self._path = path
        self._abandoned = abandoned
        self._patience = patience
        self._on_close = closed
        # Without O_NONBLOCK, open would wait for the writer, and nothing could end that wait.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # the user's share of pipe memory is used up
                fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, _CAPACITY_BYTES)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Bytes as they come; 0 when the writer has closed. Raises Abandoned, ContractError
        PIPE_SILENT."""
        until = time.monotonic() + self._patience
        while True:
            # Before its first writer a FIFO reads as ended, but does not poll so.
            if self._poll.poll(_LOOK_SECONDS * 1000):
                with contextlib.suppress(BlockingIOError):
                    return os.readv(self._descriptor, [buffer])
            if self._abandoned():
                raise Abandoned
            if time.monotonic() > until:
                raise ContractError(
                    "PIPE_SILENT", f"no byte came within {self._patience:g} s, and no end",
                    where=str(self._path),
                    expected="the platform writes the channel's objects and closes the FIFO",
                )

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
            self._on_close()
        super().close()
