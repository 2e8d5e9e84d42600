"""uvicorn's HTTP/1.1 on one connection, with the limits that it has not: of time and of headers.

uvicorn waits for ever for a request that has begun, and keeps a head of any length. The worker
calls `sweep` about once a second on every connection, so that a request needs no timer and no look
at the clock.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from byoa.serve.refusal import HEAD_LIMIT_BYTES, head_too_large, malformed, too_slow
from byoa.serve.visit import AT_ONCE, KEY, TIMED_OUT, Watch

# A refused client gets so long to read why, while what it still sends is thrown away.
_LINGER_SECONDS = 2.0
_JOINED_BYTES = 64 * 1024  # of a body that is copied behind its head


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *arguments: Any, watch: Watch, read_timeout: float, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._watch = watch
        self._read_timeout = read_timeout
        self._requests = 0  # that have come in whole
        self._received = 0  # bytes of the next one, head and body
        self._packet = 0  # bytes that came last
        self._in_head = False
        self._ending = False
        # What the last sweep has seen, and since when it is so: a request that is not yet whole,
        # and bytes that wait for a client to read.
        self._arriving: tuple[int, bool] | None = None
        self._arriving_since = 0.0
        self._unsent = 0
        self._unsent_since = 0.0

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return
        if self._whole():
            self._requests += 1
            self._received = 0
        self._received += len(data)
        self._packet = len(data)
        HttpToolsProtocol.data_received(self, data)
        # A header that does not end stays in the parser, which tells nothing of it.
        if self._received > HEAD_LIMIT_BYTES and not self._ending and (
            self._in_head or self._head_bytes() > HEAD_LIMIT_BYTES
        ):
            self._refuse(431, *head_too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._received = self._packet  # what came before is of another request

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()
        scope: Any = self.scope
        scope[AT_ONCE] = partial(_at_once, self.cycle)

    def send_400_response(self, msg: str) -> None:
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
        # While the request before it is being answered, reading waits for us.
        arriving = None if self._whole() or self.pipeline else (
            self._requests, self._received > 0
        )
        if arriving is None or arriving != self._arriving or self.transport.is_closing():
            self._arriving, self._arriving_since = arriving, now
        elif not self._received:
            if now - self._arriving_since > keepalive:
                self.transport.close()
        elif now - self._arriving_since > self._read_timeout:
            self._refuse(TIMED_OUT, *too_slow(self._read_timeout))

    def _whole(self) -> bool:
        """Whether the last request has come in to its end, and nothing of the next."""
        cycle = self.cycle
        return cycle is not None and not cycle.more_body and cycle.scope is self.scope

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
        elif cycle is None or cycle.scope is not self.scope:  # within its head
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


def _at_once(cycle: RequestResponseCycle, content_type: str, body: bytes) -> bool:
    """Send the answer 200 as `cycle.send` does in two calls and many checks; False where it has to,
    because the client is gone, slow to read, or asked for the head alone."""
    if (
        cycle.response_started or cycle.disconnected or cycle.flow.write_paused
        or cycle.scope["method"] == "HEAD" or len(body) > _JOINED_BYTES
        or not (content_type.isascii() and content_type.isprintable())
    ):
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    fields = [b"%b: %b\r\n" % field for field in cycle.default_headers]  # the date
    if not cycle.keep_alive:
        fields.append(b"connection: close\r\n")
    cycle.transport.write(
        b"HTTP/1.1 200 OK\r\n%bcontent-type: %b\r\ncontent-length: %d\r\n\r\n%b"
        % (b"".join(fields), content_type.encode(), len(body), body)
    )
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True
