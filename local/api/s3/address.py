"""Whom a request is about: bucket and key from host and path, path-style or virtual-host.

`<bucket>.s3.<region>.amazonaws.com`, `<bucket>.s3-<region>.amazonaws.com`, `<bucket>.localhost`
name a bucket by host; everything else has it as the first segment of the path.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_plus, unquote_to_bytes

from byoa.local.api.s3.errors import S3Error

__all__ = ["locate", "parse_query", "unquote_key"]

_AWS = re.compile(
    r"(?:(?P<bucket>.+)\.)?s3(?:[.-](?:dualstack\.)?[a-z0-9-]+)?(?:\.[a-z0-9-]+)?"
    r"\.amazonaws\.com(?:\.cn)?"
)
_LOCAL = re.compile(r"(?P<bucket>.+?)(?:\.s3)?\.localhost")


def locate(hostname: str, path: str) -> tuple[str, str]:
    """Bucket and key; "" for what the request does not name. InvalidURI for a broken path."""
    match = _AWS.fullmatch(hostname) or _LOCAL.fullmatch(hostname)
    bucket = match["bucket"] if match else None
    if bucket and bucket != "s3":
        return bucket, unquote_key(path[1:])
    bucket, _, key = path[1:].partition("/")
    return unquote_key(bucket), unquote_key(key)


def unquote_key(text: str) -> str:
    """A percent-encoded key; '+' is itself, and what is not UTF-8 is refused."""
    if "%" not in text and text.isascii():
        return text
    try:
        return unquote_to_bytes(text.encode("latin-1")).decode()
    except UnicodeError:
        raise S3Error("InvalidURI") from None


def parse_query(query: str) -> dict[str, str]:
    """The query's parameters; one without a value (`?acl`) has ""."""
    values: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        if name:
            try:
                values[unquote_plus(name)] = unquote_plus(value, errors="strict")
            except UnicodeError:
                raise S3Error("InvalidURI") from None
    return values
