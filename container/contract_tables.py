"""The contract as tables: every file and variable, who writes it, and the clause that says so.

`python -m byoa.container contract` prints them as Markdown; a test holds them against the code.
"""

from __future__ import annotations

from dataclasses import dataclass

from byoa.container import contract
from byoa.container.contract_config import (
    CHECKPOINT_FILE,
    HYPERPARAMETERS_FILE,
    INPUT_DATA_FILE,
    METRICS_FILE,
    RESOURCE_FILE,
)


@dataclass(frozen=True)
class Place:
    """A file or directory below /opt/ml. `writer` is the platform or the container."""

    path: str
    writer: str
    when: str
    meaning: str
    clauses: str


@dataclass(frozen=True)
class Variable:
    name: str
    where: str  # train, serve or both
    setter: str
    meaning: str
    clauses: str


CONFIG = "input/config/"

PLACES = (
    Place(CONFIG + HYPERPARAMETERS_FILE, "platform", "always",
          "one flat object, every value a string; `{}` when there are none", "TRAIN-40 … 45"),
    Place(CONFIG + INPUT_DATA_FILE, "platform", "always",
          "an object by channel: ContentType (when given), TrainingInputMode, S3DistributionType,"
          " RecordWrapperType", "TRAIN-50 … 54"),
    Place(CONFIG + RESOURCE_FILE, "platform", "always",
          "current_host, current_instance_type, current_group_name, hosts (sorted as text; rank is"
          " the index), instance_groups, network_interface_name, topology", "TRAIN-60 … 66"),
    Place(CONFIG + METRICS_FILE, "platform", "always",
          "an array of Name and Regex; `[]` when there are none", "TRAIN-70"),
    Place(CONFIG + contract.TrainingJobConfig.file, "platform", "on the service",
          "the request; its exact content is unverified, nothing may depend on it", "TRAIN-30"),
    Place(CONFIG + contract.DebugHookConfig.file, "platform", "with DebugHookConfig",
          "S3OutputPath, LocalPath, HookParameters, CollectionConfigurations", "TRAIN-71"),
    Place(CONFIG + contract.TensorBoardOutputConfig.file, "platform",
          "with TensorBoardOutputConfig", "LocalPath, S3OutputPath", "TRAIN-72"),
    Place(CONFIG + contract.ProfilerConfig.file, "platform", "with ProfilerConfig",
          "S3OutputPath, ProfilingIntervalInMilliseconds, ProfilingParameters, DisableProfiler",
          "TRAIN-73"),
    Place(CONFIG + CHECKPOINT_FILE, "platform", "with CheckpointConfig", "S3Uri, LocalPath",
          "TRAIN-74"),
    Place("input/data/<channel>/", "platform", "File and FastFile channels",
          "the channel's objects below its prefix", "TRAIN-90, TRAIN-93"),
    Place("input/data/<channel>_<epoch>", "platform", "Pipe channels",
          "a FIFO an epoch, from 0", "TRAIN-94 … 96"),
    Place("input/data/<channel>-manifest", "platform", "on the service",
          "not data: channels are listed from the config file, never from this directory",
          "TRAIN-31"),
    Place("code/", "container", "script mode", "the user's source", "TRAIN-30, TK-03"),
    Place("model/", "container", "always", "becomes model.tar.gz, members without a leading"
          " directory", "TRAIN-130 … 136"),
    Place("checkpoints/", "both", "with CheckpointConfig",
          "restored from S3 before the start, copied to S3 while files change", "TRAIN-170 … 174"),
    Place("errors/", "platform", "on the service", "seen, purpose unverified", "TRAIN-30"),
    Place("output/data/", "container", "always", "becomes output.tar.gz", "TRAIN-131"),
    Place("output/failure", "container", "on failure",
          f"UTF-8; its first {contract.FAILURE_LIMIT_CHARACTERS} characters are shown",
          "TRAIN-141, TRAIN-142"),
    Place("output/success", "container", "script mode", "empty, where the script ended with 0",
          "TK-09"),
    Place("output/intermediate/", "container", "script mode with sagemaker_s3_output",
          "copied to S3 while the script runs, unless the platform has made it", "TK-13, TRAIN-33"),
    Place("output/metrics/sagemaker/", "container", "always",
          "metrics as JSON lines (byoa writes metrics.jsonl)", "TRAIN-82"),
    Place("config/" + contract.PROCESSING_FILE, "platform", "processing jobs",
          "the request; beside `input/`, not in it as for training", "PROC-03, PROC-04"),
    Place("config/" + RESOURCE_FILE, "platform", "processing jobs",
          "current_host, hosts", "PROC-05"),
    Place("processing/", "both", "processing jobs",
          "the directories that the job's inputs and outputs name; files are uploaded, symbolic"
          " links are not", "PROC-07 … 10"),
    Place("output/message", "container", "processing jobs",
          f"UTF-8; its first {contract.MESSAGE_LIMIT_BYTES} bytes are the ExitMessage",
          "PROC-12"),
)

