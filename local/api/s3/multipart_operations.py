"""Multipart uploads over HTTP: create, upload or copy a part, complete, abort, list."""

from __future__ import annotations

import os
import re
from typing import Any

from byoa.local.api.http import Response
from byoa.local.api.s3 import xml
from byoa.local.api.s3.call import Call, quoted, xml_response
from byoa.local.api.s3.conditions import write_condition
from byoa.local.api.s3.errors import S3Error, no_such_upload
from byoa.local.api.s3.object_headers import checksum_type, described, encryption_headers
from byoa.local.api.s3.object_writing import copy_source
from byoa.local.api.s3.upload_body import (
    SIZE_LIMIT_BYTES,
    checksum_header,
    declared_size,
    receive,
)
from byoa.local.storage import checksums
from byoa.local.storage.buckets import ObjectInfo
from byoa.local.storage.multipart import (
    PART_MINIMUM_BYTES,
    ChecksumMismatch,
    PartMismatch,
    PartTooSmall,
    Upload,
    UploadMissing,
)

__all__ = ["abort", "complete", "create", "list_parts", "list_uploads", "upload_part"]

PARTS_LIMIT = 10_000
PAGE_LIMIT = 1000

_COPY_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})")


def create(call: Call) -> Response:
    info = described(call)
    algorithm = call.header("x-amz-checksum-algorithm").lower()
    if algorithm and algorithm not in checksums.ALGORITHMS:
        raise S3Error("InvalidRequest", "Checksum algorithm provided is unsupported.")
    kind = call.header("x-amz-checksum-type").upper()
    if algorithm and not kind:
        kind = "FULL_OBJECT" if algorithm == "crc64nvme" else "COMPOSITE"
    impossible = {("crc64nvme", "COMPOSITE"), ("sha1", "FULL_OBJECT"), ("sha256", "FULL_OBJECT")}
    if (algorithm, kind) in impossible or kind not in ("", "COMPOSITE", "FULL_OBJECT"):
        raise S3Error(
            "InvalidRequest",
            f"The {kind} checksum type cannot be used with the {algorithm} checksum algorithm.",
        )
    upload = call.store.uploads.create(call.bucket, info, algorithm, kind)
    headers = encryption_headers(info)
    if algorithm:
        headers += [("x-amz-checksum-algorithm", algorithm.upper()), ("x-amz-checksum-type", kind)]
    items = [("Bucket", call.bucket), ("Key", call.key), ("UploadId", upload.id)]
    return xml_response("InitiateMultipartUploadResult", items, headers)


def _upload(call: Call) -> Upload:
    ident = call.query["uploadId"]
    try:
        return call.store.uploads.get(call.bucket, call.key, ident)
    except UploadMissing:
        call.require_bucket()
        raise no_such_upload(ident) from None


def upload_part(call: Call) -> Response:
    """UploadPart; with a copy source it is UploadPartCopy."""
    text = call.query.get("partNumber", "")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= PARTS_LIMIT:
        raise S3Error(
            "InvalidArgument",
            f"Part number must be an integer between 1 and {PARTS_LIMIT}, inclusive",
            ArgumentName="partNumber",
            ArgumentValue=text,
        )
    upload = _upload(call)
    if "x-amz-copy-source" in call.request.headers:
        return _copy_part(call, upload, int(text))
    declared_size(call)
    try:
        with call.buckets.draft() as draft:
            received = receive(call, draft, upload.algorithm)
            part = call.store.uploads.put_part(
                upload, int(text), draft, received.md5, received.checksums
            )
    except UploadMissing:
        raise no_such_upload(upload.id) from None
    sums = [(f"x-amz-checksum-{name}", value) for name, value in part.checksums.items()]
    return Response(200, [("ETag", quoted(part.etag)), *encryption_headers(upload.info), *sums])


