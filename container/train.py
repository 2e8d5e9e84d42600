"""`python -m byoa.container train`: from SageMaker's files to a trained model.

Only the standard library is imported on the way to the author's first line. The exit code is 0, or
1 with /opt/ml/output/failure written; SIGTERM sets `run.stopping` and nothing else (TRAIN-150), and
so does a first SIGINT; a second one interrupts.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import resource
import signal
import stat
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from byoa.container import account, contract, heap, preflight, warm
from byoa.container.contract import Layout
from byoa.container.errors import (
    AlgorithmError,
    ByoaError,
    PeerError,
    UnsupportedError,
    failure_report,
)
from byoa.container.hardware import Hardware, measure, size
from byoa.container.line_ends import LineEnds
from byoa.container.manifest import MANIFEST, Manifest, write_manifest
from byoa.container.run import Run

REGISTRY = "byoa.algorithms.registry"  # the one plug point from the container to the algorithms
EXIT_INTERRUPTED = 130
# A host that ends because another one did waits for the platform to stop it, so that the job's
# reason is the other one's (TRAIN-140, TRAIN-145); on its own it ends after so long (DIST-11).
PEER_ENDED_SECONDS = 30.0


class Stop:
    """Set by SIGTERM and SIGINT. Another SIGTERM changes nothing; a SIGINT that finds it set raises
    KeyboardInterrupt: who presses Ctrl-C again does not want to wait for the model."""

    def __init__(self) -> None:
        self.requested = False
        self.hint = "run.stopping is set; save and return"

    def install(self) -> None:
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        interrupt = number == signal.SIGINT
        if not self.requested:
            self.requested = True
            again = "; another SIGINT interrupts" if interrupt else ""
            text = f"{signal.Signals(number).name}: {self.hint}{again}\n"
            # Not print: the signal may come in while the same buffer is being written.
            os.write(sys.__stdout__.fileno() if sys.__stdout__ else 1, text.encode())
        elif interrupt:
            raise KeyboardInterrupt


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Train what the environment asks for; the exit code."""
    stop = Stop()
    stop.install()
    lines = LineEnds()
    for stream in (sys.stdout, sys.stderr):  # a line is seen when it is printed (TRAIN-196)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
            lines.watch(stream)
    faulthandler.enable()
    if environ.get(warm.WARM_VARIABLE) and not warm.wait(
        REGISTRY, environ.get(contract.ALGORITHM_VARIABLE)
    ):
        return contract.EXIT_SUCCESS  # the pool is no more
    layout = Layout.from_environment(environ)
    account.settle()
    try:
        account.make_writable(layout.output)
        layout.failure.unlink(missing_ok=True)  # of an earlier run by hand in the same tree
        return _train(layout, environ, stop, lines)
    except BaseException as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # one more must not cut the report short
        code = _fail(layout, error, lines)
        if isinstance(error, PeerError):
            _wait_for_stop(stop)
        return code


def _train(layout: Layout, environ: Mapping[str, str], stop: Stop, lines: LineEnds) -> int:
    started = time.monotonic()
    for directory in (layout.model, layout.output_data, layout.metrics):  # some are not there by
        account.make_writable(directory)  # hand, and some are not ours with --user (TRAIN-08)
    raw = contract.read_hyperparameters(layout)
    name = environ.get(contract.ALGORITHM_VARIABLE)
    framework = environ.get(contract.FRAMEWORK_VARIABLE)  # TK-01
    program = framework or raw.get(contract.PROGRAM_HYPERPARAMETER) or environ.get(
        contract.PROGRAM_VARIABLE
    )
    if name and program:
        raise AlgorithmError(
            "ALGORITHM_AMBIGUOUS",
            f"{contract.ALGORITHM_VARIABLE} is {name!r} and script mode's program is {program!r}",
            expected="one of the two",
            remedy=f"to run the script remove {contract.ALGORITHM_VARIABLE} from the Environment;"
            f" to train {name!r} remove {contract.PROGRAM_HYPERPARAMETER},"
            f" {contract.PROGRAM_VARIABLE} and {contract.FRAMEWORK_VARIABLE}",
        )
    if name:
        return _train_algorithm(name, layout, raw, stop, started, lines)
    if program:
        from byoa.container import script_mode

        stop.hint = "it is passed on to the script"
        code = script_mode.train(layout, raw, environ, lambda: stop.requested)
        _share(layout.model)
        return code
    raise AlgorithmError(
        "ALGORITHM_NOT_CHOSEN",
        f"neither {contract.ALGORITHM_VARIABLE} nor a script is given",
        expected=f"{contract.ALGORITHM_VARIABLE}=<name> in the Environment, where a name is one of"
        f" {', '.join(_registry().names())} or module:Class of your own; or, for script mode, the"
        f" hyperparameter {contract.PROGRAM_HYPERPARAMETER} or the variable"
        f" {contract.PROGRAM_VARIABLE}",
        remedy=f"set {contract.ALGORITHM_VARIABLE}, or give entry_point and source_dir to the SDK's"
        " estimator",
    )


def _registry() -> Any:
    return importlib.import_module(REGISTRY)


def _check_hosts(name: str, kind: Any, run: Run) -> None:
    count = len(run.hosts.hosts)
    if count > 1 and not kind.distributed:
        raise UnsupportedError(
            "HOSTS_UNSUPPORTED",
            f"{name} trains on one host, the job has {count}",
            expected="InstanceCount=1",
            remedy="set InstanceCount=1 in ResourceConfig and take a larger instance; an algorithm"
            " that shares the work over run.hosts says `distributed = True`",
        )


