"""Which clause of SageMaker's contract is shown by what: writes a document for training and one for
hosting.

`make clauses`; with --check it only says whether they are up to date. A clause is covered by tests
that name it, by checks of `byoa check`, or because a request that speaks of it is refused; a part's
text file has its clauses, and the reasons of those that need none of it.
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
SHOWN_TESTS = 3

_FAMILIES = "TRAIN|TK|DIST|DRV|LOC|HOST|STRM|BIDI|SESS|MME|ITK|CHK"
# TRAIN-05, or TRAIN-80 … TRAIN-84, or TRAIN-182/184
_CITED = re.compile(rf"\b({_FAMILIES})-(\d+)(?:\s*…\s*(?:\1-)?(\d+)|((?:/\d+)+))?")
_LINE = re.compile(rf"((?:{_FAMILIES})-\d+)  ([^|]+?)(?: \| (refused|none|pending):?(?: (.+))?)?")


@dataclass(frozen=True)
class Part:
    """One part of the contract: its clauses, its document, and the modules that refuse."""

    source: Path
    document: Path
    head: str
    modules: str  # a pattern of names in local/control


TRAINING = Part(
    ROOT / "tests" / "clauses.txt",
    ROOT / "docs" / "clauses.md",
    """# Clauses of the training contract

What SageMaker promises a training job, clause by clause, and where byoa shows that it holds: tests
that name the clause, checks that `byoa check` makes of any image, or the member of
`CreateTrainingJob` that is refused, with the reason. Written by `make clauses`; do not edit.
""",
    r"training_\w+",
)
HOSTING = Part(
    ROOT / "tests" / "hosting_clauses.txt",
    ROOT / "docs" / "hosting-clauses.md",
    """# Clauses of the hosting contract

What SageMaker promises a serving container and those who call it, clause by clause, and where byoa
shows that it holds: tests that name the clause, most through HTTP against a spawned server; checks
that `byoa check` makes of any image; or the member of `CreateModel` that is refused, with the
reason. Written by `make clauses`; do not edit.
""",
    "models|model_data|endpoint_configs",
)
PARTS = (TRAINING, HOSTING)


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


def clauses(part: Part = TRAINING) -> list[Clause]:
    """All of a part's text file, joined with what covers them."""
    found, section = [], ""
    for number, line in enumerate(part.source.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("== "):
            section = line[3:]
        elif line and not line.startswith("#"):
            match = _LINE.fullmatch(line)
            if match is None:
                raise SystemExit(f"{part.source.name}:{number}: not a clause: {line}")
            found.append(Clause(match[1], match[2], section, match[3], match[4] or ""))
    tests, checks, refusals = _tests(), _checks(), _refusals(part)
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


def markdown(part: Part, found: list[Clause]) -> str:
    lines, section = [part.head], ""
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


def _refusals(part: Part) -> dict[str, str]:
    """Members of a part's requests that are refused, with what to do instead."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "local" / "control").glob("*.py")):
        if not re.fullmatch(part.modules, path.stem):
            continue
        module = importlib.import_module(f"byoa.local.control.{path.stem}")
        for name, value in vars(module).items():
            if name.endswith("_REFUSALS") and isinstance(value, dict):
                found |= value
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    arguments = parser.parse_args()
    return max(_check(part) if arguments.check else _write(part) for part in PARTS)


def _check(part: Part) -> int:
    found = clauses(part)
    current = part.document.read_text(encoding="utf-8") if part.document.exists() else ""
    stale = current != markdown(part, found)
    if stale:
        print(f"{part.document.relative_to(ROOT)} is stale: run `make clauses`", file=sys.stderr)
    return int(_tell_missing(found) or stale)


def _write(part: Part) -> int:
    found = clauses(part)
    part.document.parent.mkdir(exist_ok=True)
    part.document.write_text(markdown(part, found), encoding="utf-8")
    pending = [each.id for each in found if not each.is_covered and each.kind == "pending"]
    arrived = [each.id for each in found if each.is_covered and each.kind == "pending"]
    print(f"{part.document.relative_to(ROOT)}: {len(found)} clauses")
    if pending:
        print(f"pending: {', '.join(pending)}")
    if arrived:
        print(f"no longer pending, though {part.source.name} says so: {', '.join(arrived)}")
    return int(_tell_missing(found))


def _tell_missing(found: list[Clause]) -> bool:
    missing = [each.id for each in found if not each.is_covered and each.kind != "pending"]
    if missing:
        print(f"nothing shows {', '.join(missing)}: write a test that names it", file=sys.stderr)
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main())
