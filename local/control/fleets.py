"""The instances of one deployment of an endpoint: started, routed to, scaled, stopped together."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable
from pathlib import Path
from time import monotonic

from byoa.container.contract import HOSTING_STOP_GRACE_SECONDS
from byoa.local.control.deployments import Deployment, Variant
from byoa.local.control.endpoint_instances import Instance, Platform
from byoa.local.control.instance_files import Place, kill_leftover
from byoa.local.control.model_data import remove_tree
from byoa.local.runners.base import Container
from byoa.local.runtime.routing import Route, VariantRoute
from byoa.local.settings import Caller

_SLICE_SECONDS = 0.5  # of a wait that a change ends sooner


class Fleet:
    """Instances by variant. One thread at a time changes it; any may route to it."""

    def __init__(
        self, platform: Platform, caller: Caller, endpoint: str, root: Path, deployment: Deployment
    ) -> None:
        self.deployment = deployment
        self._platform = platform
        self._caller = caller
        self._endpoint = endpoint
        self._root = root
        self._changed = threading.Condition()
        self._instances: dict[str, list[Instance]] = {
            variant.name: [] for variant in deployment.variants
        }

    def start(self, leftovers: Iterable[Place] = ()) -> None:
        """Start what the deployment wants, first from what an earlier server left of it."""
        left = list(leftovers)
        for variant in self.deployment.variants:
            own = [place for place in left if place.variant == variant.name]
            for place in own[: variant.count]:
                handle = place.handle
                container = None if handle is None else self._platform.runner.adopt(handle)
                self._add(variant, place, container)
            for place in own[variant.count :]:
                kill_leftover(self._platform.runner, place)
            self._grow(variant)

    def scale(self, deployment: Deployment) -> list[Instance]:
        """Take over the deployment's counts and weights: start what is missing and return what
        is too many, which no route of `route()` leads to any more."""
        self.deployment = deployment
        surplus: list[Instance] = []
        for variant in deployment.variants:
            surplus += self._instances[variant.name][variant.count :]
            del self._instances[variant.name][variant.count :]
            self._grow(variant)
        return surplus

    def wait_ready(self, cancelled: threading.Event, timeout: float | None = None) -> str | None:
        """Wait until every instance is healthy; the reason when one is not to be, or when
        `timeout` seconds pass. Returns None, too, when `cancelled` is set."""
        deadline = None if timeout is None else monotonic() + timeout
        while not cancelled.is_set():
            with self._changed:
                for instance in self.instances:
                    instance.check_download()
                failure = next((each.failure for each in self.instances if each.failure), None)
                if failure is not None or all(each.settled for each in self.instances):
                    return failure
                if deadline is not None and monotonic() > deadline:
                    return f"The deployment took longer than {timeout:g} seconds."
                self._changed.wait(_SLICE_SECONDS)
        return None

    def route(self) -> Route:
        return Route(
            VariantRoute(
                variant.name,
                variant.weight,
                [instance.backend for instance in self._instances[variant.name]],
                variant.strategy,
            )
            for variant in self.deployment.variants
        )

    @property
    def instances(self) -> list[Instance]:
        return [instance for own in self._instances.values() for instance in own]

    def count(self, variant: str) -> int:
        """Instances of the variant that take requests now."""
        return sum(each.backend.ready for each in self._instances[variant])

    def _grow(self, variant: Variant) -> None:
        while len(self._instances[variant.name]) < variant.count:
            instance_id = f"i-{secrets.token_hex(9)[:17]}"
            place = Place(
                self._caller,
                self._endpoint,
                self.deployment.generation,
                variant.name,
                instance_id,
                self._root / instance_id,
            )
            self._add(variant, place)

    def _add(self, variant: Variant, place: Place, container: Container | None = None) -> None:
        instance = Instance(self._platform, place, variant, self._changed, container)
        self._instances[variant.name].append(instance)
        instance.start()


def stop(
    instances: Iterable[Instance],
    *,
    drain: float = 0.0,
    grace: float = HOSTING_STOP_GRACE_SECONDS,
    discard: bool,
) -> None:
    """Stop instances side by side and wait for their end; `discard` removes their files."""
    chosen = list(instances)
    for instance in chosen:
        instance.stop(drain=drain, grace=grace)
    # SIGKILL follows the grace; its effect and the log's end take moments more.
    deadline = monotonic() + drain + grace + 15.0
    for instance in chosen:
        instance.ended.wait(max(0.0, deadline - monotonic()))
        if discard:
            remove_tree(instance.place.directory)


def leftovers(caller: Caller, endpoint: str, root: Path) -> list[Place]:
    """The instances of an endpoint that are on disk."""
    if not root.is_dir():
        return []
    found = [Place.read(caller, endpoint, each) for each in sorted(root.iterdir())]
    return [place for place in found if place is not None]
