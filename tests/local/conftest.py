"""The wire alone: dispatcher, control plane, moto, proxy on a socket, and a test's operations."""

from __future__ import annotations

import importlib.util
import sys
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


def _load_harness() -> Any:
    """`import hosting_harness` works in the tests below: this folder is no package."""
    place = Path(__file__).with_name("hosting_harness.py")
    spec = importlib.util.spec_from_file_location("hosting_harness", place)
    module = sys.modules["hosting_harness"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_harness = _load_harness()
hosting = _harness.hosting
start_hosting = _harness.start_hosting
killable = _harness.killable
