"""Prefetching: an iterator that runs ahead of its consumer on a thread, as far as a limit of bytes.

The thread ends with the iterator that the consumer holds: when that is read to its end, closed,
collected, or raises. The consumer never waits for the thread for ever: once `stopping` says so, a
wait for the next item ends after a moment.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

from byoa.container.errors import UnsupportedError

__all__ = ["Abandoned", "Stopped", "prefetch"]

STOP_PATIENCE_SECONDS = 1.0  # what is on its way may still come; 120 s are left in all (TRAIN-150)
CLOSE_SECONDS = 5.0  # for the thread to leave a read that nothing can interrupt
_LOOK_SECONDS = 0.25

T = TypeVar("T")


class Abandoned(Exception):
    """Raised in the thread: its consumer has gone, nobody waits for what it reads."""


class Stopped(Exception):
    """Raised in the consumer: a stop was asked for, and the next item did not come."""


def prefetch(
    produce: Callable[[Callable[[], bool]], Iterator[T]],
    *,
    weigh: Callable[[T], int],
    limit: int,
    stopping: Callable[[], bool],
    name: str,
) -> Generator[T, None, None]:
    """The items of `produce(abandoned)`, made by a thread of that name.

    The thread holds items of `limit` bytes at most, by `weigh`, or a single one. What it raises is
    raised here with its own traceback. A producer that waits asks `abandoned()` now and then, and
    raises Abandoned when it is true. Raises Stopped.
    """
    line = _Line[T](limit)
    thread = threading.Thread(target=_run, args=(line, produce, weigh), name=name, daemon=True)
    thread.start()
    try:
        while line.wait(stopping):
            yield line.take()
    finally:
        line.close(thread)


class _Line(Generic[T]):
    """What waits between the thread and its consumer."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.changed = threading.Condition()
        self.items: deque[tuple[T, int]] = deque()
        self.bytes = 0
        self.ended = False
        self.closed = False
        self.error: BaseException | None = None
        self.process = os.getpid()

    def put(self, item: T, weight: int) -> bool:
        """Add the item when there is room for it; False once nobody wants it."""
        with self.changed:
            while self.items and self.bytes + weight > self.limit and not self.closed:
                self.changed.wait()
            self.items.append((item, weight))
            self.bytes += weight
            self.changed.notify_all()
            return not self.closed

    def end(self, error: BaseException | None) -> None:
        with self.changed:
            self.error, self.ended = error, True
            self.changed.notify_all()

    def wait(self, stopping: Callable[[], bool]) -> bool:
        """Whether there is one more item, once that is known. Raises what the thread raised."""
        if os.getpid() != self.process:
            raise UnsupportedError(
                "BATCHES_FORKED", "the thread that reads the batches is in the parent process",
                expected="batches() is called in the process that iterates over it",
            )
        until: float | None = None
        with self.changed:
            while not self.items and not self.ended:
                self.changed.wait(_LOOK_SECONDS)
                if self.items or self.ended or not stopping():
                    continue
                now = time.monotonic()
                until = until or now + STOP_PATIENCE_SECONDS
                if now >= until:
                    raise Stopped
            if self.items:
                return True
            error, self.error = self.error, None
        if error is None:
            return False
        try:
            raise error
        finally:
            del error  # its traceback holds this frame

    def take(self) -> T:
        with self.changed:
            item, weight = self.items.popleft()
            self.bytes -= weight
            self.changed.notify_all()
            return item

    def close(self, thread: threading.Thread) -> None:
        """Let the thread end, and wait until it has closed what it reads."""
        if os.getpid() != self.process:
            return  # a copy in a forked child, whose lock may be held by a thread that is not there
        with self.changed:
            self.closed = True
            self.items.clear()
            self.changed.notify_all()
        # The collector may run this in the thread itself, or when Python ends and threads stand.
        if thread is not threading.current_thread() and not sys.is_finalizing():
            thread.join(CLOSE_SECONDS)


def _run(
    line: _Line[T],
    produce: Callable[[Callable[[], bool]], Iterator[T]],
    weigh: Callable[[T], int],
) -> None:
    items = produce(lambda: line.closed)
    error: BaseException | None = None
    try:
        try:
            for item in items:
                if not line.put(item, weigh(item)):
                    break
        finally:
            if isinstance(items, Generator):
                items.close()
    except Abandoned:
        pass
    except BaseException as raised:
        error = raised
    line.end(error)
