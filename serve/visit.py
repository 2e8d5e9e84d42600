"""One request as operations see it: its time, bytes and status, what it waited for.

Both doors are wrapped: `WatchedAsgi`, `WatchedWsgi`. Each makes a Visit, which travels with the
request (`Request.visit`, `Work.visit`) and is filled in on the way; in the end `Watch` counts it
and logs a line. An error that has no X-Request-Id yet is given one here.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from byoa.container import contract
from byoa.serve import trace
from byoa.serve.access_log import AccessLog
from byoa.serve.meter import OTHER, Meter

if TYPE_CHECKING:
    from byoa.serve.messages import Answer

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
StartResponse = Callable[..., Any]
# From method, path, headers and what was raised to an answer.
Broken = Callable[[str, str, Mapping[str, str], Exception], "Answer"]

KEY = "byoa.visit"  # in ASGI's scope and WSGI's environ
ARRIVAL = "byoa.arrival"  # in WSGI's environ, where the worker looks after it
GONE = 499  # the client left before its answer, as nginx counts it
TIMED_OUT = 408
_PATH_CHARACTERS = 200  # of a path in the log
_WORD_CHARACTERS = 20
_MODELS_PREFIX = f"{contract.MODELS_PATH}/"
_INVOKE_ROUTE = f"{_MODELS_PREFIX}{{model}}/invoke"
_ROUTES = {path: path for path in (
    contract.PING_PATH, contract.INVOCATIONS_PATH, contract.EXECUTION_PARAMETERS_PATH,
    contract.METRICS_PATH, contract.MODELS_PATH, contract.BIDIRECTIONAL_PATH,
)}
_TIMED = (contract.INVOCATIONS_PATH, _INVOKE_ROUTE)
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_ID_HEADERS = ("x-amzn-requestid", "x-request-id", "x-amzn-sagemaker-inference-id")


def request_id(headers: Mapping[str, str]) -> str:
    """The caller's own id where it is one word of ASCII, else a new one."""
    for name in _ID_HEADERS:
        value = headers.get(name, "")
        if _REQUEST_ID.fullmatch(value):
            return value
    return str(uuid.uuid4())


class Timing(NamedTuple):
    """The call of the model that a request was answered by; records: None where it is a script's
    call, which tells nothing of them."""

    records: int | None  # of the request
    batch: int | None  # of all that shared the call
    queue: float  # seconds that the request waited for it
    predict: float  # seconds of the call


class Visit:
    """One request."""

    # Most requests leave most of them as they are.
    status = 0  # none was sent
    bytes_in = 0
    bytes_out = 0
    model = ""  # one of several, by name; only one that the server has
    logged = False  # whether anybody asks for the timing
    timing: Timing | None = None  # None where no model ran
    request_id = ""  # of an error's answer

    def __init__(self, method: str, path: str) -> None:
        self.started = perf_counter()
        self.method = method
        self.path = path


