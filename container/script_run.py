"""Running a script: its output passed on byte by byte, signals forwarded, its end told.

On success /opt/ml/output/success is written, on failure /opt/ml/output/failure (TK-09).
"""

from __future__ import annotations

import os
import select
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from byoa.container import contract
from byoa.container.contract import Layout
from byoa.container.errors import AlgorithmError
from byoa.container.hardware import oom_kills, size
from byoa.container.script_failure import report
from byoa.container.supervisor import run

TAIL_LINES = 400  # of the script's output, for the failure report
TAIL_CHARACTERS = 2000  # of each of them
WRITE_SECONDS = 60.0  # between two tries to write to a pipe that is full
SUCCESS_FILE = "success"


@dataclass(frozen=True)
class Script:
    """What is run. `name` is how messages call it, `module` what `python -m` was given.

    `group`: signals go to all its processes, for a shell keeps them from what it waits for.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    directory: Path
    module: str | None = None
    group: bool = False


def run_script(
    layout: Layout, script: Script,
    stop_grace: float = contract.TRAINING_STOP_GRACE_SECONDS,
) -> int:
    """Run it to its end; the exit code of the container.

    0 when the script's is 0, else 1 with the failure file written (TK-09); 143 for a script that
    SIGTERM ended because it has no handler of its own.
    """
    output = _Output()
    killed_before = oom_kills() or 0
    try:
        ended = run(
            script.argv, env=script.environment, cwd=script.directory, on_line=output.keep,
            tee=output.pass_on, stop_grace=stop_grace, group=script.group,
        )
    except OSError as error:
        raise AlgorithmError(
            "SCRIPT_NOT_STARTED", f"{script.argv[0]} cannot be run: {error.strerror}",
            where=script.name,
            expected="a program of this machine's kind, or a script whose first line names one that"
            " the image has",
        ) from None
    output.finish()
    if ended.code == 0:
        empty = "" if any(layout.model.rglob("*")) else f"; it left nothing in {layout.model}"
        say(f"{script.name} ended in {ended.seconds:.2f} s, peak memory"
            f" {size(ended.peak_rss_bytes)}{empty}")
        (layout.output / SUCCESS_FILE).touch()
        return contract.EXIT_SUCCESS
    if ended.code == contract.EXIT_SIGTERM and ended.signal is not None:
        saved = any(layout.model.rglob("*"))
        cure = "" if saved else ": handle it to save the model before the end"
        say(f"{script.name} was ended by SIGTERM{cure}")
        return contract.EXIT_SIGTERM
    text = report(
        script.name, layout.code, ended, list(output.tail), (oom_kills() or 0) - killed_before,
        module=script.module, grace=stop_grace,
    )
    print(text.splitlines()[0], file=sys.stderr, flush=True)
    if not layout.failure.exists():  # the script may have written its own (TK-09)
        contract.write_failure(layout, text)
    return contract.EXIT_FAILURE


class _Output:
    """The script's output: every byte to our own stdout at once, the last lines kept."""

    def __init__(self) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._last = b"\n"
        sys.stdout.flush()
        self._descriptor = sys.stdout.fileno()

    def pass_on(self, data: bytes) -> None:
        self._last = data[-1:]
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest):]
            except BlockingIOError:  # whoever reads has made the pipe so
                select.select([], [self._descriptor], [], WRITE_SECONDS)

    def keep(self, line: str) -> None:
        """The line as a terminal would show it: a progress bar's last state."""
        self.tail.append(line.rpartition("\r")[2][:TAIL_CHARACTERS])

    def finish(self) -> None:
        """Our own next line begins a line."""
        if self._last != b"\n":
            self.pass_on(b"\n")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
