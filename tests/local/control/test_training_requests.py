"""What CreateTrainingJob refuses, in whose words, and that nothing is left behind."""

from __future__ import annotations

import re
from typing import Any

import pytest

from byoa.local.control.training_request import _wrong_program
from byoa.local.errors import ValidationException

SCRIPT = "pass"


def refusal(laboratory: Any, request: dict[str, Any]) -> str:
    with pytest.raises(ValidationException) as caught:
        laboratory.call("CreateTrainingJob", **request)
    assert laboratory.state.list("training-job") == []
    return str(caught.value.message)


def s3(**members: Any) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://tests/data/"} | members
    return {"S3DataSource": source}


def with_channel(**members: Any) -> dict[str, Any]:
    return {"InputDataConfig": [{"ChannelName": "train", "DataSource": s3()} | members]}


GROUP = {"InstanceGroupName": "g", "InstanceType": "ml.m5.large", "InstanceCount": 1}


@pytest.mark.parametrize(
    ("members", "nearest"),
    [
        (with_channel(DataSource=s3(S3DataType="Converse")), "Converse .* use S3Prefix"),
        (
            with_channel(DataSource={"FileSystemDataSource": {
                "FileSystemId": "fs-1", "FileSystemAccessMode": "ro", "FileSystemType": "EFS",
                "DirectoryPath": "/",
            }}),
            "FileSystemDataSource .* use S3DataSource",
        ),
        (
            {"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2,
                                "VolumeSizeInGB": 1}},
            "2 hosts .* BYOA_SANDBOX is off; expected: ResourceConfig.InstanceCount 1",
        ),
        (
            {"ResourceConfig": {"VolumeSizeInGB": 1, "InstanceGroups": [
                {"InstanceGroupName": "g", "InstanceType": "ml.m5.large", "InstanceCount": 2}]}},
            "2 hosts .* BYOA_SANDBOX is off",
        ),
        (  # TRAIN-216
            {"ResourceConfig": {"VolumeSizeInGB": 1, "InstancePreferences": [
                {"InstanceType": "ml.m5.large", "InstanceCount": 1}]}},
            "InstancePreferences .* use InstanceType, or InstanceGroups",
        ),
        ({"RemoteDebugConfig": {"EnableRemoteDebug": True}}, "EnableRemoteDebug .* use false"),
        ({"ExperimentConfig": {"TrialName": "t"}}, "ExperimentConfig"),
        (
            {"ProfilerRuleConfigurations": [{"RuleConfigurationName": "r",
                                             "RuleEvaluatorImage": "i"}]},
            "disable_profiler=True",
        ),
        (
            {"ServerlessJobConfig": {"BaseModelArn": "a", "JobType": "FineTuning"}},
            "ServerlessJobConfig .* TrainingImage",
        ),
    ],
    ids=lambda value: None if isinstance(value, dict) else value.split(" ")[0],
)
def test_what_does_not_run_here_is_refused_naming_the_nearest_that_does(
    laboratory: Any, training_request: Any, members: dict[str, Any], nearest: str
) -> None:
    """pain 25: never accepted and ignored."""
    assert re.search(nearest, refusal(laboratory, training_request("job", **members)))


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"AlgorithmSpecification": {"TrainingInputMode": "File"}}, "must have a TrainingImage"),
        (
            {"AlgorithmSpecification": {"TrainingInputMode": "File", "TrainingImage": "byoa",
                                        "AlgorithmName": "x"}},
            "can't specify both TrainingImage and AlgorithmName",  # TRAIN-10
        ),
        (
            {"InputDataConfig": [{"ChannelName": "a", "DataSource": s3()}] * 2},
            "Channel names must be unique: 'a' is given 2 times",  # TRAIN-23
        ),
        (
            with_channel(DataSource=s3(InstanceGroupNames=["g"])),
            "InstanceGroupNames has 'g', which is no instance group",  # TRAIN-101
        ),
        (
            {"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1,
                                "VolumeSizeInGB": 1, "InstanceGroups": [GROUP]}},
            "either InstanceGroups or InstanceType and InstanceCount, not both",  # TRAIN-215
        ),
        (
            {"ResourceConfig": {"VolumeSizeInGB": 1, "InstanceGroups": [GROUP, GROUP]}},
            "group names must be unique: 'g' is given 2 times",
        ),
        (
            {"ResourceConfig": {"VolumeSizeInGB": 1,
                                "InstanceGroups": [GROUP | {"InstanceCount": 0}]}},
            "Value '0' at 'resourceConfig.instanceGroups.1.member.instanceCount' failed",
        ),
        (with_channel(ChannelName=".."), "is no name of a directory"),
        (with_channel(DataSource={}), "must have exactly one member"),
        (with_channel(DataSource=s3(S3Uri="https://x/y")), "expected s3://bucket/key"),
        (with_channel(DataSource=s3(AttributeNames=["a"])), "AttributeNames needs"),
        (  # TRAIN-114, CONTRA-26
            with_channel(DataSource=s3(S3DataType="AugmentedManifestFile", AttributeNames=["a"])),
            "Channel 'train': S3DataType AugmentedManifestFile can only be used with input mode"
            " Pipe, not File.",
        ),
        (
            with_channel(DataSource=s3(S3DataType="AugmentedManifestFile"), InputMode="Pipe"),
            "Channel 'train': S3DataType AugmentedManifestFile needs AttributeNames.",
        ),
        (  # TRAIN-93
            with_channel(DataSource=s3(S3DataType="ManifestFile"), InputMode="FastFile"),
            "input mode FastFile reads S3DataType S3Prefix alone; use File or Pipe",
        ),
        (  # TRAIN-30: both are entries of /opt/ml/input/data
            {"InputDataConfig": [
                {"ChannelName": "a", "DataSource": s3(), "InputMode": "Pipe"},
                {"ChannelName": "a_0", "DataSource": s3()},
            ]},
            "ChannelName 'a_0' is the name of a FIFO of the Pipe channel 'a'",
        ),
        (
            {"InputDataConfig": [
                {"ChannelName": "a", "DataSource": s3()},
                {"ChannelName": "a-manifest", "DataSource": s3()},
            ]},
            "ChannelName 'a-manifest' is the name of a file of channel 'a'",
        ),
        (
            {"StoppingCondition": {"MaxWaitTimeInSeconds": 10}},
            "only with EnableManagedSpotTraining",
        ),
        (
            {"EnableManagedSpotTraining": True,
             "StoppingCondition": {"MaxRuntimeInSeconds": 10, "MaxWaitTimeInSeconds": 9}},
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal",
        ),
        ({"EnableManagedSpotTraining": True}, "Invalid MaxWaitTimeInSeconds"),  # TRAIN-160
        ({"OutputDataConfig": {"S3OutputPath": "https://b/c"}}, "OutputDataConfig: "),
        (
            {"CheckpointConfig": {"S3Uri": "s3://tests/c", "LocalPath": "/tmp/checkpoints"}},
            "LocalPath '/tmp/checkpoints' must be below /opt/ml",
        ),
        (
            {"CheckpointConfig": {"S3Uri": "s3://tests/c", "LocalPath": "/opt/ml/model"}},
            "not in input, model, output",
        ),
        (
            {"CheckpointConfig": {"S3Uri": "s3://tests/c", "LocalPath": "/opt/ml/a/../../b"}},
            "must be below /opt/ml",
        ),
        (
            {"TensorBoardOutputConfig": {"S3OutputPath": "s3://tests/t", "LocalPath": "/tmp"}},
            "must be below /opt/ml",
        ),
        (
            {"AlgorithmSpecification": {
                "TrainingInputMode": "File", "TrainingImage": "byoa",
                "MetricDefinitions": [{"Name": "a", "Regex": "a=([0-9"}]}},
            "Regex 'a=([0-9' of metric 'a' is no regular expression",
        ),
        (
            {"AlgorithmSpecification": {
                "TrainingInputMode": "File", "TrainingImage": "byoa",
                "MetricDefinitions": [{"Name": "a", "Regex": "a=[0-9]+"}]}},
            "has no group in parentheses",
        ),
        (
            {"AlgorithmSpecification": {"TrainingInputMode": "File", "TrainingImage": "xgboost"}},
            "byoa image add xgboost FOLDER",
        ),
        ({"Tags": [{"Key": "aws:x", "Value": ""}]}, "aws:"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:30],
)
def test_what_is_wrong_is_refused(
    laboratory: Any, training_request: Any, members: dict[str, Any], text: str
) -> None:
    assert text in refusal(laboratory, training_request("job", **members))


