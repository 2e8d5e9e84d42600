"""Small requests that are answered where they are read: the express lane without ASGI.

For a small request, ASGI's task, messages and checks cost more than parsing, decoding, predicting
and encoding together. So the connection hands the whole request to `Direct`, which answers it at
once, or when the model's thread has; what turns out to need more (a model to be loaded, a stream,
an error that is no refusal) goes on in the ASGI application from where it has come to (`Begun`).
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from concurrent.futures import Future
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

from byoa.container import contract
from byoa.serve.aside import Aside
from byoa.serve.busy_poll import BusyPoll
from byoa.serve.calls import Call
from byoa.serve.core import LARGE_BYTES, Job, Responder, close_stream
from byoa.serve.messages import REQUEST_ID, Answer, Request
from byoa.serve.moments import Moments
from byoa.serve.rounds import Rounds
from byoa.serve.streaming import Stream
from byoa.serve.visit import AsgiVisit, Watch

BEGUN = "byoa.begun"  # in ASGI's scope
_INVOCATIONS = contract.INVOCATIONS_PATH.encode()
_PING = contract.PING_PATH.encode()
_TYPES = 64  # content types that are kept ready
# What is answered directly, by status: an answer, and the refusals that a crowd gets.
_LINES = {
    each.value: f"{each.value} {each.phrase}".encode()
    for each in (HTTPStatus.OK, HTTPStatus.BAD_REQUEST, HTTPStatus.SERVICE_UNAVAILABLE)
}

_REFUSED = (REQUEST_ID, "Retry-After")  # headers of a refusal


class Begun(NamedTuple):
    """How far a request has come; the rest is the ASGI application's."""

    request: Request | Answer
    answer: Answer | Exception | None = None  # None: not even prepared


class _Unheard:
    """Nobody waits for an exchange's news."""

    def set(self) -> None:
        pass


class Exchange:
    """A request that may be answered directly, in the place of uvicorn's RequestResponseCycle."""

    __slots__ = (
        "begun", "body", "disconnected", "headers", "keep_alive", "outcome", "raw_headers",
        "refusal", "response_complete", "timer", "told", "url", "visit",
    )
    message_event = _Unheard()
    response_started = more_body = False

    def __init__(
        self, url: bytes, raw_headers: list[tuple[bytes, bytes]], headers: dict[str, str],
        visit: AsgiVisit,
    ) -> None:
        self.url = url
        self.raw_headers = raw_headers
        self.headers = headers
        self.visit = visit
        self.body = b""
        self.begun = False  # whether it is being answered, or waits for its turn yet
        self.refusal: Exception | None = None  # then its body is not kept
        self.keep_alive = True
        self.response_complete = False  # or its connection is no longer ours
        self.disconnected = False
        self.outcome: Future[Any] | None = None  # what the model's thread is asked for
        self.timer: asyncio.TimerHandle | None = None
        self.told: Callable[[], None] | None = None  # what the model said, and has its turn yet


class Connection(Protocol):
    """Where an exchange's answer goes."""

    def send_whole(self, exchange: Exchange, status: bytes, head: bytes, body: bytes) -> bool:
        """Send an answer of which `head` is the lines of its own headers; False where that may
        not be done now."""

    def answered(self) -> None:
        """An exchange that was sent whole has been counted: the next has its turn."""

    def hand_over(self, exchange: Exchange, begun: Begun) -> bool:
        """Let the ASGI application answer; False where the client has left."""


