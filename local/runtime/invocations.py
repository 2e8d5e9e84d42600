"""InvokeEndpoint: an invocation from its caller to a serving container and back.

The body passes unchanged; headers pass by the table of the contract (HOST-30, HOST-34). What the
container does wrong comes back as ModelError, with its own words (ERR-01 … ERR-04).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from time import monotonic
from typing import Protocol
from urllib.parse import unquote

from byoa.container import contract
from byoa.local.api.http import Headers, Request, Response
from byoa.local.errors import AwsError
from byoa.local.runtime import connection
from byoa.local.runtime.connection import Answer
from byoa.local.runtime.errors import (
    TIMEOUT_MESSAGE,
    ModelError,
    PayloadTooLarge,
    ServiceUnavailable,
    ValidationError,
    response,
)
from byoa.local.runtime.invocation_metrics import Invocation, InvocationMetrics
from byoa.local.runtime.routing import Backend, Router, VariantRoute
from byoa.local.runtime.target_models import LoadFailed
from byoa.local.settings import Caller, Settings

TARGET_VARIANT = "X-Amzn-SageMaker-Target-Variant"
TARGET_MODEL = "X-Amzn-SageMaker-Target-Model"
# Headers that ask for something that no endpoint here has.
_REFUSED_HEADERS = {
    "X-Amzn-SageMaker-Target-Container-Hostname": "TargetContainerHostname needs a multi-container"
    " endpoint in direct mode, which is not run here; create one endpoint for each container",
    "X-Amzn-SageMaker-Inference-Component": "InferenceComponentName needs an inference component,"
    " which is not run here; name the model in the endpoint's production variant",
    "X-Amzn-SageMaker-Enable-Explanations": "EnableExplanations needs an ExplainerConfig, which is"
    " not run here; call InvokeEndpoint without it",
}
_PASSED_HEADERS = tuple(
    name for name in contract.REQUEST_HEADERS if name not in (*_REFUSED_HEADERS, TARGET_MODEL)
)
_RETURNED_HEADERS = tuple((name.lower(), name) for name in contract.RESPONSE_HEADERS)
_READ_BYTES = 1 << 20


class Endpoints(Protocol):
    """What the runtime asks the control plane when there is no route."""

    def status(self, caller: Caller, name: str) -> str | None:
        """EndpointStatus; None when there is no such endpoint."""


class Invocations:
    """Answers `/endpoints/<name>/invocations`; safe for use by many threads."""

    def __init__(
        self, router: Router, endpoints: Endpoints, metrics: InvocationMetrics, settings: Settings
    ) -> None:
        self._router = router
        self._endpoints = endpoints
        self._metrics = metrics
        self._timeout = settings.invocation_timeout
        self._limit = settings.payload_limit

    def handle(self, request: Request, caller: Caller) -> Response:
        """The answer to the caller; never raises for what the caller or container did."""
        began = monotonic()
        request_id = str(uuid.uuid4())
        try:
            endpoint = _endpoint_name(request)
            body = self._body(request)
            return self._invoke(request.headers, endpoint, body, caller, request_id, began)
        except AwsError as error:
            return response(error, request_id)

    def _body(self, request: Request) -> bytes | bytearray:
        length = request.body.length
        if length is not None:
            if length > self._limit:
                raise PayloadTooLarge(self._limit, length)
            # In place: a body of megabytes arrives in many parts.
            body = bytearray(length)
            view = memoryview(body)
            while len(view):
                view = view[request.body.readinto(view) :]
            return body
        parts: list[bytes] = []
        size = 0
        while part := request.body.read(_READ_BYTES):
            size += len(part)
            if size > self._limit:
                raise PayloadTooLarge(self._limit, None)
            parts.append(part)
        return b"".join(parts)

    def _invoke(
        self,
        headers: Headers,
        endpoint: str,
        body: bytes | bytearray,
        caller: Caller,
        request_id: str,
        began: float,
    ) -> Response:
        for name, reason in _REFUSED_HEADERS.items():
            if name in headers:
                raise ValidationError(f"{reason}.")
        variant, backend = self._enter(headers, endpoint, caller)
        answer: Answer | None = None
        sent = monotonic()
        received = sent
        status = 0
        try:
            if backend is None:
                raise ModelError(caller, endpoint, 0, _nothing_ready(variant))
            answer = self._exchange(variant, backend, headers, body, caller, endpoint, sent)
            received = monotonic()
            status = answer.status
            if status >= 400:
                raise ModelError(
                    caller, endpoint, status, answer.body.decode("utf-8", errors="replace")
                )
        finally:
            if answer is None:
                received = monotonic()
            model_seconds = received - sent
            self._metrics.record(
                Invocation(
                    caller,
                    endpoint,
                    variant.name,
                    len(variant.backends),
                    status,
                    model_seconds,
                    monotonic() - began - model_seconds,
                    time.time(),
                )
            )
        passed = [(name, answer.headers[key]) for key, name in _RETURNED_HEADERS
                  if key in answer.headers]
        passed += [("x-Amzn-Invoked-Production-Variant", variant.name),
                   ("x-amzn-RequestId", request_id)]
        return Response(status=200, headers=passed, body=answer.body)

    def _enter(
        self, headers: Headers, endpoint: str, caller: Caller
    ) -> tuple[VariantRoute, Backend | None]:
        """The variant and its instance, with the request counted in; no instance when none of
        the variant's is ready."""
        target = headers.get(TARGET_VARIANT)
        while True:
            route = self._router.find(caller, endpoint)
            if route is None:
                raise self._no_route(endpoint, caller)
            variant = route.variant(target) if target else route.choose()
            if variant is None:
                raise ValidationError(
                    f"Variant {target} of endpoint {endpoint} not found."
                    f" Its variants: {', '.join(each.name for each in route.variants)}."
                )
            backend = variant.enter(target=headers.get(TARGET_MODEL))
            # An update may have switched the route, and begun to drain the instances of the old
            # one, since it was looked up: look again.
            if backend is not None or self._router.find(caller, endpoint) is route:
                return variant, backend

    def _no_route(self, endpoint: str, caller: Caller) -> AwsError:
        status = self._endpoints.status(caller, endpoint)
        if status is None or status == "Deleting":
            return ValidationError(
                f"Endpoint {endpoint} of account {caller.account} not found.", "NO_SUCH_ENDPOINT"
            )
        if status in ("Creating", "Failed"):
            return ValidationError(
                f"Endpoint {endpoint} of account {caller.account} is in status {status};"
                " it takes invocations when it is InService."
            )
        return ServiceUnavailable(
            f"Endpoint {endpoint} is starting again after a restart of the service; try again."
        )

    def _exchange(
        self,
        variant: VariantRoute,
        backend: Backend,
        headers: Headers,
        body: bytes | bytearray,
        caller: Caller,
        endpoint: str,
        began: float,
    ) -> Answer:
        """The answer of `backend`, which the request is counted into, or of a sibling where it
        has just died: a refused connection carried no request, so that none runs twice."""
        deadline = began + self._timeout
        try:
            try:
                return _send(backend, headers, body, deadline, self._limit)
            except connection.Unreachable:
                sibling = variant.enter(besides=backend)
                if sibling is None:
                    raise
                return _send(sibling, headers, body, deadline, self._limit)
        except LoadFailed as error:
            return error.answer
        except TimeoutError:
            raise ModelError(caller, endpoint, 0, TIMEOUT_MESSAGE) from None
        except connection.AnswerTooLarge as large:
            size = f" of {large.size} bytes" if large.size else ""
            raise ModelError(
                caller,
                endpoint,
                large.status if large.status >= 400 else 0,
                f"The answer{size} exceeded {self._limit} bytes. Send fewer records a request or"
                " ask for a binary format; BYOA_PAYLOAD_LIMIT raises the limit locally.",
            ) from None
        except (connection.ConnectionFailed, OSError) as error:
            raise ModelError(
                caller, endpoint, 0, f"Container primary did not answer: {error}."
            ) from None


