"""The command line: help with examples, right names for wrong ones, and a quick start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMANDS = ("up", "down", "status", "env", "train", "serve", "jobs", "endpoints", "logs", "image",
            "prune", "demo")


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
    assert f"byoa {command}" in ran.stdout.partition("example:")[2] or command == "env"


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
    after = byoa("status", *home, environment=clean_environment)
    assert after.returncode == 1
    assert "not running" in after.stdout


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
