"""Training jobs in this process: real buckets, state, containers and log service; no HTTP."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

BUCKET = "tests"
HEAD = """
import json, os, pathlib, signal, sys, time
ml = pathlib.Path(os.environ.get('SAGEMAKER_BASE_DIR', '/opt/ml'))
"""
# A container's first process has no handlers but its own: SIGTERM alone would not end it.
HEAD_OF_FIRST = HEAD + "signal.signal(signal.SIGTERM, lambda *_: os._exit(143))\n"


@dataclass
class Laboratory:
    """The services of training jobs over a home directory; `restart` is another server's start."""

    home: Path
    scripts: Path
    settings: Any
    caller: Any
    logs: Any
    metrics: Any
    onlooker: Any
    byoa_image: str  # runs byoa's own programs
    plain_image: str | None = None  # of the engine, with Python alone; None with processes
    sandbox: str = "off"
    state: Any = None
    buckets: Any = None
    runner: Any = None
    training: Any = None
    closed: bool = field(default=True)

    def open(self, *, start: bool = True) -> Laboratory:
        from byoa.local.control.training_jobs import TrainingJobs
        from byoa.local.runners.docker import DockerRunner
        from byoa.local.runners.images import Images
        from byoa.local.runners.process import ProcessRunner
        from byoa.local.storage.buckets import Buckets
        from byoa.local.storage.state import State

        self.state = State(self.home / "state.sqlite")
        self.buckets = Buckets(self.home)
        self.buckets.create(BUCKET)
        if self.plain_image is None:
            self.runner = ProcessRunner(Images(self.state), self.home, sandbox=self.sandbox)
        else:
            self.runner = DockerRunner(self.home, labels={"byoa.test": "control"})
        self.training = TrainingJobs(
            self.state, self.buckets, self.runner, self.settings, self.logs, self.metrics,
            lambda caller, image: {
                "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "byoa",
            },
        )
        self.closed = False
        if start:
            self.training.start()
        return self

    def close(self, **how: Any) -> None:
        if not self.closed:
            self.training.close(**how)
            self.runner.close()
            self.buckets.close()
            self.state.close()
            self.closed = True

    def restart(self) -> None:
        """The server goes without touching its containers, and another one starts."""
        self.close(keep_running=True)
        self.open()

    def call(self, operation: str, **request: Any) -> dict[str, Any]:
        return self.training.operations[operation](self.caller, request)

    def describe(self, name: str) -> dict[str, Any]:
        return self.call("DescribeTrainingJob", TrainingJobName=name)

    def wait(self, name: str, timeout: float = 30.0) -> dict[str, Any]:
        """Describe, when the job has ended."""
        return self.until(
            name, lambda job: job["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"),
            timeout,
        )

    def until(
        self, name: str, test: Callable[[dict[str, Any]], bool], timeout: float = 30.0
    ) -> dict[str, Any]:
        end = time.monotonic() + timeout
        while True:
            since = self.state.changes
            job = self.describe(name)
            if test(job):
                return job
            left = end - time.monotonic()
            assert left > 0, job
            self.state.wait_for_change(min(left, 1.0), since)

    def until_printed(self, name: str, text: str, timeout: float = 30.0) -> None:
        end = time.monotonic() + timeout
        while text not in self.lines(name):
            assert time.monotonic() < end, (self.lines(name), self.describe(name))
            time.sleep(0.02)

    def program(self, source: str) -> dict[str, Any]:
        """AlgorithmSpecification of a Python script, which finds its /opt/ml as `ml`."""
        if self.plain_image is not None:
            # Longer than an argument may be on the service: the wire would refuse it.
            source = HEAD_OF_FIRST + textwrap.dedent(source)
            image, entrypoint = self.plain_image, ["python3", "-c", source]
        else:
            path = self.scripts / f"script-{len(list(self.scripts.iterdir()))}.py"
            path.write_text(HEAD + textwrap.dedent(source), encoding="utf-8")
            image, entrypoint = self.byoa_image, [sys.executable, str(path)]
        return {
            "TrainingImage": image, "TrainingInputMode": "File", "ContainerEntrypoint": entrypoint,
        }

    def ml(self, name: str, host: str = "algo-1") -> Path:
        """What a host of a job has as /opt/ml, on this machine."""
        job = f"training-{self.caller.account}-{self.caller.region}/{name}"
        return self.home / "jobs" / job / host / "ml"

    def until_ended(self, timeout: float = 20.0) -> None:
        """Wait until no container runs."""
        end = time.monotonic() + timeout
        while self.onlooker.running():
            assert time.monotonic() < end, self.onlooker.running()
            time.sleep(0.02)

    def streams(self, name: str) -> dict[str, list[str]]:
        """The job's log streams and their lines."""
        group = self.logs._backend(self.caller).groups.get("/aws/sagemaker/TrainingJobs")
        found = {} if group is None else group.streams
        return {
            stream: [event.message for event in found[stream].events]
            for stream in found
            if stream.startswith(f"{name}/")
        }

    def lines(self, name: str) -> list[str]:
        return [line for lines in self.streams(name).values() for line in lines]

    def get(self, key: str) -> bytes:
        return self.buckets.path(BUCKET, key).read_bytes()

    def archive(self, key: str) -> dict[str, bytes | None]:
        """Members of a tar.gz object; None is a directory."""
        with tarfile.open(fileobj=io.BytesIO(self.get(key)), mode="r:gz") as opened:
            return {
                member.name: opened.extractfile(member).read() if member.isfile() else None
                for member in opened
            }

    def statuses(self, name: str) -> list[str]:
        """The secondary statuses that a job went through."""
        return [each["Status"] for each in self.describe(name)["SecondaryStatusTransitions"]]

    def keys(self, prefix: str = "") -> list[str]:
        return [info.key for info in self.buckets.keys(BUCKET, prefix)]


