"""`python -m byoa.container process`: run a processing job's program and tell how it ended.

The program's exit code is ours (PROC-13). When it fails, /opt/ml/output/message begins with the
cause, unless the program has written the file itself (PROC-12).
"""

from __future__ import annotations

import difflib
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from byoa.container import account, contract
from byoa.container.contract import Layout, ProcessingHosts, ProcessingJobConfig
from byoa.container.errors import AlgorithmError, ByoaError, ContractError, failure_report
from byoa.container.hardware import measure, oom_kills, size
from byoa.container.script_failure import report
from byoa.container.supervisor import run

TAIL_LINES = 400  # of the program's output, for the message
EXAMPLE = "docker run IMAGE process clean.py --rows 100"


@dataclass(frozen=True)
class Program:
    """What is run: an argv, what it is called in a message, and where its own code lies."""

    argv: tuple[str, ...]
    name: str
    code: Path


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the program that `arguments` name; its exit code, 1 where it cannot be run."""
    for number in (signal.SIGTERM, signal.SIGINT):  # until there is a program to get them (PROC-02)
        signal.signal(number, lambda number, _: os._exit(128 + number))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    layout = Layout.from_environment(environ)
    try:
        account.settle()
        layout.message.unlink(missing_ok=True)  # of an earlier run by hand in the same tree
        program = find(arguments, layout, environ)
        config = ProcessingJobConfig.read(layout) or ProcessingJobConfig()
        for place in config.outputs:  # the platform has made them (PROC-07)
            if place.local_path:
                account.make_writable(layout.inside(place.local_path))
        _say(_plan(program, layout, config))
        return _run(program, layout, config, environ)
    except (ByoaError, OSError) as error:
        print(error if isinstance(error, ByoaError) else f"{type(error).__name__}: {error}",
              file=sys.stderr, flush=True)
        _leave(layout, failure_report(error))
        return contract.EXIT_FAILURE


# --- which program --------------------------------------------------------------------------------


def find(
    arguments: Sequence[str], layout: Layout, environ: Mapping[str, str] = os.environ
) -> Program:
    """The program of `SCRIPT [ARGS…]` or `-m MODULE [ARGS…]`.

    A script is looked for in the working directory, then where the SDK's processors put it
    (PROC-19); a command without a directory also on PATH. Raises ContractError where it is not.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        raise ContractError(
            "PROGRAM_MISSING", "process was given no program to run",
            expected="process SCRIPT [ARGUMENTS], or process -m MODULE [ARGUMENTS]",
            remedy=f"for example `{EXAMPLE}`; in a processing job put"
            f' ["process", "{contract.PROCESSING_CODE_PATH}/clean.py"] into ContainerArguments',
        )
    first, *rest = arguments
    here = Path.cwd()
    if first == "-m":
        if not rest:
            raise ContractError(
                "PROGRAM_MISSING", "process -m was given no module",
                expected="process -m MODULE [ARGUMENTS], the module as in an import statement",
            )
        return Program((sys.executable, "-m", *rest), rest[0], here)
    directories = (here, layout.inside(contract.PROCESSING_CODE_PATH))
    for directory in directories:
        if (directory / first).is_file():
            return _at(directory / first, rest)
    on_path = None if os.sep in first else shutil.which(first, path=environ.get("PATH"))
    if on_path is not None:
        return Program((on_path, *rest), first, here)
    raise _not_found(first, directories)


def _at(path: Path, rest: Sequence[str]) -> Program:
    if path.suffix == ".py":
        return Program((sys.executable, str(path), *rest), path.name, path.parent)
    if not os.access(path, os.X_OK):
        raise ContractError(
            "PROGRAM_NOT_EXECUTABLE", f"{path} may not be executed ({account.describe(path)})",
            expected="a Python file, or a file with the executable bit, which S3 does not keep",
            remedy=f"name its interpreter: process bash {path}",
        )
    return Program((str(path), *rest), path.name, path.parent)


def _not_found(name: str, directories: Sequence[Path]) -> ContractError:
    have = [
        each.name for directory in directories if directory.is_dir()
        for each in sorted(directory.iterdir()) if each.is_file()
    ]
    near = difflib.get_close_matches(os.path.basename(name), have, n=1)
    return ContractError(
        "PROGRAM_NOT_FOUND",
        f"there is no program {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
        expected=f"a file in {' or '.join(map(str, directories))}, a path to one, or a command on"
        " PATH",
        remedy=f"for example `{EXAMPLE}`",
    )


