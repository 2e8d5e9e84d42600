"""The express lane: /ping and /invocations straight from ASGI to the core, the rest to Flask.

The event loop parses, decodes small bodies and encodes small answers; a model that is not quick
runs on its own thread, and large bodies are decoded beside the loop. So /ping is never kept
waiting (TRAP-08).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from byoa.container import contract
from byoa.serve import bridge
from byoa.serve.aside import Aside
from byoa.serve.busy import ServerBusy
from byoa.serve.calls import Call
from byoa.serve.core import DRAIN_BYTES, Job, Responder, close_stream
from byoa.serve.direct import BEGUN, Begun
from byoa.serve.messages import Answer, Request
from byoa.serve.moments import Moments
from byoa.serve.streaming import Stream, StreamBroken
from byoa.serve.visit import KEY

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Threads for what Flask answers: a model that is being loaded holds one (MME-07).
_FLASK_THREADS = 32
_PING, _INVOCATIONS = contract.PING_PATH, contract.INVOCATIONS_PATH


class _Gone(Exception):
    """The client left before its request was whole."""


class _Client:
    """The one who has sent a request, and may leave before its answer is whole."""

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self._leaving: asyncio.Future[Message] | None = None

    @property
    def leaving(self) -> asyncio.Future[Message]:
        """Done when the client has left: behind the body, only the end is received."""
        if self._leaving is None:
            self._leaving = asyncio.ensure_future(self.receive())
        return self._leaving

    def release(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()


class Express:
    """The ASGI application. `flask` makes the Flask application when it is first needed."""

    def __init__(
        self, core: Responder, flask: Callable[[], bridge.Wsgi], moments: Moments, aside: Aside
    ) -> None:
        self._core = core
        self._flask = flask
        self._wsgi: bridge.Wsgi | None = None
        self._waiting = ThreadPoolExecutor(_FLASK_THREADS, thread_name_prefix="flask")
        self._moments = moments
        self._aside = aside

    async def __call__(self, scope: bridge.Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is answered here, not {scope['type']}")
        path, method = scope["path"], scope["method"]
        try:
            if method == "POST" and (path == _INVOCATIONS or self._core.invokes(path)):
                await self._invoke(scope, receive, send)
            elif path == _PING and method == "GET":
                scope.pop(BEGUN, None)
                await _answer(send, self._core.ping())
            elif path == contract.METRICS_PATH and method == "GET":
                side = asyncio.get_running_loop().run_in_executor  # it reads files, and many sums
                await _answer(send, await side(self._aside.threads, self._core.metrics))
            else:
                await self._hand_over(scope, receive, send)
        except _Gone:
            return

    async def _invoke(self, scope: bridge.Scope, receive: Receive, send: Send) -> None:
        core = self._core
        begun = scope.pop(BEGUN, None) or Begun(await self._read(scope, receive))
        request, answer = begun.request, begun.answer
        if isinstance(request, Answer):
            await _answer(send, request)
            return
        if isinstance(answer, Exception):
            raise answer
        client = _Client(receive)
        try:
            if answer is None and core.must_wait(request):
                answer = await self._invoke_aside(request, client)
            elif answer is None:
                job = core.prepare(request)
                outcome = job if isinstance(job, Answer) else await self._predict(job, client)
                if isinstance(job, Answer) or isinstance(outcome, Answer):
                    answer = outcome
                else:
                    answer = core.finish(job, outcome)
            if isinstance(answer.body, bytes):
                await _answer(send, answer)
            else:
                await _send_stream(send, client, answer, answer.body)
        finally:
            client.release()

    async def _invoke_aside(self, request: Request, client: _Client) -> Answer:
        """As `_invoke`, where decoding and encoding take long enough to be done beside the loop."""
        core = self._core
        try:
            with self._aside.room():
                return await self._decoded_aside(request, client)
        except ServerBusy as error:
            return core.failed(request, error)

    async def _decoded_aside(self, request: Request, client: _Client) -> Answer:
        core = self._core
        # What only waits, for a model to be loaded, must not keep decoding waiting.
        threads = self._waiting if core.may_load(request) else self._aside.threads
        side = asyncio.get_running_loop().run_in_executor
        job = await side(threads, core.prepare, request)
        if isinstance(job, Answer):
            return job
        outcome = await self._predict(job, client)
        if isinstance(outcome, Answer):
            return outcome
        return await side(threads, core.finish, job, outcome)

    async def _predict(self, job: Job | Call, client: _Client) -> Any:
        """The predictions of a job, or an Answer where there are none. Raises _Gone when the
        client leaves before; then what still waits in the queue is dropped."""
        core = self._core
        try:
            if (
                job.compute.gathers and isinstance(job, Job)
                and not core.is_large(job.request.body)
            ):
                outcome = await self._gather(job)
            else:
                outcome = core.start(job)
            if not isinstance(outcome, Future):
                return outcome
            waiter = asyncio.wrap_future(outcome)
            await asyncio.wait(
                (waiter, client.leaving), timeout=core.settings.deadline,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if waiter.done():
                return waiter.result()
            # One that runs already cannot be cancelled: whatever it opens is closed then.
            outcome.add_done_callback(close_stream)
            waiter.cancel()
            if client.leaving.done():
                raise _Gone
            return core.too_late(job.request)
        except _Gone:
            raise
        except Exception as error:
            return core.failed(job.request, error)

    async def _gather(self, job: Job) -> Any:
        """The outcome of a job that is predicted together with the others of this moment."""
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._moments.add(job, partial(_tell, waiter))
        return await waiter

    async def _read(self, scope: bridge.Scope, receive: Receive) -> Request | Answer:
        """The request with its whole body, or the answer 413 as soon as it is known to be over the
        limit."""
        headers = _headers(scope)
        visit = scope.get(KEY)
        limit = self._core.settings.payload_limit or sys.maxsize
        refused: Answer | None = None
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            refused = self._too_large(scope, headers, int(declared))
            if refused is not None and "expect" in headers:
                return refused  # the client waits for a word before it sends the body
        chunks: list[bytes] = []
        length = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            chunk = message.get("body", b"")
            length += len(chunk)
            if visit is not None:
                visit.bytes_in = length
            if length > limit and refused is None:
                refused = self._too_large(scope, headers, length)
            more = message.get("more_body", False)
            if refused is not None:
                # What is still on its way would break the connection under the answer.
                chunks.clear()
                if not more or length > DRAIN_BYTES:
                    return refused
            elif more:
                chunks.append(chunk)
            else:
                body = b"".join((*chunks, chunk)) if chunks else bytes(chunk)
                return Request(scope["method"], scope["path"], headers, body, "", visit)

    def _too_large(
        self, scope: bridge.Scope, headers: dict[str, str], length: int
    ) -> Answer | None:
        request = Request(scope["method"], scope["path"], headers, b"", "", scope.get(KEY))
        return self._core.too_large(request, length)

    async def _hand_over(self, scope: bridge.Scope, receive: Receive, send: Send) -> None:
        request = await self._read(scope, receive)
        if isinstance(request, Answer):
            await _answer(send, request)
            return
        environ = bridge.environ_of(scope, request.body)
        environ[KEY] = request.visit
        status, headers, answer = await asyncio.get_running_loop().run_in_executor(
            self._waiting, self._call, environ
        )
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _call(self, environ: dict[str, Any]) -> bridge.Answered:
        if self._wsgi is None:
            self._wsgi = self._flask()
        return bridge.call(self._wsgi, environ)


def _tell(waiter: asyncio.Future[Any], outcome: Any) -> None:
    if waiter.done():  # its task was cancelled
        return
    if isinstance(outcome, Exception):
        waiter.set_exception(outcome)
    else:
        waiter.set_result(outcome)


def _headers(scope: bridge.Scope) -> dict[str, str]:
    """ASGI's headers are lower-case already; one given twice is joined as HTTP says."""
    pairs = scope["headers"]
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in pairs}
    if len(headers) < len(pairs):
        headers = {}
        for raw_name, raw_value in pairs:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


