"""Containers of a state directory whose server is gone: processes, and the engine's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from byoa.local.runners import engine
from byoa.local.runners.base import Container
from byoa.local.settings import Settings

if TYPE_CHECKING:
    from byoa.local.runners.docker import DockerRunner


def left_running(settings: Settings) -> list[Container]:
    """The containers that still run."""
    found = _processes(settings)
    # Without `with`: whoever gets the containers stops them through the engine's connection.
    runner = docker_runner(settings)
    if runner is not None:
        adopted = (runner.adopt({"name": name}) for name in runner.running())
        found += [each for each in adopted if each is not None]
    return found


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
