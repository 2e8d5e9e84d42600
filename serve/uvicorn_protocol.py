"""uvicorn's HTTP/1.1 on one connection, with the limits that it has not: of time and of headers.

uvicorn waits for ever for a request that has begun, and keeps a head of any length. The worker
calls `sweep` about once a second on every connection; a request costs two comparisons and a look
at the clock.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from byoa.serve.refusal import HEAD_LIMIT_BYTES, head_too_large, malformed, too_slow
from byoa.serve.visit import KEY, TIMED_OUT, Watch

# A refused client gets so long to read why, while what it still sends is thrown away.
_LINGER_SECONDS = 2.0


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *arguments: Any, watch: Watch, read_timeout: float, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._watch = watch
        self._read_timeout = read_timeout
        self._since: float | None = None  # when the request began that is not yet whole
        self._received = 0  # its bytes so far, head and body
        self._in_head = True
        self._ending = False
        self._unsent = 0  # bytes that wait for a client to read
        self._unsent_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return
        if self._since is None:
            self._since = self.loop.time()
        elif not self._received:
            self._since = self.loop.time()  # until now the connection was only open
        self._received += len(data)
        super().data_received(data)
        if self._in_head and self._received > HEAD_LIMIT_BYTES and not self._ending:
            self._refuse(431, *head_too_large())

    def on_headers_complete(self) -> None:
        if self._received > HEAD_LIMIT_BYTES and self._head_bytes() > HEAD_LIMIT_BYTES:
            raise _HeadTooLarge
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._since = None
        self._received = 0
        self._in_head = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if self._received > HEAD_LIMIT_BYTES and self._head_bytes() > HEAD_LIMIT_BYTES:
            self._refuse(431, *head_too_large())
        else:
            self._refuse(400, *malformed(msg))

    def sweep(self, now: float, keepalive: float) -> None:
        """End the connection where its client has been too slow."""
        if self._ending:
            return
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since > self._read_timeout:
            self.transport.abort()  # it does not read its answer
            return
        if self._since is None or self.transport.is_closing():
            return
        if self.pipeline:  # the request before it is still being answered: reading waits for us
            self._since = now
        elif not self._received:
            if now - self._since > keepalive:
                self.transport.close()
        elif now - self._since > self._read_timeout:
            self._refuse(TIMED_OUT, *too_slow(self._read_timeout))

    def _head_bytes(self) -> int:
        headers = self.headers or ()
        return len(getattr(self, "url", b"")) + sum(len(n) + len(v) for n, v in headers)

    def _refuse(self, status: int, answer: bytes, identity: str) -> None:
        """Say why, then end the connection; whoever is answering the request is told."""
        cycle = self.cycle
        running = cycle is not None and not cycle.response_complete
        if running:
            if not cycle.response_started:  # else it would be read as part of that
                self.transport.write(answer)
            visit: Any = cycle.scope.get(KEY)
            if visit is not None and not visit.status:
                visit.status, visit.request_id = status, identity
            cycle.disconnected = True
            cycle.message_event.set()
        elif self._in_head:
            self.transport.write(answer)
            scope = self.scope or {}
            self._watch.refused(
                scope.get("method", ""), scope.get("path", ""), status, identity
            )
        # else it has its answer, and goes on sending all the same
        self._ending = True
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.abort)


class _HeadTooLarge(Exception):
    """Raised out of the parser, which ends with it."""
