"""`byoa demo`: the guided tour on a local SageMaker of its own, which leaves nothing behind.

With Docker the image is pushed to a registry that stands for ECR's, and the jobs name it by its URI
there, as in the cloud.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from byoa.container.errors import ByoaError
from byoa.local import client
from byoa.local.commands.options import command
from byoa.local.commands.server import DETACH_SECONDS, DOWN_SECONDS, _await

IMAGE = "byoa:latest"
ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
# The tour's clients must not read the credentials or the endpoints of a real account.
CLIENT_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def add(commands: Any) -> None:
    parser = command(
        commands, "demo", run_demo,
        help="train, deploy and evaluate a digit classifier without an account, or without Docker",
        example="byoa demo --output byoa-demo",
    )
    parser.add_argument("--output", default="byoa-demo", help="where the picture goes (byoa-demo)")
    parser.add_argument(
        "--runner", choices=("process", "docker"), default="process",
        help="where jobs run: processes of this machine, or containers of the image (process)",
    )
    parser.add_argument("--image", default=IMAGE, help=f"the engine's image to push ({IMAGE})")
    parser.add_argument("--seed", type=int, default=0, help="of the split and the training (0)")


def run_demo(args: argparse.Namespace) -> int:
    for module, extra in (("sklearn", "demo"), ("matplotlib", "demo"), ("torch", "torch")):
        _require(module, extra)
    started = time.monotonic()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(CLIENT_ENVIRONMENT)
    interrupted = threading.Event()

    def interrupt(*_: Any) -> None:
        # An import may swallow the exception, so the tour also looks at the event.
        interrupted.set()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    before: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(
            tempfile.TemporaryDirectory(prefix="byoa-demo-", ignore_cleanup_errors=True)
        ))
        image, registry = IMAGE, ""
        if args.runner == "docker":
            image, registry = _push(args.image, home / "registry", stack)
            before["Push the image"] = time.monotonic() - started
        launched = time.monotonic()
        with _Server(home, args.runner, registry) as server:
            ready = time.monotonic()
            print(f"local SageMaker on {server.url}")
            from byoa.local.demo.tour import Tour

            suffix = time.strftime("%H%M%S")
            tour = Tour(server.url, Path(args.output), suffix, interrupted, args.seed, image)
            accuracy = tour.run()
            stopping = time.monotonic()
    ended = time.monotonic()
    seconds = {
        **before,
        "Start the local SageMaker": ready - launched,
        **tour.seconds,
        "Stop the local SageMaker": ended - stopping,
    }
    print("\nwhere the time went")
    for title, spent in seconds.items():
        print(f"   {title:<28} {spent:6.1f} s")
    print(f"   {'all':<28} {ended - started:6.1f} s\n")
    print(f"test accuracy: {accuracy:.3f}")
    return 0


def _push(image: str, directory: Path, stack: contextlib.ExitStack) -> tuple[str, str]:
    """The image's URI as ECR would give it, and the registry where it now is."""
    from byoa.local.demo.registry import Registry, push
    from byoa.local.runners import engine

    docker = stack.enter_context(contextlib.closing(engine.connect()))
    if not docker.images.list(image):
        raise ByoaError(
            "IMAGE_UNKNOWN",
            f"the engine has no image {image!r}",
            remedy="make image, or name another: --image NAME",
        )
    address = os.environ.get("BYOA_REGISTRY") or stack.enter_context(Registry(directory)).address
    digest = push(docker, image, address)
    uri = f"{ECR}/{image}"
    print(f"pushed {image} to {address}, {digest}\nthe jobs' image is {uri}")
    # What the runner pulls gets this name in the engine, which had none.
    stack.callback(_forget, docker, uri)
    return uri, address


def _forget(docker: Any, uri: str) -> None:
    with contextlib.suppress(Exception):  # it was not pulled, or somebody uses it
        docker.images.remove(uri)


def _require(module: str, extra: str) -> None:
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise ByoaError(
            "EXTRA_MISSING",
            f"the demo needs {module}, which is not installed",
            remedy=f"pip install 'byoa[{extra}]', or run `make demo`, which installs it",
        )


class _Server:
    """A local SageMaker in a process of its own, stopped whatever happens in between."""

    def __init__(self, home: Path, runner: str = "process", registry: str = "") -> None:
        self.home = home
        self.url = ""
        self._argv = ["--runner", runner]
        self._environment = os.environ | {"BYOA_REGISTRY": registry}

    def __enter__(self) -> _Server:
        self.log = self.home / "server.log"
        with self.log.open("wb") as output:
            # Its own session: Ctrl-C reaches the tour alone, which deletes what it made first.
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "byoa.local.cli", "up", "--home", str(self.home),
                 "--port", "0", *self._argv],
                env=self._environment,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )
        try:
            record = _await(
                lambda: client.read_record(self.home) if self.process.poll() is None else {},
                DETACH_SECONDS,
            )
            if not record:
                raise ByoaError(
                    "SERVER_NOT_STARTED",
                    f"the local SageMaker did not start:\n{self.log.read_text(errors='replace')}",
                )
        except BaseException:
            self.__exit__()
            raise
        self.url = record["url"]
        return self

    def __exit__(self, *_: object) -> None:
        # From here on the tour ends; another Ctrl-C must not leave the server behind.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        self.process.terminate()
        try:
            self.process.wait(DOWN_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
