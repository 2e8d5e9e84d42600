"""gunicorn's own ASGI worker, with the limit of time that it has not.

Where the extra `fast` is not installed the express lane runs on it. It keeps a first request that
never becomes whole for as long as its client likes; about once a second the worker looks at every
connection. Heads of any length it refuses by itself. When it stops, it may close a connection whose
client has been told that it stays open, and is sending: uvicorn's worker loses no request so.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

from byoa.serve.backlog import Backlog
from byoa.serve.refusal import head_too_large, refusal, too_slow
from byoa.serve.visit import KEY, TIMED_OUT

if TYPE_CHECKING:
    from byoa.serve.opening import Opening
    from byoa.serve.websocket import WebSocket


class AsgiWorker(gasgi.ASGIWorker):  # type: ignore[misc]
    """gunicorn's worker class for the express lane without uvicorn."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.connections: set[Protocol] = set()

    def init_process(self) -> None:
        # Its server makes a protocol of that name, and there is no other way to give it one.
        gasgi.ASGIProtocol = Protocol
        super().init_process()

    async def _shutdown(self) -> None:
        listeners = [each.sock for each in self.sockets]
        await Backlog(listeners, 1, lambda: Protocol(self)).close(self.servers)
        for connection in list(self.connections):
            connection.shutdown()
        await super()._shutdown()

    def notify(self) -> None:
        super().notify()
        now = self.loop.time()
        for connection in list(self.connections):
            connection.sweep(now)


class Protocol(ASGIProtocol):  # type: ignore[misc]
    """One connection."""

    def __init__(self, worker: Any) -> None:
        super().__init__(worker)
        self._watch = worker.app.watch
        self._settings = worker.app.settings
        self._since: float | None = None  # when the request began that is not yet whole
        self._received = 0  # its bytes so far
        self._scope: dict[str, Any] = {}
        self._ending = False
        self._unsent = 0  # bytes that wait for a client to read
        self._unsent_since = 0.0
        self._opening: Opening | None = None
        self._socket: WebSocket | None = None  # what the connection has become

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.worker.connections.add(self)
        self._since = self.worker.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        self.worker.connections.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return
        if self._since is None or not self._received:
            self._since = self.worker.loop.time()
        self._received += len(data)
        super().data_received(data)

    def shutdown(self) -> None:
        if self._socket is not None:
            self._socket.shutdown()

    def sweep(self, now: float) -> None:
        """End the connection where its client has been too slow."""
        if self._socket is not None:
            self._socket.sweep(now)
            return
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since > self._settings.read_timeout:
            self.transport.abort()  # it does not read its answer
            return
        since = self._since
        if since is None or self._closed or self._ending:
            return
        if not self._received:
            if now - since > self._settings.keepalive:
                self._close_transport()
        elif now - since > self._settings.read_timeout:
            self._cut()

    def _cut(self) -> None:
        receiver = self._body_receiver
        visit = self._scope.get(KEY) if receiver is not None else None
        answer, identity = too_slow(self._settings.read_timeout)
        if visit is None:
            self._watch.refused("", "", TIMED_OUT, identity)
        elif not visit.status:
            visit.status, visit.request_id = TIMED_OUT, identity
        if visit is None or visit.status == TIMED_OUT:
            self._safe_write(answer)
        self._ending = True
        if receiver is not None:
            receiver.signal_disconnect()  # its application is told
        self._close_transport()

    def _on_message_complete(self) -> None:
        self._since = None
        self._received = 0
        super()._on_message_complete()

    def _is_websocket_upgrade(self, request: Any) -> bool:
        if not super()._is_websocket_upgrade(request):
            return False
        self._opening = self.worker.app.openings.find(request.path, request.query, request.headers)
        return self._opening is not None

    async def _handle_websocket(self, request: Any, sockname: Any, peername: Any) -> None:
        ended = self.worker.loop.create_future()

        def lost(error: Exception | None) -> None:
            self.connection_lost(error)
            if not ended.done():
                ended.set_result(None)

        self._callback_parser = None
        self._socket = self.worker.app.openings.open(self.transport, self._opening, lost)
        if not self.worker.alive:
            self._socket.shutdown()
        await ended

    def _build_http_scope(self, request: Any, sockname: Any, peername: Any) -> Any:
        self._scope = super()._build_http_scope(request, sockname, peername)
        return self._scope

    def _send_error_response(
        self, status: int, message: str, extra_headers: Any = ()
    ) -> None:
        if self._ending:
            return  # it has its answer
        answer, identity = head_too_large(self._settings.head_limit) if status == 431 else (
            refusal(status, "REQUEST_MALFORMED", message, expected="HTTP/1.1 (HOST-12)")
        )
        visit = self._scope.get(KEY) if self._body_receiver is not None else None
        if visit is None:
            self._watch.refused("", "", status, identity)
        elif not visit.status:
            visit.status, visit.request_id = status, identity
        self._safe_write(answer)
