"""The command line: help with examples, right names for wrong ones, and a quick start."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from byoa.local.runners.identity import start_time

COMMANDS = ("up", "down", "status", "env", "train", "serve", "jobs", "endpoints", "logs", "metrics",
            "image", "prune", "demo")


def byoa(
    *argv: str, environment: dict[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "byoa.local.cli", *argv], env=environment, cwd=cwd, text=True,
        capture_output=True, timeout=60,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_has_an_example(
    command: str, clean_environment: dict[str, str]
) -> None:
    ran = byoa(command, "--help", environment=clean_environment)
    assert ran.returncode == 0
    assert "example:" in ran.stdout
    assert f"byoa {command}" in ran.stdout.partition("example:")[2]


@pytest.mark.parametrize(
    ("argv", "answer"),
    [
        (("trian",), "did you mean 'train'?"),
        (("up", "--prot", "1"), "did you mean '--port'?"),
        (("jobs", "--jsn"), "did you mean '--json'?"),
        (("image", "ad", "a", "b"), "did you mean 'add'?"),
    ],
)
def test_a_mistyped_command_or_option_is_answered_with_the_right_one(
    argv: tuple[str, ...], answer: str, clean_environment: dict[str, str]
) -> None:
    ran = byoa(*argv, environment=clean_environment)
    assert ran.returncode == 2
    assert answer in ran.stderr


def test_a_mistyped_name_is_answered_with_the_right_one(
    sagemaker: Any, training_request: Any
) -> None:
    sagemaker.client("s3").create_bucket(Bucket="tests")
    sagemaker.client("sagemaker").create_training_job(**training_request(
        "digits-classifier", Environment={"BYOA_ALGORITHM": "nearest-centroid"},
    ))
    for verb in ("jobs", "logs"):
        ran = sagemaker.byoa(verb, "digits-clasifier")
        assert ran.returncode == 1
        assert "did you mean 'digits-classifier'?" in ran.stderr


def test_nothing_heavy_is_imported_at_start(clean_environment: dict[str, str]) -> None:
    """The command starts in well under 0.3 s because it imports only what every verb needs."""
    code = (
        "import sys; from byoa.local.cli import build_parser; build_parser();"
        "heavy = {'botocore', 'boto3', 'moto', 'torch', 'numpy', 'flask', 'sklearn', 'sqlite3'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], env=clean_environment, text=True,
                         capture_output=True, timeout=60)
    assert ran.stdout.strip() == "[]", ran.stdout + ran.stderr


def test_without_a_server_the_error_says_how_to_start_one(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    ran = byoa("jobs", "--home", str(tmp_path), environment=clean_environment)
    assert ran.returncode == 1
    assert "[SERVER_NOT_RUNNING]" in ran.stderr
    assert "byoa up" in ran.stderr


def test_a_second_server_on_the_same_state_is_refused(sagemaker: Any) -> None:
    ran = sagemaker.byoa("up", "--port", "0")
    assert ran.returncode == 1
    assert "[SERVER_RUNNING]" in ran.stderr
    assert sagemaker.url in ran.stderr


def test_a_server_in_the_background_comes_and_goes(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    home = ("--home", str(tmp_path / "state"))
    up = byoa("up", "--detach", "--port", "0", *home, environment=clean_environment)
    assert up.returncode == 0, up.stderr
    status = byoa("status", "--json", *home, environment=clean_environment)
    record = json.loads(status.stdout)
    assert record["url"] in up.stdout
    assert record["jobs"] == 0
    down = byoa("down", *home, environment=clean_environment)
    assert down.returncode == 0, down.stderr
    assert start_time(record["pid"]) is None, "it returned while the server was still there"
    with socket.create_server(("127.0.0.1", int(record["url"].rpartition(":")[2]))):
        pass  # its port is free
    after = byoa("status", *home, environment=clean_environment)
    assert after.returncode == 1
    assert "not running" in after.stdout


def test_a_server_that_does_not_end_is_named_with_what_to_do(
    new_sagemaker: Any, clean_environment: dict[str, str]
) -> None:
    server = new_sagemaker()
    server.process.send_signal(signal.SIGSTOP)
    code = (
        "import sys; from byoa.local.commands import server; from byoa.local.cli import main;"
        "server.DOWN_SECONDS = 0.5; sys.exit(main())"
    )
    try:
        down = subprocess.run(
            [sys.executable, "-c", code, "down", "--home", str(server.home)],
            env=clean_environment, text=True, capture_output=True, timeout=60,
        )
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert down.returncode == 1
    assert "[SERVER_NOT_STOPPED]" in down.stderr
    assert f"kill -9 {server.process.pid}" in down.stderr
    assert server.process.wait(45) == 0


def test_the_record_of_a_killed_server_is_not_believed(
    new_sagemaker: Any, clean_environment: dict[str, str]
) -> None:
    """Its process number may be another's by now, which `down` must not touch."""
    server = new_sagemaker()
    server.kill()
    record = server.home / "server.json"
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        record.write_text(json.dumps({"pid": stranger.pid, "url": server.url}))
        status = server.byoa("status")
        assert status.returncode == 1
        assert "not running" in status.stdout
        assert server.byoa("down").returncode == 0
        assert stranger.poll() is None
        server.start()
        assert server.byoa("status").returncode == 0
    finally:
        stranger.kill()
        stranger.wait(10)


