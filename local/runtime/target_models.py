"""The models of one multi-model instance: fetched when first asked for, loaded into the container,
the least recently used unloaded when it has no room (MME-02 … MME-08).
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from time import monotonic

from byoa.container import contract
from byoa.container.errors import ByoaError
from byoa.local.runtime.connection import Answer, ConnectionFailed
from byoa.local.runtime.errors import ModelNotReady, ValidationError

LOAD_SECONDS = 360.0  # for POST /models, whoever still waits for it (MME-07)
UNLOAD_SECONDS = 30.0
_FETCHED = "fetched"
_LOADED, _ABSENT, _FULL = (200, 409), 404, 507
# One request to the container: head, body and deadline → its answer.
Exchange = Callable[[bytes, "bytes | bytearray", float], Answer]


class LoadFailed(Exception):
    """The container does not load a model: its answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class TargetModels:
    """Safe for use by many threads. `fetch` puts a model's files into a directory; `keep` is
    ModelCacheSetting: without it a model is unloaded after the last request that uses it."""

    def __init__(
        self, fetch: Callable[[str, Path], None], directory: Path, *, keep: bool = True
    ) -> None:
        self._fetch = fetch
        self._directory = directory
        self._keep = keep
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, str] = OrderedDict()  # target → name, the oldest use first
        self._loads: dict[str, Future[None]] = {}
        self._in_use: Counter[str] = Counter()

    def forget(self) -> None:
        """The container is another one: it has no model."""
        with self._lock:
            self._loaded.clear()

    def holds(self, target: str) -> bool:
        return target in self._loaded

    def invoke(
        self,
        exchange: Exchange,
        target: str,
        head: Callable[[str], bytes],
        body: bytes | bytearray,
        deadline: float,
    ) -> Answer:
        """The answer of the target's model; `head` makes the request's head for a path.

        Raises ValidationError for a target that is not there, ModelNotReady where it is not loaded
        in time, LoadFailed, and what `exchange` raises.
        """
        name = name_of(target)
        request = head(f"{contract.MODELS_PATH}/{name}/invoke")
        with self._lock:
            self._in_use[target] += 1
        try:
            while True:
                self._ensure(exchange, target, name, deadline)
                answer = exchange(request, body, deadline)
                if answer.status == _ABSENT and self._is_gone(answer, exchange, name, deadline):
                    with self._lock:
                        self._loaded.pop(target, None)
                    continue  # unloaded by the container itself: load it again (MME-06)
                if answer.status == _FULL and self._evict(exchange, besides=target):
                    continue
                return answer
        finally:
            self._done(exchange, target, name)

    def _is_gone(self, answer: Answer, exchange: Exchange, name: str, deadline: float) -> bool:
        """Whether 404 means that the model is not loaded, and is not the model's own answer."""
        described = exchange(_head("GET", f"{contract.MODELS_PATH}/{name}", 0), b"", deadline)
        return described.status == _ABSENT

    def _ensure(self, exchange: Exchange, target: str, name: str, deadline: float) -> None:
        with self._lock:
            if target in self._loaded:
                self._loaded.move_to_end(target)
                return
            load = self._loads.get(target)
            if load is None:
                load = self._loads[target] = Future()
                threading.Thread(
                    target=self._load, args=(exchange, target, name, load),
                    name=f"load-{name[:12]}", daemon=True,
                ).start()
        try:
            load.result(max(0.0, deadline - monotonic()))
        except FutureTimeout:
            raise ModelNotReady(target) from None

    def _load(self, exchange: Exchange, target: str, name: str, load: Future[None]) -> None:
        try:
            self._bring(target, name)
            body = json.dumps({
                "model_name": name, "url": f"{contract.ROOT}/models/{name}/model",
            }).encode()
            request = _head("POST", contract.MODELS_PATH, len(body))
            while True:
                answer = exchange(request, body, monotonic() + LOAD_SECONDS)
                if answer.status == _FULL and self._evict(exchange, besides=target):
                    continue
                break
            if answer.status not in _LOADED:
                raise LoadFailed(answer)
        except BaseException as error:  # whoever waits is told
            with self._lock:
                del self._loads[target]
            load.set_exception(error)
            return
        with self._lock:
            del self._loads[target]
            self._loaded[target] = name
        load.set_result(None)

    def _bring(self, target: str, name: str) -> None:
        """The model's files, once: a changed object is not fetched again (MME-08)."""
        place = self._directory / name
        if place.joinpath(_FETCHED).exists():
            return
        try:
            self._fetch(target, place / "model")
        except ByoaError as error:
            raise ValidationError(f"Failed to download model data of {target}: {error}") from None
        place.joinpath(_FETCHED).touch()

    def _evict(self, exchange: Exchange, *, besides: str) -> bool:
        """Unload the model whose last use is longest ago; False when there is no other."""
        with self._lock:
            oldest = next((each for each in self._loaded if each != besides), None)
            if oldest is None:
                return False
            name = self._loaded.pop(oldest)
        self._unload(exchange, name)
        return True

    def _done(self, exchange: Exchange, target: str, name: str) -> None:
        with self._lock:
            self._in_use[target] -= 1
            if self._in_use[target]:
                return
            del self._in_use[target]
            if self._keep or self._loaded.pop(target, None) is None:
                return
        try:
            self._unload(exchange, name)
        except (ConnectionFailed, TimeoutError, OSError):
            return  # the container is ending; the answer has been given

    def _unload(self, exchange: Exchange, name: str) -> None:
        request = _head("DELETE", f"{contract.MODELS_PATH}/{name}", 0)
        exchange(request, b"", monotonic() + UNLOAD_SECONDS)


def name_of(target: str) -> str:
    """The opaque name by which the container knows a model (MME-02)."""
    return hashlib.sha256(target.encode()).hexdigest()[:32]


def _head(method: str, path: str, length: int) -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: localhost:{contract.DEFAULT_PORT}\r\n"
        f"User-Agent: {contract.HOSTING_USER_AGENT}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()
