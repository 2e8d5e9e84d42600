"""How long a worker answers before it looks who else has sent something.

An event loop that finds a thousand requests waiting would answer them all before it reads the next
`/ping` (HOST-20). So a round of answering has an end, and what it has not reached waits for the
next round, in the order of its coming; between two rounds the loop reads what has come meanwhile.

While more comes than the model can take, a loop that refuses each at once is never at rest, and the
model's thread, which needs the interpreter's lock and mostly the same CPU, gets half of what it
could have. So the loop rests after a round or two, and refuses several in one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

ROUND_SECONDS = 0.002  # a tenth of what a /ping may take; some twenty small requests
REST_SECONDS = 0.006  # with a round and what is read, half of it


class Rounds:
    """What is to be done on one loop, at once where there is time. Not thread-safe."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._under_way = False
        self._until = 0.0
        self._resting = False

    def rest(self, seconds: float) -> None:
        """Once this round of the loop is over, leave everything to the other threads for so long,
        REST_SECONDS at most."""
        if seconds > 0 and not self._resting:
            self._resting = True
            asyncio.get_running_loop().call_soon(self._rest, min(seconds, REST_SECONDS))

    def _rest(self, seconds: float) -> None:
        self._resting = False
        time.sleep(seconds)  # a timer would not keep the loop from reading

    def take(self, piece: Callable[[], None]) -> None:
        """Do it in this round, or in one that follows; it raises nothing."""
        if not self._under_way:
            self._begin()
        elif self._waiting or time.perf_counter() > self._until:
            self._waiting.append(piece)
            return
        piece()

    def _begin(self) -> None:
        self._under_way = True
        self._until = time.perf_counter() + ROUND_SECONDS
        asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        if not self._waiting:
            self._under_way = False
            return
        self._begin()
        while self._waiting:
            self._waiting.popleft()()
            if time.perf_counter() > self._until:
                break
