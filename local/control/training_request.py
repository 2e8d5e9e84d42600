"""CreateTrainingJob's request: what the API's model cannot check, what is not run here, defaults.

Everything is refused when the job is submitted; an accepted member is acted on, or has nothing to
act on with one machine and one job (roles, VPCs, encryption at rest, volume sizes).
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from byoa.container.contract import (
    DEFAULT_CHECKPOINT_PATH,
    ROOT,
    Layout,
    MetricDefinition,
    TensorBoardOutputConfig,
)
from byoa.container.errors import ByoaError, UnsupportedError
from byoa.local.control import instance_groups
from byoa.local.control.metric_scraper import problem
from byoa.local.control.unsupported import raise_all, refused
from byoa.local.errors import ValidationException
from byoa.local.runners.base import Runner
from byoa.local.storage.buckets import parse_s3_uri

DEFAULT_RUNTIME_SECONDS = 86_400  # TRAIN-24
MAX_RUNTIME_SECONDS = 2_419_200  # 28 days, TRAIN-24
DEFAULT_VOLUME_GB = 30  # what the Python SDK sends; it fails to attach to a job without any
# Directories of the container that checkpoints must not share (TRAIN-30).
_RESERVED = ("input", "model", "output", "errors")

# Instance types with NVMe storage in place of a volume that a key would encrypt (TRAIN-180).
_NVME = re.compile(r"ml\.(?:p4de?|p5(?:e|en)?|g4dn|g5|g6e?|trn\d\w*|[cmr]\d\w*d\w*)\.")
# Of ContainerEntrypoint and ContainerArguments: an interpreter, an option, the program.
_PROGRAM_WORDS = 3

_REFUSALS = {
    "DebugRuleConfigurations": "rules are processing jobs, which are not run yet; read the tensors"
    " that DebugHookConfig has written",
    "ProfilerRuleConfigurations": "rules are processing jobs, which are not run yet; in the Python"
    " SDK: disable_profiler=True",
    "ExperimentConfig": "associate the job by AssociateTrialComponent, which is kept",
    "ServerlessJobConfig": "use AlgorithmSpecification with a TrainingImage",
    "MlflowConfig": "set MLFLOW_TRACKING_URI in Environment",
    "ModelPackageConfig": "use CreateModel with the job's model artifact",
}
_ALGORITHM_REFUSALS = {
    "AlgorithmName": "use TrainingImage",
}
_RESOURCE_REFUSALS = {
    "TrainingPlanArn": "leave it out",
    "InstancePlacementConfig": "leave it out",
    "InstancePreferences": "use InstanceType, or InstanceGroups for several types at once",
}
# Accepted, and without effect here; so are RoleArn, VolumeSizeInGB and much of InstanceType, which
# every request has.
WITHOUT_EFFECT = (
    "VpcConfig", "EnableInterContainerTrafficEncryption", "OutputDataConfig.KmsKeyId",
    "ResourceConfig.VolumeKmsKeyId", "StoppingCondition.MaxPendingTimeInSeconds",
    "AlgorithmSpecification.TrainingImageConfig.TrainingRepositoryAuthConfig",
    "InfraCheckConfig.EnableInfraCheck", "SessionChainingConfig.EnableSessionTagChaining",
)
_S3_REFUSALS = {
    "ModelAccessConfig": "copy the data to S3 and name it by S3Uri",
    "HubAccessConfig": "copy the data to S3 and name it by S3Uri",
}
_SOURCE_REFUSALS = {
    "FileSystemDataSource": "copy the data to S3 and use S3DataSource",
    "DatasetSource": "copy the data to S3 and use S3DataSource",
}


def check(request: Mapping[str, Any], runner: Runner) -> None:
    """Raise ValidationException with everything that is wrong or not run here."""
    _check_constraints(request)
    _check_wrong(request)
    raise_all(_refused(request))
    algorithm = request["AlgorithmSpecification"]
    isolated = bool(request.get("EnableNetworkIsolation"))
    hosts = len(instance_groups.hosts_of(request))
    program = [*algorithm.get("ContainerEntrypoint", ()), *algorithm.get("ContainerArguments", ())]
    try:
        runner.check(
            algorithm["TrainingImage"], isolated=isolated, hosts=hosts, program=program
        )
        if "Pipe" in {input_mode(request, each) for each in request.get("InputDataConfig") or []}:
            runner.check_pipes(algorithm["TrainingImage"])
    except UnsupportedError as error:
        raise ValidationException(str(error)) from None


def complete(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request with the service's defaults filled in, as Describe shows it (WIRE-12)."""
    full = copy.deepcopy({key: value for key, value in request.items() if key != "Tags"})
    full.setdefault("HyperParameters", {})
    for channel in full.get("InputDataConfig", ()):
        channel.setdefault("CompressionType", "None")
        channel.setdefault("RecordWrapperType", "None")
        channel["DataSource"]["S3DataSource"].setdefault(
            "S3DataDistributionType", "FullyReplicated"
        )
    full["OutputDataConfig"].setdefault("KmsKeyId", "")  # the Python SDK fails without it
    full["OutputDataConfig"].setdefault("CompressionType", "GZIP")
    if not full["ResourceConfig"].get("InstanceGroups"):
        full["ResourceConfig"].setdefault("InstanceCount", 1)
    full["StoppingCondition"].setdefault("MaxRuntimeInSeconds", DEFAULT_RUNTIME_SECONDS)
    full["ResourceConfig"].setdefault("VolumeSizeInGB", DEFAULT_VOLUME_GB)
    if "TensorBoardOutputConfig" in full:
        full["TensorBoardOutputConfig"].setdefault(
            "LocalPath", TensorBoardOutputConfig.defaults["LocalPath"]
        )
    if "CheckpointConfig" in full:
        full["CheckpointConfig"].setdefault("LocalPath", DEFAULT_CHECKPOINT_PATH)
    full["AlgorithmSpecification"].setdefault(
        "EnableSageMakerMetricsTimeSeries",
        bool(full["AlgorithmSpecification"].get("MetricDefinitions")),
    )
    for name in ("EnableNetworkIsolation", "EnableInterContainerTrafficEncryption",
                 "EnableManagedSpotTraining"):
        full.setdefault(name, False)
    return full


