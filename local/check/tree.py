"""Trees of /opt/ml for a box, as the service makes them; the user's own files are only copied."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from byoa.container.contract import (
    HOMOGENEOUS_GROUP,
    METRICS_FILE,
    ChannelConfig,
    CheckpointConfig,
    InputDataConfig,
    InstanceGroup,
    Layout,
    ResourceConfig,
    dump,
    write_hyperparameters,
)
from byoa.local.storage.archives import extract
from byoa.local.storage.files import copy_whole

INSTANCE_TYPE = "ml.m5.xlarge"
CHECKPOINT_URI = "s3://byoa-check/checkpoints/"


def write_training(
    root: Path,
    *,
    hyperparameters: Mapping[str, str],
    channels: Mapping[str, Path],
    configs: Mapping[str, ChannelConfig] | None = None,
    host: str = "algo-1",
    hosts: Sequence[str] = ("algo-1",),
    checkpoints: bool = False,
) -> None:
    """What a training container finds before it starts (TRAIN-30, FIX-01 … FIX-05).

    A channel of `configs` that is no File or FastFile channel gets no directory: its FIFOs are the
    caller's.
    """
    layout = Layout(root)
    layout.create()
    write_hyperparameters(layout, hyperparameters)
    known = {name: ChannelConfig() for name in channels} | dict(configs or {})
    InputDataConfig(known).write(layout)
    group = InstanceGroup(HOMOGENEOUS_GROUP, INSTANCE_TYPE, tuple(hosts))
    ResourceConfig.for_host(host, [group]).write(layout)
    (layout.config / METRICS_FILE).write_text(dump([]), encoding="utf-8")
    if checkpoints:
        CheckpointConfig(CHECKPOINT_URI).write(layout)
        layout.checkpoints.mkdir()
    for name, source in channels.items():
        if known[name].input_mode != "Pipe":
            copy(source, layout.channel(name))
            layout.manifest(name).write_text(dump([]), encoding="utf-8")  # TRAIN-31
    settle(root)


def write_hosting(root: Path, model: Path | None) -> None:
    """What a serving container finds: /opt/ml/model with a model folder's or archive's content."""
    layout = Layout(root)
    layout.model.mkdir(parents=True)
    if model is not None and model.is_dir():
        copy(model, layout.model)
    elif model is not None:
        extract(model, layout.model)
    settle(root)


def copy(source: Path, folder: Path) -> None:
    """A file, or a folder's content, into `folder`; links are followed, as an upload to S3 does."""
    folder.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        copy_file(source, folder / source.name)
        return
    for directory, _, names in os.walk(source, followlinks=True):
        below = folder / Path(directory).relative_to(source)
        below.mkdir(exist_ok=True)
        for name in names:
            copy_file(Path(directory, name), below / name)


def copy_file(source: Path, target: Path) -> None:
    """Shared extents where the file system has them: a write to either never reaches the other."""
    with source.open("rb") as opened, target.open("wb") as created:
        copy_whole(opened.fileno(), created.fileno(), os.fstat(opened.fileno()).st_size)


def settle(root: Path) -> None:
    """Modes of the service: directories 0755, files 0644 (TRAIN-08)."""
    root.chmod(0o755)
    for directory, folders, names in os.walk(root):
        for name in folders:
            Path(directory, name).chmod(0o755)
        for name in names:
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                path.chmod(0o644)


def remove(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
