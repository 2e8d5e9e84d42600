"""Script mode: the user's train.py with the SM_* variables and arguments of the training toolkit.

The variables, the mapping of hyperparameters to arguments, the code's fetching and the process are
byoa's own: an argv without a shell, signals, a failure report, and no package on the way to the
script's first line. SageMaker's training toolkit need not be installed.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from byoa.container import contract, launch, torchrun, training_module
from byoa.container.contract import Layout, ResourceConfig
from byoa.container.errors import AlgorithmError
from byoa.container.hardware import measure
from byoa.container.hosts import wait_for_hosts
from byoa.container.script_entry import Entry, find
from byoa.container.script_environment import (
    REGION_HYPERPARAMETER,
    Given,
    arguments,
    environment,
)
from byoa.container.script_intermediate import intermediate_sync
from byoa.container.script_run import SUCCESS_FILE, Script, run_script, say
from byoa.container.script_source import SUBMIT_HYPERPARAMETER, SUBMIT_VARIABLE, fetch

REQUIREMENTS_FILE = "requirements.txt"
STUDIO_VARIABLE = "SM_STUDIO_LOCAL_MODE"  # TK-08: its containers have no names of one another


def train(
    layout: Layout, raw: Mapping[str, str], environ: Mapping[str, str],
    stopping: Callable[[], bool],
) -> int:
    """Fetch the code, install its requirements, run the script; the exit code.

    0 when the script's is 0, else 1 with the failure file written (TK-09); 143 for a script that
    SIGTERM ended because it has no handler of its own, or that SIGTERM kept from starting.
    """
    values = {name: contract.decode_hyperparameter(text) for name, text in raw.items()}
    launch.check(values)
    (layout.output / SUCCESS_FILE).unlink(missing_ok=True)  # of an earlier run by hand
    framework = environ.get(contract.FRAMEWORK_VARIABLE)
    source = str(
        values.get(SUBMIT_HYPERPARAMETER) or environ.get(SUBMIT_VARIABLE) or layout.code
    )
    named = values.get(contract.PROGRAM_HYPERPARAMETER) or environ.get(contract.PROGRAM_VARIABLE)
    entry = None
    if framework:
        training_module.split(framework)
    else:
        fetch(source, layout, environ, values.get(REGION_HYPERPARAMETER))
        entry = find(str(named), layout.code)
    resources = ResourceConfig.read(layout)
    hardware = measure(environ)
    env, notes = environment(
        Given(layout, values, None if named is None else str(named), source, environ, hardware)
    )
    say(f"plan: script {framework or named} on {resources.current_host} ({resources.rank + 1} of"
        f" {len(resources.hosts)}): {hardware.describe()}; code {source}")
    for note in (hardware.notice, *notes):
        if note:
            say(note)
    launched = launch.plan(values, resources, len(hardware.gpus), env)
    if launched is not None:
        _check_launched(entry)
        say(launched.describe())
    with contextlib.ExitStack() as stack:
        python = sys.executable
        if stopping():  # what came in while the code was fetched
            return _stopped(framework or named)
        if entry is not None and _needs_more(entry, layout.code):
            from byoa.container import script_requirements

            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="byoa-python-"))
            done = script_requirements.install(entry, layout.code, environ, Path(place), say)
            if done.stopped:
                return _stopped(named)
            python, env = done.python, env | done.variables
        if launched is None and environ.get(STUDIO_VARIABLE, "").lower() != "true":
            wait_for_hosts(resources, stopping=stopping, say=say)
        if stopping():  # what came in before the script could get it
            return _stopped(framework or named)
        stack.enter_context(intermediate_sync(layout, values, environ, say))
        script = _script(layout, framework, entry, python, values, env)
        if launched is not None:
            return torchrun.run(launched, layout, resources, script, stopping)
        return run_script(layout, script)


def _script(
    layout: Layout, framework: str | None, entry: Entry | None, python: str,
    values: Mapping[str, Any], env: Mapping[str, str],
) -> Script:
    if entry is None:
        name = str(framework)
        argv = (python, "-m", training_module.__name__, name)
        return Script(name, argv, env, layout.code, module=name.partition(":")[0])
    return Script(
        entry.name, tuple(entry.argv(python, arguments(values))), env, layout.code,
        module=entry.module, group=not entry.python,
    )


def _check_launched(entry: Entry | None) -> None:
    """torchrun starts a Python file, and nothing else (DIST-02)."""
    if entry is None or entry.kind != "script":
        raise AlgorithmError(
            "ENTRY_POINT_UNSUPPORTED",
            f"torchrun does not start {entry.name if entry else contract.FRAMEWORK_VARIABLE}",
            expected="a Python file such as train.py as the entry point",
            remedy="name the file in entry_point, or remove `distribution` from the estimator",
        )


def _stopped(name: Any) -> int:
    say(f"stopped before {name} was started")
    return contract.EXIT_SIGTERM


def _needs_more(entry: Entry, code: Path) -> bool:
    """Whether anything is to be installed; a command gets nothing (TK-12)."""
    return entry.kind == "package" or (entry.python and (code / REQUIREMENTS_FILE).is_file())