def metric_definitions(request: Mapping[str, Any]) -> list[MetricDefinition]:
    given = request["AlgorithmSpecification"].get("MetricDefinitions") or []
    return [MetricDefinition(each["Name"], each["Regex"]) for each in given]


def input_mode(request: Mapping[str, Any], channel: Mapping[str, Any]) -> str:
    """The channel's own mode, else the job's (TRAIN-97)."""
    algorithm = request.get("AlgorithmSpecification") or {}  # serverless jobs have none
    return str(channel.get("InputMode") or algorithm.get("TrainingInputMode"))


def _check_constraints(request: Mapping[str, Any]) -> None:
    """What is missing or out of range though the API's model allows it, in the model's words."""
    broken = [
        f"Value null at '{path}' failed to satisfy constraint: Member must not be null"
        for path in _missing(request)
    ]
    broken += _out_of_range(request)
    if broken:
        number = len(broken)
        raise ValidationException(
            f"{number} validation error{'s' * (number > 1)} detected: {'; '.join(broken)}"
        )


def _missing(request: Mapping[str, Any]) -> list[str]:
    # The model leaves these to the service since serverless jobs omit them (TRAIN-27).
    if request.get("ServerlessJobConfig"):
        return []
    missing = [
        path
        for path, value in (
            ("algorithmSpecification", request.get("AlgorithmSpecification")),
            ("resourceConfig", request.get("ResourceConfig")),
            ("stoppingCondition", request.get("StoppingCondition")),
        )
        if value is None
    ]
    resources = request.get("ResourceConfig")
    if resources is not None and not _other_instances(resources):
        missing += [
            f"resourceConfig.{name[0].lower()}{name[1:]}"
            for name in ("InstanceType", "InstanceCount")
            if resources.get(name) is None
        ]
    return missing


def _out_of_range(request: Mapping[str, Any]) -> Iterator[str]:
    resources = request.get("ResourceConfig") or {}
    # The model's least is 0, for requests that count the instances of groups instead.
    if resources.get("InstanceCount") == 0 and not _other_instances(resources):
        yield (
            "Value '0' at 'resourceConfig.instanceCount' failed to satisfy constraint: Member must"
            " have value greater than or equal to 1"
        )
    yield from instance_groups.counts_out_of_range(resources)
    runtime = (request.get("StoppingCondition") or {}).get("MaxRuntimeInSeconds") or 0
    if runtime > MAX_RUNTIME_SECONDS:
        yield (
            f"Value '{runtime}' at 'stoppingCondition.maxRuntimeInSeconds' failed to satisfy"
            f" constraint: Member must have value less than or equal to {MAX_RUNTIME_SECONDS}"
        )


def _other_instances(resources: Mapping[str, Any]) -> bool:
    """Whether the request says in another way which instances, and how many."""
    return bool(resources.get("InstanceGroups") or resources.get("InstancePreferences"))


