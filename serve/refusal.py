"""An HTTP error that a worker writes by itself, where no application has been asked."""

from __future__ import annotations

import json
import uuid
from http import HTTPStatus


def refusal(status: int, code: str, message: str, **more: str) -> tuple[bytes, str]:
    """The whole answer, after which the connection ends; and the request id in it."""
    identity = str(uuid.uuid4())
    fields = {"code": code, "message": message, **more, "request_id": identity}
    body = json.dumps(fields).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"X-Request-Id: {identity}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body, identity


def too_slow(seconds: float) -> tuple[bytes, str]:
    return refusal(
        408, "REQUEST_TOO_SLOW", f"the request did not arrive within {seconds:g} s",
        expected="head and body within BYOA_READ_TIMEOUT",
    )


def head_too_large(limit: int) -> tuple[bytes, str]:
    """`limit` in bytes. What the platform sends is a hundredth of the default."""
    return refusal(
        431, "HEAD_TOO_LARGE", "the request line and the headers are too long",
        expected=f"at most {limit} bytes (BYOA_MAX_HEAD_BYTES)",
    )


def malformed(reason: str) -> tuple[bytes, str]:
    return refusal(400, "REQUEST_MALFORMED", reason, expected="HTTP/1.1 (HOST-12)")
