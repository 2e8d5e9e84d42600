"""Conditional requests: If-Match and its kin for reading, writing and copying."""

from __future__ import annotations

from email.utils import formatdate, parsedate_to_datetime

from byoa.local.api.http import Response
from byoa.local.api.s3.call import Call, quoted
from byoa.local.api.s3.errors import S3Error, no_such_key, not_implemented
from byoa.local.storage.buckets import Condition, ObjectInfo

__all__ = ["check_copy_source", "check_read", "http_date", "matches", "write_condition"]


def http_date(seconds: float) -> str:
    """`Sat, 31 Jan 2026 12:00:00 GMT`."""
    return formatdate(int(seconds), usegmt=True)


def matches(header: str, etag: str) -> bool:
    """Is `etag` one of the header's, or is the header `*`?"""
    wanted = {each.strip().removeprefix("W/").strip('"') for each in header.split(",")}
    return "*" in wanted or etag in wanted


def is_newer(info: ObjectInfo, header: str) -> bool | None:
    """Was the object modified after the header's date? None when that is no date."""
    try:
        return int(info.modified) > parsedate_to_datetime(header).timestamp()
    except (ValueError, TypeError):
        return None


def check_read(call: Call, info: ObjectInfo) -> Response | None:
    """A 304 where the client has this very object; PreconditionFailed; None to go on."""
    if_match, none_match = call.header("if-match"), call.header("if-none-match")
    if if_match:
        if not matches(if_match, info.etag):
            raise S3Error("PreconditionFailed", Condition="If-Match")
    elif is_newer(info, call.header("if-unmodified-since")):
        raise S3Error("PreconditionFailed", Condition="If-Unmodified-Since")
    if none_match:
        same = matches(none_match, info.etag)
    else:
        same = is_newer(info, call.header("if-modified-since")) is False
    if not same:
        return None
    return Response(304, [("ETag", quoted(info.etag)), ("Last-Modified", http_date(info.modified))])


def write_condition(call: Call) -> Condition | None:
    """What must hold of the object of now when the new one takes its place."""
    if_match, none_match = call.header("if-match"), call.header("if-none-match")
    if not if_match and not none_match:
        return None
    if none_match and none_match != "*":
        raise not_implemented(f"If-None-Match: {none_match[:80]}", "what is: If-None-Match: *")

    def check(now: ObjectInfo | None) -> None:
        if none_match and now is not None:
            raise S3Error("PreconditionFailed", Condition="If-None-Match")
        if if_match and now is None:
            raise no_such_key(call.key)
        if if_match and now is not None and not matches(if_match, now.etag):
            raise S3Error("PreconditionFailed", Condition="If-Match")

    return check


def check_copy_source(call: Call, info: ObjectInfo) -> None:
    """PreconditionFailed where an x-amz-copy-source-if-… header does not hold."""
    prefix = "x-amz-copy-source-if-"
    if_match, none_match = call.header(f"{prefix}match"), call.header(f"{prefix}none-match")
    failed = ""
    if if_match and not matches(if_match, info.etag):
        failed = "match"
    elif not if_match and is_newer(info, call.header(f"{prefix}unmodified-since")):
        failed = "unmodified-since"
    elif none_match and matches(none_match, info.etag):
        failed = "none-match"
    elif not none_match and is_newer(info, call.header(f"{prefix}modified-since")) is False:
        failed = "modified-since"
    if failed:
        raise S3Error("PreconditionFailed", Condition=prefix + failed)
