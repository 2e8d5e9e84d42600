"""byoa.json beside a model's files: which algorithm and hyperparameters made it, what it reads.

Training writes it, serving reads it, so that serving a model needs no configuration.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byoa.container.contract import MODEL_MANIFEST
from byoa.container.errors import AlgorithmError

MANIFEST = MODEL_MANIFEST
VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """`features` is the number of columns of a record, `sample` a few records; None: not known."""

    algorithm: str  # a registered name or module:Class
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    features: int | None = None
    sample: list[list[float]] | None = None

    def to_json(self) -> dict[str, Any]:
        known = {"features": self.features, "sample": self.sample}
        return {
            "byoa": VERSION,
            "algorithm": self.algorithm,
            "hyperparameters": dict(self.hyperparameters),
            "input": {name: value for name, value in known.items() if value is not None},
        }


def write_manifest(model_dir: Path, manifest: Manifest) -> None:
    """Write it whole or not at all: what is in model_dir at a kill is archived (TRAIN-136)."""
    # A line a member: a sample of many numbers stays on one.
    members = (f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}"
               for name, value in manifest.to_json().items())
    text = "{\n" + ",\n".join(members) + "\n}\n"
    temporary = model_dir / f".{MANIFEST}.part"
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, model_dir / MANIFEST)


def read_manifest(model_dir: Path) -> Manifest:
    """The manifest in `model_dir`; raises AlgorithmError where it is absent or not ours."""
    path = model_dir / MANIFEST
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AlgorithmError(
            "MODEL_MANIFEST_MISSING", f"{path} does not exist",
            expected=f"{MANIFEST} at the root of model.tar.gz, as byoa's training leaves it",
        ) from None
    except ValueError as error:
        raise AlgorithmError("MODEL_MANIFEST_INVALID", f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("algorithm"), str):
        raise AlgorithmError(
            "MODEL_MANIFEST_INVALID", f"{path} names no algorithm",
            expected='an object such as {"byoa": 1, "algorithm": "name", "hyperparameters": {}}',
        )
    version = document.get("byoa")
    if not isinstance(version, int) or version > VERSION:
        raise AlgorithmError(
            "MODEL_MANIFEST_INVALID", f"{path} is of version {version!r}",
            expected=f"byoa: {VERSION}",
            remedy="serve the model with the version of byoa that trained it, or a later one",
        )
    known = document.get("input") or {}
    return Manifest(
        algorithm=document["algorithm"],
        hyperparameters=document.get("hyperparameters") or {},
        features=known.get("features"),
        sample=known.get("sample"),
    )
