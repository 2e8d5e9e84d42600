"""byoa's own image on several hosts of the local SageMaker: one model, one reason of a failure."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

pytestmark = pytest.mark.both_runners

LIMIT = 120.0
PLAIN = {"dropout": "0", "input_noise": "0", "mini_batch_size": "64", "epochs": "3",
         "hidden_units": "[32]"}
# Every host meets the others again and again; the second one ends in the way that it is told.
DYING = """
import os, time
from byoa.algorithms import Algorithm

class Dying(Algorithm):
    distributed = True

    def train(self, run):
        for step in range(1000):
            run.peers.barrier()
            if step == 3 and run.peers.rank == 1:
                if os.environ["HOW"] == "vanishes":
                    os._exit(9)
                raise ValueError("no good data here")
            time.sleep(0.05)

    def load(self, model_dir, device): ...
    def predict(self, model, records): ...
"""
SCRIPT = """
import os, pathlib, sys
import torch
import torch.distributed as dist
dist.init_process_group("gloo")
tensor = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(tensor)
print(f"rank={dist.get_rank()}; loss={tensor.item()}")
if "--fail" in sys.argv and dist.get_rank() == 2:
    raise ValueError("no good data here")
dist.barrier()
if dist.get_rank() == 0:
    pathlib.Path(os.environ["SM_MODEL_DIR"], "model.txt").write_text(str(dist.get_world_size()))
dist.destroy_process_group()  # else torch may abort a process as it ends
"""


# Every rank hears of a stop in the collective that all come to, and leaves the loop in one step
# with the others; or one is deaf.
STOPPING = """
import os, pathlib, signal, sys, time
import torch
import torch.distributed as dist
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
dist.init_process_group("gloo")
rank = dist.get_rank()
model = pathlib.Path(os.environ["SM_MODEL_DIR"], f"rank-{rank}")
dist.barrier()
print("ready", flush=True)
if "--deaf" in sys.argv:
    if rank == 1:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    while not told: time.sleep(0.05)
    model.write_text("saved")
else:
    while True:
        stop = torch.tensor([float(len(told))])
        dist.all_reduce(stop)
        if stop.item() > 0: break
        time.sleep(0.05)
    model.write_text("saved")
    dist.barrier()
dist.destroy_process_group()
"""


@pytest.fixture
def settings() -> dict[str, Any]:
    """Of the service; a test's parameters take their place."""
    return {}


@pytest.fixture
def cluster(new_laboratory: Any, settings: dict[str, Any]) -> Any:
    laboratory = new_laboratory("auto", **settings)
    if laboratory.runner.name == "process" and laboratory.runner.no_sandbox is not None:
        pytest.skip(f"no namespaces here: {laboratory.runner.no_sandbox}")
    return laboratory


@pytest.fixture
def train(cluster: Any, submit: Any) -> Any:
    """Runs byoa's image with torch on so many hosts; the job at its end."""

    def run(name: str, *job: Any, **members: Any) -> Any:
        submit(name, *job, **members)
        return cluster.wait(name, LIMIT)

    return run


@pytest.fixture
def submit(cluster: Any, training_request: Any, request: pytest.FixtureRequest) -> Any:
    """Submits a job of byoa's image with torch on so many hosts."""
    image = (
        "byoa:latest" if cluster.plain_image is None else request.getfixturevalue("byoa_image")
    )

    def submit(name: str, count: int, channels: dict[str, str], **members: Any) -> None:
        sources = []
        for channel, text in channels.items():
            file = "train.py" if channel == "code" else "part.csv"
            file = "dying.py" if "class Dying" in text else file
            cluster.buckets.put_bytes("tests", f"{name}/{channel}/{file}", text.encode())
            sources.append({
                "ChannelName": channel, "ContentType": "text/csv",
                "DataSource": {"S3DataSource": {
                    "S3DataType": "S3Prefix", "S3Uri": f"s3://tests/{name}/{channel}/",
                }},
            })
        cluster.call("CreateTrainingJob", **training_request(
            name, InputDataConfig=sources,
            AlgorithmSpecification={"TrainingImage": image, "TrainingInputMode": "File"},
            ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": count,
                            "VolumeSizeInGB": 1},
            **members,
        ))

    return submit


@pytest.fixture
def digits() -> dict[str, str]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    rows = [",".join([str(label), *(f"{value:g}" for value in row)])
            for label, row in zip(labels.tolist(), pixels.tolist(), strict=True)]
    return {"train": "\n".join(rows[:400]), "validation": "\n".join(rows[400:500])}


def losses(laboratory: Any, name: str) -> list[float]:
    return [
        float(line.partition("=")[2].partition(";")[0]) for line in laboratory.lines(name)
        if line.startswith(("train:loss=", "validation:loss="))
    ]


def assert_completed(laboratory: Any, job: Any) -> None:
    if job["TrainingJobStatus"] != "Completed":
        log = "\n".join(laboratory.lines(job["TrainingJobName"]))
        pytest.fail(f"{job['TrainingJobStatus']}: {job.get('FailureReason')}\n{log}")