async def _answer(send: Send, answer: Answer) -> None:
    body = answer.whole
    headers = [
        (b"content-type", answer.content_type.encode("latin-1")),
        (b"content-length", b"%d" % len(body)),
    ]
    if answer.headers:
        headers += [(n.encode("latin-1"), v.encode("latin-1")) for n, v in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_stream(send: Send, client: _Client, answer: Answer, stream: Stream) -> None:
    """Send what comes as it comes. Where it breaks off, the answer is left without its end, upon
    which the server closes the connection (STRM-06)."""
    loop = asyncio.get_running_loop()
    more = asyncio.Event()
    try:
        stream.on_more(partial(loop.call_soon_threadsafe, more.set))
        headers = [(b"content-type", answer.content_type.encode("latin-1"))]
        headers += [(n.encode("latin-1"), v.encode("latin-1")) for n, v in answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        while True:
            more.clear()
            data = stream.take()
            if data is None:
                break
            if data:
                await send({"type": "http.response.body", "body": data, "more_body": True})
            else:
                await _either(more, client.leaving, stream.remaining)
            if client.leaving.done():
                return
        await send({"type": "http.response.body", "body": b""})
    except StreamBroken:
        return
    finally:
        stream.close()


async def _either(more: asyncio.Event, leaving: asyncio.Future[Message], seconds: float) -> None:
    """Wait for more, for the client to leave, or for so many seconds."""
    woken = asyncio.ensure_future(more.wait())
    try:
        await asyncio.wait(
            (woken, leaving), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        woken.cancel()
