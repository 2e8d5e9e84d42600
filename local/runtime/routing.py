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

from byoa.local.runtime.answer_stream import AnswerStream
from byoa.local.runtime.connection import Answer, Stay, Unreachable
from byoa.local.runtime.connection_pool import ConnectionPool
from byoa.local.runtime.sessions import Sessions
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
        self.starts = 0  # how many containers it has been, one after the other
        self.models: TargetModels | None = None  # of an instance that serves many
        self._pool: ConnectionPool | None = None
        self._draining = False
        self._changed = threading.Condition(threading.Lock())

    def connect(self, address: tuple[str, int]) -> None:
        """Send to `address` from now on."""
        if self.models is not None:
            self.models.forget()
        self.starts += 1
        old, self._pool = self._pool, ConnectionPool(address)
        if old is not None:
            old.close()

    def exchange(
        self, head: bytes, body: bytes | bytearray, deadline: float, limit: int | None
    ) -> Answer:
        """As `ConnectionPool.exchange`, at the address of the moment."""
        return self._connected().exchange(head, body, deadline, limit)

    def open(
        self, head: bytes, body: bytes | bytearray, deadline: float, stay: Stay | None = None
    ) -> AnswerStream:
        """As `ConnectionPool.open`, at the address of the moment."""
        return self._connected().open(head, body, deadline, stay)

    def _connected(self) -> ConnectionPool:
        if self._pool is None:
            raise Unreachable("it has no address yet")
        return self._pool

    def enter(self) -> bool:
        """Count a request in; False when the container is on its way out."""
        with self._changed:
            if self._draining:
                return False
            self.outstanding += 1
            return True

    def heard(self) -> None:
        """Something of a longer answer has come: the container is alive."""
        self.last_answer = monotonic()

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

    def variant_of(self, backend: Backend) -> VariantRoute | None:
        """The variant that an instance belongs to."""
        return next((each for each in self.variants if backend in each.backends), None)

    def choose(self) -> VariantRoute:
        """A variant by weight; one of weight 0 is never chosen."""
        if len(self.variants) == 1:
            return self.variants[0]
        point = random.random() * self._bounds[-1]  # noqa: S311 - traffic, not secrets
        return self.variants[min(bisect_right(self._bounds, point), len(self.variants) - 1)]


class Router:
    """Routes and sessions by endpoint; reading a route takes no lock."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str, str], Route] = {}
        self._sessions: dict[tuple[str, str, str], Sessions] = {}

    def find(self, caller: Caller, endpoint: str) -> Route | None:
        return self._routes.get((caller.account, caller.region, endpoint))

    def sessions(self, caller: Caller, endpoint: str) -> Sessions:
        """The sessions of an endpoint that has, or had, a route."""
        return self._sessions.setdefault((caller.account, caller.region, endpoint), Sessions())

    def set(self, caller: Caller, endpoint: str, route: Route) -> None:
        """Route from now on; sessions of instances that are not in `route` are over."""
        self._routes[(caller.account, caller.region, endpoint)] = route
        self.sessions(caller, endpoint).keep(
            {backend for variant in route.variants for backend in variant.backends}
        )

    def remove(self, caller: Caller, endpoint: str) -> None:
        self._routes.pop((caller.account, caller.region, endpoint), None)
        self._sessions.pop((caller.account, caller.region, endpoint), None)
