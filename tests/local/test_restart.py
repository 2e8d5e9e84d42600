"""A server that is killed loses nothing, and goes on where it was."""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SLOW = '''\
import os, time
from byoa.algorithms import Algorithm


class Slow(Algorithm):
    def train(self, run):
        for second in range(int(os.environ["TICKS"])):
            print(f"tick {second}", flush=True)
            if (run.layout.root / "go").exists() or run.stopping:
                break
            time.sleep(0.1)
        (run.model_dir / "done.txt").write_text("done")

    def load(self, model_dir, device):
        return None

    def predict(self, model, records):
        return records.sum(axis=1)
'''


ENDLESS = 3000  # ticks, as far as a test goes: five minutes

pytestmark = pytest.mark.both_runners


@pytest.fixture
def slow(own_image: Any, tmp_path: Path) -> Callable[[Any], str]:
    """Gives the algorithm as an image of a server."""
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "slow.py").write_text(SLOW)
    return lambda server: str(own_image(server, folder, "slow:Slow"))


def _submit(server: Any, request: Any, image: str, bucket: str, ticks: int = 60) -> str:
    server.client("s3").create_bucket(Bucket=bucket)
    name = f"slow-{uuid.uuid4().hex[:8]}"
    server.client("sagemaker").create_training_job(**request(
        name,
        AlgorithmSpecification={"TrainingImage": image, "TrainingInputMode": "File"},
        OutputDataConfig={"S3OutputPath": f"s3://{bucket}/out"},
        Environment={"TICKS": str(ticks)},
    ))
    return name


