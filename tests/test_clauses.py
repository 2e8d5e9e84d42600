"""The documents of clauses say what the tests, the checks and the refusals show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def program() -> Any:
    """tests/clauses.py as a module."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("clauses", ROOT / "tests" / "clauses.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["clauses"] = module  # its dataclasses look for it there
    spec.loader.exec_module(module)
    return module


def test_every_clause_is_shown_by_something_and_the_documents_say_by_what() -> None:
    """`make clauses` brings them up to date."""
    ran = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "clauses.py"), "--check"],
        capture_output=True, text=True, timeout=60,
    )

    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("TRAIN-05.", ["TRAIN-05"]),
        ("TK-01, TRAP-02; DIST-10", ["TK-01", "DIST-10"]),
        ("TRAIN-99 … TRAIN-101", ["TRAIN-99", "TRAIN-100", "TRAIN-101"]),
        ("TRAIN-08 … 10", ["TRAIN-08", "TRAIN-09", "TRAIN-10"]),
        ("TRAIN-182/184", ["TRAIN-182", "TRAIN-184"]),
        ("HOST-03, CHK-06 … CHK-08", ["HOST-03", "CHK-06", "CHK-07", "CHK-08"]),
        ("TRAIN-05 … TK-07", ["TRAIN-05", "TK-07"]),
        ("XTRAIN-05 BTRAIN", []),
    ],
)
def test_a_range_of_clauses_names_each(program: Any, text: str, clauses: list[str]) -> None:
    assert list(program.cited(text)) == clauses


def test_a_refused_clause_needs_a_test_when_its_member_is_no_longer_refused(
    program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_tests", "_checks"):
        monkeypatch.setattr(program, name, dict)
    monkeypatch.setattr(program, "_refusals", lambda part: {"RetryStrategy": "submit it again"})
    refused = {each.id: each for each in program.clauses()}["TRAIN-210"]
    monkeypatch.setattr(program, "_refusals", lambda part: {})
    now = {each.id: each for each in program.clauses()}["TRAIN-210"]

    assert refused.cells[2] == "refused: `RetryStrategy`; submit it again" and refused.is_covered
    assert now.cells[2] == "test: pending" and not now.is_covered
