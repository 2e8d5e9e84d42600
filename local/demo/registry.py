"""An image registry on loopback for the tour with Docker, in ECR's stead, and the push to it.

The registry is the field's own program (Debian: docker-registry); ours is only its lifetime.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from byoa.container.errors import ByoaError

PROGRAMS = ("docker-registry", "registry")
START_SECONDS = 15.0


class Registry:
    """A registry process that keeps its images below `directory`; stopped at the end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.address = ""  # host:port

    def __enter__(self) -> Registry:
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if program is None:
            raise ByoaError(
                "REGISTRY_MISSING",
                "the tour with Docker pushes its image to a registry, and none is here",
                expected="the program docker-registry, or the address of a registry that runs",
                remedy="apt-get install docker-registry, or set BYOA_REGISTRY=host:port",
            )
        port = _free_port()
        self.address = f"127.0.0.1:{port}"
        self._directory.mkdir(parents=True, exist_ok=True)
        config = self._directory / "config.yml"
        config.write_text(
            "version: 0.1\n"
            "log: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: '{self._directory / 'images'}'}}}}\n"
            f"http: {{addr: '{self.address}'}}\n",
            encoding="utf-8",
        )
        with (self._directory / "registry.log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603
                [program, "serve", str(config)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )
        try:
            self._await()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    def _await(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with urllib.request.urlopen(
                    f"http://{self.address}/v2/", timeout=2
                ):
                    return
            except OSError:
                time.sleep(0.05)
        log = (self._directory / "registry.log").read_text(errors="replace")[-2000:]
        raise ByoaError("REGISTRY_NOT_STARTED", f"the image registry did not start:\n{log}")


def push(engine: Any, image: str, registry: str) -> str:
    """Push `image` of the engine to `registry` under its own name; returns its digest.

    The engine keeps no name for it there, so that who wants it must pull it.
    """
    repository, _, tag = image.partition(":")
    target, tag = f"{registry}/{repository}", tag or "latest"
    engine.images.get(image).tag(target, tag)
    try:
        digest = ""
        for line in engine.images.push(target, tag=tag, stream=True, decode=True):
            if "error" in line:
                raise ByoaError(
                    "IMAGE_PUSH", f"{target}:{tag} was not pushed: {line['error']}",
                    remedy=f"see whether a registry answers on {registry}",
                )
            digest = line.get("aux", {}).get("Digest", digest)
        return digest
    finally:
        engine.images.remove(f"{target}:{tag}")


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
