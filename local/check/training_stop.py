"""The run that SIGTERM is sent to: long enough to be stopped at work, and seen at that moment."""

from __future__ import annotations

import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from byoa.container.contract import Layout, decode_hyperparameter, write_hyperparameters
from byoa.local.check import training_runs as runs
from byoa.local.check.box import Box, Process
from byoa.local.check.checks import NotApplicable
from byoa.local.check.trial import Trial

# Counts of work by the names that algorithms give them: with a thousand times as much of it a run
# on small samples lasts long enough to be stopped.
_LENGTHS = ("epoch", "round", "iter", "step", "estimator", "boost")
_STRETCH = 1000
_STEP = re.compile(r"epoch|step|iter|round|batch|\[\d+\]", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?\d[\d.,]*(e[-+]?\d+)?", re.IGNORECASE)
# For the first line of a log, beside some times what the plain run took for all of it.
_BEGIN_SECONDS = 15.0
_SLOWER = 3.0
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
    first: Process
    children: tuple[Process, ...]
    catches: bool | None  # whether the first process handles SIGTERM; None where unknown
    ignores: bool | None
    silent: float | None  # seconds for which it had printed nothing; None where it had


def stopped(trial: Trial) -> Stop:
    """The stopped run, made once; raises NotApplicable where every run ends before the signal."""
    return trial.memo("stopped-run", lambda: _stop(trial))


def _stop(trial: Trial) -> Stop:
    given = dict(trial.samples.hyperparameters)
    for values in (stretched(given), given):
        if values is None:
            continue
        stop = _attempt(trial, values)
        if stop is not None:
            return stop
    raise NotApplicable(_TOO_SHORT)


def stretched(values: dict[str, str]) -> dict[str, str] | None:
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
    plain = runs.plain(trial).seconds
    begun = time.monotonic()
    box = runs.start(trial, layout.root)
    speaks = _speaks(box, _BEGIN_SECONDS + _SLOWER * plain)
    silent = None if speaks else time.monotonic() - begun
    # A program may print before its handler is there, but not for longer than it trains.
    running = _handles(box, min(_SETTLE_SECONDS, plain / 2))
    processes = box.processes() if running else []
    if not processes:  # it has ended, though the engine may not say so yet
        box.remove()
        return None
    catches, ignores = _dispositions(processes[0].pid)
    box.terminate()
    sent = time.monotonic()
    grace = trial.limits.training_stop_seconds
    ended = box.wait(grace)
    seconds = time.monotonic() - sent
    run = runs.record(box, ended, sent - begun, grace, [])
    return Stop(run, seconds, processes[0], tuple(processes[1:]), catches, ignores, silent)


def _speaks(box: Box, timeout: float) -> bool:
    """Whether the program prints something within `timeout` seconds, or before it ends."""
    until = time.monotonic() + timeout
    while not box.log.strip():
        if box.wait(runs.LOOK_SECONDS) is not None or time.monotonic() > until:
            return bool(box.log.strip())
    return True


def progress(log: str) -> list[str]:
    """Lines that tell of one step after another: alike but for their numbers."""
    alike: dict[str, list[str]] = {}
    for line in log.splitlines():
        if _STEP.search(line):
            alike.setdefault(_NUMBER.sub("#", line), []).append(line)
    return max(alike.values(), key=len, default=[])


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