class AsgiVisit(Visit):
    """A request to an ASGI application, whose answer goes out through `send`."""

    through: Send  # the server's own, which `send` hands on to

    def __init__(self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.started = perf_counter()
        self.method = method
        self.path = path
        self._headers = headers

    def send(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if kind == "http.response.body":
            self.bytes_out += len(message.get("body", b""))
        elif kind == "http.response.start":
            self.status = status = message["status"]
            if status >= 400:
                self._identify(message)
        return self.through(message)

    def _identify(self, message: Message) -> None:
        headers = list(message.get("headers", ()))
        for name, value in headers:
            if name.lower() == b"x-request-id":
                self.request_id = value.decode("latin-1")
                return
        self.request_id = request_id(self.headers())
        message["headers"] = [*headers, (b"x-request-id", self.request_id.encode())]

    def headers(self) -> dict[str, str]:
        return {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in self._headers
        }


class Watch:
    """Counts the visits of a worker process, and logs them where that is wanted."""

    def __init__(self, meter: Meter, log: AccessLog | None = None) -> None:
        self.meter = meter
        self.log = log

    def enter(self, visit: Visit) -> None:
        """A request begins."""
        if self.log is not None:
            visit.logged = True
        self.meter.enter()

    def leave(
        self, visit: Visit, headers: Callable[[], Mapping[str, str]],
        more: Mapping[str, int | None] | None = None,
    ) -> None:
        """The request has been answered, or its client has left; `enter` came before. `more` is for
        the log."""
        seconds = perf_counter() - visit.started
        status = visit.status or GONE
        route = _ROUTES.get(visit.path) or _route(visit.path)
        timed = seconds if route in _TIMED else None
        self.meter.leave(route, status, visit.model, timed, visit.bytes_in, visit.bytes_out)
        if self.log is not None:
            line = _line(visit, status, seconds, headers())
            self.log.write(line if more is None else {**line, **more})

    def refused(self, method: str, path: str, status: int, identity: str) -> None:
        """A request that was refused before it reached an application."""
        visit = Visit(method, path)
        visit.status, visit.request_id = status, identity
        self.enter(visit)
        self.leave(visit, dict)


class WatchedAsgi:
    """An ASGI application whose requests are counted. What it raises before it has answered is
    answered by `broken`."""

    def __init__(
        self, application: Callable[..., Awaitable[None]], watch: Watch, broken: Broken
    ) -> None:
        self._application = application
        self._watch = watch
        self._broken = broken

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        watch = self._watch
        visit: AsgiVisit | None = scope.get(KEY)  # of a request that came in another way
        if visit is None:
            visit = scope[KEY] = AsgiVisit(scope["method"], scope["path"], scope["headers"])
            watch.enter(visit)
        visit.through = send
        try:
            await self._application(scope, receive, visit.send)
        except Exception as error:
            if visit.status:
                raise  # in the middle of its answer: only the end of the connection tells
            answer = self._broken(visit.method, visit.path, visit.headers(), error)
            headers = [("content-type", answer.content_type), *answer.headers]
            await visit.send({
                "type": "http.response.start", "status": answer.status,
                "headers": [(name.lower().encode(), value.encode()) for name, value in headers]
                + [(b"content-length", b"%d" % len(answer.whole))],
            })
            await visit.send({"type": "http.response.body", "body": answer.whole})
        finally:
            # What refers to itself in a circle is left to the collector, which costs more than
            # all the counting.
            del scope[KEY]
            watch.leave(visit, visit.headers)


class Arrival:
    """How far a request has come in: the worker that cuts off slow ones asks."""

    __slots__ = ("cut", "started", "visit", "whole")

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.whole = False
        self.cut = False  # answered 408 by the worker
        self.visit: Visit | None = None  # None: not even its head is there


class WatchedWsgi:
    """A WSGI application whose requests are counted, on whichever threads they are answered."""

    def __init__(self, application: Callable[..., Iterable[bytes]], watch: Watch) -> None:
        self._application = application
        self._watch = watch

    def __call__(
        self, environ: dict[str, Any], start_response: StartResponse
    ) -> Iterable[bytes]:
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
        visit = Visit(environ["REQUEST_METHOD"], path)
        environ[KEY] = visit
        arrival: Arrival = environ.get(ARRIVAL) or Arrival()
        arrival.visit = visit
        environ["wsgi.input"] = _Body(environ, visit, arrival)

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            visit.status = int(status[:3])
            if visit.status >= 400 and not arrival.cut:
                for name, value in headers:
                    if name.lower() == "x-request-id":
                        visit.request_id = value
                        break
                else:
                    visit.request_id = request_id(wsgi_headers(environ))
                    headers = [*headers, ("X-Request-Id", visit.request_id)]
            return start_response(status, headers, *more)

        with self._watch.meter.lock:
            self._watch.enter(visit)
        parts: Iterable[bytes] = ()
        try:
            parts = self._application(environ, start)
            for part in parts:
                visit.bytes_out += len(part)
                yield part
        finally:
            if hasattr(parts, "close"):
                parts.close()
            if arrival.cut:
                visit.status = TIMED_OUT
            with self._watch.meter.lock:
                self._watch.leave(visit, lambda: wsgi_headers(environ))


class _Body:
    """wsgi.input that is counted, and that notices its end."""

    def __init__(self, environ: dict[str, Any], visit: Visit, arrival: Arrival) -> None:
        self._stream = environ["wsgi.input"]
        self._visit = visit
        self._arrival = arrival
        declared = environ.get("CONTENT_LENGTH") or ""
        self._length = int(declared) if declared.isdecimal() else None
        if not self._length and "HTTP_TRANSFER_ENCODING" not in environ:
            arrival.whole = True

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size)
        return self._count(data, size < 0 or len(data) < size)

    def readline(self, size: int = -1) -> bytes:
        data: bytes = self._stream.readline(size)
        return self._count(data, not data)

    def readlines(self, hint: int = -1) -> list[bytes]:
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line

    def _count(self, data: bytes, end: bool) -> bytes:
        self._visit.bytes_in += len(data)
        if end or self._visit.bytes_in == self._length:
            self._arrival.whole = True
        return data


def wsgi_headers(environ: Mapping[str, Any]) -> dict[str, str]:
    """The headers as WSGI gives them, by lower-case name."""
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    for name, key in (("content-type", "CONTENT_TYPE"), ("content-length", "CONTENT_LENGTH")):
        if environ.get(key):
            headers[name] = environ[key]
    return headers


def _route(path: str) -> str:
    """One of a few words, however many paths are asked for."""
    if not path.startswith(_MODELS_PREFIX):
        return OTHER
    return _INVOKE_ROUTE if path.endswith("/invoke") else f"{_MODELS_PREFIX}{{model}}"


def _line(
    visit: Visit, status: int, seconds: float, headers: Mapping[str, str]
) -> dict[str, Any]:
    timing = visit.timing
    return {
        "time": time.time(),
        "request_id": visit.request_id or request_id(headers),
        "method": visit.method[:_WORD_CHARACTERS],
        "path": visit.path[:_PATH_CHARACTERS],
        "model": visit.model or None,
        "status": status,
        "bytes_in": visit.bytes_in,
        "bytes_out": visit.bytes_out,
        "records": timing and timing.records,
        "batch_records": timing and timing.batch,
        "queue_ms": timing and _milliseconds(timing.queue),
        "predict_ms": timing and _milliseconds(timing.predict),
        "total_ms": _milliseconds(seconds),
        **trace.fields(headers),
        "pid": os.getpid(),
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
