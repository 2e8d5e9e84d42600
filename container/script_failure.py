"""Why a script failed, from the end of its output: the exception, its file and line, first.

The traceback that Python prints is parsed by its shape; nothing is guessed from names in the text.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from byoa.container.errors import REPORT_LIMIT_CHARACTERS
from byoa.container.hardware import size
from byoa.container.supervisor import Exit

_FRAME = re.compile(r'^ +File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in (?P<function>.+))?$')
_EXCEPTION = re.compile(r"^(?P<name>[A-Za-z_][\w.]*)(?:: (?P<message>.*))?$", re.DOTALL)
_GROUP_MARGIN = re.compile(r"^ *[|+][-+|]* ?")
# Exceptions by which a program tells that another one, whose output is in the same log, has failed.
_OF_CHILDREN = ("subprocess.CalledProcessError",)
_UNWOUND = "terminate called without an active exception"
_TITLE = "Traceback (most recent call last):"
_MESSAGE_LINES = 8  # of a message of many lines
_LAST_LINES = 8  # shown where there is no traceback


@dataclass(frozen=True)
class Frame:
    file: str
    line: int
    function: str | None  # None in an error of syntax
    source: str


@dataclass(frozen=True)
class PrintedException:
    """An exception as Python printed it."""

    name: str
    message: str
    frames: tuple[Frame, ...]


def last_exception(lines: Sequence[str]) -> PrintedException | None:
    """The last exception printed with its frames: the one that ended the script, or, where a
    worker's traceback is quoted inside its message, the one that began it. One that only tells how
    a child process ended gives way to the child's own, which was printed before it."""
    found = _exceptions(lines)
    last = next(found, None)
    if last is not None and last.name in _OF_CHILDREN:
        return next(found, last)
    return last


def _exceptions(lines: Sequence[str]) -> Iterator[PrintedException]:
    """The exceptions printed with their frames, from the last."""
    if any("Exception Group Traceback" in line for line in lines):
        lines = [_GROUP_MARGIN.sub("", line) for line in lines]
    for end in range(len(lines) - 1, 0, -1):
        match = _EXCEPTION.match(lines[end])
        if match is None:
            continue
        start = end
        while start > 0 and lines[start - 1].startswith(" "):
            start -= 1
        frames = _frames(lines[start:end])
        titled = start > 0 and _TITLE in lines[start - 1]
        if frames and (titled or frames[-1].function is None):  # an error of syntax has no title
            more = lines[end + 1 : end + _MESSAGE_LINES]
            message = "\n".join([match["message"] or "", *more]).strip()
            yield PrintedException(match["name"], message, frames)


def _frames(lines: Sequence[str]) -> tuple[Frame, ...]:
    found = []
    for number, line in enumerate(lines):
        match = _FRAME.match(line)
        if match:
            after = lines[number + 1].strip() if number + 1 < len(lines) else ""
            source = "" if _FRAME.match(lines[number + 1] if after else "") else after
            found.append(Frame(match["file"], int(match["line"]), match["function"], source))
    return tuple(found)


def report(
    entry: str, code: Path, ended: Exit, lines: Sequence[str], oom_kills: int, *,
    module: str | None = None, grace: float | None = None,
) -> str:
    """The failure file's text for a script that ended otherwise than with 0.

    `oom_kills` is how many processes the kernel killed for memory meanwhile, `module` what Python
    was told to run in place of a file, `grace` the seconds that it had after SIGTERM.
    """
    parts = [_headline(entry, code, ended, lines, oom_kills, module, grace)]
    if oom_kills and "OutOfMemory" not in parts[0]:
        parts.append(f"the kernel killed {oom_kills} process(es) of this container for memory")
    parts.append(
        f"{entry} exited with code {ended.code} after {ended.seconds:.0f} s,"
        f" peak memory {size(ended.peak_rss_bytes)}"
    )
    head = "\n".join(parts)
    title = "\n\nLast lines:\n"
    room = REPORT_LIMIT_CHARACTERS - len(head) - len(title)
    tail = "\n".join(line.rstrip() for line in lines).strip()
    if room < 80 or not tail:
        return head[:REPORT_LIMIT_CHARACTERS]
    if len(tail) > room:
        tail = tail[-room:]
        tail = tail[tail.find("\n") + 1 :]
    return f"{head}{title}{tail}"


def _headline(
    entry: str, code: Path, ended: Exit, lines: Sequence[str], oom_kills: int,
    module: str | None, grace: float | None,
) -> str:
    killed = ended.signal is None and ended.code == 128 + signal.SIGKILL  # as a shell tells it
    if ended.out_of_memory or (killed and oom_kills):
        what = f"a process of {entry}" if killed else entry
        return (
            f"OutOfMemory: the kernel killed {what} for memory; use an instance type with more"
            " memory, or less data at once"
        )
    if ended.signal == signal.SIGKILL and ended.stopped and grace is not None:
        return f"SIGKILL: {entry} was still running {grace:g} s after SIGTERM, and was killed"
    if ended.signal is not None:
        name = signal.Signals(ended.signal).name
        return f"{name}: {entry} was ended by signal {ended.signal}{_hint(ended.signal, lines)}"
    printed = last_exception(lines)
    if printed is None:
        if killed:
            return (
                f"SIGKILL: a process of {entry} was killed by signal 9, not for memory:"
                " the kernel's count of that has not risen"
            )
        shown = " / ".join(line.strip() for line in lines[-_LAST_LINES:] if line.strip())
        return (
            f"{entry} exited with code {ended.code} and printed no traceback;"
            f" its last lines: {shown[-500:] or 'none'}"
        )
    first, _, more = printed.message.partition("\n")
    if len(first) > 500:
        first = first[:500].rstrip() + " …"
    head = f"{printed.name}: {first}" if first else printed.name
    # What follows the first line may be the message or what was printed after it: place it last.
    return head + _place(printed.frames, code, module) + (f"\n{more[:300]}" if more else "")


def _hint(number: int, lines: Sequence[str]) -> str:
    if number == signal.SIGBUS:
        return ": shared memory (/dev/shm) may be full; use fewer data loader workers"
    # What C++ says of a thread that Python ends as it shuts down: gloo's, where the group still is.
    if number == signal.SIGABRT and any(_UNWOUND in line for line in lines):
        return (
            ": a thread of native code was at work as Python shut down; if the script uses"
            " torch.distributed, let it call destroy_process_group() at its end"
        )
    return ""


def _place(frames: Sequence[Frame], code: Path, module: str | None) -> str:
    """The innermost frame in the script's own directory or installed package, else of all."""
    roots = [f"{code}{os.sep}", f"{code.resolve()}{os.sep}"]
    own = [f for f in frames if f.file.startswith(tuple(roots)) or not os.path.isabs(f.file)]
    if module is not None:  # where pip has put it
        for frame in frames:
            before, found, after = frame.file.rpartition(f"{os.sep}site-packages{os.sep}")
            if found and re.split(r"[/.]", after)[0] == module.partition(".")[0]:
                roots.append(before + found)
                own.append(frame)
        own.sort(key=list(frames).index)
    own = [f for f in own if not f.file.startswith("<")]
    frame = (own or list(frames))[-1]
    name = frame.file
    for root in roots:
        name = name.removeprefix(root)
    place = f" at {name}:{frame.line}"
    if frame.function:
        place += f" in {frame.function}"
    return place + (f": {frame.source[:100]}" if frame.source else "")
