"""A check as data: what holds, by which clause, what to do where it does not, and how it is told.

One decorated function is one check; a module of checks registers them in order of definition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from byoa.local.check.trial import Trial

GROUPS = ("image", "training", "hosting", "processing")
PASS, FAIL, SKIP = "pass", "fail", "skip"
LEVELS = ERROR, WARNING = "error", "warning"


class NotApplicable(Exception):
    """A check cannot be made here; its text says why. The check becomes a skip."""


@dataclass(frozen=True)
class Verdict:
    """What one check found. `cause` names the very file, value or line; `cure` what to do."""

    outcome: str  # "pass", "fail" or "skip"
    cause: str = ""
    cure: str = ""  # "" is the check's own
    evidence: str = ""  # what was seen: a log's end, a header, a listing


def passed(evidence: str = "") -> Verdict:
    return Verdict(PASS, evidence=evidence)


def failed(cause: str, *, cure: str = "", evidence: str = "") -> Verdict:
    return Verdict(FAIL, cause, cure, evidence)


def skipped(cause: str) -> Verdict:
    return Verdict(SKIP, cause)


@dataclass(frozen=True)
class Check:
    """One entry of the catalogue."""

    id: str  # stable, kebab-case
    clause: str  # "TRAIN-01, CHK-01"
    group: str  # one of GROUPS
    title: str  # what holds, as a sentence
    cure: str  # what to do where it does not
    needs: tuple[str, ...]  # ids of checks without whose pass this one tells nothing
    run: Callable[[Trial], Verdict]
    # "warning" where the contract only recommends it, or asks it of some uses such as serverless
    # endpoints: SageMaker runs an image for which it does not hold all the same.
    level: str = ERROR


CHECKS: dict[str, Check] = {}


def check(
    id: str, *, clause: str, group: str, title: str, cure: str, needs: tuple[str, ...] = (),
    level: str = ERROR,
) -> Callable[[Callable[[Trial], Verdict]], Callable[[Trial], Verdict]]:
    """Register the decorated function as a check; the function itself stays as it is."""
    if group not in GROUPS:
        raise ValueError(f"{id}: no group is called {group!r}")
    if level not in LEVELS:
        raise ValueError(f"{id}: no level is called {level!r}")

    def register(run: Callable[[Trial], Verdict]) -> Callable[[Trial], Verdict]:
        if id in CHECKS:
            raise ValueError(f"two checks are called {id!r}")
        CHECKS[id] = Check(id, clause, group, title, cure, needs, run, level)
        return run

    return register
