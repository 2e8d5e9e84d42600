"""SageMaker's container contract, written once: the /opt/ml tree, its files, variables and limits.

The runtime inside the container reads these definitions and the local SageMaker outside writes
them. Nobody else spells a path under /opt/ml, a config key or a platform variable. Clause IDs
(TRAIN-…, HOST-…) name the rule of SageMaker's contract that a definition carries.

    Layout                 where everything is, under /opt/ml or SAGEMAKER_BASE_DIR
    hyperparameters        hyperparameters.json, every value a string
    InputDataConfig        inputdataconfig.json, one ChannelConfig a channel
    ResourceConfig         resourceconfig.json, hosts and InstanceGroups
    MetricDefinition       metric-definition-regex.json
    CheckpointConfig       checkpointconfig.json and the other optional documents
    training_environment   the variables of a training container
    failure_reason         exit code and failure file → FailureReason

Readers are tolerant: unknown keys are passed over, and every file except the first three may be
absent (TRAIN-64, TRAIN-75). Standard library only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from byoa.container.errors import ContractError

ROOT = PurePosixPath("/opt/ml")
BASE_DIR_VARIABLE = "SAGEMAKER_BASE_DIR"

# Exit and output rules (TRAIN-141, TRAIN-144).
FAILURE_LIMIT_CHARACTERS = 1024
EXIT_SUCCESS = 0
EXIT_FAILURE = 1
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
EXIT_SIGKILL = 137
EXIT_SIGTERM = 143
MODEL_ARTIFACT = "model.tar.gz"
OUTPUT_ARTIFACT = "output.tar.gz"

# Stopping (TRAIN-150, HOST-03).
TRAINING_STOP_GRACE_SECONDS = 120.0
HOSTING_STOP_GRACE_SECONDS = 30.0

# Hosting (HOST-10, HOST-20, HOST-22, HOST-31, HOST-32, PIPE-03, ERR-01).
DEFAULT_PORT = 8080
PORT_VARIABLE = "SAGEMAKER_BIND_TO_PORT"
PING_PATH = "/ping"
INVOCATIONS_PATH = "/invocations"
EXECUTION_PARAMETERS_PATH = "/execution-parameters"
PING_TIMEOUT_SECONDS = 2.0
PING_INTERVAL_SECONDS = 5.0
STARTUP_WINDOW_SECONDS = 480.0
INVOCATION_TIMEOUT_SECONDS = 60.0
PAYLOAD_LIMIT_BYTES = 6_291_456
ORIGINAL_MESSAGE_LIMIT_CHARACTERS = 2048

# Request headers that the runtime passes on to the container and answer headers that it takes
# back (HOST-34). Names are case-insensitive (HOST-35).
REQUEST_HEADERS = (
    "Content-Type",
    "Accept",
    "X-Amzn-SageMaker-Custom-Attributes",
    "X-Amzn-SageMaker-Target-Model",
    "X-Amzn-SageMaker-Target-Variant",
    "X-Amzn-SageMaker-Target-Container-Hostname",
    "X-Amzn-SageMaker-Inference-Id",
    "X-Amzn-SageMaker-Enable-Explanations",
    "X-Amzn-SageMaker-Inference-Component",
    "X-Amzn-SageMaker-Session-Id",
    "X-Amzn-SageMaker-Prefix-Aware-Id",
)
RESPONSE_HEADERS = (
    "Content-Type",
    "X-Amzn-SageMaker-Custom-Attributes",
    "X-Amzn-SageMaker-New-Session-Id",
    "X-Amzn-SageMaker-Closed-Session-Id",
)

# Training (TRAIN-30, TRAIN-45, TRAIN-61, TRAIN-63, TRAIN-74, TRAIN-83).
PROGRAM_HYPERPARAMETER = "sagemaker_program"
PROGRAM_VARIABLE = "SAGEMAKER_PROGRAM"
ALGORITHM_VARIABLE = "BYOA_ALGORITHM"
HOMOGENEOUS_GROUP = "homogeneousCluster"
NETWORK_INTERFACE = "eth0"
DEFAULT_CHECKPOINT_PATH = "/opt/ml/checkpoints"
CHECKPOINT_IGNORED_SUFFIXES = (
    ".sagemaker-ignore",
    ".sagemaker-uploading",
    ".sagemaker-uploaded",
)
INPUT_MODES = ("File", "FastFile", "Pipe")
DISTRIBUTION_TYPES = ("FullyReplicated", "ShardedByS3Key")
RECORD_WRAPPERS = ("None", "RecordIO")


@dataclass(frozen=True)
class Layout:
    """The /opt/ml tree (TRAIN-30), at /opt/ml or below `SAGEMAKER_BASE_DIR`."""

    root: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Layout:
        return cls(Path(environ.get(BASE_DIR_VARIABLE) or str(ROOT)))

    @property
    def input(self) -> Path:
        return self.root / "input"

    @property
    def config(self) -> Path:
        return self.input / "config"

    @property
    def data(self) -> Path:
        return self.input / "data"

    @property
    def code(self) -> Path:
        return self.root / "code"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def output_data(self) -> Path:
        return self.output / "data"

    @property
    def failure(self) -> Path:
        return self.output / "failure"

    @property
    def metrics(self) -> Path:
        return self.output / "metrics" / "sagemaker"

    def channel(self, name: str) -> Path:
        """The directory of a File or FastFile channel (TRAIN-90)."""
        return self.data / name

    def fifo(self, channel: str, epoch: int) -> Path:
        """The FIFO of a Pipe channel's epoch, from 0 (TRAIN-94)."""
        return self.data / f"{channel}_{epoch}"

    def inside(self, path: str) -> Path:
        """Where an absolute path of the contract is in this layout: /opt/ml/x → root/x."""
        pure = PurePosixPath(path)
        if pure == ROOT or ROOT in pure.parents:
            return self.root / pure.relative_to(ROOT)
        return Path(path)

    def create(self) -> None:
        """Make the directories that exist before a training container starts (TRAIN-30, TRAIN-32).

        `output/intermediate` is left out: it would promise a sync to S3 (TRAIN-33).
        """
        for directory in (self.config, self.data, self.code, self.model, self.output_data,
                          self.metrics, self.root / "errors"):
            directory.mkdir(parents=True, exist_ok=True)


