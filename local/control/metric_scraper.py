"""Metrics from what a job prints: each definition's expression is searched in every line.

The first group is the value (TRAIN-190). A definition that finds nothing says so, with the line
that comes nearest and what stands in the way (TRAP-27): an expression that never matches is
otherwise only noticed by its absence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import regex

from byoa.container.contract import MetricDefinition

SEARCH_SECONDS = 0.1  # for one line; an expression may take exponential time
STRIKES = 3  # lines that may take longer before the expression is given up
LINE_CHARACTERS = 32_768  # of a line that are searched
NEAREST_LINES = 20_000  # that are compared with an expression that has not matched
SHOWN_CHARACTERS = 160
PRINTED_NAMES = 200  # that no definition names, as `run.metrics.log` prints them

# Classes, escapes and group openings are no text of the line; the words between them are.
_ESCAPES = regex.compile(r"\\.|\[[^\]]*\]|\(\?[^)]*?[:>=!]")
_WORDS = regex.compile(r"[A-Za-z][A-Za-z0-9]+")
# A whole line of `run.metrics.log`, behind an MPI prefix or not.
_PRINTED = regex.compile(
    r"(?:\[[^\]]*\]<std(?:out|err)>:)?([^\s=;]{1,255})=(-?[0-9]+(?:\.[0-9]+)?(?:e[-+][0-9]+)?)"
    r"(?:; step=([0-9]+))?\s*"
)
_STEP = regex.compile(
    r"\b(?:step|epoch|iter(?:ation)?|round)s?[ =:\[]{1,3}([0-9]{1,15})\b", regex.IGNORECASE
)

# What commonly stands between an expression and its text (TRAP-27): how it looks, the line's text
# without it, and what to do.
_ANSI = regex.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_MPI = regex.compile(r"^\[[0-9]+,[^\]]*\]\s?<std(?:out|err)>:\s?")
_OBSTACLES: tuple[tuple[str, Callable[[str], Sequence[str]]], ...] = (
    ("ANSI codes (colours, cursor moves) stand in the text: print it without them",
     lambda line: [_ANSI.sub("", line)] if "\x1b" in line else ()),
    ("it is a progress bar, redrawn by \\r within one line: print the value on a line of its own",
     lambda line: line.split("\r") if "\r" in line.rstrip("\r") else ()),
    ("the line ends in \\r\\n: leave room for \\s* before $",
     lambda line: [line.rstrip("\r")] if line.endswith("\r") else ()),
    ("mpirun puts its prefix before each line: do not anchor the expression by ^",
     lambda line: [_MPI.sub("", line)] if line.startswith("[") else ()),
)


@dataclass(frozen=True)
class Value:
    """One value of a metric; `moment` is epoch seconds, `step` what the line says of it.

    Those that no definition names are no metrics of the job; its author may have meant them to be.
    """

    name: str
    value: float
    moment: float
    step: int | None = None
    defined: bool = True


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
        self._names = frozenset(each.name for each in definitions)
        self._undefined: set[str] = set()
        self._lines = 0

    def scrape(self, moment: float, line: str) -> list[Value]:
        """The values in one line, in the order of the definitions."""
        self._lines += 1
        text = line[:LINE_CHARACTERS]
        found = []
        for search in self._searches:
            value = search.value(text, self._lines)
            if value is not None:
                each = Value(search.definition.name, value, moment, _step(text))
                found.append(each)
                # Hosts are heard one after the other when their logs are read again (TRAIN-194).
                if search.last is None or moment >= search.last.moment:
                    search.last = each
        return found or self._printed(moment, text)

    def _printed(self, moment: float, line: str) -> list[Value]:
        match = _PRINTED.fullmatch(line) if "=" in line else None
        if match is None or match[1] in self._names:
            return []
        if match[1] not in self._undefined and len(self._undefined) >= PRINTED_NAMES:
            return []
        self._undefined.add(match[1])
        step = None if match[3] is None else int(match[3])
        return [Value(match[1], float(match[2]), moment, step, defined=False)]

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
    obstacle: str | None = None
    compiled: Any = field(init=False)
    words: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.compiled = regex.compile(self.definition.regex)
        text = f"{_ESCAPES.sub(' ', self.definition.regex)} {self.definition.name}"
        self.words = frozenset(word.lower() for word in _WORDS.findall(text))

    def value(self, line: str, number: int) -> float | None:
        match = self._search(line)
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

    def _search(self, line: str) -> Any:
        if self.strikes >= STRIKES:
            return None
        try:
            return self.compiled.search(line, timeout=SEARCH_SECONDS)
        except TimeoutError:
            self.strikes += 1
            return None

    def _compare(self, line: str) -> None:
        if self.definition.regex in line or self.obstacle is not None:
            return  # a print of the request tells nothing
        for obstacle, without in _OBSTACLES:
            if any(self._search(text) is not None for text in without(line)):
                self.obstacle, self.nearest = obstacle, line
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
            captured = self.no_number
            note = f"{head}: matched, but captured {_cut(captured)}, which is no finite number"
            # The digits alone may be captured all the same.
            why = [how for how, without in _OBSTACLES if list(without(captured))]
            return "; ".join([note, *why])
        note = f"{head}: 0 matches in {lines:,} lines"
        if self.nearest:
            note += f"; nearest line: {_cut(self.nearest)}"
        if self.obstacle:
            note += f"; {self.obstacle}"
        return note


def _step(line: str) -> int | None:
    match = _STEP.search(line)
    return None if match is None else int(match[1])


def _cut(text: str) -> str:
    return repr(text[:SHOWN_CHARACTERS])
