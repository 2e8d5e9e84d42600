"""`byoa metrics`: numbers, plots and machine-readable forms of what a job has measured."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from byoa.local.commands.plot import number, plot
from byoa.local.control.metric_series import PRINTED, SYSTEM, Point, SeriesWriter, series_path
from byoa.local.settings import Caller
from byoa.local.storage.state import State

CALLER = Caller("123456789012", "us-east-1")
JOB = {"secondary": "Completed", "peak_memory": {"algo-1": 331_000_000}, "notes": ["metric 'f1'"]}
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An ended job with two metrics, of which one is not defined, and its host's CPU."""
    state = State(tmp_path / "state.sqlite")
    state.create("training-job", CALLER, "digits-1", arn="a", status="Completed", document=JOB)
    state.create("training-job", CALLER, "young", arn="y", status="InProgress",
                 document={"secondary": "Training"})
    state.close()
    SeriesWriter(series_path(tmp_path, CALLER, "digits-1")).keep([
        each
        for step in range(1, 41)
        for each in (
            Point("train:loss", 2.0 / step, 1000.0 + step, "algo-1", step),
            Point("train:f1", step / 40, 1000.0 + step, "algo-1", step, PRINTED),
            Point("CPUUtilization", 150.0, 1000.0 + step, "algo-1", kind=SYSTEM),
        )
    ])
    return tmp_path


@pytest.fixture
def byoa(home: Path, clean_environment: dict[str, str]) -> Run:
    def run(*argv: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "byoa.local.cli", "metrics", "--home", str(home), *argv],
            env=clean_environment | {"PYTHONUTF8": "1", **more}, text=True, capture_output=True,
            encoding="utf-8", timeout=60,
        )

    return run


def test_a_job_s_metrics_are_a_table_without_a_server(byoa: Run) -> None:
    ran = byoa("digits-1")

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        "digits-1: Completed/Completed",
        "",
        "METRIC      COUNT  MIN    MAX  LAST  STEP",
        "train:loss  40     0.05   2    0.05  40",
        "train:f1    40     0.025  1    1     40",
        "",
        "no MetricDefinition names train:f1, which the service would not show: `byoa metrics"
        " --definitions ALGORITHM` prints what to ask for",
        "",
        "metric 'f1'",
    ]


def test_plots_are_as_wide_as_the_terminal_and_side_by_side_where_they_fit(byoa: Run) -> None:
    narrow = byoa("digits-1", "--plot", COLUMNS="70").stdout.splitlines()
    wide = byoa("digits-1", "--plot", COLUMNS="130").stdout.splitlines()

    assert max(len(line) for line in narrow if "│" in line or "└" in line) <= 70
    assert sum("└" in line for line in narrow) == 2
    (foot,) = [line for line in wide if "└" in line]
    assert len(foot) <= 130 and foot.count("└step 1") == 2
    assert re.search(r"^ {8}2 │[⠁-⣿]", "\n".join(narrow), re.MULTILINE)


def test_without_unicode_a_plot_has_ascii_alone(byoa: Run) -> None:
    ran = byoa("digits-1", "--plot", PYTHONUTF8="0", PYTHONIOENCODING="ascii")

    assert ran.returncode == 0 and ran.stdout.isascii()
    assert "        2 |*" in ran.stdout and "+step 1---" in ran.stdout


def test_some_metrics_may_be_chosen_and_a_mistyped_one_is_answered(byoa: Run) -> None:
    ran = byoa("digits-1", "train:f1")
    wrong = byoa("digits-1", "train:los")

    assert "train:loss" not in ran.stdout
    assert wrong.returncode == 1 and "did you mean 'train:loss'?" in wrong.stderr


def test_what_the_hosts_used_is_shown_apart(byoa: Run) -> None:
    """TRAIN-193."""
    ran = byoa("digits-1", "--system")

    assert "CPUUtilization algo-1  40     150  150  150" in ran.stdout
    assert "peak memory of algo-1: 331 MB" in ran.stdout
    assert "train:loss" not in ran.stdout
    assert "nothing has been measured" in byoa("young", "--system").stdout


def test_json_has_every_value(byoa: Run) -> None:
    document = json.loads(byoa("digits-1", "--json").stdout)

    assert document["status"] == "Completed" and document["notes"] == ["metric 'f1'"]
    assert document["peak_memory_bytes"] == {"algo-1": 331_000_000}
    loss, f1 = document["metrics"]
    assert (loss["name"], loss["count"], loss["last"], loss["step"]) == ("train:loss", 40, 0.05, 40)
    assert loss["points"][0] == {"time": 1001.0, "host": "algo-1", "step": 1, "value": 2.0}
    assert (loss["kind"], f1["kind"]) == ("metric", "printed")


def test_csv_has_every_value(byoa: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(byoa("digits-1", "--csv").stdout)))

    assert len(rows) == 80
    assert rows[0] == {
        "metric": "train:loss", "kind": "metric", "host": "algo-1", "time": "1001.0",
        "step": "1", "value": "2.0",
    }


def test_a_mistyped_job_is_answered_with_the_right_one(byoa: Run, tmp_path: Path) -> None:
    assert "did you mean 'digits-1'?" in byoa("digit-1").stderr
    assert "no job is named" in byoa().stderr


