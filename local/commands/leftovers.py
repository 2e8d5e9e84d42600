"""Containers of a state directory whose server is gone: processes, and the engine's."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from byoa.local.runners import engine
from byoa.local.runners.base import Container
from byoa.local.settings import Settings

if TYPE_CHECKING:
    from byoa.local.runners.docker import DockerRunner

STOP_SECONDS = 10.0  # that the containers have, all together


def left_running(settings: Settings) -> list[Container]:
    """The containers that still run."""
    found = _processes(settings)
    # Without `with`: whoever gets the containers stops them through the engine's connection.
    runner = docker_runner(settings)
    if runner is not None:
        adopted = (runner.adopt({"name": name}) for name in runner.running())
        found += [each for each in adopted if each is not None]
    return found


def end_left_running(settings: Settings) -> tuple[int, list[str]]:
    """Stop the containers that still run: how many, and the training jobs whose they were."""
    left = left_running(settings)
    if not left:
        return 0, []
    # Written down first: however they end, it is not the algorithm's doing.
    jobs = _stop_jobs(settings, {str(each.handle["name"]) for each in left})
    for container in left:
        container.terminate()
    end = time.monotonic() + STOP_SECONDS
    for container in left:
        container.stop(max(0.0, end - time.monotonic()))
    return len(left), jobs


def _stop_jobs(settings: Settings, containers: Collection[str]) -> list[str]:
    """Record a stop of the jobs that run in `containers`, for the next server to come to its end
    with (TRAIN-151); their names."""
    from byoa.local.control import training_record as record
    from byoa.local.control.stop_causes import BY_DOWN
    from byoa.local.storage.state import Row, State

    def stop(row: Row) -> None:
        if row.status != "InProgress":  # a stop that was under way keeps its cause
            return
        row.status = "Stopping"
        row.document["cause"] = asdict(BY_DOWN)
        record.transition(row, "Stopping", BY_DOWN.stopping)

    state = State(settings.home / "state.sqlite")
    try:
        found = [
            row for row in state.list(record.KIND)
            if row.status not in record.TERMINAL
            and any(each.container in containers for each in record.host_entries(row).values())
        ]
        for row in found:
            state.mutate(record.KIND, row.caller, row.name, stop)
    finally:
        state.close()
    return [row.name for row in found]


def count_running(settings: Settings) -> int:
    """How many containers still run; none is touched."""
    runner = docker_runner(settings)
    return len(_processes(settings)) + (0 if runner is None else len(runner.running()))


def docker_runner(settings: Settings) -> DockerRunner | None:
    """The engine's runner for the state directory; None where there is no engine."""
    if settings.runner == "process":
        return None
    with contextlib.suppress(engine.EngineUnavailable):
        engine.find()  # without the SDK, whose import takes a third of a second
        from byoa.local.runners.docker import DockerRunner

        runner = DockerRunner(settings.home)
        runner.connect()
        return runner
    return None


def _processes(settings: Settings) -> list[Container]:
    return list(_running_processes(settings))


def _running_processes(settings: Settings) -> Iterator[Container]:
    folder = settings.home / "containers"
    if not folder.is_dir():
        return
    from byoa.local.runners.images import Images
    from byoa.local.runners.process import ProcessRunner
    from byoa.local.storage.state import State

    state = State(settings.home / "state.sqlite")
    try:
        runner = ProcessRunner(Images(state), settings.home)
        for each in folder.iterdir():
            container = runner.adopt({"name": each.name})
            if container is not None and container.wait(0) is None:
                yield container
    finally:
        state.close()
