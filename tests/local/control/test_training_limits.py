"""What a request may be, over the wire: lengths, names and numbers, and what has nothing to act on.

The client does not check: an old SDK, or one of another language, knows other limits.
"""

from __future__ import annotations

import re
import time
import uuid
from typing import Any

import pytest


@pytest.fixture
def refusal(sagemaker: Any, training_request: Any) -> Any:
    """What the server says of a job with these members."""
    from botocore.config import Config
    from botocore.exceptions import ClientError

    client = sagemaker.client("sagemaker", config=Config(parameter_validation=False))

    def create(**members: Any) -> str:
        name = members.pop("TrainingJobName", f"limits-{uuid.uuid4().hex[:8]}")
        with pytest.raises(ClientError) as caught:
            client.create_training_job(**training_request(name, **members))
        error = caught.value.response["Error"]
        assert error["Code"] == "ValidationException"
        return str(error["Message"])

    yield create
    client.close()


def algorithm(**members: Any) -> dict[str, Any]:
    return {"AlgorithmSpecification": {
        "TrainingImage": "byoa:latest", "TrainingInputMode": "File", **members,
    }}


@pytest.mark.parametrize("member", ["ContainerEntrypoint", "ContainerArguments"])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([], "length greater than or equal to 1"),
        (["a"] * 101, "length less than or equal to 100"),
        (["a" * 257], "length less than or equal to 256"),
    ],
    ids=["none", "101", "257-characters"],
)
def test_programs_and_arguments_have_limits(
    refusal: Any, member: str, value: list[str], text: str
) -> None:
    """TRAIN-04."""
    assert text in refusal(**algorithm(**{member: value}))


@pytest.mark.parametrize("name", ["a b", "-a", "a-", "a_b", "a" * 64, ""])
def test_a_job_s_name_is_letters_digits_and_single_hyphens(refusal: Any, name: str) -> None:
    """TRAIN-20."""
    assert "'trainingJobName'" in refusal(TrainingJobName=name)


def test_a_name_is_taken_for_as_long_as_the_job_s_record_exists(
    sagemaker: Any, training_request: Any
) -> None:
    """TRAIN-20: in its account and region."""
    from botocore.exceptions import ClientError

    name = f"taken-{uuid.uuid4().hex[:8]}"
    here, elsewhere = (
        sagemaker.client("sagemaker", region_name=region) for region in ("us-east-1", "eu-west-1")
    )
    here.create_training_job(**training_request(name))
    elsewhere.create_training_job(**training_request(name))
    with pytest.raises(ClientError) as caught:
        here.create_training_job(**training_request(name))
    assert caught.value.response["Error"]["Code"] == "ResourceInUse"
    assert "Job name must be unique" in str(caught.value)

    _end(here, name)
    with pytest.raises(ClientError):
        here.create_training_job(**training_request(name))
    here.delete_training_job(TrainingJobName=name)
    here.create_training_job(**training_request(name))
    here.close()
    elsewhere.close()


def _end(client: Any, name: str) -> None:
    end = time.monotonic() + 60
    while client.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] not in (
        "Completed", "Failed", "Stopped",
    ):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({f"A{i}": "" for i in range(101)}, "less than or equal to 100"),
        ({"1A": ""}, "[a-zA-Z_][a-zA-Z0-9_]*"),
        ({"A" * 513: ""}, "less than or equal to 512"),
        ({"A": "a" * 513}, "less than or equal to 512"),
    ],
    ids=["101", "pattern", "name", "value"],
)
def test_variables_have_limits(refusal: Any, environment: dict[str, str], text: str) -> None:
    """TRAIN-22."""
    assert text in refusal(Environment=environment)


@pytest.mark.parametrize(
    ("members", "where"),
    [
        ({"Tags": [{"Key": f"k{i}", "Value": ""} for i in range(51)]}, "tags"),
        ({"RoleArn": "arn:aws:iam::1:role/me"}, "roleArn"),
        ({"RoleArn": "arn:aws:iam::123456789012:user/me"}, "roleArn"),
        ({"OutputDataConfig": {"S3OutputPath": "ftp://bucket/x"}}, "outputDataConfig.s3OutputPath"),
        ({"OutputDataConfig": {"S3OutputPath": "s3://b/" + "x" * 1024}},
         "outputDataConfig.s3OutputPath"),
    ],
    ids=["tags", "account", "user", "ftp", "1024"],
)
def test_tags_roles_and_uris_have_limits(
    refusal: Any, members: dict[str, Any], where: str
) -> None:
    """TRAIN-25."""
    assert f"'{where}'" in refusal(**members)


def test_a_private_registry_in_a_vpc_is_refused(refusal: Any) -> None:
    """TRAIN-11."""
    said = refusal(**algorithm(TrainingImageConfig={"TrainingRepositoryAccessMode": "Vpc"}))

    assert said == "TrainingRepositoryAccessMode Vpc is not supported here; use Platform."