def _send(
    backend: Backend, headers: Headers, body: bytes | bytearray, deadline: float, limit: int
) -> Answer:
    """An exchange with a backend, after which the request is counted out."""
    answered = False
    try:
        answer = _ask(backend, headers, body, deadline, limit)
        answered = True
        return answer
    finally:
        backend.leave(answered=answered)


def _ask(
    backend: Backend, headers: Headers, body: bytes | bytearray, deadline: float, limit: int
) -> Answer:
    """The answer of the instance, or of the one of its models that the request names."""
    target, models = headers.get(TARGET_MODEL), backend.models
    if models is None:
        if target is not None:
            raise ValidationError(
                "TargetModel needs a multi-model endpoint, whose model has Mode MultiModel; this"
                " endpoint has one model: call InvokeEndpoint without it."
            )
        plain = _head(headers, len(body), contract.INVOCATIONS_PATH, _PASSED_HEADERS)
        return backend.exchange(plain, body, deadline, limit)
    if target is None:
        raise ValidationError(
            "This is a multi-model endpoint: name one of its models in TargetModel, the path of"
            " its archive below ModelDataUrl."
        )

    def exchange(head: bytes, body: bytes | bytearray, until: float) -> Answer:
        return backend.exchange(head, body, until, limit)

    def head(path: str) -> bytes:
        return _head(headers, len(body), path, (*_PASSED_HEADERS, TARGET_MODEL))

    return models.invoke(exchange, target, head, body, deadline)


def _endpoint_name(request: Request) -> str:
    """The name in `/endpoints/<name>/invocations`, percent-decoded (WIRE-31)."""
    _, _, name, action = (*request.path.split("/", 3), "", "", "", "")[:4]
    if request.method != "POST" or action != "invocations":
        raise ValidationError(
            f"{request.method} {request.path} is not run here; the nearest is InvokeEndpoint,"
            " POST /endpoints/<name>/invocations."
        )
    return unquote(name)


def _head(headers: Headers, length: int, path: str, passed: Iterable[str]) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Host: localhost:{contract.DEFAULT_PORT}"]
    for name in passed:
        value = headers.get(name)
        if value is not None:
            lines.append(f"{name}: {value}")
    lines.append(f"Content-Length: {length}\r\n\r\n")
    return "\r\n".join(lines).encode("latin-1", errors="replace")


def _nothing_ready(variant: VariantRoute) -> str:
    reasons = "; ".join(
        f"{backend.id}: {backend.reason}" for backend in variant.backends if not backend.ready
    )
    return f"No container of variant {variant.name} is ready: {reasons}"
