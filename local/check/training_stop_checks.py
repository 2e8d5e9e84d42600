"""Checks of stopping: SIGTERM to the first process, a model saved, an end within the grace."""

from __future__ import annotations

from pathlib import PurePosixPath

from byoa.local.check.box import Process
from byoa.local.check.checks import Verdict, check, failed, passed
from byoa.local.check.training_stop import stopped
from byoa.local.check.trial import Trial

_SHELLS = ("sh", "bash", "dash", "ash", "zsh", "busybox")
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
    first = " ".join(stop.first.argv)
    if _is_shell(stop.first) and stop.children:
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

