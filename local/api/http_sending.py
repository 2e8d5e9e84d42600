"""Sending an HTTP answer: bytes at once, a file by the kernel, an iterator chunk by chunk."""

from __future__ import annotations

import logging
import os
import select
import socket
import ssl
import time
from collections.abc import Iterator
from email.utils import formatdate
from http import HTTPStatus

from byoa.local.api.http_messages import FileSegment, Response

__all__ = ["COPY_BYTES", "IO_SECONDS", "send"]

IO_SECONDS = 75.0  # silence of a client: between requests, within a body, while it reads
SENDFILE_BYTES = 1 << 30
COPY_BYTES = 256 * 1024

_log = logging.getLogger("byoa.http")
_REASONS = {status.value: status.phrase for status in HTTPStatus}


def send(sock: socket.socket, response: Response, method: str, version: str, keep: bool) -> bool:
    """Send the answer; returns whether the connection can be kept."""
    body = response.body
    try:
        status = response.status
        names = {name.lower() for name, _ in response.headers}
        bodiless = method == "HEAD" or status in (204, 304) or status < 200
        framing = ""
        chunked = False
        if isinstance(body, (bytes, FileSegment)):
            length = len(body) if isinstance(body, bytes) else body.length
            if "content-length" not in names and status not in (204, 304):
                framing = f"Content-Length: {length}\r\n"
        elif "content-length" not in names and not bodiless:
            chunked = version == "1.1"
            keep = keep and chunked  # to HTTP/1.0 the end of the body is the end of the line
            framing = "Transfer-Encoding: chunked\r\n" if chunked else ""
        try:
            head = _head(status, response.headers, names, framing, keep, version)
        except ValueError:
            _log.exception("the handler's headers cannot be sent")
            return send(sock, Response(500), method, version, False)
        if bodiless or body == b"":
            sock.sendall(head)
        elif isinstance(body, bytes):
            if len(body) < COPY_BYTES:
                sock.sendall(head + body)
            else:
                sock.sendall(head)
                sock.sendall(body)
        elif isinstance(body, FileSegment):
            sock.sendall(head)
            _send_file(sock, body)
        else:
            sock.sendall(head)
            keep = _send_items(sock, body, chunked) and keep
        return keep
    finally:
        if not isinstance(body, bytes):
            close = getattr(body, "close", None)
            if close is not None:
                close()


def _send_items(sock: socket.socket, items: Iterator[bytes], chunked: bool) -> bool:
    """Send each item as it comes; False when the iterator failed, which the client learns
    from a body that never ends properly."""
    try:
        for item in items:
            if item:
                data = b"%x\r\n%b\r\n" % (len(item), item) if chunked else item
                sock.sendall(data)
    except OSError:
        raise
    except Exception:
        _log.exception("the body's iterator failed")
        return False
    if chunked:
        sock.sendall(b"0\r\n\r\n")
    return True


def _send_file(sock: socket.socket, segment: FileSegment) -> None:
    source, offset, left = segment.open(), segment.offset, segment.length
    if isinstance(sock, ssl.SSLSocket):
        while left:
            data = os.pread(source, min(left, COPY_BYTES), offset)
            if not data:
                raise ConnectionError("the file is shorter than its segment")
            sock.sendall(data)
            offset, left = offset + len(data), left - len(data)
        return
    target = sock.fileno()
    writable = select.poll()
    writable.register(target, select.POLLOUT)
    while left:
        try:
            sent = os.sendfile(target, source, offset, min(left, SENDFILE_BYTES))
        except BlockingIOError:
            if not writable.poll(IO_SECONDS * 1000):
                raise TimeoutError("the client does not read") from None
            continue
        if not sent:
            raise ConnectionError("the file is shorter than its segment")
        offset, left = offset + sent, left - sent


def _head(
    status: int,
    headers: list[tuple[str, str]],
    names: set[str],
    framing: str,
    keep: bool,
    version: str,
) -> bytes:
    parts = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}\r\n"]
    for name, value in headers:
        if "\r" in value or "\n" in value or "\0" in value:
            raise ValueError(f"the value of header {name} contains a line end")
        parts.append(f"{name}: {value}\r\n")
    if "date" not in names:
        parts.append(_date())
    parts.append(framing)
    if not keep:
        parts.append("Connection: close\r\n")
    elif version == "1.0":
        parts.append("Connection: keep-alive\r\n")
    parts.append("\r\n")
    text = "".join(parts)
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


_last_date = (0, "")


def _date() -> str:
    """The Date header, made once a second (making it costs as much as a small request)."""
    global _last_date
    now = int(time.time())
    if _last_date[0] != now:
        _last_date = (now, f"Date: {formatdate(now, usegmt=True)}\r\n")
    return _last_date[1]
