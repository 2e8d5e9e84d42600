"""InvokeEndpoint, plain and with a response stream: from a caller to a serving container and back.

The body passes unchanged. What the container does wrong comes back as ModelError, with its own
words (ERR-01 … ERR-04); once a streamed answer has begun, as an event of the stream (STRM-06).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Protocol, TypeVar

from byoa.local.api.http import Disconnected, Request, Response
from byoa.local.errors import AwsError
from byoa.local.runtime import connection
from byoa.local.runtime.answer_stream import AnswerStream
from byoa.local.runtime.calls import (
    CLOSED_SESSION_ID,
    NEW_SESSION_ID,
    TARGET_MODEL,
    TARGET_VARIANT,
    Call,
    check,
    refuse,
    target_of,
)
from byoa.local.runtime.connection import Answer, CallerLeft, Stay
from byoa.local.runtime.errors import (
    TIMEOUT_MESSAGE,
    ModelError,
    PayloadTooLarge,
    ServiceUnavailable,
    ValidationError,
    response,
)
from byoa.local.runtime.invocation_metrics import Invocation, InvocationMetrics
from byoa.local.runtime.payload_parts import PayloadParts
from byoa.local.runtime.routing import Backend, Route, Router, VariantRoute
from byoa.local.runtime.sessions import BadSession
from byoa.local.runtime.target_models import LoadFailed
from byoa.local.settings import Caller, Settings

_READ_BYTES = 1 << 20

Given = TypeVar("Given")


class Endpoints(Protocol):
    """What the runtime asks the control plane when there is no route."""

    def status(self, caller: Caller, name: str) -> str | None:
        """EndpointStatus; None when there is no such endpoint."""


class Invocations:
    """Answers `/endpoints/<name>/invocations` and `…/invocations-response-stream`; safe for use by
    many threads."""

    def __init__(
        self, router: Router, endpoints: Endpoints, metrics: InvocationMetrics, settings: Settings
    ) -> None:
        self._router = router
        self._endpoints = endpoints
        self._metrics = metrics
        self._timeout = settings.invocation_timeout
        self._stream_timeout = settings.stream_timeout
        self._limit = settings.payload_limit

    def handle(self, request: Request, caller: Caller) -> Response:
        """The answer to the caller; never raises for what the caller or container did, unless a
        caller of a stream has left: Disconnected."""
        began = monotonic()
        request_id = str(uuid.uuid4())
        try:
            endpoint, streamed = target_of(request)
            body = self._body(request)
            refuse(request.headers, streamed=streamed)
            check(endpoint, request.headers, streamed=streamed)
            call = Call(caller, endpoint, request.headers, body, request_id, began)
            if not streamed:
                return self._invoke(call)
            return self._stream(call, request.peer.stays if request.peer else None)
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

    def _invoke(self, call: Call) -> Response:
        variant, backend = self._enter(call)
        sent = monotonic()
        received: float | None = None
        status = 0
        try:
            if backend is None:
                raise call.error(0, _nothing_ready(variant))
            deadline = sent + self._timeout
            answer, backend = self._reach(
                call, variant, backend, lambda each: _send(each, call, deadline, self._limit)
            )
            received = monotonic()
            if answer.status < 400:
                self._note_session(call, answer.headers, backend)
            status = answer.status
            if status >= 400:
                raise call.error(status, answer.body.decode("utf-8", errors="replace"))
        finally:
            self._record(call, variant, status, (received or monotonic()) - sent)
        headers = call.answer_headers(answer.headers, variant.name)
        return Response(status=200, headers=headers, body=answer.body)

    def _stream(self, call: Call, stay: Stay | None) -> Response:
        """An answer that goes on as the container's does, from its first byte (STRM-02)."""
        variant, backend = self._enter(call)
        sent = monotonic()

        def done(status: int) -> None:
            self._record(call, variant, status, monotonic() - sent)

        status = 0
        try:
            if backend is None:
                raise call.error(0, _nothing_ready(variant))
            deadline = sent + self._stream_timeout
            answer, backend = self._reach(
                call, variant, backend, lambda each: _open(each, call, deadline, self._limit, stay)
            )
            if isinstance(answer, Answer):
                status = answer.status
                raise call.error(status, answer.body.decode("utf-8", errors="replace"))
            try:
                self._note_session(call, answer.headers, backend)
            except ModelError:
                answer.close()
                backend.leave(answered=True)
                raise
        except CallerLeft:
            done(200)  # it ends as nobody's failure
            raise Disconnected("the client left before its answer began") from None
        except BaseException:
            done(status)
            raise
        parts = PayloadParts(answer, backend, deadline, done)
        headers = call.streamed_answer_headers(answer.headers, variant.name)
        return Response(status=200, headers=headers, body=parts)

    def _record(self, call: Call, variant: VariantRoute, status: int, seconds: float) -> None:
        """Count an invocation that was the container's for `seconds`."""
        overhead = monotonic() - call.began - seconds
        self._metrics.record(
            Invocation(
                call.caller,
                call.endpoint,
                variant.name,
                len(variant.backends),
                status,
                seconds,
                overhead,
                time.time(),
            )
        )

    def _note_session(self, call: Call, headers: Mapping[str, str], backend: Backend) -> None:
        """Route to `backend` from now on the session that it has opened, and forget one that it
        has closed (SESS-01, SESS-02)."""
        opened, closed = headers.get(NEW_SESSION_ID), headers.get(CLOSED_SESSION_ID)
        if closed is not None:
            self._router.sessions(call.caller, call.endpoint).closed(closed)
        if opened is not None:
            try:
                self._router.sessions(call.caller, call.endpoint).opened(opened, backend)
            except BadSession:
                raise call.error(
                    0,
                    f"The container opened a session with the header {NEW_SESSION_ID}:"
                    f" {opened[:300]}, must be <id>; Expires=yyyy-mm-ddThh:mm:ssZ, an id of"
                    " letters, digits and hyphens.",
                ) from None

    def _enter(self, call: Call) -> tuple[VariantRoute, Backend | None]:
        """The variant and its instance, with the request counted in; no instance when none of
        the variant's is ready, or the one that keeps the call's session is not."""
        while True:
            route = self._router.find(call.caller, call.endpoint)
            if route is None:
                raise self._no_route(call.endpoint, call.caller)
            if call.session is not None:
                variant, keeper = self._kept(call, route, call.session)
                backend = keeper if keeper.ready and keeper.enter() else None
            else:
                target = call.headers.get(TARGET_VARIANT)
                chosen = route.variant(target) if target else route.choose()
                if chosen is None:
                    raise ValidationError(
                        f"Variant {target} of endpoint {call.endpoint} not found."
                        f" Its variants: {', '.join(each.name for each in route.variants)}."
                    )
                variant = chosen
                backend = variant.enter(target=call.headers.get(TARGET_MODEL))
            # An update may have switched the route, and begun to drain the instances of the old
            # one, since it was looked up: look again.
            if backend is not None or self._router.find(call.caller, call.endpoint) is route:
                return variant, backend

    def _kept(self, call: Call, route: Route, session: str) -> tuple[VariantRoute, Backend]:
        """The variant and the instance that keep a session (SESS-01)."""
        keeper = self._router.sessions(call.caller, call.endpoint).find(session)
        variant = route.variant_of(keeper) if keeper is not None else None
        if keeper is None or variant is None:
            raise ValidationError(
                f"Session {session} of endpoint {call.endpoint} not found: it has not been opened,"
                " was closed, has expired, or its container has ended. SessionId NEW_SESSION of"
                " InvokeEndpoint opens one."
            )
        target = call.headers.get(TARGET_VARIANT)
        if target and target != variant.name:
            raise ValidationError(
                f"Session {session} of endpoint {call.endpoint} is kept by variant {variant.name}"
                f" and not by {target}: leave TargetVariant out."
            )
        return variant, keeper

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

    def _reach(
        self,
        call: Call,
        variant: VariantRoute,
        backend: Backend,
        send: Callable[[Backend], Given],
    ) -> tuple[Given, Backend]:
        """What `send` gives with `backend`, which the request is counted into, or with a sibling
        where it has just died: a refused connection carried no request, so that none runs twice.
        Only the one that keeps a session can answer for it. Raises ModelError."""
        try:
            try:
                return send(backend), backend
            except connection.Unreachable:
                sibling = None if call.session is not None else variant.enter(besides=backend)
                if sibling is None:
                    raise
                return send(sibling), sibling
        except TimeoutError:
            raise call.error(0, TIMEOUT_MESSAGE) from None
        except connection.AnswerTooLarge as large:
            size = f" of {large.size} bytes" if large.size else ""
            raise call.error(
                large.status if large.status >= 400 else 0,
                f"The answer{size} exceeded {self._limit} bytes. Send fewer records a request or"
                " ask for a binary format; BYOA_PAYLOAD_LIMIT raises the limit locally.",
            ) from None
        except (connection.ConnectionFailed, OSError) as error:
            raise call.error(0, f"Container primary did not answer: {error}.") from None


