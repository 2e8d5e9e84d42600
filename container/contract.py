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
    ProcessingJobConfig    processingjobconfig.json; ProcessingHosts, and the message of the end
    training_environment   the variables of a training container
    failure_reason         exit code and failure file → FailureReason

This module is the one to import; the tree and the files are defined in `contract_layout`,
`contract_config` and `contract_processing`, and `contract_tables` renders all of it as
documentation. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping

from byoa.container.contract_config import (
    CHECKPOINT_FILE,
    DEFAULT_CHECKPOINT_PATH,
    DISTRIBUTION_TYPES,
    HOMOGENEOUS_GROUP,
    HYPERPARAMETERS_FILE,
    INPUT_DATA_FILE,
    INPUT_MODES,
    METRICS_FILE,
    NETWORK_INTERFACE,
    RECORD_WRAPPERS,
    RESOURCE_FILE,
    ChannelConfig,
    CheckpointConfig,
    DebugHookConfig,
    InputDataConfig,
    InstanceGroup,
    MetricDefinition,
    ProfilerConfig,
    ResourceConfig,
    TensorBoardOutputConfig,
    TrainingJobConfig,
    decode_hyperparameter,
    read_hyperparameters,
    write_hyperparameters,
)
from byoa.container.contract_layout import BASE_DIR_VARIABLE, ROOT, Layout, dump
from byoa.container.contract_processing import (
    MESSAGE_LIMIT_BYTES,
    PROCESSING_CODE_PATH,
    PROCESSING_FILE,
    ProcessingHosts,
    ProcessingJobConfig,
    ProcessingPlace,
    read_message,
    write_message,
)
from byoa.container.errors import FAILURE_LIMIT_CHARACTERS

__all__ = [
    "ADAPTERS_PATH",
    "ADAPTER_ALIAS_HEADER",
    "ADAPTER_HEADER",
    "ALGORITHM_VARIABLE",
    "BASE_DIR_VARIABLE",
    "BIDIRECTIONAL_PATH",
    "BIDIRECTIONAL_SECONDS",
    "BIND_VARIABLE",
    "CHECKPOINT_FILE",
    "CHECKPOINT_IGNORED_SUFFIXES",
    "CHECKPOINT_INDEX",
    "DEFAULT_CHECKPOINT_PATH",
    "DEFAULT_PORT",
    "DISTRIBUTION_TYPES",
    "EXECUTION_PARAMETERS_PATH",
    "EXIT_FAILURE",
    "EXIT_NOT_EXECUTABLE",
    "EXIT_NOT_FOUND",
    "EXIT_SIGKILL",
    "EXIT_SIGTERM",
    "EXIT_SUCCESS",
    "FAILURE_LIMIT_CHARACTERS",
    "FRAMEWORK_VARIABLE",
    "HOMOGENEOUS_GROUP",
    "HOSTING_STOP_GRACE_SECONDS",
    "HOSTING_USER_AGENT",
    "HYPERPARAMETERS_FILE",
    "INPUT_DATA_FILE",
    "INPUT_MODES",
    "INVOCATIONS_PATH",
    "INVOCATION_TIMEOUT_SECONDS",
    "MESSAGE_LIMIT_BYTES",
    "METRICS_FILE",
    "METRICS_PATH",
    "MODELS_PATH",
    "MODEL_ARTIFACT",
    "MODEL_MANIFEST",
    "MULTI_MODEL_VARIABLES",
    "NETWORK_INTERFACE",
    "ORIGINAL_MESSAGE_LIMIT_CHARACTERS",
    "OUTPUT_ARTIFACT",
    "OUT_OF_MEMORY_REASON",
    "PAYLOAD_LIMIT_BYTES",
    "PING_INTERVAL_SECONDS",
    "PING_PATH",
    "PING_TIMEOUT_SECONDS",
    "PORT_VARIABLE",
    "PROCESSING_CODE_PATH",
    "PROCESSING_FILE",
    "PROGRAM_HYPERPARAMETER",
    "PROGRAM_VARIABLE",
    "RECORD_WRAPPERS",
    "REQUEST_HEADERS",
    "RESERVED_HYPERPARAMETER_PREFIX",
    "RESOURCE_FILE",
    "RESPONSE_HEADERS",
    "ROOT",
    "STARTUP_WINDOW_SECONDS",
    "TRAINING_STOP_GRACE_SECONDS",
    "TUNING_HYPERPARAMETER",
    "ChannelConfig",
    "CheckpointConfig",
    "DebugHookConfig",
    "InputDataConfig",
    "InstanceGroup",
    "Layout",
    "MetricDefinition",
    "ProcessingHosts",
    "ProcessingJobConfig",
    "ProcessingPlace",
    "ProfilerConfig",
    "ResourceConfig",
    "TensorBoardOutputConfig",
    "TrainingJobConfig",
    "artifact_uri",
    "decode_hyperparameter",
    "download_failure_reason",
    "dump",
    "failure_reason",
    "hosting_environment",
    "read_failure",
    "read_hyperparameters",
    "read_message",
    "training_environment",
    "write_failure",
    "write_hyperparameters",
    "write_message",
]

# Exit and output rules (TRAIN-141, TRAIN-144).
EXIT_SUCCESS = 0
EXIT_FAILURE = 1
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
EXIT_SIGKILL = 137
EXIT_SIGTERM = 143
MODEL_ARTIFACT = "model.tar.gz"
MODEL_MANIFEST = "byoa.json"  # byoa's own, at the archive's root: which algorithm made the model
OUTPUT_ARTIFACT = "output.tar.gz"

