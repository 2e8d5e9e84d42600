"""Many models in one server: loaded, listed and unloaded by name (MME-02 … MME-06).

Every worker process has its own copies. Which models the server has is a directory that all of
them see, a file for each; a worker that is asked for a model that another has loaded loads it then,
and drops those that are not there any more. A load runs on the model's own thread, so that it
never blocks another model.

Memory is measured: a worker takes its share of what the container has. What does not fit is
refused with 507, upon which the platform unloads the least recently used and tries again.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from byoa.container.errors import ByoaError, text_of
from byoa.container.hardware import resident_bytes, size
from byoa.serve.compute import Compute
from byoa.serve.inference_script import InferenceScript
from byoa.serve.model import Loaded, try_out

NAME_LIMIT_BYTES = 240  # of a file's name, with what encloses it
PAGE_MODELS = 100  # what other servers give without a `limit`
_PART = ".part"


class ModelExists(ByoaError):
    """The name is loaded: 409."""


class ModelNotLoaded(ByoaError):
    """The name is not loaded: 404."""


class ModelMemory(ByoaError):
    """There is not enough memory for the model: 507."""


@dataclass(frozen=True)
class Entry:
    """A model by name; `url` is the directory that the platform extracted it to."""

    name: str
    url: str

    def to_json(self) -> dict[str, str]:
        return {"modelName": self.name, "modelUrl": self.url}


@dataclass(frozen=True)
class Served:
    """A model in this worker's memory, with the thread that runs it."""

    loaded: Loaded | InferenceScript
    compute: Compute