@pytest.fixture(scope="session")
def cloudwatch() -> tuple[Any, Any]:
    """The log and the metric service, as they are in the server."""
    from byoa.local.aws.logs import Logs
    from byoa.local.aws.metrics import Metrics
    from byoa.local.aws.moto_app import Moto

    moto = Moto("123456789012")
    return Logs(moto), Metrics(moto)


@pytest.fixture
def new_laboratory(
    tmp_path: Path, cloudwatch: tuple[Any, Any], runner_kind: str, onlooker: Callable[[Path], Any],
    request: pytest.FixtureRequest,
) -> Iterator[Callable[..., Laboratory]]:
    from byoa.local.settings import Caller, Settings

    made: list[Laboratory] = []
    images = ("byoa:latest",) if runner_kind == "process" else (
        request.getfixturevalue("torch_free_image"), request.getfixturevalue("base_image")
    )

    def make(sandbox: str = "off", **settings: Any) -> Laboratory:
        home, scripts = tmp_path / f"home-{len(made)}", tmp_path / "scripts"
        scripts.mkdir(exist_ok=True)
        caller = Caller("123456789012", "eu-west-1")
        logs, metrics = cloudwatch
        logs.delete_group(caller, "/aws/sagemaker/TrainingJobs")  # moto is one for the process
        laboratory = Laboratory(
            home, scripts,
            Settings(home=home, **{"stop_grace": 10.0, **settings}),
            caller, logs, metrics, onlooker(home), *images, sandbox=sandbox,
        )
        made.append(laboratory)
        return laboratory.open()

    yield make
    for laboratory in made:
        laboratory.close(timeout=1.0)


@pytest.fixture
def laboratory(new_laboratory: Callable[..., Laboratory]) -> Laboratory:
    return new_laboratory()


@pytest.fixture
def job(
    laboratory: Laboratory, training_request: Callable[..., dict[str, Any]]
) -> Callable[..., dict[str, Any]]:
    """Runs a script as a training job to its end; Describe."""

    def run(name: str, source: str, **members: Any) -> dict[str, Any]:
        specification = laboratory.program(source) | members.pop("specification", {})
        laboratory.call(
            "CreateTrainingJob",
            **training_request(name, AlgorithmSpecification=specification, **members),
        )
        return laboratory.wait(name)

    return run


# --- Pipe channels --------------------------------------------------------------------------------

# What programs that read them begin with; as TRAIN-95 and TRAIN-96 ask of them.
READER = """
data = ml / 'input/data'
def opened(name, epoch):
    path = data / f'{name}_{epoch}'
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, f'{path} never comes'
        time.sleep(0.01)
    return path.open('rb')
def read(name, epoch):
    with opened(name, epoch) as fifo:
        return fifo.read()
def show(name, epoch):
    print(read(name, epoch).decode('latin-1').encode('unicode_escape').decode(), flush=True)
"""


@pytest.fixture
def reading() -> Callable[[str], str]:
    """A program that may `read(channel, epoch)`, `show` it, or have the FIFO `opened`."""
    return lambda source: READER + source


@pytest.fixture
def put(laboratory: Laboratory) -> Callable[[dict[str, bytes]], None]:
    """Stores objects by key."""

    def put(objects: dict[str, bytes]) -> None:
        for key, data in objects.items():
            laboratory.buckets.put_bytes(BUCKET, key, data)

    return put


@pytest.fixture
def submit_reader(
    laboratory: Laboratory, training_request: Callable[..., dict[str, Any]]
) -> Callable[..., None]:
    """Submits a program that reads pipes as a training job."""

    def submit(name: str, source: str, **members: Any) -> None:
        program = laboratory.program(READER + source) | members.pop("specification", {})
        laboratory.call("CreateTrainingJob", **training_request(
            name, AlgorithmSpecification=program, **members,
        ))

    return submit


@pytest.fixture
def pipe(channel: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A Pipe channel over an S3 prefix; keywords replace members, `source` those of its source."""

    def build(name: str, uri: str, *, source: Any = None, **members: Any) -> dict[str, Any]:
        made = channel(name, uri, **{"InputMode": "Pipe", **members})
        made["DataSource"]["S3DataSource"].update(source or {})
        return made

    return build


def _feeds() -> list[str]:
    """The threads that feed pipes."""
    return [each.name for each in threading.enumerate() if each.name.startswith("pipe-")]


def _descriptors() -> list[str]:
    """What this process holds open of job directories and of the bucket."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue
    return [each for each in found if "/jobs/" in each or f"/s3/{BUCKET}/" in each]


@pytest.fixture
def feeds() -> Callable[[], list[str]]:
    return _feeds


@pytest.fixture
def until_nothing_feeds() -> Callable[[], None]:
    """Wait until no thread and no descriptor is left of what fed a job."""

    def wait() -> None:
        end = time.monotonic() + 10.0
        while _feeds() or _descriptors():
            assert time.monotonic() < end, (_feeds(), _descriptors())
            time.sleep(0.02)

    return wait
