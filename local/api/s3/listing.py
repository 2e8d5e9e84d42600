"""ListObjects (v1), ListObjectsV2 and ListObjectVersions: pages, prefixes, markers."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from byoa.local.api.http import Response
from byoa.local.api.s3 import xml
from byoa.local.api.s3.call import Call, quoted, xml_response
from byoa.local.api.s3.errors import S3Error, not_implemented
from byoa.local.storage.buckets import Buckets, ObjectInfo
from byoa.local.storage.object_index import after_prefix, object_of

__all__ = ["list_objects", "list_versions"]

PAGE_LIMIT = 1000

Items = list[tuple[str, Any]]


@dataclass
class Page:
    """Objects and common prefixes of one answer, each in order; `last` is the last entry."""

    objects: list[ObjectInfo] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    last: str = ""
    truncated: bool = False


def page_of(
    buckets: Buckets, bucket: str, prefix: str, delimiter: str, after: str, limit: int
) -> Page:
    """Up to `limit` entries after the entry `after`, an object's key or a common prefix."""
    page = Page()
    end = after_prefix(prefix)
    start: str | None = prefix
    if after and after >= prefix:
        rolled_up = delimiter and after.endswith(delimiter) and after.startswith(prefix)
        start = after_prefix(after) if rolled_up else after + "\0"
    while start is not None and (end is None or start.encode() < end.encode()):
        wanted = limit - len(page.objects) - len(page.prefixes) + 1
        rows = buckets.index.rows(bucket, start, end, wanted)
        full = len(rows) == wanted
        start = rows[-1][0] + "\0" if rows and full else None
        skip = ""  # the common prefix that the last row belongs to
        for row in rows:
            key = row[0]
            if skip and key.startswith(skip):
                continue
            if len(page.objects) + len(page.prefixes) >= limit:
                page.truncated = True
                return page
            at = key.find(delimiter, len(prefix)) if delimiter else -1
            if at < 0:
                page.objects.append(object_of(row))
                page.last = key
            else:
                skip = key[: at + len(delimiter)]
                page.prefixes.append(skip)
                page.last = skip
        if skip and start is not None and rows[-1][0].startswith(skip):
            start = after_prefix(skip)  # a folder of any size costs one look
    return page


class _Listing:
    """What the three operations have in common."""

    def __init__(self, call: Call) -> None:
        call.require_bucket()
        query = call.query
        self.call = call
        self.prefix = query.get("prefix", "")
        self.delimiter = query.get("delimiter", "")
        self.limit = call.number("max-keys", PAGE_LIMIT, PAGE_LIMIT)
        self.encoding = query.get("encoding-type")
        if self.encoding not in (None, "", "url"):
            raise S3Error(
                "InvalidArgument",
                "Invalid Encoding Method specified in Request",
                ArgumentName="encoding-type",
                ArgumentValue=self.encoding or "",
            )

    def page(self, after: str, *, first: bool) -> Page:
        if first:
            # Files that a person put into the folder or took away; later pages follow the index.
            self.call.buckets.adopt(self.call.bucket, self.prefix)
        if self.limit == 0:
            return Page()
        return page_of(
            self.call.buckets, self.call.bucket, self.prefix, self.delimiter, after, self.limit
        )

    def text(self, value: str) -> str:
        return quote(value, safe="/") if self.encoding else value

    def head(self) -> Items:
        return [
            ("Name", self.call.bucket),
            ("Prefix", self.text(self.prefix)),
            ("MaxKeys", self.limit),
            ("Delimiter", self.text(self.delimiter) if self.delimiter else None),
            ("EncodingType", self.encoding or None),
        ]

    def contents(self, page: Page, name: str, owner: bool) -> Iterator[tuple[str, Any]]:
        who = [("ID", self.call.store.owner)] if owner else None
        for info in page.objects:
            items: Items = [
                ("Key", self.text(info.key)),
                ("LastModified", xml.timestamp(info.modified)),
                ("ETag", quoted(info.etag)),
                *(("ChecksumAlgorithm", algorithm.upper()) for algorithm in info.checksums),
                ("Size", info.size),
                ("StorageClass", info.headers.get("x-amz-storage-class", "STANDARD")),
                ("Owner", who),
            ]
            if name == "Version":
                items += [("VersionId", "null"), ("IsLatest", "true")]
            yield name, items
        for prefix in page.prefixes:
            yield "CommonPrefixes", [("Prefix", self.text(prefix))]


def list_objects(call: Call) -> Response:
    """Version 2 with `list-type=2`, otherwise version 1."""
    version = call.query.get("list-type", "1")
    if version not in ("1", "2"):
        raise not_implemented(f"list-type={version}", "what is: list-type=2, or none for version 1")
    return _list_v2(call) if version == "2" else _list_v1(call)


def _list_v1(call: Call) -> Response:
    listing = _Listing(call)
    marker = call.query.get("marker", "")
    page = listing.page(marker, first=not marker)
    items = listing.head()
    items += [("Marker", listing.text(marker)), ("IsTruncated", str(page.truncated).lower())]
    if page.truncated and listing.delimiter:
        items.append(("NextMarker", listing.text(page.last)))
    items += listing.contents(page, "Contents", owner=True)
    return xml_response("ListBucketResult", items)


def _list_v2(call: Call) -> Response:
    listing = _Listing(call)
    token = call.query.get("continuation-token")
    start_after = call.query.get("start-after", "")
    after = _from_token(token) if token is not None else start_after
    page = listing.page(after, first=token is None)
    items = listing.head()
    items += [
        ("KeyCount", len(page.objects) + len(page.prefixes)),
        ("IsTruncated", str(page.truncated).lower()),
        ("ContinuationToken", token),
        ("NextContinuationToken", _to_token(page.last) if page.truncated else None),
        ("StartAfter", listing.text(start_after) if start_after else None),
    ]
    owner = call.query.get("fetch-owner") == "true"
    items += listing.contents(page, "Contents", owner)
    return xml_response("ListBucketResult", items)


def list_versions(call: Call) -> Response:
    """The one version of each object; its id is `null`, as in a bucket without versioning."""
    listing = _Listing(call)
    marker = call.query.get("key-marker", "")
    page = listing.page(marker, first=not marker)
    items = listing.head()
    items += [("KeyMarker", listing.text(marker)), ("IsTruncated", str(page.truncated).lower())]
    if page.truncated:
        items += [("NextKeyMarker", listing.text(page.last)), ("NextVersionIdMarker", "null")]
    items += listing.contents(page, "Version", owner=True)
    return xml_response("ListVersionsResult", items)


def _to_token(last: str) -> str:
    return base64.urlsafe_b64encode(b"1" + last.encode()).decode()


def _from_token(token: str) -> str:
    try:
        raw = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        if raw[:1] != b"1":
            raise ValueError
        return raw[1:].decode()
    except (ValueError, binascii.Error):
        raise S3Error(
            "InvalidArgument",
            "The continuation token provided is incorrect",
            ArgumentName="continuation-token",
        ) from None
