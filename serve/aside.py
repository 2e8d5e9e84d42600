"""The threads beside an event loop that decode and encode large bodies, and who waits for them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from byoa.serve.busy import ServerBusy

_LEAST_SECONDS = 0.0002  # to decode a large body


class Aside:
    """For one loop, which alone calls these; `limit`: so many requests are in work, or wait."""

    def __init__(self, limit: int, threads: int = 1) -> None:
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix="codec")
        self._limit = limit
        self._taken = 0

    def refusal(self) -> ServerBusy | None:
        """Why there is no room for one more."""
        return ServerBusy.beyond(self._limit) if self._taken >= self._limit else None

    @property
    def backlog_seconds(self) -> float:
        """About how long what has been taken will be in work, 0 while there is room."""
        return self._taken * _LEAST_SECONDS if self._taken >= self._limit else 0.0

    @contextmanager
    def room(self) -> Iterator[None]:
        """Room for a request, from its decoding to its answer. Raises ServerBusy."""
        refusal = self.refusal()
        if refusal is not None:
            raise refusal
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
