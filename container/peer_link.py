"""Frames between two hosts of a job: a header of 14 bytes, then the payload.

    kind 1 byte, operation 1 byte, number 4 bytes, length 8 bytes, big-endian
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

_HEAD = struct.Struct(">BBIQ")
_LENGTH = struct.Struct(">Q")
_HELLO_LIMIT_BYTES = 4096
_READ_BYTES = 1 << 20
_URGENT_SECONDS = 1.0  # for a notice to get past what is being sent
# A machine that is gone without a word is noticed after about a minute.
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


class Kind(IntEnum):
    HELLO = 1  # who connects, and to which job
    WELCOME = 2  # all hosts have come
    PART = 3  # what a host gives to a collective
    WHOLE = 4  # what the collective gives to it
    GONE = 5  # a host has ended too early, and why
    BYE = 6  # this host is done with its peers


class Operation(IntEnum):
    NONE = 0
    ALL_GATHER = 1
    BROADCAST = 2
    BARRIER = 3


@dataclass(frozen=True)
class Frame:
    kind: Kind
    operation: Operation
    number: int
    payload: bytes

    def document(self) -> dict[str, Any]:
        """The payload of a HELLO or GONE."""
        found = json.loads(self.payload)
        return found if isinstance(found, dict) else {}


class Link:
    """A connection to another host. One thread receives; any thread may send."""

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        sock.settimeout(timeout)
        self.socket = sock
        self._sending = threading.Lock()
        self._head = bytearray()
        self._body: bytearray | None = None
        self._filled = 0

    def send(
        self, kind: Kind, payload: bytes = b"", *, operation: Operation = Operation.NONE,
        number: int = 0,
    ) -> None:
        head = _HEAD.pack(kind, operation, number, len(payload))
        with self._sending:
            if len(payload) < _READ_BYTES:
                self.socket.sendall(head + payload)
            else:  # no second copy of what is large
                self.socket.sendall(head)
                self.socket.sendall(payload)

    def notify(self, kind: Kind, document: dict[str, Any] | None = None) -> None:
        """Send a last short word, if the other side takes it at once."""
        payload = b"" if document is None else json.dumps(document).encode()
        if self._sending.acquire(timeout=_URGENT_SECONDS):
            try:
                with contextlib.suppress(OSError):
                    self.socket.settimeout(_URGENT_SECONDS)
                    self.socket.sendall(_HEAD.pack(kind, 0, 0, len(payload)) + payload)
            finally:
                self._sending.release()

    def receive(self) -> Iterator[Frame]:
        """The frames that are whole after one more read; raises EOFError at the end."""
        if self._body is not None:  # straight into the payload's place
            count = self.socket.recv_into(memoryview(self._body)[self._filled:])
            if count == 0:
                raise EOFError
            self._filled += count
        else:
            data = self.socket.recv(_HEAD.size - len(self._head))
            if not data:
                raise EOFError
            self._head += data
            if len(self._head) < _HEAD.size:
                return
            self._body = bytearray(_HEAD.unpack(self._head)[3])
            self._filled = 0
        if self._filled == len(self._body):
            kind, operation, number, _ = _HEAD.unpack(self._head)
            frame = Frame(Kind(kind), Operation(operation), number, bytes(self._body))
            self._head.clear()
            self._body = None
            yield frame

    def hello(self) -> dict[str, Any]:
        """Who has connected; raises OSError, EOFError or ValueError for what is no peer."""
        while len(self._head) < _HEAD.size:
            data = self.socket.recv(_HEAD.size - len(self._head))
            if not data:
                raise EOFError
            self._head += data
        kind, _, _, length = _HEAD.unpack(self._head)
        if kind != Kind.HELLO or length > _HELLO_LIMIT_BYTES:
            raise ValueError("no greeting of a peer")
        self._body, self._filled = bytearray(length), 0
        while True:
            for frame in self.receive():
                return frame.document()

    def close(self) -> None:
        self.socket.close()


def pack(parts: Sequence[bytes]) -> bytes:
    """Several payloads as one."""
    return b"".join([_LENGTH.pack(len(parts)), *(_LENGTH.pack(len(p)) for p in parts), *parts])


def unpack(data: bytes) -> list[bytes]:
    (count,) = _LENGTH.unpack_from(data)
    start, parts = _LENGTH.size * (1 + count), []
    for index in range(count):
        (length,) = _LENGTH.unpack_from(data, _LENGTH.size * (1 + index))
        parts.append(data[start : start + length])
        start += length
    return parts
