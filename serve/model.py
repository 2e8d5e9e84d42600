"""From a model directory to a model that predicts: find its manifest, load it, try it on a record.

Everything that can be wrong with a model archive is said here, with what the directory holds.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byoa.algorithms import Algorithm, Messages
from byoa.algorithms.registry import find
from byoa.container import contract
from byoa.container.errors import AlgorithmError, text_of
from byoa.container.formats.predictions import count
from byoa.container.manifest import MANIFEST, Manifest, read_manifest

_SHOWN_ENTRIES = 30

_importing = threading.RLock()  # sys.path and sys.modules are everybody's


@dataclass(frozen=True)
class Loaded:
    """A model in memory, with what a request must look like."""

    name: str
    algorithm: Algorithm
    model: Any
    features: int | None  # None where nothing tells
    sample: list[list[float]] | None
    streams: bool = False  # whether predict yields its answer piece by piece
    converses: bool = False  # whether it has a `converse`

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
                f"{self.name}: predict raised {type(error).__name__}({text_of(error)})",
                expected="predict returns, or raises an exception that tells what went wrong",
            ) from error

    def converse(self, messages: Messages) -> Any:
        """What the algorithm says to a client, piece by piece; raises what it raises."""
        return self.algorithm.converse(self.model, messages)  # type: ignore[attr-defined]


def load_algorithm(
    model_dir: Path, *, algorithm: str | None = None, device: str = "cpu", alone: bool = True
) -> Loaded:
    """The algorithm that the manifest or `algorithm` names, with its model."""
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
    converses = _converses(name, instance)
    try:
        model = instance.load(model_dir, device)
    except FileNotFoundError as error:
        raise AlgorithmError(
            "MODEL_FILE_MISSING",
            f"{name}: load did not find {error.filename or error}; {contents(model_dir)}",
            where=str(model_dir),
            expected="the files that train left in its model_dir, at the root of model.tar.gz",
        ) from error
    streams = inspect.isgeneratorfunction(instance.predict)
    return Loaded(name, instance, model, features, sample, streams, converses)


def _converses(name: str, algorithm: Algorithm) -> bool:
    """Whether it has a `converse`; raises AlgorithmError where that cannot be called."""
    converse = getattr(algorithm, "converse", None)
    if converse is None:
        return False
    problem = None
    if not callable(converse):
        problem = f"converse is a {type(converse).__name__}, no method"
    elif inspect.iscoroutinefunction(converse) or inspect.isasyncgenfunction(converse):
        problem = "converse is asynchronous"
    else:
        try:
            inspect.signature(converse).bind(None, None)
        except TypeError as error:
            problem = f"converse{inspect.signature(converse)} cannot be called so: {error}"
    if problem is not None:
        raise AlgorithmError(
            "CONVERSE_INVALID", f"{name}: {problem}",
            expected="def converse(self, model, messages), which yields text or bytes",
        )
    return True


def _kind(name: str, model_dir: Path, alone: bool) -> type[Algorithm]:
    """The algorithm's class, with the model's own code on the path: the platform's place for it."""
    code = model_dir / "code"
    if not code.is_dir():
        return find(name)
    with own_modules(code, alone):
        kind = find(name)
        if not alone:
            kind.Hyperparameters.fields()  # their types are looked up in the module by its name
        return kind


@contextlib.contextmanager
def own_modules(code: Path, alone: bool) -> Iterator[None]:
    """Modules in `code` can be imported in this block, and after it where the model is `alone`;
    else they are forgotten with it, so that another model may bring others of the same names."""
    if alone:
        if str(code) not in sys.path:
            sys.path.insert(0, str(code))
        yield
        return
    with _importing:
        sys.path.insert(0, str(code))
        before = set(sys.modules)
        try:
            yield
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
            f" {contents(model_dir)}",
            where=str(model_dir),
            expected="the model's files at the root of the archive",
            remedy=f"pack it without the directory: tar -C {inner} -czf model.tar.gz .",
        )
    if algorithm:
        return None
    raise AlgorithmError(
        "MODEL_MISSING",
        f"no model to serve: {contents(model_dir)}",
        where=str(model_dir),
        expected=f"{MANIFEST}, which a byoa training job leaves beside the model's files, or"
        " code/inference.py",
        remedy="set ModelDataUrl to the model.tar.gz of such a job, or"
        f" {contract.ALGORITHM_VARIABLE} to an algorithm that reads what is there",
    )


def contents(model_dir: Path) -> str:
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
    if loaded.streams:
        next(loaded.predict(_sample(loaded)), None)
        return
    records = _sample(loaded)
    check_predictions(loaded.predict(records), len(records))


def _sample(loaded: Loaded) -> Any:
    import numpy as np

    return np.ascontiguousarray(loaded.sample, dtype=np.float32)
