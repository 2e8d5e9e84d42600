"""Variants of the ordinary run, each with one thing that a job may find otherwise.

A program that takes all of them at once takes each: so they are first tried together, in one run,
and one by one only where that run does not succeed. A training run may take minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from byoa.container.contract import (
    INPUT_DATA_FILE,
    METRICS_FILE,
    RESOURCE_FILE,
    TUNING_HYPERPARAMETER,
    CheckpointConfig,
    Layout,
    decode_hyperparameter,
    dump,
    read_hyperparameters,
    write_hyperparameters,
)
from byoa.local.check import training_runs as runs
from byoa.local.check.tree import CHECKPOINT_URI, copy_file
from byoa.local.check.trial import Trial

# What older platforms leave out of resourceconfig.json (TRAIN-64).
OLDER_LACKS = ("instance_groups", "current_group_name", "current_instance_type", "topology")
# Extra keys and files, of which a program need know none (TRAIN-64, TRAIN-75).
_UNKNOWN = {"byoa_check_unknown": {"a": [1, None]}}
_UNKNOWN_FILES = ("init-config.json", "trainingjobconfig.json", "upstreamoutputdataconfig.json",
                  "byoa-check-unknown.json")


@dataclass(frozen=True)
class Variant:
    """What is otherwise: in the tree, and in how the container is started."""

    prepare: Callable[[Trial, Layout], object] = lambda trial, layout: None
    options: Mapping[str, Any] = field(default_factory=dict)


def _older(trial: Trial, layout: Layout) -> None:
    runs.change_config(layout, RESOURCE_FILE, **dict.fromkeys(OLDER_LACKS))
    (layout.config / METRICS_FILE).unlink()


def _unknown(trial: Trial, layout: Layout) -> None:
    runs.change_config(layout, RESOURCE_FILE, **_UNKNOWN)
    channels = runs.read_config(layout, INPUT_DATA_FILE)
    runs.write_config(
        layout, INPUT_DATA_FILE, {name: {**each, **_UNKNOWN} for name, each in channels.items()}
    )
    for name in _UNKNOWN_FILES:
        (layout.config / name).write_text(dump(_UNKNOWN), encoding="utf-8")


def _requote(trial: Trial, layout: Layout) -> None:
    write_hyperparameters(layout, requoted(read_hyperparameters(layout)))


def requoted(values: Mapping[str, str]) -> dict[str, str]:
    """Each value as the other kind of client sends it: in inner quotes, or without (TRAIN-42)."""
    changed = {}
    for name, value in values.items():
        decoded = decode_hyperparameter(value)
        quoted = isinstance(decoded, str) and decoded != value
        changed[name] = decoded if quoted else dump(value)
    return changed


def _tune(trial: Trial, layout: Layout) -> None:
    values = read_hyperparameters(layout)
    write_hyperparameters(layout, {**values, TUNING_HYPERPARAMETER: dump("validation:loss")})


def _scatter(trial: Trial, layout: Layout) -> None:
    for name in runs.read_config(layout, INPUT_DATA_FILE):
        layout.manifest(name).write_text(dump([{"prefix": "s3://byoa-check/"}]), encoding="utf-8")


def _checkpoints(trial: Trial, layout: Layout) -> None:
    CheckpointConfig(CHECKPOINT_URI).write(layout)
    layout.checkpoints.mkdir()


def _again(trial: Trial, layout: Layout) -> None:
    first = runs.plain(trial)
    for name in first.model_files():
        path, target = first.layout.model / name, layout.model / name
        if path.is_file() and not path.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_file(path, target)


# In the order in which they are applied: a requoted tuning hyperparameter would be no longer one.
VARIANTS = {
    "older-config": Variant(_older),
    "unknown-config": Variant(_unknown),
    "hyperparameters-quoted": Variant(_requote),
    "hyperparameters-of-tuning": Variant(_tune),
    "manifest-files": Variant(_scatter),
    "checkpoints": Variant(_checkpoints),
    "train-again": Variant(_again),
    "read-only-data": Variant(options={"read_only_data": True}),
    "network-isolation": Variant(options={"network": "none"}),
}


def run(trial: Trial, name: str) -> runs.TrainingRun:
    """A run that shows how the image takes this variant: of it alone, or of all where they succeed.

    Raises NotApplicable for what a process cannot have.
    """
    # What starts a process otherwise may be refused, and would take the others with it.
    able = trial.facts is not None
    if able or not VARIANTS[name].options:
        names = [each for each, variant in VARIANTS.items() if able or not variant.options]
        together = _run(trial, "together", names)
        if together.succeeded and together.model_files():
            return together
    return _run(trial, name, [name])


def _run(trial: Trial, key: str, names: list[str]) -> runs.TrainingRun:
    def prepare(layout: Layout) -> None:
        runs.without_manifests(layout)
        for name in names:
            VARIANTS[name].prepare(trial, layout)

    options = {k: v for name in names for k, v in VARIANTS[name].options.items()}
    return runs.run(trial, key, prepare, **options)
