"""A request to open a conversation (BIDI-01): whom with, or why not.

Both doors refuse it as any other request, with a status and a body that says what to do; only where
it can be opened does the connection become a WebSocket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

from byoa.container import contract
from byoa.container.errors import ByoaError
from byoa.serve.busy import streams_full
from byoa.serve.compute import Compute
from byoa.serve.inference_script import InferenceScript
from byoa.serve.messages import Answer, Request
from byoa.serve.visit import request_id

if TYPE_CHECKING:
    from byoa.serve.conversation import Converse
    from byoa.serve.core import Responder
    from byoa.serve.visit import Watch
    from byoa.serve.websocket import WebSocket

PATH = contract.BIDIRECTIONAL_PATH


class Opening(NamedTuple):
    """A conversation that may begin. `identity`: the request's id; `prepare`: what the model's
    thread has to do first."""

    request: Request
    identity: str
    converse: Converse
    compute: Compute
    prepare: Callable[[], None] | None = None


class Openings:
    """What an ASGI worker turns a connection into a WebSocket by."""

    def __init__(self, core: Responder, watch: Watch) -> None:
        self._core = core
        self._watch = watch

    def find(self, path: str, query: str, headers: Iterable[tuple[str, str]]) -> Opening | None:
        """What a request to upgrade opens; None where it is to be answered as any other."""
        if path != PATH:
            return None
        found = find(self._core, Request("GET", path, _joined(headers), b"", query))
        return found if isinstance(found, Opening) else None

    def open(
        self, transport: asyncio.Transport, opening: Opening,
        on_lost: Callable[[Exception | None], None],
    ) -> WebSocket:
        """The WebSocket that the connection is from now on."""
        from byoa.serve.websocket import WebSocket

        socket = WebSocket(transport, opening, self._core.settings, self._watch, on_lost)
        transport.set_protocol(socket)
        socket.open()
        return socket


def find(core: Responder, request: Request) -> Opening | Answer:
    """Whom the client will talk to, or why there is nobody."""
    problem = _unsupported(core)
    if problem is not None:
        return core.refuse(request, 501, problem.to_json())
    target = core.target(request)
    if isinstance(target, Answer):
        return target
    loaded, compute = target
    if not loaded.converses:
        return core.refuse(request, 501, _silent(loaded).to_json())
    if compute.is_full_of_streams:
        return core.refuse(request, 503, streams_full().to_json(), retry=True)
    if contract.ADAPTER_HEADER in request.headers:
        unfit = core.adapter_refused(request, loaded, known=True)
        if unfit is not None:
            return unfit
    identity = request_id(request.headers)
    if not isinstance(loaded, InferenceScript):
        return Opening(request, identity, loaded.converse, compute)
    converse: Converse = partial(loaded.converse, request=request, request_id=identity)
    prepare = partial(core.adapt, loaded, request) if loaded.adapts else None
    return Opening(request, identity, converse, compute, prepare)


def refused(core: Responder, request: Request) -> Answer:
    """The answer to a request that is no upgrade, or that cannot be one."""
    found = find(core, request)
    if isinstance(found, Answer):
        return found
    answer = core.refuse(request, 426, ByoaError(
        "UPGRADE_REQUIRED", f"{request.method} {PATH} asks for no WebSocket",
        expected="GET with the headers Connection: Upgrade and Upgrade: websocket (RFC 6455)",
        remedy="open it with a WebSocket client; POST /invocations takes a single request",
    ).to_json())
    headers = (("Upgrade", "websocket"), ("Connection", "Upgrade"))
    return answer._replace(headers=(*answer.headers, *headers))


def _unsupported(core: Responder) -> ByoaError | None:
    settings = core.settings
    if settings.door == "flask":
        return ByoaError(
            "CONVERSE_DOOR", "the Flask door holds no conversations",
            expected="BYOA_SERVER=express, the default",
            remedy="remove BYOA_SERVER=flask from the model's Environment",
        )
    if settings.multi_model:
        return ByoaError(
            "CONVERSE_MULTI_MODEL", "a server with many models holds no conversations",
            expected="an endpoint of one model",
            remedy="remove SAGEMAKER_MULTI_MODEL, or ask the model by POST"
            f" {contract.MODELS_PATH}/<name>/invoke",
        )
    if not _installed():
        return ByoaError(
            "CONVERSE_PACKAGE", "the package websockets is not installed",
            expected="what byoa is installed with", remedy="pip install websockets",
        )
    return None


def _silent(loaded: object) -> ByoaError:
    name = getattr(loaded, "name", "the model")
    return ByoaError(
        "CONVERSE_MISSING", f"{name} does not define a conversation",
        expected="converse_fn(messages, model) in the script"
        if isinstance(loaded, InferenceScript) else
        "a method converse(self, model, messages) of the algorithm",
        remedy="define it: a generator that iterates over messages and yields text or bytes",
    )


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by lower-case name; one given twice is joined as HTTP says."""
    headers: dict[str, str] = {}
    for name, value in pairs:
        name = name.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


@cache
def _installed() -> bool:
    try:
        import byoa.serve.websocket  # noqa: F401
    except ImportError:
        return False
    return True
