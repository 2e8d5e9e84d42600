"""Warm pools: what a job with KeepAlivePeriodInSeconds leaves ready for the next that is like it
(TRAIN-211 … TRAIN-214).

On the service these are instances. Here they are the interpreters that the runner starts ahead,
with the algorithm imported, one a host; where it can start none, a pool is a record alone. A pool
does not outlive its server.

    pool = {"state": "Available" | "Reused" | "Terminated", "since": …, "until": …, "ended": …,
            "reused_by": …}
    pool_began = when the first of the jobs that handed it on had it
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from byoa.container.errors import ByoaError
from byoa.local.control.attempts import FAULT
from byoa.local.control.instance_groups import hosts_of
from byoa.local.control.training_container import container_spec
from byoa.local.control.training_record import KIND, TERMINAL, host_layout
from byoa.local.control.training_services import TrainingServices
from byoa.local.errors import ValidationException
from byoa.local.runners.base import Warm
from byoa.local.storage.state import Missing, Row

LIFE_SECONDS = 7 * 24 * 3600.0  # of a pool, over all of its jobs (TRAIN-213)
# In which the next job has to be like the last (TRAIN-212).
_OF_THE_REQUEST = (
    "RoleArn", "VpcConfig", "EnableInterContainerTrafficEncryption", "EnableNetworkIsolation",
)
_OF_THE_RESOURCES = ("InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId")

log = logging.getLogger(__name__)


# --- the record -----------------------------------------------------------------------------------


def period(row: Row) -> float:
    """KeepAlivePeriodInSeconds; 0 where the job wants no pool."""
    wanted: float = row.document["request"]["ResourceConfig"].get("KeepAlivePeriodInSeconds", 0)
    return wanted


def open_pool(row: Row) -> None:
    """The job has ended: keep its instances, unless it is the platform that failed (TRAIN-211)."""
    document, now = row.document, time.time()
    if not period(row) or "started" not in document:
        return
    if document.get("reason", "").startswith(FAULT):
        return
    began = document.setdefault("pool_began", now)
    until = min(now + period(row), began + LIFE_SECONDS)
    document["pool"] = {"state": "Available", "since": now, "until": until}


def status(row: Row, now: float | None = None) -> dict[str, Any] | None:
    """WarmPoolStatus; None for a job without a pool (TRAIN-213)."""
    pool, moment = row.document.get("pool"), now or time.time()
    if pool is None:
        if not period(row):
            return None
        return {"Status": "InUse" if row.status not in TERMINAL else "Terminated"}
    state = pool["state"]
    if state == "Available" and moment >= pool["until"]:
        state = "Terminated"
    end = pool.get("ended", min(moment, pool["until"]))
    found = {
        "Status": state,
        "ResourceRetainedBillableTimeInSeconds": max(0, math.ceil(end - pool["since"])),
    }
    if "reused_by" in pool:
        found["ReusedByJob"] = pool["reused_by"]
    return found


def described(row: Row) -> dict[str, Any]:
    """What a job's Describe, and its entry of List, say of its pool."""
    found = status(row)
    return {} if found is None else {"WarmPoolStatus": found}


def terminate(row: Row) -> None:
    """The pool is no more, if it still waits."""
    pool = row.document.get("pool")
    if pool is not None and pool["state"] == "Available":
        pool["state"], pool["ended"] = "Terminated", min(time.time(), pool["until"])


def is_available(row: Row) -> bool:
    found = status(row)
    return found is not None and found["Status"] == "Available"


def _key(row: Row) -> list[Any]:
    request = row.document["request"]
    return [
        *(request.get(name) for name in _OF_THE_REQUEST),
        *(request["ResourceConfig"].get(name) for name in _OF_THE_RESOURCES),
    ]


# --- what is kept ---------------------------------------------------------------------------------


