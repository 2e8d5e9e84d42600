"""The local SageMaker with Docker, as a person uses it: jobs that reach S3, restarts, clean-up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.docker


@pytest.fixture
def docker_sagemaker(new_sagemaker: Any, engine: Any) -> Iterator[Callable[..., Any]]:
    """Servers with BYOA_RUNNER=docker; at the end nothing of theirs is in the engine."""
    servers: list[Any] = []

    def start(**more: str) -> Any:
        server = new_sagemaker(**{"BYOA_RUNNER": "docker", "BYOA_TEST": "service"} | more)
        server.client("s3").create_bucket(Bucket="tests")
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()
        for each in left(engine, server):
            each.remove(force=True)


def left(engine: Any, server: Any) -> list[Any]:
    return engine.containers.list(
        all=True, ignore_removed=True, filters={"label": f"byoa.home={server.home}"}
    )


def finish(client: Any, name: str) -> dict[str, Any]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        job = client.describe_training_job(TrainingJobName=name)
        if job["TrainingJobStatus"] not in ("InProgress", "Stopping"):
            return job
        time.sleep(0.05)
    raise AssertionError(f"{name} does not end")


@pytest.fixture
def request_of(training_request: Any, torch_free_image: str) -> Callable[..., dict[str, Any]]:
    def build(name: str, source: str, image: str = torch_free_image) -> dict[str, Any]:
        return training_request(name, AlgorithmSpecification={
            "TrainingImage": image, "TrainingInputMode": "File",
            # Each of the list is one line of at most 256 characters.
            "ContainerEntrypoint": ["python", "-c", f"exec({source!r})"],
        })

    return build


def test_a_job_in_a_container_uses_this_service_s_s3_and_leaves_nothing(
    docker_sagemaker: Any, engine: Any, request_of: Any, torch_free_image: str
) -> None:
    """TRAIN-81, TRAIN-130, pains of root-owned files."""
    server = docker_sagemaker()
    client = server.client("sagemaker")
    client.create_training_job(**request_of("uses-s3", (
        "import boto3, pathlib\n"
        "boto3.client('s3').put_object(Bucket='tests', Key='inside', Body=b'by path')\n"
        "pathlib.Path('/opt/ml/model/m').write_text('x')"
    )))
    job = finish(client, "uses-s3")

    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    s3 = server.client("s3")
    assert s3.get_object(Bucket="tests", Key="inside")["Body"].read() == b"by path"
    assert s3.head_object(Bucket="tests", Key="output/uses-s3/output/model.tar.gz")
    end = time.monotonic() + 10  # the container goes after the job's status is told
    while left(engine, server) and time.monotonic() < end:
        time.sleep(0.05)
    assert left(engine, server) == []
    assert f" runs {torch_free_image} (sha256:" in (server.home / "server.log").read_text()
    status = json.loads(server.byoa("status", "--json").stdout)
    assert status["runner"] == "docker" and status["containers"].startswith(("Docker", "Podman"))


def test_a_job_outlives_a_killed_server(
    docker_sagemaker: Any, engine: Any, request_of: Any
) -> None:
    server = docker_sagemaker()
    server.client("sagemaker").create_training_job(**request_of("outlives", (
        "import time\nfor n in range(200): print('line', n, flush=True); time.sleep(0.05)"
    )))
    end = time.monotonic() + 30
    while not any(each.status == "running" for each in left(engine, server)):
        assert time.monotonic() < end
        time.sleep(0.02)
    time.sleep(0.5)
    server.kill()
    told = server.byoa("status")
    assert "1 container(s) of an earlier one still run" in told.stdout
    server.start()

    assert finish(server.client("sagemaker"), "outlives")["TrainingJobStatus"] == "Completed"
    (log,) = (server.home / "logs").rglob("outlives/algo-1-*")
    assert log.read_text().splitlines() == [f"line {n}" for n in range(200)]


def test_down_stops_and_prune_removes_what_a_killed_server_left(
    docker_sagemaker: Any, engine: Any, request_of: Any, torch_free_image: str
) -> None:
    server = docker_sagemaker()
    server.client("sagemaker").create_training_job(**request_of("left", (
        "import signal, time\nsignal.signal(15, lambda *_: exit()); time.sleep(600)"
    )))
    end = time.monotonic() + 30
    while not any(each.status == "running" for each in left(engine, server)):
        assert time.monotonic() < end
        time.sleep(0.02)
    server.kill()
    lost = engine.containers.create(torch_free_image, labels={
        "byoa.home": str(server.home), "byoa.name": "training-0-x-forgotten-algo-1",
        "byoa.test": "service",
    })
    assert "stopped what an earlier one left running: 1 container(s)" in server.byoa("down").stdout
    assert {each.status for each in left(engine, server)} == {"exited", "created"}

    listed = server.byoa("prune", "--dry-run").stdout
    assert "training-0-x-forgotten-algo-1 (of the container engine)" in listed
    assert "left" not in listed.split("forgotten")[0]  # its job has not ended: it is asked for
    assert server.byoa("prune").returncode == 0
    assert lost.id not in [each.id for each in left(engine, server)]


def test_what_nobody_asks_for_is_removed_when_a_server_starts(
    docker_sagemaker: Any, engine: Any, torch_free_image: str
) -> None:
    server = docker_sagemaker()
    server.stop()
    engine.containers.create(torch_free_image, labels={
        "byoa.home": str(server.home), "byoa.name": "training-0-x-gone-algo-1",
    })
    server.start()
    end = time.monotonic() + 20
    told = "training-0-x-gone-algo-1, left by an earlier server, is removed"
    while told not in (server.home / "server.log").read_text():
        assert time.monotonic() < end, "it is still there"
        time.sleep(0.05)
    assert left(engine, server) == []


def test_auto_takes_docker_where_the_image_is_and_processes_else(
    docker_sagemaker: Any, request_of: Any
) -> None:
    server = docker_sagemaker(BYOA_RUNNER="auto")
    client = server.client("sagemaker")
    tells = "import os; print(os.getpid() == 1)"
    client.create_training_job(**request_of("in-docker", tells))
    client.create_training_job(**request_of("as-process", tells, "byoa:never-built"))
    for name, printed in (("in-docker", "True\n"), ("as-process", "False\n")):
        assert finish(client, name)["TrainingJobStatus"] == "Completed"
        (log,) = (server.home / "logs").rglob(f"{name}/*")
        assert log.read_text() == printed


def test_an_image_that_the_engine_lacks_is_refused_at_submit(
    docker_sagemaker: Any, request_of: Any
) -> None:
    server = docker_sagemaker()
    client = server.client("sagemaker")
    with pytest.raises(client.exceptions.ClientError) as caught:
        client.create_training_job(**request_of("absent", "", "never-built:1"))
    assert "docker pull never-built:1" in str(caught.value)
