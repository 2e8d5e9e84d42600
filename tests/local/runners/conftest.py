"""Runners over a state of their own, and programs for them to run."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def sandbox_available() -> bool:
    from byoa.local.runners import sandbox

    return sandbox.unavailable() is None


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Any]:
    from byoa.local.runners.images import Images
    from byoa.local.storage.state import State

    state = State(tmp_path / "home" / "state.sqlite")
    yield Images(state)
    state.close()


def _process_runner(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    from byoa.local.runners.process import ProcessRunner

    if request.param == "auto" and not request.getfixturevalue("sandbox_available"):
        pytest.skip("the kernel allows no namespaces here")
    return ProcessRunner(
        request.getfixturevalue("images"), tmp_path / "home", sandbox=request.param
    )


@pytest.fixture(params=["off", "auto"])
def process_runner(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Processes with SAGEMAKER_BASE_DIR, and with a private /opt/ml."""
    return _process_runner(request, tmp_path)


@pytest.fixture(params=["off", "auto", pytest.param("docker", marks=pytest.mark.docker)])
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Processes of both kinds, and Docker's containers: for what holds for every runner."""
    if request.param == "docker":
        return request.getfixturevalue("docker_runner")
    return _process_runner(request, tmp_path)


@pytest.fixture
def make_docker_runner(engine: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Runners over one state directory, as those of servers one after the other; whatever they
    leave in the engine goes at the end."""
    from byoa.local.runners.docker import DockerRunner

    made: list[Any] = []

    def make(**options: Any) -> Any:
        made.append(
            DockerRunner(tmp_path / "home", **{"labels": {"byoa.test": "runners"}} | options)
        )
        return made[-1]

    yield make
    last = DockerRunner(tmp_path / "home")
    last.sweep(lambda name: False)
    for each in (*made, last):
        each.close()


@pytest.fixture
def docker_runner(make_docker_runner: Callable[..., Any]) -> Any:
    return make_docker_runner()


@pytest.fixture
def plain_runner(images: Any, tmp_path: Path) -> Any:
    """Without namespaces, for what does not depend on them."""
    from byoa.local.runners.process import ProcessRunner

    return ProcessRunner(images, tmp_path / "home", sandbox="off")


@pytest.fixture
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Any]:
    """A container of a Python script; `ml` is its /opt/ml in the script."""
    from byoa.container.contract import Layout
    from byoa.local.runners.base import ContainerSpec

    in_docker = "make_docker_runner" in request.fixturenames or (
        getattr(request.node, "callspec", None) is not None
        and request.node.callspec.params.get("runner") == "docker"
    )

    def build(source: str, name: str = "box", **members: Any) -> Any:
        ml = tmp_path / f"ml-{name}"
        Layout(ml).create()
        source = (
            "import json, os, pathlib, signal, subprocess, sys, time\n"
            "ml = pathlib.Path(os.environ.get('SAGEMAKER_BASE_DIR', '/opt/ml'))\n"
            + textwrap.dedent(source)
        )
        settings: dict[str, Any] = {
            "name": name, "command": (), "ml": ml, "log": tmp_path / f"{name}.log",
        }
        if in_docker:
            settings["image"] = request.getfixturevalue("base_image")
            settings["entrypoint"] = ("python3", "-c", source)
        else:
            script = tmp_path / f"{name}.py"
            script.write_text(source, encoding="utf-8")
            settings["image"] = "byoa:latest"
            settings["entrypoint"] = (sys.executable, str(script))
        return ContainerSpec(**settings | members)

    return build


@pytest.fixture
def run() -> Callable[..., Any]:
    """Runs a container to its end and removes it; its exit."""

    def go(runner: Any, spec: Any, timeout: float = 30.0) -> Any:
        container = runner.start(spec)
        ended = container.wait(timeout)
        assert ended is not None, spec.log.read_text()
        container.remove()
        return ended

    return go


@pytest.fixture
def start_ready(until: Callable[..., None]) -> Callable[..., Any]:
    """Starts a container and waits until it has printed `ready`."""

    def start(runner: Any, box: Any) -> Any:
        container = runner.start(box)
        until(lambda: box.log.exists() and "ready" in box.log.read_text())
        return container

    return start


@pytest.fixture
def until() -> Callable[..., None]:
    """Waits, at most 20 s, until the function is true."""

    def wait(test: Callable[[], bool], timeout: float = 20.0) -> None:
        end = time.monotonic() + timeout
        while not test():
            assert time.monotonic() < end, "it did not come true"
            time.sleep(0.01)

    return wait


@pytest.fixture(autouse=True)
def _own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where containers have their TMPDIR; some tests leave one without removing it."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(directory))
