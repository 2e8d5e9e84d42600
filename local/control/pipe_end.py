"""The writing end of a FIFO whose reader takes what it wants, when it wants."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import threading
from typing import Any

PIPE_BYTES = 1 << 20  # what the kernel lets anybody ask for; it gives 64 KiB unasked
COPY_BYTES = 1 << 30  # at a time for the kernel
READ_BYTES = 1 << 18
GATHERED_BYTES = 1 << 16  # small records go to the reader together
LOOK_MILLISECONDS = 100  # a full pipe is waited for so long, then it is looked whether to go on

_CANNOT = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}  # of a file that cannot be spliced
_splice: Any = getattr(os, "splice", None)  # Linux's


class ReaderGone(Exception):
    """The reader has closed its end."""


class Ended(Exception):
    """Nothing more is to be written: the job is over."""


class PipeEnd:
    """Writes to `descriptor`, which does not block, until `ended` is set. Whoever opened it closes
    it. Everything raises ReaderGone or Ended."""

    def __init__(self, descriptor: int, ended: threading.Event) -> None:
        self._descriptor = descriptor
        self._ended = ended
        self._gathered = bytearray()
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):  # of a user who has too much in pipes already
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def write(self, data: bytes) -> None:
        """Write all of `data`, now or at the next `flush`."""
        self._gathered += data
        if len(self._gathered) >= GATHERED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        data = memoryview(bytes(self._gathered))
        self._gathered.clear()
        while data:
            data = data[self._when_free(os.write, self._descriptor, data):]

    def copy(self, file: int, length: int) -> None:
        """Write the first `length` bytes of an open file; the kernel moves them where it can.
        Raises OSError where the file cannot be read."""
        self.flush()
        offset = 0
        while offset < length and _splice is not None:
            count = min(length - offset, COPY_BYTES)
            try:
                moved = self._when_free(_splice, file, self._descriptor, count, offset)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                break
            if not moved:
                raise _shorter()
            offset += moved
        while offset < length:
            data = os.pread(file, min(length - offset, READ_BYTES), offset)
            if not data:
                raise _shorter()
            self.write(data)
            offset += len(data)

    def is_abandoned(self) -> bool:
        """Whether the reader has closed its end."""
        return any(event & select.POLLERR for _, event in self._poll.poll(0))

    def _when_free(self, call: Any, *arguments: Any) -> int:
        """What a call that may not block returns, when the pipe has room for it."""
        while not self._ended.is_set():
            try:
                return int(call(*arguments))
            except BlockingIOError:
                self._poll.poll(LOOK_MILLISECONDS)
            except BrokenPipeError:
                raise ReaderGone from None
        raise Ended


def _shorter() -> OSError:
    return OSError(errno.EIO, "a file became shorter while it was read")