def _check_wrong(request: Mapping[str, Any]) -> None:
    """What no platform would run."""
    raise_all([
        *_wrong_algorithm(request.get("AlgorithmSpecification") or {}),
        *_wrong_channels(request),
        *_wrong_program(request),
        *instance_groups.wrong(request),
        *_wrong_times(request),
        *_wrong_pool(request),
        *_wrong_places(request),
    ])


def _wrong_algorithm(algorithm: Mapping[str, Any]) -> Iterator[str]:
    if algorithm.get("TrainingImage") and algorithm.get("AlgorithmName"):
        yield "You can't specify both TrainingImage and AlgorithmName."
    elif algorithm and not (algorithm.get("TrainingImage") or algorithm.get("AlgorithmName")):
        yield "AlgorithmSpecification must have a TrainingImage."
    for each in algorithm.get("MetricDefinitions") or []:
        wrong = problem(MetricDefinition(each["Name"], each["Regex"]))
        if wrong:
            yield f"The Regex {each['Regex']!r} of metric {each['Name']!r} {wrong}."
    yield from _repeated("Metric", algorithm.get("MetricDefinitions") or [], "Name")


def _wrong_channels(request: Mapping[str, Any]) -> Iterator[str]:
    channels = request.get("InputDataConfig") or []
    yield from _repeated("Channel", channels, "ChannelName")
    yield from _wrong_neighbours(request, channels)
    for channel in channels:
        name, source = channel["ChannelName"], channel["DataSource"]
        if name in (".", ".."):
            yield f"ChannelName {name!r} is no name of a directory."
        given = [kind for kind, value in source.items() if value]
        if len(given) != 1:
            yield f"Channel {name!r}: DataSource must have exactly one member."
        s3 = source.get("S3DataSource")
        if s3:
            yield from _wrong_uri(f"Channel {name!r}", s3["S3Uri"])
            yield from _wrong_type(f"Channel {name!r}", s3, input_mode(request, channel))


def _wrong_type(where: str, source: Mapping[str, Any], mode: str) -> Iterator[str]:
    """What an input mode cannot read (TRAIN-93, TRAIN-114)."""
    kind, names = source["S3DataType"], source.get("AttributeNames")
    if kind == "AugmentedManifestFile":
        if mode != "Pipe":  # CONTRA-26
            yield f"{where}: S3DataType {kind} can only be used with input mode Pipe, not {mode}."
        if not names:
            yield f"{where}: S3DataType {kind} needs AttributeNames."
    elif names:
        yield f"{where}: AttributeNames needs S3DataType AugmentedManifestFile."
    if kind == "ManifestFile" and mode == "FastFile":
        yield (
            f"{where}: input mode FastFile reads S3DataType S3Prefix alone; use File or Pipe for a"
            " ManifestFile."
        )


def _wrong_neighbours(
    request: Mapping[str, Any], channels: list[dict[str, Any]]
) -> Iterator[str]:
    """Directories of channels that have the name of another channel's files (TRAIN-30)."""
    layout = Layout(Path(ROOT))
    modes = {channel["ChannelName"]: input_mode(request, channel) for channel in channels}
    for other in (name for name, mode in modes.items() if mode != "Pipe"):
        number = other.rpartition("_")[2]
        for name, mode in modes.items():
            if mode == "Pipe" and number.isdecimal():
                if other == layout.fifo(name, int(number)).name:
                    yield (
                        f"ChannelName {other!r} is the name of a FIFO of the Pipe channel {name!r}."
                    )
            if other == layout.manifest(name).name:
                yield f"ChannelName {other!r} is the name of a file of channel {name!r}."


def _wrong_program(request: Mapping[str, Any]) -> Iterator[str]:
    """A program that a channel brings must be there, and whole, on every host (TRAIN-09)."""
    algorithm = request.get("AlgorithmSpecification") or {}
    words = [*algorithm.get("ContainerEntrypoint", ()), *algorithm.get("ContainerArguments", ())]
    for channel in request.get("InputDataConfig") or []:
        place = f"{ROOT}/input/data/{channel['ChannelName']}/"
        if not any(place in word for word in words[:_PROGRAM_WORDS]):
            continue
        source = channel["DataSource"].get("S3DataSource") or {}
        mode = channel.get("InputMode") or algorithm.get("TrainingInputMode")
        if mode != "File" or source.get("S3DataDistributionType") == "ShardedByS3Key":
            yield (
                f"Channel {channel['ChannelName']!r} brings the program of ContainerEntrypoint:"
                " its InputMode must be File, and its S3DataDistributionType FullyReplicated."
            )


