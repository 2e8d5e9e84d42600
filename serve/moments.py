"""Jobs that are ready in the same round of an event loop, given to their model together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from byoa.serve.compute import Compute
from byoa.serve.core import Job
from byoa.serve.failures import log

# Is given the predictions of its job, a Future for them, or the exception to answer with.
Tell = Callable[[Any], None]


class Moments:
    """The jobs of this moment, gathered and not yet predicted, by what runs their model."""

    def __init__(self) -> None:
        self._jobs: dict[Compute, list[tuple[Job, Tell]]] = {}

    def add(self, job: Job, tell: Tell) -> None:
        """Predict a job with those whose requests the running loop finds complete in this round;
        then `tell` its outcome."""
        moment = self._jobs.get(job.compute)
        if moment is None:
            moment = self._jobs[job.compute] = []
            asyncio.get_running_loop().call_soon(self._predict, job.compute)
        moment.append((job, tell))

    def hurry(self) -> None:
        """Predict what has been gathered so far."""
        for compute in list(self._jobs):
            self._predict(compute)

    def _predict(self, compute: Compute) -> None:
        moment = self._jobs.pop(compute, None)
        if moment is None:
            return  # `hurry` has been sooner
        outcomes: Sequence[Any]
        try:
            outcomes = compute.attempt([job.work for job, _ in moment])
        except Exception as error:  # of ours: nobody may be left waiting
            outcomes = [error] * len(moment)
        for (_, tell), outcome in zip(moment, outcomes, strict=True):
            try:
                tell(outcome)
            except Exception:
                log.exception("an outcome could not be told")
