"""uvicorn's HTTP/1.1 on one connection, with the limits that it has not: of time and of headers.
Small requests are answered directly (`serve/direct.py`).

uvicorn waits for ever for a request that has begun, and keeps a head of any length. The worker
calls `sweep` about once a second on every connection, so that a request needs no timer and no look
at the clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import unquote_to_bytes

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from byoa.serve.direct import BEGUN, Begun, Direct, Exchange
from byoa.serve.opening import Opening, Openings
from byoa.serve.refusal import head_too_large, malformed, too_slow
from byoa.serve.settings import Settings
from byoa.serve.visit import KEY, TIMED_OUT, Visit

# A refused client gets so long to read why, while what it still sends is thrown away.
_LINGER_SECONDS = 2.0
# Once the server stops, a client that has not been told yet may be sending its next request.
_QUIET_SECONDS = 1.0
_JOINED_BYTES = 64 * 1024  # of a body that is copied behind its head


class Protocol(HttpToolsProtocol):
    """One connection."""

    cycle: Any  # a RequestResponseCycle, or an Exchange in its place

    def __init__(
        self, *arguments: Any, direct: Direct, openings: Openings, settings: Settings,
        on_accepted: Callable[[], None], **named: Any,
    ) -> None:
        super().__init__(*arguments, **named)
        self._direct = direct
        self._openings = openings
        self._on_accepted = on_accepted
        # Of the request that was asked about last whether it becomes a WebSocket.
        self._asked: Any = None
        self._opening: Opening | None = None
        self._read_timeout = settings.read_timeout
        self._head_limit = settings.head_limit
        self._requests = 0  # that have come in whole
        self._begun = False  # whether some of the next one has
        self._whole = False  # whether the last has come in to its end, and nothing of the next
        self._in_head = False
        self._packet = 0  # bytes that came last
        self._unfinished = 0  # bytes of packets that finished no head and no part of a body
        self._overlong = False  # the head that came last is refused
        self._running: Any = None  # the cycle that is being answered, or its Exchange
        self._exchange: Exchange | None = None  # whose body is coming in
        self._due: Exchange | None = None  # which is to be answered
        self._ending = False
        self._refusal: tuple[int, bytes, str] | None = None  # once the request before is answered
        self._stopping = False
        # What the last sweep has seen, and since when it is so: what a client is to send (the rest
        # of a request, or the next one), and bytes that wait for it to read.
        self._owed: tuple[int, bool] | None = None
        self._owed_since = 0.0
        self._unsent = 0
        self._unsent_since = 0.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._on_accepted()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        running, self._running, self._exchange = self._running, None, None
        self.pipeline.clear()  # nobody waits for their answers
        if isinstance(running, Exchange):
            self._direct.left(running)
        elif running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()

    def eof_received(self) -> None:
        """The client has said all, upon which the connection is closed."""
        running = self._running
        if isinstance(running, Exchange) and running is not self._exchange:
            self._direct.hurry(running, self)

    def shutdown(self) -> None:
        """The server stops: what is being answered is the last, or else what comes at once."""
        self._stopping = True
        if self.cycle is not None:
            self.cycle.keep_alive = False
        self._unset_keepalive_if_required()
        self.loop.call_later(_QUIET_SECONDS, self._close_idle)

    def _close_idle(self) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if idle and (self._whole or not self._begun) and self in self.connections:
            self.transport.close()

    # --- what comes in ---

    def data_received(self, data: bytes) -> None:
        if self._ending or self._refusal is not None:
            return
        self._packet = len(data)
        self._unfinished += len(data)
        self._begun = True
        HttpToolsProtocol.data_received(self, data)
        # A header that does not end stays in the parser, which tells nothing of it; so does a
        # trailer.
        if not self._ending and (self._overlong or self._unfinished > self._head_limit):
            self._refuse(431, *head_too_large(self._head_limit))
        self._answer_due()

    def on_message_begin(self) -> None:
        # uvicorn makes ASGI's scope here, which many requests do without.
        if self._overlong:
            return
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._in_head = self._begun = True
        self._whole = False
        self._unfinished = 0  # what came before is of another request

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer, which nobody asks for
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._overlong:
            return
        self._in_head = False
        if (
            self._unfinished + self._packet > self._head_limit
            and self._head_bytes() > self._head_limit
        ):
            self._overlong = True
            return
        self._unfinished = 0
        cycle, parser = self.cycle, self.parser
        answered = cycle is None or cycle.response_complete
        if (
            answered and parser.should_keep_alive() and parser.get_http_version() == "1.1"
            and not (self.expect_100_continue or parser.should_upgrade() or self.flow.write_paused)
        ):
            exchange = self._direct.open(parser.get_method(), self.url, self.headers)
            if exchange is not None:
                exchange.keep_alive = not self._stopping
                self._exchange = self.cycle = self._running = exchange
                return
        self.scope = self._new_scope(self.headers)
        super().on_headers_complete()
        if answered:
            self._running = self.cycle
        if self._stopping and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        if self._overlong:
            return
        self._unfinished = 0
        exchange = self._exchange
        if exchange is None:
            super().on_body(body)
        elif exchange.refusal is None:
            exchange.body = exchange.body + body if exchange.body else body

    def on_message_complete(self) -> None:
        if self._overlong:
            return
        self._whole = True
        self._begun = False
        self._requests += 1
        self._unfinished = 0
        if self._exchange is None:
            super().on_message_complete()
        else:
            # Not from within the parser, which makes errors of its own of what is raised.
            self._exchange, self._due = None, self._exchange

    def _answer_due(self) -> None:
        exchange, self._due = self._due, None
        if exchange is not None:
            self._direct.answer(exchange, self)

    def _find_opening(self) -> Opening | None:
        path, _, query = self.url.partition(b"?")
        if (
            self._get_upgrade() != b"websocket" or self.parser.get_method() != b"GET"
            or not (self.cycle is None or self.cycle.response_complete)  # it must be answered first
        ):
            return None
        return self._openings.find(
            unquote_to_bytes(path).decode("latin-1"), query.decode("latin-1"),
            [(n.decode("latin-1"), v.decode("latin-1")) for n, v in self.headers],
        )

    def _should_upgrade(self) -> bool:
        """Asked several times, of requests to upgrade alone."""
        if self._asked is not self.scope:
            self._asked = self.scope
            self._opening = self._find_opening()
        return self._opening is not None

    def handle_websocket_upgrade(self) -> None:
        opening, connections = self._opening, self.connections
        if opening is None:
            return
        connections.discard(self)
        self._unset_keepalive_if_required()

        def lost(error: Exception | None) -> None:
            connections.discard(socket)

        socket: Any = self._openings.open(self.transport, opening, lost)
        connections.add(socket)  # to be swept, and waited for when the server stops
        if self._stopping:
            socket.shutdown()

    def _unsupported_upgrade_warning(self) -> None:
        """None: the answer says why."""

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, *malformed(msg))

    # --- what goes out ---

    def send_whole(self, exchange: Exchange, status: bytes, head: bytes, body: bytes) -> bool:
        transport = self.transport
        if (
            self._ending or transport.is_closing() or self.flow.write_paused
            or len(body) > _JOINED_BYTES
        ):
            return False
        close = b"" if exchange.keep_alive else b"connection: close\r\n"
        fields = b"".join(b"%b: %b\r\n" % field for field in self.server_state.default_headers)
        transport.write(
            b"HTTP/1.1 %b\r\n%b%b%bcontent-length: %d\r\n\r\n%b"
            % (status, fields, close, head, len(body), body)
        )
        if close:
            transport.close()
        return True

    def answered(self) -> None:
        if self.pipeline or self._refusal is not None:
            self.on_response_complete()
        else:  # there the timer of an idle connection is set, which `sweep` does for us
            self.server_state.total_requests += 1

    def on_response_complete(self) -> None:
        following = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if following is not None:
            self._running = following
        if self._refusal is not None and (following is None or following.more_body):
            self._refuse(*self._refusal)

    def hand_over(self, exchange: Exchange, begun: Begun) -> bool:
        if self._ending or self.transport.is_closing():
            return False
        path = exchange.url.decode("ascii")
        scope: dict[str, Any] = self._new_scope(exchange.raw_headers) | {
            "method": exchange.visit.method, "path": path, "raw_path": exchange.url,
            "query_string": b"", KEY: exchange.visit, BEGUN: begun,
        }
        cycle = RequestResponseCycle(
            scope=scope, transport=self.transport, flow=self.flow, logger=self.logger,  # type: ignore[arg-type]
            access_logger=self.access_logger, access_log=self.access_log,
            default_headers=self.server_state.default_headers, message_event=asyncio.Event(),
            expect_100_continue=False, keep_alive=exchange.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.more_body = False
        if self.cycle is exchange:  # else the next request has come in meanwhile
            self.cycle = cycle
        self._running = cycle
        self._start_asgi_task(cycle, self.app)
        return True

    def _new_scope(self, headers: list[tuple[bytes, bytes]]) -> Any:
        """ASGI's scope without the line of the request."""
        return {
            "type": "http", "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1", "server": self.server, "client": self.client,
            "scheme": self.scheme, "root_path": self.root_path, "headers": headers,
            "state": self.app_state.copy(),
        }

    # --- clients that are too slow ---

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
        owed = self._what_is_owed()
        if owed is None or owed != self._owed or self.transport.is_closing():
            self._owed, self._owed_since = owed, now
        elif not owed[1]:
            if now - self._owed_since > keepalive:
                self.transport.close()
        elif now - self._owed_since > self._read_timeout:
            self._refuse(TIMED_OUT, *too_slow(self._read_timeout))

    def _what_is_owed(self) -> tuple[int, bool] | None:
        """By the client: how many requests it has sent, and whether it is within the next. None
        where a request is being answered, for reading waits for us."""
        answered = self.cycle is None or self.cycle.response_complete
        if self.pipeline or (self._whole and not answered):
            return None
        return self._requests, not self._whole and self._begun

    def _head_bytes(self) -> int:
        headers = self.headers or ()
        return len(getattr(self, "url", b"")) + sum(len(n) + len(v) for n, v in headers)

    def _refuse(self, status: int, answer: bytes, identity: str) -> None:
        """Say why the request that is coming in is refused, then end the connection. Where those
        before it have no answers yet, they come first."""
        self._answer_due()
        cycle = self.cycle
        running = cycle is not None and not cycle.response_complete
        within = running and (self._exchange is not None or cycle.more_body)
        if running and not (within and cycle is self._running):
            self._refusal = status, answer, identity  # its turn comes
            return
        if within:  # whoever is answering the request already is told
            if not cycle.response_started:  # else it would be read as part of that
                self.transport.write(answer)
            visit: Visit | None = (
                cycle.visit if isinstance(cycle, Exchange) else cycle.scope.get(KEY)
            )
            if visit is not None and not visit.status:
                visit.status, visit.request_id = status, identity
            cycle.disconnected = True
            cycle.message_event.set()
        elif cycle is None or self._in_head or self._overlong or self._whole:
            self.transport.write(answer)
            self._direct.watch.refused("", "", status, identity)
        # else it has its answer, and goes on sending all the same
        self._exchange = None
        if isinstance(cycle, Exchange):
            self._direct.left(cycle)
        self._ending = True
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.abort)


class _Flow(FlowControl):
    """Reads no more while requests are queued: each that is begun would let in another packet."""

    def __init__(self, transport: Any, pipeline: Collection[Any]) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()
