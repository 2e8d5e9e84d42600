"""Docker where the engine has the image, a process of this machine else; it says which.

A machine without an engine, or whose engine is stopped, runs byoa's own images all the same.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from byoa.container.errors import ByoaError, UnsupportedError
from byoa.local.runners.base import Container, ContainerSpec, Network, Runner
from byoa.local.runners.engine import EngineUnavailable

# How long an engine that did not answer is left alone: each request would look for it again.
RETRY_SECONDS = 5.0

log = logging.getLogger("byoa.runners")


class AutoRunner(Runner):
    """Chooses between the two for each image anew: an image may be built at any time."""

    name = "auto"

    def __init__(self, docker: Runner, process: Runner) -> None:
        self._docker = docker
        self._process = process
        self._lock = threading.Lock()
        self._absent: tuple[float, EngineUnavailable] | None = None

    def choose(self, image: str) -> Runner:
        """The runner of an image; raises UnsupportedError with both reasons."""
        refusal = self._refusal(image)
        if refusal is None:
            return self._docker
        try:
            self._process.check(image)
        except UnsupportedError as error:
            raise _both(image, refusal, error) from None
        return self._process

    def check(
        self, image: str, *, isolated: bool = False, hosts: int = 1, serves: bool = False
    ) -> None:
        refusal = self._refusal(image)
        if refusal is None:
            return self._docker.check(image, isolated=isolated, hosts=hosts, serves=serves)
        try:
            return self._process.check(image, isolated=isolated, hosts=hosts, serves=serves)
        except UnsupportedError as error:
            raise _both(image, refusal, error) from None

    def inside(self, image: str, url: str) -> str:
        return self.choose(image).inside(image, url)

    def interface(self, image: str) -> str:
        return self.choose(image).interface(image)

    def start(self, spec: ContainerSpec) -> Container:
        runner = self.choose(spec.image)
        if runner is self._process:
            why = self._refusal(spec.image)
            log.info("%s: %s runs as a process: %s", spec.name, spec.image, why and why.message)
        return runner.start(spec)

    def adopt(self, handle: Mapping[str, Any]) -> Container | None:
        names = [handle["runner"]] if "runner" in handle else ["process", "docker"]
        for name in names:
            if name == "process":
                found = self._process.adopt(handle)
            elif self._engine_is_absent() is not None:
                found = None
            else:
                found = self._docker.adopt(handle)
            if found is not None:
                return found
        return None

    def release(self, network: Network) -> None:
        self._docker.release(network)
        self._process.release(network)

    def _refusal(self, image: str) -> UnsupportedError | None:
        """Why Docker does not run the image; None when it does."""
        absent = self._engine_is_absent()
        if absent is not None:
            return absent
        try:
            self._docker.check(image)
        except EngineUnavailable as error:
            with self._lock:
                self._absent = (time.monotonic(), error)
            return error
        except UnsupportedError as error:
            return error
        return None

    def _engine_is_absent(self) -> EngineUnavailable | None:
        with self._lock:
            if self._absent is not None and time.monotonic() - self._absent[0] < RETRY_SECONDS:
                return self._absent[1]
        return None


def _both(image: str, docker: ByoaError, process: ByoaError) -> UnsupportedError:
    return UnsupportedError(
        "IMAGE_UNKNOWN",
        f"image {image!r} runs neither in Docker ({docker.message}) nor as a process"
        f" ({process.message})",
        expected="; or ".join(filter(None, (docker.expected, process.expected))) or None,
        remedy="; or ".join(filter(None, (docker.remedy, process.remedy))) or None,
    )