# --- the run --------------------------------------------------------------------------------------


def _plan(program: Program, layout: Layout, config: ProcessingJobConfig) -> str:
    hosts = ProcessingHosts.read(layout)
    rank = hosts.hosts.index(hosts.current_host) if hosts.current_host in hosts.hosts else 0
    hardware = measure()
    notice = f"\n{hardware.notice}" if hardware.notice else ""
    inputs = ", ".join(place.name for place in config.inputs) or "none"
    outputs = ", ".join(place.name for place in config.outputs) or "none"
    return (
        f"plan: {program.name} on {hosts.current_host} ({rank + 1} of {len(hosts.hosts)}):"
        f" {hardware.describe()}; inputs {inputs}; outputs {outputs}{notice}"
    )


def _run(
    program: Program, layout: Layout, config: ProcessingJobConfig, environ: Mapping[str, str]
) -> int:
    tail: deque[str] = deque(maxlen=TAIL_LINES)

    def on_line(line: str) -> None:
        tail.append(line)
        _say(line)

    killed_before = oom_kills() or 0
    try:
        ended = run(
            program.argv, on_line=on_line, stop_grace=contract.TRAINING_STOP_GRACE_SECONDS,
            env={**environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"},
        )
    except OSError as error:
        raise AlgorithmError(
            "PROGRAM_NOT_STARTED", f"{program.argv[0]} cannot be run: {error.strerror}",
            expected="a program of this machine's kind, or a script that begins with `#!`",
        ) from None
    if ended.code == 0:
        _tell_outputs(layout, config)
        _say(f"{program.name} ended in {ended.seconds:.2f} s, peak memory"
             f" {size(ended.peak_rss_bytes)}")
    elif ended.signal in (signal.SIGTERM, signal.SIGINT):
        name = signal.Signals(ended.signal).name
        _say(f"{program.name} was ended by {name}: handle it to save results before the end")
    else:
        killed = (oom_kills() or 0) - killed_before
        text = report(program.name, program.code, ended, list(tail), killed)
        print(text.splitlines()[0], file=sys.stderr, flush=True)
        _leave(layout, text)
    _check_message(layout)
    return ended.code


def _tell_outputs(layout: Layout, config: ProcessingJobConfig) -> None:
    """What will be uploaded of each output, so that an empty one is no riddle (TRAP-43)."""
    for place in config.outputs:
        if place.local_path is None or place.app_managed:
            continue
        directory = layout.inside(place.local_path)
        found = [path for path in directory.rglob("*") if not path.is_dir() or path.is_symlink()]
        files = [path for path in found if path.is_file() and not path.is_symlink()]
        text = f"output {place.name}: {len(files)} files,"
        text += f" {size(sum(path.stat().st_size for path in files))}"
        if not files:
            text += f"; write what is to be kept to {place.local_path}"
        if links := sum(path.is_symlink() for path in found):  # PROC-10
            text += f"; {links} symbolic links, which are not uploaded"
        _say(text)


# --- the message ----------------------------------------------------------------------------------


def _leave(layout: Layout, text: str) -> None:
    """Write the message, unless the program has, or a tree that is not ours would be made."""
    if layout.message.exists() or not layout.root.is_dir():
        return
    try:
        contract.write_message(layout, text)
    except OSError as error:
        print(f"{layout.message} cannot be written: {error.strerror} for uid {os.geteuid()}",
              file=sys.stderr, flush=True)


def _check_message(layout: Layout) -> None:
    """Tell what the service will do to a message of the program's own (TRAP-45)."""
    try:
        shown = contract.read_message(layout)
        if shown is None:
            return
        length = layout.message.stat().st_size
    except ContractError as error:
        print(error, file=sys.stderr, flush=True)
        return
    except OSError as error:
        print(f"{layout.message} cannot be read: {error.strerror}", file=sys.stderr, flush=True)
        return
    if length > contract.MESSAGE_LIMIT_BYTES:
        _say(f"{layout.message} has {length} bytes; the service shows the first"
             f" {contract.MESSAGE_LIMIT_BYTES}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
