"""Request bodies that the client compressed: inflated within a limit, never past it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from byoa.container.errors import DataError

_GZIP = 16 + zlib.MAX_WBITS
_PIECE_BYTES, _LARGEST_BYTES = 1 << 12, 1 << 20
CODINGS = ("gzip", "x-gzip", "identity")


class TooLarge(Exception):
    """The body inflates to more than its limit."""


def inflate(body: bytes, coding: str, limit: int) -> bytes:
    """The body without its Content-Encoding; at most `limit` bytes, 0 for any number.

    Raises TooLarge, and DataError: CONTENT_ENCODING_UNSUPPORTED, BODY_MALFORMED.
    """
    coding = coding.strip().lower() or "identity"
    if coding == "identity":
        return body
    if coding not in CODINGS:
        raise DataError(
            "CONTENT_ENCODING_UNSUPPORTED",
            f"Content-Encoding {coding} is not supported",
            expected=f"one of {', '.join(CODINGS)}",
            remedy="send the body compressed by gzip, or as it is without the header",
        )
    try:
        return b"".join(_parts(memoryview(body), limit))
    except zlib.error as error:
        raise DataError(
            "BODY_MALFORMED", f"the body is not whole gzip: {error}",
            expected="what Content-Encoding gzip says: one or several gzip members",
        ) from None


def _parts(body: memoryview, limit: int) -> Iterator[bytes]:
    """The members that follow one another, inflated piece by piece: what zlib finds behind a
    member's end it copies, and there may be very many members."""
    position, room = 0, limit
    while position < len(body):
        member, size = zlib.decompressobj(_GZIP), _PIECE_BYTES
        while not member.eof:
            if position == len(body):
                raise zlib.error("the stream is cut off")
            piece = body[position : position + size]
            part = member.decompress(piece, room + 1 if limit else 0)
            position += len(piece) - len(member.unused_data)
            size = min(2 * size, _LARGEST_BYTES)
            yield part
            room -= len(part)
            if limit and room < 0:
                raise TooLarge
