"""The files in /opt/ml/input/config: each can be written as the service does, and be read.

Part of `byoa.container.contract`, which is where to import it from. Readers are tolerant: unknown
keys are passed over, missing ones have defaults, and every file but the first three may be absent
(TRAIN-64, TRAIN-75).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from byoa.container.contract_layout import Layout, dump, entry, read_json, write_json
from byoa.container.errors import ContractError

HYPERPARAMETERS_FILE = "hyperparameters.json"
INPUT_DATA_FILE = "inputdataconfig.json"
RESOURCE_FILE = "resourceconfig.json"
METRICS_FILE = "metric-definition-regex.json"
CHECKPOINT_FILE = "checkpointconfig.json"

HOMOGENEOUS_GROUP = "homogeneousCluster"
NETWORK_INTERFACE = "eth0"
DEFAULT_CHECKPOINT_PATH = "/opt/ml/checkpoints"
INPUT_MODES = ("File", "FastFile", "Pipe")
DISTRIBUTION_TYPES = ("FullyReplicated", "ShardedByS3Key")
RECORD_WRAPPERS = ("None", "RecordIO")

# --- hyperparameters.json (TRAIN-40 … TRAIN-43) ---------------------------------------------------


def write_hyperparameters(layout: Layout, values: Mapping[str, str]) -> None:
    """One flat object of strings, exactly as the request gave them (TRAIN-40)."""
    write_json(layout.config / HYPERPARAMETERS_FILE, dict(values))


def read_hyperparameters(layout: Layout) -> dict[str, str]:
    """The raw strings. A value that is no string (a hand-written file) is taken as its JSON."""
    document = read_json(layout.config / HYPERPARAMETERS_FILE, dict, minimal="{}")
    return {k: v if isinstance(v, str) else dump(v) for k, v in document.items()}


def decode_hyperparameter(value: str) -> Any:
    """JSON where the string is JSON, else the string itself (TRAIN-43, TRAP-12)."""
    try:
        return json.loads(value)
    except ValueError:
        return value


# --- inputdataconfig.json (TRAIN-50 … TRAIN-54) ---------------------------------------------------


@dataclass(frozen=True)
class ChannelConfig:
    """One channel as the container sees it."""

    input_mode: str = "File"
    distribution: str = "FullyReplicated"
    record_wrapper: str = "None"
    content_type: str | None = None

    def to_json(self) -> dict[str, Any]:
        document = {} if self.content_type is None else {"ContentType": self.content_type}
        return document | {
            "TrainingInputMode": self.input_mode,
            "S3DistributionType": self.distribution,
            "RecordWrapperType": self.record_wrapper,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ChannelConfig:
        return cls(
            input_mode=document.get("TrainingInputMode") or "File",
            distribution=document.get("S3DistributionType") or "FullyReplicated",
            record_wrapper=document.get("RecordWrapperType") or "None",
            content_type=document.get("ContentType"),
        )


@dataclass(frozen=True)
class InputDataConfig:
    """The channels of a job by name, in the request's order."""

    channels: dict[str, ChannelConfig] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {name: channel.to_json() for name, channel in self.channels.items()}

    def write(self, layout: Layout) -> None:
        write_json(layout.config / INPUT_DATA_FILE, self.to_json())

    @classmethod
    def read(cls, layout: Layout) -> InputDataConfig:
        path = layout.config / INPUT_DATA_FILE
        document = read_json(path, dict, minimal='{"train":{"TrainingInputMode":"File"}}')
        return cls(
            {
                name: ChannelConfig.from_json(entry(path, name, value, dict))
                for name, value in document.items()
            }
        )


# --- resourceconfig.json (TRAIN-60 … TRAIN-66) ----------------------------------------------------


@dataclass(frozen=True)
class InstanceGroup:
    name: str
    instance_type: str
    hosts: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "instance_group_name": self.name,
            "instance_type": self.instance_type,
            "hosts": list(self.hosts),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> InstanceGroup:
        return cls(
            name=document.get("instance_group_name") or HOMOGENEOUS_GROUP,
            instance_type=document.get("instance_type") or "local",
            hosts=tuple(document.get("hosts") or ()),
        )