def _until(look: Callable[[], Any], seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError("it never came")


def _status(server: Any, job: str) -> dict[str, Any]:
    jobs = server.client("sagemaker").list_training_jobs(NameContains=job)
    return jobs["TrainingJobSummaries"][0]


PIPING = '''
import os, pathlib, sys, time
ml = pathlib.Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
def read(epoch, size=-1):
    with (ml / f"input/data/train_{epoch}").open("rb", buffering=0) as fifo:
        print("read", epoch, len(fifo.read(size)), flush=True)
        while size > 0 and not (ml / "input/go").exists(): time.sleep(0.02)
        print("rest", epoch, len(fifo.read()), flush=True)
read(0, int(sys.argv[1]))
while not (ml / "input/go").exists(): time.sleep(0.02)
read(1)
'''


@pytest.mark.parametrize("where", ["between two epochs", "within one"])
def test_a_job_that_reads_pipes_goes_on_unless_it_was_reading(
    start_server: Any, training_request: Any, channel: Any, runner_kind: str,
    request: pytest.FixtureRequest, where: str,
) -> None:
    """TRAIN-94, pain 3: the pipes of a server that was killed end, and a reader cannot tell."""
    server = start_server()
    image = "byoa:latest" if runner_kind == "process" else (
        request.getfixturevalue("torch_free_image"))
    within = where == "within one"
    server.client("s3").create_bucket(Bucket="pipes")
    server.client("s3").put_object(Bucket="pipes", Key="d/a", Body=bytes(3_000_000))
    server.client("s3").put_object(Bucket="pipes", Key="code/run.py", Body=PIPING.encode())
    server.client("sagemaker").create_training_job(**training_request(
        "pipes",
        AlgorithmSpecification={
            "TrainingImage": image, "TrainingInputMode": "Pipe",
            "ContainerEntrypoint": ["python3", "/opt/ml/input/data/code/run.py"],
            "ContainerArguments": ["1" if within else "-1"],
        },
        InputDataConfig=[
            channel("train", "s3://pipes/d/"),
            channel("code", "s3://pipes/code/", InputMode="File"),
        ],
        OutputDataConfig={"S3OutputPath": "s3://pipes/out"},
    ))
    (log,) = _until(lambda: list(server.home.glob("logs/**/pipes/*")))
    _until(lambda: ("read 0" if within else "rest 0") in log.read_text())
    server.kill()
    (ml,) = server.home.glob("jobs/*/pipes/algo-1/ml")
    (ml / "input/go").touch()
    server.start()
    ended = _until(
        lambda: (s := _status(server, "pipes"))["TrainingJobStatus"] != "InProgress" and s)
    described = server.client("sagemaker").describe_training_job(TrainingJobName="pipes")

    if within:
        assert described["FailureReason"].startswith("InternalServerError: ")
        assert "ended while epoch 0 of the Pipe channel 'train'" in described["FailureReason"]
    else:
        assert ended["TrainingJobStatus"] == "Completed", described
        assert "rest 1" in log.read_text()
    assert server.onlooker.running() == []


def test_a_job_whose_process_still_lives_goes_on_to_its_end(
    start_server: Any, training_request: Any, slow: Any
) -> None:
    server = start_server()
    image = slow(server)
    job = _submit(server, training_request, image, "restart")
    _until(lambda: _status(server, job).get("SecondaryStatus") == "Training")
    server.kill()
    server.start()
    ended = _until(lambda: (s := _status(server, job))["TrainingJobStatus"] != "InProgress" and s)
    assert ended["TrainingJobStatus"] == "Completed"
    described = server.client("sagemaker").describe_training_job(TrainingJobName=job)
    key = described["ModelArtifacts"]["S3ModelArtifacts"].split("/", 3)[3]
    assert server.client("s3").head_object(Bucket="restart", Key=key)["ContentLength"] > 0
    logs = server.client("logs")
    streams = logs.describe_log_streams(
        logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{job}/"
    )["logStreams"]
    events = logs.get_log_events(
        logGroupName="/aws/sagemaker/TrainingJobs", logStreamName=streams[0]["logStreamName"],
        startFromHead=True,
    )["events"]
    ticks = [event["message"] for event in events if event["message"].startswith("tick")]
    assert ticks == [f"tick {second}" for second in range(60)], "no line is lost or doubled"


def test_finished_jobs_objects_and_endpoints_are_there_after_a_kill(
    start_server: Any, training_request: Any, slow: Any
) -> None:
    server = start_server()
    image = slow(server)
    job = _submit(server, training_request, image, "kept")
    client = server.client("sagemaker")
    client.get_waiter("training_job_completed_or_stopped").wait(
        TrainingJobName=job, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    before = client.describe_training_job(TrainingJobName=job)
    client.create_model(
        ModelName="kept", ExecutionRoleArn="arn:aws:iam::123456789012:role/tests",
        PrimaryContainer={
            "Image": image, "ModelDataUrl": before["ModelArtifacts"]["S3ModelArtifacts"],
        },
    )
    client.create_endpoint_config(EndpointConfigName="kept", ProductionVariants=[{
        "VariantName": "AllTraffic", "ModelName": "kept", "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }])
    client.create_endpoint(EndpointName="kept", EndpointConfigName="kept")
    waiter = client.get_waiter("endpoint_in_service")
    waiter.wait(EndpointName="kept", WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    server.client("s3").put_object(Bucket="kept", Key="a/b.txt", Body=b"still here")
    server.kill()
    server.start()
    client = server.client("sagemaker")
    after = client.describe_training_job(TrainingJobName=job)
    for document in (before, after):
        document.pop("ResponseMetadata")
    assert after == before
    body = server.client("s3").get_object(Bucket="kept", Key="a/b.txt")["Body"].read()
    assert body == b"still here"
    client.get_waiter("endpoint_in_service").wait(
        EndpointName="kept", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    answer = server.client("sagemaker-runtime").invoke_endpoint(
        EndpointName="kept", ContentType="text/csv", Accept="text/csv", Body=b"1,2\n"
    )
    assert float(answer["Body"].read()) == 3.0


def test_a_job_whose_process_is_gone_has_failed_with_the_reason(
    start_server: Any, training_request: Any, slow: Any
) -> None:
    server = start_server()
    image = slow(server)
    job = _submit(server, training_request, image, "gone", ENDLESS)
    _until(lambda: _printed(server, job, "tick"))  # what is lost earlier is started anew
    server.kill()
    if server.environment:
        server.onlooker.lose()
    else:
        _kill_containers(server.home)
    server.start()
    ended = _until(lambda: (s := _status(server, job))["TrainingJobStatus"] != "InProgress" and s)
    assert ended["TrainingJobStatus"] == "Failed"
    described = server.client("sagemaker").describe_training_job(TrainingJobName=job)
    assert "gone" in described["FailureReason"] or "SIGKILL" in described["FailureReason"]


def _kill_containers(home: Path) -> None:
    """SIGKILL each container and the process that stands between it and the server."""
    records = [*home.glob("containers/*/shim.json"), *home.glob("containers/*/child.json")]
    assert len(records) == 2
    for record in records:
        os.kill(json.loads(record.read_text())["pid"], signal.SIGKILL)


DEAF = '''
import os, pathlib, time
ml = pathlib.Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
(ml / "model/half.txt").write_text("half")
print("half", flush=True)
time.sleep(600)
'''


@pytest.mark.parametrize("listens", [True, False], ids=["it saves", "it is killed"])
def test_a_job_that_byoa_down_ends_for_a_killed_server_is_stopped_and_not_its_own_failure(
    start_server: Any, training_request: Any, channel: Any, slow: Any, listens: bool
) -> None:
    """TRAIN-151: neither Failed with exit code 143, nor Completed with half a model."""
    server = start_server()
    image = slow(server)
    if listens:
        job = _submit(server, training_request, image, "down", ENDLESS)
        model = "done.txt"
        _until(lambda: _printed(server, job, "tick"))
    else:
        server.client("s3").create_bucket(Bucket="down")
        server.client("s3").put_object(Bucket="down", Key="code/run.py", Body=DEAF.encode())
        job, model = "deaf", "half.txt"
        server.client("sagemaker").create_training_job(**training_request(
            job,
            AlgorithmSpecification={
                "TrainingImage": image, "TrainingInputMode": "File",
                "ContainerEntrypoint": ["python3", "/opt/ml/input/data/code/run.py"],
            },
            InputDataConfig=[channel("code", "s3://down/code/")],
            OutputDataConfig={"S3OutputPath": "s3://down/out"},
        ))
        _until(lambda: _printed(server, job, "half"))
    server.kill()
    assert job in server.byoa("down").stdout
    assert server.onlooker.running() == []
    server.start()
    ended = _until(lambda: (s := _status(server, job))["TrainingJobStatus"] not in (
        "InProgress", "Stopping") and s)
    described = server.client("sagemaker").describe_training_job(TrainingJobName=job)

    assert ended["TrainingJobStatus"] == "Stopped", described
    assert "FailureReason" not in described
    assert described["SecondaryStatusTransitions"][-1]["StatusMessage"] == (
        "Training job stopped: the local service was killed, and `byoa down` ended what it had"
        " left running"
    )
    key = described["ModelArtifacts"]["S3ModelArtifacts"].split("/", 3)[3]
    body = server.client("s3").get_object(Bucket="down", Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert model in archive.getnames()


def _printed(server: Any, job: str, text: str) -> bool:
    return any(text in path.read_text() for path in server.home.glob(f"logs/**/{job}/*"))


@pytest.mark.process_only("an interpreter is kept ready as a process alone")
def test_what_a_warm_pool_keeps_ready_ends_with_a_killed_server(
    start_server: Any, training_request: Any, slow: Any
) -> None:
    """TRAIN-211, pain 40."""
    server = start_server()
    image = slow(server)
    request = training_request
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1,
                 "KeepAlivePeriodInSeconds": 300}
    job = _submit(
        server, lambda name, **members: request(name, ResourceConfig=resources, **members), image,
        "pool",
    )
    before = _shims_ahead()
    _until(lambda: _status(server, job)["TrainingJobStatus"] == "Completed")
    shims = _until(lambda: _shims_ahead(server.process.pid))
    assert _status(server, job)["WarmPoolStatus"]["Status"] == "Available"
    server.kill()
    _until(lambda: not [pid for pid in shims if Path(f"/proc/{pid}").exists()])
    assert len(shims) == 1 and shims[0] not in before
    server.start()
    assert _status(server, job)["WarmPoolStatus"]["Status"] == "Terminated"


def _shims_ahead(parent: int | None = None) -> list[int]:
    """Shims without a container yet: their argv names none. A server's own, or all."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            argv = path.read_bytes().split(b"\0")
            of = int(path.with_name("stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if argv[1:] == [b"-m", b"byoa.local.runners.shim", b""] and parent in (None, of):
            found.append(int(path.parent.name))
    return found