def _train_algorithm(
    name: str, layout: Layout, raw: Mapping[str, str], stop: Stop, started: float, lines: LineEnds
) -> int:
    heap.keep_freed(heap.TRAINING_BYTES)
    kind = _registry().find(name)
    hyperparameters = kind.Hyperparameters.parse(raw)
    hardware = measure()
    run = Run(
        layout, hyperparameters, hardware=hardware, stopping=lambda: stop.requested,
        end_line=lines.finish,
    )
    _check_hosts(name, kind, run)
    _say(_plan(name, run, hardware))
    if hardware.notice:
        _say(hardware.notice)
    if hardware.device == "cuda" and len(hardware.gpus) > 1:
        _say(f"one process a host: the first of {len(hardware.gpus)} GPUs is used; a script under"
             " torchrun uses all")
    if not preflight.check(run.hosts, run.peers, say=_say):
        _say("stopped before all hosts had met")
        return contract.EXIT_SUCCESS
    ready = time.monotonic()
    try:
        kind(hyperparameters).train(run)
    except SystemExit as error:
        if error.code not in (None, 0):
            run.peers.fail(failure_report(error))
            raise
    except BaseException as error:
        run.peers.fail(failure_report(error))
        raise
    run.peers.close()
    trained = time.monotonic()
    lines.finish()
    files = _saved(layout.model)
    if files:
        write_manifest(
            layout.model,
            Manifest(
                name, hyperparameters.to_json(),
                run.signature.get("features"), run.signature.get("sample"),
            ),
        )
        _share(layout.model)
    elif stop.requested:
        _say("stopped before the algorithm saved a model")
    elif run.hosts.rank == 0:  # the other hosts may well leave it to the first (TRAIN-132)
        raise AlgorithmError(
            "ALGORITHM_SAVED_NOTHING",
            f"{name} has trained, but left no file in {layout.model}",
            expected="train writes what load reads into run.model_dir",
            remedy="save the model there, for example np.savez(run.model_dir / 'model.npz', …)",
        )
    total = sum(path.stat().st_size for path in files)
    _say(
        f"{'stopped' if stop.requested else 'trained'} in {trained - ready:.2f} s (start"
        f" {ready - started:.2f} s); model of {len(files)} files, {size(total)};"
        f" peak memory {size(_peak_bytes())}"
    )
    return contract.EXIT_SUCCESS


def _plan(name: str, run: Run, hardware: Hardware) -> str:
    hosts = run.hosts
    channels = ", ".join(f"{c.name} ({c.config.input_mode})" for c in run.channels.values())
    return (
        f"plan: {name} on {hosts.current_host} ({hosts.rank + 1} of {len(hosts.hosts)}):"
        f" {hardware.describe()}; channels {channels or 'none'};"
        f" checkpoints {run.checkpoints.directory or 'off'}"
    )


def _saved(model_dir: Path) -> list[Path]:
    """What the algorithm left, without the manifest of an earlier run in the same tree."""
    return [
        path for path in sorted(model_dir.rglob("*"))
        if path.is_file() and path != model_dir / MANIFEST
    ]


def _share(model_dir: Path) -> None:
    """Let everybody read the model: a file made by tempfile is its owner's alone and is archived
    so, but the server's workers are another user."""
    for path in model_dir.rglob("*"):
        if path.is_symlink():
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        shared = mode | (0o555 if path.is_dir() else 0o444)
        if shared != mode:
            with contextlib.suppress(PermissionError):  # of another user, who has to do it
                path.chmod(shared)


def _fail(layout: Layout, error: BaseException, lines: LineEnds) -> int:
    """Tell the log everything and the failure file what matters; the exit code."""
    code = _exit_code(error)
    report = failure_report(error, note=_memory_note(error))
    lines.finish()
    if isinstance(error, ByoaError):
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    elif isinstance(error, KeyboardInterrupt):  # asked for, and no mistake to look for
        print(report.partition("\n")[0], file=sys.stderr, flush=True)
    else:
        traceback.print_exception(type(error), error, error.__traceback__)
    try:
        if not layout.failure.exists():  # the author may have written it (TRAIN-141, TK-09)
            contract.write_failure(layout, report)
    except OSError as unwritable:
        print(f"{layout.failure} cannot be written: {unwritable}", file=sys.stderr, flush=True)
    return code


def _wait_for_stop(stop: Stop) -> None:
    end = time.monotonic() + PEER_ENDED_SECONDS
    if not stop.requested:
        _say(f"waits up to {PEER_ENDED_SECONDS:g} s to be stopped with the job")
    while not stop.requested and time.monotonic() < end:
        time.sleep(0.05)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code % 256:
        return error.code % 256  # the author's own
    return contract.EXIT_FAILURE


def _memory_note(error: BaseException) -> str:
    """For errors of memory: what was used of what there is (TRAP-24)."""
    if not isinstance(error, MemoryError) and "OutOfMemory" not in type(error).__name__:
        return ""
    hardware = measure()
    return f"peak memory {size(_peak_bytes())} of {size(hardware.memory_bytes)}"


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _say(text: str) -> None:
    print(text, flush=True)