# Stopping (TRAIN-150, HOST-03).
TRAINING_STOP_GRACE_SECONDS = 120.0
HOSTING_STOP_GRACE_SECONDS = 30.0

# Hosting (HOST-10, HOST-20, HOST-22, HOST-31, HOST-32, PIPE-03, ERR-01).
DEFAULT_PORT = 8080
HOSTING_USER_AGENT = "AHC/2.0"  # of the platform, as access logs have it (HOST-12)
PORT_VARIABLE = "SAGEMAKER_BIND_TO_PORT"
BIND_VARIABLE = "BYOA_BIND_ADDRESS"  # byoa's own: the address of that port
# The second is what other servers read (MME-01, CONTRA-20).
MULTI_MODEL_VARIABLES = ("SAGEMAKER_MULTI_MODEL", "SAGEMAKER_MULTI_MODE")
PING_PATH = "/ping"
INVOCATIONS_PATH = "/invocations"
# A WebSocket (BIDI-01); it lasts half an hour at most (BIDI-06).
BIDIRECTIONAL_PATH = "/invocations-bidirectional-stream"
BIDIRECTIONAL_SECONDS = 1800.0
EXECUTION_PARAMETERS_PATH = "/execution-parameters"
# LoRA adapters of an inference script (SESS-04); headers in lower case.
ADAPTERS_PATH = "/adapters"
ADAPTER_HEADER = "x-amzn-sagemaker-adapter-identifier"
ADAPTER_ALIAS_HEADER = "x-amzn-sagemaker-adapter-alias"
MODELS_PATH = "/models"  # of a multi-model server (MME-03)
METRICS_PATH = "/metrics"  # in Prometheus's text format, where it is scraped (CWM-05)
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

# Training (TRAIN-45, TRAIN-84, TRAIN-173).
PROGRAM_HYPERPARAMETER = "sagemaker_program"
PROGRAM_VARIABLE = "SAGEMAKER_PROGRAM"
FRAMEWORK_VARIABLE = "SAGEMAKER_TRAINING_MODULE"
RESERVED_HYPERPARAMETER_PREFIX = "sagemaker_"
TUNING_HYPERPARAMETER = "_tuning_objective_metric"
ALGORITHM_VARIABLE = "BYOA_ALGORITHM"
CHECKPOINT_IGNORED_SUFFIXES = (
    ".sagemaker-ignore",
    ".sagemaker-uploading",
    ".sagemaker-uploaded",
)
# In a directory of run.checkpoints that is whole: it came into its place by one rename.
CHECKPOINT_INDEX = "checkpoint.json"
OUT_OF_MEMORY_REASON = (
    "ClientError: Please use an instance type with more memory, or reduce the size of job data"
    " processed on an instance."
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


def hosting_environment(
    *, region: str, user: Mapping[str, str] | None = None, multi_model: bool = False
) -> dict[str, str]:
    """The variables of a serving container (HOST-05, HOST-08, MME-01)."""
    many = dict.fromkeys(MULTI_MODEL_VARIABLES, "true") if multi_model else {}
    return {
        **(user or {}),
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "PYTHONUNBUFFERED": "1",
        **many,
    }


# --- output (TRAIN-130 … TRAIN-144) ---------------------------------------------------------------


def artifact_uri(s3_output_path: str, job_name: str, artifact: str = MODEL_ARTIFACT) -> str:
    """`<S3OutputPath>/<job>/output/<artifact>`; a trailing slash is not doubled (TRAIN-130)."""
    return f"{s3_output_path.rstrip('/')}/{job_name}/output/{artifact}"


def read_failure(layout: Layout) -> str | None:
    """The failure file's first 1,024 characters, None where there is no such file (TRAIN-141)."""
    # A FIFO would block the reader for ever, and a link be followed on another machine's files.
    if layout.failure.is_symlink() or not layout.failure.is_file():
        return None
    with layout.failure.open("r", encoding="utf-8", errors="replace") as file:
        return file.read(FAILURE_LIMIT_CHARACTERS)


def write_failure(layout: Layout, text: str) -> None:
    """Write the failure file, cut to what the service shows (TRAIN-141)."""
    layout.output.mkdir(parents=True, exist_ok=True)
    layout.failure.write_text(
        text[:FAILURE_LIMIT_CHARACTERS], encoding="utf-8", errors="replace"
    )


def failure_reason(exit_code: int, failure: str | None, *, out_of_memory: bool = False) -> str:
    """FailureReason of a container that ended non-zero, in the service's words (TRAIN-142).

    A long failure text is cut so that the whole is at most 1,024 characters and the exit code,
    shown modulo 256 (TRAIN-144), stays readable.
    """
    if out_of_memory and not failure:
        return OUT_OF_MEMORY_REASON
    head, tail = "AlgorithmError: ", f", exit code: {exit_code % 256}"
    room = FAILURE_LIMIT_CHARACTERS - len(head) - len(tail)
    return f"{head}{(failure or '')[:room]}{tail}"


def download_failure_reason(cause: str) -> str:
    """FailureReason of a job whose input could not be brought to the container (TRAIN-92)."""
    return f"ClientError: Data download failed:{cause}"[:FAILURE_LIMIT_CHARACTERS]
