"""The wire alone: dispatcher, control plane, moto, proxy on a socket, and a test's operations."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Wire:
    """A served dispatcher; S3 and runtime requests are recorded."""

    home: Path
    state: Any
    aws: Any
    control: Any
    door: Any
    server: Any = None
    s3_requests: list[Any] = field(default_factory=list)
    invocations: list[Any] = field(default_factory=list)
    clients: list[Any] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def client(self, service: str, region: str = "eu-west-3", **config: Any) -> Any:
        import boto3
        from botocore.config import Config

        client = boto3.session.Session().client(
            service,
            endpoint_url=self.url,
            region_name=region,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"max_attempts": 0}, **config),
        )
        self.clients.append(client)
        return client

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.control.close()
        self.door.close()
        self.server.stop(2.0)
        self.state.close()


@pytest.fixture
def serve_wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Wire]]:
    """Serves operations (name → function of caller and request) as the real server does."""
    from byoa.local.api.certificates import Authority
    from byoa.local.api.dispatch import Dispatcher
    from byoa.local.api.http import HttpServer, Request, Response
    from byoa.local.api.proxy import ProxyDoor
    from byoa.local.api.sagemaker import ControlPlane
    from byoa.local.aws.services import AwsServices
    from byoa.local.settings import Caller, Settings
    from byoa.local.storage.state import State

    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_CA_BUNDLE", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    served: list[Wire] = []

    def serve(operations: dict[str, Any] | None = None, **settings_: Any) -> Wire:
        settings = Settings(home=tmp_path / f"home-{len(served)}", **settings_)
        state = State(settings.home / "state.sqlite")
        aws = AwsServices(settings.account)
        control = ControlPlane(
            operations or {}, state=state, aws=aws, describe_hold=settings.describe_hold
        )
        door = ProxyDoor(Authority(settings.home / "ca"))
        wire = Wire(settings.home, state, aws, control, door)

        def s3(request: Request) -> Response:
            wire.s3_requests.append(request)
            request.body.read()
            listing = b"<ListAllMyBucketsResult><Buckets></Buckets></ListAllMyBucketsResult>"
            return Response(headers=[("Content-Type", "application/xml")], body=listing)

        class Runtime:
            def handle(self, request: Request, caller: Caller) -> Response:
                body = request.body.read()
                wire.invocations.append((request.path, caller, body))
                return Response(headers=[("Content-Type", "text/csv")], body=body)

        dispatcher = Dispatcher(settings, control=control, runtime=Runtime(), s3=s3, aws=aws)
        wire.server = HttpServer(dispatcher, "127.0.0.1", 0, door)
        door.server = wire.server
        wire.server.start()
        served.append(wire)
        return wire

    yield serve
    for wire in served:
        wire.close()


@pytest.fixture
def wire(serve_wire: Callable[..., Wire]) -> Wire:
    """A wire without operations of its own: tags, records, moto, proxy."""
    return serve_wire()


class Processes:
    """Containers of a state directory that are processes, as somebody beside the server sees and
    ends them. A name may be the end of one."""

    def __init__(self, home: Path) -> None:
        self._directory = home / "containers"

    def running(self) -> list[str]:
        from byoa.local.runners import identity

        return sorted(
            path.parent.name for path in self._directory.glob("*/child.json")
            if identity.is_running(**json.loads(path.read_text()))
        )

    def left(self) -> list[str]:
        """What is left of containers, running or ended."""
        return [path.name for path in self._directory.glob("*")]

    def kill(self, name: str = "") -> None:
        """SIGKILL; returns when it has ended, and the exit is written down."""
        (path,) = self._directory.glob(f"*{name}")
        os.killpg(json.loads(path.joinpath("child.json").read_text())["pid"], signal.SIGKILL)
        end = time.monotonic() + 20
        while not path.joinpath("exit.json").exists():
            assert time.monotonic() < end
            time.sleep(0.02)

    def lose(self, name: str = "") -> None:
        """Kill it, and remove what tells of it."""
        (path,) = self._directory.glob(f"*{name}")
        self.kill(name)
        shutil.rmtree(path)

    def vanish(self, name: str = "") -> None:
        """Kill what stands between it and the server."""
        (path,) = self._directory.glob(f"*{name}")
        os.kill(json.loads(path.joinpath("shim.json").read_text())["pid"], signal.SIGKILL)

    def clear(self) -> None:
        """Nothing: the services that were closed have ended theirs."""


class EngineContainers:
    """The same of containers in an engine."""

    def __init__(self, home: Path) -> None:
        from byoa.local.runners.docker import DockerRunner

        self._runner = DockerRunner(home)
        self._runner.connect()

    def running(self) -> list[str]:
        return sorted(self._runner.running())

    def left(self) -> list[str]:
        """Containers and networks."""
        return self._runner.orphans(lambda name: False)

    def kill(self, name: str = "") -> None:
        self._runner._client.api.kill(self._find(name))
        self._runner._client.api.wait(self._find(name))

    def lose(self, name: str = "") -> None:
        self._runner._client.api.remove_container(self._find(name), force=True)

    vanish = lose  # the engine's own account of it is gone

    def clear(self) -> None:
        """Remove what is left, and let go of the engine."""
        self._runner.sweep(lambda name: False)
        self._runner.close()

    def _find(self, name: str) -> str:
        (found,) = [
            each["Id"] for each in self._runner._list()
            if each["Labels"]["byoa.name"].endswith(name)
        ]
        return found


@pytest.fixture
def onlooker(runner_kind: str) -> Iterator[Callable[[Path], Any]]:
    """Gives what runs for a state directory; at the end, after the services, nothing does."""
    made: list[Any] = []

    def look(home: Path) -> Any:
        made.append((EngineContainers if runner_kind == "docker" else Processes)(home))
        return made[-1]

    yield look
    for each in made:
        each.clear()


@pytest.fixture
def start_server(runner_kind: str, onlooker: Any, new_sagemaker: Any) -> Any:
    """Starts a server of the test's runner; its `onlooker` sees what it runs."""

    def start() -> Any:
        in_docker = {"BYOA_RUNNER": "docker", "BYOA_TEST": "restart"}
        server = new_sagemaker(**(in_docker if runner_kind == "docker" else {}))
        server.onlooker = onlooker(server.home)
        return server

    return start


def _load_harness() -> Any:
    """`import hosting_harness` works in the tests below: this folder is no package."""
    place = Path(__file__).with_name("hosting_harness.py")
    spec = importlib.util.spec_from_file_location("hosting_harness", place)
    module = sys.modules["hosting_harness"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_harness = _load_harness()
model_server_image = _harness.model_server_image
streaming_server_image = _harness.streaming_server_image
hosted_image = _harness.hosted_image
hosting = _harness.hosting
start_hosting = _harness.start_hosting
killable = _harness.killable
