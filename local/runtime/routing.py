"""Which serving container answers an invocation: endpoint → variant by weight → instance.

Routes are replaced as a whole, so an update switches between two requests, never within one.
"""

from __future__ import annotations

import random
import threading
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate, count
from time import monotonic

from byoa.local.runtime.connection import Answer, Unreachable
from byoa.local.runtime.connection_pool import ConnectionPool
from byoa.local.runtime.target_models import TargetModels
from byoa.local.settings import Caller

LEAST_OUTSTANDING = "LEAST_OUTSTANDING_REQUESTS"
RANDOM = "RANDOM"


class Backend:
    """One serving container as the runtime sees it: where it answers, and how busy it is."""

    def __init__(self, instance_id: str) -> None:
        self.id = instance_id
        self.outstanding = 0
        self.ready = False
        self.reason = "it is starting"  # why it is not ready
        self.last_answer = monotonic()
        self.models: TargetModels | None = None  # of an instance that serves many
        self._pool: ConnectionPool | None = None
        self._draining = False
        self._changed = threading.Condition(threading.Lock())

    def connect(self, address: tuple[str, int]) -> None:
        """Send to `address` from now on."""
        if self.models is not None:
            self.models.forget()
        old, self._pool = self._pool, ConnectionPool(address)
        if old is not None:
            old.close()

    def exchange(
        self, head: bytes, body: bytes | bytearray, deadline: float, limit: int | None
    ) -> Answer:
        """As `ConnectionPool.exchange`, at the address of the moment."""
        if self._pool is None:
            raise Unreachable("it has no address yet")
        return self._pool.exchange(head, body, deadline, limit)

    def enter(self) -> bool:
        """Count a request in; False when the container is on its way out."""
        with self._changed:
            if self._draining:
                return False
            self.outstanding += 1
            return True

    def leave(self, *, answered: bool) -> None:
        """Count a request out."""
        with self._changed:
            self.outstanding -= 1
            if answered:
                self.last_answer = monotonic()
            if not self.outstanding:
                self._changed.notify_all()

    def drain(self, timeout: float) -> bool:
        """Take no more requests and wait for those in flight; False when some are left."""
        with self._changed:
            self._draining = True
            return self._changed.wait_for(lambda: self.outstanding == 0, timeout)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()


class VariantRoute:
    """The instances of a production variant and its weight."""

    def __init__(
        self, name: str, weight: float, backends: Iterable[Backend], strategy: str = RANDOM
    ) -> None:
        self.name = name
        self.weight = weight
        self.backends = tuple(backends)
        self.strategy = strategy
        self._turn = count()

    def enter(
        self, besides: Backend | None = None, *, target: str | None = None
    ) -> Backend | None:
        """A ready instance other than `besides`, with the request counted in; None when there is
        none. One that has the model `target` loaded comes first."""
        ready = [each for each in self.backends if each.ready and each is not besides]
        if not ready:
            return None
        if len(ready) == 1:
            order = ready
        elif self.strategy == RANDOM:
            order = random.sample(ready, len(ready))
        else:
            # Turning the list first spreads equally busy instances evenly.
            turn = next(self._turn) % len(ready)
            order = sorted(ready[turn:] + ready[:turn], key=lambda each: each.outstanding)
        if target is not None:
            order = sorted(order, key=lambda each: not (each.models and each.models.holds(target)))
        return next((backend for backend in order if backend.enter()), None)


class Route:
    """The variants of an endpoint; traffic is shared by weight (VAR-01)."""

    def __init__(self, variants: Iterable[VariantRoute]) -> None:
        self.variants = tuple(variants)
        self._bounds = list(accumulate(variant.weight for variant in self.variants))

    def variant(self, name: str) -> VariantRoute | None:
        """The variant named by TargetVariant, whatever its weight."""
        return next((variant for variant in self.variants if variant.name == name), None)

    def choose(self) -> VariantRoute:
        """A variant by weight; one of weight 0 is never chosen."""
        if len(self.variants) == 1:
            return self.variants[0]
        point = random.random() * self._bounds[-1]  # noqa: S311 - traffic, not secrets
        return self.variants[min(bisect_right(self._bounds, point), len(self.variants) - 1)]


class Router:
    """Routes by endpoint; reading takes no lock."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str, str], Route] = {}

    def find(self, caller: Caller, endpoint: str) -> Route | None:
        return self._routes.get((caller.account, caller.region, endpoint))

    def set(self, caller: Caller, endpoint: str, route: Route) -> None:
        self._routes[(caller.account, caller.region, endpoint)] = route

    def remove(self, caller: Caller, endpoint: str) -> None:
        self._routes.pop((caller.account, caller.region, endpoint), None)