class Direct:
    """What answers the exchanges of one worker's connections."""

    def __init__(
        self, core: Responder, watch: Watch, moments: Moments, aside: Aside, poll: BusyPoll
    ) -> None:
        self._core = core
        self._moments = moments
        self._aside = aside
        self._poll = poll
        self._limit = core.settings.payload_limit or sys.maxsize
        self.watch = watch
        self._rounds = Rounds()

    def open(
        self, method: bytes, url: bytes, raw_headers: list[tuple[bytes, bytes]]
    ) -> Exchange | None:
        """An exchange for an invocation, or a ping, whose head is there; None where it takes
        another way, as do large bodies that have room, those of unknown length, encoded ones, and
        headers that are given twice. A large body that has none is refused for what is so now: to
        keep it until there is room would be the queue that is full."""
        if method == b"GET":
            return self._ping(url, raw_headers)
        if method != b"POST":
            return None
        if url != _INVOCATIONS and not self._is_model(url):
            return None
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in raw_headers
        }
        length = headers.get("content-length", "")
        if (
            len(headers) < len(raw_headers) or not (length.isascii() and length.isdecimal())
            or "content-encoding" in headers or "transfer-encoding" in headers
        ):
            return None
        size, refusal = int(length), None
        if size > self._limit:
            return None
        if size > LARGE_BYTES:
            refusal = self._aside.refusal()
            if refusal is None:
                return None
        visit = AsgiVisit("POST", url.decode("ascii"), raw_headers)
        self.watch.enter(visit)
        exchange = Exchange(url, raw_headers, headers, visit)
        exchange.refusal = refusal
        return exchange

    def _ping(self, url: bytes, raw_headers: list[tuple[bytes, bytes]]) -> Exchange | None:
        """Among direct answers a task waits until nobody has sent anything for a moment: a ping
        must not (HOST-20)."""
        if url != _PING or any(
            name in (b"content-length", b"transfer-encoding") for name, _ in raw_headers
        ):
            return None
        visit = AsgiVisit("GET", contract.PING_PATH, raw_headers)
        self.watch.enter(visit)
        return Exchange(url, raw_headers, {}, visit)

    def _is_model(self, url: bytes) -> bool:
        return b"%" not in url and b"?" not in url and url.isascii() and self._core.invokes(
            url.decode("ascii")
        )

    def answer(self, exchange: Exchange, connection: Connection) -> None:
        """Answer an exchange whose body is there, or hand it over; where many have come, in its
        turn."""
        if exchange.url == _PING:
            self._answer_ping(exchange, connection)
        else:
            self._rounds.take(partial(self._answer, exchange, connection))

    def hurry(self, exchange: Exchange, connection: Connection) -> None:
        """Answer an exchange that may be waiting for its turn: later it cannot be sent."""
        if exchange.url == _PING:
            return
        self._answer(exchange, connection)
        if exchange.told is None and exchange.outcome is None and not exchange.response_complete:
            self._moments.hurry()
        self._tell(exchange)

    def _answer_ping(self, exchange: Exchange, connection: Connection) -> None:
        request = Request("GET", exchange.visit.path, {}, b"")
        try:
            answer = self._core.ping()
        except Exception as error:
            self._hand_over(exchange, connection, Begun(request, error))
        else:
            self._send(exchange, connection, request, answer)

    def _answer(self, exchange: Exchange, connection: Connection) -> None:
        if exchange.begun or exchange.response_complete:
            return  # `hurry` has been sooner, or its client has left
        exchange.begun = True
        visit, core = exchange.visit, self._core
        request = Request("POST", visit.path, exchange.headers, exchange.body, "", visit)
        if exchange.refusal is not None:
            visit.bytes_in = int(exchange.headers["content-length"])
            self._send(exchange, connection, request, core.failed(request, exchange.refusal))
            self._rounds.rest(self._aside.backlog_seconds / 2)
            return
        visit.bytes_in = len(exchange.body)
        try:
            if core.must_wait(request):
                self._hand_over(exchange, connection, Begun(request))
                return
            job = core.prepare(request)
        except Exception as error:
            self._hand_over(exchange, connection, Begun(request, error))
            return
        if isinstance(job, Answer):
            self._send(exchange, connection, request, job)
            if job.status == HTTPStatus.SERVICE_UNAVAILABLE:
                self._rounds.rest(core.backlog_seconds() / 2)
            return
        if isinstance(job, Job) and job.compute.gathers:
            self._moments.add(job, partial(self._told_among, exchange, connection, job))
            return
        try:
            outcome = core.start(job)
        except Exception as error:
            outcome = error
        self._told(exchange, connection, job, outcome)

    def left(self, exchange: Exchange) -> None:
        """Count an exchange that is over, answered or not."""
        if exchange.response_complete:
            return
        if exchange.outcome is not None:
            _give_up(exchange.outcome)
        if exchange.timer is not None:
            exchange.timer.cancel()
        exchange.response_complete = True
        exchange.body = b""  # an idle connection keeps its last exchange
        self.watch.leave(exchange.visit, exchange.visit.headers)

    def _told(
        self, exchange: Exchange, connection: Connection, job: Job | Call, outcome: Any
    ) -> None:
        """The model has answered, or will on its thread."""
        try:
            self._take(exchange, connection, job, outcome)
        except Exception as error:  # of ours, or an author's exception with a mind of its own
            self._hand_over(exchange, connection, Begun(job.request, error))

    def _told_among(
        self, exchange: Exchange, connection: Connection, job: Job | Call, outcome: Any
    ) -> None:
        """As `_told`, in its turn: the model answers many together."""
        exchange.told = partial(self._told, exchange, connection, job, outcome)
        self._rounds.take(partial(self._tell, exchange))

    @staticmethod
    def _tell(exchange: Exchange) -> None:
        told, exchange.told = exchange.told, None
        if told is not None:  # `hurry` has not been sooner
            told()

    def _take(
        self, exchange: Exchange, connection: Connection, job: Job | Call, outcome: Any
    ) -> None:
        if exchange.response_complete:  # its client has left meanwhile
            if isinstance(outcome, Future):
                _give_up(outcome)
            elif isinstance(outcome, Answer) and isinstance(outcome.body, Stream):
                outcome.body.close()
        elif isinstance(outcome, Future):
            loop = asyncio.get_running_loop()
            exchange.outcome = outcome
            exchange.timer = loop.call_later(
                self._core.settings.deadline, self._too_late, exchange, connection, job
            )
            ready = partial(self._ready, exchange, connection, job)
            outcome.add_done_callback(partial(_soon, loop, ready))
        elif isinstance(outcome, Exception):
            answer = self._core.failed(job.request, outcome)
            self._send(exchange, connection, job.request, answer)
        else:
            self._send(exchange, connection, job.request, self._core.finish(job, outcome))

    def _ready(
        self, exchange: Exchange, connection: Connection, job: Job | Call, outcome: Future[Any]
    ) -> None:
        """The model's thread is done with a job."""
        if exchange.response_complete:
            return  # it came too late, or its client has left
        exchange.outcome = None
        if exchange.timer is not None:
            exchange.timer.cancel()
        error = outcome.exception()
        told = outcome.result() if error is None else error
        self._told_among(exchange, connection, job, told)

    def _too_late(self, exchange: Exchange, connection: Connection, job: Job | Call) -> None:
        if exchange.outcome is not None:
            _give_up(exchange.outcome)
            exchange.outcome = None
        answer = self._core.too_late(job.request)
        self._hand_over(exchange, connection, Begun(job.request, answer))

    def _send(
        self, exchange: Exchange, connection: Connection, request: Request, answer: Answer
    ) -> None:
        body, status, head = answer.body, _LINES.get(answer.status), _head(answer)
        if (
            status is not None and head is not None and isinstance(body, bytes)
            and connection.send_whole(exchange, status, head, body)
        ):
            visit = exchange.visit
            visit.status = answer.status
            visit.bytes_out = len(body)
            if answer.status != 200:
                visit.request_id = answer.identity
            self.left(exchange)
            connection.answered()
            if answer.status == 200:
                self._poll.answered(others=self.watch.meter.in_flight > 0)
        elif not self._hand_over(exchange, connection, Begun(request, answer)):
            if isinstance(body, Stream):
                body.close()

    def _hand_over(self, exchange: Exchange, connection: Connection, begun: Begun) -> bool:
        if connection.hand_over(exchange, begun):
            exchange.response_complete = True  # its answer is the application's matter
            return True
        self.left(exchange)
        return False


