"""A real local SageMaker for tests: `byoa up` in a process of its own, on a free port."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# Short limits keep the tests quick; the defaults are the contract's.
QUICK = {"BYOA_STOP_GRACE": "10", "BYOA_STARTUP_WINDOW": "60"}
IN_DOCKER = {"BYOA_RUNNER": "docker", "BYOA_TEST": "server"}

# --- which runner: what holds for every runner is tested with each --------------------------------

RUNNERS = ("process", pytest.param("docker", marks=pytest.mark.docker))


def pytest_configure(config: pytest.Config) -> None:
    # In the background of a shell SIGINT is ignored, and so by every program that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers", "both_runners: with processes, and with containers among the docker tests"
    )
    config.addinivalue_line(
        "markers", "process_only(why): not in containers, though its module is both_runners"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The marker that is nearest to a test decides."""
    for marker in metafunc.definition.iter_markers():
        if marker.name in ("both_runners", "process_only"):
            if marker.name == "both_runners":
                metafunc.parametrize("runner_kind", RUNNERS)
            return


@pytest.fixture
def runner_kind() -> str:
    """"process" or "docker": what runs the containers of this test."""
    return "process"


# --- a server -------------------------------------------------------------------------------------


def _clean_environment() -> dict[str, str]:
    """No variable of the machine's AWS or byoa set-up reaches a test, and no engine that happens
    to run here changes what the tests without Docker test."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "BYOA_", "SAGEMAKER_", "SM_"))
    } | {"BYOA_RUNNER": "process"}


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


@pytest.fixture(scope="session")
def docker_sagemaker(
    engine: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalSageMaker]:
    """The same with Docker."""
    server = LocalSageMaker(tmp_path_factory.mktemp("byoa") / "home", IN_DOCKER).start()
    yield server
    server.stop()


@pytest.fixture
def server(runner_kind: str, request: pytest.FixtureRequest) -> LocalSageMaker:
    """The shared server of the test's runner."""
    name = "docker_sagemaker" if runner_kind == "docker" else "sagemaker"
    shared: LocalSageMaker = request.getfixturevalue(name)
    return shared


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


# --- a container engine: for tests marked `docker` ------------------------------------------------


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """The engine's client; a test that needs one fails where none answers, saying what to do."""
    from byoa.local.runners.engine import EngineUnavailable, connect

    try:
        client = connect()
    except EngineUnavailable as error:
        pytest.fail(f"this test needs a container engine: {error}", pytrace=False)
    yield client
    client.close()


def _existing_image(client: Any, names: list[str], cure: str) -> str:
    for name in names:
        if client.images.list(name):
            return name
    pytest.fail(f"this test needs the image {' or '.join(names)}: {cure}", pytrace=False)


@pytest.fixture(scope="session")
def base_image(engine: Any) -> str:
    """What the tests' own images are built from: a Debian with Python."""
    named = os.environ.get("BYOA_BASE_IMAGE")
    return _existing_image(
        engine, [named] if named else ["byoa-base:bookworm", "python:3.11-slim-bookworm"],
        "`docker pull python:3.11-slim-bookworm`, or name another in BYOA_BASE_IMAGE",
    )


@pytest.fixture(scope="session")
def byoa_image(engine: Any) -> str:
    """The image with torch's CPU build."""
    return _existing_image(
        engine, [os.environ.get("BYOA_TEST_IMAGE") or "byoa:latest"], "`make image` builds it"
    )


@pytest.fixture(scope="session")
def torch_free_image(engine: Any) -> str:
    """The image without torch."""
    return _existing_image(
        engine, [os.environ.get("BYOA_TEST_TORCH_FREE_IMAGE") or "byoa:no-torch"],
        "`make image TORCH_VARIANT=none` builds it",
    )


@pytest.fixture(scope="session")
def build_image(engine: Any, base_image: str) -> Iterator[Callable[..., str]]:
    """Builds a folder with a Dockerfile, keywords being build arguments (BASE_IMAGE is given); the
    images are labelled `byoa.test` and removed at the session's end."""
    tags: list[str] = []

    def build(folder: Path, dockerfile: str = "Dockerfile", **arguments: str) -> str:
        tag = f"byoa-test-{folder.name.lower()}:{uuid.uuid4().hex[:8]}"
        events = engine.api.build(
            path=str(folder), dockerfile=dockerfile, tag=tag, rm=True, forcerm=True, decode=True,
            buildargs={"BASE_IMAGE": base_image, **arguments}, labels={"byoa.test": "1"},
        )
        said: list[str] = []
        for event in events:
            said.append(str(event.get("stream") or event.get("error") or "").rstrip())
            assert "error" not in event, "\n".join(said)
        tags.append(tag)
        return tag

    yield build
    for tag in reversed(tags):
        engine.api.remove_image(tag, force=True)


@pytest.fixture
def build_own_image(build_image: Callable[..., str], torch_free_image: str) -> Callable[..., str]:
    """Builds a folder with an algorithm ("module:Class") as the README says: one COPY."""

    def build(folder: Path, algorithm: str) -> str:
        module = algorithm.partition(":")[0]
        folder.joinpath("Dockerfile").write_text(
            "ARG BASE_IMAGE\nFROM $BASE_IMAGE\n"
            f"COPY {module}.py .\nENV BYOA_ALGORITHM={algorithm}\n"
        )
        return build_image(folder, BASE_IMAGE=torch_free_image)

    return build


@pytest.fixture
def own_image(
    runner_kind: str, request: pytest.FixtureRequest
) -> Callable[[LocalSageMaker, Path, str], str]:
    """A folder with an algorithm as an image of the server, which is registered with processes and
    built with Docker; its reference."""

    def make(server: LocalSageMaker, folder: Path, algorithm: str) -> str:
        if runner_kind == "docker":
            return str(request.getfixturevalue("build_own_image")(folder, algorithm))
        name = f"{folder.name}-{uuid.uuid4().hex[:8]}"
        added = server.byoa("image", "add", name, str(folder))
        assert added.returncode == 0, added.stderr
        assert algorithm in added.stdout
        return f"{name}:latest"

    return make
