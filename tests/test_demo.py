"""The guided tour, run as a newcomer runs it: to its end, and interrupted at any moment."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def _start(folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "byoa.local.cli", "demo"],
        cwd=folder, env=environment | {"TMPDIR": str(folder), "BYOA_DEMO_MARK": str(folder)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )


def _survivors(mark: str) -> list[str]:
    """Command lines of processes that the tour started, by a variable that they inherited."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"BYOA_DEMO_MARK={mark}".encode() in (entry / "environ").read_bytes():
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if (entry / "stat").read_text().rsplit(")")[1].split()[0] != "Z":
                    found.append(command)
        except OSError:
            continue
    # A job's environment is its own; its command line names the tour's state directory.
    found += [
        command for entry in Path("/proc").glob("[0-9]*")
        if mark in (command := _command(entry)) and command not in found
    ]
    return found


def _command(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for survivors in /proc")
def test_the_tour_reaches_the_accuracy_and_leaves_only_its_picture(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    tour = _start(tmp_path, clean_environment)
    output, _ = tour.communicate(timeout=240)
    assert tour.returncode == 0, output
    last = output.rstrip().splitlines()[-1]
    accuracy = re.fullmatch(r"test accuracy: (0\.\d{3}|1\.000)", last)
    assert accuracy, output
    assert float(accuracy[1]) >= 0.97
    for step in ("Generate example data", "Train", "Deploy", "Evaluate", "where the time went"):
        assert step in output
    assert "validation:accuracy" in output
    assert "InProgress/Training" in output
    picture = tmp_path / "byoa-demo" / "digits.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [each.name for each in tmp_path.iterdir()] == ["byoa-demo"]
    assert _survivors(str(tmp_path)) == []


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for survivors in /proc")
@pytest.mark.parametrize("moment", ["local SageMaker on", "== 2 Train", "| ", "== 3 Deploy"])
def test_ctrl_c_at_any_moment_leaves_no_process_and_no_file(
    moment: str, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    tour = _start(tmp_path, clean_environment | {"PYTHONUNBUFFERED": "1"})
    assert tour.stdout is not None
    seen = ""
    for line in tour.stdout:
        seen += line
        if moment in line:
            break
    else:
        pytest.fail(f"{moment!r} never came:\n{seen}")
    time.sleep(0.2)
    # A terminal sends SIGINT to the whole foreground group.
    os.killpg(tour.pid, signal.SIGINT)
    rest, _ = tour.communicate(timeout=90)
    assert tour.returncode == 130, seen + rest
    assert _survivors(str(tmp_path)) == [], seen + rest
    assert [each.name for each in tmp_path.iterdir() if each.name != "byoa-demo"] == []