def test_remote_debugging_is_refused(refusal: Any) -> None:
    """TRAIN-85."""
    said = refusal(RemoteDebugConfig={"EnableRemoteDebug": True})

    assert "is a process of this machine, which any debugger attaches to" in said


@pytest.mark.parametrize("instance", ["ml.g5.xlarge", "ml.p4d.24xlarge", "ml.r5d.large"])
def test_a_volume_s_key_is_refused_where_there_is_no_volume(refusal: Any, instance: str) -> None:
    """TRAIN-180."""
    resources = {"InstanceType": instance, "InstanceCount": 1, "VolumeSizeInGB": 1}
    said = refusal(ResourceConfig=resources | {"VolumeKmsKeyId": "key"})

    assert re.match(rf"VolumeKmsKeyId can't be given with {re.escape(instance)}", said)


def test_volumes_and_keys_are_described_as_they_were_asked_for(laboratory: Any, job: Any) -> None:
    """TRAIN-135, TRAIN-180: on one machine's disk they have nothing to act on."""
    resources = {
        "InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 77,
        "VolumeKmsKeyId": "volume-key",
    }
    described = job(
        "keys", "(ml / 'model' / 'w').touch()", ResourceConfig=resources,
        OutputDataConfig={"S3OutputPath": "s3://tests/output", "KmsKeyId": "output-key"},
    )

    assert described["TrainingJobStatus"] == "Completed"
    assert described["ResourceConfig"] == resources
    assert described["OutputDataConfig"]["KmsKeyId"] == "output-key"
    assert laboratory.lines("keys") == [
        "byoa: without effect on this machine, only kept and described:"
        " OutputDataConfig.KmsKeyId, ResourceConfig.VolumeKmsKeyId"
    ]


def test_what_is_without_effect_is_said_once_before_the_container_s_first_line(
    laboratory: Any, training_request: Any
) -> None:
    """WIRE-12: and no metric is found in it."""
    program = laboratory.program("""
        print('loss=1', flush=True)
        while not (ml / 'input/go').exists(): time.sleep(0.02)
    """)
    program["MetricDefinitions"] = [{"Name": "loss", "Regex": "loss=(.)"},
                                    {"Name": "effects", "Regex": "(.*)effect"}]
    laboratory.call("CreateTrainingJob", **training_request(
        "vpc", AlgorithmSpecification=program, EnableInterContainerTrafficEncryption=True,
        VpcConfig={"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]},
    ))
    laboratory.until_printed("vpc", "loss=1")
    laboratory.close(keep_running=True)
    laboratory.logs.delete_group(laboratory.caller, "/aws/sagemaker/TrainingJobs")
    laboratory.open()
    laboratory.until_printed("vpc", "loss=1")
    (laboratory.ml("vpc") / "input/go").touch()
    described = laboratory.wait("vpc")

    said, printed, *rest = laboratory.lines("vpc")
    assert said == (
        "byoa: without effect on this machine, only kept and described: VpcConfig,"
        " EnableInterContainerTrafficEncryption"
    )
    assert printed == "loss=1"
    assert all("effects" in line for line in rest), "that its expression never matches"
    assert [each["MetricName"] for each in described["FinalMetricDataList"]] == ["loss"]


@pytest.mark.parametrize(
    ("members", "enabled"),
    [
        ({}, False),
        ({"MetricDefinitions": [{"Name": "a", "Regex": "a=(.)"}]}, True),
        ({"MetricDefinitions": [{"Name": "a", "Regex": "a=(.)"}],
          "EnableSageMakerMetricsTimeSeries": False}, False),
    ],
)
def test_a_time_series_of_metrics_is_kept_where_there_are_some(
    laboratory: Any, job: Any, members: dict[str, Any], enabled: bool
) -> None:
    """TRAIN-195."""
    described = job("series", "pass", specification=members)

    found = described["AlgorithmSpecification"]["EnableSageMakerMetricsTimeSeries"]
    assert found is enabled


@pytest.mark.both_runners
def test_every_job_has_a_clean_tree_and_the_platform_s_own_variables(
    laboratory: Any, job: Any
) -> None:
    """TRAIN-82, TRAIN-214: what a job leaves, the next one does not find."""
    job("messy", """
        for place in ('model', 'output/data', 'output/intermediate', 'input/data', 'code'):
            (ml / place / 'left').touch()
        (ml / 'left').touch()
    """)
    job("clean", """
        print(sorted(str(p.relative_to(ml)) for p in ml.rglob('*') if p.name == 'left'))
        print(os.path.isdir(os.environ['SAGEMAKER_METRICS_DIRECTORY']))
    """)

    assert laboratory.lines("clean") == ["[]", "True"]
