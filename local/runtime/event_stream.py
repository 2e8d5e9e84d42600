"""The frames of an AWS event stream, as botocore reads them (STRM-04, STRM-05).

    total length, headers length: 4 bytes each    CRC32 of these 8 bytes
    headers    payload    CRC32 of everything before
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from zlib import crc32

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_STRING = 7  # the type of a header's value


def frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One event: headers whose values are strings, and its bytes."""
    packed = b"".join(_header(name, value) for name, value in headers.items())
    prelude = struct.pack(">II", 16 + len(packed) + len(payload), len(packed))
    message = b"".join((prelude, struct.pack(">I", crc32(prelude)), packed, payload))
    return message + struct.pack(">I", crc32(message))


def _header(name: str, value: str) -> bytes:
    key, data = name.encode(), value.encode()
    return b"".join((bytes([len(key)]), key, struct.pack(">BH", _STRING, len(data)), data))


def payload_part(data: bytes) -> bytes:
    """An event PayloadPart: some of the container's bytes."""
    return frame(
        {
            ":message-type": "event",
            ":event-type": "PayloadPart",
            ":content-type": "application/octet-stream",
        },
        data,
    )


def exception(kind: str, members: Mapping[str, str]) -> bytes:
    """An exception event of the API's shape `kind`, such as ModelStreamError."""
    return frame(
        {
            ":message-type": "exception",
            ":exception-type": kind,
            ":content-type": "application/json",
        },
        json.dumps(dict(members), separators=(",", ":")).encode(),
    )
