"""The local SageMaker, put together: storage, runner, control, runtime and the one port.

`Service` is the whole of it as an object; `serve` is the process that `byoa up` runs.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from byoa.container.errors import ByoaError
from byoa.local.api.certificates import Authority
from byoa.local.api.dispatch import Dispatcher
from byoa.local.api.http import HttpServer, Request, Response
from byoa.local.api.proxy import ProxyDoor
from byoa.local.api.s3 import S3Handler
from byoa.local.api.sagemaker import ControlPlane
from byoa.local.aws.logs import Logs
from byoa.local.aws.metrics import Metrics
from byoa.local.aws.services import AwsServices
from byoa.local.client import INTERRUPT_PATH, JSON, STATUS_PATH, lock_path, record_path
from byoa.local.control.endpoint_configs import EndpointConfigs
from byoa.local.control.endpoint_instances import Platform
from byoa.local.control.endpoints import Endpoints
from byoa.local.control.left_behind import wanted
from byoa.local.control.models import Models
from byoa.local.control.training_jobs import TrainingJobs
from byoa.local.environment import ca_directory
from byoa.local.errors import AwsError
from byoa.local.runners.auto import AutoRunner
from byoa.local.runners.base import Runner
from byoa.local.runners.engine import test_label
from byoa.local.runners.images import Images
from byoa.local.runners.process import ProcessRunner
from byoa.local.runtime.invocation_metrics import InvocationMetrics
from byoa.local.runtime.invocations import Invocations
from byoa.local.runtime.routing import Router
from byoa.local.settings import Caller, Settings
from byoa.local.storage.buckets import Buckets
from byoa.local.storage.state import State

if TYPE_CHECKING:
    from byoa.local.runners.docker import DockerRunner

log = logging.getLogger(__name__)

# How long an orderly stop waits for jobs, then for endpoints, then for open connections.
STOP_JOBS_SECONDS = 10.0
STOP_ENDPOINTS_SECONDS = 35.0
STOP_CONNECTIONS_SECONDS = 5.0
REQUEST_LIMIT = 64 * 1024  # bytes of a request of `byoa`'s own
LOCK_ATTEMPTS, LOCK_SECONDS = 5, 0.1


class Service:
    """Everything behind the port. `start` recovers what an earlier server left, `close` stops
    jobs and endpoints; records and objects stay."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state = State(settings.home / "state.sqlite")
        self.buckets = Buckets(settings.home)
        self.aws = AwsServices(settings.account)
        logs, metrics = Logs(self.aws.moto), Metrics(self.aws.moto)
        self._doors: dict[str, HttpServer] = {}  # by address, for containers
        self._opening = threading.Lock()
        self.runner = runner = _runner(settings, Images(self.state), self._listen_on)
        self._left = threading.Thread(target=self._look_for_leftovers, name="leftovers")
        self.training_jobs = TrainingJobs(
            self.state, self.buckets, runner, settings, logs, metrics, self._container_environment
        )
        router = Router()
        platform = Platform(
            runner=runner,
            buckets=self.buckets,
            settings=settings,
            environment=self._container_environment,
            logs=logs,
        )
        self.endpoints = Endpoints(self.state, platform, router)
        self._invocation_metrics = InvocationMetrics(metrics)
        self.control = ControlPlane(
            {
                **self.training_jobs.operations,
                **Models(self.state, self.buckets, runner).operations,
                **EndpointConfigs(self.state).operations,
                **self.endpoints.operations,
            },
            state=self.state,
            aws=self.aws,
            describe_hold=settings.describe_hold,
        )
        self._dispatch = Dispatcher(
            settings,
            control=self.control,
            runtime=Invocations(router, self.endpoints, self._invocation_metrics, settings),
            s3=S3Handler(self.buckets, account=settings.account),
            aws=self.aws,
        )
        self._door = ProxyDoor(Authority(ca_directory(settings)))
        self.server = _listen(self._handle, settings, self._door)
        self._door.server = self.server

    @property
    def url(self) -> str:
        """Where clients on this machine reach it; an address to listen on may be a wildcard."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(  # noqa: S104
            self.settings.host, self.settings.host
        )
        return f"http://[{host}]:{self.server.port}" if ":" in host else (
            f"http://{host}:{self.server.port}"
        )

    def start(self) -> None:
        self._wanted = wanted(self.state)  # before there is anything new
        self._left.start()
        self.aws.warm()
        self._invocation_metrics.start()
        self.training_jobs.start()
        self.endpoints.start()
        self.server.start()

    def close(self) -> None:
        """Stop what runs, newest dependants first; nothing stored is touched."""
        self.control.close()
        self._door.close()
        stopping = [
            threading.Thread(target=self.training_jobs.close, args=(STOP_JOBS_SECONDS,)),
            threading.Thread(target=self.endpoints.close, args=(STOP_ENDPOINTS_SECONDS,)),
        ]
        for each in stopping:
            each.start()
        for each in stopping:
            each.join()
        self.server.stop(STOP_CONNECTIONS_SECONDS)
        with self._opening:
            doors = list(self._doors.values())
        for door in doors:
            door.stop(STOP_CONNECTIONS_SECONDS)
        if self._left.ident is not None:
            self._left.join(STOP_CONNECTIONS_SECONDS)
        self.runner.close()
        self._invocation_metrics.close()
        self.buckets.close()
        self.state.close()

    def _handle(self, request: Request) -> Response:
        if request.path == STATUS_PATH:
            return self._status()
        if request.path == INTERRUPT_PATH:
            return self._interrupt(request)
        return self._dispatch(request)

    def _status(self) -> Response:
        running = [
            row for row in self.state.list("training-job")
            if row.status in ("InProgress", "Stopping")
        ]
        document = {
            "jobs": len(running),
            "endpoints": len(self.state.list("endpoint")),
            "runner": self.runner.name,
            "containers": self.runner.describe(),
        }
        return _json(200, document)

    def _interrupt(self, request: Request) -> Response:
        """`byoa interrupt`. A page of a browser cannot send this content type to another's server
        without being asked first (CORS)."""
        if request.method != "POST" or request.headers.get("content-type") != JSON:
            return _json(405, {"message": f"expected POST with Content-Type: {JSON}"})
        try:
            asked = json.loads(request.body.read(REQUEST_LIMIT))
            caller = Caller(self.settings.account, asked.pop("region"))
            answer = self.training_jobs.interrupt(caller, asked.pop("job"), asked)
        except AwsError as error:
            return _json(error.status, {"__type": error.code, "message": error.message})
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            return _json(400, {"message": f"expected a JSON object with region and job: {error}"})
        return _json(200, answer)

    def _listen_on(self, address: str) -> int:
        """Serve containers at one more address of this machine; the port there. Theirs is never
        loopback, and a wildcard would let the whole network in."""
        if self.settings.host in ("0.0.0.0", "::", address):  # noqa: S104
            return self.server.port
        with self._opening:
            if address not in self._doors:
                try:
                    door = HttpServer(self._handle_container, address, self.server.port)
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:
                        raise
                    door = HttpServer(self._handle_container, address, 0)
                door.start()
                log.info("containers reach this server at http://%s:%d", address, door.port)
                self._doors[address] = door
            return self._doors[address].port

    def _handle_container(self, request: Request) -> Response:
        if self.runner.shuts_out(str(request.client[0])):
            return Response(403, [], b"this container's network is isolated\n")
        return self._handle(request)

    def _look_for_leftovers(self) -> None:
        """Say what runs containers, and remove those of an earlier server that nobody needs."""
        try:
            log.info("containers: %s", self.runner.describe())
            for name in self.runner.sweep(self._wanted):
                log.info("%s, left by an earlier server, is removed", name)
        except ByoaError as error:
            log.warning("what an earlier server left is not looked for: %s", error)

    def _container_environment(self, caller: Caller, image: str) -> dict[str, str]:
        """How code in a container reaches this service; the keys open nothing but this server."""
        url = self.runner.inside(image, self.url)
        return {
            "AWS_ENDPOINT_URL": url,
            "S3_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "byoa",
            "AWS_SECRET_ACCESS_KEY": "byoa",
            "AWS_REGION": caller.region,
            "AWS_DEFAULT_REGION": caller.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def _json(status: int, document: object) -> Response:
    return Response(status, [("Content-Type", JSON)], json.dumps(document).encode())


def _runner(settings: Settings, images: Images, listen: Callable[[str], int]) -> Runner:
    process = ProcessRunner(images, settings.home, sandbox=settings.sandbox)
    if settings.runner == "process":
        return process

    def docker() -> DockerRunner:
        from byoa.local.runners.docker import DockerRunner

        return DockerRunner(
            settings.home, registry=settings.registry, listen=listen, labels=test_label()
        )

    if settings.runner == "auto":
        return AutoRunner(docker, process)
    only = docker()
    only.connect()
    return only


def _listen(handler: object, settings: Settings, door: ProxyDoor) -> HttpServer:
    try:
        return HttpServer(handler, settings.host, settings.port, door)  # type: ignore[arg-type]
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise ByoaError(
            "PORT_IN_USE",
            f"something else listens on {settings.host}:{settings.port}",
            remedy="choose another with --port, or 0 for a free one",
        ) from None


@contextlib.contextmanager
def _only_server(home: Path) -> Iterator[None]:
    """One server a state directory: two would run the same jobs.

    The lock is held until the process ends, however it ends; others tell by it whether a server
    runs.
    """
    home.mkdir(parents=True, exist_ok=True)
    with lock_path(home).open("w") as lock:
        for attempt in range(LOCK_ATTEMPTS):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # It may be a look at the lock that is over in a moment.
                if attempt < LOCK_ATTEMPTS - 1:
                    time.sleep(LOCK_SECONDS)
        else:
            raise ByoaError(
                "SERVER_RUNNING",
                f"another server is starting or running with {home}",
                remedy="see `byoa status`, or use another --home",
            )
        record_path(home).unlink(missing_ok=True)  # of a server that was killed
        yield


def serve(settings: Settings) -> int:
    """Run in the foreground until SIGTERM or SIGINT; exit code 0."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    stop = threading.Event()

    def ask(number: int, _: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    with _only_server(settings.home):
        service = Service(settings)
        record = record_path(settings.home)
        try:
            service.start()
            _write_record(record, service.url)
            print(
                f"local SageMaker on {service.url}\n"
                f"state in {settings.home}; point clients at it with: eval \"$(byoa env)\"",
                flush=True,
            )
            # A bounded wait, so that a signal that arrives between two is seen everywhere.
            while not stop.wait(1.0):
                pass
            print("stopping jobs and endpoints", flush=True)
        finally:
            service.close()
            record.unlink(missing_ok=True)
    return 0


def _write_record(path: Path, url: str) -> None:
    """Replace the record whole: another process may be reading it."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"url": url, "pid": os.getpid(), "started": time.time()}))
    part.replace(path)