class Catalogue:
    """The models of the server, whichever worker has loaded them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def version(self) -> int:
        """Changes whenever a model comes or goes."""
        return self._directory.stat().st_mtime_ns

    def add(self, entry: Entry) -> None:
        """Raises ModelExists where another worker was quicker."""
        path = self._path(entry.name)
        part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}{_PART}")
        part.write_text(json.dumps(entry.to_json()), encoding="utf-8")
        try:
            os.link(part, path)  # the whole of it, and only where there is none
        except FileExistsError:
            raise exists(entry.name) from None
        finally:
            part.unlink()

    def remove(self, name: str) -> bool:
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            return False
        return True

    def find(self, name: str) -> Entry | None:
        try:
            document = json.loads(self._path(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return Entry(document["modelName"], document["modelUrl"])

    def page(self, limit: int, token: str) -> tuple[list[Entry], str | None]:
        """Up to `limit` models by name after `token`, and the token of the next page."""
        names = sorted(name for name in self.names() if name > token)
        entries = [entry for name in names[:limit] if (entry := self.find(name)) is not None]
        return entries, names[limit - 1] if len(names) > limit else None

    def names(self) -> set[str]:
        return {unquote(each) for each in os.listdir(self._directory) if not each.endswith(_PART)}

    def _path(self, name: str) -> Path:
        return self._directory / quote(name, safe="").replace(".", "%2E")


class Models:
    """The models in this worker's memory. Thread-safe."""

    def __init__(
        self,
        catalogue: Catalogue,
        load: Callable[[Path], Loaded | InferenceScript],
        compute: Callable[[], Compute],
        inside: Callable[[str], Path],
        *,
        budget_bytes: int,
        startup_timeout: float,
        on_change: Callable[[int], None] = lambda count: None,
    ) -> None:
        """`on_change` is told how many models there are, whenever that changes."""
        self.catalogue = catalogue
        self._load = load
        self._compute = compute
        self._inside = inside  # where a path of the container is
        self._budget = budget_bytes
        self._timeout = startup_timeout
        self._on_change = on_change
        self._served: dict[str, Served] = {}
        self._version = -1
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}  # one load of a name at a time

    def add(self, entry: Entry) -> None:
        """Load a model; raises ModelExists, ModelMemory, or why it does not load."""
        with self._lock_of(entry.name):
            if self.catalogue.find(entry.name) is not None:
                raise exists(entry.name)
            served = self._loaded(entry)
            try:
                self.catalogue.add(entry)
            except ModelExists:
                served.compute.stop()
                raise
            self._keep(entry.name, served)

    def get(self, name: str) -> Served:
        """The model; raises ModelNotLoaded, and what `add` raises where only now this worker comes
        to load it."""
        served = self.present(name)
        if served is not None:
            return served
        with self._lock_of(name):
            entry = self.catalogue.find(name)
            if entry is None:
                raise absent(name)
            with self._lock:
                served = self._served.get(name)
            if served is None:
                served = self._loaded(entry)
                self._keep(name, served)
            return served

    def present(self, name: str) -> Served | None:
        """The model where this worker has it in memory and the server still has it."""
        version = self.catalogue.version
        if version != self._version:
            self._forget(version)
        return self._served.get(name)

    def remove(self, name: str) -> None:
        """Unload a model, after the requests that it has; raises ModelNotLoaded."""
        if not self.catalogue.remove(name):
            raise absent(name)
        self._forget(self.catalogue.version)

    def stop(self) -> None:
        with self._lock:
            for served in self._served.values():
                served.compute.stop()

    def _keep(self, name: str, served: Served) -> None:
        with self._lock:
            self._served[name] = served
            self._on_change(len(self._served))

    def _lock_of(self, name: str) -> threading.Lock:
        with self._lock:
            return self._loading.setdefault(name, threading.Lock())

    def _forget(self, version: int) -> None:
        """Drop the models that the server has no more."""
        names = self.catalogue.names()
        with self._lock:
            gone = [name for name in self._served if name not in names]
            for name in gone:
                self._served.pop(name).compute.stop()
                self._loading.pop(name, None)
            self._version = version
            self._on_change(len(self._served))
        if gone:
            _give_memory_back()

    def _loaded(self, entry: Entry) -> Served:
        directory = self._inside(entry.url)
        if not directory.is_dir():
            raise ByoaError(
                "MODEL_URL_MISSING", f"{entry.url} is no directory",
                expected="the directory that the model was extracted to",
            )
        self._check(entry, sum(
            path.stat().st_size for path in directory.rglob("*") if path.is_file()
        ))
        compute = self._compute()
        compute.start()

        def load() -> Loaded | InferenceScript:
            loaded = self._load(directory)
            if isinstance(loaded, Loaded):
                try_out(loaded)
            return loaded

        started = time.monotonic()
        waiting = compute.submit(load, measured=False)
        try:
            loaded = waiting.result(self._timeout)
            self._check(entry, 0)
        except FutureTimeout:
            compute.stop()
            raise ByoaError(
                "MODEL_LOAD_TIMEOUT",
                f"model {entry.name} is not loaded after {time.monotonic() - started:.0f} s",
                expected="loading ends within SAGEMAKER_STARTUP_TIMEOUT",
            ) from None
        except BaseException as error:
            compute.stop()
            del waiting
            _give_memory_back()
            if out_of_memory(error) and not isinstance(error, ModelMemory):
                raise self._no_memory(entry.name, text_of(error)) from error
            raise
        return Served(loaded, compute)

    def _check(self, entry: Entry, more: int) -> None:
        used = resident_bytes()
        if used + more > self._budget:
            what = f"needs {size(more)} more, {size(used)} are in use" if more else (
                f"takes this worker to {size(used)}"
            )
            raise self._no_memory(entry.name, what)

    def _no_memory(self, name: str, what: str) -> ModelMemory:
        return ModelMemory(
            "MODEL_MEMORY",
            f"not enough memory for model {name}: it {what} of {size(self._budget)}",
            expected="at most BYOA_MODELS_MEMORY_MB in a worker, with all its models",
            remedy="unload a model and try again",
        )


def out_of_memory(error: BaseException) -> bool:
    """Whether Python, NumPy or torch had no memory left, on CPU or GPU."""
    return isinstance(error, (MemoryError, ModelMemory)) or (
        type(error).__name__ == "OutOfMemoryError"
    )


def exists(name: str) -> ModelExists:
    return ModelExists("MODEL_EXISTS", f"model {name} is loaded already")


def absent(name: str) -> ModelNotLoaded:
    return ModelNotLoaded(
        "MODEL_NOT_LOADED", f"model {name} is not loaded", remedy="load it with POST /models"
    )



def _give_memory_back() -> None:
    """Let the C library return what it freed, so that it can be measured."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