def dump(document: Any) -> str:
    """Compact JSON as the service writes it: no spaces, no trailing newline (TRAIN-51)."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def _load(path: Path, *, required: bool) -> Any:
    """The document in `path`; None where an optional one is absent."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if not required:
            return None
        raise ContractError(
            "CONFIG_MISSING",
            f"{path} does not exist",
            expected="the platform writes it before the container starts",
            remedy="mount the input at /opt/ml, or set SAGEMAKER_BASE_DIR to the directory that"
            " holds input/config",
        ) from None
    try:
        return json.loads(text)
    except ValueError as error:
        raise ContractError(
            "CONFIG_INVALID", f"{path} is not JSON: {error}", expected="one JSON document"
        ) from None


def _object(path: Path, *, required: bool) -> dict[str, Any]:
    document = _load(path, required=required)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ContractError(
            "CONFIG_INVALID",
            f"{path} holds a {type(document).__name__}",
            expected="a JSON object",
        )
    return document


def _write(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dump(document), encoding="utf-8")


# --- hyperparameters.json (TRAIN-40 … TRAIN-43) ---------------------------------------------------


def write_hyperparameters(layout: Layout, values: Mapping[str, str]) -> None:
    """One flat object of strings, exactly as the request gave them (TRAIN-40)."""
    _write(layout.config / "hyperparameters.json", dict(values))


def read_hyperparameters(layout: Layout) -> dict[str, str]:
    """The raw strings. A value that is no string (a hand-written file) is taken as its JSON."""
    document = _object(layout.config / "hyperparameters.json", required=False)
    return {k: v if isinstance(v, str) else dump(v) for k, v in document.items()}


