"""The body of an upload: `aws-chunked` decoded, hashed and written as it arrives.

Whatever checksum the client sent, in a header or a trailer, is verified.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from byoa.local.api.http import BodyReader
from byoa.local.api.s3.call import Call
from byoa.local.api.s3.errors import S3Error
from byoa.local.storage import checksums
from byoa.local.storage.files import Draft

__all__ = ["Received", "check_digests", "checksum_header", "receive"]

BUFFER_BYTES = 256 * 1024
SIZE_LIMIT_BYTES = 5 << 30  # of one PutObject or UploadPart
LINE_LIMIT_BYTES = 4096

_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;chunk-signature=[0-9a-fA-F]*)?")
_PREFIX = "x-amz-checksum-"


@dataclass(frozen=True)
class Received:
    """What has been written: its size, MD5 in hex, and checksums in base64 by name."""

    size: int
    md5: str
    checksums: Mapping[str, str]


class _Reader(Protocol):
    def readinto(self, view: memoryview) -> int: ...


class AwsChunked:
    """Content of the encoding `aws-chunked`: size, signature (not checked) and data of each chunk,
    then trailer fields, which are in `trailers` at the end."""

    def __init__(self, body: BodyReader) -> None:
        self._body = body
        self._buffer = b""
        self._left = 0
        self._first = True
        self._ended = False
        self.trailers: dict[str, str] = {}

    def readinto(self, view: memoryview) -> int:
        """Some decoded bytes; 0 at the end. IncompleteBody where the framing is broken."""
        if self._ended:
            return 0
        if not self._left and not self._next():
            return 0
        if self._buffer:
            count = min(len(view), len(self._buffer), self._left)
            view[:count] = self._buffer[:count]
            self._buffer = self._buffer[count:]
        else:
            count = self._body.readinto(view[: self._left])
            if not count:
                raise S3Error("IncompleteBody")
        self._left -= count
        return count

    def _next(self) -> bool:
        if not self._first and self._line() != b"":
            raise S3Error("IncompleteBody")
        self._first = False
        match = _CHUNK.fullmatch(self._line() or b"")
        if match is None:
            raise S3Error("IncompleteBody")
        self._left = int(match[1], 16)
        if self._left:
            return True
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(":")
            self.trailers[name.strip().lower()] = value.strip()
        self._ended = True
        return False

    def _line(self) -> bytes | None:
        """A line without its end; None at the end of the body."""
        while b"\r\n" not in self._buffer:
            if len(self._buffer) > LINE_LIMIT_BYTES:
                raise S3Error("IncompleteBody")
            more = memoryview(bytearray(16384))
            count = self._body.readinto(more)
            if not count:
                rest, self._buffer = self._buffer, b""
                return rest or None
            self._buffer += more[:count]
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line


def checksum_header(call: Call) -> dict[str, str]:
    """The checksum that the request's header has, by name; refuses two, or one that is none."""
    found = {
        name[len(_PREFIX) :]: value
        for name, value in call.request.headers.items()
        if name.startswith(_PREFIX) and name[len(_PREFIX) :] in checksums.ALGORITHMS
    }
    if len(found) > 1:
        raise S3Error(
            "InvalidRequest",
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        )
    for name, value in found.items():
        if len(_decoded(value.partition("-")[0])) != len(checksums.new(name).digest()):
            raise S3Error("InvalidRequest", f"Value for {_PREFIX}{name} header is invalid.")
    return found


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _expected_md5(call: Call) -> str | None:
    text = call.header("content-md5")
    if not text:
        return None
    digest = _decoded(text)
    if len(digest) != 16:
        raise S3Error("InvalidDigest")
    return digest.hex()


def _trailer_name(call: Call) -> str | None:
    announced = call.header("x-amz-trailer").strip().lower()
    if not announced:
        return None
    name = announced.removeprefix(_PREFIX)
    if name == announced or name not in checksums.ALGORITHMS:
        raise S3Error(
            "InvalidRequest",
            "The value specified in the x-amz-trailer header is not supported",
        )
    return name


