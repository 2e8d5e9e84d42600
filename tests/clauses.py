"""Which clause of SageMaker's training contract is shown by what: writes docs/clauses.md.

`make clauses`; with --check it only says whether the document is up to date. A clause is covered by
tests that name it, by checks of `byoa check`, or because CreateTrainingJob refuses what it speaks
of; tests/clauses.txt has the clauses, and the reasons of those that need none of it.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLAUSES = ROOT / "tests" / "clauses.txt"
DOCUMENT = ROOT / "docs" / "clauses.md"
SHOWN_TESTS = 3

_FAMILIES = "TRAIN|TK|DIST|DRV|LOC"
# TRAIN-05, or TRAIN-80 … TRAIN-84, or TRAIN-182/184
_CITED = re.compile(rf"\b({_FAMILIES})-(\d+)(?:\s*…\s*(?:\1-)?(\d+)|((?:/\d+)+))?")
_LINE = re.compile(rf"((?:{_FAMILIES})-\d+)  ([^|]+?)(?: \| (refused|none|pending):?(?: (.+))?)?")

HEAD = """# Clauses of the training contract

What SageMaker promises a training job, clause by clause, and where byoa shows that it holds: tests
that name the clause, checks that `byoa check` makes of any image, or the member of
`CreateTrainingJob` that is refused, with the reason. Written by `make clauses`; do not edit.
"""


@dataclass(frozen=True)
class Test:
    """A test function, and whether it shows that something is refused."""

    path: str
    line: int
    name: str

    def __str__(self) -> str:
        words = self.name.removeprefix("test_").replace("_", " ")
        return f"[{words}](../{self.path})"


@dataclass
class Clause:
    """One clause, and what covers it."""

    id: str
    words: str
    section: str
    kind: str | None = None  # refused, none or pending
    detail: str = ""
    tests: list[Test] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    refusal: str | None = None

    @property
    def is_covered(self) -> bool:
        return bool(self.tests or self.checks or self.refusal or self.kind == "none")

    @property
    def cells(self) -> tuple[str, str, str]:
        shown = [str(each) for each in self.tests[:SHOWN_TESTS]]
        if len(self.tests) > SHOWN_TESTS:
            shown.append(f"{len(self.tests) - SHOWN_TESTS} more")
        ways = ["; ".join(shown)] if shown else []
        ways += [f"`byoa check`: {', '.join(self.checks)}"] if self.checks else []
        ways += [f"refused: {self.refusal}"] if self.refusal else []
        ways += [f"not here: {self.detail}"] if self.kind == "none" else []
        return self.id, self.words, "<br>".join(ways) or "test: pending"


def clauses() -> list[Clause]:
    """All of tests/clauses.txt, joined with what covers them."""
    found, section = [], ""
    for number, line in enumerate(CLAUSES.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("== "):
            section = line[3:]
        elif line and not line.startswith("#"):
            match = _LINE.fullmatch(line)
            if match is None:
                raise SystemExit(f"{CLAUSES.name}:{number}: not a clause: {line}")
            found.append(Clause(match[1], match[2], section, match[3], match[4] or ""))
    tests, checks, refusals = _tests(), _checks(), _refusals()
    for clause in found:
        clause.tests, clause.checks = tests.get(clause.id, []), checks.get(clause.id, [])
        if clause.kind == "refused" and clause.detail in refusals:
            clause.refusal = f"`{clause.detail}`; {refusals[clause.detail]}"
    return found


def cited(text: str) -> Iterator[str]:
    """The clauses that a text names, those of a range one by one."""
    for family, first, last, more in _CITED.findall(text):
        width = len(first)
        for number in range(int(first), int(last or first) + 1):
            yield f"{family}-{number:0{width}d}"
        yield from (f"{family}-{each}" for each in more.split("/") if each)


def markdown(found: list[Clause]) -> str:
    lines, section = [HEAD], ""
    for clause in found:
        if clause.section != section:
            section = clause.section
            lines += [f"## {section}\n", "| clause | says | shown by |", "|---|---|---|"]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in clause.cells)} |")
        if clause is found[-1] or found[found.index(clause) + 1].section != section:
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _tests() -> dict[str, list[Test]]:
    """By clause: functions named test_… that cite it, in docstring, comment or parameters."""
    found: defaultdict[str, list[Test]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if path.name == "test_clauses.py" or not _CITED.search(text):  # of this program
            continue
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                source = "\n".join(lines[first - 1 : node.end_lineno])
                test = Test(path.relative_to(ROOT).as_posix(), node.lineno, node.name)
                for clause in dict.fromkeys(cited(source)):
                    found[clause].append(test)
    return found


def _checks() -> dict[str, list[str]]:
    from byoa.local.check.catalogue import all_checks

    found: defaultdict[str, list[str]] = defaultdict(list)
    for check in all_checks():
        for clause in dict.fromkeys(cited(check.clause)):
            found[clause].append(check.id)
    return found


def _refusals() -> dict[str, str]:
    """Members of CreateTrainingJob that are refused, with what to do instead."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "local" / "control").glob("training_*.py")):
        module = importlib.import_module(f"byoa.local.control.{path.stem}")
        for name, value in vars(module).items():
            if name.endswith("_REFUSALS") and isinstance(value, dict):
                found |= value
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    arguments = parser.parse_args()
    found = clauses()
    text = markdown(found)
    missing = [each.id for each in found if not each.is_covered and each.kind != "pending"]
    if missing:
        print(f"nothing shows {', '.join(missing)}: write a test that names it", file=sys.stderr)
    if arguments.check:
        current = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else ""
        if current != text:
            print(f"{DOCUMENT.relative_to(ROOT)} is stale: run `make clauses`", file=sys.stderr)
        return int(bool(missing) or current != text)
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(text, encoding="utf-8")
    pending = [each.id for each in found if not each.is_covered and each.kind == "pending"]
    arrived = [each.id for each in found if each.is_covered and each.kind == "pending"]
    print(f"{DOCUMENT.relative_to(ROOT)}: {len(found)} clauses")
    if pending:
        print(f"pending: {', '.join(pending)}")
    if arrived:
        print(f"no longer pending, though {CLAUSES.name} says so: {', '.join(arrived)}")
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
