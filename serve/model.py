"""From a model directory to a model that predicts: find its manifest, load it, try it on a record.

Everything that can be wrong with a model archive is said here, with what the directory holds.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byoa.algorithms import Algorithm
from byoa.algorithms.registry import find
from byoa.container import account, contract
from byoa.container.errors import AlgorithmError
from byoa.container.formats.predictions import count
from byoa.container.manifest import MANIFEST, Manifest, read_manifest

_SHOWN_ENTRIES = 30

_importing = threading.Lock()  # sys.path and sys.modules are everybody's


@dataclass(frozen=True)
class Loaded:
    """A model in memory, with what a request must look like."""

    name: str
    algorithm: Algorithm
    model: Any
    features: int | None  # None where nothing tells
    sample: list[list[float]] | None

    @property
    def max_batch(self) -> int | None:
        return self.algorithm.max_batch

    @property
    def batch_buckets(self) -> tuple[int, ...]:
        return self.algorithm.batch_buckets

    def predict(self, records: Any) -> Any:
        """The predictions for `records` of shape (n, features): an array, list or columns."""
        try:
            return self.algorithm.predict(self.model, records)
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, StopIteration):
                raise
            # The others mean something to the server: the end of the worker, a task or a loop.
            raise AlgorithmError(
                "PREDICT_ENDED",
                f"{self.name}: predict raised {type(error).__name__}({error})",
                expected="predict returns, or raises an exception that tells what went wrong",
            ) from error


def load(
    model_dir: Path, *, algorithm: str | None = None, device: str = "cpu", alone: bool = True
) -> Loaded:
    """Load the model in `model_dir`; `algorithm` overrides the one that the manifest names.

    Where it is not `alone` in the process, the modules that it brings in `code/` are its own:
    another model may bring others of the same names. They import what they need at their top.

    Raises AlgorithmError for a directory without a model that can be served, and whatever the
    algorithm itself raises.
    """
    try:
        return _load(model_dir, algorithm, device, alone)
    except (OSError, AlgorithmError) as error:
        # A library may well call a file missing that it only may not open.
        path = account.unreadable(model_dir)
        if path is None:
            raise
        raise AlgorithmError(
            "MODEL_FILE_UNREADABLE",
            f"{path} is {account.describe(path)}: {account.own()}, who serves it, may not read it"
            f" ({type(error).__name__}: {error.strerror if isinstance(error, OSError) else error})",
            where=str(model_dir),
            expected="files that every user can read, as SageMaker extracts them",
            remedy="chmod -R a+rX the model's files before they are archived, or start the"
            " container as root, as SageMaker does: then they are served as root",
        ) from None


def _load(model_dir: Path, algorithm: str | None, device: str, alone: bool) -> Loaded:
    manifest = _manifest(model_dir, algorithm)
    sys.dont_write_bytecode = True  # the model directory is read-only by contract (HOST-40)
    if manifest is None:
        name, features, sample = algorithm or "", None, None
        kind = _kind(name, model_dir, alone)
        hyperparameters = kind.Hyperparameters.parse({})
    else:
        name, features, sample = algorithm or manifest.algorithm, manifest.features, manifest.sample
        kind = _kind(name, model_dir, alone)
        hyperparameters = kind.Hyperparameters.from_json(manifest.hyperparameters)
    instance = kind(hyperparameters)
    try:
        model = instance.load(model_dir, device)
    except FileNotFoundError as error:
        raise AlgorithmError(
            "MODEL_FILE_MISSING",
            f"{name}: load did not find {error.filename or error}; {_contents(model_dir)}",
            where=str(model_dir),
            expected="the files that train left in its model_dir, at the root of model.tar.gz",
        ) from error
    return Loaded(name, instance, model, features, sample)


def _kind(name: str, model_dir: Path, alone: bool) -> type[Algorithm]:
    """The algorithm's class, with the model's own code on the path: the platform's place for it."""
    code = model_dir / "code"
    if not code.is_dir():
        return find(name)
    if alone:
        if str(code) not in sys.path:
            sys.path.insert(0, str(code))
        return find(name)
    with _importing:
        sys.path.insert(0, str(code))
        before = set(sys.modules)
        try:
            kind = find(name)
            kind.Hyperparameters.fields()  # their types are looked up in the module by its name
            return kind
        finally:
            sys.path.remove(str(code))
            for each in set(sys.modules) - before:
                file = getattr(sys.modules[each], "__file__", None)
                if file is not None and code in Path(file).parents:
                    del sys.modules[each]
            sys.path_importer_cache.pop(str(code), None)


def _manifest(model_dir: Path, algorithm: str | None) -> Manifest | None:
    """The manifest; None where there is none and `algorithm` says what to serve (HOST-41)."""
    if (model_dir / MANIFEST).is_file():
        return read_manifest(model_dir)
    wrapped = sorted(model_dir.glob(f"*/{MANIFEST}"))
    if wrapped:
        inner = wrapped[0].parent.name
        raise AlgorithmError(
            "MODEL_WRAPPED",
            f"model.tar.gz holds {inner}/{MANIFEST}, expected {MANIFEST} at the root;"
            f" {_contents(model_dir)}",
            where=str(model_dir),
            expected="the model's files at the root of the archive",
            remedy=f"pack it without the directory: tar -C {inner} -czf model.tar.gz .",
        )
    if algorithm:
        return None
    raise AlgorithmError(
        "MODEL_MISSING",
        f"no model to serve: {_contents(model_dir)}",
        where=str(model_dir),
        expected=f"{MANIFEST}, which a byoa training job leaves beside the model's files",
        remedy="set ModelDataUrl to the model.tar.gz of such a job, or"
        f" {contract.ALGORITHM_VARIABLE} to an algorithm that reads what is there",
    )


def _contents(model_dir: Path) -> str:
    """What is in the directory, on one line, for an error."""
    if not model_dir.is_dir():
        return f"{model_dir} does not exist"
    entries = [
        str(path.relative_to(model_dir))
        + ("/" if path.is_dir() else f" ({path.lstat().st_size} bytes)")
        for path in sorted(model_dir.rglob("*"))[: _SHOWN_ENTRIES + 1]
    ]
    if not entries:
        return f"{model_dir} is empty"
    more = ", …" if len(entries) > _SHOWN_ENTRIES else ""
    return f"{model_dir} holds {', '.join(entries[:_SHOWN_ENTRIES])}{more}"


def check_predictions(predictions: Any, records: int) -> None:
    """Raise AlgorithmError unless there is one prediction for each of `records`."""
    shape = getattr(predictions, "shape", None)  # an array's, without a look at its values
    found = shape[0] if shape else count(predictions)
    if found != records:
        raise AlgorithmError(
            "PREDICTIONS_MISMATCH",
            f"predict returned {found} prediction{'' if found == 1 else 's'} for {records}"
            f" record{'' if records == 1 else 's'}",
            expected="one prediction for each record, in their order",
            remedy="return an array of shape (n,) or (n, k), a list of n items, or a dict of"
            " columns of n items",
        )


def try_out(loaded: Loaded) -> None:
    """Predict on the manifest's sample, where it has one.

    What predict raises comes through: a model that fails its own sample is not ready (HOST-25).
    """
    if not loaded.sample:
        return
    import numpy as np

    records = np.ascontiguousarray(loaded.sample, dtype=np.float32)
    check_predictions(loaded.predict(records), len(records))
