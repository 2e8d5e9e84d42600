"""The forward proxy on the same port: `CONNECT` to an AWS host ends here, others are tunnelled.

So clients that name AWS's hosts outright (STS in the SageMaker SDK, Java, old boto3) reach the
local services with HTTPS_PROXY and a CA bundle, while pip in the same shell still works.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Protocol

from byoa.local.api.certificates import Authority
from byoa.local.api.dispatch import is_aws_host
from byoa.local.api.upstream import UpstreamError, dial

if TYPE_CHECKING:
    from byoa.local.api.http import Request

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
HANDSHAKE_SECONDS = 10.0
IDLE_SECONDS = 600.0  # silence in both directions after which a tunnel is cut
TUNNELS = 256  # at a time
_SLICE_SECONDS = 5.0  # how often a silent tunnel looks at the clock and at `close`
_CHUNK_BYTES = 64 * 1024

__all__ = ["ProxyDoor"]


class Server(Protocol):
    """The part of HttpServer that serves what came out of the TLS."""

    @property
    def port(self) -> int: ...

    def serve_connection(
        self, sock: socket.socket, *, secure: bool, host: str, client: tuple[str, int] = ...
    ) -> None: ...


class ProxyDoor:
    """What HttpServer calls for a CONNECT; `server` is set once the server exists."""

    def __init__(self, authority: Authority) -> None:
        self.server: Server | None = None
        self._authority = authority
        self._slots = threading.BoundedSemaphore(TUNNELS)
        self._closed = threading.Event()

    def close(self) -> None:
        """Cut the tunnels, each within a few seconds."""
        self._closed.set()

    def __call__(self, request: Request, sock: socket.socket) -> None:
        """Serve one CONNECT on `sock` to its end."""
        try:
            host, port = _target(request.target)
        except ValueError as error:
            _refuse(sock, 400, "Bad Request", str(error))
            return
        if is_aws_host(host):
            self._terminate(request, sock, host, port)
        elif self._slots.acquire(blocking=False):
            try:
                self._tunnel(sock, host, port)
            finally:
                self._slots.release()
        else:
            _refuse(sock, 503, "Service Unavailable", f"{TUNNELS} tunnels are open already")

    def _terminate(self, request: Request, sock: socket.socket, host: str, port: int) -> None:
        assert self.server is not None, "ProxyDoor.server is set before the server starts"  # noqa: S101
        context = self._authority.context(host)
        sock.settimeout(HANDSHAKE_SECONDS)
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            secured = context.wrap_socket(sock, server_side=True)
        except (ssl.SSLError, OSError) as error:
            log.warning(
                "TLS with a client of %s failed: %s; does it trust the CA that `byoa env` names?",
                host,
                error,
            )
            return
        name = host if port == 443 else f"{host}:{port}"
        with secured:
            self.server.serve_connection(secured, secure=True, host=name, client=request.client)

    def _tunnel(self, sock: socket.socket, host: str, port: int) -> None:
        assert self.server is not None, "ProxyDoor.server is set before the server starts"  # noqa: S101
        try:
            remote, early = dial(
                host, port, environ=os.environ, own_port=self.server.port, seconds=CONNECT_SECONDS
            )
        except UpstreamError as error:
            _refuse(sock, 502, "Bad Gateway", str(error))
            return
        with remote:
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n" + early)
            tunnel = _Tunnel(sock, remote, self._closed)
            back = threading.Thread(
                target=tunnel.pump, args=(remote, sock), name=f"tunnel-{host}", daemon=True
            )
            back.start()
            tunnel.pump(sock, remote)
            back.join(IDLE_SECONDS + CONNECT_SECONDS)


class _Tunnel:
    """Two sockets and the moment of the last byte in either direction."""

    def __init__(
        self, one: socket.socket, other: socket.socket, closed: threading.Event
    ) -> None:
        self._last = time.monotonic()
        self._closed = closed
        self._failed = threading.Event()
        for sock in (one, other):
            sock.settimeout(_SLICE_SECONDS)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def pump(self, source: socket.socket, sink: socket.socket) -> None:
        """Copy until `source` ends, then half-close `sink`; any failure ends both directions."""
        try:
            while self._alive():
                try:
                    data = source.recv(_CHUNK_BYTES)
                except TimeoutError:
                    continue
                self._last = time.monotonic()
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                self._send(sink, data)
        except OSError as error:
            log.debug("a tunnel ended: %s", error)
        self._failed.set()
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _send(self, sink: socket.socket, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                sent = sink.send(view)
            except TimeoutError:
                if not self._alive():
                    raise
                continue
            self._last = time.monotonic()
            view = view[sent:]

    def _alive(self) -> bool:
        idle = time.monotonic() - self._last
        return not (self._closed.is_set() or self._failed.is_set() or idle > IDLE_SECONDS)


def _target(target: str) -> tuple[str, int]:
    """`host:port` or `[::1]:port` of a CONNECT."""
    host, colon, port = target.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit():
        raise ValueError(f"CONNECT needs host:port, not {target[:100]!r}")
    if not 0 < int(port) < 65536:
        raise ValueError(f"{port} is no port")
    return host, int(port)


def _refuse(sock: socket.socket, status: int, reason: str, why: str) -> None:
    body = f"byoa proxy: {why}\n".encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with contextlib.suppress(OSError):
        sock.sendall(head.encode("ascii") + body)
