"""CloudWatch Logs' FilterLogEvents: a group's events by stream, time and pattern, in pages.

moto's own passes over prefixes and over the patterns that it does not know; here nothing is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from byoa.local.api import service_model
from byoa.local.api.serialization import request_id
from byoa.local.api.validation import validate
from byoa.local.aws.log_patterns import compile_pattern
from byoa.local.errors import AwsError, ValidationException

if TYPE_CHECKING:
    from byoa.local.api.http import Request, Response
    from byoa.local.aws.moto_app import Moto

TARGET = "Logs_20140328.FilterLogEvents"
PAGE_EVENTS = 10_000  # both documented
PAGE_BYTES = 2**20
_EVENT_OVERHEAD_BYTES = 26
_PAGING = ("limit", "nextToken", "startFromHead")

__all__ = ["TARGET", "filter_log_events"]


def filter_log_events(moto: Moto, request: Request, body: bytes, region: str) -> Response:
    """The answer to one FilterLogEvents; raises AwsError as the service refuses."""
    from byoa.local.api.http import Response

    asked = _parse(body)
    group = _group_name(asked)
    matches = compile_pattern(asked.get("filterPattern", ""))
    with moto.lock("logs"):
        backend = moto.backend("logs", region, account=moto.account_of(request))
        if group not in backend.groups:
            raise AwsError(
                "ResourceNotFoundException", "The specified log group does not exist."
            )
        events = _matching(backend.groups[group].streams, asked, matches)
    answer = _page(events, asked, group)
    headers = [
        ("Content-Type", "application/x-amz-json-1.1"),
        ("x-amzn-RequestId", request_id()),
    ]
    return Response(status=200, headers=headers, body=json.dumps(answer).encode())


def _parse(body: bytes) -> dict[str, Any]:
    """The request, checked against the API's model."""
    try:
        document = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise AwsError("SerializationException", f"The body is not JSON: {error}") from None
    model = service_model.operation("logs", "FilterLogEvents")
    assert model is not None, "botocore's model of logs has the operation"  # noqa: S101
    try:
        checked = validate(model.input_shape, document)
    except ValidationException as error:
        raise _invalid(error.message) from None
    if checked.unknown:
        raise _invalid(f"FilterLogEvents has no parameter {', '.join(checked.unknown)}")
    if "logStreamNames" in checked.request and "logStreamNamePrefix" in checked.request:
        raise _invalid("Give logStreamNames or logStreamNamePrefix, not both")
    return checked.request


def _group_name(asked: Mapping[str, Any]) -> str:
    given = [asked[name] for name in ("logGroupName", "logGroupIdentifier") if name in asked]
    if len(given) != 1:
        raise _invalid("Give either logGroupName or logGroupIdentifier, exactly one of them")
    group = str(given[0])
    # arn:aws:logs:<region>:<account>:log-group:<name>, some write it with a final ":*"
    return group.split(":", 6)[6].removesuffix(":*") if group.count(":") >= 6 else group


def _matching(
    streams: Mapping[str, Any], asked: Mapping[str, Any], matches: Callable[[str], bool]
) -> list[dict[str, Any]]:
    """The events that are asked for, oldest first; of one moment, in the order they came in."""
    prefix, names = asked.get("logStreamNamePrefix", ""), asked.get("logStreamNames")
    start, end = asked.get("startTime", 0), asked.get("endTime")
    found = [
        {**event.to_filter_dict(), "logStreamName": name}
        for name, stream in streams.items()
        if name.startswith(prefix) and (names is None or name in names)
        for event in stream.events
        if event.timestamp >= start
        and (end is None or event.timestamp <= end)
        and matches(event.message)
    ]
    return sorted(found, key=_position)


def _position(event: Mapping[str, Any]) -> list[int]:
    return [int(event["timestamp"]), int(event["eventId"])]


def _page(
    events: list[dict[str, Any]], asked: Mapping[str, Any], group: str
) -> dict[str, Any]:
    forward = bool(asked.get("startFromHead", True))
    after: list[int] | None = None
    query = _fingerprint(asked, group)
    if "nextToken" in asked:
        forward, after = _read_token(asked["nextToken"], query)  # it settles the direction
    if not forward:
        events = events[::-1]
    if after is not None:
        events = [e for e in events if (_position(e) > after if forward else _position(e) < after)]
    size = shown = 0
    for event in events[: asked.get("limit", PAGE_EVENTS)]:
        size += len(event["message"].encode("utf-8", "replace")) + _EVENT_OVERHEAD_BYTES
        if size > PAGE_BYTES and shown:
            break
        shown += 1
    # The searched streams are an empty list in the service's answers too, since 2020.
    answer: dict[str, Any] = {"events": events[:shown], "searchedLogStreams": []}
    if shown < len(events):
        token = json.dumps([query, forward, _position(events[shown - 1])], separators=(",", ":"))
        answer["nextToken"] = base64.urlsafe_b64encode(token.encode()).decode("ascii")
    return answer


def _fingerprint(asked: Mapping[str, Any], group: str) -> str:
    filters = {name: value for name, value in asked.items() if name not in _PAGING}
    text = json.dumps([group, filters], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_token(token: str, query: str) -> tuple[bool, list[int]]:
    try:
        found, forward, position = json.loads(
            base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        )
        moment, event = position
        if found == query:
            return bool(forward), [int(moment), int(event)]
    except (ValueError, TypeError, binascii.Error):
        pass
    raise _invalid("The specified nextToken is invalid.")


def _invalid(message: str) -> AwsError:
    return AwsError("InvalidParameterException", message)