def test_what_the_model_leaves_to_the_service_is_required(
    laboratory: Any, training_request: Any
) -> None:
    """TRAIN-27, WIRE-06."""
    request = training_request("job")
    del request["ResourceConfig"], request["StoppingCondition"]
    assert refusal(laboratory, request) == (
        "2 validation errors detected: Value null at 'resourceConfig' failed to satisfy constraint:"
        " Member must not be null; Value null at 'stoppingCondition' failed to satisfy constraint:"
        " Member must not be null"
    )
    request = training_request("job", ResourceConfig={"VolumeSizeInGB": 1})
    assert "2 validation errors" in refusal(laboratory, request)


def test_what_is_out_of_the_service_s_range_is_refused_in_its_words(
    laboratory: Any, training_request: Any
) -> None:
    """TRAIN-24, WIRE-06, WIRE-07: the model's own ranges are wider."""
    count, runtime = (
        "Value '0' at 'resourceConfig.instanceCount' failed to satisfy constraint: Member must"
        " have value greater than or equal to 1",
        "Value '2419201' at 'stoppingCondition.maxRuntimeInSeconds' failed to satisfy constraint:"
        " Member must have value less than or equal to 2419200",
    )
    none = {"InstanceType": "ml.m5.large", "InstanceCount": 0, "VolumeSizeInGB": 1}
    long = {"MaxRuntimeInSeconds": 2_419_201}

    assert refusal(laboratory, training_request("job", ResourceConfig=none)) == (
        f"1 validation error detected: {count}"
    )
    assert refusal(laboratory, training_request("job", StoppingCondition=long)) == (
        f"1 validation error detected: {runtime}"
    )
    both = training_request("job", ResourceConfig=none, StoppingCondition=long)
    assert refusal(laboratory, both) == f"2 validation errors detected: {count}; {runtime}"


