"""Training jobs end to end: real containers, real buckets, the log service as clients read it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from byoa.local.errors import ResourceInUse, ValidationException

MODEL = "(ml / 'model' / 'weights').write_text('w')"


@pytest.mark.both_runners
def test_a_job_runs_its_program_and_leaves_its_model_in_s3(laboratory: Any, job: Any) -> None:
    """ALG-01, TRAIN-130, TRAIN-140."""
    described = job("first", f"{MODEL}; print('hello from the job')")

    assert described["TrainingJobStatus"] == "Completed"
    assert described["ModelArtifacts"]["S3ModelArtifacts"] == (
        "s3://tests/output/first/output/model.tar.gz"
    )
    assert laboratory.archive("output/first/output/model.tar.gz") == {"weights": b"w"}
    assert laboratory.lines("first") == ["hello from the job"]


@pytest.mark.both_runners
def test_the_timeline_has_every_status_with_message_and_touching_times(
    laboratory: Any, job: Any
) -> None:
    """TRAIN-200, TRAIN-201, TRAIN-202, TRAIN-204, TRAIN-205, FIX-18."""
    described = job("timeline", MODEL)
    entries = described["SecondaryStatusTransitions"]

    assert [(entry["Status"], entry["StatusMessage"]) for entry in entries] == [
        ("Starting", "Preparing the instances for training"),
        ("Downloading", "Downloading the training image"),
        ("Training", "Training image download completed. Training in progress."),
        ("Uploading", "Uploading generated training model"),
        ("Completed", "Training job completed"),
    ]
    for entry, following in zip(entries, entries[1:], strict=False):
        assert entry["EndTime"] == following["StartTime"]
    assert entries[-1]["EndTime"] == entries[-1]["StartTime"] == described["TrainingEndTime"]
    assert (
        described["CreationTime"] <= described["TrainingStartTime"]
        <= described["TrainingEndTime"] <= described["LastModifiedTime"]
    )
    assert described["SecondaryStatus"] == "Completed"
    trained = described["TrainingEndTime"] - described["TrainingStartTime"]
    assert described["TrainingTimeInSeconds"] == described["BillableTimeInSeconds"]
    assert described["TrainingTimeInSeconds"] == max(1, math.ceil(trained))


@pytest.mark.both_runners
def test_the_container_finds_the_platforms_files_byte_for_byte(
    laboratory: Any, job: Any, channel: Any
) -> None:
    """TRAIN-30, TRAIN-40, TRAIN-50 … TRAIN-52, TRAIN-60, TRAIN-70, CHK-32; nothing of the SDKs'
    local modes: LOC-01, LOC-05."""
    laboratory.buckets.put_bytes("tests", "data/a.csv", b"1,2")
    described = job(
        "files",
        """
        for path in sorted((ml / 'input' / 'config').iterdir()):
            print(path.name, path.read_text())
        print(sorted(str(p.relative_to(ml)) for p in ml.rglob('*') if p.is_dir()))
        """,
        HyperParameters={"epochs": "10", "lr": "0.1"},
        InputDataConfig=[
            channel("train", "s3://tests/data/", ContentType="text/csv"),
            channel("other", "s3://tests/data/", InputMode="FastFile"),
        ],
        specification={"MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}]},
        DebugHookConfig={"S3OutputPath": "s3://tests/debug", "CollectionConfigurations": []},
        ProfilerConfig={"DisableProfiler": False},
        CheckpointConfig={"S3Uri": "s3://tests/ckpt/"},
    )
    assert described["TrainingJobStatus"] == "Completed"
    *lines, directories, _ = laboratory.lines("files")  # the last one is of a metric not found
    files = dict(line.split(" ", 1) for line in lines)

    assert files["hyperparameters.json"] == '{"epochs":"10","lr":"0.1"}'
    assert files["inputdataconfig.json"] == (
        '{"train":{"ContentType":"text/csv","TrainingInputMode":"File",'
        '"S3DistributionType":"FullyReplicated","RecordWrapperType":"None"},'
        '"other":{"TrainingInputMode":"FastFile",'
        '"S3DistributionType":"FullyReplicated","RecordWrapperType":"None"}}'
    )
    assert files["resourceconfig.json"] == (
        '{"current_host":"algo-1","current_instance_type":"ml.m5.large",'
        '"current_group_name":"homogeneousCluster","hosts":["algo-1"],"instance_groups":'
        '[{"instance_group_name":"homogeneousCluster","instance_type":"ml.m5.large",'
        '"hosts":["algo-1"]}],'  # TRAIN-63: eth0, which processes of one machine have not in common
        f'"network_interface_name":"{laboratory.runner.interface("byoa:latest")}","topology":null}}'
    )
    assert json.loads(files["metric-definition-regex.json"]) == [
        {"Name": "loss", "Regex": "loss=([0-9.]+)"}
    ]
    assert files["checkpointconfig.json"] == (  # FIX-05
        '{"S3Uri":"s3://tests/ckpt/","LocalPath":"/opt/ml/checkpoints"}'
    )
    assert json.loads(files["debughookconfig.json"])["S3OutputPath"] == "s3://tests/debug"
    assert json.loads(files["profilerconfig.json"]) == {"DisableProfiler": False}
    # TRAIN-33: what is written to output/intermediate is synced to S3.
    for name in ("model", "output/data", "output/intermediate", "output/tensors", "code",
                 "input/data/train", "checkpoints"):
        assert f"'{name}'" in directories


@pytest.mark.both_runners
def test_a_job_without_channels_metrics_or_hyperparameters_has_empty_documents(
    laboratory: Any, job: Any
) -> None:
    """TRAIN-30, TRAIN-40, TRAIN-54."""
    job(
        "empty",
        "for n in ('hyperparameters', 'inputdataconfig', 'metric-definition-regex'):\n"
        "    print((ml / 'input' / 'config' / f'{n}.json').read_bytes())",
    )

    assert laboratory.lines("empty") == ["b'{}'", "b'{}'", "b'[]'"]


@pytest.mark.both_runners
def test_hyperparameters_and_environment_survive_exactly(laboratory: Any, job: Any) -> None:
    """TRAIN-40, TRAIN-83: booleans, lists, spaces, quotes, unicode, shell syntax."""
    values = {
        "flag": "True", "quoted": '"text"', "list": "[1, 2]", "spaces": "  a  b ",
        "shell": "$(touch x); `id` && $HOME | > y", "quotes": "it's \"so\" \\n",
        "unicode": "naïve 数 🙂", "empty": "", "newline": "a\nb\tc", "percent": "%s %(a)s {0}",
    }
    described = job(
        "exact",
        "read = json.loads((ml / 'input/config/hyperparameters.json').read_text('utf-8'))\n"
        "env = {k[2:]: v for k, v in os.environ.items() if k.startswith('U_')}\n"
        "print(json.dumps([read, env]))",
        HyperParameters=values,
        Environment={f"U_{name}": value for name, value in values.items()},
    )

    read, environment = json.loads(laboratory.lines("exact")[0])
    assert read == values
    assert environment == values
    assert described["HyperParameters"] == values


@pytest.mark.both_runners
def test_the_platforms_variables_are_set_and_win(laboratory: Any, job: Any) -> None:
    """TRAIN-80, TRAIN-81, TRAIN-83; nothing of the server's own environment comes in."""
    described = job(
        "variables",
        "print(json.dumps(dict(os.environ)))",
        Environment={"TRAINING_JOB_NAME": "mine", "SAGEMAKER_BASE_DIR": "/x", "MINE": "kept"},
    )
    found = json.loads(laboratory.lines("variables")[0])

    assert found["TRAINING_JOB_NAME"] == "variables"
    assert found["TRAINING_JOB_ARN"] == described["TrainingJobArn"]
    assert found["AWS_REGION"] == found["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert found["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9"
    assert found["AWS_ACCESS_KEY_ID"]
    assert found["MINE"] == "kept"
    if laboratory.runner.name == "process":
        assert found["SAGEMAKER_BASE_DIR"].endswith("/variables/algo-1/ml")
    else:  # /opt/ml is where it is, and the variable is anybody's
        assert found["SAGEMAKER_BASE_DIR"] == "/x"
    assert "PYTEST_CURRENT_TEST" not in found


def test_describe_echoes_the_request_with_the_services_defaults(
    laboratory: Any, job: Any, channel: Any
) -> None:
    """WIRE-12, FIX-18, TRAIN-206; the Python SDK fails without OutputDataConfig.KmsKeyId."""
    laboratory.buckets.put_bytes("tests", "data/a.csv", b"1")
    described = job(
        "echo", MODEL, InputDataConfig=[channel("train", "s3://tests/data/")],
        VpcConfig={"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]},
        OutputDataConfig={"S3OutputPath": "s3://tests/output/"},
        Tags=[{"Key": "team", "Value": "a"}],
        ProfilerConfig={"DisableProfiler": True},
    )

    assert described["OutputDataConfig"]["KmsKeyId"] == ""
    assert described["InputDataConfig"] == [{
        "ChannelName": "train",
        "DataSource": {"S3DataSource": {
            "S3DataType": "S3Prefix", "S3Uri": "s3://tests/data/",
            "S3DataDistributionType": "FullyReplicated",
        }},
        "CompressionType": "None", "RecordWrapperType": "None",
    }]
    assert described["EnableNetworkIsolation"] is False
    assert described["EnableManagedSpotTraining"] is False
    assert described["VpcConfig"] == {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
    assert described["ProfilingStatus"] == "Disabled"
    assert described["StoppingCondition"] == {"MaxRuntimeInSeconds": 120}
    assert described["TrainingJobArn"] == (
        "arn:aws:sagemaker:eu-west-1:123456789012:training-job/echo"  # WIRE-08
    )
    # A trailing slash is not doubled.
    uri = described["ModelArtifacts"]["S3ModelArtifacts"]
    assert uri == "s3://tests/output/echo/output/model.tar.gz"
    assert laboratory.state.tags(described["TrainingJobArn"]) == {"team": "a"}


@pytest.mark.both_runners
def test_a_name_is_taken_until_the_job_is_deleted(
    laboratory: Any, job: Any, training_request: Any
) -> None:
    """WIRE-05, WIRE-06, CHK-36."""
    first = job("again", MODEL)
    with pytest.raises(ResourceInUse) as caught:
        laboratory.call("CreateTrainingJob", **training_request("again"))

    assert caught.value.message == (
        "Job name must be unique within an AWS account and region, and a job with this name already"
        f" exists ({first['TrainingJobArn']})"
    )
    laboratory.call("DeleteTrainingJob", TrainingJobName="again")
    with pytest.raises(ValidationException, match=r"^ValidationException: Requested resource not"):
        laboratory.describe("again")
    assert job("again", MODEL)["TrainingJobStatus"] == "Completed"


def test_an_unknown_job_is_answered_in_the_services_words(laboratory: Any) -> None:
    """TRAIN-154, TRAIN-218, WIRE-05."""
    for operation in ("DescribeTrainingJob", "StopTrainingJob", "DeleteTrainingJob"):
        with pytest.raises(ValidationException) as caught:
            laboratory.call(operation, TrainingJobName="none")
        assert caught.value.message == "Requested resource not found."
    with pytest.raises(ValidationException, match="Could not find job to update with name none"):
        laboratory.call("UpdateTrainingJob", TrainingJobName="none")


def test_an_update_is_refused(laboratory: Any, job: Any) -> None:
    job("fixed", MODEL)
    with pytest.raises(ValidationException, match="any debugger attaches"):
        laboratory.call(
            "UpdateTrainingJob", TrainingJobName="fixed",
            RemoteDebugConfig={"EnableRemoteDebug": True},
        )


def test_the_list_filters_and_orders_ascending(laboratory: Any, job: Any) -> None:
    """WIRE-10, WIRE-11."""
    for name in ("list-a", "list-b"):
        job(name, MODEL)
    job("list-bad", "sys.exit(3)")
    listed = laboratory.call("ListTrainingJobs", NameContains="list-")["TrainingJobSummaries"]

    assert [entry["TrainingJobName"] for entry in listed] == ["list-a", "list-b", "list-bad"]
    assert set(listed[0]) == {
        "TrainingJobName", "TrainingJobArn", "CreationTime", "LastModifiedTime",
        "TrainingEndTime", "TrainingJobStatus", "SecondaryStatus",
    }
    failed = laboratory.call("ListTrainingJobs", StatusEquals="Failed")["TrainingJobSummaries"]
    assert [entry["TrainingJobName"] for entry in failed] == ["list-bad"]
    assert laboratory.call("ListTrainingJobs", WarmPoolStatusEquals="InUse") == {
        "TrainingJobSummaries": []
    }
