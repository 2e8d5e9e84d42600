"""What an instance of an endpoint keeps on disk, by which the next server finds it again.

    <home>/endpoints/<account>/<region>/<endpoint>/<instance>/
        instance.json     which generation and variant it belongs to
        container.json    the runner's handle of its container, while there is one
        ml/               what the container sees as /opt/ml
        fetched           the model is whole
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byoa.local.control.log_follower import mirror_path
from byoa.local.control.model_data import remove_tree
from byoa.local.runners.base import Runner
from byoa.local.settings import Caller


@dataclass(frozen=True)
class Place:
    """Which instance this is, and where its files are."""

    caller: Caller
    endpoint: str
    generation: str
    variant: str
    id: str
    directory: Path  # ml, instance.json, container.json

    @property
    def group(self) -> str:
        return f"/aws/sagemaker/Endpoints/{self.endpoint}"

    @property
    def stream(self) -> str:
        return f"{self.variant}/{self.id}"

    def log(self, home: Path) -> Path:
        """The file that the container's output goes to: the mirror of its stream (WIRE-42)."""
        return mirror_path(home, self.caller, self.group, self.stream)

    def write(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        _write(
            self.directory / "instance.json",
            {"generation": self.generation, "variant": self.variant},
        )

    @classmethod
    def read(cls, caller: Caller, endpoint: str, directory: Path) -> Place | None:
        """The instance whose files are in `directory`; None when they are not whole."""
        document = _read(directory / "instance.json")
        if document is None:
            return None
        return cls(
            caller, endpoint, document["generation"], document["variant"], directory.name, directory
        )

    def write_handle(self, handle: Mapping[str, Any]) -> None:
        _write(self.directory / "container.json", handle)

    def forget_handle(self) -> None:
        self.directory.joinpath("container.json").unlink(missing_ok=True)

    @property
    def handle(self) -> dict[str, Any] | None:
        """The container that an earlier server left here."""
        return _read(self.directory / "container.json")


def kill_leftover(runner: Runner, place: Place) -> None:
    """End what an earlier server left running, and remove the instance's files."""
    container = None if place.handle is None else runner.adopt(place.handle)
    if container is not None:
        if container.wait(0) is None:
            container.kill()
            container.wait(10.0)
        container.remove()
    remove_tree(place.directory)


def _read(path: Path) -> dict[str, Any] | None:
    with suppress(FileNotFoundError, ValueError):
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return document
    return None


def _write(path: Path, document: Mapping[str, Any]) -> None:
    """Whole or not at all: the server may be killed at any moment."""
    part = path.with_suffix(f".{time.monotonic_ns()}")
    part.write_text(json.dumps(document), encoding="utf-8")
    part.replace(path)