class WarmPools:
    """The pools of this server: their interpreters by job, and when each pool's time is over."""

    def __init__(self, services: TrainingServices) -> None:
        self._services = services
        self._state = services.state
        self._lock = threading.Lock()
        self._kept: dict[str, dict[str, Warm]] = {}  # by ARN and host
        self._timers: dict[str, threading.Timer] = {}
        self._closed = False

    def keep_nothing(self) -> None:
        """The server is about to go."""
        with self._lock:
            self._closed = True

    def close(self) -> None:
        """End all pools: nothing is kept without a server."""
        self.keep_nothing()
        for row in self._state.list(KIND):
            self.end(row)

    def recover(self, row: Row) -> None:
        """End a pool of an earlier server that was killed: what it kept has ended with it."""
        if is_available(row):
            self._change(row, terminate)

    def keep(self, row: Row) -> None:
        """Start what the next job of this one's pool will want, and end it when its time comes."""
        if self._closed or not is_available(row):
            return
        services, request = self._services, row.document["request"]
        image = request["AlgorithmSpecification"]["TrainingImage"]
        kept: dict[str, Warm] = {}
        try:
            access = services.environment(row.caller, image)
            for host in hosts_of(request):
                layout = host_layout(row, services.settings.home, host)  # of no job: not made
                spec = container_spec(row, host, layout, layout.root, access)
                if (warm := services.runner.warm(spec)) is not None:
                    kept[host] = warm
        except (ByoaError, OSError) as error:  # the next job starts without, as the first did
            log.warning("nothing is kept ready of training job %s: %s", row.name, error)
        with self._lock:
            refused = self._closed
            if not refused:
                self._kept[row.arn] = kept
        now = self._state.get(KIND, row.caller, row.name)
        if refused:
            _close(kept)
        elif now is None or not is_available(now):  # taken or ended before it was ready
            _close(self._forget(row))
        else:
            self._schedule(now)

    def claim(self, row: Row) -> dict[str, Warm]:
        """Take over the pool of an earlier job that is like this one; what it has ready, by host
        (TRAIN-212)."""
        if not period(row) or "pool_began" in row.document:
            return {}
        for other in self._state.list(KIND, row.caller):
            if other.arn == row.arn or not is_available(other) or _key(other) != _key(row):
                continue
            taken: list[float] = []

            def take(found: Row, taken: list[float] = taken) -> None:
                if is_available(found):
                    taken.append(found.document["pool_began"])
                    found.document["pool"] |= {
                        "state": "Reused", "ended": time.time(), "reused_by": row.name,
                    }

            self._change(other, take)
            if not taken:  # somebody was quicker
                continue

            def inherit(found: Row, began: float = taken[0]) -> None:
                found.document["pool_began"] = began

            self._change(row, inherit)
            return self._forget(other)
        return {}

    def update(self, row: Row, seconds: float) -> None:
        """Change the period, of a job that runs or whose pool waits (TRAIN-213)."""

        def change(found: Row) -> None:
            now = status(found)
            if now is None or now["Status"] not in ("InUse", "Available"):
                state = "none" if now is None else now["Status"]
                raise ValidationException(
                    f"The training job {row.name} has no warm pool to change, its status is"
                    f" {state}; expected InUse or Available: submit the job with"
                    " ResourceConfig.KeepAlivePeriodInSeconds."
                )
            found.document["request"]["ResourceConfig"]["KeepAlivePeriodInSeconds"] = seconds
            if "pool" not in found.document:
                return
            pool, began = found.document["pool"], found.document["pool_began"]
            pool["until"] = min(pool["since"] + seconds, began + LIFE_SECONDS)
            if pool["until"] <= time.time():
                pool["until"] = time.time()
                terminate(found)

        changed = self._state.mutate(KIND, row.caller, row.name, change)
        if is_available(changed):
            self._schedule(changed)
        else:
            _close(self._forget(changed))

    def end(self, row: Row) -> None:
        """The pool is over: its time, its server, or its job's wish."""
        if is_available(row):
            self._change(row, terminate)
        _close(self._forget(row))

    # --- within ---

    def _change(self, row: Row, change: Callable[[Row], None]) -> None:
        try:
            self._state.mutate(KIND, row.caller, row.name, change)
        except Missing:  # deleted meanwhile
            log.debug("training job %s is gone", row.name)

    def _forget(self, row: Row) -> dict[str, Warm]:
        with self._lock:
            timer = self._timers.pop(row.arn, None)
            kept = self._kept.pop(row.arn, {})
        if timer is not None:
            timer.cancel()
        return kept

    def _schedule(self, row: Row) -> None:
        left = max(0.0, row.document["pool"]["until"] - time.time())
        timer = threading.Timer(left, self._expire, args=(row,))
        timer.daemon = True
        with self._lock:
            former = self._timers.pop(row.arn, None)
            if not self._closed:
                self._timers[row.arn] = timer
                timer.start()
        if former is not None:
            former.cancel()

    def _expire(self, row: Row) -> None:
        now = self._state.get(KIND, row.caller, row.name)
        if now is None or not is_available(now):
            if now is not None:
                self._change(now, terminate)
            _close(self._forget(row))
        else:  # somebody has given it more time
            self._schedule(now)


def _close(kept: Mapping[str, Warm]) -> None:
    for warm in kept.values():
        warm.close()
