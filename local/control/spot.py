"""Instances taken away from running jobs: a spot interruption, or a fault of the platform.

Nobody else wants this machine's capacity, so it happens when it is asked for (`byoa interrupt`):
SIGTERM, a notice, SIGKILL; then the same job starts again when there is capacity (TRAIN-160,
TRAIN-163).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from byoa.local.control import attempts
from byoa.local.control.training_record import transition
from byoa.local.errors import ValidationException
from byoa.local.storage.state import Row

MESSAGE = "The spot instances were interrupted"
LIMIT_SECONDS = 30 * 24 * 3600.0  # a job's own limit (TRAIN-155)
# Where a job has instances that can be taken away, or waits for them.
_PHASES = ("Starting", "Downloading", "Training", "Restarting")


@dataclass(frozen=True)
class Interruption:
    """`after` so many seconds of training the instances go, `notice` seconds after SIGTERM; there
    is capacity again `away` seconds later. A `fault` gives no notice."""

    after: float = 0.0
    notice: float = 0.0
    away: float = 0.0
    fault: bool = False

    @classmethod
    def parse(cls, members: Mapping[str, Any], *, notice: float) -> Interruption:
        """What a request asks for; raises ValidationException. `notice` is the default one."""
        known = {each.name for each in fields(cls)}
        unknown = sorted(members.keys() - known)
        if unknown:
            raise ValidationException(
                f"An interruption has no {', '.join(unknown)}; it has {', '.join(sorted(known))}."
            )
        values = {"notice": notice, **members}
        fault = values.pop("fault", False)
        for name, value in values.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= LIMIT_SECONDS:
                raise ValidationException(
                    f"{name} is {value!r}; expected seconds, 0 to {LIMIT_SECONDS:.0f}."
                )
        if not isinstance(fault, bool):
            raise ValidationException(f"fault is {fault!r}; expected true or false.")
        return cls(**{name: float(value) for name, value in values.items()}, fault=fault)


def request(row: Row, interruption: Interruption) -> None:
    """Write down that the job is to be interrupted; raises ValidationException with the reason
    where that cannot be."""
    document = row.document
    if row.status != "InProgress" or document["secondary"] not in _PHASES:
        raise ValidationException(
            f"The training job {row.name} cannot be interrupted: its status is {row.status},"
            f" {document['secondary']}; expected InProgress, {' or '.join(_PHASES)}."
        )
    if not interruption.fault and not document["request"]["EnableManagedSpotTraining"]:
        raise ValidationException(
            f"The training job {row.name} is no managed spot job, which alone is interrupted:"
            " submit it with EnableManagedSpotTraining, MaxWaitTimeInSeconds and a"
            " CheckpointConfig; or let its instance fail (--fault), which RetryStrategy is for."
        )
    document["interruption"] = asdict(interruption)


def requested(row: Row) -> Interruption | None:
    """The interruption that is to come, or under way."""
    found = dict(row.document.get("interruption") or {})
    if found.pop("began", None) is not None:
        found["after"] = 0.0
    return Interruption(**found) if found else None


def begin(row: Row) -> None:
    """SIGTERM is to be sent: from here on the attempt is lost, however its containers end. A job
    that somebody stops is not interrupted any more."""
    if row.status != "Stopping" and not has_begun(row):
        row.document["interruption"]["began"] = time.time()
        transition(row, "Interrupted", MESSAGE)


def has_begun(row: Row) -> bool:
    return "began" in row.document.get("interruption", {})


def end(row: Row) -> None:
    """The instances are gone, and there is capacity again when the interruption says so."""
    interruption = requested(row)
    attempts.close(row, 0.0 if interruption is None else interruption.away)
    if row.status != "Stopping":
        transition(row, "Interrupted", MESSAGE)  # where it came before there were containers
