"""A request that one call answers whole: an inference script's handlers, or a predict that yields.

It runs on the model's thread, or on the caller's where the model has proved to be quick. What
yields is opened on the model's thread in any case, and stays there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from byoa.container.errors import AlgorithmError
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
    quick: bool  # whether the caller's thread may run it
    seconds: float
    on_failed: Callable[[Exception], None]
    since: float  # when it was made, by time.perf_counter

    def start(self) -> Any:
        """The answer where it comes at once, else a Future for it; raises what `respond` does."""
        if not self.quick:
            return self.compute.submit(self._run, measured=False)
        outcome = self.compute.call(self._run)
        if isinstance(outcome, Pieces):
            given = outcome
            return self.compute.submit(lambda: self._open(given), measured=False)
        return outcome

    def _run(self) -> Answer | Pieces:
        started = time.perf_counter()
        outcome = self.respond()
        if self.request.visit is not None and self.request.visit.logged:
            seconds = time.perf_counter() - started
            self.request.visit.timing = Timing(None, None, started - self.since, seconds)
        if isinstance(outcome, Pieces) and self.compute.is_here:
            return self._open(outcome)
        return outcome

    def _open(self, given: Pieces) -> Answer:
        try:
            chunks, content_type = opened(given)
            stream = Stream(chunks, self.compute, self.seconds, self.on_failed).begin()
        except Exception:
            raise
        except BaseException as error:  # the end of the worker, were it let through
            raise AlgorithmError(
                "PREDICT_ENDED", f"what yields raised {type(error).__name__}({error})",
                expected="it ends, or raises an exception that tells what went wrong",
            ) from error
        return Answer(200, stream, content_type, given.headers)
