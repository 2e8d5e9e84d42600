"""The routes of a server with many models (MME-03 … MME-06), over the same core.

    POST   /models                 {"model_name", "url"}: 200, 409 loaded already, 507 no memory
    GET    /models                 a page of them: limit, next_page_token
    GET    /models/<name>          one, or 404
    DELETE /models/<name>          200, or 404
    POST   /models/<name>/invoke   as /invocations, with that model
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs

from byoa.container import contract
from byoa.container.errors import ByoaError, DataError
from byoa.serve.core import Responder, Target
from byoa.serve.host import describe
from byoa.serve.messages import Answer, Request
from byoa.serve.metrics import Metrics
from byoa.serve.models import (
    NAME_LIMIT_BYTES,
    PAGE_MODELS,
    Entry,
    ModelExists,
    ModelMemory,
    ModelNotLoaded,
    Models,
    absent,
    out_of_memory,
)
from byoa.serve.settings import Settings

_PREFIX = f"{contract.MODELS_PATH}/"
_INVOKE = "/invoke"
_STATUS: dict[type[ByoaError], int] = {ModelExists: 409, ModelNotLoaded: 404, ModelMemory: 507}
_LOAD_EXAMPLE = '{"model_name": "a1b2c3", "url": "/opt/ml/models/a1b2c3/model"}'


class MultiModelCore(Responder):
    """The answers of one worker process with many models. Thread-safe."""

    def __init__(
        self, models: Models, settings: Settings, metrics: Metrics, *, workers: int = 1,
        plan: Callable[[], Mapping[str, Any]] = dict, crashes: Callable[[], int] = int,
    ) -> None:
        super().__init__(settings, metrics, workers=workers, plan=plan, crashes=crashes)
        self._models = models
        self.routes = {
            contract.PING_PATH: "GET",
            contract.EXECUTION_PARAMETERS_PATH: "GET",
            contract.METRICS_PATH: "GET",
            contract.MODELS_PATH: "GET or POST",
            f"{_PREFIX}<name>": "GET or DELETE",
            f"{_PREFIX}<name>{_INVOKE}": "POST",
        }

    def answer(self, request: Request) -> Answer:
        if request.path != contract.MODELS_PATH and not request.path.startswith(_PREFIX):
            return super().answer(request)
        try:
            return self._models_route(request)
        except ByoaError as error:
            return self._failure(request, error)

    def ping(self) -> Answer:
        """200 from the first moment on: models come when they are asked for."""
        models = len(self._models.catalogue.names())
        return self.ready(models=models)

    def invokes(self, path: str) -> bool:
        return path.startswith(_PREFIX) and path.endswith(_INVOKE)

    def must_wait(self, request: Request) -> bool:
        return super().must_wait(request) or self.may_load(request)

    def may_load(self, request: Request) -> bool:
        return self._models.present(_name_of(request.path)) is None

    def target(self, request: Request) -> Target | Answer:
        try:
            if not self.invokes(request.path):
                raise ModelNotLoaded(
                    "MODEL_NOT_NAMED", f"{request.path} names no model",
                    expected=f"POST {_PREFIX}<name>{_INVOKE}",
                )
            name = _name_of(request.path)
            served = self._models.get(name)
        except Exception as error:
            return self._failure(request, error)
        if request.visit is not None:
            request.visit.model = name  # only of a model that there is: labels stay few
        return Target(served.loaded, served.compute)

    def failed(self, request: Request, error: Exception) -> Answer:
        """507 for a model that ran out of memory, so that the platform makes room (MME-06)."""
        cause = getattr(error, "error", error)
        if out_of_memory(cause):
            return self._failure(request, ModelMemory(
                "MODEL_MEMORY", f"no memory left for this request: {cause}",
                remedy="unload a model and try again, or send fewer records",
            ))
        return super().failed(request, error)

    # --- the routes ---

    def _models_route(self, request: Request) -> Answer:
        if request.path == contract.MODELS_PATH:
            if request.method == "POST":
                return self._load(request)
            if request.method == "GET":
                return self._list(request)
            return self._not_allowed(request, "GET, POST")
        if self.invokes(request.path):
            if request.method == "POST":
                return self.invoke(request)
            return self._not_allowed(request, "POST")
        name = _name_of(request.path)
        if request.method == "GET":
            entry = self._models.catalogue.find(name)
            if entry is None:
                raise absent(name)
            return _compact(entry.to_json())
        if request.method == "DELETE":
            self._models.remove(name)
            return _compact({"status": f"Model {name} unregistered"})
        return self._not_allowed(request, "GET, DELETE")

    def _load(self, request: Request) -> Answer:
        try:
            entry = self._entry(request.body)
        except DataError as error:
            return self.refuse(request, 400, error.to_json())
        try:
            self._models.add(entry)
        except Exception as error:
            return self._failure(request, error)
        return _compact({"status": f"Model {entry.name} registered"})

    def _entry(self, body: bytes) -> Entry:
        try:
            document = json.loads(body)
            name, url = document["model_name"], document["url"]
            valid = isinstance(name, str) and isinstance(url, str)
        except (ValueError, TypeError, KeyError):
            valid = False
        if not valid:
            raise DataError(
                "MODEL_REQUEST_INVALID", "the body does not say which model to load",
                expected=f"JSON such as {_LOAD_EXAMPLE}",
            )
        if not 0 < len(name.encode()) <= NAME_LIMIT_BYTES or "/" in name:
            raise DataError(
                "MODEL_REQUEST_INVALID", f"{name[:60]!r} cannot name a model",
                expected=f"1 to {NAME_LIMIT_BYTES} bytes without a slash",
            )
        path = PurePosixPath(url)
        if not path.is_relative_to(contract.ROOT) or ".." in path.parts:
            raise DataError(
                "MODEL_REQUEST_INVALID", f"{url[:200]} is not below {contract.ROOT}",
                expected=f"where the platform extracts models, as in {_LOAD_EXAMPLE}",
            )
        return Entry(name, url)

    def _list(self, request: Request) -> Answer:
        query = parse_qs(request.query)
        token = (query.get("next_page_token") or query.get("nextPageToken") or [""])[0]
        text = (query.get("limit") or [str(PAGE_MODELS)])[0]
        if not (text.isascii() and text.isdigit() and int(text) > 0):
            return self.refuse(request, 400, DataError(
                "MODEL_REQUEST_INVALID", f"limit={text[:20]}", expected="limit of at least 1",
            ).to_json())
        entries, following = self._models.catalogue.page(int(text), token)
        answer: dict[str, Any] = {"models": [entry.to_json() for entry in entries]}
        if following is not None:
            answer["nextPageToken"] = following
        return _compact(answer)

    # --- refusals ---

    def _failure(self, request: Request, error: Exception) -> Answer:
        fields = describe(error, "MODEL_LOAD_FAILED")
        return self.refuse(request, _STATUS.get(type(error), 500), fields)  # type: ignore[arg-type]

    def _not_allowed(self, request: Request, allowed: str) -> Answer:
        answer = self.refuse(request, 405, ByoaError(
            "METHOD_NOT_ALLOWED", f"{request.method} {request.path[:200]} is not answered here",
            expected=allowed,
        ).to_json())
        return answer._replace(headers=(*answer.headers, ("Allow", allowed)))


def _name_of(path: str) -> str:
    return path[len(_PREFIX):].removesuffix(_INVOKE)


def _compact(document: dict[str, Any]) -> Answer:
    """As the platform's own examples have it, without blanks (FIX-15)."""
    return Answer(200, json.dumps(document, separators=(",", ":")).encode())
