"""The model for a thread that is not its own: never two at the same time, each in its turn.

A conversation waits for its client most of the time, so it has a thread of its own. Before it runs
the author's code, the model's thread lends it the model, as if it were a piece of work like any
other; while it waits it gives the model back.
"""

from __future__ import annotations

import threading
import time
from functools import partial

from byoa.serve.compute import Compute

SLICE_SECONDS = 0.05  # with the model, without a look at who else waits


class Turn:
    """Of one thread, which alone calls these. `held`, `waited`: seconds so far with the model, and
    for it."""

    def __init__(self, compute: Compute) -> None:
        self.held = self.waited = 0.0
        self._compute = compute
        self._back: threading.Event | None = None  # None: the model is not here
        self._since = 0.0

    def take(self) -> None:
        """Wait for the model: as long as what is before this one in the queue takes."""
        if self._back is not None:
            return
        asked = time.perf_counter()
        lent, self._back = threading.Event(), threading.Event()
        self._compute.resume(partial(_lend, lent, self._back))
        lent.wait()
        self._since = time.perf_counter()
        self.waited += self._since - asked

    def give(self) -> None:
        if self._back is not None:
            self.held += time.perf_counter() - self._since
            self._back.set()
            self._back = None

    def share(self) -> None:
        """Let others go first, where somebody waits or it has been a while."""
        if self._compute.queued or time.perf_counter() - self._since > SLICE_SECONDS:
            self.give()
            self.take()


def _lend(lent: threading.Event, back: threading.Event) -> None:
    """On the model's thread."""
    lent.set()
    back.wait()
