"""A real local SageMaker for tests: `byoa up` in a process of its own, on a free port."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# Short limits keep the tests quick; the defaults are the contract's.
QUICK = {"BYOA_STOP_GRACE": "10", "BYOA_STARTUP_WINDOW": "60"}


def _clean_environment() -> dict[str, str]:
    """No variable of the machine's AWS or byoa set-up reaches a test."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "BYOA_", "SAGEMAKER_", "SM_"))
    }


@dataclass
class LocalSageMaker:
    """One server process and its state directory; it can be killed and started again."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    url: str = ""

    def start(self) -> LocalSageMaker:
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "byoa.local.cli", "up", "--home", str(self.home),
                 "--port", "0"],
                env=_clean_environment() | QUICK | self.environment,
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )
        record = self.home / "server.json"
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                found = json.loads(record.read_text())
            except (FileNotFoundError, ValueError):
                found = {}
            if found.get("pid") == self.process.pid:
                self.url = found["url"]
                return self
            time.sleep(0.02)
        raise AssertionError(f"no server:\n{(self.home / 'server.log').read_text()}")

    def kill(self) -> None:
        """SIGKILL, as a crash or the kernel does it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(45)
        finally:
            if self.process.poll() is None:
                self.kill()

    def client(self, service: str, **more: Any) -> Any:
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=more.pop("region_name", "us-east-1"),
            aws_access_key_id="test",
            aws_secret_access_key="test",
            **more,
        )

    def byoa(self, *argv: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """One `byoa` command against this server's state."""
        return subprocess.run(
            [sys.executable, "-m", "byoa.local.cli", *argv, "--home", str(self.home)],
            env=_clean_environment() | self.environment, text=True, capture_output=True,
            timeout=60, **more,
        )


@pytest.fixture(scope="session")
def sagemaker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSageMaker]:
    """A server that the tests of one worker share; names that they make are their own."""
    server = LocalSageMaker(tmp_path_factory.mktemp("byoa") / "home").start()
    yield server
    server.stop()


@pytest.fixture
def new_sagemaker(tmp_path: Path) -> Iterator[Callable[..., LocalSageMaker]]:
    """Starts servers of a test's own, and stops them at its end."""
    started: list[LocalSageMaker] = []

    def start(name: str = "home", **environment: str) -> LocalSageMaker:
        server = LocalSageMaker(tmp_path / name, environment)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def clean_environment() -> dict[str, str]:
    return _clean_environment()


@pytest.fixture
def training_request() -> Callable[..., dict[str, Any]]:
    """A CreateTrainingJob request with every required member; keywords replace members."""

    def build(name: str, **members: Any) -> dict[str, Any]:
        request: dict[str, Any] = {
            "TrainingJobName": name,
            "RoleArn": "arn:aws:iam::123456789012:role/tests",
            "AlgorithmSpecification": {
                "TrainingImage": "byoa:latest",
                "TrainingInputMode": "File",
            },
            "OutputDataConfig": {"S3OutputPath": "s3://tests/output"},
            "ResourceConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 1,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 120},
        }
        request.update(members)
        return request

    return build


@pytest.fixture
def channel() -> Callable[..., dict[str, Any]]:
    """A File channel over an S3 prefix."""

    def build(name: str, uri: str, **members: Any) -> dict[str, Any]:
        return {
            "ChannelName": name,
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}},
            **members,
        }

    return build


@pytest.fixture(scope="session")
def digits() -> dict[str, bytes]:
    """The digits of scikit-learn as CSV, label first: 1,200 to train, 597 to test."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    rows = [
        ",".join([str(label), *(f"{value:g}" for value in row)])
        for label, row in zip(labels.tolist(), pixels.tolist(), strict=True)
    ]
    bare = [row.partition(",")[2] for row in rows]
    return {
        "train": "\n".join(rows[:1200]).encode(),
        "test": "\n".join(rows[1200:]).encode(),
        "test-records": "\n".join(bare[1200:]).encode(),
        "test-labels": "\n".join(str(label) for label in labels[1200:].tolist()).encode(),
    }
