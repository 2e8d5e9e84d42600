"""How long a worker looks for the next request before it sleeps.

A client that waits for each answer before it asks again may send its next request less than 0.1 ms
after the answer. By then the event loop sleeps in the kernel, and so, mostly, does its CPU: to wake
both was a quarter of what a small request took. So after an answer the loop goes on looking for a
moment. Where nothing comes within it, it looks ever more rarely, until requests follow one another
again: what serves a few requests a second sleeps.
"""

from __future__ import annotations

import asyncio
import time

FORGIVEN = 8  # requests in a row that came while it looked halve its caution
MOST_PASSED = 1024  # answers after which it tries again, where looking has never paid
CROWD_PASSED = 64  # … and where requests come together, for which nobody has to look


class BusyPoll:
    """Of one event loop. Not thread-safe."""

    def __init__(self, seconds: float) -> None:
        """Look for so long after an answer; 0: never."""
        self._seconds = seconds
        self._until = 0.0
        self._looking = False
        self._answers = 0  # since it looked last
        self._others = False  # whether one of them was not alone
        self._found = 0  # requests in a row that came while it looked
        self._caution = 0  # answers to let pass after a look that found nothing
        self._passing = 0  # answers still to let pass

    @property
    def looking(self) -> bool:
        return self._looking

    def answered(self, *, others: bool) -> None:
        """A request has been answered, after which the next one may come at once. `others`: more
        are in work, and their threads need the CPU."""
        if self._looking:
            self._answers += 1
            self._others = self._others or others
        elif self._passing:
            self._passing -= 1
        elif self._seconds and not others:
            self._looking = True
            self._answers, self._others = 0, False
            self._go_on(time.perf_counter())

    def _go_on(self, now: float) -> None:
        self._until = now + self._seconds
        asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        """Between two of the loop's rounds, each of which takes what has come."""
        answers, self._answers = self._answers, 0
        now = time.perf_counter()
        if answers > 1 or self._others:
            self._rest(CROWD_PASSED)
        elif answers:
            self._found += 1
            if self._found == FORGIVEN:
                self._found = 0
                self._caution //= 2
            self._go_on(now)
        elif now < self._until:
            asyncio.get_running_loop().call_soon(self._look)
        else:
            self._caution = min(2 * self._caution + 1, MOST_PASSED)
            self._rest(0)

    def _rest(self, least: int) -> None:
        self._looking = False
        self._found = 0
        self._passing = max(least, self._caution)
