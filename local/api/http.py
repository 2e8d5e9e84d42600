"""A threaded HTTP/1.1 server on sockets: keep-alive, streamed bodies both ways, sendfile.

One thread a connection, one handler for all requests: `Callable[[Request], Response]`.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable

from byoa.local.api.http_body import BodyReader, Source
from byoa.local.api.http_head import body_of, read_head
from byoa.local.api.http_messages import (
    BadRequest,
    Disconnected,
    FileSegment,
    Headers,
    Request,
    Response,
)
from byoa.local.api.http_peer import Peer
from byoa.local.api.http_sending import COPY_BYTES, IO_SECONDS, send

__all__ = [
    "BadRequest",
    "BodyReader",
    "Disconnected",
    "FileSegment",
    "Handler",
    "Headers",
    "HttpServer",
    "Request",
    "Response",
]

Handler = Callable[[Request], Response]

DRAIN_LIMIT_BYTES = 1 << 20  # of an unread body; beyond it the connection closes instead
LINGER_SECONDS = 2.0  # so that a client still sending can read the answer before the reset
CONNECTIONS_LIMIT = 1000

_log = logging.getLogger("byoa.http")


class HttpServer:
    """Listens on `host`:`port` (0 takes a free one) from construction; serves after `start()`."""

    def __init__(
        self,
        handler: Handler,
        host: str = "127.0.0.1",
        port: int = 0,
        on_connect: Callable[[Request, socket.socket], None] | None = None,
    ) -> None:
        self._handler = handler
        self._on_connect = on_connect
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=512)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._busy: dict[socket.socket, bool] = {}  # connection → a request is being served
        self._threads: set[threading.Thread] = set()
        self._stopping = False
        self._acceptor: threading.Thread | None = None
        # A listening socket that is closed does not wake accept(); this pair does.
        self._wake_read, self._wake_write = socket.socketpair()

    def start(self) -> None:
        """Accept connections in a thread of our own."""
        self._acceptor = threading.Thread(target=self._accept, name="http-accept", daemon=True)
        self._acceptor.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Refuse new requests, finish the running ones for up to `timeout` s, then cut them."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
            idle = [sock for sock, busy in self._busy.items() if not busy]
        self._wake_write.send(b"x")
        if self._acceptor is not None:
            self._acceptor.join(timeout=5.0)
        self._listener.close()
        for sock in idle:
            _shutdown(sock, socket.SHUT_RD)
        self._join(time.monotonic() + timeout)
        with self._lock:
            left = list(self._busy)
        for sock in left:
            _shutdown(sock, socket.SHUT_RDWR)
        self._join(time.monotonic() + 2.0)
        self._wake_read.close()
        self._wake_write.close()

    def _join(self, deadline: float) -> None:
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _accept(self) -> None:
        while True:
            # No timeout: `stop` writes to the pair, and nothing else ends the loop.
            ready, _, _ = select.select([self._listener, self._wake_read], [], [])
            if self._wake_read in ready:
                return
            try:
                sock, client = self._listener.accept()
            except OSError as error:  # out of descriptors, or the client left already
                _log.warning("cannot accept a connection: %s", error)
                time.sleep(0.05)
                continue
            with self._lock:
                full = len(self._threads) >= CONNECTIONS_LIMIT
            if full:
                _refuse(sock)
                continue
            thread = threading.Thread(
                target=self._run, args=(sock, client), name=f"http-{client[1]}", daemon=True
            )
            with self._lock:
                self._threads.add(thread)
            thread.start()

    def _run(self, sock: socket.socket, client: tuple[str, int]) -> None:
        try:
            with sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.serve_connection(
                    sock, secure=False, host=f"{self.host}:{self.port}", client=client[:2]
                )
        except OSError as error:
            _log.debug("connection of %s ended: %s", client, error)
        except Exception:  # the last resort: a thread that dies silently hides its reason
            _log.exception("the connection of %s failed", client)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def serve_connection(
        self,
        sock: socket.socket,
        *,
        secure: bool,
        host: str,
        client: tuple[str, int] = ("", 0),
    ) -> None:
        """Serve requests on `sock` (plain or TLS) until it ends; the caller closes it.

        `host` stands for the Host header of an HTTP/1.0 request that has none.
        """
        sock.settimeout(IO_SECONDS)
        connection = _Connection(self, sock, secure, host, client)
        with self._lock:
            self._busy[sock] = False
        try:
            while connection.serve_one():
                pass
        except Disconnected as gone:
            _log.debug("%s: %s", client, gone)
        except (ConnectionError, TimeoutError, ssl.SSLError) as error:
            _log.debug("connection of %s ended: %s", client, error)
        finally:
            with self._lock:
                self._busy.pop(sock, None)

    def _enter(self, sock: socket.socket) -> None:
        with self._lock:
            self._busy[sock] = True

    def _leave(self, sock: socket.socket) -> bool:
        """Mark the connection idle; False when the server is stopping."""
        with self._lock:
            self._busy[sock] = False
            return not self._stopping


class _Connection:
    """One connection's requests, one after the other."""

    def __init__(
        self,
        server: HttpServer,
        sock: socket.socket,
        secure: bool,
        host: str,
        client: tuple[str, int],
    ) -> None:
        self._server = server
        self._socket = sock
        self._secure = secure
        self._host = host
        self._client = client
        self._source = Source(sock)
        self._peer = Peer(sock)

    def serve_one(self) -> bool:
        """Read a request and answer it; False when the connection is to be closed."""
        sock, server = self._socket, self._server
        try:
            head = read_head(self._source, self._host)
        except BadRequest as bad:
            self._refuse(bad)
            return False
        if head is None:
            return False
        server._enter(sock)
        try:
            body = body_of(head, self._source, self._tell_continue)
        except BadRequest as bad:
            self._refuse(bad)
            return False
        path, _, query = head.target.partition("?")
        request = Request(
            head.method,
            head.target,
            path,
            query,
            head.headers,
            body,
            head.host,
            self._secure,
            self._client,
            self._peer,
        )
        if head.method == "CONNECT":
            self._connect(request)
            return False
        keep = _wants_keep_alive(head.version, head.headers)
        try:
            response = server._handler(request)
        except BadRequest as bad:
            self._refuse(bad)
            return False
        except Disconnected:
            raise
        except Exception:
            _log.exception("the handler failed: %s %s", head.method, head.target[:200])
            response = Response(500, [("Content-Type", "text/plain")], b"Internal server error\n")
        # A client that waits for `100 Continue` may or may not send its body after this answer.
        keep = keep and not server._stopping
        keep = keep and not (body.awaits_continue and not body.exhausted)
        keep = keep and (body.exhausted or (body.length or 0) <= DRAIN_LIMIT_BYTES)
        keep = send(self._socket, response, head.method, head.version, keep)
        if keep and not body.exhausted:
            try:
                keep = body.drain(DRAIN_LIMIT_BYTES)
            except BadRequest:
                return False
        if not keep and not body.exhausted:
            self._linger()
        return server._leave(sock) and keep

    def _connect(self, request: Request) -> None:
        if self._server._on_connect is None:
            self._refuse(BadRequest(405, "CONNECT: this server is no proxy"))
        elif self._source.buffer:
            self._refuse(BadRequest(400, "data before the answer to CONNECT"))
        else:
            self._server._on_connect(request, self._socket)

    def _tell_continue(self) -> None:
        self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse(self, bad: BadRequest) -> None:
        _log.debug("%s: %d %s", self._client, bad.status, bad.message)
        body = f"{bad.message}\n".encode()
        headers = [("Content-Type", "text/plain; charset=utf-8")]
        send(self._socket, Response(bad.status, headers, body), "GET", "1.1", False)
        self._linger()

    def _linger(self) -> None:
        """Half-close and read on for a moment: unread data would make the kernel reset the
        connection and the client lose the answer."""
        with contextlib.suppress(OSError):
            if isinstance(self._socket, ssl.SSLSocket):
                return
            self._socket.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + LINGER_SECONDS
            self._socket.settimeout(LINGER_SECONDS)
            while self._socket.recv(COPY_BYTES) and time.monotonic() < deadline:
                pass


def _wants_keep_alive(version: str, headers: Headers) -> bool:
    wish = headers.get("connection", "")
    options = {option.strip().lower() for option in (wish or "").split(",")}
    return "keep-alive" in options if version == "1.0" else "close" not in options


def _refuse(sock: socket.socket) -> None:
    answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with contextlib.suppress(OSError), sock:
        sock.settimeout(1.0)
        sock.sendall(answer)


def _shutdown(sock: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):  # it has ended by itself
        sock.shutdown(how)
