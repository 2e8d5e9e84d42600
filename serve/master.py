"""gunicorn's master, what it and the workers tell each other, and how many workers it keeps."""

from __future__ import annotations

import mmap
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from byoa.container.hardware import oom_kills, size
from byoa.serve.plan import Plan

# Worker processes that may die before any of them has loaded the model.
_DEATHS_BEFORE_READY = 3
# So many that end within so many seconds are no accident: /ping says so.
_CRASHES, _CRASH_SECONDS = 5, 60.0


class Board:
    """What master and workers share: which workers have had the model, how many there are to be,
    whether a failure is told, and whether workers end again and again."""

    def __init__(self, workers: int) -> None:
        # Anonymous and shared, so that it outlives the fork: five numbers, then a byte a worker.
        memory = memoryview(mmap.mmap(-1, 40 + workers))
        self._numbers = memory[:40].cast("q")
        self._loaded = memory[40 : 40 + workers]
        self.wanted = workers

    @property
    def ready(self) -> int:
        """How many workers of the plan have loaded the model, now or before they were replaced."""
        return sum(self._loaded)

    @property
    def complete(self) -> bool:
        return self.ready >= min(self.wanted, len(self._loaded))

    def set_ready(self, slot: int, resident_bytes: int = 0, shared_bytes: int = 0) -> None:
        """`resident_bytes`: what the worker takes with its model; `shared_bytes`: what of it the
        next worker does not take once more."""
        if slot < len(self._loaded):
            self._loaded[slot] = 1
            if resident_bytes - shared_bytes > self.resident - self.shared:
                self._numbers[1], self._numbers[4] = resident_bytes, shared_bytes

    def first_to_tell(self) -> bool:
        first = self._numbers[3] == 0
        self._numbers[3] = 1
        return first

    @property
    def wanted(self) -> int:
        """How many workers there are to be."""
        return self._numbers[0]

    @wanted.setter
    def wanted(self, workers: int) -> None:
        self._numbers[0] = workers

    @property
    def resident(self) -> int:
        """Bytes that a worker takes with its model, 0 before the first has loaded it."""
        return self._numbers[1]

    @property
    def shared(self) -> int:
        """How many of these bytes all workers have in common: files that are mapped, and what the
        master loaded."""
        return self._numbers[4]

    @property
    def crashes(self) -> int:
        """How many workers have ended lately, where those are too many; else 0."""
        return self._numbers[2]

    @crashes.setter
    def crashes(self, count: int) -> None:
        self._numbers[2] = count


class Crew:
    """How many workers there are to be, in the master: fewer than planned where memory is short."""

    def __init__(self, plan: Plan, board: Board, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._board = board
        self._say = say
        self._measured = not plan.measure
        self._killed = oom_kills() or 0
        self._deaths = 0  # before the model was loaded
        self._ends: deque[float] = deque(maxlen=_CRASHES)
        self._told: set[int] = set()

    def wanted(self) -> int:
        """Looked at once a second."""
        board = self._board
        if board.crashes and time.monotonic() - self._ends[-1] > _CRASH_SECONDS:
            board.crashes = 0
        if self._measured:
            return board.wanted
        if not board.resident:
            return 1  # the first one is measured
        self._measured = True
        own = max(1, board.resident - board.shared)
        fit = max(1, min(self._plan.workers, (self._plan.memory - board.shared) // own))
        board.wanted = fit
        common = f", {size(board.shared)} of it shared" if board.shared else ""
        self._say(
            f"a worker takes {size(board.resident)} with the model{common}: {fit} of"
            f" {self._plan.workers} are started in {size(self._plan.memory)}"
        )
        return fit

    def told(self, pid: int) -> None:
        """The worker is about to be told to end."""
        self._told.add(pid)

    def more(self, change: int) -> None:
        """So many workers more are wanted, or fewer."""
        self._board.wanted = max(1, self._board.wanted + change)

    def ended(self, pid: int) -> None:
        """A worker has ended. Raises HaltServer where it was not told to, and it is no use to start
        another one."""
        if pid in self._told:
            self._told.remove(pid)
            return
        board = self._board
        killed = oom_kills() or 0
        if killed > self._killed and board.wanted > 1:
            board.wanted -= 1
            self._say(
                f"a worker was killed for memory: {board.wanted} from now on; to do: set"
                f" BYOA_WORKERS={board.wanted}, or take an instance with more memory"
            )
        self._killed = killed
        if not board.complete:
            self._deaths += 1
            if self._deaths >= _DEATHS_BEFORE_READY:
                raise HaltServer(f"{self._deaths} workers died while they loaded the model", 1)
            return
        now = time.monotonic()
        self._ends.append(now)
        if len(self._ends) == _CRASHES and now - self._ends[0] < _CRASH_SECONDS:
            if not board.crashes:
                self._say(
                    f"{_CRASHES} workers have ended within {_CRASH_SECONDS:g} s: /ping answers 503"
                    " until that stops"
                )
            board.crashes = _CRASHES


class Master(Arbiter):  # type: ignore[misc]
    """gunicorn's master, which keeps as many workers as there are to be, and stops in order when
    several fail."""

    num_workers: Any  # gunicorn's property

    def __init__(self, app: Any, crew: Crew) -> None:
        self._crew = crew
        super().__init__(app)

    def manage_workers(self) -> None:
        wanted = self._crew.wanted()
        if wanted != self.num_workers:
            self.num_workers = wanted
        super().manage_workers()

    def kill_worker(self, pid: int, sig: int) -> None:
        if sig in (signal.SIGTERM, signal.SIGQUIT):  # what is hung is aborted instead
            self._crew.told(pid)
        super().kill_worker(pid, sig)

    def handle_ttin(self) -> None:
        self._crew.more(1)

    def handle_ttou(self) -> None:
        self._crew.more(-1)

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
