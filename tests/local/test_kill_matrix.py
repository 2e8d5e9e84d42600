"""SIGKILL, to the container or to the server, in each phase of a training job: nothing hangs, what
is in S3 is whole, the record says what happened, and the next server goes on.

A phase is held open, never guessed: the store's index is locked by the test while the server is to
write to it, and the algorithm waits for files of the test's.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sqlite3
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.both_runners

MEGABYTES = 3
ALGORITHM = f'''\
import time
from byoa.algorithms import Algorithm


def wait_for(path):
    end = time.monotonic() + 120
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(path)
        time.sleep(0.02)


class Phases(Algorithm):
    def train(self, run):
        found = run.checkpoints.latest()
        print(f"begins with {{found.step if found else None}}", flush=True)
        wait_for(run.layout.input / "save")
        run.checkpoints.save({{"weights": bytes({MEGABYTES} << 20)}}, step=1)
        wait_for(run.layout.input / "go")
        (run.model_dir / "weights").write_bytes(bytes({MEGABYTES} << 20))

    def load(self, model_dir, device):
        return None

    def predict(self, model, records):
        return records.sum(axis=1)
'''


class Stage:
    """A job on a server that can be killed, and the store's lock."""

    def __init__(self, server: Any, image: str, request: Any, channel: Any) -> None:
        self.server = server
        self.bucket = f"kill-{uuid.uuid4().hex[:8]}"
        self.name = f"{self.bucket}-job"
        server.client("s3").create_bucket(Bucket=self.bucket)
        # Dropped in, not put: the server writes it into its index when the job asks for it.
        data = server.home / "s3" / self.bucket / "data"
        data.mkdir()
        (data / "train.csv").write_text("1,2\n")
        self._request = request(
            self.name,
            AlgorithmSpecification={"TrainingImage": image, "TrainingInputMode": "File"},
            InputDataConfig=[channel("train", f"s3://{self.bucket}/data/")],
            OutputDataConfig={"S3OutputPath": f"s3://{self.bucket}/out"},
            CheckpointConfig={"S3Uri": f"s3://{self.bucket}/ck"},
        )
        account = "training-123456789012-us-east-1"
        self._input = server.home / "jobs" / account / self.name / "algo-1/ml/input"

    def submit(self) -> None:
        self.server.client("sagemaker").create_training_job(**self._request)

    def describe(self) -> dict[str, Any]:
        found: dict[str, Any] = self.server.client("sagemaker").describe_training_job(
            TrainingJobName=self.name
        )
        return found

    def let(self, *names: str) -> None:
        """What the algorithm waits for."""
        for name in names:
            (self._input / name).touch()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """While the server waits to write into its index, 10 s at most."""
        index = sqlite3.connect(self.server.home / "s3/.byoa/index.sqlite", isolation_level=None)
        try:
            index.execute("BEGIN IMMEDIATE")
            yield
        finally:
            index.close()

    def is_uploading(self) -> bool:
        """Whether an object's bytes are there, and its name is not."""
        return any((self.server.home / "s3/.byoa/temp").iterdir())

    def trained(self) -> bool:
        return bool(self.server.onlooker.running()) and "begins with" in self.log()

    def log(self) -> str:
        files = (self.server.home / "logs").rglob(f"{self.name}/*")
        return "".join(path.read_text() for path in files)

    def objects(self, prefix: str) -> dict[str, bytes]:
        client = self.server.client("s3")
        listed = client.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", ())
        return {
            each["Key"].removeprefix(prefix):
                client.get_object(Bucket=self.bucket, Key=each["Key"])["Body"].read()
            for each in listed
        }


def until(look: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return found


@contextlib.contextmanager
def downloading(stage: Stage) -> Iterator[None]:
    with stage.locked():
        stage.submit()
        until(lambda: stage.describe()["SecondaryStatus"] == "Downloading")
        yield


@contextlib.contextmanager
def training(stage: Stage) -> Iterator[None]:
    stage.submit()
    until(stage.trained)
    yield


@contextlib.contextmanager
def uploading_a_checkpoint(stage: Stage) -> Iterator[None]:
    with training(stage), stage.locked():
        stage.let("save")
        until(stage.is_uploading)
        yield


@contextlib.contextmanager
def uploading_the_model(stage: Stage) -> Iterator[None]:
    with training(stage):
        stage.let("save")
        until(lambda: stage.objects("ck/"))
        with stage.locked():
            stage.let("go")
            until(lambda: stage.describe()["SecondaryStatus"] == "Uploading")
            until(stage.is_uploading)
            yield


@pytest.fixture
def stage(
    start_server: Any, own_image: Any, training_request: Any, channel: Any, tmp_path: Path
) -> Stage:
    folder = tmp_path / "phases"
    folder.mkdir()
    (folder / "phases.py").write_text(ALGORITHM)
    server = start_server()
    image = own_image(server, folder, "phases:Phases")
    return Stage(server, image, training_request, channel)


@pytest.mark.parametrize(("phase", "victim"), [
    (downloading, "server"),
    (training, "server"),
    (training, "container"),
    (uploading_a_checkpoint, "server"),
    (uploading_a_checkpoint, "container"),
    (uploading_the_model, "server"),
], ids=lambda value: getattr(value, "__name__", value))
def test_a_kill_hangs_nothing_and_leaves_nothing_half_written(
    stage: Stage, phase: Any, victim: str
) -> None:
    """ALG-01, TRAIN-130, TRAIN-140, TRAIN-144, TRAIN-171, pains 3 and 40."""
    server = stage.server
    with phase(stage):
        if victim == "server":
            server.kill()
        else:
            server.onlooker.kill()
    if victim == "server":
        server.start()
        until(lambda: stage.describe()["SecondaryStatus"] in ("Training", "Completed"))
        if stage.describe()["TrainingJobStatus"] == "InProgress":
            until(stage.trained)
            stage.let("save", "go")
    described = until(
        lambda: (found := stage.describe())["TrainingJobStatus"] != "InProgress" and found
    )

    statuses = [each["Status"] for each in described["SecondaryStatusTransitions"]]
    if victim == "server":
        assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
        assert statuses[-2:] == ["Uploading", "Completed"]
    else:
        assert described["TrainingJobStatus"] == "Failed"
        assert described["FailureReason"] == "AlgorithmError: , exit code: 137"
        assert statuses[-2:] == ["Uploading", "Failed"]
    model = stage.objects("out/")
    assert sorted(model) == ([f"{stage.name}/output/model.tar.gz"] if victim == "server" else [])
    for archive in model.values():
        with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
            assert opened.extractfile("weights").read() == bytes(MEGABYTES << 20)  # type: ignore[union-attr]
    saved = stage.objects("ck/")
    if victim == "server" or phase is uploading_a_checkpoint:
        index = json.loads(saved.pop("algo-1-step-00000001/checkpoint.json"))
        assert {
            f"algo-1-step-00000001/{name}": known["sha256"]
            for name, known in index["files"].items()
        } == {name: hashlib.sha256(body).hexdigest() for name, body in saved.items()}
    else:
        assert saved == {}
    assert not stage.is_uploading()
    until(lambda: server.onlooker.left() == [])
