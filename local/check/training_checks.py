"""Checks of a training run's beginning and end: it starts, succeeds, and fails as it should."""

from __future__ import annotations

from byoa.container.contract import (
    EXIT_NOT_EXECUTABLE,
    EXIT_NOT_FOUND,
    FAILURE_LIMIT_CHARACTERS,
    INPUT_DATA_FILE,
    Layout,
)
from byoa.local.check import training_runs as runs
from byoa.local.check.checks import NotApplicable, Verdict, check, failed, passed, skipped
from byoa.local.check.training_causes import (
    Told,
    exceptions_in,
    is_foreign,
    start_fault,
    verdict,
    why,
)
from byoa.local.check.tree import remove
from byoa.local.check.trial import Trial

_GPU_VARIABLES = ("CUDA_VERSION", "NVIDIA_REQUIRE_CUDA", "NV_CUDA_CUDART_VERSION")
SIGNALLED, LAST_SIGNAL = 128, 31  # exit code 128 + a signal; 255 is sys.exit(-1)
_GPU_WORDS = ("cuda", "gpu", "nvidia")
_SAID_CHARACTERS = 30  # of an exception's text, enough to find it again


@check(
    "train-starts",
    clause="TRAIN-01, TRAP-01, TRAP-02, TRAP-04",
    group="training",
    title="`docker run IMAGE train` starts a program",
    cure="an exec-form ENTRYPOINT of a program that is in the image, executable and for this"
    " architecture; try `docker run --rm IMAGE train`",
    needs=("train-or-serve-found", "programs-executable", "programs-have-unix-lines",
           "interpreters-exist"),
)
def train_starts(trial: Trial) -> Verdict:
    run = runs.plain(trial)
    fault = start_fault(run, trial.facts)
    if fault is not None and is_foreign(trial.facts):
        return skipped(fault.cause)  # image-linux-amd64 tells of it
    return passed() if fault is None else verdict(run, fault)


@check(
    "train-without-gpu",
    clause="CHK-17, HW-03",
    group="training",
    level="warning",
    title="A CUDA image trains without a GPU, or says that it needs one",
    cure="fall back to the CPU when there is no device, or end with a message that names the GPU",
    needs=("train-starts",),
)
def train_without_gpu(trial: Trial) -> Verdict:
    if not (_is_for_gpus(trial) or _has_cuda(trial)):
        return skipped("the image has no CUDA")
    run = runs.plain(trial)
    if run.succeeded:
        return passed("it trained without a GPU")
    told = why(run, trial.facts)
    if _names_gpu(run, told):
        return passed(f"it needs a GPU and says so: {told.cause}")
    if not trial.samples.channels and run.exit is not None:
        return _without_channel(told)
    if not _is_for_gpus(trial):
        return skipped("it does not train, and train-exits-zero says why")
    return failed(
        f"without a GPU it does not train and does not say that it needs one: {told.cause}",
        evidence=run.tail(),
    )


def _is_for_gpus(trial: Trial) -> bool:
    """Whether it is built on NVIDIA's images, or as those are: to train without a GPU is not what
    it is for."""
    return trial.facts is not None and any(
        name in trial.facts.environment for name in _GPU_VARIABLES
    )


def _has_cuda(trial: Trial) -> bool:
    """As any image with torch's ordinary build for Linux."""
    return trial.facts is not None and trial.facts.cuda_runtime is not None


def _names_gpu(run: runs.TrainingRun, told: Told) -> bool:
    # Not the whole log: a warning that there is no GPU explains no failure that came later.
    said = f"{told.cause}\n{_failure_text(run.layout)}".lower()
    return run.exit is not None and any(word in said for word in _GPU_WORDS)


def _without_channel(told: Told) -> Verdict:
    return skipped(f"no channel was given, and without one: {told.cause}; use --channel")


@check(
    "train-exits-zero",
    clause="CHK-01, TRAIN-30, TRAIN-140",
    group="training",
    title="Training on the samples ends with exit code 0",
    cure="read the log's end below; the service shows the job as Failed",
    needs=("train-starts",),
)
def train_exits_zero(trial: Trial) -> Verdict:
    run = runs.plain(trial)
    if run.succeeded:
        return passed(f"{run.seconds:.1f} s")
    told = why(run, trial.facts)
    if not trial.samples.channels and run.exit is not None:
        return _without_channel(told)
    if _is_for_gpus(trial) or (_has_cuda(trial) and _names_gpu(run, told)):
        return skipped("it does not train on this machine, which lends it no GPU")
    return verdict(run, told)


@check(
    "no-failure-file-on-success",
    clause="TRAIN-141",
    group="training",
    level="warning",
    title="A run that succeeds leaves no /opt/ml/output/failure",
    cure="write the failure file only where the run ends with another exit code than 0",
    needs=("train-exits-zero",),
)
def no_failure_file_on_success(trial: Trial) -> Verdict:
    layout = runs.plain(trial).layout
    if not layout.failure.exists():
        return passed()
    return failed(
        "it ended with exit code 0 and left /opt/ml/output/failure: the service takes the job as"
        " Completed and nobody reads it",
        evidence=_failure_text(layout),
    )


# --- what happens when the data is not there ------------------------------------------------------


def bad_data(trial: Trial) -> runs.TrainingRun:
    """A run whose channels are listed in the configuration and are not on the disk (CHK-02)."""
    if not trial.samples.channels:
        raise NotApplicable("no channel was given that could be missing; use --channel")

    def take_away(layout: Layout) -> None:
        runs.without_manifests(layout)
        for name in runs.read_config(layout, INPUT_DATA_FILE):
            remove(layout.channel(name))

    return runs.run(trial, "bad-data", take_away)