def _copy_part(call: Call, upload: Upload, number: int) -> Response:
    bucket, source, fd = copy_source(call)
    try:
        start, size = _copy_range(call, source)
        part = call.store.uploads.copy_part(
            upload, number, fd, call.buckets.file_of(bucket, source), start, size
        )
    except UploadMissing:
        raise no_such_upload(upload.id) from None
    finally:
        os.close(fd)
    items = [("LastModified", xml.timestamp(part.modified)), ("ETag", quoted(part.etag))]
    items += [(f"Checksum{name.upper()}", value) for name, value in part.checksums.items()]
    return xml_response("CopyPartResult", items, encryption_headers(upload.info))


def _copy_range(call: Call, source: ObjectInfo) -> tuple[int, int]:
    text = call.header("x-amz-copy-source-range")
    start, size = 0, source.size
    if text:
        match = _COPY_RANGE.fullmatch(text)
        if match is None or int(match[2]) < int(match[1]):
            raise S3Error(
                "InvalidArgument",
                "The x-amz-copy-source-range value must be of the form bytes=first-last where "
                "first and last are the zero-based offsets of the first and last bytes to copy",
                ArgumentName="x-amz-copy-source-range",
                ArgumentValue=text,
            )
        start, size = int(match[1]), int(match[2]) - int(match[1]) + 1
        if start + size > source.size:
            raise S3Error(
                "InvalidArgument",
                f"Range specified is not valid for source object of size: {source.size}",
                ArgumentName="x-amz-copy-source-range",
                ArgumentValue=text,
            )
    if size > SIZE_LIMIT_BYTES:
        raise S3Error("EntityTooLarge", MaxSizeAllowed=str(SIZE_LIMIT_BYTES))
    return start, size


def complete(call: Call) -> Response:
    """Joins the parts; asked again after a lost answer, it gives the same one."""
    expected = checksum_header(call)
    condition = write_condition(call)
    tree = call.xml("CompleteMultipartUpload")
    wanted: list[tuple[int, str, dict[str, str]]] = []
    for entry in tree.children("Part"):
        values = entry.values()
        number = values.get("PartNumber", "")
        if not number.isascii() or not number.isdigit() or "ETag" not in values:
            raise S3Error("MalformedXML")
        sums = {
            name: values[f"Checksum{name.upper()}"]
            for name in checksums.ALGORITHMS
            if f"Checksum{name.upper()}" in values
        }
        wanted.append((int(number), values["ETag"].strip('"'), sums))
    if not wanted:
        raise S3Error("MalformedXML")
    try:
        upload = _upload(call)
    except S3Error:
        done = call.store.uploads.completed(call.bucket, call.key, call.query["uploadId"])
        if done is None:
            raise
        return _completed(call, done)
    numbers = [number for number, _, _ in wanted]
    if any(later <= earlier for earlier, later in zip(numbers, numbers[1:], strict=False)):
        raise S3Error("InvalidPartOrder", UploadId=upload.id)
    size = call.header("x-amz-mp-object-size")
    parts = call.store.uploads.parts(upload)
    if size and size != str(sum(parts[n].size for n in numbers if n in parts)):
        raise S3Error(
            "InvalidRequest",
            "The provided 'x-amz-mp-object-size' header does not match what was computed",
        )

    try:
        info = call.store.uploads.complete(upload, wanted, condition=condition, expected=expected)
    except PartMismatch as error:
        raise S3Error("InvalidPart", UploadId=upload.id, PartNumber=str(error.number)) from None
    except PartTooSmall as error:
        raise S3Error(
            "EntityTooSmall",
            ProposedSize=str(error.part.size),
            MinSizeAllowed=str(PART_MINIMUM_BYTES),
            PartNumber=str(error.part.number),
            ETag=error.part.etag,
        ) from None
    except ChecksumMismatch as error:
        raise S3Error(
            "BadDigest",
            f"The {error.name.upper()} you specified did not match the calculated checksum.",
        ) from None
    return _completed(call, info)


