"""The containers of a training job, one a host: files under /opt/ml, variables, command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from byoa.container.contract import (
    CheckpointConfig,
    DebugHookConfig,
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
from byoa.local.control.instance_groups import groups_of, hosts_of, instance_type_of
from byoa.local.control.instance_limits import limits_of
from byoa.local.control.training_request import metric_definitions
from byoa.local.runners.base import ContainerSpec, Network
from byoa.local.storage.state import Row

COMMAND = ("train",)


def network_of(row: Row) -> Network:
    """What the hosts of a job share; names are unique within an account and region (TRAIN-20)."""
    request = row.document["request"]
    return Network(
        name=f"training-{row.account}-{row.region}-{row.name}",
        hosts=hosts_of(request),
        isolated=request["EnableNetworkIsolation"],
    )


def container_name(row: Row, host: str) -> str:
    return f"{network_of(row).name}-{host}"


def write_config(layout: Layout, row: Row, host: str, interface: str) -> None:
    """The files of /opt/ml/input/config of one host (TRAIN-40 … TRAIN-74).

    `interface` is the one by which the hosts reach one another (TRAIN-63).
    """
    request = row.document["request"]
    write_hyperparameters(layout, request["HyperParameters"])
    input_data_config(request).write(layout)
    resources = ResourceConfig.for_host(host, groups_of(request))
    replace(resources, network_interface_name=interface).write(layout)
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
    row: Row, host: str, layout: Layout, log: Path, access: Mapping[str, str]
) -> ContainerSpec:
    """What to run (TRAIN-01 … TRAIN-03), and what it finds in its environment (TRAIN-80).

    `access` is how it reaches this service (TRAIN-81); an isolated container is not told.
    """
    request = row.document["request"]
    algorithm = request["AlgorithmSpecification"]
    isolated = request["EnableNetworkIsolation"]
    entrypoint, command = _command(algorithm)
    return ContainerSpec(
        name=container_name(row, host),
        image=algorithm["TrainingImage"],
        command=command,
        entrypoint=entrypoint,
        ml=layout.root,
        log=log,
        isolated=isolated,
        host=host,
        network=network_of(row),
        limits=limits_of(instance_type_of(request, host)),
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
