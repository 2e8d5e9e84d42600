"""LoRA adapters of an inference script, loaded and unloaded while the server runs (SESS-04).

    POST   /adapters          {"name", "src"}: 200, 409 loaded already
    DELETE /adapters/<name>   200, 404

The script defines load_adapter(model, name, path) and unload_adapter(model, name); the adapter that
a request names is `context.adapter`. Which adapters the server has is a directory that all workers
see, a file for each, called by the hash of its name; a worker loads one that came to another worker
when it is first asked for it. The author's functions run on the model's thread, always.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from byoa.container import contract
from byoa.container.errors import DataError
from byoa.serve.failures import log
from byoa.serve.inference_script import InferenceScript

PATH = contract.ADAPTERS_PATH
PREFIX = f"{PATH}/"
# What a header can carry, too: it is how a request asks for the adapter.
_NAME = re.compile(r"[!-.0-~](?:[ -.0-~]{0,198}[!-.0-~])?")
_EXAMPLE = '{"name": "french", "src": "/opt/ml/models/french"}'
_MEMBERS = ("name", "src", "preload", "pin")
_PART = ".part"


class AdapterExists(DataError):
    """The name is taken."""

    status_code = 409


class AdapterMissing(DataError):
    """The name is not loaded."""

    status_code = 404


class Entry(NamedTuple):
    """`src`: where the adapter's files are; `identity` tells two adapters of one name apart."""

    name: str
    src: str
    identity: str


