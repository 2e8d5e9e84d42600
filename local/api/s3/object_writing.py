"""PutObject, CopyObject, DeleteObject and DeleteObjects."""

from __future__ import annotations

import base64
import os
import time
from typing import Any

from byoa.local.api.http import Response
from byoa.local.api.s3 import xml
from byoa.local.api.s3.address import unquote_key
from byoa.local.api.s3.call import XML_BODY_LIMIT_BYTES, Call, quoted, xml_response
from byoa.local.api.s3.conditions import check_copy_source, write_condition
from byoa.local.api.s3.errors import S3Error, no_such_bucket, no_such_key, not_implemented
from byoa.local.api.s3.object_headers import (
    checksum_headers,
    described,
    encryption_headers,
)
from byoa.local.api.s3.upload_body import SIZE_LIMIT_BYTES, check_digests, declared_size, receive
from byoa.local.storage import checksums, files
from byoa.local.storage.buckets import ObjectInfo

__all__ = ["copy_source", "delete", "delete_objects", "put"]

DELETE_LIMIT = 1000

_COPY_SOURCE = "x-amz-copy-source"


def put(call: Call) -> Response:
    """PutObject; with a copy source it is CopyObject."""
    if _COPY_SOURCE in call.request.headers:
        return _copy(call)
    info = described(call)
    condition = write_condition(call)
    declared_size(call)
    # Refuse before the body is asked for (the client waits for `100 Continue`).
    call.require_bucket()
    if condition is not None:
        condition(call.buckets.stat(call.bucket, call.key))
    with call.buckets.draft() as draft:
        received = receive(call, draft)
        info = info.with_(
            size=received.size,
            etag=received.md5,
            modified=time.time(),
            checksums=received.checksums,
        )
        info = call.buckets.commit(call.bucket, draft, info, condition=condition)
    headers = [("ETag", quoted(info.etag)), *encryption_headers(info), *checksum_headers(info)]
    return Response(200, headers)


def copy_source(call: Call) -> tuple[str, ObjectInfo, int]:
    """Bucket, object and open descriptor of the x-amz-copy-source, its conditions checked."""
    text, _, version = call.header(_COPY_SOURCE).partition("?versionId=")
    if version not in ("", "null"):
        raise S3Error("InvalidArgument", "Invalid version id specified", ArgumentName="versionId")
    bucket, _, key = unquote_key(text).removeprefix("/").partition("/")
    if bucket.startswith("arn:"):
        raise not_implemented("Copying from an access point", "name the source as bucket/key")
    if not bucket or not key:
        raise S3Error(
            "InvalidArgument",
            "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
            ArgumentName=_COPY_SOURCE,
            ArgumentValue=text,
        )
    owner = call.header("x-amz-source-expected-bucket-owner", call.store.account)
    if owner != call.store.account:
        raise S3Error("AccessDenied")
    found = call.buckets.open(bucket, key)
    if found is None:
        if not call.buckets.exists(bucket):
            raise no_such_bucket(bucket)
        raise no_such_key(key)
    info, fd = found
    try:
        check_copy_source(call, info)
    except BaseException:
        os.close(fd)
        raise
    return bucket, info, fd


def _directive(call: Call, name: str) -> bool:
    """Is it REPLACE?"""
    value = call.header(name, "COPY")
    if value not in ("COPY", "REPLACE"):
        raise S3Error(
            "InvalidArgument", f"Unknown {name[6:]}.", ArgumentName=name, ArgumentValue=value
        )
    return value == "REPLACE"


