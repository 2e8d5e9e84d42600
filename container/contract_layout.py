"""Where everything is in a container: the /opt/ml tree, and how its JSON files are read.

Part of `byoa.container.contract`, which is where to import it from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from byoa.container.errors import ContractError

ROOT = PurePosixPath("/opt/ml")
BASE_DIR_VARIABLE = "SAGEMAKER_BASE_DIR"


@dataclass(frozen=True)
class Layout:
    """The /opt/ml tree (TRAIN-30), at /opt/ml or below `SAGEMAKER_BASE_DIR`."""

    root: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Layout:
        return cls(Path(environ.get(BASE_DIR_VARIABLE) or str(ROOT)))

    @property
    def input(self) -> Path:
        return self.root / "input"

    @property
    def config(self) -> Path:
        return self.input / "config"

    @property
    def data(self) -> Path:
        return self.input / "data"

    @property
    def code(self) -> Path:
        return self.root / "code"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def output_data(self) -> Path:
        return self.output / "data"

    @property
    def intermediate(self) -> Path:
        """Synced to S3 while the job runs. Where it exists the platform promises so (TRAIN-33)."""
        return self.output / "intermediate"

    @property
    def failure(self) -> Path:
        return self.output / "failure"

    @property
    def metrics(self) -> Path:
        return self.output / "metrics" / "sagemaker"

    @property
    def processing(self) -> Path:
        """Below it are a processing job's inputs and outputs (PROC-07)."""
        return self.root / "processing"

    @property
    def processing_config(self) -> Path:
        """Beside `input`, not in it as for a training job (PROC-03, TRAP-44)."""
        return self.root / "config"

    @property
    def message(self) -> Path:
        """What becomes a processing job's ExitMessage (PROC-12)."""
        return self.output / "message"

    def channel(self, name: str) -> Path:
        """The directory of a File or FastFile channel (TRAIN-90)."""
        return self.data / name

    def manifest(self, channel: str) -> Path:
        """A file that the service leaves beside a channel; never part of its data (TRAIN-31)."""
        return self.data / f"{channel}-manifest"

    def fifo(self, channel: str, epoch: int) -> Path:
        """The FIFO of a Pipe channel's epoch, from 0 (TRAIN-94)."""
        return self.data / f"{channel}_{epoch}"

    def inside(self, path: str) -> Path:
        """Where an absolute path of the contract is in this layout: /opt/ml/x → root/x."""
        pure = PurePosixPath(path)
        if pure == ROOT or ROOT in pure.parents:
            return self.root / pure.relative_to(ROOT)
        return Path(path)

    def create(self) -> None:
        """Make the directories that exist before a training container starts (TRAIN-30, TRAIN-32).

        `output/intermediate` is left to who syncs it to S3, as its existence promises (TRAIN-33).
        """
        for directory in (self.config, self.data, self.code, self.model, self.output_data,
                          self.metrics, self.root / "errors"):
            directory.mkdir(parents=True, exist_ok=True)


def dump(document: Any) -> str:
    """Compact JSON as the service writes it: no spaces, no trailing newline (TRAIN-51)."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def write_json(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dump(document), encoding="utf-8")


def read_json(path: Path, kind: type, *, minimal: str | None) -> Any:
    """The document in `path`, which must be of `kind` (dict or list).

    `minimal` is what to write there by hand when the platform must have written it; None makes the
    file optional, and its absence None (TRAIN-75).
    """
    try:
        document = json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        if minimal is None:
            return None
        raise ContractError(
            "CONFIG_MISSING",
            f"{path} does not exist",
            expected="the platform writes it before the container starts",
            remedy=f"mount the job's input at {ROOT}, or set {BASE_DIR_VARIABLE} to the directory"
            f" that holds input/config; for a run by hand write {minimal} there",
        ) from None
    except ValueError as error:
        raise ContractError(
            "CONFIG_INVALID", f"{path} is not JSON: {error}", expected="one JSON document in UTF-8"
        ) from None
    if not isinstance(document, kind):
        raise _wrong(path, f"is a {type(document).__name__}", kind)
    return document


def entry(path: Path | str, key: str, value: Any, kind: type) -> Any:
    """`value` of `key` in the file `path`, which must be of `kind`; null is an empty one."""
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise _wrong(Path(path), f"{key} is a {type(value).__name__}", kind)
    return value


def _wrong(path: Path, what: str, kind: type) -> ContractError:
    names: dict[type, str] = {dict: "a JSON object", list: "a JSON array", str: "a string"}
    name = names[kind]
    return ContractError("CONFIG_INVALID", f"{path.name}: {what}", expected=name)
