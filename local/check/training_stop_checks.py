"""Checks of stopping: SIGTERM to the first process, a model saved, an end within the grace."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from byoa.container.contract import Layout, decode_hyperparameter, write_hyperparameters
from byoa.local.check import training_runs as runs
from byoa.local.check.box import Box, Process
from byoa.local.check.checks import NotApplicable, Verdict, check, failed, passed
from byoa.local.check.trial import Trial

_SHELLS = ("sh", "bash", "dash", "ash", "zsh", "busybox")
# Counts of work by the names that algorithms give them: with a thousand times as much of it a run
# on small samples lasts long enough to be stopped.
_LENGTHS = ("epoch", "round", "iter", "step", "estimator", "boost")
_STRETCH = 1000
_BEGIN_SECONDS = 5.0  # for the first sign of work, or a few times the plain run
_SETTLE_SECONDS = 10.0  # at most, from that sign to a handler of SIGTERM
_TOO_SHORT = (
    "could not be told: the run was over before SIGTERM came; give hyperparameters that train"
    " longer"
)


@dataclass(frozen=True)
class Stop:
    """A run that SIGTERM was sent to, and what was seen at that moment."""

    run: runs.TrainingRun
    seconds: float  # from the signal to the end
    first: Process | None
    children: tuple[Process, ...]
    catches: bool | None  # whether the first process handles SIGTERM; None where unknown
    ignores: bool | None


def stopped(trial: Trial) -> Stop:
    """The stopped run, made once; raises NotApplicable where every run ends before the signal."""
    return trial.memo("stopped-run", lambda: _stop(trial))


def _stop(trial: Trial) -> Stop:
    given = dict(trial.samples.hyperparameters)
    for values in (_stretched(given), given):
        if values is None:
            continue
        stop = _attempt(trial, values)
        if stop is not None:
            return stop
    raise NotApplicable(_TOO_SHORT)


def _stretched(values: dict[str, str]) -> dict[str, str] | None:
    """The hyperparameters with counts of work multiplied; None where there is none."""
    changed = dict(values)
    for name, value in values.items():
        number = decode_hyperparameter(value)
        named = any(word in name.lower() for word in _LENGTHS)
        if named and isinstance(number, int) and not isinstance(number, bool) and number > 0:
            changed[name] = str(number * _STRETCH)
    return changed if changed != values else None


def _attempt(trial: Trial, hyperparameters: dict[str, str]) -> Stop | None:
    """Stop a run as soon as it shows work; None where it was over before."""
    layout = Layout(trial.new_ml())
    runs.without_manifests(layout)
    write_hyperparameters(layout, hyperparameters)
    box = runs.start(trial, layout.root)
    begun = time.monotonic()
    # A program may print before its handler is there, but not for longer than it trains.
    plain = runs.plain(trial).seconds
    settle = min(_SETTLE_SECONDS, plain / 2)
    if not _works(box, layout, max(_BEGIN_SECONDS, 2 * plain)) or not _handles(box, settle):
        box.remove()
        return None
    processes = box.processes()
    first = processes[0] if processes else None
    catches, ignores = (None, None) if first is None else _dispositions(first.pid)
    box.terminate()
    sent = time.monotonic()
    grace = trial.limits.training_stop_seconds
    ended = box.wait(grace)
    seconds = time.monotonic() - sent
    run = runs.record(box, ended, sent - begun, grace, [])
    return Stop(run, seconds, first, tuple(processes[1:]), catches, ignores)


def _works(box: Box, layout: Layout, timeout: float) -> bool:
    """Wait until the program prints or writes something; False when it ended before."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if box.log.strip() or runs.left_in(layout.output) or runs.left_in(layout.model):
            return box.wait(0.0) is None
        if box.wait(runs.LOOK_SECONDS) is not None:
            return False
    return True  # it is silent, and runs


def _handles(box: Box, timeout: float) -> bool:
    """Wait until the first process catches SIGTERM, `timeout` seconds; False when the box ends."""
    until = time.monotonic() + timeout
    processes = box.processes()
    while time.monotonic() < until:
        if box.wait(runs.LOOK_SECONDS) is not None:
            return False
        if processes and _dispositions(processes[0].pid)[0]:
            break
    return box.wait(0.0) is None


def _dispositions(pid: int) -> tuple[bool | None, bool | None]:
    """Whether a process of this machine catches, and whether it ignores, SIGTERM."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None, None
    masks = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    bit = 1 << (signal.SIGTERM - 1)
    return bool(int(masks["SigCgt"], 16) & bit), bool(int(masks["SigIgn"], 16) & bit)


@check(
    "stop-in-time",
    clause="CHK-03, TRAIN-05, TRAIN-150, TRAP-05",
    group="training",
    title="Training ends after SIGTERM within the grace of 120 s",
    cure="handle SIGTERM in the first process: signal.signal(signal.SIGTERM, handler), save the"
    " model and end",
    needs=("train-exits-zero", "entrypoint-exec-form"),
)
def stop_in_time(trial: Trial) -> Verdict:
    stop = stopped(trial)
    if stop.run.exit is not None:
        return passed(f"exit code {stop.run.exit.code} after {stop.seconds:.1f} s")
    limit = f"{stop.run.limit:g} s after SIGTERM it still ran and was killed"
    first = " ".join(stop.first.argv) if stop.first else ""
    if stop.first is not None and _is_shell(stop.first) and stop.children:
        child = " ".join(stop.children[0].argv)
        return failed(
            f"{limit}: the first process is the shell `{first}`, which does not pass signals on to"
            f" `{child}`",
            cure='use the exec form, ENTRYPOINT ["python", "/opt/program/train.py"], and end a'
            ' wrapper script with exec: exec python train.py "$@"', evidence=stop.run.tail(),
        )
    if stop.ignores:
        return failed(f"{limit}: `{first}` ignores SIGTERM", evidence=stop.run.tail())
    if stop.catches is False:
        return failed(
            f"{limit}: `{first}` has no handler for SIGTERM, and the kernel does not apply the"
            " default action to a container's first process", evidence=stop.run.tail(),
        )
    if stop.catches and stop.children:
        return failed(
            f"{limit}: `{first}` catches SIGTERM and waits for"
            f" `{' '.join(stop.children[0].argv)}`, to which it does not pass it on, or goes on"
            " training", evidence=stop.run.tail(),
        )
    if stop.catches:
        return failed(f"{limit}: `{first}` catches SIGTERM and goes on", evidence=stop.run.tail())
    return failed(limit, evidence=stop.run.tail())


def _is_shell(process: Process) -> bool:
    return bool(process.argv) and PurePosixPath(process.argv[0]).name.lstrip("-") in _SHELLS


@check(
    "stop-saves-model",
    clause="CHK-03, TRAIN-137, TRAIN-151",
    group="training",
    title="Training that is stopped has saved a model",
    cure="in the handler of SIGTERM only set a flag; look at it in the training loop, save to"
    " /opt/ml/model and return; or save the model after every epoch",
    needs=("stop-in-time", "model-left"),
)
def stop_saves_model(trial: Trial) -> Verdict:
    stop = stopped(trial)
    files = stop.run.model_files()
    code = "" if stop.run.exit is None else stop.run.exit.code
    if files:
        return passed(", ".join(map(str, files[:5])))
    return failed(
        f"it ended {stop.seconds:.1f} s after SIGTERM with exit code {code} and /opt/ml/model is"
        " empty: the stopped job has no model", evidence=stop.run.tail(),
    )

