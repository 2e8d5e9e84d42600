"""Request bodies that the client compressed: inflated within a limit, never past it."""

from __future__ import annotations

import zlib

from byoa.container.errors import DataError

_GZIP = 16 + zlib.MAX_WBITS
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
    parts: list[bytes] = []
    room = limit
    try:
        while body:  # members may follow one another
            member = zlib.decompressobj(_GZIP)
            part = member.decompress(body, room + 1 if limit else 0)
            parts.append(part)
            room -= len(part)
            if limit and room < 0:
                raise TooLarge
            if not member.eof:
                raise zlib.error("the stream is cut off")
            body = member.unused_data
    except zlib.error as error:
        raise DataError(
            "BODY_MALFORMED", f"the body is not whole gzip: {error}",
            expected="what Content-Encoding gzip says: one or several gzip members",
        ) from None
    return b"".join(parts)
