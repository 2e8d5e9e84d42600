"""Parsing of a request's head, by hand and strictly: what could be read two ways is refused.

`read_head` takes the bytes; `body_of` decides the body's framing (smuggling-safe).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from byoa.local.api.http_body import BodyReader, Source
from byoa.local.api.http_messages import BadRequest, Headers

__all__ = ["Head", "body_of", "read_head"]

REQUEST_LINE_LIMIT_BYTES = 16 * 1024  # a presigned URL of a 1,024-byte key is about 5 KiB
HEAD_LIMIT_BYTES = 64 * 1024
HEADERS_LIMIT = 200
HEAD_SECONDS = 30.0

_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(r"[!-~\x80-\xff]+")
_DIGITS = re.compile(r"[0-9]{1,18}")


@dataclass
class Head:
    """Request line and header fields; `authority` is of an absolute-form or CONNECT target."""

    method: str
    target: str
    authority: str | None
    version: str  # "1.0" or "1.1"
    headers: Headers
    host: str


def read_head(source: Source, fallback_host: str) -> Head | None:
    """The next request's head; None when the client closed (or idled) between requests.

    BadRequest: 400 for what is malformed, 414 and 431 for what is too long, 505 for HTTP/2.
    """
    deadline = None
    searched = 0
    while True:
        if source.buffer:
            if searched == 0:
                # An empty line before the request line is allowed (RFC 9112, 2.2).
                source.buffer = source.buffer.lstrip(b"\r\n")
            end = source.buffer.find(b"\r\n\r\n", max(0, searched - 3))
            if end >= 0:
                break
            searched = len(source.buffer)
            _check_limits(source.buffer)
            deadline = deadline or time.monotonic() + HEAD_SECONDS
            if time.monotonic() > deadline:
                raise BadRequest(408, "the request's head took too long to arrive")
        try:
            filled = source.fill()
        except TimeoutError:
            filled = False
        if not filled:
            if source.buffer:
                raise BadRequest(400, "the connection ended within the request's head")
            return None
    if end > HEAD_LIMIT_BYTES:
        raise BadRequest(431, f"the head is longer than {HEAD_LIMIT_BYTES} bytes")
    raw, source.buffer = source.buffer[:end], source.buffer[end + 4 :]
    return _parse(raw, fallback_host)


def _check_limits(buffer: bytes) -> None:
    if b"\n" not in buffer and len(buffer) > REQUEST_LINE_LIMIT_BYTES:
        raise BadRequest(414, f"the request line is longer than {REQUEST_LINE_LIMIT_BYTES} bytes")
    if b"\n" in buffer and b"\r\n" not in buffer:
        raise BadRequest(400, "lines end in CRLF")
    if len(buffer) > HEAD_LIMIT_BYTES:
        raise BadRequest(431, f"the head is longer than {HEAD_LIMIT_BYTES} bytes")


def _parse(raw: bytes, fallback_host: str) -> Head:
    if _CONTROL.search(raw):
        raise BadRequest(400, "the head contains a control character or a bare line end")
    first, *lines = raw.decode("latin-1").split("\r\n")
    if len(first) > REQUEST_LINE_LIMIT_BYTES:
        raise BadRequest(414, f"the request line is longer than {REQUEST_LINE_LIMIT_BYTES} bytes")
    if len(lines) > HEADERS_LIMIT:
        raise BadRequest(431, f"more than {HEADERS_LIMIT} header lines")
    parts = first.split(" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or not _TARGET.fullmatch(parts[1]):
        raise BadRequest(400, "the request line is not `METHOD target HTTP/1.1`")
    method, target, protocol = parts
    if protocol not in ("HTTP/1.1", "HTTP/1.0"):
        status = 505 if protocol.startswith("HTTP/") else 400
        raise BadRequest(status, f"{protocol[:20]} is not spoken here; use HTTP/1.1")
    items: list[tuple[str, str]] = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            # Covers folded lines and a space before the colon as well.
            raise BadRequest(400, "a header line is not `Name: value`")
        items.append((name, value.strip(" \t")))
    headers = Headers(items)
    for single in ("host", "content-length", "transfer-encoding"):
        if single in headers and sum(name.lower() == single for name, _ in items) > 1:
            raise BadRequest(400, f"more than one {single} header")
    version = protocol[5:]
    if version == "1.1" and "host" not in headers:
        raise BadRequest(400, "an HTTP/1.1 request has a Host header")
    target, authority = _origin_form(method, target)
    host = authority or headers.get("host") or fallback_host
    return Head(method, target, authority, version, headers, host.lower())


def _origin_form(method: str, target: str) -> tuple[str, str | None]:
    """The target as path?query, and the authority where the target names one."""
    if method == "CONNECT":
        return target, target
    if target.startswith("/") or (target == "*" and method == "OPTIONS"):
        return target.partition("#")[0], None
    try:
        url = urlsplit(target)
        authority = url.netloc.rpartition("@")[2]
    except ValueError:
        authority = ""
    if not authority or url.scheme.lower() not in ("http", "https"):
        raise BadRequest(400, "the target is neither a path nor an http:// URL")
    return (url.path or "/") + (f"?{url.query}" if url.query else ""), authority


def body_of(head: Head, source: Source, tell_continue: Callable[[], None]) -> BodyReader:
    """The body's reader by the head's framing.

    Content-Length together with Transfer-Encoding, or either in a form that another reader could
    take differently, is refused: that is how requests are smuggled.
    """
    length_text = head.headers.get("content-length")
    encoding = head.headers.get("transfer-encoding")
    expects = head.headers.get("expect", "")
    if expects and expects.lower() != "100-continue":
        raise BadRequest(417, f"Expect: {expects[:40]} is not met here; 100-continue is")
    awaited = tell_continue if expects and head.version == "1.1" else None
    if encoding is not None:
        if length_text is not None:
            raise BadRequest(400, "both Content-Length and Transfer-Encoding")
        if head.version == "1.0":
            raise BadRequest(400, "Transfer-Encoding in an HTTP/1.0 request")
        if encoding.lower() != "chunked":
            raise BadRequest(501, f"Transfer-Encoding {encoding[:40]!r}; use chunked")
        return BodyReader(source, None, awaited)
    if length_text is None:
        return BodyReader(None, 0)
    if not _DIGITS.fullmatch(length_text):
        raise BadRequest(400, "Content-Length is not a number of bytes")
    return BodyReader(source, int(length_text), awaited)
