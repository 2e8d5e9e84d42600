"""How long a worker answers before it looks who else has sent something.

An event loop that finds a thousand requests waiting would answer them all before it reads the next
`/ping` (HOST-20). So a round of answering has an end, and what it has not reached waits for the
next round, in the order of its coming; between two rounds the loop reads what has come meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Piece = TypeVar("Piece")

ROUND_SECONDS = 0.002  # a tenth of what a /ping may take; some twenty small requests


class Rounds(Generic[Piece]):
    """What is to be done on one loop, at once where there is time. Not thread-safe."""

    def __init__(self, do: Callable[[Piece], None]) -> None:
        """`do` raises nothing."""
        self._do = do
        self._waiting: deque[Piece] = deque()
        self._under_way = False
        self._until = 0.0

    def take(self, piece: Piece) -> None:
        """Do it in this round, or in one that follows."""
        if not self._under_way:
            self._begin()
        elif self._waiting or time.perf_counter() > self._until:
            self._waiting.append(piece)
            return
        self._do(piece)

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
            self._do(self._waiting.popleft())
            if time.perf_counter() > self._until:
                break
