"""Incremental training: the model of an earlier job, from the channel `model`.

The channel holds one model.tar.gz as a training job leaves it, or what was in it.
"""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path
from typing import Any

from byoa.algorithms.base import Algorithm
from byoa.container.channels import Channel
from byoa.container.errors import AlgorithmError, DataError
from byoa.container.manifest import MANIFEST, read_manifest
from byoa.container.run import Run
from byoa.container.unpack import unpack

CHANNEL = "model"
_ARCHIVES = (".tar.gz", ".tgz")


def load_earlier(algorithm: Algorithm, run: Run) -> Any:
    """What the algorithm's `load` makes of the channel's model.

    Raises DataError for what is no model of it, AlgorithmError for another algorithm's.
    """
    channel = run.channel(CHANNEL)
    files = channel.files()
    archives = [path for path in files if path.name.endswith(_ARCHIVES)]
    if not archives:
        return _load(algorithm, run, channel.directory)
    if len(files) > 1:
        raise DataError(
            "EARLIER_MODEL_AMBIGUOUS", f"the channel has {len(files)} files", where=CHANNEL,
            expected="one model.tar.gz, or the files that were in one",
        )
    with tempfile.TemporaryDirectory() as folder:
        _extract(archives[0], Path(folder), channel)
        return _load(algorithm, run, Path(folder))


def _extract(archive: Path, folder: Path, channel: Channel) -> None:
    try:
        with tarfile.open(archive, "r:gz") as tar:
            unpack(tar, folder)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(
            "EARLIER_MODEL_UNREADABLE", f"{type(error).__name__}: {error}",
            where=f"{CHANNEL}/{archive.relative_to(channel.directory)}",
            expected="a model.tar.gz as a training job leaves it",
        ) from None


def _load(algorithm: Algorithm, run: Run, folder: Path) -> Any:
    from byoa.algorithms import registry

    kind, values = type(algorithm), algorithm.hyperparameters
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder)
        if registry.find(manifest.algorithm) is not kind:
            raise AlgorithmError(
                "EARLIER_MODEL_OF_ANOTHER_ALGORITHM",
                f"the model is of {manifest.algorithm}", where=CHANNEL,
                expected=f"a model of {kind.__name__}",
            )
        values = kind.Hyperparameters.from_json(manifest.hyperparameters)
    try:
        return kind(values).load(folder, run.device)
    except FileNotFoundError as error:
        there = ", ".join(sorted(path.name for path in folder.iterdir()))
        raise DataError(
            "EARLIER_MODEL_UNREADABLE",
            f"{error.filename or error} is not there; there are {there}", where=CHANNEL,
            expected="the files of a model that this algorithm has saved",
        ) from None
