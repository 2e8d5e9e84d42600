"""gunicorn's threads worker, with its waits mended.

gunicorn lingers up to two seconds on a connection that it closes first. Its main thread does so,
and meanwhile the worker accepts nothing: a few clients that are slow to close hold up /ping.
A new connection that sends nothing takes a thread for five seconds, and a request that trickles in
one for as long as it likes: some hundred of them, and nobody else is answered.
And a stopping worker keeps its port open without accepting, so that whoever connects meanwhile is
cut off in the end, where a refusal at once would have sent him elsewhere.
"""

from __future__ import annotations

import errno
import selectors
import socket
import struct
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import TConn, ThreadWorker

from byoa.serve.refusal import head_too_large, refusal, too_slow
from byoa.serve.visit import ARRIVAL, TIMED_OUT, Arrival, StartResponse

_LINGER_SECONDS = 2.0
_CHUNK_BYTES = 64 * 1024
_SWEEP_SECONDS = 1.0
_SPARE_THREADS = 16
_PRESSED_SECONDS = 5.0  # for a request to arrive, where nearly all threads are taken
_STATUS = {
    "LimitRequestLine": 414, "LimitRequestHeaders": 431, "UnsupportedTransferCoding": 501,
    "ExpectationFailed": 417,
}
_PAUSE_SECONDS = 0.05
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_TRY_AGAIN = (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK)


class FlaskWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's worker class for the Flask door."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._arrivals: dict[Any, Arrival] = {}  # of requests that threads read, by socket
        self._swept = 0.0

    def load_wsgi(self) -> None:
        super().load_wsgi()
        application: Any = self.wsgi

        def looked_after(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
            environ[ARRIVAL] = self._arrivals.get(environ["gunicorn.socket"])
            answer: Iterable[bytes] = application(environ, start)
            return answer

        self.wsgi: Any = looked_after

    def accept(self, listener: Any) -> None:
        """Take a connection: to a thread where its request is there, else to the poller."""
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in _NO_DESCRIPTORS:
                time.sleep(_PAUSE_SECONDS)  # until a connection ends; it goes on waiting
            elif error.errno not in _TRY_AGAIN:
                raise
            return
        self.nr_conns += 1
        seconds = self.app.settings.read_timeout  # for a client that does not read its answer
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(seconds), 0))
        connection = TConn(self.cfg, client, address, listener.getsockname())  # does not block now
        try:
            client.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            connection.set_timeout()
            if not self.alive:
                _cap(connection)
            self.pending_conns.append(connection)
            self.poller.register(
                client, selectors.EVENT_READ, partial(self.on_pending_socket_readable, connection)
            )
            return
        except OSError:
            pass  # its thread finds it out
        connection.data_ready = True
        self.enqueue_req(connection)

    def handle(self, conn: Any) -> Any:
        """Answer a request on a pool thread; a false result means that the connection ends."""
        self._arrivals[conn.sock] = Arrival()
        try:
            keep = super().handle(conn)
        finally:
            self._arrivals.pop(conn.sock, None)
        if not keep:
            _linger(conn.sock)
        return keep

    def notify(self) -> None:
        super().notify()
        now = time.monotonic()
        if now - self._swept > _SWEEP_SECONDS:
            self._swept = now
            self._sweep(now)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer what is no HTTP, as gunicorn does, in our own form."""
        if isinstance(exc, ParseException):
            status = _STATUS.get(type(exc).__name__, 400)
            self.log.warning("Invalid request from ip=%s: %s", (addr or ("",))[0], exc)
            limit = self.app.settings.head_limit
            answer, identity = head_too_large(limit) if status == 431 else (
                refusal(status, "REQUEST_MALFORMED", str(exc), expected="HTTP/1.1 (HOST-12)")
            )
        else:
            status = 500
            self.log.exception("Error handling request")
            answer, identity = refusal(status, "SERVER_FAILED", type(exc).__name__)
        self._refused(req, status, identity)
        _send(client, answer)

    def set_accept_enabled(self, enabled: bool) -> None:
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        for listener in self.sockets:
            listener.setblocking(False)
            before = -1
            while before != self.nr_conns:  # those who are connected already are served
                before = self.nr_conns
                self.accept(listener)
            listener.close()
        for connection in self.pending_conns:
            _cap(connection)

    def _sweep(self, now: float) -> None:
        """Cut off the requests that have been arriving for too long."""
        limit = self.app.settings.read_timeout
        if len(self._arrivals) > self.cfg.threads - _SPARE_THREADS:
            limit = min(limit, _PRESSED_SECONDS)
        for connection, arrival in list(self._arrivals.items()):
            if arrival.whole or arrival.cut or now - arrival.started <= limit:
                continue
            arrival.cut = True
            answer, identity = too_slow(limit)
            visit = arrival.visit
            if visit is None:
                self._refused(None, TIMED_OUT, identity)
            else:
                visit.request_id = identity
            _send(connection, answer)
            try:
                connection.shutdown(socket.SHUT_RDWR)  # its thread's read ends
            except OSError:
                pass

    def _refused(self, request: Any, status: int, identity: str) -> None:
        watch = self.app.watch
        method, path = getattr(request, "method", "") or "", getattr(request, "path", "") or ""
        with watch.meter.lock:
            watch.refused(method, path, status, identity)


def _cap(connection: Any) -> None:
    """A stopping worker waits so long for a first byte, no longer."""
    connection.timeout = min(connection.timeout, time.monotonic() + _LINGER_SECONDS)


def _send(connection: Any, answer: bytes) -> None:
    """Send as much as goes at once: a client that is refused is not waited for."""
    try:
        connection.send(answer, socket.MSG_DONTWAIT)
    except OSError:
        pass


def _linger(connection: socket.socket) -> None:
    """Read until the client closes, so that nothing is left for the main thread to wait for."""
    end = time.monotonic() + _LINGER_SECONDS
    try:
        connection.shutdown(socket.SHUT_WR)
        while (left := end - time.monotonic()) > 0:
            connection.settimeout(left)
            if not connection.recv(_CHUNK_BYTES):
                return
    except OSError:
        pass
    try:
        connection.shutdown(socket.SHUT_RD)  # from now on a read ends at once
    except OSError:
        pass
