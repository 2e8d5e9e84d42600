"""Answers as the two protocols write them: AWS JSON 1.1 (control plane) and REST JSON (runtime).

Outputs are cut to their shape; errors take the form in which each protocol's clients look for them.
"""

from __future__ import annotations

import base64
import json
import logging
import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import cache
from typing import TYPE_CHECKING, Any

from byoa.local.api import service_model
from byoa.local.errors import AwsError

if TYPE_CHECKING:
    from botocore.model import OperationModel, Shape

    from byoa.local.api.http import Response

log = logging.getLogger(__name__)

__all__ = ["json_error", "json_response", "request_id", "rest_error", "serialise"]


def request_id() -> str:
    """A new request id, for `x-amzn-RequestId`."""
    return str(uuid.uuid4())


def serialise(shape: Shape, value: Any) -> Any:
    """`value` as JSON data of `shape`: modeled members only, None left out, times as epoch."""
    return _value(shape, value, shape.name)


def json_response(operation: OperationModel, output: Mapping[str, Any] | None) -> Response:
    """200 with the operation's output; an empty body when its model has none (WIRE-02)."""
    shape = operation.output_shape
    body = b"" if shape is None else _dumps(serialise(shape, output or {}))
    return _response(200, "application/x-amz-json-1.1", body)


def json_error(error: AwsError) -> Response:
    """`{"__type": …, "message": …}` (WIRE-04); a modeled error has its `Message` member too."""
    body = {"__type": error.code, "message": error.message, **error.members}
    if error.code in _modeled_errors(service_model.CONTROL):
        body.setdefault("Message", error.message)
    return _response(error.status, "application/x-amz-json-1.1", _dumps(body))


def rest_error(error: AwsError) -> Response:
    """The runtime's form: the code in `x-amzn-ErrorType`, members in the body (WIRE-32)."""
    body = {"Message": error.message, **error.members}
    kind = f"{error.code}:http://internal.amazon.com/coral/com.amazonaws.sagemaker/"
    return _response(
        error.status, "application/json", _dumps(body), [("x-amzn-ErrorType", kind)]
    )


def _response(
    status: int, content_type: str, body: bytes, headers: list[tuple[str, str]] | None = None
) -> Response:
    from byoa.local.api.http import Response

    return Response(
        status=status,
        headers=[
            ("Content-Type", content_type),
            ("x-amzn-RequestId", request_id()),
            *(headers or []),
        ],
        body=body,
    )


@cache
def _modeled_errors(service_name: str) -> frozenset[str]:
    return frozenset(shape.name for shape in service_model.service(service_name).error_shapes)


def _value(shape: Any, value: Any, path: str) -> Any:
    kind = shape.type_name
    if kind == "structure":
        for name in value.keys() - shape.members.keys():
            log.warning("%s.%s is not in the API's model and is not sent", path, name)
        return {
            name: _value(member, value[name], f"{path}.{name}")
            for name, member in shape.members.items()
            if value.get(name) is not None
        }
    if kind == "list":
        return [_value(shape.member, item, f"{path}[]") for item in value if item is not None]
    if kind == "map":
        return {
            str(key): _value(shape.value, item, f"{path}.{key}")
            for key, item in value.items()
            if item is not None
        }
    if kind == "timestamp":
        return _epoch(value)
    if kind == "blob":
        return base64.b64encode(value).decode("ascii")
    if kind in ("integer", "long"):
        return int(value)
    return value


def _epoch(value: float | datetime) -> float:
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        value = moment.timestamp()
    return round(float(value), 3)  # the service's resolution is the millisecond


def _dumps(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
