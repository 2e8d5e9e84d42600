"""gunicorn's master, and what it and the workers tell each other."""

from __future__ import annotations

import mmap

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer


class Board:
    """What all workers share: which of them have had the model, and whether a failure is told."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        # Anonymous and shared, so that it outlives the fork: one byte a worker, one for telling.
        self._memory = mmap.mmap(-1, workers + 1)

    @property
    def ready(self) -> int:
        """How many workers of the plan have loaded the model, now or before they were replaced."""
        return sum(self._memory[: self._workers])

    @property
    def complete(self) -> bool:
        return self.ready == self._workers

    def set_ready(self, slot: int) -> None:
        if slot < self._workers:
            self._memory[slot] = 1

    def first_to_tell(self) -> bool:
        first = self._memory[self._workers] == 0
        self._memory[self._workers] = 1
        return first


class Master(Arbiter):  # type: ignore[misc]
    """gunicorn's master, which stops in order when several workers fail."""

    def reap_workers(self) -> None:
        # gunicorn stops at the first worker that failed, and the second one's failure would break
        # that off with a traceback, after the sentence that tells the reason.
        while True:
            try:
                super().reap_workers()
            except HaltServer:
                if self.LISTENERS:
                    raise
                continue  # stopping already; one worker fewer is left
            return
