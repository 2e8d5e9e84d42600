"""The real image on several hosts: containers of one network that find each other by name."""

from __future__ import annotations

import io
import ipaddress
import os
import socket
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from byoa.container.contract import (
    ChannelConfig,
    InputDataConfig,
    InstanceGroup,
    Layout,
    ResourceConfig,
    write_hyperparameters,
)

LIMIT = 120.0
DELAY_SECONDS = 30.0  # CHK-13
# An author's algorithm: every host adds up its own records, the first one gathers the sums.
PEERS = '''
import os, socket, time
from byoa.algorithms import Algorithm

class Peers(Algorithm):
    distributed = True

    def train(self, run):
        if run.hosts.current_host == os.environ.get("FAIL_ON"):
            raise ValueError("no good data here")
        total = sum(float(line) for path in sorted(run.channel("train").directory.iterdir())
                    for line in path.read_text().split())
        (run.model_dir / f"part-{run.hosts.current_host}").write_text(str(total))
        first = run.hosts.hosts[0]
        if run.hosts.rank == 0:
            with socket.create_server((first, 7777)) as listener:
                for _ in run.hosts.hosts[1:]:
                    peer, _ = listener.accept()
                    with peer:
                        total += float(peer.makefile().readline())
            (run.model_dir / "total").write_text(str(total))
        else:
            for attempt in range(300):
                try:
                    with socket.create_connection((first, 7777), 5) as peer:
                        peer.sendall(f"{total}\\n".encode())
                    break
                except OSError:
                    time.sleep(0.1)
        if "OUTSIDE" in os.environ:
            host, port = os.environ["OUTSIDE"].split(":")
            try:
                socket.create_connection((host, int(port)), 2).close()
                print("outside: reached", flush=True)
            except OSError:
                print("outside: not reached", flush=True)

    def load(self, model_dir, device):
        return float((model_dir / "total").read_text())

    def predict(self, model, records):
        return [model] * len(records)
'''


@pytest.fixture
def server(new_sagemaker: Any) -> Any:
    return new_sagemaker(BYOA_RUNNER="docker")


def train(server: Any, image: str, request: dict[str, Any], **variables: str) -> dict[str, Any]:
    """The job's description at its end."""
    s3, sagemaker = server.client("s3"), server.client("sagemaker")
    s3.create_bucket(Bucket="tests")
    for number in range(3):
        s3.put_object(Bucket="tests", Key=f"data/{number}", Body=f"{10 ** number}\n".encode())
    s3.put_object(Bucket="tests", Key="code/peers.py", Body=PEERS.encode())

    def channel(name: str, kind: str) -> dict[str, Any]:
        return {"ChannelName": name, "DataSource": {"S3DataSource": {
            "S3DataType": "S3Prefix", "S3Uri": f"s3://tests/{name}/",
            "S3DataDistributionType": kind,
        }}}

    data = channel("data", "ShardedByS3Key") | {"ChannelName": "train"}
    sagemaker.create_training_job(**request | {
        "AlgorithmSpecification": {"TrainingImage": image, "TrainingInputMode": "File"},
        "InputDataConfig": [data, channel("code", "FullyReplicated")],
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1},
        "Environment": {"BYOA_ALGORITHM": "peers:Peers", "PYTHONPATH": "/opt/ml/input/data/code",
                        **variables},
    })
    end = time.monotonic() + LIMIT
    while True:
        job: dict[str, Any] = sagemaker.describe_training_job(
            TrainingJobName=request["TrainingJobName"]
        )
        if job["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"):
            return job
        assert time.monotonic() < end, job
        time.sleep(0.2)


def lines(server: Any, job: str) -> dict[str, list[str]]:
    """What each host printed."""
    logs, group = server.client("logs"), "/aws/sagemaker/TrainingJobs"
    found = {}
    for stream in logs.describe_log_streams(
        logGroupName=group, logStreamNamePrefix=f"{job}/"
    )["logStreams"]:
        name = stream["logStreamName"]
        events = logs.get_log_events(logGroupName=group, logStreamName=name, startFromHead=True)
        found[name.removeprefix(f"{job}/").rpartition("-")[0]] = [
            event["message"] for event in events["events"]
        ]
    return found