def _is_chunked(call: Call) -> bool:
    encodings = {each.strip() for each in call.header("content-encoding").lower().split(",")}
    return "aws-chunked" in encodings or call.header("x-amz-content-sha256").startswith(
        "STREAMING-"
    )


def declared_size(call: Call) -> int | None:
    """The size of the content by the request's headers, None for a chunked transfer.

    MissingContentLength, EntityTooLarge.
    """
    text = call.header("x-amz-decoded-content-length") if _is_chunked(call) else ""
    if text:
        if not text.isascii() or not text.isdigit():
            raise S3Error("InvalidArgument", "x-amz-decoded-content-length is not a number")
        size: int | None = int(text)
    elif _is_chunked(call) or not (
        "content-length" in call.request.headers or "transfer-encoding" in call.request.headers
    ):
        raise S3Error("MissingContentLength")
    else:
        size = call.request.body.length
    if size is not None and size > SIZE_LIMIT_BYTES:
        raise S3Error(
            "EntityTooLarge", ProposedSize=str(size), MaxSizeAllowed=str(SIZE_LIMIT_BYTES)
        )
    return size


def receive(call: Call, draft: Draft, also: str = "") -> Received:
    """Write the content to `draft`; `also` names a checksum to compute in any case.

    BadDigest where a digest that the client sent differs, IncompleteBody where bytes lack.
    """
    size = declared_size(call)
    expected = checksum_header(call)
    trailer = _trailer_name(call)
    wanted = {*expected, *({trailer} if trailer else ()), *({also} if also else ())}
    sums = {name: checksums.new(name) for name in wanted}
    expected_md5 = _expected_md5(call)
    md5 = hashlib.md5(usedforsecurity=False)
    chunked = AwsChunked(call.request.body) if _is_chunked(call) else None
    reader: _Reader = chunked or call.request.body
    feeds = [md5.update, *(each.update for each in sums.values()), draft.write]
    view = memoryview(bytearray(min(BUFFER_BYTES, size or BUFFER_BYTES)))
    total = 0
    while count := reader.readinto(view):
        total += count
        if total > SIZE_LIMIT_BYTES:
            raise S3Error("EntityTooLarge", MaxSizeAllowed=str(SIZE_LIMIT_BYTES))
        data = view[:count]
        for feed in feeds:
            feed(data)
    if size is not None and total != size:
        raise S3Error("IncompleteBody")
    if chunked is not None and trailer:
        if f"{_PREFIX}{trailer}" not in chunked.trailers:
            raise S3Error(
                "MalformedTrailerError",
                "The request contained trailing data that was "
                "not well-formed or did not conform to our published schema.",
            )
        expected[trailer] = chunked.trailers[f"{_PREFIX}{trailer}"]
    if expected_md5 is not None and md5.hexdigest() != expected_md5:
        raise S3Error("BadDigest")
    computed = {name: base64.b64encode(each.digest()).decode() for name, each in sums.items()}
    for name, value in expected.items():
        if computed[name] != value:
            raise S3Error(
                "BadDigest",
                f"The {name.upper()} you specified did not match the calculated checksum.",
            )
    return Received(total, md5.hexdigest(), computed)


def check_digests(call: Call, data: bytes) -> None:
    """BadDigest where a digest of a small body (an XML document) differs."""
    expected_md5 = _expected_md5(call)
    if expected_md5 is not None:
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != expected_md5:
            raise S3Error("BadDigest")
    for name, value in checksum_header(call).items():
        digest = checksums.new(name)
        digest.update(data)
        if base64.b64encode(digest.digest()).decode() != value:
            raise S3Error(
                "BadDigest",
                f"The {name.upper()} you specified did not match the calculated checksum.",
            )
