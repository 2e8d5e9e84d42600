"""The entrypoint of the image: `python -m byoa.container train|serve|process|contract`, or any
program of the image with its arguments.

SageMaker runs `docker run IMAGE train` or `serve` (TRAIN-01, HOST-01).
"""

from __future__ import annotations

import atexit
import contextlib
import difflib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

from byoa.container.contract import (
    EXIT_FAILURE,
    EXIT_NOT_EXECUTABLE,
    EXIT_SUCCESS,
    PROCESSING_FILE,
    Layout,
    write_failure,
    write_message,
)
from byoa.container.errors import ContractError

COMMANDS = {
    "train": "train the algorithm that BYOA_ALGORITHM or script mode names",
    "serve": "serve the model in /opt/ml/model over HTTP",
    "process": "run a processing job's program: process SCRIPT|-m MODULE [ARGUMENTS]",
    "contract": "print the files and variables of the container contract as Markdown",
}


def main(arguments: Sequence[str]) -> int:
    layout = Layout.from_environment()
    try:
        command = _command(arguments, layout)
    except ContractError as error:
        print(error, file=sys.stderr, flush=True)
        _tell(layout, str(error))
        return EXIT_NOT_EXECUTABLE if error.code == "COMMAND_NOT_EXECUTABLE" else EXIT_FAILURE
    if command == "train":
        from byoa.container import train

        return train.main()
    if command == "serve":
        # In place of this process, so that signals reach the server (TRAIN-05, HOST-03).
        os.execv(sys.executable, [sys.executable, "-m", "byoa.serve"])  # noqa: S606
    if command == "process":
        from byoa.container import process

        return process.main(arguments[1:])
    if command == "contract":
        from byoa.container.contract_tables import markdown

        print(markdown(), end="")
        return EXIT_SUCCESS
    return _become(command, arguments)


def _command(arguments: Sequence[str], layout: Layout) -> str:
    """One of ours, or the path of a program; raises ContractError for anything else."""
    usage = "; ".join(f"{name}: {text}" for name, text in COMMANDS.items())
    usage += "; or a program of the image with its arguments"
    if not arguments:
        processing = (layout.processing_config / PROCESSING_FILE).exists()
        raise ContractError(
            "COMMAND_MISSING", "no command was given", expected=usage,
            remedy='set ContainerArguments=["process", "SCRIPT"] or ContainerEntrypoint in the'
            " processing job's AppSpecification" if processing
            else "run the image as `docker run IMAGE train`, or `serve`",
        )
    command = arguments[0]
    if command not in COMMANDS:
        return _program(command, usage)
    if arguments[1:] and command != "process":
        raise ContractError(
            "ARGUMENTS_UNSUPPORTED", f"{command} takes no arguments, given {list(arguments[1:])}",
            expected="hyperparameters in hyperparameters.json, the rest in the environment",
        )
    return command


def _program(name: str, usage: str) -> str:
    """The path of the executable that `name` is, or that PATH has."""
    import shutil

    path = shutil.which(name)
    if path is not None:
        return path
    if os.sep in name and os.path.isfile(name):
        raise ContractError(
            "COMMAND_NOT_EXECUTABLE", f"{name} is a file that may not be executed",
            expected="a file with the executable bit",
            remedy=f"chmod +x it, or name its interpreter: docker run IMAGE python {name}",
        )
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    cause = f"; did you mean {near[0]!r}?" if near else ""
    raise ContractError("COMMAND_UNKNOWN", f"there is no command {name!r}{cause}", expected=usage)


def _become(path: str, arguments: Sequence[str]) -> int:
    """Let the program take this process's place; only an error comes back."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and exec would keep it
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execv(path, list(arguments))  # noqa: S606 - an argv, never a shell
    except OSError as error:
        print(f"{path} cannot be run: {error.strerror}; expected: a program of this machine's kind,"
              " or a script that begins with `#!`", file=sys.stderr, flush=True)
        return EXIT_NOT_EXECUTABLE


def _tell(layout: Layout, text: str) -> None:
    """On the platform the reason is also shown where the job is described."""
    if not layout.output.is_dir():
        return
    processing = (layout.processing_config / PROCESSING_FILE).exists()
    try:
        (write_message if processing else write_failure)(layout, text)
    except OSError as error:
        print(f"{layout.output} cannot be written: {error.strerror}", file=sys.stderr, flush=True)


def _end(code: int) -> NoReturn:
    """End as `sys.exit` does, but leave the interpreter standing.

    To tear it down under the native threads of libraries (torch's gloo has some that hold Python
    objects) can abort a process whose work is done, and so fail the job.
    """
    threads: Any = threading
    try:
        threads._shutdown()  # waits for them, and for those of executors
        atexit._run_exitfuncs()
    except BaseException:  # told and passed over, as the interpreter does
        import traceback

        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    _end(main(sys.argv[1:]))