@dataclass(frozen=True)
class ResourceConfig:
    """The hosts of a job, as one of them sees it. Rank is the index in `hosts` (TRAIN-62)."""

    current_host: str = "algo-1"
    hosts: tuple[str, ...] = ("algo-1",)
    current_instance_type: str = "local"
    current_group_name: str = HOMOGENEOUS_GROUP
    instance_groups: tuple[InstanceGroup, ...] = ()
    network_interface_name: str = NETWORK_INTERFACE
    topology: Any = None

    @classmethod
    def for_host(cls, host: str, groups: Iterable[InstanceGroup]) -> ResourceConfig:
        """What `host` reads when the job has these groups; hosts in dictionary order (TRAIN-62)."""
        groups = tuple(groups)
        own = next(group for group in groups if host in group.hosts)
        return cls(
            current_host=host,
            hosts=tuple(sorted(name for group in groups for name in group.hosts)),
            current_instance_type=own.instance_type,
            current_group_name=own.name,
            instance_groups=groups,
        )

    @property
    def rank(self) -> int:
        return self.hosts.index(self.current_host)

    def to_json(self) -> dict[str, Any]:
        return {
            "current_host": self.current_host,
            "current_instance_type": self.current_instance_type,
            "current_group_name": self.current_group_name,
            "hosts": list(self.hosts),
            "instance_groups": [group.to_json() for group in self.instance_groups],
            "network_interface_name": self.network_interface_name,
            "topology": self.topology,
        }

    def write(self, layout: Layout) -> None:
        write_json(layout.config / RESOURCE_FILE, self.to_json())

    @classmethod
    def read(cls, layout: Layout) -> ResourceConfig:
        path = layout.config / RESOURCE_FILE
        document = read_json(path, dict, minimal='{"current_host":"algo-1","hosts":["algo-1"]}')
        host = entry(path, "current_host", document.get("current_host"), str) or "algo-1"
        hosts = tuple(entry(path, "hosts", document.get("hosts"), list)) or (host,)
        if host not in hosts:
            raise ContractError(
                "CONFIG_INVALID",
                f"{RESOURCE_FILE}: current_host {host!r} is not in hosts {list(hosts)}",
                expected="current_host is one of hosts",
            )
        groups = entry(path, "instance_groups", document.get("instance_groups"), list)
        return cls(
            current_host=host,
            hosts=hosts,
            current_instance_type=document.get("current_instance_type") or "local",
            current_group_name=document.get("current_group_name") or HOMOGENEOUS_GROUP,
            instance_groups=tuple(
                InstanceGroup.from_json(entry(path, "instance_groups", group, dict))
                for group in groups
            ),
            network_interface_name=document.get("network_interface_name") or NETWORK_INTERFACE,
            topology=document.get("topology"),
        )


# --- the other config files (TRAIN-70 … TRAIN-75) -------------------------------------------------


@dataclass(frozen=True)
class MetricDefinition:
    """A metric and the expression whose first group captures its value (TRAIN-70, TRAIN-190)."""

    name: str
    regex: str

    @staticmethod
    def write_all(layout: Layout, definitions: Iterable[MetricDefinition]) -> None:
        write_json(
            layout.config / METRICS_FILE,
            [{"Name": each.name, "Regex": each.regex} for each in definitions],
        )

    @staticmethod
    def read_all(layout: Layout) -> list[MetricDefinition]:
        """Entries without a name or an expression are passed over: their shape is unverified."""
        document = read_json(layout.config / METRICS_FILE, list, minimal=None)
        return [
            MetricDefinition(each["Name"], each["Regex"])
            for each in document or ()
            if isinstance(each, dict) and "Name" in each and "Regex" in each
        ]


_Document = TypeVar("_Document", bound="_OptionalDocument")


@dataclass
class _OptionalDocument:
    """A config file that exists only when the request set it; its keys are the request's."""

    values: dict[str, Any]
    file: ClassVar[str]
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        self.values = {**self.defaults, **self.values}

    def write(self, layout: Layout) -> None:
        write_json(layout.config / self.file, self.values)

    @classmethod
    def read(cls: type[_Document], layout: Layout) -> _Document | None:
        document = read_json(layout.config / cls.file, dict, minimal=None)
        return None if document is None else cls(document)


class DebugHookConfig(_OptionalDocument):
    """TRAIN-71"""

    file = "debughookconfig.json"
    defaults = {"LocalPath": "/opt/ml/output/tensors"}


class TensorBoardOutputConfig(_OptionalDocument):
    """TRAIN-72"""

    file = "tensorboardoutputconfig.json"
    defaults = {"LocalPath": "/opt/ml/output/tensorboard"}


class ProfilerConfig(_OptionalDocument):
    """TRAIN-73"""

    file = "profilerconfig.json"
    local_path: ClassVar[str] = "/opt/ml/output/profiler"  # the request names none


class TrainingJobConfig(_OptionalDocument):
    """The request itself. Seen on the service; its content there is unverified (TRAIN-30)."""

    file = "trainingjobconfig.json"


@dataclass(frozen=True)
class CheckpointConfig:
    """Where checkpoints live in the container and in S3 (TRAIN-74, TRAIN-170)."""

    s3_uri: str
    local_path: str = DEFAULT_CHECKPOINT_PATH

    def write(self, layout: Layout) -> None:
        write_json(
            layout.config / CHECKPOINT_FILE, {"S3Uri": self.s3_uri, "LocalPath": self.local_path}
        )

    @classmethod
    def read(cls, layout: Layout) -> CheckpointConfig | None:
        document = read_json(layout.config / CHECKPOINT_FILE, dict, minimal=None)
        if document is None:
            return None
        return cls(
            s3_uri=document.get("S3Uri") or "",
            local_path=document.get("LocalPath") or DEFAULT_CHECKPOINT_PATH,
        )
