"""A WebSocket's end in the server: one connection, from its handshake to its close (BIDI-01).

Either ASGI worker hands its connection over when it is to become one, and asks about once a second
whether its client still reads. A frame is a message or a part of one (BIDI-03): parts are joined
before the model hears them, and what it says in one go is one frame. Pings are answered (BIDI-04).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import parse_qsl

from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from byoa.serve.conversation import (
    COMPLETE,
    GOING_AWAY,
    INVALID,
    POLICY,
    Conversation,
    Ending,
)
from byoa.serve.opening import Opening
from byoa.serve.refusal import refusal
from byoa.serve.settings import Settings
from byoa.serve.visit import GONE, Timing, Visit, Watch

REASON_BYTES = 123  # of a close frame, its code not counted (RFC 6455, 5.5)
_HANDSHAKE = ("connection", "upgrade")
_LINGER_SECONDS, _STOP_LINGER_SECONDS = 5.0, 0.3  # for a client to answer the close frame
_STOP_SECONDS = 2.0  # that a stopping server has left when it says so
_TRY_AGAIN = 1013
_UNREAD_BYTES = 1 << 20  # that wait for a client to read
_DATA = (Opcode.CONT, Opcode.TEXT, Opcode.BINARY)
# What is counted where this end has refused what its client sent, by the code of the close frame.
_STATUS = {1002: 400, 1007: 400, 1009: 413}


class WebSocket(asyncio.Protocol):
    """One connection. `on_lost` is called when it has ended."""

    def __init__(
        self, transport: asyncio.Transport, opening: Opening, settings: Settings, watch: Watch,
        on_lost: Callable[[Exception | None], None],
    ) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._watch = watch
        self._on_lost = on_lost
        self._headers = opening.request.headers
        self._protocol = ServerProtocol(max_size=settings.payload_limit or None)
        request = opening.request
        self._visit = Visit(request.method, request.path)
        self._visit.request_id = opening.identity
        self._conversation = Conversation(
            opening.converse, opening.compute, request.headers, dict(parse_qsl(request.query)),
            self._changed, opening.identity, opening.prepare,
        )
        self._parts: list[bytes] = []  # of the message that is coming in
        self._is_text = False
        self._counts = {"messages_in": 0, "messages_out": 0}
        self._ending: Ending | None = None
        self._reads = self._writes = True
        self._is_stopping = self._is_closing = self._is_lost = False
        self._unsent, self._unsent_since = 0, 0.0
        self._timers: list[asyncio.TimerHandle] = []

    def open(self) -> None:
        """Answer the handshake, and begin."""
        self._watch.meter.enter()
        lines = [
            f"{name}: {value}\r\n" for name, value in self._headers.items()
            if name in _HANDSHAKE or name.startswith("sec-websocket-")
        ]
        head = "GET / HTTP/1.1\r\n" + "".join(lines) + "\r\n"
        self._protocol.receive_data(head.encode("latin-1"))
        requests = self._protocol.events_received()
        response = self._protocol.accept(requests[0]) if requests else None  # type: ignore[arg-type]
        if response is None or response.status_code != 101:
            why = (response.body or b"").decode() if response is not None else "no handshake"
            status = response.status_code if response is not None else 400
            answer, self._visit.request_id = refusal(
                status, "HANDSHAKE_INVALID", why.strip(),
                expected="a WebSocket's handshake, version 13 (RFC 6455, 4.2.1)",
            )
            self._ending = COMPLETE._replace(status=status)
            self._transport.write(answer)
            self._transport.close()
            return
        self._protocol.send_response(response)
        self._flush()
        self._later(self._settings.conversation_seconds, self._expire)
        if not self._conversation.start():
            self._close(Ending(_TRY_AGAIN, "STREAMS_FULL: as many streams as the limit", 503))

    # --- the transport's side ---

    def data_received(self, data: bytes) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        for frame in protocol.events_received():
            if isinstance(frame, Frame):
                self._receive(frame)
        if protocol.state is not State.OPEN:
            self._conversation.drop(in_order=protocol.close_rcvd is not None)
        self._flush()
        self._regulate()

    def eof_received(self) -> bool:
        if self._protocol.state is State.OPEN:  # gone without a word: what is unsent is for nobody
            self._transport.abort()
        return False  # the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        self._conversation.drop(in_order=self._protocol.close_rcvd is not None)
        for timer in self._timers:
            timer.cancel()
        visit, turn = self._visit, self._conversation.turn
        visit.status = self._status()
        if turn.waited:
            visit.timing = Timing(None, None, turn.waited, turn.held)
        self._watch.leave(
            visit, lambda: self._headers, {"close_code": self._close_code, **self._counts}
        )
        self._on_lost(exc)

    def pause_writing(self) -> None:
        self._writes = False

    def resume_writing(self) -> None:
        self._writes = True
        self._pump()

    # --- the worker's side ---

    def sweep(self, now: float) -> None:
        """End the connection where its client does not read."""
        unsent = self._transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since > self._settings.read_timeout:
            self._transport.abort()

    def shutdown(self) -> None:
        """The server stops: no message is heard any more, what the model still says is sent, as
        far as there is time (HOST-03)."""
        if self._is_stopping:
            return
        self._is_stopping = True
        self._conversation.end()
        seconds = max(0.5, self._settings.graceful_timeout - _STOP_SECONDS)
        self._later(seconds, self._stop)
        self._pump()

    # --- within ---

    def _receive(self, frame: Frame) -> None:
        if frame.opcode not in _DATA:
            return
        if frame.opcode != Opcode.CONT:
            self._is_text = frame.opcode == Opcode.TEXT
        self._visit.bytes_in += len(frame.data)
        if frame.data:
            self._parts.append(bytes(frame.data))
        if not frame.fin:
            return
        whole = b"".join(self._parts)
        self._parts.clear()
        self._counts["messages_in"] += 1
        try:
            self._conversation.hear(whole.decode() if self._is_text else whole)
        except UnicodeDecodeError as error:
            self._conversation.drop()
            self._protocol.fail(INVALID, f"text is not UTF-8: {error.reason} at {error.start}")

    def _changed(self) -> None:
        """On any thread."""
        try:
            self._loop.call_soon_threadsafe(self._pump)
        except RuntimeError:  # the loop has ended, and with it the connection
            pass

    def _pump(self) -> None:
        """Send what the model has said, and let the client go on where it has been heard."""
        if self._is_lost:  # its last words are for nobody
            return
        conversation, protocol = self._conversation, self._protocol
        ending = conversation.ending  # before what it has said last is taken
        while self._writes and protocol.state is State.OPEN:
            part = conversation.take()
            if part is None:
                if ending is not None:
                    self._close(ending)
                break
            (protocol.send_text if part.is_text else protocol.send_binary)(part.data)
            self._counts["messages_out"] += 1
            self._visit.bytes_out += len(part.data)
            self._flush()
        self._regulate()

    def _regulate(self) -> None:
        """Read what the client sends where there is room for it. One who reads nothing himself may
        still close, but not go on asking for pongs."""
        wanted = self._is_closing or not (
            self._conversation.has_heard_enough
            or self._transport.get_write_buffer_size() > _UNREAD_BYTES
        )
        if wanted == self._reads or self._transport.is_closing():
            return
        self._reads = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _expire(self) -> None:
        seconds = self._settings.conversation_seconds
        self._close(Ending(
            POLICY, f"CONVERSATION_TIMEOUT: not over within {seconds:g} s"
            " (BYOA_CONVERSATION_SECONDS)", 504,
        ))

    def _stop(self) -> None:
        self._close(COMPLETE)

    def _close(self, ending: Ending) -> None:
        """Say how it ends; nothing is sent behind it."""
        self._conversation.drop()
        if self._is_lost or self._protocol.state is not State.OPEN:
            return
        if ending is COMPLETE and self._is_stopping:
            ending = Ending(GOING_AWAY, "the server stops", 101)
        self._ending = ending
        self._protocol.send_close(ending.code, _cut(ending.reason))
        self._flush()

    def _flush(self) -> None:
        if self._is_lost:
            return
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()
        if self._protocol.close_expected() and not self._is_closing:
            self._is_closing = True
            self._regulate()  # the client's close frame is wanted
            seconds = _STOP_LINGER_SECONDS if self._is_stopping else _LINGER_SECONDS
            self._later(seconds, self._linger)

    def _linger(self) -> None:
        """The client has had time to close: only one that still reads has more."""
        if self._transport.get_write_buffer_size() and not self._is_stopping:
            self._later(_LINGER_SECONDS, self._linger)
        else:
            self._transport.abort()

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self._timers.append(self._loop.call_later(seconds, act))

    @property
    def _close_code(self) -> int | None:
        """Of the close frame that came first; None where there was none."""
        protocol = self._protocol
        sent, received = protocol.close_sent, protocol.close_rcvd
        first = received if protocol.close_rcvd_then_sent or sent is None else sent
        return None if first is None else int(first.code)

    def _status(self) -> int:
        """101 where either has ended the conversation in order."""
        code = self._close_code
        if self._ending is not None:
            return self._ending.status
        if code is None:
            return GONE
        return 101 if self._protocol.close_rcvd_then_sent else _STATUS.get(code, 101)


def _cut(reason: str) -> str:
    """As much of it as a close frame holds, on a character's border."""
    encoded = " ".join(reason.split()).encode("utf-8", "replace")
    if len(encoded) <= REASON_BYTES:
        return encoded.decode()
    return encoded[: REASON_BYTES - 3].decode("utf-8", "ignore") + "…"
