"""What was checked and what came out: the one thing that every format of report is made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version

from byoa.local.check.checks import ERROR, FAIL, GROUPS, PASS, SKIP, WARNING
from byoa.local.check.runs import Result


@dataclass(frozen=True)
class Report:
    """One run of the checker."""

    subject: str  # reference of the image, or the algorithm
    kind: str  # "image" or "algorithm"
    about: str  # "linux/amd64, 0.24 GB"; "" for an algorithm
    results: Sequence[Result]
    started: datetime  # with its time zone
    seconds: float

    def count(self, outcome: str) -> int:
        return Counter(each.verdict.outcome for each in self.results)[outcome]

    @property
    def failures(self) -> list[Result]:
        """What does not hold, errors and warnings."""
        return [each for each in self.results if each.verdict.outcome == FAIL]

    def failed(self, level: str) -> int:
        """How many checks of this level do not hold."""
        return sum(each.check.level == level for each in self.failures)

    def by_group(self) -> dict[str, list[Result]]:
        """The results of the groups that have any, in the order of the groups."""
        grouped = {name: [each for each in self.results if each.check.group == name]
                   for name in GROUPS}
        return {name: results for name, results in grouped.items() if results}

    @property
    def summary(self) -> str:
        parts = [f"{self.count(PASS)} hold"]
        for level in (ERROR, WARNING):
            if number := self.failed(level):
                parts.append(f"{number} {level}{'s' * (number > 1)}")
        if self.count(SKIP):
            parts.append(f"{self.count(SKIP)} skipped")
        return f"{len(self.results)} checks of {self.subject} in {self.seconds:.1f} s:" \
            f" {', '.join(parts)}"


def tool_version() -> str:
    try:
        return version("byoa")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0"
