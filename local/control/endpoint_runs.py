"""The running side of endpoints: fleets come and go here, one thread an operation.

A request has already set the endpoint's status and what is wanted; these operations make it so and
set the status that follows. They stop where they are when the service closes, and the next start
takes them up again from what is stored.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from byoa.container.contract import FAILURE_LIMIT_CHARACTERS, HOSTING_STOP_GRACE_SECONDS
from byoa.local.control.deployments import Deployment
from byoa.local.control.endpoint_instances import Instance, Platform
from byoa.local.control.fleets import Fleet, leftovers, stop
from byoa.local.control.instance_files import Place, kill_leftover
from byoa.local.control.model_data import remove_tree
from byoa.local.runtime.routing import Router
from byoa.local.settings import Caller
from byoa.local.storage.state import Missing, Row, State

KIND = "endpoint"
LEAVE_SECONDS = 2.0  # an operation looks twice a second whether the service closes

_log = logging.getLogger("byoa.endpoints")


class EndpointRuns:
    """Owns the fleets of all endpoints."""

    def __init__(self, state: State, platform: Platform, router: Router) -> None:
        self._state = state
        self._platform = platform
        self._router = router
        self._root = platform.settings.home / "endpoints"
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._fleets: dict[tuple[Caller, str], Fleet] = {}
        # Fleets on their way in or out of an endpoint.
        self._others: dict[tuple[Caller, str], list[Fleet]] = {}
        # Instances that a scaling has left over, while they end the requests that they have.
        self._surplus: set[Instance] = set()
        self._threads: set[threading.Thread] = set()

    # --- for the operations ---

    def create(self, caller: Caller, name: str) -> None:
        self._spawn(self._create, caller, name)

    def deploy(self, caller: Caller, name: str) -> None:
        self._spawn(self._deploy, caller, name)

    def scale(self, caller: Caller, name: str) -> None:
        self._spawn(self._scale, caller, name)

    def delete(self, caller: Caller, name: str) -> None:
        self._spawn(self._delete, caller, name)

    def ready_count(self, row: Row, generation: str, variant: str) -> int:
        """Instances of a variant that take requests now."""
        key = (row.caller, row.name)
        with self._lock:
            own = self._fleets.get(key)
            fleets = [*([own] if own else []), *self._others.get(key, [])]
        return sum(
            fleet.count(variant) for fleet in fleets if fleet.deployment.generation == generation
        )

    # --- the service's start and end ---

    def start(self) -> None:
        """Take up what an earlier server left: adopt or end its containers, resume its work."""
        rows = self._state.list(KIND)
        for row in rows:
            keep: list[Place] = []
            generation = row.document["current"]["generation"]
            serving = row.status not in ("Creating", "Failed", "Deleting")
            for place in leftovers(row.caller, row.name, self._directory(row.caller, row.name)):
                if serving and place.generation == generation:
                    keep.append(place)
                else:
                    kill_leftover(self._platform.runner, place)
            if row.status == "Creating":
                self.create(row.caller, row.name)
            elif row.status == "Deleting":
                self.delete(row.caller, row.name)
            elif serving:
                self._set(row.caller, row.name, "SystemUpdating")
                self._spawn(self._resume, row.caller, row.name, keep)
        self._sweep({self._directory(row.caller, row.name) for row in rows})

    def close(self, timeout: float) -> None:
        """Stop all containers within `timeout` seconds."""
        end = monotonic() + timeout
        self._closing.set()
        # Those that wait for a fleet leave at once, so that none starts a container after the
        # look at what there is; those that stop one end with its instances, below.
        self._join(min(end, monotonic() + LEAVE_SECONDS))
        with self._lock:
            others = [fleet for each in self._others.values() for fleet in each]
            fleets = [*self._fleets.values(), *others]
            surplus = list(self._surplus)
        instances = [*surplus, *(instance for fleet in fleets for instance in fleet.instances)]
        stop(instances, grace=min(HOSTING_STOP_GRACE_SECONDS, timeout), discard=False)
        self._join(end)

    def _join(self, end: float) -> None:
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, end - monotonic()))

    def _sweep(self, known: set[Path]) -> None:
        """Remove what is left of endpoints that are gone."""
        for directory in self._root.glob("*/*/*"):
            if directory not in known:
                account, region = directory.parts[-3:-1]
                for place in leftovers(Caller(account, region), directory.name, directory):
                    kill_leftover(self._platform.runner, place)
                remove_tree(directory)

    # --- operations, each in a thread of its own ---

    def _create(self, caller: Caller, name: str) -> None:
        fleet = self._fleet(caller, name, self._current(caller, name))
        with self._lock:
            self._fleets[(caller, name)] = fleet
        self._bring_up(caller, name, fleet, [])

    def _resume(self, caller: Caller, name: str, keep: list[Place]) -> None:
        current = self._current(caller, name)
        fleet = self._fleet(caller, name, current)
        with self._lock:
            self._fleets[(caller, name)] = fleet
        target = self._row(caller, name).document["target"]
        status = "InService" if target is None else "Updating"
        if not self._bring_up(caller, name, fleet, keep, status) or target is None:
            return
        if target["deployment"]["generation"] == current.generation:
            self._scale(caller, name)
        else:
            self._deploy(caller, name)

    def _bring_up(
        self,
        caller: Caller,
        name: str,
        fleet: Fleet,
        keep: Iterable[Place],
        status: str = "InService",
    ) -> bool:
        """Start a fleet and route to it, or fail the endpoint."""
        if self._closing.is_set():
            return False
        fleet.start(keep)
        failure = fleet.wait_ready(self._closing)
        if self._closing.is_set():
            return False
        if failure is None:
            self._router.set(caller, name, fleet.route())
            self._set(caller, name, status)
            return True
        self._set(caller, name, "Failed", failure)
        stop(fleet.instances, discard=True)
        return False

    def _deploy(self, caller: Caller, name: str) -> None:
        row = self._row(caller, name)
        target = Deployment.from_json(row.document["target"]["deployment"])
        policy = (row.document["deployment_config"] or {}).get("BlueGreenUpdatePolicy") or {}
        green = self._fleet(caller, name, target)
        self._track(caller, name, green)
        green.start()
        failure = green.wait_ready(self._closing, policy.get("MaximumExecutionTimeoutInSeconds"))
        if self._closing.is_set():
            return
        if failure is not None:
            self._set(caller, name, "RollingBack", failure, done=True)
            stop(green.instances, discard=True)
            self._untrack(caller, name, green)
            self._set(caller, name, "InService", failure)
            return
        with self._lock:
            blue = self._fleets[(caller, name)]
            self._fleets[(caller, name)] = green
            self._others[(caller, name)].remove(green)
            self._others[(caller, name)].append(blue)
        self._router.set(caller, name, green.route())
        routing = policy.get("TrafficRoutingConfiguration") or {}
        if self._closing.wait(routing.get("WaitIntervalInSeconds", 0)):
            return  # not settled: the next start deploys again
        self._set(caller, name, "InService", deployment=target, done=True)
        self._closing.wait(policy.get("TerminationWaitInSeconds", 0))
        if self._closing.is_set():
            return
        # A request that was on its way to the old fleet when traffic switched is answered by it.
        stop(blue.instances, drain=self._platform.settings.longest_invocation, discard=True)
        self._untrack(caller, name, blue)

    def _scale(self, caller: Caller, name: str) -> None:
        with self._lock:
            fleet = self._fleets[(caller, name)]
        row = self._row(caller, name)
        target = Deployment.from_json(row.document["target"]["deployment"])
        before = fleet.deployment
        most = {
            variant.name: {"count": max(variant.count, wanted.count)}
            for variant, wanted in zip(before.variants, target.variants, strict=True)
        }
        fleet.scale(before.change(most))  # out first: a failure takes nothing away
        failure = fleet.wait_ready(self._closing)
        if self._closing.is_set():
            return
        surplus = fleet.scale(target if failure is None else before)
        self._router.set(caller, name, fleet.route())
        settled = target if failure is None else None
        with self._lock:
            self._surplus.update(surplus)
        self._set(caller, name, "InService", failure, deployment=settled, done=True)
        stop(surplus, drain=self._platform.settings.longest_invocation, discard=True)
        with self._lock:
            self._surplus.difference_update(surplus)

    def _delete(self, caller: Caller, name: str) -> None:
        self._router.remove(caller, name)
        key = (caller, name)
        with self._lock:
            own = self._fleets.get(key)
            fleets = [*([own] if own else []), *self._others.get(key, [])]
            surplus = [
                each for each in self._surplus if (each.place.caller, each.place.endpoint) == key
            ]
        instances = [*surplus, *(each for fleet in fleets for each in fleet.instances)]
        stop(instances, discard=True)
        with self._lock:
            self._fleets.pop(key, None)
            self._others.pop(key, None)
        directory = self._directory(caller, name)
        for place in leftovers(caller, name, directory):
            kill_leftover(self._platform.runner, place)
        remove_tree(directory)
        self._state.delete(KIND, caller, name)

    # --- within ---

    def _fleet(self, caller: Caller, name: str, deployment: Deployment) -> Fleet:
        return Fleet(self._platform, caller, name, self._directory(caller, name), deployment)

    def _directory(self, caller: Caller, name: str) -> Path:
        return self._root / caller.account / caller.region / name

    def _track(self, caller: Caller, name: str, fleet: Fleet) -> None:
        with self._lock:
            self._others.setdefault((caller, name), []).append(fleet)

    def _untrack(self, caller: Caller, name: str, fleet: Fleet) -> None:
        with self._lock:
            others = self._others.get((caller, name), [])
            if fleet in others:
                others.remove(fleet)

    def _row(self, caller: Caller, name: str) -> Row:
        row = self._state.get(KIND, caller, name)
        if row is None:
            raise Missing(f"no endpoint {name} in {caller.region}")
        return row

    def _current(self, caller: Caller, name: str) -> Deployment:
        return Deployment.from_json(self._row(caller, name).document["current"])

    def _set(
        self,
        caller: Caller,
        name: str,
        status: str,
        failure: str | None = None,
        *,
        deployment: Deployment | None = None,
        done: bool = False,
    ) -> None:
        """Store a new status; `done` ends the update that was wanted."""

        def change(row: Row) -> None:
            row.status = status
            if failure is not None:
                row.document["failure"] = failure
            if deployment is not None:
                row.document["current"] = deployment.to_json()
            if done:
                row.document["target"] = None

        self._state.mutate(KIND, caller, name, change)

    def _spawn(
        self, work: Callable[..., None], caller: Caller, name: str, *arguments: Any
    ) -> None:
        def run() -> None:
            try:
                work(caller, name, *arguments)
            except Missing:
                _log.debug("endpoint %s went away", name)
            except Exception as error:  # a thread's exception has no other reader
                _log.exception("endpoint %s", name)
                reason = f"The local service failed: {error!r}"[:FAILURE_LIMIT_CHARACTERS]
                with suppress(Missing):
                    self._set(caller, name, "Failed", reason, done=True)
            finally:
                with self._lock:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name=f"endpoint-{name}", daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()
