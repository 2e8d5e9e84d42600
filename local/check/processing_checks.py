"""Checks of an image as a processing job runs it, with the command that the user gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from byoa.container.contract import ROOT, Layout, dump
from byoa.local.check import training_runs as runs
from byoa.local.check.checks import NotApplicable, Verdict, check, failed, passed
from byoa.local.check.training_causes import Told, start_fault, verdict, why
from byoa.local.check.tree import INSTANCE_TYPE, copy, remove, settle
from byoa.local.check.trial import REGION, Trial

INPUTS = PurePosixPath("/opt/ml/processing/input")
OUTPUT = PurePosixPath("/opt/ml/processing/output")
MESSAGE_LIMIT_BYTES = 1024
_JOB = "byoa-check"
_ROLE = "arn:aws:iam::123456789012:role/byoa-check"
_STORE = "s3://byoa-check"


def _job(trial: Trial) -> dict[str, Any]:
    """processingjobconfig.json (PROC-04, FIX-19): an input a channel, one output."""
    inputs = [
        {"InputName": name, "AppManaged": False, "S3Input": {
            "LocalPath": str(INPUTS / name), "S3Uri": f"{_STORE}/{name}",
            "S3DataDistributionType": "FullyReplicated", "S3DataType": "S3Prefix",
            "S3InputMode": "File", "S3CompressionType": "None", "S3DownloadMode": "StartOfJob",
        }} for name in trial.samples.channels
    ]
    return {
        "ProcessingJobArn": f"arn:aws:sagemaker:{REGION}:123456789012:processing-job/{_JOB}",
        "ProcessingJobName": _JOB,
        "AppSpecification": {
            "ImageUri": trial.image, "ContainerEntrypoint": list(trial.samples.process_command),
            "ContainerArguments": None,
        },
        "Environment": dict(trial.samples.environment),
        "ProcessingInputs": inputs,
        "ProcessingOutputConfig": {
            "Outputs": [{"OutputName": "output", "AppManaged": False, "S3Output": {
                "LocalPath": str(OUTPUT), "S3Uri": f"{_STORE}/output",
                "S3UploadMode": "EndOfJob",
            }}],
            "KmsKeyId": None,
        },
        "ProcessingResources": {"ClusterConfig": {
            "InstanceCount": 1, "InstanceType": INSTANCE_TYPE, "VolumeSizeInGB": 30,
            "VolumeKmsKeyId": None,
        }},
        "RoleArn": _ROLE,
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    }


def _tree(trial: Trial) -> Layout:
    """What a processing container finds: no /opt/ml/input, its configuration in /opt/ml/config."""
    layout = Layout(trial.new_folder())
    config = layout.root / "config"
    config.mkdir()
    (config / "processingjobconfig.json").write_text(dump(_job(trial)), encoding="utf-8")
    hosts = {"current_host": "algo-1", "hosts": ["algo-1"]}
    (config / "resourceconfig.json").write_text(json.dumps(hosts), encoding="utf-8")
    for name, source in trial.samples.channels.items():
        copy(source, layout.inside(str(INPUTS / name)))
    layout.inside(str(OUTPUT)).mkdir(parents=True)
    layout.output.mkdir()
    settle(layout.root)
    return layout


def _run(
    trial: Trial, key: str, prepare: Callable[[Layout], object] = lambda layout: None
) -> runs.TrainingRun:
    command = trial.samples.process_command
    if not command:
        raise NotApplicable("how the image processes is not known; use --process-command")

    def make() -> runs.TrainingRun:
        limit = trial.limits.training_seconds
        if key != runs.PLAIN:
            limit = runs.limit_after(trial, _plain(trial))
        layout = _tree(trial)
        prepare(layout)
        region = {"AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}
        # ContainerEntrypoint replaces ENTRYPOINT and drops CMD (PROC-01).
        box = trial.box(
            command[1:], ml=layout.root, environment=region, entrypoint=command[:1],
            host="algo-1", shm_bytes=runs.shared_memory(trial),
        )
        return runs.watch(box, limit)

    return trial.memo(f"processing-run:{key}", make)


def _plain(trial: Trial) -> runs.TrainingRun:
    return _run(trial, runs.PLAIN)


def _output(run: runs.TrainingRun) -> Path:
    return run.layout.inside(str(OUTPUT))


@check(
    "process-exits-zero",
    clause="CHK-18, PROC-01, PROC-03, PROC-13, TRAP-44",
    group="processing",
    title="Processing the samples ends with exit code 0",
    cure="read the log's end below; inputs are in /opt/ml/processing/input/<channel>, the"
    " configuration is in /opt/ml/config",
)
def process_exits_zero(trial: Trial) -> Verdict:
    run = _plain(trial)
    if run.succeeded:
        return passed(f"{run.seconds:.1f} s")
    fault = start_fault(run, trial.facts)
    if fault is None and f"{ROOT}/input/" in run.log:
        fault = Told(
            f"it looks for {ROOT}/input, which training jobs have alone:"
            f" {why(run, trial.facts).cause}",
            "read /opt/ml/config/processingjobconfig.json and the inputs' LocalPath",
        )
    return verdict(run, fault or why(run, trial.facts))


@check(
    "process-outputs-left",
    clause="PROC-07, PROC-09, TRAP-43",
    group="processing",
    title="Processing leaves files in its output's LocalPath",
    cure=f"write to the LocalPath of the job's output ({OUTPUT} here) before the program ends",
    needs=("process-exits-zero",),
)
def process_outputs_left(trial: Trial) -> Verdict:
    run = _plain(trial)
    files = runs.left_in(_output(run))
    if files:
        return passed(", ".join(map(str, files[:5])))
    found = [
        f"{ROOT / path}" for path in runs.left_in(run.layout.root)
        if path.parts[0] != "config" and path.parts[:2] != ("processing", "input")
        and str(path) != "output/message"
    ]
    hint = f"; it wrote {', '.join(found[:5])}" if found else ""
    return failed(f"{OUTPUT} is empty{hint}: nothing would be uploaded", evidence=run.tail())


@check(
    "process-outputs-real",
    clause="CHK-18, PROC-10, TRAP-43",
    group="processing",
    title="Processing leaves real files: links are not uploaded",
    cure="copy what a link points to (shutil.copy, cp -L) into the output",
    needs=("process-outputs-left",),
)
def process_outputs_real(trial: Trial) -> Verdict:
    directory = _output(_plain(trial))
    for path in sorted(directory.rglob("*")):
        inner = OUTPUT / path.relative_to(directory)
        if path.is_symlink():
            return failed(f"{inner} is a symbolic link to {path.readlink()}: it is not uploaded")
        if not path.is_dir() and not path.is_file():
            return failed(f"{inner} is neither a file nor a folder: it is not uploaded")
    return passed()


@check(
    "process-fails",
    clause="CHK-18, PROC-13",
    group="processing",
    title="Processing whose inputs are missing ends with another exit code than 0",
    cure="end with exit code 1 when an input cannot be read; in a shell script `set -e`",
    needs=("process-exits-zero",),
)
def process_fails(trial: Trial) -> Verdict:
    if not trial.samples.channels:
        raise NotApplicable("no channel was given that could be missing; use --channel")
    run = _without_inputs(trial)
    if run.exit is None:
        return failed(f"without its inputs it still ran after {run.limit:g} s",
                      evidence=run.tail())
    if run.exit.code == 0:
        return failed("none of its inputs was there, and it ended with exit code 0",
                      evidence=run.tail())
    return passed(f"exit code {run.exit.code}")


def _without_inputs(trial: Trial) -> runs.TrainingRun:
    return _run(
        trial, "no-inputs", lambda layout: remove(layout.inside(str(INPUTS)))
    )


@check(
    "process-message",
    clause="CHK-18, PROC-12, TRAP-45",
    group="processing",
    title="/opt/ml/output/message, where it is written, is UTF-8 and at most 1 KB",
    cure="write at most 1,024 bytes of UTF-8; cut the text, not the bytes, so that no character is"
    " halved",
    needs=("process-exits-zero",),
)
def process_message(trial: Trial) -> Verdict:
    written = [run.layout.output / "message" for run in _both(trial)]
    raws = [path.read_bytes() for path in written if path.is_file()]
    for raw in raws:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            return failed(
                f"/opt/ml/output/message is not UTF-8 (byte {error.start} is"
                f" 0x{raw[error.start]:02x}): the job fails for it", evidence=repr(raw[:200]),
            )
        if len(raw) > MESSAGE_LIMIT_BYTES:
            return failed(
                f"/opt/ml/output/message has {len(raw):,} bytes: ExitMessage shows the first"
                f" {MESSAGE_LIMIT_BYTES:,}", evidence=text[:200],
            )
    return passed(raws[0].decode("utf-8") if raws else "it writes none")


def _both(trial: Trial) -> list[runs.TrainingRun]:
    """The run that succeeds and, where there are inputs, the one that lacks them."""
    ran = [_plain(trial)]
    if trial.samples.channels:
        ran.append(_without_inputs(trial))
    return ran
