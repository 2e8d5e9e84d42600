"""A user's own algorithm, in a folder or an image FROM byoa, through boto3 as any image."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

ECHO = '''\
"""Writes what it was given, and predicts the mean of a record."""
import json
from byoa.algorithms import Algorithm, Hyperparameters, param


class Echo(Algorithm):
    class Hyperparameters(Hyperparameters):
        text: str = param("", doc="any text")
        flag: bool = param(False, doc="a switch")
        sizes: list[int] = param([], doc="a list")
        fail: bool = param(False, doc="whether to fail")

    def train(self, run):
        features, labels = run.channel("train").load()
        if run.hyperparameters.fail:
            raise ValueError(f"no good: {run.hyperparameters.text}")  # the line to be named
        (run.model_dir / "echo.json").write_text(json.dumps(run.hyperparameters.to_json()))
        run.metrics.log("records", len(features))

    def load(self, model_dir, device):
        return json.loads((model_dir / "echo.json").read_text())

    def predict(self, model, records):
        return records.mean(axis=1)
'''
AWKWARD = 'two words "quoted" \'single\' ünï😀 $(touch x) `id` \\ ; & | <'


@pytest.fixture
def image(server: Any, own_image: Any, tmp_path: Path) -> str:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "echo.py").write_text(ECHO)
    return str(own_image(server, folder, "echo:Echo"))


@pytest.fixture
def train(server: Any, training_request: Any, channel: Any, image: str) -> Any:
    s3, client = server.client("s3"), server.client("sagemaker")

    def run(**hyperparameters: str) -> dict[str, Any]:
        bucket, job = f"own-{uuid.uuid4().hex[:8]}", f"own-{uuid.uuid4().hex[:8]}"
        s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket=bucket, Key="train/a.csv", Body=b"1,2,3\n0,4,5\n")
        client.create_training_job(**training_request(
            job,
            AlgorithmSpecification={
                "TrainingImage": image, "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "records", "Regex": r"records=([0-9.]+)"}],
            },
            HyperParameters=hyperparameters,
            InputDataConfig=[channel("train", f"s3://{bucket}/train/", ContentType="text/csv")],
            OutputDataConfig={"S3OutputPath": f"s3://{bucket}/out"},
        ))
        client.get_waiter("training_job_completed_or_stopped").wait(
            TrainingJobName=job, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        ) if hyperparameters.get("fail") != "true" else _until_ended(client, job)
        return client.describe_training_job(TrainingJobName=job)

    return run


def _until_ended(client: Any, job: str) -> None:
    from botocore.exceptions import WaiterError

    with pytest.raises(WaiterError, match="Failed"):
        client.get_waiter("training_job_completed_or_stopped").wait(
            TrainingJobName=job, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )


@pytest.mark.both_runners
def test_hyperparameters_survive_the_round_trip(
    server: Any, train: Any, tmp_path: Path
) -> None:
    """TRAIN-40, TRAIN-41: booleans, lists, spaces, quotes, unicode and shell text arrive whole."""
    described = train(text=AWKWARD, flag="true", sizes="[3, 1, 2]")
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    assert described["HyperParameters"]["text"] == AWKWARD
    assert described["FinalMetricDataList"][0]["Value"] == 2.0
    bucket, key = described["ModelArtifacts"]["S3ModelArtifacts"][5:].split("/", 1)
    archive = tmp_path / "model.tar.gz"
    server.client("s3").download_file(bucket, key, str(archive))
    import tarfile

    with tarfile.open(archive) as tar:
        member = tar.extractfile("echo.json")
        assert member is not None
        saved = json.load(member)
    assert saved == {"text": AWKWARD, "flag": True, "sizes": [3, 1, 2], "fail": False}


@pytest.mark.both_runners
def test_a_mistake_shows_as_exception_file_and_line(train: Any) -> None:
    """TRAIN-142: FailureReason starts with the cause and the author's own line."""
    described = train(text="broken", fail="true")
    reason = described["FailureReason"]
    line = ECHO.splitlines().index(next(x for x in ECHO.splitlines() if "# the line" in x)) + 1
    assert reason.startswith("AlgorithmError: ValueError: no good: broken at echo.py:")
    assert f"echo.py:{line}" in reason
    assert reason.endswith(", exit code: 1")
    assert len(reason) <= 1024


def test_every_wrong_hyperparameter_is_named_at_once(train: Any) -> None:
    described = train(flag="perhaps", sizes="[1, x]", txet="1", fail="true")
    reason = described["FailureReason"]
    for name in ("flag", "sizes", "txet"):
        assert name in reason
    assert "text" in reason, "the mistyped name is answered with the right one"


@pytest.mark.both_runners
def test_the_model_serves_through_an_endpoint(server: Any, train: Any, image: str) -> None:
    described = train()
    client, runtime = server.client("sagemaker"), server.client("sagemaker-runtime")
    name = f"own-{uuid.uuid4().hex[:8]}"
    client.create_model(
        ModelName=name, ExecutionRoleArn="arn:aws:iam::123456789012:role/tests",
        PrimaryContainer={
            "Image": image,
            "ModelDataUrl": described["ModelArtifacts"]["S3ModelArtifacts"],
        },
    )
    client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[{
        "VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }])
    client.create_endpoint(EndpointName=name, EndpointConfigName=name)
    client.get_waiter("endpoint_in_service").wait(
        EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    answer = runtime.invoke_endpoint(
        EndpointName=name, ContentType="text/csv", Accept="text/csv", Body=b"1,3\n5,7\n"
    )
    assert [float(each) for each in answer["Body"].read().split()] == [2.0, 6.0]
    with pytest.raises(runtime.exceptions.ModelError) as refused:
        runtime.invoke_endpoint(EndpointName=name, ContentType="text/csv", Body=b"1,2\n1,2,3\n")
    assert refused.value.response["OriginalStatusCode"] == 400
    assert "record 2" in refused.value.response["OriginalMessage"]
    client.delete_endpoint(EndpointName=name)
    client.get_waiter("endpoint_deleted").wait(
        EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
