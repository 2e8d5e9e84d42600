"""Docker where it has the image, else a process: the choice, and the reasons when neither."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from byoa.container.errors import ByoaError, UnsupportedError
from byoa.local.runners import auto
from byoa.local.runners.auto import AutoRunner
from byoa.local.runners.docker import DockerRunner
from byoa.local.runners.engine import EngineUnavailable
from byoa.local.settings import Settings


@pytest.fixture
def without_engine(plain_runner: Any, monkeypatch: pytest.MonkeyPatch) -> AutoRunner:
    def find() -> None:
        raise EngineUnavailable("there is no container engine", remedy="install one")

    monkeypatch.setattr(auto.engine, "find", find)
    return AutoRunner(lambda: pytest.fail("there is no engine"), plain_runner)


def test_without_an_engine_byoa_s_own_images_are_processes(
    without_engine: AutoRunner, plain_runner: Any, spec: Any, run: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert without_engine.choose("byoa:latest") is plain_runner
    without_engine.check("byoa:latest")
    with caplog.at_level("INFO", "byoa.runners"):
        assert run(without_engine, spec("")).code == 0
    assert "byoa:latest runs as a process: there is no container engine" in caplog.text
    assert without_engine.describe() == "processes; there is no container engine"
    assert without_engine.adopt({"name": "never"}) is None
    assert without_engine.sweep(lambda name: False) == []
    assert without_engine.inside("byoa", "http://127.0.0.1:1") == "http://127.0.0.1:1"
    without_engine.check_pipes("byoa:latest")
    assert without_engine.shows_read_only("byoa:latest") is plain_runner.shows_read_only("byoa")


def test_an_image_that_runs_nowhere_is_refused_with_both_reasons(
    without_engine: AutoRunner
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        without_engine.check("xgboost:1")
    assert "neither in Docker (there is no container engine) nor as a process" in str(caught.value)
    assert caught.value.remedy == "install one; or byoa image add xgboost FOLDER"


def test_a_process_is_adopted_whoever_asks(
    without_engine: AutoRunner, spec: Any
) -> None:
    container = without_engine.start(spec("time.sleep(60)"))
    for handle in (container.handle, {"name": "box"}):
        assert without_engine.adopt(handle) is not None
    container.kill()
    container.wait(20)
    container.remove()


@pytest.fixture
def with_engine(make_docker_runner: Callable[..., DockerRunner], plain_runner: Any) -> AutoRunner:
    return AutoRunner(make_docker_runner, plain_runner)


@pytest.mark.docker
def test_an_image_of_the_engine_runs_there_and_others_as_processes(
    with_engine: AutoRunner, plain_runner: Any, base_image: str, spec: Any, run: Any
) -> None:
    assert isinstance(with_engine.choose(base_image), DockerRunner)
    box = spec("print('in a container')", image=base_image)
    container = with_engine.start(box)
    assert container.handle["runner"] == "docker"
    assert with_engine.adopt({"name": "box"}) is container
    assert container.wait(30).code == 0
    container.remove()

    unbuilt = "123456789012.dkr.ecr.us-east-1.amazonaws.com/byoa:never-built"
    assert with_engine.choose(unbuilt) is plain_runner
    with pytest.raises(UnsupportedError, match=r"neither in Docker \(the engine has no image"):
        with_engine.check("never-built:1")
    assert "where it has the image, else processes" in with_engine.describe()


@pytest.mark.docker
def test_a_stopped_engine_is_looked_for_again_a_little_later(
    plain_runner: Any, base_image: str, make_docker_runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = False

    def connect() -> Any:
        from byoa.local.runners import engine

        if not answers:
            raise EngineUnavailable("it is stopped")
        return engine.connect()

    runner = AutoRunner(lambda: make_docker_runner(connect=connect), plain_runner)
    with pytest.raises(UnsupportedError, match="it is stopped"):
        runner.check(base_image)
    answers = True
    with pytest.raises(UnsupportedError, match="it is stopped"):
        runner.check(base_image)  # too early
    monkeypatch.setattr(auto, "RETRY_SECONDS", 0.0)
    runner.check(base_image)


def test_only_the_three_runners_are_settings() -> None:
    for name in ("auto", "process", "docker"):
        assert Settings.from_environment({"BYOA_RUNNER": name}).runner == name
    assert Settings.from_environment({"BYOA_RUNNER": "docker"}, runner="process").runner == (
        "process"
    )
    with pytest.raises(ByoaError, match="BYOA_RUNNER is 'podman'; expected: auto or process or"):
        Settings.from_environment({"BYOA_RUNNER": "podman"})


def test_the_docker_runner_refuses_an_engine_of_another_machine(tmp_path: Path) -> None:
    class Api:
        base_url = "http://192.0.2.7:2375"

        def info(self) -> dict[str, Any]:
            return {}

        def version(self) -> dict[str, Any]:
            return {"Version": "20"}

    class Client:
        api = Api()
        closed = False

        def close(self) -> None:
            self.closed = True

    client = Client()
    with pytest.raises(EngineUnavailable, match=r"192\.0\.2\.7 is another machine"):
        DockerRunner(tmp_path, connect=lambda: client).connect()
    assert client.closed
