"""Small requests that are answered where they are read: the express lane without ASGI.

For a request that needs no waiting, ASGI's task, messages and checks cost more than parsing,
decoding, predicting and encoding together. So the connection hands the whole request to `Direct`,
which answers it at once; what turns out to need more (a model on its own thread, a stream, an
error) goes on in the ASGI application from where it has come to (`Begun`).
"""

from __future__ import annotations

from concurrent.futures import Future
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol

from byoa.container import contract
from byoa.serve.calls import Call
from byoa.serve.core import LARGE_BYTES, Job, Responder
from byoa.serve.messages import Answer, Request
from byoa.serve.moments import Moments
from byoa.serve.visit import AsgiVisit, Watch

BEGUN = "byoa.begun"  # in ASGI's scope
_INVOCATIONS = contract.INVOCATIONS_PATH.encode()
_TYPES = 64  # content types that are kept ready


class Begun(NamedTuple):
    """How far a request has come; the rest is the ASGI application's."""

    request: Request | Answer
    job: Job | Call | Answer | Exception | None = None  # None: not even prepared
    outcome: Future[Any] | None = None  # None: not started


class _Unheard:
    """Nobody waits for an exchange's news."""

    def set(self) -> None:
        pass


class Exchange:
    """A request that may be answered directly, in the place of uvicorn's RequestResponseCycle."""

    __slots__ = (
        "body", "disconnected", "headers", "keep_alive", "raw_headers", "response_complete", "url",
        "visit",
    )
    message_event = _Unheard()
    response_started = False

    def __init__(
        self, url: bytes, raw_headers: list[tuple[bytes, bytes]], headers: dict[str, str],
        visit: AsgiVisit,
    ) -> None:
        self.url = url
        self.raw_headers = raw_headers
        self.headers = headers
        self.visit = visit
        self.body = b""
        self.keep_alive = True
        self.response_complete = False  # or its connection is no longer ours
        self.disconnected = False


class Connection(Protocol):
    """Where an exchange's answer goes."""

    def send_whole(self, exchange: Exchange, head: bytes, body: bytes) -> bool:
        """Send an answer 200 of which `head` is the content type; False where that may not be
        done now."""

    def hand_over(self, exchange: Exchange, begun: Begun) -> None:
        """Let the ASGI application answer."""


class Direct:
    """What answers the exchanges of one worker's connections."""

    def __init__(self, core: Responder, watch: Watch, moments: Moments) -> None:
        self._core = core
        self._moments = moments
        self.watch = watch

    def open(
        self, url: bytes, raw_headers: list[tuple[bytes, bytes]]
    ) -> Exchange | None:
        """An exchange for a POST whose head is there; None where it takes another way, as do large
        bodies, those of unknown length, encoded ones, and headers that are given twice."""
        if url != _INVOCATIONS and not self._is_model(url):
            return None
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in raw_headers
        }
        length = headers.get("content-length", "")
        if (
            len(headers) < len(raw_headers) or not (length.isascii() and length.isdecimal())
            or int(length) > min(LARGE_BYTES, self._core.settings.payload_limit or LARGE_BYTES)
            or "content-encoding" in headers or "transfer-encoding" in headers
        ):
            return None
        visit = AsgiVisit("POST", url.decode("ascii"), raw_headers)
        self.watch.enter(visit)
        return Exchange(url, raw_headers, headers, visit)

    def _is_model(self, url: bytes) -> bool:
        return b"%" not in url and b"?" not in url and url.isascii() and self._core.invokes(
            url.decode("ascii")
        )

    def answer(self, exchange: Exchange, connection: Connection) -> None:
        """Answer an exchange whose body is there, or hand it over."""
        visit, core = exchange.visit, self._core
        visit.bytes_in = len(exchange.body)
        request = Request("POST", visit.path, exchange.headers, exchange.body, "", visit)
        outcome: Any
        try:
            if core.must_wait(request):
                connection.hand_over(exchange, Begun(request))
                return
            job = core.prepare(request)
            if not isinstance(job, Job) or not job.compute.quick:
                connection.hand_over(exchange, Begun(request, job))
                return
            if job.compute.gathers:
                self._moments.add(job, partial(self._finish, exchange, connection, job))
                return
            (outcome,) = job.compute.attempt((job.work,))
        except Exception as error:
            connection.hand_over(exchange, Begun(request, error))
            return
        self._finish(exchange, connection, job, outcome)

    def left(self, exchange: Exchange) -> None:
        """Count an exchange that is over, answered or not."""
        exchange.response_complete = True
        self.watch.leave(exchange.visit, exchange.visit.headers)

    def _finish(
        self, exchange: Exchange, connection: Connection, job: Job, outcome: Any
    ) -> None:
        if isinstance(outcome, Future):
            connection.hand_over(exchange, Begun(job.request, job, outcome))
            return
        if isinstance(outcome, Exception):
            answer = self._core.failed(job.request, outcome)
        else:
            answer = self._core.finish(job, outcome)
        head = _typed(answer.content_type)
        if answer.status == 200 and not answer.headers and head is not None:
            body = answer.whole
            if connection.send_whole(exchange, head, body):
                exchange.visit.status = 200
                exchange.visit.bytes_out = len(body)
                self.left(exchange)
                return
        connection.hand_over(exchange, Begun(job.request, answer))


@lru_cache(_TYPES)
def _typed(content_type: str) -> bytes | None:
    """The line of a content type; None where it may not be written as it is."""
    if not (content_type.isascii() and content_type.isprintable()):
        return None
    return b"content-type: %b\r\n" % content_type.encode()