@check(
    "missing-data-fails",
    clause="CHK-02, TRAIN-140",
    group="training",
    title="Training whose channels cannot be read ends with another exit code than 0",
    cure="end with exit code 1 when a channel cannot be read; after `except`, raise again or"
    " sys.exit(1); in a shell script `set -e` or `exec`",
    needs=("train-exits-zero",),
)
def missing_data_fails(trial: Trial) -> Verdict:
    run = bad_data(trial)
    if run.exit is None:
        return failed(
            f"without its channels it still ran after {run.limit:g} s: the job would go on, and be"
            " billed, until MaxRuntimeInSeconds", evidence=run.tail(),
        )
    if run.exit.code != 0:
        return passed(f"exit code {run.exit.code}")
    raised = exceptions_in(run.log)
    detail = f": the log says {raised[-1]!r}, and nobody passed it on" if raised else ""
    return failed(
        "none of its channels was there, and it ended with exit code 0 as if it had trained"
        f"{detail}", evidence=run.tail(),
    )


@check(
    "failure-exit-code",
    clause="TRAIN-144",
    group="training",
    level="warning",
    title="A failure's exit code is not the one of a killed program, or of one that did not start",
    cure="sys.exit(1); 126 and 127 mean a program that did not start, 129 to 159 one that a signal"
    " killed",
    needs=("missing-data-fails",),
)
def failure_exit_code(trial: Trial) -> Verdict:
    run = bad_data(trial)
    code = 1 if run.exit is None else run.exit.code
    meaning = _meaning(code)
    if not meaning:
        return passed(f"exit code {code}")
    return failed(
        f"an ordinary failure ends with exit code {code}, which means {meaning}; who reads"
        " FailureReason looks in the wrong place", evidence=run.tail(),
    )


def _meaning(code: int) -> str:
    """What a shell takes the exit code for; "" where it is just a program's own."""
    if code == EXIT_NOT_EXECUTABLE:
        return "that the program may not be executed"
    if code == EXIT_NOT_FOUND:
        return "that it was not found"
    number = code - SIGNALLED
    return f"that signal {number} killed it" if 1 <= number <= LAST_SIGNAL else ""


@check(
    "failure-file",
    clause="CHK-02, TRAIN-141, TRAP-23",
    group="training",
    title="A failure leaves its description in /opt/ml/output/failure",
    cure="catch every exception at the top and write its text to /opt/ml/output/failure before the"
    " exit",
    needs=("missing-data-fails",),
)
def failure_file(trial: Trial) -> Verdict:
    run = bad_data(trial)
    path = run.layout.failure
    code = "" if run.exit is None else run.exit.code
    reason = f"FailureReason would read `AlgorithmError: , exit code: {code}`"
    if path.is_symlink() or (path.exists() and not path.is_file()):
        return failed("/opt/ml/output/failure is no regular file", evidence=run.tail())
    if not path.exists():
        elsewhere = [each for each in runs.left_in(run.layout.output) if "fail" in each.name]
        hint = f"; it wrote /opt/ml/output/{elsewhere[0]} instead" if elsewhere else ""
        return failed(f"there is no /opt/ml/output/failure{hint}: {reason}", evidence=run.tail())
    if not path.read_bytes().strip():
        return failed(f"/opt/ml/output/failure is empty: {reason}", evidence=run.tail())
    return passed(_failure_text(run.layout).splitlines()[0][:200])


@check(
    "failure-file-text",
    clause="CHK-02, TRAIN-141, TRAP-23",
    group="training",
    title="The failure file is UTF-8 and names the cause in its first 1,024 characters",
    cure="write the exception's own line first and the traceback after it, in UTF-8",
    needs=("failure-file",),
)
def failure_file_text(trial: Trial) -> Verdict:
    run = bad_data(trial)
    raw = run.layout.failure.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return failed(
            f"/opt/ml/output/failure is not UTF-8: byte {error.start} is 0x{raw[error.start]:02x}",
            evidence=repr(raw[:200]),
        )
    shown = text[:FAILURE_LIMIT_CHARACTERS]
    causes = exceptions_in(run.log) or exceptions_in(text)
    if not causes or any(_key(cause) in _bare(shown) for cause in causes):
        return passed(shown.strip().splitlines()[0][:200])
    cause = causes[-1]
    if _key(cause) in _bare(text):
        return failed(
            f"the cause, {cause[:120]!r}, is at the end of a failure file of {len(text):,}"
            f" characters, and the service shows the first {FAILURE_LIMIT_CHARACTERS:,}",
            evidence=shown[-300:],
        )
    return failed(
        f"the failure file does not name the cause: the log says {cause[:160]!r}",
        evidence=shown[:300],
    )


def _key(cause: str) -> str:
    """The words after the exception's class, as many as are enough to find them again."""
    return _bare(cause.partition(": ")[2] or cause)[:_SAID_CHARACTERS]


def _bare(text: str) -> str:
    """Without what a report may put differently: quotes, escapes and white space."""
    return "".join(each for each in text if each not in "\\'\"`" and not each.isspace())


def _failure_text(layout: Layout) -> str:
    if not layout.failure.is_file():
        return ""
    return layout.failure.read_bytes().decode("utf-8", "replace").strip()
