"""`byoa jobs` and `byoa logs`: what a person is told of a job."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from byoa.local.runners import sandbox

SOURCE = """
import json, os, pathlib, sys
ml = pathlib.Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
me = json.loads((ml / "input/config/resourceconfig.json").read_text())["current_host"]
print("I am", me)
sys.exit(int(me in sys.argv))
"""


@pytest.fixture
def run(sagemaker: Any, training_request: Any, channel: Any) -> Callable[..., str]:
    """Runs a program that says its host's name on so many hosts, to the job's end; its name.

    The hosts that are named fail."""

    def run(hosts: int, *failing: str) -> str:
        name = f"records-{uuid.uuid4().hex[:8]}"
        sagemaker.client("s3").create_bucket(Bucket=name)
        sagemaker.client("s3").put_object(Bucket=name, Key="code/run.py", Body=SOURCE.encode())
        client = sagemaker.client("sagemaker")
        program = "/opt/ml/input/data/code/run.py"
        client.create_training_job(**training_request(
            name,
            AlgorithmSpecification={
                "TrainingImage": "byoa:latest", "TrainingInputMode": "File",
                "ContainerEntrypoint": ["python3", program, *failing],
            },
            InputDataConfig=[channel("code", f"s3://{name}/code/")],
            OutputDataConfig={"S3OutputPath": f"s3://{name}/out"},
            ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": hosts,
                            "VolumeSizeInGB": 1},
        ))
        end = time.monotonic() + 60
        while client.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] in (
            "InProgress", "Stopping"
        ):
            assert time.monotonic() < end
            time.sleep(0.05)
        return name

    return run


def test_the_lines_of_several_hosts_say_whose_they_are(sagemaker: Any, run: Any) -> None:
    """WIRE-40."""
    if (why := sandbox.unavailable()) is not None:
        pytest.skip(f"no namespaces here: {why}")
    name = run(2)
    ran = sagemaker.byoa("logs", name)

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["algo-1 | I am algo-1", "algo-2 | I am algo-2"]


def test_the_lines_of_one_host_are_as_they_were_printed(sagemaker: Any, run: Any) -> None:
    assert sagemaker.byoa("logs", run(1)).stdout == "I am algo-1\n"


def test_a_job_whose_reason_names_no_cause_says_where_it_is(sagemaker: Any, run: Any) -> None:
    """TRAP-23."""
    name = run(1, "algo-1")
    told = sagemaker.byoa("jobs", name).stdout.splitlines()

    assert any(line.endswith("AlgorithmError: , exit code: 1") for line in told)
    assert told[-1] == (
        f"The container did not say why: see the end of `byoa logs {name}`."
    )
    assert sagemaker.byoa("logs", name).stdout.splitlines()[-1].startswith(
        "byoa: algo-1 ended with exit code 1 "
    )
