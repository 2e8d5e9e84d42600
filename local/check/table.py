"""The report for a person: a line a check, and below a failure its cause, its cure, what was seen.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Sequence

from byoa.local.check.checks import FAIL, PASS, SKIP, WARNING, Check
from byoa.local.check.report import Report
from byoa.local.check.runs import Result

MARKS = {PASS: "ok  ", FAIL: "FAIL", SKIP: "-   ", WARNING: "warn"}
EVIDENCE_LINES = 12
WIDTH = 100
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_RED, _YELLOW, _GREEN, _DIM = "\x1b[1;31m", "\x1b[1;33m", "\x1b[32m", "\x1b[2m"
_PLAIN = "\x1b[0m"
_COLOURS = {PASS: _GREEN, FAIL: _RED, SKIP: _DIM, WARNING: _YELLOW}


def render(report: Report, *, colour: bool = False, failures: bool = False) -> str:
    """The table, ending in a line that sums it up; `failures`: only what does not hold."""
    about = f" ({report.about})" if report.about else ""
    lines = [f"{report.subject}{about}"]
    width = max((len(each.check.id) for each in report.results), default=0)
    for group, results in report.by_group().items():
        if failures:
            results = [each for each in results if each.verdict.outcome == FAIL]
            lines += ["", group] if results else []
            for each in results:
                lines += _lines(each, width, colour)
            continue
        lines += ["", group]
        causes = {each.verdict.cause for each in results if each.verdict.outcome == SKIP}
        if len(causes) == 1 and all(each.verdict.outcome == SKIP for each in results):
            lines.append(f"  {_mark(SKIP, colour)} {len(results)} checks skipped: {causes.pop()}")
            continue
        for each in results:
            if not each.root:
                lines += _lines(each, width, colour)
        for root, number in Counter(each.root for each in results if each.root).items():
            lines.append(f"  {_mark(SKIP, colour)} {number} more need{'s' * (number == 1)} {root}")
    lines += ["", report.summary]
    return "\n".join(lines) + "\n"


def _lines(result: Result, width: int, colour: bool) -> list[str]:
    verdict, check = result.verdict, result.check
    warns = verdict.outcome == FAIL and check.level == WARNING
    mark = _mark(WARNING if warns else verdict.outcome, colour)
    head = f"  {mark} {check.id:{width}}  {check.title}"
    if verdict.outcome == PASS:
        return [head]
    if verdict.outcome != FAIL:
        return [head, *_wrapped("skipped: ", verdict.cause)]
    lines = [f"{head}  [{check.clause}]"]
    lines += _wrapped("why:  ", verdict.cause)
    lines += _wrapped("cure: ", result.cure)
    seen = verdict.evidence.rstrip().splitlines()
    if seen:
        left_out = len(seen) - EVIDENCE_LINES
        if left_out > 0:
            seen = [f"… {left_out} lines before", *seen[-EVIDENCE_LINES:]]
        # A log must not give orders to the terminal on which it is shown.
        lines += [f"       | {_CONTROL.sub('', line)[:400]}" for line in seen]
    return lines


def _mark(outcome: str, colour: bool) -> str:
    mark = MARKS[outcome]
    return f"{_COLOURS[outcome]}{mark}{_PLAIN}" if colour else mark


def _wrapped(label: str, text: str) -> list[str]:
    found: list[str] = []
    for line in _CONTROL.sub("", text).splitlines() or [""]:
        first = f"       {label}" if not found else " " * (7 + len(label))
        found += textwrap.wrap(line, WIDTH, initial_indent=first, break_on_hyphens=False,
                               break_long_words=False, subsequent_indent=" " * (7 + len(label))
                               ) or [first.rstrip()]
    return found


def render_catalogue(checks: Sequence[Check]) -> str:
    """Every check with its level, its title and its clauses."""
    width = max(len(each.id) for each in checks)
    lines: list[str] = []
    for group in dict.fromkeys(each.group for each in checks):
        lines += ["", group] if lines else [group]
        lines += [f"  {each.id:{width}}  {each.level:7}  {each.title}  [{each.clause}]"
                  for each in checks if each.group == group]
    return "\n".join(lines) + f"\n\n{len(checks)} checks\n"


def render_markdown(checks: Sequence[Check]) -> str:
    """The catalogue as a table for documentation."""
    lines = ["| check | level | what holds | where it does not | clauses |",
             "|---|---|---|---|---|"]
    for each in checks:
        cells = (f"`{each.id}`", each.level, each.title, each.cure, each.clause)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