def decode_hyperparameter(value: str) -> Any:
    """JSON where the string is JSON, else the string itself (TRAIN-43)."""
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
        _write(layout.config / "inputdataconfig.json", self.to_json())

    @classmethod
    def read(cls, layout: Layout) -> InputDataConfig:
        document = _object(layout.config / "inputdataconfig.json", required=False)
        return cls({name: ChannelConfig.from_json(entry or {}) for name, entry in document.items()})


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
            name=document.get("instance_group_name", HOMOGENEOUS_GROUP),
            instance_type=document.get("instance_type", "local"),
            hosts=tuple(document.get("hosts", ())),
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
        _write(layout.config / "resourceconfig.json", self.to_json())

    @classmethod
    def read(cls, layout: Layout) -> ResourceConfig:
        document = _object(layout.config / "resourceconfig.json", required=False)
        host = document.get("current_host") or "algo-1"
        hosts = tuple(document.get("hosts") or (host,))
        if host not in hosts:
            raise ContractError(
                "CONFIG_INVALID",
                f"resourceconfig.json: current_host {host!r} is not in hosts {list(hosts)}",
                expected="current_host is one of hosts",
            )
        return cls(
            current_host=host,
            hosts=hosts,
            current_instance_type=document.get("current_instance_type") or "local",
            current_group_name=document.get("current_group_name") or HOMOGENEOUS_GROUP,
            instance_groups=tuple(
                InstanceGroup.from_json(group) for group in document.get("instance_groups") or ()
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
        _write(
            layout.config / "metric-definition-regex.json",
            [{"Name": each.name, "Regex": each.regex} for each in definitions],
        )

    @staticmethod
    def read_all(layout: Layout) -> list[MetricDefinition]:
        document = _load(layout.config / "metric-definition-regex.json", required=False)
        return [MetricDefinition(each["Name"], each["Regex"]) for each in document or ()]


_Document = TypeVar("_Document", bound="_OptionalDocument")


class _OptionalDocument:
    """A config file that exists only when the request set it; its keys are the request's."""

    file: str
    defaults: Mapping[str, Any] = {}

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values: dict[str, Any] = {**self.defaults, **values}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.values == other.values  # type: ignore[attr-defined]

    __hash__ = None  # type: ignore[assignment]

    def write(self, layout: Layout) -> None:
        _write(layout.config / self.file, self.values)

    @classmethod
    def read(cls: type[_Document], layout: Layout) -> _Document | None:
        document = _load(layout.config / cls.file, required=False)
        return None if document is None else cls(document)


class DebugHookConfig(_OptionalDocument):
    file = "debughookconfig.json"
    defaults = {"LocalPath": "/opt/ml/output/tensors"}


class TensorBoardOutputConfig(_OptionalDocument):
    file = "tensorboardoutputconfig.json"
    defaults = {"LocalPath": "/opt/ml/output/tensorboard"}


class ProfilerConfig(_OptionalDocument):
    file = "profilerconfig.json"


class TrainingJobConfig(_OptionalDocument):
    """The request itself. Seen on the service; its content there is unverified (TRAIN-30)."""

    file = "trainingjobconfig.json"


@dataclass(frozen=True)
class CheckpointConfig:
    """Where checkpoints live in the container and in S3 (TRAIN-74, TRAIN-170)."""

    s3_uri: str
    local_path: str = DEFAULT_CHECKPOINT_PATH

    def write(self, layout: Layout) -> None:
        _write(
            layout.config / "checkpointconfig.json",
            {"S3Uri": self.s3_uri, "LocalPath": self.local_path},
        )

    @classmethod
    def read(cls, layout: Layout) -> CheckpointConfig | None:
        document = _load(layout.config / "checkpointconfig.json", required=False)
        if document is None:
            return None
        return cls(
            s3_uri=document.get("S3Uri", ""),
            local_path=document.get("LocalPath") or DEFAULT_CHECKPOINT_PATH,
        )


# --- environment (TRAIN-80 … TRAIN-84, HOST-08) ---------------------------------------------------


def training_environment(
    *, job_name: str, job_arn: str, region: str, user: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The variables of a training container. Platform names win over the user's (TRAIN-83)."""
    return {
        **(user or {}),
        "TRAINING_JOB_NAME": job_name,
        "TRAINING_JOB_ARN": job_arn,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "SAGEMAKER_METRICS_DIRECTORY": str(ROOT / "output" / "metrics" / "sagemaker"),
        "PYTHONUNBUFFERED": "1",
    }


def hosting_environment(*, region: str, user: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of a serving container (HOST-05, HOST-08)."""
    return {
        **(user or {}),
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "PYTHONUNBUFFERED": "1",
    }


# --- output (TRAIN-130 … TRAIN-144) ---------------------------------------------------------------


def artifact_uri(s3_output_path: str, job_name: str, artifact: str = MODEL_ARTIFACT) -> str:
    """`<S3OutputPath>/<job>/output/<artifact>`; a trailing slash is not doubled (TRAIN-130)."""
    return f"{s3_output_path.rstrip('/')}/{job_name}/output/{artifact}"


def read_failure(layout: Layout) -> str | None:
    """The failure file's first 1,024 characters, None where there is none (TRAIN-141)."""
    try:
        with layout.failure.open("r", encoding="utf-8", errors="replace") as file:
            return file.read(FAILURE_LIMIT_CHARACTERS)
    except (FileNotFoundError, IsADirectoryError):
        return None


def write_failure(layout: Layout, text: str) -> None:
    """Write the failure file, cut to what the service shows (TRAIN-141)."""
    layout.output.mkdir(parents=True, exist_ok=True)
    layout.failure.write_text(text[:FAILURE_LIMIT_CHARACTERS], encoding="utf-8")


def failure_reason(exit_code: int, failure: str | None, *, out_of_memory: bool = False) -> str:
    """FailureReason of a container that ended non-zero, in the service's words (TRAIN-142).

    Longer than 1,024 characters, the failure text is cut so that the exit code stays readable.
    """
    if out_of_memory and not failure:
        return (
            "ClientError: Please use an instance type with more memory, or reduce the size of job"
            " data processed on an instance."
        )
    head, tail = "AlgorithmError: ", f", exit code: {exit_code % 256}"
    room = FAILURE_LIMIT_CHARACTERS - len(head) - len(tail)
    return f"{head}{(failure or '')[:room]}{tail}"
