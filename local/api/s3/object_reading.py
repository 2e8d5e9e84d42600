"""GetObject, HeadObject, GetObjectAttributes, GetObjectAcl: whole objects, ranges and parts."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from byoa.local.api.http import FileSegment, Response
from byoa.local.api.s3.bucket_operations import acl_items
from byoa.local.api.s3.call import Call, xml_response
from byoa.local.api.s3.conditions import check_read, http_date, is_newer, matches
from byoa.local.api.s3.errors import S3Error, no_such_key
from byoa.local.api.s3.object_headers import answer_headers, checksum_headers, checksum_type
from byoa.local.storage.buckets import ObjectInfo

__all__ = ["acl", "attributes", "get", "head"]

SMALL_BYTES = 64 * 1024  # one packet's worth of system calls instead of three

_RANGE = re.compile(r"bytes\s*=\s*(\d*)\s*-\s*(\d*)")


@dataclass(frozen=True)
class _Extent:
    """The bytes that are asked for; `status` 206 when not simply all."""

    start: int
    length: int
    status: int = 200


def get(call: Call) -> Response:
    """The object's bytes, straight from the file by the kernel."""
    found = call.buckets.open(call.bucket, call.key)
    if found is None:
        call.require_bucket()
        raise no_such_key(call.key)
    info, fd = found
    kept = False
    try:
        unchanged = check_read(call, info)
        if unchanged is not None:
            return unchanged
        extent = _extent(call, info)
        response = Response(extent.status, _headers(call, info, extent))
        if extent.length <= SMALL_BYTES:
            response.body = os.pread(fd, extent.length, extent.start)
        else:
            response.body = FileSegment(fd, extent.start, extent.length)
            kept = True
        return response
    finally:
        if not kept:
            os.close(fd)


def head(call: Call) -> Response:
    """The head of what a GET would answer."""
    info = call.object()
    unchanged = check_read(call, info)
    if unchanged is not None:
        return unchanged
    extent = _extent(call, info)
    headers = _headers(call, info, extent)
    return Response(extent.status, [*headers, ("Content-Length", str(extent.length))])


def _headers(call: Call, info: ObjectInfo, extent: _Extent) -> list[tuple[str, str]]:
    headers = answer_headers(call, info)
    if extent.status == 206:
        last = extent.start + extent.length - 1
        headers.append(("Content-Range", f"bytes {extent.start}-{last}/{info.size}"))
    if "partNumber" in call.query and info.parts:
        headers.append(("x-amz-mp-parts-count", str(len(info.parts))))
    # A checksum of the whole would not fit a part of it.
    if call.header("x-amz-checksum-mode").upper() == "ENABLED" and extent.length == info.size:
        headers += checksum_headers(info)
    return headers


def _extent(call: Call, info: ObjectInfo) -> _Extent:
    whole = _Extent(0, info.size)
    text = call.header("range")
    if "partNumber" in call.query:
        if text:
            raise S3Error(
                "InvalidRequest", "Cannot specify both Range header and partNumber query parameter"
            )
        return _part(call, info)
    match = _RANGE.fullmatch(text.strip())
    # What is no single range of bytes is ignored, as HTTP has it.
    if match is None or match.groups() == ("", "") or not _range_still_holds(call, info):
        return whole
    first, last = match.groups()
    if first:
        start = int(first)
        end = min(int(last), info.size - 1) if last else info.size - 1
        if last and int(last) < start:
            return whole
    else:
        start, end = max(0, info.size - int(last)), info.size - 1
    if start > end:
        raise S3Error("InvalidRange", RangeRequested=text, ActualObjectSize=str(info.size))
    return _Extent(start, end - start + 1, 206)


def _range_still_holds(call: Call, info: ObjectInfo) -> bool:
    condition = call.header("if-range")
    if not condition:
        return True
    if '"' in condition:
        return matches(condition, info.etag)
    return is_newer(info, condition) is False


def _part(call: Call, info: ObjectInfo) -> _Extent:
    number = call.number("partNumber", 1, 2**31, 1)
    sizes = info.parts or (info.size,)
    if number > len(sizes):
        raise S3Error(
            "InvalidPartNumber",
            "The requested partnumber is not satisfiable",
            status=416,
            PartNumberRequested=str(number),
            ActualPartCount=str(len(sizes)),
        )
    start = sum(sizes[: number - 1])
    return _Extent(start, sizes[number - 1], 206 if info.size else 200)


def attributes(call: Call) -> Response:
    """Those that the x-amz-object-attributes header names."""
    wanted = {each.strip() for each in call.header("x-amz-object-attributes").split(",")}
    known = {"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"}
    if not wanted <= known:
        raise S3Error("InvalidArgument", "Invalid attribute name specified.")
    info = call.object()
    items: list[tuple[str, Any]] = []
    if "ETag" in wanted:
        items.append(("ETag", info.etag))
    if "Checksum" in wanted and info.checksums:
        sums = [(f"Checksum{name.upper()}", value) for name, value in info.checksums.items()]
        items.append(("Checksum", [*sums, ("ChecksumType", checksum_type(info))]))
    if "ObjectParts" in wanted and info.parts:
        items.append(("ObjectParts", [("PartsCount", len(info.parts))]))
    if "StorageClass" in wanted:
        items.append(("StorageClass", info.headers.get("x-amz-storage-class", "STANDARD")))
    if "ObjectSize" in wanted:
        items.append(("ObjectSize", info.size))
    headers = [("Last-Modified", http_date(info.modified))]
    return xml_response("GetObjectAttributesResponse", items, headers)


def acl(call: Call) -> Response:
    call.object()
    return xml_response("AccessControlPolicy", acl_items(call))
