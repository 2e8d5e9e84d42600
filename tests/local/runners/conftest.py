"""A process runner over a state of its own, and programs for it to run."""

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


@pytest.fixture(params=["off", "auto"])
def runner(
    request: pytest.FixtureRequest, images: Any, tmp_path: Path, sandbox_available: bool
) -> Any:
    """Each test that uses it runs with SAGEMAKER_BASE_DIR and with a private /opt/ml."""
    from byoa.local.runners.process import ProcessRunner

    if request.param == "auto" and not sandbox_available:
        pytest.skip("the kernel allows no namespaces here")
    return ProcessRunner(images, tmp_path / "home", sandbox=request.param)


@pytest.fixture
def plain_runner(images: Any, tmp_path: Path) -> Any:
    """Without namespaces, for what does not depend on them."""
    from byoa.local.runners.process import ProcessRunner

    return ProcessRunner(images, tmp_path / "home", sandbox="off")


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., Any]:
    """A container of a Python script; `ml` is its /opt/ml in the script."""
    from byoa.container.contract import Layout
    from byoa.local.runners.base import ContainerSpec

    def build(source: str, name: str = "box", **members: Any) -> Any:
        ml = tmp_path / f"ml-{name}"
        Layout(ml).create()
        script = tmp_path / f"{name}.py"
        script.write_text(
            "import json, os, pathlib, signal, subprocess, sys, time\n"
            "ml = pathlib.Path(os.environ.get('SAGEMAKER_BASE_DIR', '/opt/ml'))\n"
            + textwrap.dedent(source),
            encoding="utf-8",
        )
        settings: dict[str, Any] = {
            "name": name, "image": "byoa:latest", "command": (), "ml": ml,
            "log": tmp_path / f"{name}.log", "entrypoint": (sys.executable, str(script)),
        }
        return ContainerSpec(**settings | members)

    return build


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
