"""Why a run of the image did not succeed: from its exit code, its log and what it left."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass

from byoa.container.contract import (
    EXIT_NOT_EXECUTABLE,
    EXIT_NOT_FOUND,
    EXIT_SIGKILL,
    ROOT,
    read_failure,
)
from byoa.local.check.checks import Verdict, failed
from byoa.local.check.image_facts import ImageFacts
from byoa.local.check.training_runs import TrainingRun

EXIT_SIGBUS, EXIT_SIGSEGV = 135, 139
_SAID_CHARACTERS = 600  # of a failure's own words: one of ours with its cure is within it
# "ValueError: …" and "botocore.exceptions.NoCredentialsError: …" at the start of a line.
_EXCEPTION = re.compile(
    r"^\s*((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit)(?::.*)?)$", re.MULTILINE
)
_LOST_INTERPRETER = re.compile(r"(\S+)\\r|\^M|\r['’]?: (?:no such file|not found)", re.IGNORECASE)
_LOST_MODULE = re.compile(r"No module named '?([\w.]+)")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_NETWORK = re.compile(
    r"\bpip\b|Max retries exceeded|Temporary failure in name resolution|Name or service not known"
    r"|Could not connect to the endpoint|Connect timeout|169\.254\.|Network is unreachable"
    r"|Failed to establish a new connection|EndpointConnectionError",
)


@dataclass(frozen=True)
class Told:
    """A cause, and the cure where it is another than the check's own."""

    cause: str
    cure: str = ""


def verdict(run: TrainingRun, told: Told) -> Verdict:
    return failed(told.cause, cure=told.cure, evidence=run.tail())


def exceptions_in(text: str) -> list[str]:
    """The lines of a log that name an exception, in order."""
    return [found.strip() for found in _EXCEPTION.findall(text)]


def start_fault(run: TrainingRun, facts: ImageFacts | None) -> Told | None:
    """Why the program did not even start; None where it did (TRAP-01, TRAP-02, TRAP-04)."""
    code = None if run.exit is None else run.exit.code
    log = run.log
    if "exec format error" in log.lower():
        return _not_of_this_machine(facts)
    if _LOST_INTERPRETER.search(log) and code in (EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, 2):
        return Told(
            f"the interpreter's name ends in a carriage return: {_last(log)}",
            "save the script with LF line ends (git config core.autocrlf input; dos2unix)",
        )
    if code == EXIT_NOT_EXECUTABLE:
        return Told(
            f"exit code 126: the program may not be executed: {_last(log)}",
            "RUN chmod +x the program in the Dockerfile; git on Windows drops the bit",
        )
    if code == EXIT_NOT_FOUND:
        entrypoint = None if facts is None else facts.entrypoint
        if not entrypoint and "executable file not found" in log:
            return Told(
                "exit code 127: the image has no ENTRYPOINT and no program called `train` on PATH",
                'set ENTRYPOINT ["python", "/opt/program/main.py"], or install `train` on PATH',
            )
        return Told(
            f"exit code 127: a program was not found: {_last(log)}",
            "check the names in ENTRYPOINT and in the script that it runs, and their first lines"
            " (#!): the interpreter must be in the image",
        )
    return None


def hidden_in(facts: ImageFacts | None, log: str) -> Told | None:
    """A file of the image below /opt/ml that the log misses; None where it misses none (TRAIN-07).

    A path that the log names, or a Python module that is not found.
    """
    if facts is None:
        return None
    modules = {name.partition(".")[0] for name in _LOST_MODULE.findall(log)}
    for each in facts.files.below(str(ROOT)):
        names = {part.removesuffix(".py") for part in each.path.split("/")}
        if not each.is_directory and (each.path in log or names & modules):
            return Told(
                f"the image has {each.path}, which the service's mount over {ROOT} hides",
                "put code elsewhere, such as /opt/program",
            )
    return None


def is_foreign(facts: ImageFacts | None) -> bool:
    """Whether the image is for another processor than this machine's."""
    return facts is not None and facts.architecture != _machine()


def _machine() -> str:
    return _MACHINES.get(platform.machine(), platform.machine())


def _not_of_this_machine(facts: ImageFacts | None) -> Told:
    if facts is not None and is_foreign(facts):
        return Told(
            f"exec format error: the image is for {facts.architecture}, this machine is"
            f" {_machine()}",
            "build with --platform linux/amd64, which is what the service's instances are",
        )
    return Told(
        "exec format error: the program is a script without a first line #!, or was compiled for"
        " another machine",
        "give the script a first line such as #!/usr/bin/env python, and build with --platform"
        " linux/amd64",
    )


def why(run: TrainingRun, facts: ImageFacts | None) -> Told:
    """Why this run did not end with exit code 0, the most telling evidence first."""
    if run.exit is None:
        return Told(
            f"it still ran after {run.limit:g} s and was killed; its last line: {_last(run.log)}",
            "give samples that train sooner, or a longer limit",
        )
    code = run.exit.code
    started = start_fault(run, facts)
    if started is not None:
        return started
    if run.exit.out_of_memory:
        return Told(
            f"exit code {code}: the kernel killed it because memory ran out (TRAP-24)",
            "read less at a time, or check with smaller samples",
        )
    if code == EXIT_SIGBUS or "bus error" in run.log.lower():
        return Told(
            f"exit code {code}: a bus error, which is how a full /dev/shm shows (TRAP-24)",
            "start fewer data-loading workers (num_workers=0), or exchange data through files",
        )
    if code == EXIT_SIGSEGV:
        return Told(f"exit code {code}: it crashed (SIGSEGV); last line: {_last(run.log)}")
    if code == EXIT_SIGKILL:
        return Told(f"exit code {code}: something killed it; last line: {_last(run.log)}")
    if facts is not None and facts.user not in ("", "0", "root") and _denied(run):
        return Told(
            f"exit code {code}: it runs as user {facts.user!r} and may not write what root owns in"
            f" /opt/ml: {_said(run)}",
            "leave USER out of the Dockerfile: training runs as root, and drop privileges inside",
        )
    told = f"exit code {code}: {_said(run)}"
    hidden = hidden_in(facts, run.log)
    return Told(told) if hidden is None else Told(f"{told}; {hidden.cause}", hidden.cure)


def needs_network(run: TrainingRun) -> str | None:
    """The line of the log that shows a wait for a network; None where there is none."""
    lines = [line for line in run.log.splitlines() if _NETWORK.search(line)]
    return lines[-1].strip()[:200] if lines else None


def _denied(run: TrainingRun) -> bool:
    return "permission denied" in f"{run.log}\n{read_failure(run.layout) or ''}".lower()


def _said(run: TrainingRun) -> str:
    """What the program says of its failure: the failure file's first line, else the log's."""
    failure = (read_failure(run.layout) or "").strip()
    if failure:
        return _clipped(failure.splitlines()[0])
    raised = exceptions_in(run.log)
    return _clipped(raised[-1]) if raised else _last(run.log)


def _last(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return _clipped(lines[-1]) if lines else "(it printed nothing)"


def _clipped(line: str) -> str:
    """The line, or as much as a table's cell should hold of it."""
    return line if len(line) <= _SAID_CHARACTERS else line[: _SAID_CHARACTERS - 1] + "…"
