"""What a killed checker left is told from what belongs to one that runs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from byoa.local.check import killed
from byoa.local.runners.identity import is_running, start_time

PROGRAM = """
import time
from byoa.local.check.trial import Samples, Trial
trial = Trial.of_algorithm("nearest-centroid", Samples())
box = trial.serve(trial.hosting_ml())
while not box.processes():
    time.sleep(0.05)
print(box.processes()[0].pid, flush=True)
time.sleep(120)
"""


def test_a_mark_tells_a_checker_that_runs_from_one_that_was_killed() -> None:
    place, pid, started = killed.mark().split("|")
    assert not killed.is_killed(killed.mark())
    assert killed.is_killed(f"{place}|{pid}|1")  # its number is another process's by now
    assert not killed.is_killed(f"0@elsewhere/pid:[1]|{pid}|1")
    assert not killed.is_killed("")


def test_folder_and_processes_of_a_killed_checker_go_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"{killed.PREFIX}unmarked").mkdir()
    running = tmp_path / f"{killed.PREFIX}running"
    running.mkdir()
    (running / killed.FILE).write_text(killed.mark())
    kept = set(tmp_path.iterdir())
    checker = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    try:
        assert checker.stdout is not None
        pid = int(checker.stdout.readline())
        started = start_time(pid)
        assert killed.sweep(None) == []
    finally:
        checker.kill()
        checker.communicate()
    (left,) = killed.sweep(None, remove=False)
    assert left in map(str, tmp_path.iterdir()) and is_running(pid, started)
    assert killed.sweep(None) == [left]
    assert not is_running(pid, started)
    assert {each for each in tmp_path.iterdir() if each.name.startswith(killed.PREFIX)} == kept