@pytest.mark.parametrize("isolated", [False, True], ids=["open", "isolated"])
def test_two_containers_train_together_and_leave_nothing(
    server: Any, engine: Any, torch_free_image: str, training_request: Any, isolated: bool
) -> None:
    """TRAIN-12, TRAIN-60, TRAIN-65, TRAIN-100, TRAIN-132, CHK-16, CHK-45."""
    name = f"pair-{uuid.uuid4().hex[:8]}"
    request = training_request(name, EnableNetworkIsolation=isolated)
    config = engine.networks.get("bridge").attrs["IPAM"]["Config"][0]  # its first address is ours
    bridge = str(next(ipaddress.ip_network(config["Subnet"]).hosts()))
    with socket.create_server((bridge, 0)) as outside:  # which every container reaches, else
        address = f"{bridge}:{outside.getsockname()[1]}"
        job = train(server, torch_free_image, request, OUTSIDE=address)
    said = lines(server, name)

    assert job["TrainingJobStatus"] == "Completed", (job, said)
    assert sorted(said) == ["algo-1", "algo-2"]
    for number, host in enumerate(sorted(said), start=1):
        assert any(f"on {host} ({number} of 2)" in line for line in said[host]), said
        assert f"outside: {'not ' if isolated else ''}reached" in said[host], said
    key = f"output/{name}/output/model.tar.gz"
    packed = server.client("s3").get_object(Bucket="tests", Key=key)
    with tarfile.open(fileobj=io.BytesIO(packed["Body"].read()), mode="r:gz") as archive:
        model = {
            member.name: archive.extractfile(member).read().decode()
            for member in archive if member.isfile() and member.name != "byoa.json"
        }
    assert model == {"part-algo-1": "101.0", "part-algo-2": "10.0", "total": "111.0"}
    server.stop()
    assert engine.api.containers(all=True, filters={"name": name}) == []
    assert engine.api.networks(names=[name]) == []  # it finds parts of names


def test_a_host_that_fails_stops_the_container_of_the_other(
    server: Any, engine: Any, torch_free_image: str, training_request: Any
) -> None:
    """TRAIN-140, TRAIN-141"""
    name = f"failing-{uuid.uuid4().hex[:8]}"
    job = train(server, torch_free_image, training_request(name), FAIL_ON="algo-2")

    assert job["TrainingJobStatus"] == "Failed"
    assert "no good data here" in job["FailureReason"]
    assert job["FailureReason"].endswith(", exit code: 1")
    server.stop()
    assert engine.api.containers(all=True, filters={"name": name}) == []


# --- CHK-13, without the local service ------------------------------------------------------------


@pytest.fixture
def networks(engine: Any) -> Iterator[list[Any]]:
    """Where the hosts meet, and where the second one is at first."""
    made = [
        engine.networks.create(
            f"byoa-test-hosts-{uuid.uuid4().hex[:8]}", internal=True, labels={"byoa.test": "hosts"}
        )
        for _ in range(2)
    ]
    yield made
    for network in made:
        network.remove()


def host_tree(root: Path, host: str) -> Layout:
    layout = Layout(root / host)
    layout.create()
    write_hyperparameters(layout, {})
    group = InstanceGroup("homogeneousCluster", "ml.m5.large", ("algo-1", "algo-2"))
    ResourceConfig.for_host(host, [group]).write(layout)
    InputDataConfig({name: ChannelConfig() for name in ("train", "code")}).write(layout)
    for name, file, text in (("train", "a", "1\n2\n"), ("code", "peers.py", PEERS)):
        layout.channel(name).mkdir()
        layout.channel(name).joinpath(file).write_text(text)
    return layout


def test_a_name_that_comes_half_a_minute_late_does_not_keep_two_hosts_from_training(
    engine: Any, networks: list[Any], torch_free_image: str, tmp_path: Path
) -> None:
    """CHK-13, TRAIN-65."""
    together, apart = networks
    layouts = {host: host_tree(tmp_path, host) for host in ("algo-1", "algo-2")}
    boxes = {}
    try:
        for host, layout in layouts.items():
            place = together if host == "algo-1" else apart
            boxes[host] = engine.containers.create(
                torch_free_image, ["train"], name=f"{place.name}-{host}",
                labels={"byoa.test": "hosts"}, network=apart.name,
                user=f"{os.getuid()}:{os.getgid()}",
                volumes={str(layout.root): {"bind": "/opt/ml", "mode": "rw"}},
                environment={"BYOA_ALGORITHM": "peers:Peers",
                             "PYTHONPATH": "/opt/ml/input/data/code"},
            )
        together.connect(boxes["algo-1"], aliases=["algo-1"])
        for box in boxes.values():
            box.start()
        time.sleep(DELAY_SECONDS)
        for box in boxes.values():
            box.reload()
            assert box.status == "running", box.logs().decode()
        together.connect(boxes["algo-2"], aliases=["algo-2"])
        codes = {host: box.wait(timeout=LIMIT)["StatusCode"] for host, box in boxes.items()}
        said = {host: box.logs().decode() for host, box in boxes.items()}
    finally:
        for box in boxes.values():
            box.remove(force=True, v=True)

    assert codes == {"algo-1": 0, "algo-2": 0}, said
    assert "waiting for the name algo-2 to resolve" in said["algo-1"]
    assert "all 2 hosts resolve after" in said["algo-1"]
    assert (layouts["algo-1"].model / "total").read_text() == "6.0"