def test_the_longest_runtime_of_the_service_is_accepted(laboratory: Any, job: Any) -> None:
    """TRAIN-24."""
    described = job("long", SCRIPT, StoppingCondition={"MaxRuntimeInSeconds": 2_419_200})

    assert described["StoppingCondition"] == {"MaxRuntimeInSeconds": 2_419_200}


def test_all_that_is_wrong_is_said_at_once(laboratory: Any, training_request: Any) -> None:
    text = refusal(
        laboratory,
        training_request(
            "job", OutputDataConfig={"S3OutputPath": "https://b/c"},
            StoppingCondition={"MaxWaitTimeInSeconds": 10}, **with_channel(ChannelName="."),
        ),
    )

    assert "OutputDataConfig" in text and "MaxWaitTimeInSeconds" in text and "'.'" in text


def test_isolation_without_namespaces_is_refused(laboratory: Any, training_request: Any) -> None:
    """TRAIN-12."""
    text = refusal(laboratory, training_request("job", EnableNetworkIsolation=True))

    assert "network isolation needs Linux namespaces" in text


def test_what_acts_in_pipe_mode_alone_is_accepted_and_shown(laboratory: Any, job: Any) -> None:
    """TRAIN-99, TRAIN-102; a job without channels may name any mode (TRAIN-97)."""
    laboratory.buckets.put_bytes("tests", "data/a", b"1")
    given = {"CompressionType": "Gzip", "RecordWrapperType": "RecordIO",
             "ShuffleConfig": {"Seed": 1}}
    described = job("file", SCRIPT, **with_channel(**given))

    assert described["TrainingJobStatus"] == "Completed"
    assert given.items() <= described["InputDataConfig"][0].items()
    described = job("none", SCRIPT, specification={"TrainingInputMode": "Pipe"})
    assert described["TrainingJobStatus"] == "Completed"


def test_what_clients_always_send_is_accepted(laboratory: Any, job: Any) -> None:
    """The Python SDK's DebugHookConfig, ProfilerConfig, empty key; TRAIN-217; cloud placement."""
    described = job(
        "accepted", SCRIPT,
        DebugHookConfig={"S3OutputPath": "s3://tests/", "CollectionConfigurations": []},
        ProfilerConfig={"DisableProfiler": False},
        OutputDataConfig={"S3OutputPath": "s3://tests/output", "KmsKeyId": ""},
        EnableInterContainerTrafficEncryption=True,
        InfraCheckConfig={"EnableInfraCheck": True},
        SessionChainingConfig={"EnableSessionTagChaining": True},
        RemoteDebugConfig={"EnableRemoteDebug": False},
        StoppingCondition={},
    )

    assert described["TrainingJobStatus"] == "Completed"
    assert described["StoppingCondition"] == {"MaxRuntimeInSeconds": 86_400}  # TRAIN-24
    assert described["InfraCheckConfig"] == {"EnableInfraCheck": True}
    assert "SessionChainingConfig" not in described


@pytest.mark.parametrize(
    ("members", "right"),
    [
        (with_channel(InputMode="FastFile"), False),
        (with_channel(DataSource=s3(S3DataDistributionType="ShardedByS3Key")), False),
        (with_channel(), True),
        (with_channel(ChannelName="other", InputMode="FastFile"), True),
    ],
)
@pytest.mark.parametrize("arguments", [
    ["/opt/ml/input/data/train/run.sh"], ["-c", "chmod +x /opt/ml/input/data/train/run.sh"],
])
def test_a_program_in_a_channel_must_be_whole_on_every_host(
    laboratory: Any, training_request: Any, members: dict[str, Any], right: bool,
    arguments: list[str],
) -> None:
    """TRAIN-09"""
    request = training_request("job", **members, AlgorithmSpecification={
        "TrainingImage": "byoa:latest", "TrainingInputMode": "File",
        "ContainerEntrypoint": ["/bin/bash"], "ContainerArguments": arguments,
    })
    wrong = list(_wrong_program(request))
    assert wrong == ([] if right else [
        "Channel 'train' brings the program of ContainerEntrypoint: its InputMode must be File,"
        " and its S3DataDistributionType FullyReplicated."
    ])
    if wrong:
        assert refusal(laboratory, request) == wrong[0]