def _wrong_times(request: Mapping[str, Any]) -> Iterator[str]:
    stopping = request.get("StoppingCondition") or {}
    runtime = stopping.get("MaxRuntimeInSeconds", DEFAULT_RUNTIME_SECONDS)
    wait = stopping.get("MaxWaitTimeInSeconds")
    if request.get("EnableManagedSpotTraining"):
        if wait is None or wait < runtime:  # TRAIN-24, TRAIN-160
            yield (
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to"
                " MaxRuntimeInSeconds."
            )
    elif wait is not None:
        yield "MaxWaitTimeInSeconds must be given only with EnableManagedSpotTraining."


def _wrong_pool(request: Mapping[str, Any]) -> Iterator[str]:
    resources = request.get("ResourceConfig") or {}
    if not resources.get("KeepAlivePeriodInSeconds"):
        return
    for name, given in (("EnableManagedSpotTraining", request.get("EnableManagedSpotTraining")),
                        ("ResourceConfig.InstanceGroups", resources.get("InstanceGroups"))):
        if given:
            yield (
                f"{name} and ResourceConfig.KeepAlivePeriodInSeconds exclude each other: warm pools"
                " are of on-demand instances of one type."
            )


def _wrong_places(request: Mapping[str, Any]) -> Iterator[str]:
    yield from _wrong_uri("OutputDataConfig", request["OutputDataConfig"]["S3OutputPath"])
    checkpoints = request.get("CheckpointConfig")
    if checkpoints:
        yield from _wrong_uri("CheckpointConfig", checkpoints["S3Uri"])
        path = checkpoints.get("LocalPath") or DEFAULT_CHECKPOINT_PATH
        parts = path.rstrip("/").split("/")
        below = parts[3] if parts[:3] == str(ROOT).split("/") and len(parts) > 3 else None
        if below is None or below in _RESERVED or ".." in parts:
            yield (
                f"CheckpointConfig.LocalPath {path!r} must be below {ROOT}, and not in"
                f" {', '.join(_RESERVED)}."
            )
    resources = request.get("ResourceConfig") or {}
    types = [each.get("InstanceType") or ""
             for each in (resources, *(resources.get("InstanceGroups") or ()))]
    for each in types if resources.get("VolumeKmsKeyId") else ():
        if _NVME.match(each):
            yield (
                f"VolumeKmsKeyId can't be given with {each}: its instance storage is encrypted by"
                " the hardware."
            )
    for member in ("TensorBoardOutputConfig", "DebugHookConfig", "ProfilerConfig"):
        config = request.get(member) or {}
        if "S3OutputPath" in config:
            yield from _wrong_uri(member, config["S3OutputPath"])
        path = config.get("LocalPath")
        if path and (not path.startswith(f"{ROOT}/") or ".." in path.split("/")):
            yield f"{member}.LocalPath {path!r} must be below {ROOT}."


def _wrong_uri(where: str, uri: str) -> Iterator[str]:
    try:
        parse_s3_uri(uri)
    except ByoaError as error:
        yield f"{where}: {error.message}; expected {error.expected}."


def _repeated(what: str, items: list[dict[str, Any]], key: str) -> Iterator[str]:
    for name, count in Counter(item[key] for item in items).items():
        if count > 1:
            yield f"{what} names must be unique: {name!r} is given {count} times."


def _refused(request: Mapping[str, Any]) -> Iterator[str]:
    """What the service runs, and this machine does not."""
    yield from refused(request, _REFUSALS)
    if request.get("ServerlessJobConfig"):
        return
    algorithm, resources = request["AlgorithmSpecification"], request["ResourceConfig"]
    yield from refused(algorithm, _ALGORITHM_REFUSALS, "AlgorithmSpecification.")
    image_config = algorithm.get("TrainingImageConfig") or {}
    if image_config.get("TrainingRepositoryAccessMode") == "Vpc":
        yield "TrainingRepositoryAccessMode Vpc is not supported here; use Platform."
    yield from refused(resources, _RESOURCE_REFUSALS, "ResourceConfig.")
    if (request.get("RemoteDebugConfig") or {}).get("EnableRemoteDebug"):
        yield "RemoteDebugConfig.EnableRemoteDebug is not supported here; the job is a process of" \
            " this machine, which any debugger attaches to: use false."
    for channel in request.get("InputDataConfig") or []:
        yield from _refused_channel(channel)


def _refused_channel(channel: Mapping[str, Any]) -> Iterator[str]:
    where = f"Channel {channel['ChannelName']!r}: "
    yield from refused(channel["DataSource"], _SOURCE_REFUSALS, where)
    source = channel["DataSource"].get("S3DataSource")
    if not source:
        return
    yield from refused(source, _S3_REFUSALS, f"{where}S3DataSource.")
    if source["S3DataType"] == "Converse":
        yield f"{where}S3DataType Converse is not supported here; use S3Prefix."
