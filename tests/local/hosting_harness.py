"""The hosting half of the local SageMaker on a free port, with a small model server as container.

As a program, `hosting_harness.py HOME IMAGE` prints its URL: a server that a test may kill. Where
IMAGE is not `stub:latest`, it is an engine's, and Docker runs it.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from byoa.local.api.dispatch import Dispatcher
from byoa.local.api.http import HttpServer, Response
from byoa.local.api.sagemaker import ControlPlane
from byoa.local.aws.logs import Logs
from byoa.local.aws.metrics import Metrics
from byoa.local.aws.services import AwsServices
from byoa.local.control.endpoint_configs import EndpointConfigs
from byoa.local.control.endpoint_instances import Platform
from byoa.local.control.endpoints import Endpoints
from byoa.local.control.models import Models
from byoa.local.runners.docker import DockerRunner
from byoa.local.runners.images import Image, Images
from byoa.local.runners.process import ProcessRunner
from byoa.local.runtime.invocation_metrics import InvocationMetrics
from byoa.local.runtime.invocations import Invocations
from byoa.local.runtime.routing import Router
from byoa.local.settings import Caller, Settings
from byoa.local.storage.buckets import Buckets
from byoa.local.storage.state import State

CALLER = Caller("123456789012", "us-west-2")
BUCKET = "models"
IMAGE = "stub:latest"
SERVER = Path(__file__).with_name("model_server.py")
STREAMING_IMAGE = "streaming:latest"
STREAMING_SERVER = Path(__file__).with_name("streaming_server.py")
MANY_IMAGE = "many:latest"
MANY_SERVER = Path(__file__).with_name("many_models_server.py")
# By the name of the image that it is as a process.
PROGRAMS = {IMAGE: SERVER, STREAMING_IMAGE: STREAMING_SERVER, MANY_IMAGE: MANY_SERVER}
DOCKERFILE = """
ARG BASE_IMAGE
FROM $BASE_IMAGE
COPY {program} /
ENTRYPOINT ["python3", "-S", "/{program}"]
"""


class StubImages(Images):
    """Images where `stub:latest` is the small model server, `streaming:latest` the one that
    streams, `many:latest` the one of many models."""

    def resolve(self, reference: str) -> Image:
        if reference in PROGRAMS:
            return Image(reference, (sys.executable, "-S", str(PROGRAMS[reference])))
        return super().resolve(reference)


def archive(**files: str) -> bytes:
    """A tar.gz of small files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name.replace("__", "."))
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def wait_until(look, seconds: float = 20.0, every: float = 0.02):
    """What `look` gives once it is true; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"still not so after {seconds} s"
        time.sleep(every)
    return found


def client_of(url: str, service: str, **config: Any) -> Any:
    config = {"retries": {"max_attempts": 0}, "read_timeout": 30, **config}
    return boto3.client(
        service, endpoint_url=url, region_name=CALLER.region, aws_access_key_id="a",
        aws_secret_access_key="b", config=Config(**config),
    )


@dataclass
class Clients:
    """boto3 as its users have it, and the steps that most tests begin with."""

    url: str
    image: str = IMAGE
    open: list[Any] = field(default_factory=list)

    def client(self, service: str, **config: Any) -> Any:
        made = client_of(self.url, service, **config)
        self.open.append(made)
        return made

    def close(self) -> None:
        for each in self.open:
            each.close()

    def __post_init__(self) -> None:
        self.sm = self.client("sagemaker")
        self.runtime = self.client("sagemaker-runtime")

    def create_model(self, name: str, *, data: str | None = None, **environment: str) -> str:
        container = {"Image": self.image, "Environment": environment}
        if data is not None:
            container["ModelDataUrl"] = data
        return self.sm.create_model(ModelName=name, PrimaryContainer=container)["ModelArn"]

    def create_config(self, name: str, **variants: Any) -> str:
        """`create_config("c", A="model", B=("model", {"InitialInstanceCount": 2}))`."""
        made = []
        for variant, value in variants.items():
            model, more = value if isinstance(value, tuple) else (value, {})
            made.append({"VariantName": variant, "ModelName": model, "InitialInstanceCount": 1,
                         "InstanceType": "ml.m5.large", **more})
        answer = self.sm.create_endpoint_config(EndpointConfigName=name, ProductionVariants=made)
        return answer["EndpointConfigArn"]

    def deploy(self, name: str = "ep", *, data: str | None = None, count: int = 1, **env: str):
        """An endpoint InService with one variant, AllTraffic."""
        self.create_model(name, data=data, **env)
        self.create_config(name, AllTraffic=(name, {"InitialInstanceCount": count}))
        self.sm.create_endpoint(EndpointName=name, EndpointConfigName=name)
        described = self.settled(name)
        assert described["EndpointStatus"] == "InService", described.get("FailureReason")
        return described

    def settled(self, name: str = "ep", seconds: float = 20.0) -> dict[str, Any]:
        """The endpoint's description once its status is no transient one."""
        def look():
            described = self.sm.describe_endpoint(EndpointName=name)
            return described if described["EndpointStatus"] in ("InService", "Failed") else None
        return wait_until(look, seconds)

    def gone(self, name: str = "ep") -> str:
        """The words of Describe once the endpoint is gone."""
        def look():
            try:
                self.sm.describe_endpoint(EndpointName=name)
            except self.sm.exceptions.ClientError as error:
                return error.response["Error"]["Message"]
            return None
        return wait_until(look)


