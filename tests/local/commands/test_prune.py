"""`byoa prune` gives back space and takes nothing that is still needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from byoa.local.settings import Caller
from byoa.local.storage.state import State

OLD = 1_000_000_000


def byoa(home: Path, environment: dict[str, str], *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "byoa.local.cli", "prune", "--home", str(home), *argv],
        env=environment, text=True, capture_output=True, timeout=60,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A running job and an ended one, each with a folder and an old log."""
    state = State(tmp_path / "state.sqlite")
    caller = Caller("123456789012", "us-east-1")
    for name, status in (("running", "InProgress"), ("ended", "Completed")):
        state.create("training-job", caller, name, arn=f"arn:{name}", status=status, document={})
        folder = tmp_path / "jobs" / f"training-{caller.account}-{caller.region}" / name
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(b"x" * 1000)
        log = tmp_path / "logs" / caller.account / "aws" / name / "algo-1-1"
        log.parent.mkdir(parents=True)
        log.write_text("line\n")
        for path in (folder, log):
            os.utime(path, (OLD, OLD))
    state.close()
    (tmp_path / "s3" / "bucket").mkdir(parents=True)
    kept = tmp_path / "s3" / "bucket" / "object"
    kept.write_text("kept")
    os.utime(kept, (OLD, OLD))
    return tmp_path


def _left(home: Path) -> set[str]:
    return {path.relative_to(home).parts[0] + "/" + path.name for path in home.rglob("*")
            if path.is_file() and path.parts[len(home.parts)] in ("jobs", "logs", "s3")}


def test_only_what_an_ended_job_left_goes(home: Path, clean_environment: dict[str, str]) -> None:
    ran = byoa(home, clean_environment, "--json")
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert answer["bytes"] == 1005
    assert all("ended" in path for path in answer["paths"])
    assert _left(home) == {"jobs/data", "logs/algo-1-1", "s3/object"}


def test_a_dry_run_only_tells(home: Path, clean_environment: dict[str, str]) -> None:
    before = _left(home)
    ran = byoa(home, clean_environment, "--dry-run")
    assert "bytes would be removed" in ran.stdout
    assert _left(home) == before
    assert len(list(home.glob("jobs/*/*"))) == 2


def test_what_changed_lately_stays(home: Path, clean_environment: dict[str, str]) -> None:
    for path in home.rglob("*"):
        os.utime(path)
    ran = byoa(home, clean_environment, "--json")
    assert json.loads(ran.stdout)["paths"] == []