VARIABLES = (
    Variable("TRAINING_JOB_NAME", "train", "platform", "the job's name", "TRAIN-80"),
    Variable("TRAINING_JOB_ARN", "train", "platform", "the job's ARN", "TRAIN-80"),
    Variable("AWS_REGION", "both", "platform", "the Region", "TRAIN-80, HOST-08"),
    Variable("AWS_DEFAULT_REGION", "both", "platform", "the same, for older clients", "HOST-08"),
    Variable("SAGEMAKER_METRICS_DIRECTORY", "train", "platform",
             "where built-in algorithms write metrics", "TRAIN-82"),
    Variable("PYTHONUNBUFFERED", "both", "platform", "1: a line is seen when it is printed",
             "TRAIN-196"),
    Variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "both", "platform",
             "where clients fetch the role's credentials", "TRAIN-81"),
    Variable(contract.PORT_VARIABLE, "serve", "platform", "the port to listen on, else"
             f" {contract.DEFAULT_PORT}", "PIPE-03"),
    Variable(contract.ALGORITHM_VARIABLE, "both", "author",
             "which algorithm: a registered name or module:Class", "byoa"),
    Variable(contract.PROGRAM_VARIABLE, "both", "author",
             "script mode's entry point, where the hyperparameter sagemaker_program is absent",
             "TK-02"),
    Variable("SAGEMAKER_SUBMIT_DIRECTORY", "train", "author",
             "where the script's code is, where the hyperparameter sagemaker_submit_directory is"
             " absent", "TK-02"),
    Variable(contract.FRAMEWORK_VARIABLE, "train", "author",
             "module:function of a framework, run in place of the script", "TK-01"),
    Variable("CA_REPOSITORY_ARN", "train", "author",
             "the CodeArtifact repository that requirements.txt is installed from", "TK-12"),
    Variable("S3_ENDPOINT_URL", "train", "author",
             "where S3 is, for a script's code and intermediate output", "TK-08"),
    Variable("SM_STUDIO_LOCAL_MODE", "train", "author",
             "true: do not wait until the names of all hosts resolve", "TK-08"),
    Variable("SM_…", "train", "container",
             "the training toolkit's variables, for a script alone", "TK-06, TK-07"),
    Variable(contract.BASE_DIR_VARIABLE, "both", "author", "another directory as /opt/ml",
             "TK-02"),
)


def markdown() -> str:
    """Both tables as a Markdown document."""
    lines = ["# The container contract", "", f"## Below {contract.ROOT}", ""]
    lines += _table(
        ("path", "written by", "when", "what", "clause"),
        [(f"`{p.path}`", p.writer, p.when, p.meaning, p.clauses) for p in PLACES],
    )
    lines += ["", "## Variables", ""]
    lines += _table(
        ("variable", "container", "set by", "what", "clause"),
        [(f"`{v.name}`", v.where, v.setter, v.meaning, v.clauses) for v in VARIABLES],
    )
    return "\n".join(lines) + "\n"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]
