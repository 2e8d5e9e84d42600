"""An answer that is sent while it is made: what yields is read on the model's thread, piece by
piece, and what has been read waits here for the client.

A piece is a piece of work like any other, so streams of one model take turns, other requests come
in between, and a model is still never called twice at the same time. A client that is slow to read
stops its own stream only; one that went away ends it, by closing the generator.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from byoa.container.errors import ByoaError, text_of
from byoa.serve.busy import streams_full
from byoa.serve.compute import Compute

log = logging.getLogger("byoa.serve")

BUFFER_CHUNKS = 64
BUFFER_BYTES = 1 << 20
SLICE_SECONDS = 0.05  # on the model's thread without a look at what else there is to do


class StreamBroken(Exception):
    """The stream ended before its end; why is in the log. The connection must end so, too."""


class Stream:
    """`begin` on the model's thread, then `take` or iterate on any other, then `close`.

    `seconds` is the limit for all of it (HOST-31). `on_failed` is told what broke it.
    """

    def __init__(
        self, chunks: Iterator[bytes], compute: Compute, seconds: float,
        on_failed: Callable[[Exception], None],
    ) -> None:
        self._source = chunks
        self._compute = compute
        self._until = time.monotonic() + seconds
        self._seconds = seconds
        self._on_failed = on_failed
        self._on_more: Callable[[], object] = lambda: None
        self._more = threading.Condition()
        self._ready: deque[bytes] = deque()
        self._bytes = 0
        self._working = False  # a step is queued or under way
        self._ended = self._broken = self._closed = False

    def begin(self) -> Stream:
        """Read the first piece; what it raises comes through, for nothing has been sent yet
        (STRM-06)."""
        if not self._compute.open_stream():
            raise streams_full()
        try:
            self._read()
        except BaseException:
            self._end()
            raise
        if not self._ended:
            self._working = True
            self._compute.resume(self._step)
        return self

    @property
    def remaining(self) -> float:
        """Seconds until the limit."""
        return max(0.0, self._until - time.monotonic())

    def on_more(self, callback: Callable[[], object]) -> None:
        """Call this, on the model's thread, whenever there is more to take."""
        self._on_more = callback

    def take(self) -> bytes | None:
        """What has come, b"" where nothing has, None at the end. Raises StreamBroken."""
        with self._more:
            if not self._ended and self.remaining == 0.0:
                self._expire()
            data = b"".join(self._ready)
            self._ready.clear()
            self._bytes = 0
            if not data:
                if self._broken:
                    raise StreamBroken
                if self._ended:
                    return None
            resume = not (self._working or self._ended or self._closed)
            self._working = self._working or resume
        if resume:
            self._compute.resume(self._step)
        return data

    def __iter__(self) -> Iterator[bytes]:
        """For a door that waits: every piece as it comes. Raises StreamBroken."""
        while (data := self.take()) is not None:
            if data:
                yield data
                continue
            with self._more:
                self._more.wait_for(lambda: self._ready or self._ended, self.remaining)

    def close(self) -> None:
        """Let go of what is left: the client has it all, or has gone."""
        with self._more:
            self._closed = True
            if self._ended or self._working:  # a step will see it
                return
            self._working = True
        self._compute.resume(self._step)

    # --- on the model's thread ---

    def _step(self) -> None:
        until = time.monotonic() + SLICE_SECONDS
        try:
            while not self._ended:
                if self._closed:
                    self._end()
                    return
                self._read()
                with self._more:
                    if self._ended or self._is_full():
                        self._working = False
                        return
                if self._compute.queued or time.monotonic() > until:
                    self._compute.resume(self._step)
                    return
        except BaseException as error:  # an author's sys.exit must not end the model's thread
            failure = error if isinstance(error, Exception) else RuntimeError(
                f"{type(error).__name__}({text_of(error)})"
            )
            self._break(failure)

    def _read(self) -> None:
        """One piece more, or the end."""
        chunk = next(self._source, None)
        with self._more:
            if chunk is None:
                self._end()
            elif chunk:
                self._ready.append(chunk)
                self._bytes += len(chunk)
            self._more.notify_all()
        self._on_more()

    def _is_full(self) -> bool:
        return len(self._ready) >= BUFFER_CHUNKS or self._bytes >= BUFFER_BYTES

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._compute.close_stream()
        close = getattr(self._source, "close", None)
        if close is None:
            return
        try:
            close()
        except Exception:
            log.exception("a generator of predictions failed as it was closed")

    def _break(self, error: Exception) -> None:
        with self._more:
            self._broken = True
            self._end()
            self._more.notify_all()
        self._on_failed(error)
        self._on_more()

    def _expire(self) -> None:
        """Called by the door: the model's thread may be busy with this very stream."""
        self._broken = self._closed = True
        self._on_failed(ByoaError(
            "STREAM_TIMEOUT", f"the answer was not whole within {self._seconds:g} s",
            expected="a stream that ends within BYOA_STREAM_SECONDS",
            remedy="answer with less, or raise the variable where the platform's own limit allows",
        ))
        raise StreamBroken
