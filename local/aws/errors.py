"""An AwsError in the protocol that the request speaks: JSON, REST-JSON, CBOR, query XML."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from byoa.local.api.serialization import request_id

if TYPE_CHECKING:
    from byoa.local.api.http import Request, Response
    from byoa.local.errors import AwsError

__all__ = ["error_response"]


def error_response(request: Request, error: AwsError) -> Response:
    """The answer that the request's client parses into `error`'s code and message."""
    from byoa.local.api.http import Response

    content_type = request.headers.get("content-type") or ""
    headers = [("x-amzn-RequestId", request_id())]
    if (request.headers.get("smithy-protocol") or "") == "rpc-v2-cbor":
        headers += [("Content-Type", "application/cbor"), ("smithy-protocol", "rpc-v2-cbor")]
        body = _cbor({"__type": error.code, "message": error.message})
    elif "x-amz-target" in request.headers or "json" in content_type:
        headers += [
            ("Content-Type", content_type or "application/x-amz-json-1.1"),
            ("x-amzn-ErrorType", error.code),
        ]
        body = json.dumps({"__type": error.code, "message": error.message}).encode()
    else:
        headers += [("Content-Type", "text/xml"), ("x-amzn-ErrorType", error.code)]
        body = (
            "<ErrorResponse><Error><Type>Sender</Type>"
            f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"
            f"</Error><RequestId>{headers[0][1]}</RequestId></ErrorResponse>"
        ).encode()
    return Response(status=error.status, headers=headers, body=body)


def _cbor(texts: dict[str, str]) -> bytes:
    """A CBOR map of at most 23 texts (RFC 8949): all that an error needs."""
    encoded = bytes([0xA0 | len(texts)])
    for text in (each for pair in texts.items() for each in pair):
        data = text.encode()
        encoded += b"\x7a" + len(data).to_bytes(4, "big") + data
    return encoded