def _soon(
    loop: asyncio.AbstractEventLoop, ready: Callable[[Future[Any]], None], outcome: Future[Any]
) -> None:
    """On the model's thread: let the loop go on with an outcome."""
    with contextlib.suppress(RuntimeError):  # it has ended
        loop.call_soon_threadsafe(ready, outcome)


def _give_up(outcome: Future[Any]) -> None:
    """Nobody waits any more. What runs already cannot be cancelled: whatever it opens is closed."""
    outcome.add_done_callback(close_stream)
    outcome.cancel()


def _head(answer: Answer) -> bytes | None:
    """The lines of an answer's own headers; None where uvicorn is to look at them: of those with
    more than a content type only our refusals go out as they are."""
    head = _typed(answer.content_type)
    if not answer.headers:
        return head if answer.status == 200 else None
    if (
        head is None or answer.status == 200 or not answer.identity
        or any(name not in _REFUSED for name, _ in answer.headers)
    ):
        return None
    lines = "".join(f"{name}: {value}\r\n" for name, value in answer.headers)
    return head + lines.encode("latin-1")


@lru_cache(_TYPES)
def _typed(content_type: str) -> bytes | None:
    """The line of a content type; None where it may not be written as it is."""
    if not (content_type.isascii() and content_type.isprintable()):
        return None
    return b"content-type: %b\r\n" % content_type.encode()
