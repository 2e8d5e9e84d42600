"""`byoa train` and `byoa serve`: an author's file, trained and served without a server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


def byoa(*argv: str, environment: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "byoa.local.cli", *argv], env=environment, cwd=cwd, text=True,
        capture_output=True, timeout=120,
    )


@pytest.fixture
def folder(tmp_path: Path, digits: dict[str, bytes]) -> Path:
    (tmp_path / "mine.py").write_text((ROOT / "algorithms" / "nearest_centroid.py").read_text())
    (tmp_path / "digits.csv").write_bytes(digits["train"])
    return tmp_path


def test_a_file_is_trained_and_its_model_served(
    folder: Path, digits: dict[str, bytes], clean_environment: dict[str, str]
) -> None:
    ran = byoa("train", "mine.py", "--channel", "train=digits.csv", "-p", "metric=cosine",
               environment=clean_environment, cwd=folder)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "train:accuracy=" in ran.stdout
    manifest = json.loads((folder / "model" / "byoa.json").read_text())
    assert manifest["algorithm"] == "mine:NearestCentroid"
    assert manifest["hyperparameters"]["metric"] == "cosine"

    port = _free_port()
    server = _serve(port, folder, clean_environment)
    try:
        _await_ping(port, server)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", data=digits["test-records"],
            headers={"Content-Type": "text/csv", "Accept": "text/csv"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            read = answer.read().split()
        truth = digits["test-labels"].split()
        right = sum(float(a) == float(b) for a, b in zip(read, truth, strict=True))
        assert right / len(truth) > 0.8
    finally:
        os.kill(server.pid, signal.SIGTERM)
        output, _ = server.communicate(timeout=40)
    assert server.returncode == 0, output


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _serve(port: int, folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "byoa.local.cli", "serve", "model", "--port", str(port),
         "--home", str(folder / "state")],
        env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )


def _await_ping(port: int, server: Any) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    server.kill()
    raise AssertionError(server.communicate()[0])


def test_an_earlier_model_gives_way_to_a_new_one_but_not_to_a_failed_run(
    folder: Path, clean_environment: dict[str, str]
) -> None:
    command = ("train", "mine.py", "--channel", "train=digits.csv")
    for metric in ("l2", "cosine"):
        ran = byoa(*command, "-p", f"metric={metric}", environment=clean_environment, cwd=folder)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        manifest = json.loads((folder / "model" / "byoa.json").read_text())
        assert manifest["hyperparameters"]["metric"] == metric
    failed = byoa(*command, "-p", "metric=l3", environment=clean_environment, cwd=folder)
    assert failed.returncode == 1
    assert "model:" not in failed.stdout
    manifest = json.loads((folder / "model" / "byoa.json").read_text())
    assert manifest["hyperparameters"]["metric"] == "cosine"


def test_a_killed_server_leaves_no_worker_behind(
    folder: Path, clean_environment: dict[str, str]
) -> None:
    ran = byoa("train", "mine.py", "--channel", "train=digits.csv",
               environment=clean_environment, cwd=folder)
    assert ran.returncode == 0
    port = _free_port()
    server = _serve(port, folder, clean_environment)
    try:
        _await_ping(port, server)
    finally:
        server.kill()
        server.communicate(timeout=10)
    end = time.monotonic() + 15
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return
        time.sleep(0.1)
    raise AssertionError("something still listens")


def test_what_is_no_model_is_not_overwritten(
    folder: Path, clean_environment: dict[str, str]
) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "mine").write_text("keep me")
    ran = byoa("train", "mine.py", "--channel", "train=digits.csv",
               environment=clean_environment, cwd=folder)
    assert ran.returncode == 1
    assert "[MODEL_EXISTS]" in ran.stderr
    assert (folder / "model" / "mine").read_text() == "keep me"


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("train", "absent.py"), "ALGORITHM_MISSING"),
        (("train", "mine.py", "--channel", "train=absent.csv"), "CHANNEL_MISSING"),
        (("train", "mine.py", "--channel", "digits.csv"), "OPTION_INVALID"),
        (("train", "mine.py", "--channel", "train=digits.csv", "--content-type", "val=text/csv"),
         "CHANNEL_UNKNOWN"),
        (("serve", "absent"), "MODEL_MISSING"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(
    argv: tuple[str, ...], code: str, folder: Path, clean_environment: dict[str, str]
) -> None:
    ran = byoa(*argv, environment=clean_environment, cwd=folder)
    assert ran.returncode == 1
    assert f"[{code}]" in ran.stderr
    assert not (folder / "model").exists()


def test_a_wrong_channel_file_names_record_and_column(
    folder: Path, clean_environment: dict[str, str]
) -> None:
    (folder / "digits.csv").write_text("1,2,3\n0,4,oops\n")
    ran = byoa("train", "mine.py", "--channel", "train=digits.csv",
               environment=clean_environment, cwd=folder)
    assert ran.returncode == 1
    text = ran.stdout + ran.stderr
    assert "record 2" in text
    assert "column 3" in text
    assert "oops" in text
