"""A request that one call answers whole: an inference script's handlers, or a predict that yields.

It runs on the model's thread, always: what an author's functions open there (a database, a loop of
asyncio, torch's modes) is that thread's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from byoa.container.errors import AlgorithmError, text_of
from byoa.serve.compute import Compute
from byoa.serve.messages import Answer, Request
from byoa.serve.pieces import Pieces, opened
from byoa.serve.streaming import Stream
from byoa.serve.visit import Timing


class Call(NamedTuple):
    """`respond` gives the answer, or what yields it; `seconds`, `on_failed`: of a stream."""

    request: Request
    compute: Compute
    respond: Callable[[], Answer | Pieces]
    measured: bool  # whether its time tells how quick the model is
    seconds: float
    on_failed: Callable[[Exception], None]
    since: float  # when it was made, by time.perf_counter

    def start(self) -> Future[Answer]:
        """The answer to come. Raises ServerBusy."""
        return self.compute.submit(self._run, measured=self.measured)

    def _run(self) -> Answer:
        started = time.perf_counter()
        try:
            outcome = self.respond()
            answer = self._open(outcome) if isinstance(outcome, Pieces) else outcome
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, StopIteration):
                raise
            # The others mean something to the server: the end of the worker, a task or a loop.
            raise AlgorithmError(
                "PREDICT_ENDED", f"the author's code raised"
                f" {type(error).__name__}({text_of(error)})",
                expected="functions that return, yield, or raise an exception that tells what went"
                " wrong",
            ) from error
        if self.request.visit is not None and self.request.visit.logged:
            seconds = time.perf_counter() - started
            self.request.visit.timing = Timing(None, None, started - self.since, seconds)
        return answer

    def _open(self, given: Pieces) -> Answer:
        chunks, content_type, told = opened(given)
        stream = Stream(chunks, self.compute, self.seconds, self.on_failed).begin()
        return Answer(told.status, stream, content_type, told.headers)