def _send(backend: Backend, call: Call, deadline: float, limit: int) -> Answer:
    """An exchange with a backend, after which the request is counted out."""
    answered = False
    try:
        answer = _ask(backend, call, deadline, limit)
        answered = True
        return answer
    except LoadFailed as error:
        return error.answer
    finally:
        backend.leave(answered=answered)


def _ask(backend: Backend, call: Call, deadline: float, limit: int) -> Answer:
    """The answer of the instance, or of the one of its models that the request names."""
    target, models = call.headers.get(TARGET_MODEL), backend.models
    if models is None:
        if target is not None:
            raise ValidationError(
                "TargetModel needs a multi-model endpoint, whose model has Mode MultiModel; this"
                " endpoint has one model: call InvokeEndpoint without it."
            )
        return backend.exchange(call.head(), call.body, deadline, limit)
    if target is None:
        raise ValidationError(
            "This is a multi-model endpoint: name one of its models in TargetModel, the path of"
            " its archive below ModelDataUrl."
        )

    def exchange(head: bytes, body: bytes | bytearray, until: float) -> Answer:
        return backend.exchange(head, body, until, limit)

    def head(path: str) -> bytes:
        return call.head(path, target=True)

    return models.invoke(exchange, target, head, call.body, deadline)


def _open(
    backend: Backend, call: Call, deadline: float, limit: int, stay: Stay | None
) -> AnswerStream | Answer:
    """The beginning of an answer, the request still counted in; an answer of an error as a whole,
    after which it is counted out."""
    within = answered = False
    try:
        if backend.models is not None:
            raise ValidationError(
                "This is a multi-model endpoint, and InvokeEndpointWithResponseStream has no"
                " TargetModel to name one of its models; call InvokeEndpoint."
            )
        stream = backend.open(call.streamed_head(), call.body, deadline, stay)
        if stream.status < 400:
            within = True
            return stream
        answer = stream.whole(deadline, limit)
        answered = True
        return answer
    finally:
        if not within:
            backend.leave(answered=answered)


def _nothing_ready(variant: VariantRoute) -> str:
    reasons = "; ".join(
        f"{backend.id}: {backend.reason}" for backend in variant.backends if not backend.ready
    )
    return f"No container of variant {variant.name} is ready: {reasons or 'they are ending'}"