def _copy(call: Call) -> Response:
    """CopyObject: the kernel copies, or shares, the bytes; the ETag and checksum stay."""
    given = described(call)
    condition = write_condition(call)
    algorithm = call.header("x-amz-checksum-algorithm").lower()
    if algorithm and algorithm not in checksums.ALGORITHMS:
        raise S3Error("InvalidRequest", "Checksum algorithm provided is unsupported.")
    replace_metadata = _directive(call, "x-amz-metadata-directive")
    replace_tags = _directive(call, "x-amz-tagging-directive")
    call.require_bucket()
    bucket, source, fd = copy_source(call)
    try:
        placed = {name: value for name, value in given.headers.items() if name.startswith("x-amz-")}
        if (bucket, source.key) == (call.bucket, call.key) and not (replace_metadata or placed):
            raise S3Error(
                "InvalidRequest",
                "This copy request is illegal because it is trying to copy an object to itself "
                "without changing the object's metadata, storage class, website redirect location "
                "or encryption attributes.",
            )
        if source.size > SIZE_LIMIT_BYTES:
            raise S3Error(
                "InvalidRequest",
                "The specified copy source is larger than the maximum allowable size for a copy "
                f"source: {SIZE_LIMIT_BYTES}",
            )
        kept = {name: v for name, v in source.headers.items() if not name.startswith("x-amz-")}
        about = given if replace_metadata else source
        sums = dict(source.checksums)
        with call.buckets.draft() as draft:
            files.copy_whole(fd, draft.fd, source.size)
            if algorithm and algorithm not in sums:
                digest = checksums.new(algorithm)
                files.feed(fd, 0, source.size, [digest.update])
                sums = {algorithm: base64.b64encode(digest.digest()).decode()}
            info = call.buckets.commit(
                call.bucket,
                draft,
                source.with_(
                    key=call.key,
                    modified=time.time(),
                    content_type=about.content_type,
                    metadata=about.metadata,
                    headers=given.headers if replace_metadata else {**kept, **placed},
                    tags=given.tags if replace_tags else source.tags,
                    checksums=sums,
                ),
                condition=condition,
            )
    finally:
        os.close(fd)
    items = [("LastModified", xml.timestamp(info.modified)), ("ETag", quoted(info.etag))]
    items += [(f"Checksum{name.upper()}", value) for name, value in info.checksums.items()]
    return xml_response("CopyObjectResult", items, encryption_headers(info))


def delete(call: Call) -> Response:
    """204 whether or not the object was there."""
    call.require_bucket()
    call.buckets.delete(call.bucket, call.key, condition=write_condition(call))
    return Response(204)


def delete_objects(call: Call) -> Response:
    """Up to 1,000 keys in one transaction; what fails is listed, the rest is done."""
    data = call.request.body.read(XML_BODY_LIMIT_BYTES + 1)
    if len(data) > XML_BODY_LIMIT_BYTES:
        raise S3Error("MalformedXML")
    check_digests(call, data)
    tree = xml.parse(data, "Delete")
    wanted = [entry.values() for entry in tree.children("Object")]
    if not 0 < len(wanted) <= DELETE_LIMIT or not all(each.get("Key") for each in wanted):
        raise S3Error("MalformedXML")
    call.require_bucket()
    keys: list[str] = []
    failed: list[tuple[str, Any]] = []
    for each in wanted:
        refused = _why_not(call, each)
        if refused is None:
            keys.append(each["Key"])
        else:
            failed.append(
                (
                    "Error",
                    [("Key", each["Key"]), ("Code", refused.code), ("Message", refused.message)],
                )
            )
    call.buckets.delete_many(call.bucket, keys)
    quiet = tree.text("Quiet").lower() == "true"
    done: list[tuple[str, Any]] = [] if quiet else [("Deleted", [("Key", key)]) for key in keys]
    return xml_response("DeleteResult", [*done, *failed])


def _why_not(call: Call, entry: dict[str, str]) -> S3Error | None:
    if entry.get("VersionId", "null") != "null":
        return S3Error("NoSuchVersion", "The specified version does not exist.")
    if len(entry["Key"].encode()) > 1024:
        return S3Error("KeyTooLongError")
    if entry.get("ETag"):
        info = call.buckets.stat(call.bucket, entry["Key"])
        if info is None or info.etag != entry["ETag"].strip('"'):
            return S3Error("PreconditionFailed")
    return None
