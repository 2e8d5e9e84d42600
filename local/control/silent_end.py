"""What to say of a container that failed and left no word of why.

The service's FailureReason of it is `AlgorithmError: , exit code: 1` (TRAIN-142, TRAP-23), and so
is ours: the cause goes to the end of the job's log.
"""

from __future__ import annotations

import signal

from byoa.container.contract import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, ROOT, Layout, read_failure
from byoa.container.supervisor import Exit

LINE_CHARACTERS = 300  # of what it printed last
_BY_SIGNAL = 128  # TRAIN-144
_PROGRAM = {
    EXIT_NOT_EXECUTABLE: "its program cannot be executed",
    EXIT_NOT_FOUND: "its program, or one that it runs, is not there",
}


def is_silent(layout: Layout, ended: Exit) -> bool:
    """Whether FailureReason has nothing but the exit code to say of a failed container."""
    return not ended.out_of_memory and not read_failure(layout)


def note(host: str, ended: Exit, last: str) -> str:
    """Which host ended how, and the `last` line that it printed."""
    code = ended.code % 256
    meaning = _PROGRAM.get(code) or _signal(code - _BY_SIGNAL)
    how = f"{code} ({meaning})" if meaning else str(code)
    said = f"the last that it printed: {last[:LINE_CHARACTERS]}" if last else "it printed nothing"
    return (
        f"{host} ended with exit code {how} and left nothing in {ROOT}/output/failure, from which"
        f" FailureReason takes the cause; {said}"
    )


def _signal(number: int) -> str | None:
    try:
        return signal.Signals(number).name
    except ValueError:
        return None
