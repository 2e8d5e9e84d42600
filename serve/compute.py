"""The one thread of a worker process that runs the model, and when work may skip the hop to it.

A model is never called twice at the same time. Calls wait their turn on the model's thread, so
that whoever answers /ping stays free (TRAP-08). A model that has proved to be quick on the first
requests runs on the caller's thread while nothing else runs, until it proves otherwise.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from byoa.container.errors import ByoaError

Result = TypeVar("Result")
_Item = tuple[Callable[[], Any], "Future[Any]", bool]

QUICK_SECONDS = 0.001  # a hop to another thread and back costs about a tenth of it
PROOFS = 20  # requests that must have been quick on the model's thread first
STRIKE_SECONDS = 0.5  # a call this long on the caller's thread holds up /ping …
STRIKES = 3  # … and after this many the model's times are not to be trusted
_DECAY = 0.9


class ServerBusy(ByoaError):
    """As many requests as the limit already wait for the model."""


class Compute:
    """The model's thread. `submit` and `attempt` may be called from any thread."""

    def __init__(self, *, limit: int, inline: bool = True) -> None:
        self._limit = limit
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._running = threading.Lock()
        self._inline = inline
        self._estimate = 0.0  # seconds of a request on the model
        self._observed = 0
        self._strikes = 0
        self._since: float | None = None
        self._thread = threading.Thread(target=self._loop, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end after the work that is queued."""
        self._queue.put(None)

    @property
    def quick(self) -> bool:
        """Whether the model is measured to be quick enough to run on the caller's thread."""
        return (
            self._inline
            and self._observed >= PROOFS
            and self._estimate < QUICK_SECONDS
            and self._strikes < STRIKES
        )

    @property
    def busy_seconds(self) -> float:
        """How long the work on the model's thread has been running, 0 when idle."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def submit(self, work: Callable[[], Result], *, measured: bool = True) -> Future[Result]:
        """Queue `work` for the model's thread; raises ServerBusy beyond the limit.

        `measured` is False for work that says nothing about a request's time, such as loading.
        """
        if self._queue.qsize() >= self._limit:
            raise ServerBusy(
                "QUEUE_FULL",
                f"{self._limit} requests already wait for the model",
                expected="at most BYOA_QUEUE_LIMIT requests waiting in a worker",
                remedy="try again, send several records in one request, or add instances",
            )
        future: Future[Result] = Future()
        self._queue.put((work, future, measured))
        return future

    def attempt(self, work: Callable[[], Result]) -> Result | Future[Result]:
        """The result at once where the model is quick and not held, else a future for it."""
        if self.quick and self._running.acquire(timeout=QUICK_SECONDS):
            started = time.perf_counter()
            try:
                return work()
            finally:
                seconds = time.perf_counter() - started
                self._running.release()
                self.observe(seconds)
                if seconds > STRIKE_SECONDS:
                    self._strikes += 1
        return self.submit(work)

    def observe(self, seconds: float) -> None:
        """Take a request's time on the model into account."""
        # A peak that decays: one slow call sends the next dozens to the thread.
        self._estimate = max(seconds, _DECAY * self._estimate + (1 - _DECAY) * seconds)
        self._observed += 1

    def _loop(self) -> None:
        while (item := self._queue.get()) is not None:
            work, future, measured = item
            if not future.set_running_or_notify_cancel():
                continue  # its request gave up while it waited
            result: Any = None
            failure: BaseException | None = None
            with self._running:
                self._since = time.monotonic()
                started = time.perf_counter()
                try:
                    result = work()
                except BaseException as error:
                    failure = error
                seconds = time.perf_counter() - started
                self._since = None
            if measured:
                self.observe(seconds)
            # Only now: whoever waits may run the next request itself.
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)
            del item, work, future, result, failure  # a waiting thread must not keep a batch alive