def _completed(call: Call, info: ObjectInfo) -> Response:
    items: list[tuple[str, Any]] = [
        ("Location", f"http://{call.request.host}{call.request.path}"),
        ("Bucket", call.bucket),
        ("Key", call.key),
        ("ETag", quoted(info.etag)),
    ]
    if info.checksums:
        items += [(f"Checksum{name.upper()}", value) for name, value in info.checksums.items()]
        items.append(("ChecksumType", checksum_type(info)))
    return xml_response("CompleteMultipartUploadResult", items, encryption_headers(info))


def abort(call: Call) -> Response:
    call.store.uploads.abort(_upload(call))
    return Response(204)


def list_parts(call: Call) -> Response:
    upload = _upload(call)
    after = call.number("part-number-marker", 0, PARTS_LIMIT)
    limit = call.number("max-parts", PAGE_LIMIT, PAGE_LIMIT)
    there = [p for p in call.store.uploads.parts(upload).values() if p.number > after]
    page = there[:limit]
    who = [("ID", call.store.owner), ("DisplayName", "byoa")]
    items: list[tuple[str, Any]] = [
        ("Bucket", call.bucket),
        ("Key", call.key),
        ("UploadId", upload.id),
        ("Initiator", who),
        ("Owner", who),
        ("StorageClass", upload.info.headers.get("x-amz-storage-class", "STANDARD")),
        ("ChecksumAlgorithm", upload.algorithm.upper() or None),
        ("ChecksumType", upload.kind or None),
        ("PartNumberMarker", after),
        ("NextPartNumberMarker", page[-1].number if page else 0),
        ("MaxParts", limit),
        ("IsTruncated", str(len(there) > limit).lower()),
    ]
    for part in page:
        sums = [(f"Checksum{name.upper()}", value) for name, value in part.checksums.items()]
        items.append(
            (
                "Part",
                [
                    ("PartNumber", part.number),
                    ("LastModified", xml.timestamp(part.modified)),
                    ("ETag", quoted(part.etag)),
                    ("Size", part.size),
                    *sums,
                ],
            )
        )
    return xml_response("ListPartsResult", items)


def list_uploads(call: Call) -> Response:
    call.require_bucket()
    query = call.query
    if query.get("delimiter"):
        raise S3Error(
            "NotImplemented",
            "ListMultipartUploads with a delimiter is not run here; list with a prefix",
            status=501,
        )
    prefix, limit = query.get("prefix", ""), call.number("max-uploads", PAGE_LIMIT, PAGE_LIMIT, 1)
    marker = (query.get("key-marker", ""), query.get("upload-id-marker", ""))
    there = call.store.uploads.list(call.bucket, prefix)
    if marker[0]:
        # Uploads of one key are in order of time; the marker's own place is where to go on.
        passed = [i for i, each in enumerate(there) if (each.info.key, each.id) == marker]
        begin = passed[0] + 1 if passed else 0
        there = [
            each for each in there[begin:] if passed or each.info.key.encode() > marker[0].encode()
        ]
    page = there[:limit]
    more = len(there) > limit
    items: list[tuple[str, Any]] = [
        ("Bucket", call.bucket),
        ("KeyMarker", marker[0]),
        ("UploadIdMarker", marker[1]),
        ("NextKeyMarker", page[-1].info.key if more else None),
        ("NextUploadIdMarker", page[-1].id if more else None),
        ("Prefix", prefix),
        ("MaxUploads", limit),
        ("IsTruncated", str(more).lower()),
    ]
    who = [("ID", call.store.owner), ("DisplayName", "byoa")]
    for each in page:
        items.append(
            (
                "Upload",
                [
                    ("UploadId", each.id),
                    ("Key", each.info.key),
                    ("Initiator", who),
                    ("Owner", who),
                    ("StorageClass", each.info.headers.get("x-amz-storage-class", "STANDARD")),
                    ("Initiated", xml.timestamp(each.created)),
                ],
            )
        )
    return xml_response("ListMultipartUploadsResult", items)