def test_containers_that_a_killed_server_left_are_told_and_stopped(
    new_sagemaker: Any, training_request: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "sleeper"
    folder.mkdir()
    (folder / "sleeper.py").write_text(
        "import time\nfrom byoa.algorithms import Algorithm\n"
        "class Sleeper(Algorithm):\n"
        "    def train(self, run):\n"
        "        while not run.stopping: time.sleep(0.05)\n"
        "    def load(self, model_dir, device): return None\n"
        "    def predict(self, model, records): return records\n"
    )
    server = new_sagemaker()
    assert server.byoa("image", "add", "sleeper", str(folder)).returncode == 0
    server.client("s3").create_bucket(Bucket="tests")
    server.client("sagemaker").create_training_job(**training_request(
        "sleeps",
        AlgorithmSpecification={"TrainingImage": "sleeper", "TrainingInputMode": "File"},
    ))
    end = time.monotonic() + 20
    while not list(server.home.glob("containers/*/child.json")) and time.monotonic() < end:
        time.sleep(0.05)
    server.kill()
    assert "1 container(s) of an earlier one still run" in server.byoa("status").stdout
    down = server.byoa("down").stdout
    assert "left running: 1 container(s)" in down
    assert "ends as Stopped, with what they have saved: sleeps" in down
    assert "still run" not in server.byoa("status").stdout
    server.start()
    assert _ends(server), "the next server finishes the job's record"


def _ends(server: Any) -> bool:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        jobs = server.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
        if jobs[0]["TrainingJobStatus"] != "InProgress":
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (("up", "--port", "99999"), "port 99999 does not exist"),
        (("up", "--home", "/proc/nope", "--detach"), "[OS_ERROR]"),
        (("status", "--home", "/dev/null"), "[OS_ERROR]"),
    ],
)
def test_what_the_system_refuses_is_an_error_of_one_line(
    argv: tuple[str, ...], text: str, clean_environment: dict[str, str]
) -> None:
    ran = byoa(*argv, environment=clean_environment)
    assert ran.returncode == 1
    assert text in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_bad_setting_names_its_variable(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    environment = clean_environment | {"BYOA_PORT": "http"}
    ran = byoa("up", "--home", str(tmp_path), environment=environment)
    assert ran.returncode == 1
    assert "BYOA_PORT is 'http'" in ran.stderr


def test_jobs_and_endpoints_print_json_for_scripts(sagemaker: Any) -> None:
    for verb in ("jobs", "endpoints"):
        ran = sagemaker.byoa(verb, "--json")
        assert ran.returncode == 0, ran.stderr
        assert isinstance(json.loads(ran.stdout), list)