def _go_on(home: Path, byoa: Run, *argv: str) -> tuple[str, int]:
    """Follow a job that gets two values, and then ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "byoa.local.cli", "metrics", "--home", str(home), "young",
         "--follow", *argv],
        stdout=subprocess.PIPE, text=True,
    )
    assert process.stdout is not None
    writer = SeriesWriter(series_path(home, CALLER, "young"))
    writer.keep([Point("loss", 1.5, 1000.0, "algo-1", 1)])
    first = process.stdout.readline()
    if argv == ("--csv",):  # its head comes before any value
        first += process.stdout.readline()
    writer.keep([Point("loss", 0.5, 1001.0, "algo-2", 2)])
    _end(home)
    rest, _ = process.communicate(timeout=60)
    return first + rest, process.returncode


def _end(home: Path) -> None:
    state = State(home / "state.sqlite")

    def end(row: Any) -> None:
        row.status = "Completed"
        row.document["secondary"] = "Completed"

    state.mutate("training-job", CALLER, "young", end)
    state.close()


def test_a_running_job_is_followed_to_its_end_value_by_value(home: Path, byoa: Run) -> None:
    text, code = _go_on(home, byoa)

    assert code == 0
    lines = text.splitlines()
    assert lines[0].endswith("  algo-1  loss 1.5  step 1")
    assert lines[1].endswith("  algo-2  loss 0.5  step 2")
    assert lines[2] == "young: Completed/Completed"
    assert "loss    2      0.5  1.5  0.5   2" in lines


def test_a_running_job_is_followed_as_csv(home: Path, byoa: Run) -> None:
    text, _ = _go_on(home, byoa, "--csv")

    assert text.splitlines() == [
        "metric,kind,host,time,step,value",
        "loss,metric,algo-1,1000.0,1,1.5",
        "loss,metric,algo-2,1001.0,2,0.5",
    ]


def test_a_running_job_is_followed_as_lines_of_json(home: Path, byoa: Run) -> None:
    text, _ = _go_on(home, byoa, "--json")

    assert [json.loads(line)["value"] for line in text.splitlines()] == [1.5, 0.5]


def test_on_a_terminal_a_running_job_is_drawn_again_and_again(
    home: Path, clean_environment: dict[str, str]
) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "byoa.local.cli", "metrics", "--home", str(home), "young",
         "--follow"],
        stdin=slave, stdout=slave, stderr=slave,
        env=clean_environment | {"PYTHONUTF8": "1", "COLUMNS": "80"},
    )
    os.close(slave)
    writer = SeriesWriter(series_path(home, CALLER, "young"))
    writer.keep([Point("loss", 1 / step, 1000.0, "algo-1", step) for step in range(1, 9)])
    shown = b""
    end = time.monotonic() + 60
    while "└step 1".encode() not in shown:
        assert time.monotonic() < end, shown
        shown += os.read(master, 65536)
    _end(home)
    while process.poll() is None:
        assert time.monotonic() < end
        try:
            shown += os.read(master, 65536)
        except OSError:  # the terminal is closed
            break
    os.close(master)

    assert process.wait(10) == 0
    assert shown.count(b"\x1b[2J") >= 2
    assert shown.decode().rpartition("\x1b[2J")[2].count("young: Completed/Completed") == 1


def test_the_definitions_of_what_an_algorithm_logs_are_those_of_create_training_job(
    byoa: Run, tmp_path: Path
) -> None:
    """TRAIN-26, TRAIN-70."""
    built_in = json.loads(byoa("--definitions", "nearest-centroid").stdout)
    own = tmp_path / "mine.py"
    own.write_text(
        "from byoa.algorithms import Algorithm\nclass Mine(Algorithm):\n"
        "    metrics = ('a', 'b')\n    train = load = predict = None\n"
    )

    assert [each["Name"] for each in built_in] == ["train:accuracy"]
    match = re.search(built_in[0]["Regex"], "train:accuracy=0.5; step=3")
    assert match is not None and match[1] == "0.5"
    assert [each["Name"] for each in json.loads(byoa("--definitions", str(own)).stdout)] == [
        "a", "b",
    ]
    wrong = byoa("--definitions", "nearest-centroyd")
    assert wrong.returncode == 1 and "did you mean 'nearest-centroid'?" in wrong.stderr


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(0, 0), (1, 1)], ["        1 |   *", "          | **", "        0 |*"]),
        ([(5, 3)], ["      4.5 |", "          |*", "      1.5 |"]),
        ([(0, -1), (1, -1), (2, -1)], ["     -0.5 |", "          |****", "     -1.5 |"]),
    ],
)
def test_a_plot_joins_its_points_and_names_its_range(
    points: list[tuple[float, float]], expected: list[str]
) -> None:
    drawn = plot(points, width=15, height=4, x_labels=("a", "z"), unicode=False)

    assert drawn[:-1] == expected
    assert drawn[-1] == "          +a--z"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1, "1"), (0.123456, "0.12346"), (123456, "1.23e+05"), (1e-7, "1.00e-07"),
     (-2.5e12, "-2.50e+12"), (-0.0123456, "-0.012346"), (99999, "99999")],
)
def test_a_number_has_at_most_nine_characters(value: float, text: str) -> None:
    assert number(value) == text