class Adapters:
    """The adapters in this worker. What says so has to be called on the model's thread."""

    def __init__(self, directory: Path, layout: contract.Layout) -> None:
        self._directory = directory
        self._layout = layout
        self._version = -1
        self._loaded: dict[str, Entry] = {}

    def load(self, script: InferenceScript, entry: Entry, *, at_once: bool) -> None:
        """Make an adapter known to all workers, and load it here where that is asked for. On the
        model's thread. Raises AdapterExists, DataError, and what load_adapter raises."""
        self.settle(script)
        if self._path(entry.name).exists():
            raise _exists(entry.name)
        if not os.path.exists(self._layout.inside(entry.src)):  # nor is it a path
            raise DataError(
                "ADAPTER_REQUEST_INVALID", f"{entry.src[:200]} is not there",
                expected=f"where the adapter's files are, as in {_EXAMPLE}",
            )
        if at_once:
            self._load(script, entry)
        try:
            self._register(entry)
        except FileExistsError:  # another worker was quicker
            self._unload(script, entry.name)
            raise _exists(entry.name) from None

    def unload(self, script: InferenceScript, name: str) -> None:
        """Forget an adapter, in all workers. On the model's thread. Raises AdapterMissing, and what
        unload_adapter raises."""
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            raise _missing(name) from None
        self._unload(script, name)

    def ready(self, script: InferenceScript, name: str | None) -> None:
        """Have what other workers were told done here, and the adapter loaded, where one is named.
        On the model's thread. Raises AdapterMissing, and what load_adapter raises."""
        self.settle(script)
        if name is None:
            return
        entry = self.require(name)
        if self._loaded.get(name) != entry:
            self._unload(script, name)
            self._load(script, entry)

    def require(self, name: str) -> Entry:
        """The adapter of that name, which need not be loaded here. On any thread. Raises
        AdapterMissing."""
        entry = self._find(name)
        if entry is None:
            raise _missing(name)
        return entry

    def settle(self, script: InferenceScript) -> None:
        """Unload what another worker has been told to unload. On the model's thread."""
        version = self._directory.stat().st_mtime_ns
        if version == self._version:
            return
        for name, entry in list(self._loaded.items()):
            if self._find(name) != entry:
                try:
                    self._unload(script, name)
                except Exception:  # of the author's; the request that finds out is another's
                    log.exception("adapter %s was not unloaded", name)
        self._version = version

    def _load(self, script: InferenceScript, entry: Entry) -> None:
        script.load_adapter(entry.name, self._layout.inside(entry.src))
        self._loaded[entry.name] = entry

    def _unload(self, script: InferenceScript, name: str) -> None:
        if self._loaded.pop(name, None) is not None:
            script.unload_adapter(name)

    def _register(self, entry: Entry) -> None:
        descriptor, part = tempfile.mkstemp(suffix=_PART, dir=self._directory)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(entry, file)
            os.link(part, self._path(entry.name))  # the whole of it, and only where there is none
        finally:
            os.unlink(part)

    def _find(self, name: str) -> Entry | None:
        try:
            return Entry(*json.loads(self._path(name).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def _path(self, name: str) -> Path:
        return self._directory / hashlib.sha256(name.encode()).hexdigest()


def asked(headers: Mapping[str, str]) -> str | None:
    """The adapter that a request names, None for none. Raises DataError."""
    name = headers.get(contract.ADAPTER_HEADER)
    return None if name is None else _checked(name)


def check(
    kept: Adapters | None, loaded: object, headers: Mapping[str, str], *, known: bool = False
) -> None:
    """Raise DataError where the adapter that `headers` name cannot be asked for: the model takes
    none, or none can have that name; with `known`, also where none has."""
    if kept is None or not isinstance(loaded, InferenceScript) or not loaded.adapts:
        raise unsupported(headers[contract.ADAPTER_HEADER])
    name = asked(headers)
    if known and name is not None:
        kept.require(name)


def named(path: str) -> str:
    """The name in DELETE /adapters/<name>; `path` is decoded already. Raises DataError."""
    return _checked(path[len(PREFIX):])


def entry_of(body: bytes) -> tuple[Entry, bool]:
    """The adapter that a POST describes, and whether to load it at once. Raises DataError.

    `pin` keeps an adapter from being put out for others: here none ever is.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise _invalid("the body is no JSON object")
    unknown = next((each for each in document if each not in _MEMBERS), None)
    if unknown is not None:
        raise _invalid(f"{unknown[:60]!r} is not known")
    name, src = document.get("name"), document.get("src")
    if not isinstance(name, str) or not isinstance(src, str):
        raise _invalid("name and src are not both given as strings")
    for flag in ("preload", "pin"):
        if not isinstance(document.get(flag, False), bool):
            raise _invalid(f"{flag} is neither true nor false")
    where = PurePosixPath(src)
    if not where.is_relative_to(contract.ROOT) or ".." in where.parts:
        raise _invalid(f"{src[:200]} is not below {contract.ROOT}")
    return Entry(_checked(name), src, uuid.uuid4().hex), document.get("preload", True)


def unsupported(name: str | None) -> DataError:
    """What a model without the two functions answers; `name`: the adapter that was asked for."""
    what = "adapters" if name is None else f"adapter {name[:60]!r}"
    return DataError(
        "ADAPTERS_UNSUPPORTED", f"the model has no {what}: it defines no load_adapter",
        expected="an inference script that defines load_adapter(model, name, path) and"
        " unload_adapter(model, name), and finds the request's adapter in context.adapter",
        remedy="add the two functions to code/inference.py, or send the request without"
        " X-Amzn-SageMaker-Adapter-Identifier",
    )


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise _invalid(f"{name[:60]!r} cannot name an adapter")
    return name


def _invalid(message: str) -> DataError:
    return DataError(
        "ADAPTER_REQUEST_INVALID", message,
        expected=f"JSON such as {_EXAMPLE}; a name of 1 to 200 printable ASCII characters, no slash"
        " in it, no space around it",
    )


def _exists(name: str) -> AdapterExists:
    return AdapterExists("ADAPTER_EXISTS", f"adapter {name} is loaded already")


def _missing(name: str) -> AdapterMissing:
    return AdapterMissing(
        "ADAPTER_NOT_LOADED", f"adapter {name} is not loaded", remedy="load it with POST /adapters"
    )
