"""The limits of a training job's time, and which of them is reached."""

from __future__ import annotations

import math
import time

from byoa.local.control import training_record as record
from byoa.local.control.stop_causes import BY_RUNTIME, BY_WAIT, Cause
from byoa.local.storage.state import Row


class Clocks:
    """Of one attempt. MaxRuntimeInSeconds is one for all attempts together, and runs while there
    are instances (TRAIN-153); MaxWaitTimeInSeconds, of spot jobs, runs always (TRAIN-152)."""

    def __init__(self, row: Row) -> None:
        stopping, document = row.document["request"]["StoppingCondition"], row.document
        now, moment = time.time(), time.monotonic()
        self._runtime_ends = self._wait_ends = math.inf
        if "started" in document and document.get("running_since", 0.0) is not None:
            left = stopping["MaxRuntimeInSeconds"] - record.training_seconds(document, now)
            self._runtime_ends = moment + left
        if "MaxWaitTimeInSeconds" in stopping:
            self._wait_ends = moment + stopping["MaxWaitTimeInSeconds"] - (now - row.created)

    def reached(self) -> Cause | None:
        now = time.monotonic()
        if now >= self._runtime_ends:
            return BY_RUNTIME
        return BY_WAIT if now >= self._wait_ends else None
