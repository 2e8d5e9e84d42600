"""The container of a training job: its files under /opt/ml, variables and command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from byoa.container.contract import (
    HOMOGENEOUS_GROUP,
    CheckpointConfig,
    DebugHookConfig,
    InstanceGroup,
    Layout,
    MetricDefinition,
    ProfilerConfig,
    ResourceConfig,
    TensorBoardOutputConfig,
    TrainingJobConfig,
    training_environment,
    write_hyperparameters,
)
from byoa.local.control.channels_download import input_data_config
from byoa.local.control.training_request import metric_definitions
from byoa.local.runners.base import ContainerSpec
from byoa.local.storage.state import Row

HOST = "algo-1"
COMMAND = ("train",)


def write_config(layout: Layout, row: Row) -> None:
    """The files of /opt/ml/input/config (TRAIN-40 … TRAIN-74)."""
    request = row.document["request"]
    write_hyperparameters(layout, request["HyperParameters"])
    input_data_config(request).write(layout)
    group = InstanceGroup(HOMOGENEOUS_GROUP, request["ResourceConfig"]["InstanceType"], (HOST,))
    ResourceConfig.for_host(HOST, [group]).write(layout)
    MetricDefinition.write_all(layout, metric_definitions(request))
    TrainingJobConfig(request).write(layout)
    for kind, member in (
        (DebugHookConfig, "DebugHookConfig"),
        (TensorBoardOutputConfig, "TensorBoardOutputConfig"),
        (ProfilerConfig, "ProfilerConfig"),
    ):
        if member in request:
            kind(request[member]).write(layout)
    if "CheckpointConfig" in request:
        checkpoints = request["CheckpointConfig"]
        CheckpointConfig(checkpoints["S3Uri"], checkpoints["LocalPath"]).write(layout)


def container_spec(
    row: Row, layout: Layout, log: Path, access: Mapping[str, str]
) -> ContainerSpec:
    """What to run (TRAIN-01 … TRAIN-03), and what it finds in its environment (TRAIN-80).

    `access` is how it reaches this service (TRAIN-81); an isolated container is not told.
    """
    request = row.document["request"]
    algorithm = request["AlgorithmSpecification"]
    isolated = request["EnableNetworkIsolation"]
    entrypoint, command = _command(algorithm)
    return ContainerSpec(
        name=f"training-{row.account}-{row.region}-{row.name}-{HOST}",
        image=algorithm["TrainingImage"],
        command=command,
        entrypoint=entrypoint,
        ml=layout.root,
        log=log,
        isolated=isolated,
        environment=training_environment(
            job_name=row.name,
            job_arn=row.arn,
            region=row.region,
            user=request.get("Environment"),
        )
        | ({} if isolated else dict(access)),
    )


def _command(algorithm: Mapping[str, Any]) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    entrypoint = algorithm.get("ContainerEntrypoint")
    arguments = tuple(algorithm.get("ContainerArguments") or ())
    if entrypoint:
        return tuple(entrypoint), arguments
    return None, arguments or COMMAND