class Hosting(Clients):
    """A server in this process."""

    def __init__(
        self, home: Path, image: str = IMAGE, onlooker: Any = None, **settings: Any
    ) -> None:
        self.home = home
        self.onlooker = onlooker
        self.closed = False
        self.settings = Settings(
            home=home, region=CALLER.region, describe_hold=0.0, **settings
        )
        self.state = State(home / "state.sqlite")
        self.buckets = Buckets(home)
        self.buckets.create(BUCKET)
        self.aws = AwsServices(CALLER.account)
        self.runner = (
            ProcessRunner(StubImages(self.state), home) if image in PROGRAMS
            else DockerRunner(home, labels={"byoa.test": "hosting"})
        )
        self.router = Router()
        platform = Platform(
            self.runner,
            self.buckets,
            self.settings,
            lambda caller, image: {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "local"},
            Logs(self.aws.moto),
        )
        self.endpoints = Endpoints(self.state, platform, self.router)
        self.metrics = InvocationMetrics(Metrics(self.aws.moto), interval=0.2)
        operations = {
            **Models(self.state, self.buckets, self.runner).operations,
            **EndpointConfigs(self.state).operations,
            **self.endpoints.operations,
        }
        control = ControlPlane(operations, state=self.state, aws=self.aws, describe_hold=0.0)
        self.dispatcher = Dispatcher(
            self.settings,
            control=control,
            runtime=Invocations(self.router, self.endpoints, self.metrics, self.settings),
            s3=lambda request: Response(status=404),
            aws=self.aws,
        )
        self.server = HttpServer(self.dispatcher)
        url = f"http://127.0.0.1:{self.server.port}"
        super().__init__(url, image)
        self.endpoints.start()
        self.metrics.start()
        self.server.start()

    def put(self, key: str, data: bytes) -> str:
        self.buckets.put_bytes(BUCKET, key, data)
        return f"s3://{BUCKET}/{key}"

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        super().close()
        self.server.stop(5.0)
        self.endpoints.close(20.0)
        self.metrics.close()
        self.runner.close()
        self.state.close()
        self.buckets.close()


def _build(build_image, folder: Path, program: Path) -> str:
    folder.mkdir()
    folder.joinpath("Dockerfile").write_text(DOCKERFILE.format(program=program.name))
    shutil.copy(program, folder)
    return build_image(folder)


@pytest.fixture(scope="session")
def model_server_image(build_image, tmp_path_factory):
    return _build(build_image, tmp_path_factory.mktemp("image") / "model-server", SERVER)


@pytest.fixture(scope="session")
def streaming_server_image(build_image, tmp_path_factory):
    folder = tmp_path_factory.mktemp("image") / "streaming-server"
    return _build(build_image, folder, STREAMING_SERVER)


@pytest.fixture
def hosted_image(runner_kind, request):
    """The model server as an image of the runner."""
    return IMAGE if runner_kind == "process" else request.getfixturevalue("model_server_image")


@pytest.fixture
def start_hosting(tmp_path, hosted_image, onlooker):
    """Servers with settings of one's own, or one after the other on the same home."""
    started: list[Hosting] = []

    def start(home: Path | None = None, **settings: Any) -> Hosting:
        home = home or tmp_path / "home"
        limits = {"invocation_timeout": 1.5, "startup_window": 20.0}
        started.append(
            Hosting(home, hosted_image, onlooker(home), **{**limits, **settings})
        )
        return started[-1]

    yield start
    for serving in started:
        serving.close()


@pytest.fixture
def hosting(start_hosting):
    """A server with hosting; ends every container at the end."""
    return start_hosting()


@dataclass
class Killable:
    """The same server in a process of its own."""

    home: Path
    image: str
    onlooker: Any
    process: subprocess.Popen[str] | None = None

    def start(self) -> Clients:
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(self.home), self.image],
            stdout=subprocess.PIPE, text=True,
        )
        return Clients(self.process.stdout.readline().strip(), self.image)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture
def killable(tmp_path, hosted_image, onlooker):
    server = Killable(tmp_path / "home", hosted_image, onlooker(tmp_path / "home"))
    yield server
    if server.process is not None and server.process.poll() is None:
        server.process.terminate()
        server.process.wait(40)
        server.process.stdout.close()


def main() -> None:
    import signal
    import threading

    serving = Hosting(
        Path(sys.argv[1]), sys.argv[2], invocation_timeout=5.0, startup_window=20.0
    )
    serving.put("model.tar.gz", archive(model__txt="stored"))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print(serving.url, flush=True)
    parent = os.getppid()
    while not stop.wait(0.2):
        if os.getppid() != parent:
            break
    serving.close()


if __name__ == "__main__":
    main()
