"""Docker where the engine has the image, a process of this machine else; it says which.

A machine without an engine, or whose engine is stopped, runs byoa's own images all the same.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from byoa.container.errors import ByoaError, UnsupportedError
from byoa.local.runners import engine
from byoa.local.runners.base import Container, ContainerSpec, Network, Runner, Warm
from byoa.local.runners.engine import EngineUnavailable

if TYPE_CHECKING:
    from byoa.local.runners.docker import DockerRunner

# How long an engine that did not answer is left alone: each request would look for it again.
RETRY_SECONDS = 5.0

log = logging.getLogger("byoa.runners")


class AutoRunner(Runner):
    """Chooses between the two for each image anew: an image may be built at any time."""

    name = "auto"

    def __init__(self, docker: Callable[[], DockerRunner], process: Runner) -> None:
        # Made when there is an engine: importing its SDK takes a third of a second.
        self._make_docker = docker
        self._made: DockerRunner | None = None
        self._process = process
        self._lock = threading.Lock()
        self._absent: tuple[float, EngineUnavailable] | None = None

    def choose(self, image: str) -> Runner:
        """The runner of an image; raises UnsupportedError with both reasons."""
        try:
            return self._docker_with(image)
        except UnsupportedError as refusal:
            self._check_process(image, refusal)
            return self._process

    def check(
        self, image: str, *, isolated: bool = False, hosts: int = 1, serves: bool = False,
        program: Sequence[str] = (),
    ) -> None:
        how = {"isolated": isolated, "hosts": hosts, "serves": serves, "program": program}
        try:
            docker = self._docker_with(image)
        except UnsupportedError as refusal:
            self._check_process(image, refusal, **how)
            return
        docker.check(image, isolated=isolated, hosts=hosts, serves=serves, program=program)

    def check_pipes(self, image: str) -> None:
        self.choose(image).check_pipes(image)

    def shows_read_only(self, image: str) -> bool:
        return self.choose(image).shows_read_only(image)

    def inside(self, image: str, url: str) -> str:
        return self.choose(image).inside(image, url)

    def interface(self, image: str) -> str:
        return self.choose(image).interface(image)

    def start(self, spec: ContainerSpec, warm: Warm | None = None) -> Container:
        try:
            docker = self._docker_with(spec.image)
        except UnsupportedError as refusal:
            log.info("%s: %s runs as a process: %s", spec.name, spec.image, refusal.message)
            return self._process.start(spec, warm)
        return docker.start(spec, warm)

    def warm(self, spec: ContainerSpec) -> Warm | None:
        return self.choose(spec.image).warm(spec)

    def adopt(self, handle: Mapping[str, Any]) -> Container | None:
        found = None
        if handle.get("runner", "process") == "process":
            found = self._process.adopt(handle)
        if found is None and handle.get("runner", "docker") == "docker":
            try:
                found = self.docker().adopt(handle)
            except EngineUnavailable:
                return None
        return found

    def release(self, network: Network) -> None:
        if self._made is not None:
            self._made.release(network)
        self._process.release(network)

    def describe(self) -> str:
        try:
            return f"{self.docker().engine} where it has the image, else processes"
        except EngineUnavailable as error:
            return f"processes; {error.message}"

    def shuts_out(self, client: str) -> bool:
        return self._made is not None and self._made.shuts_out(client)

    def sweep(self, keep: Callable[[str], bool]) -> list[str]:
        try:
            return self.docker().sweep(keep)
        except EngineUnavailable:
            return []

    def close(self) -> None:
        if self._made is not None:
            self._made.close()

    def docker(self) -> DockerRunner:
        """The runner of the engine; raises EngineUnavailable, too, for a while after it did."""
        with self._lock:
            if self._absent is not None and time.monotonic() - self._absent[0] < RETRY_SECONDS:
                raise self._absent[1]
            try:
                if self._made is None:
                    engine.find()
                    self._made = self._make_docker()
                self._made.connect()
            except EngineUnavailable as error:
                self._absent = (time.monotonic(), error)
                raise
            self._absent = None
            return self._made

    def _docker_with(self, image: str) -> DockerRunner:
        """The runner of the engine; raises UnsupportedError where that has no such image."""
        docker = self.docker()
        docker.check(image)
        return docker

    def _check_process(self, image: str, refusal: ByoaError, **how: Any) -> None:
        """Check the image as a process; the error says why not in Docker, too."""
        try:
            self._process.check(image, **how)
        except UnsupportedError as error:
            raise _both(image, refusal, error) from None


def _both(image: str, docker: ByoaError, process: ByoaError) -> UnsupportedError:
    return UnsupportedError(
        process.code,
        f"image {image!r} runs neither in Docker ({docker.message}) nor as a process"
        f" ({process.message})",
        expected="; or ".join(each.expected for each in (docker, process) if each.expected) or None,
        remedy="; or ".join(each.remedy for each in (docker, process) if each.remedy) or None,
    )
