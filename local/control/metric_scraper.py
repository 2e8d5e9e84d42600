"""Metrics from what a job prints: each definition's expression is searched in every line.

The first group is the value (TRAIN-190). A definition that finds nothing says so, with the line
that comes nearest: an expression that never matches is otherwise only noticed by its absence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import regex

from byoa.container.contract import MetricDefinition

SEARCH_SECONDS = 0.1  # for one line; an expression may take exponential time
STRIKES = 3  # lines that may take longer before the expression is given up
LINE_CHARACTERS = 32_768  # of a line that are searched
NEAREST_LINES = 20_000  # that are compared with an expression that has not matched
SHOWN_CHARACTERS = 160

# Classes, escapes and group openings are no text of the line; the words between them are.
_ESCAPES = regex.compile(r"\\.|\[[^\]]*\]|\(\?[^)]*?[:>=!]")
_WORDS = regex.compile(r"[A-Za-z]{2,}")


@dataclass(frozen=True)
class Value:
    """One value of a metric; `moment` is epoch seconds."""

    name: str
    value: float
    moment: float


def problem(definition: MetricDefinition) -> str | None:
    """Why the expression cannot work; None when it can."""
    try:
        compiled = regex.compile(definition.regex)
    except regex.error as error:
        return f"is no regular expression: {error}"
    if compiled.groups < 1:
        return "has no group in parentheses to capture the value"
    return None


class MetricScraper:
    """Searches lines as they come; keeps the value of each metric that was printed last."""

    def __init__(self, definitions: Sequence[MetricDefinition]) -> None:
        self._searches = [_Search(each) for each in definitions]
        self._lines = 0

    def scrape(self, moment: float, line: str) -> list[Value]:
        """The values in one line, in the order of the definitions."""
        self._lines += 1
        text = line[:LINE_CHARACTERS]
        found = []
        for search in self._searches:
            value = search.value(text, self._lines)
            if value is not None:
                each = Value(search.definition.name, value, moment)
                found.append(each)
                # Hosts are heard one after the other when their logs are read again (TRAIN-194).
                if search.last is None or moment >= search.last.moment:
                    search.last = each
        return found

    @property
    def final(self) -> list[dict[str, Any]]:
        """FinalMetricDataList: the last value of each metric that had one (TRAIN-191)."""
        return [
            {"MetricName": last.name, "Value": last.value, "Timestamp": last.moment}
            for last in (search.last for search in self._searches)
            if last is not None
        ]

    def notes(self) -> list[str]:
        """What to tell the author about definitions that yielded no value."""
        return [note for search in self._searches if (note := search.note(self._lines))]


@dataclass
class _Search:
    definition: MetricDefinition
    last: Value | None = None
    strikes: int = 0
    no_number: str | None = None  # what was captured, when it was no number
    nearest: str | None = None
    nearest_score: float = 0.0
    compiled: Any = field(init=False)
    words: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.compiled = regex.compile(self.definition.regex)
        text = f"{_ESCAPES.sub(' ', self.definition.regex)} {self.definition.name}"
        self.words = frozenset(word.lower() for word in _WORDS.findall(text))

    def value(self, line: str, number: int) -> float | None:
        if self.strikes >= STRIKES:
            return None
        try:
            match = self.compiled.search(line, timeout=SEARCH_SECONDS)
        except TimeoutError:
            self.strikes += 1
            return None
        if match is None:
            if self.last is None and number <= NEAREST_LINES:
                self._compare(line)
            return None
        captured = match.group(1)
        try:
            value = float(captured or "")
        except ValueError:
            self.no_number = captured or ""
            return None
        if not math.isfinite(value):
            self.no_number = captured
            return None
        return value

    def _compare(self, line: str) -> None:
        if self.definition.regex in line:  # a print of the request tells nothing
            return
        lowered = line.lower()
        score = float(sum(word in lowered for word in self.words))
        if score and any(character.isdigit() for character in line):
            score += 0.5
        if score > self.nearest_score:
            self.nearest, self.nearest_score = line, score

    def note(self, lines: int) -> str | None:
        head = f"metric {self.definition.name!r} ({self.definition.regex})"
        if self.strikes >= STRIKES:
            return (
                f"{head}: given up, it took more than {SEARCH_SECONDS} s on {STRIKES} lines;"
                " avoid nested repetitions"
            )
        if self.last is not None:
            return None
        if self.no_number is not None:
            return f"{head}: matched, but captured {self.no_number!r}, which is no finite number"
        near = f"; nearest line: {self.nearest[:SHOWN_CHARACTERS]!r}" if self.nearest else ""
        return f"{head}: 0 matches in {lines:,} lines{near}"

