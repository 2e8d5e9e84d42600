"""`byoa interrupt` takes a real training's instance away, and nothing of its result changes."""

from __future__ import annotations

import io
import tarfile
import time
import urllib.error
import urllib.request
import uuid
from typing import Any

import pytest

EPOCHS = 200  # enough to be interrupted in time on any machine


def submit(
    server: Any, request: Any, channel: Any, digits: Any, image: str, prefix: str, **members: Any
) -> str:
    s3 = server.client("s3")
    s3.create_bucket(Bucket=prefix)
    s3.put_object(Bucket=prefix, Key="data/train.csv", Body=digits["train"])
    name = f"{prefix}-job"
    server.client("sagemaker").create_training_job(**request(
        name,
        AlgorithmSpecification={"TrainingImage": image, "TrainingInputMode": "File"},
        Environment={"BYOA_ALGORITHM": "mlp-classifier"},
        HyperParameters={"epochs": str(EPOCHS), "hidden_units": "[16]", "seed": "7"},
        InputDataConfig=[channel("train", f"s3://{prefix}/data/", ContentType="text/csv")],
        OutputDataConfig={"S3OutputPath": f"s3://{prefix}/out"},
        CheckpointConfig={"S3Uri": f"s3://{prefix}/ck/"},
        **members,
    ))
    return name


def model_of(server: Any, name: str) -> dict[str, bytes]:
    """The files of the job's model, when it is there."""
    client = server.client("sagemaker")
    client.get_waiter("training_job_completed_or_stopped").wait(
        TrainingJobName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 180}
    )
    uri = client.describe_training_job(TrainingJobName=name)["ModelArtifacts"]["S3ModelArtifacts"]
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    body = server.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        return {
            member.name: archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive if member.isfile()
        }


def until_in_s3(server: Any, bucket: str, count: int) -> None:
    """Wait for so many checkpoints, or more, to have been there."""
    end, seen = time.monotonic() + 120, set()
    while len(seen) < count:
        assert time.monotonic() < end
        listed = server.client("s3").list_objects_v2(Bucket=bucket, Prefix="ck/")
        seen |= {each["Key"].split("/")[1] for each in listed.get("Contents", ())}
        time.sleep(0.05)


@pytest.mark.both_runners
def test_an_interrupted_spot_job_trains_the_same_model_bit_for_bit(
    server: Any, runner_kind: str, request: pytest.FixtureRequest, training_request: Any,
    channel: Any, digits: Any,
) -> None:
    """TRAIN-160 … TRAIN-163, TRAIN-170 … TRAIN-175, pains 9 and 10: by an unmodified client."""
    image = "byoa:latest"
    if runner_kind == "docker":
        image = request.getfixturevalue("byoa_image")
    spot = {
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": 300, "MaxWaitTimeInSeconds": 300},
    }
    plain, other = (f"spot-{uuid.uuid4().hex[:8]}" for _ in range(2))
    undisturbed = submit(server, training_request, channel, digits, image, plain)
    expected = model_of(server, undisturbed)
    name = submit(server, training_request, channel, digits, image, other, **spot)
    until_in_s3(server, other, 1)
    told = server.byoa("interrupt", name)
    assert told.returncode == 0, told.stderr
    assert told.stdout == f"{name} is Training: it is interrupted now\n"
    found = model_of(server, name)

    described = server.client("sagemaker").describe_training_job(TrainingJobName=name)
    statuses = [each["Status"] for each in described["SecondaryStatusTransitions"]]
    once = ["Starting", "Downloading", "Training"]
    assert statuses == [*once, "Interrupted", *once, "Uploading", "Completed"]
    logged = server.byoa("logs", name).stdout
    assert "resumes after epoch" in logged
    assert found == expected


def test_what_cannot_be_interrupted_is_told_on_the_command_line(
    sagemaker: Any, training_request: Any
) -> None:
    missing = sagemaker.byoa("interrupt", "nothing-of-the-kind")
    assert missing.returncode == 1 and "NAME_UNKNOWN" in missing.stderr
    sagemaker.client("s3").create_bucket(Bucket="tests")
    name = f"plain-{uuid.uuid4().hex[:8]}"
    sagemaker.client("sagemaker").create_training_job(**training_request(name))
    refused = sagemaker.byoa("interrupt", name)
    assert refused.returncode == 1
    assert "cannot be interrupted" in refused.stderr or "no managed spot job" in refused.stderr


@pytest.mark.parametrize(("method", "kind", "body", "status"), [
    ("GET", "application/json", None, 405),
    ("POST", "text/plain", b"{}", 405),  # what a page of a browser may send without being asked
    ("POST", "application/json", b"{}", 400),
    ("POST", "application/json", b"[]", 400),
    ("POST", "application/json", b"{", 400),
    ("POST", "application/json", b'{"region": "us-east-1", "job": "none"}', 400),
])
def test_a_request_that_is_none_is_answered_with_what_is_expected(
    sagemaker: Any, method: str, kind: str, body: bytes | None, status: int
) -> None:
    asked = urllib.request.Request(
        f"{sagemaker.url}/_byoa/interrupt", data=body, method=method, headers={"Content-Type": kind}
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(asked, timeout=20)
    with caught.value as answer:
        assert answer.code == status
        assert b"message" in answer.read()