@pytest.mark.parametrize("isolated", [False, True], ids=["open", "isolated"])
def test_two_hosts_reach_the_loss_of_one(
    cluster: Any, train: Any, digits: dict[str, str], isolated: bool
) -> None:
    """DIST-10, TRAIN-12, TRAIN-132, TRAIN-194"""
    common: dict[str, Any] = {
        "Environment": {"BYOA_ALGORITHM": "mlp-classifier"}, "HyperParameters": PLAIN,
        "EnableNetworkIsolation": isolated,
    }
    one = train("one", 1, digits, **common)
    two = train("two", 2, digits, **common)
    for job in (one, two):
        assert_completed(cluster, job)
    assert losses(cluster, "two") == pytest.approx(losses(cluster, "one"), rel=1e-3)
    assert sorted(cluster.archive("output/two/output/model.tar.gz")) == sorted(
        cluster.archive("output/one/output/model.tar.gz")
    )


@pytest.mark.parametrize(("how", "reason"), [
    ("raises", "AlgorithmError: ValueError: no good data here at dying.py:"),
    ("vanishes", "AlgorithmError: , exit code: 9"),
])
def test_a_host_that_ends_early_ends_the_job_with_its_reason(
    cluster: Any, train: Any, how: str, reason: str
) -> None:
    """TRAIN-140, TRAIN-142, TRAIN-145: the others end because of it, and later."""
    job = train(
        how, 3, {"code": DYING},
        Environment={"BYOA_ALGORITHM": "dying:Dying", "HOW": how,
                     "PYTHONPATH": "/opt/ml/input/data/code"},
    )
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith(reason), (job["FailureReason"], cluster.lines(how))


def script(**values: str) -> dict[str, str]:
    return {
        "sagemaker_program": json.dumps("train.py"),
        "sagemaker_submit_directory": json.dumps("/opt/ml/input/data/code"),
        "sagemaker_torch_distributed_enabled": "true",
        "sagemaker_mpi_num_of_processes_per_host": "2", **values,
    }


def test_a_script_runs_under_torchrun_on_two_hosts(cluster: Any, train: Any) -> None:
    """DIST-01 … DIST-04, TK-11"""
    job = train("torchrun", 2, {"code": SCRIPT}, HyperParameters=script())
    assert_completed(cluster, job)
    assert sorted(line for line in cluster.lines("torchrun") if line.startswith("rank=")) == [
        f"rank={rank}; loss=10.0" for rank in range(4)
    ]
    assert cluster.archive("output/torchrun/output/model.tar.gz")["model.txt"] == b"4"


def test_the_process_that_fails_under_torchrun_is_the_job_s_reason(
    cluster: Any, train: Any
) -> None:
    """TRAIN-140, TRAIN-145: on another host than the first, and not torchrun's own trace."""
    job = train("failing", 2, {"code": SCRIPT}, HyperParameters=script(fail=""))
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith(
        "AlgorithmError: ValueError: no good data here at train.py:"
    ), (job["FailureReason"], cluster.lines("failing"))


def stop_when_ready(cluster: Any, name: str) -> Any:
    """Stop the job when its script runs on both hosts; the job at its end."""
    end = time.monotonic() + LIMIT
    while cluster.lines(name).count("ready") < 2:
        assert time.monotonic() < end, (cluster.lines(name), cluster.describe(name))
        time.sleep(0.05)
    cluster.call("StopTrainingJob", TrainingJobName=name)
    return cluster.wait(name, LIMIT)


@pytest.mark.parametrize("settings", [{"stop_grace": 110.0}])
def test_a_script_under_torchrun_that_hears_a_stop_ends_by_itself_on_every_host(
    cluster: Any, submit: Any
) -> None:
    """TRAIN-137, TRAIN-150, TRAIN-151, DIST-11"""
    values = script(sagemaker_mpi_num_of_processes_per_host="1")
    submit("stopping", 2, {"code": STOPPING}, HyperParameters=values)
    job = stop_when_ready(cluster, "stopping")

    assert job["TrainingJobStatus"] == "Stopped", (job, cluster.lines("stopping"))
    assert "FailureReason" not in job
    # Each was there to tell its end. A rank that had heard of the stop from the other one may get
    # its own signal as Python shuts down, which it then dies of.
    for stream, lines in cluster.streams("stopping").items():
        assert lines[-1].startswith((
            "train.py ended in ", "train.py has ended here", "train.py was ended by SIGTERM",
        )), (stream, lines)
        assert not lines[-1].endswith("handle it to save the model before the end"), lines
    saved = cluster.archive("output/stopping/output/model.tar.gz")
    assert saved == {"rank-0": b"saved", "rank-1": b"saved"}


@pytest.mark.parametrize("settings", [{"stop_grace": 5.0}])
def test_a_host_under_torchrun_that_is_deaf_to_a_stop_is_killed_after_the_grace(
    cluster: Any, submit: Any
) -> None:
    """TRAIN-150, TRAIN-151: what the other host has saved is kept, and nothing runs on."""
    values = script(sagemaker_mpi_num_of_processes_per_host="1", deaf="")
    submit("deaf", 2, {"code": STOPPING}, HyperParameters=values)
    job = stop_when_ready(cluster, "deaf")

    assert job["TrainingJobStatus"] == "Stopped", (job, cluster.lines("deaf"))
    assert "FailureReason" not in job
    assert cluster.archive("output/deaf/output/model.tar.gz") == {"rank-0": b"saved"}
    assert cluster.onlooker.running() == []
