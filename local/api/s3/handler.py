"""The S3 handler: finds the operation of a request, runs it, words its errors.

What is not run is refused with NotImplemented, which names what is.
"""

from __future__ import annotations

import calendar
import errno
import logging
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping

from byoa.local.api.http import Request, Response
from byoa.local.api.s3 import (
    bucket_operations,
    listing,
    multipart_operations,
    object_reading,
    object_writing,
    tagging,
    xml,
)
from byoa.local.api.s3.address import locate, parse_query
from byoa.local.api.s3.call import Call, Store
from byoa.local.api.s3.errors import S3Error, no_such_bucket, no_such_key, not_implemented
from byoa.local.errors import AwsError
from byoa.local.storage.buckets import BucketMissing, Buckets, ObjectMissing
from byoa.local.storage.multipart import Uploads

__all__ = ["S3Handler"]

_log = logging.getLogger("byoa.s3")

Operation = Callable[[Call], Response]

_BUCKET: dict[tuple[str, str], Operation] = {
    ("GET", ""): listing.list_objects,
    ("GET", "versions"): listing.list_versions,
    ("GET", "uploads"): multipart_operations.list_uploads,
    ("GET", "tagging"): tagging.get_bucket,
    ("PUT", "tagging"): tagging.put_bucket,
    ("DELETE", "tagging"): tagging.delete_bucket,
    ("HEAD", ""): bucket_operations.head,
    ("PUT", ""): bucket_operations.create,
    ("DELETE", ""): bucket_operations.delete,
    ("POST", "delete"): object_writing.delete_objects,
    **{("GET", name): bucket_operations.configuration for name in bucket_operations.CONFIGURATION},
}
_OBJECT: dict[tuple[str, str], Operation] = {
    ("GET", ""): object_reading.get,
    ("HEAD", ""): object_reading.head,
    ("GET", "attributes"): object_reading.attributes,
    ("GET", "acl"): object_reading.acl,
    ("GET", "tagging"): tagging.get_object,
    ("PUT", "tagging"): tagging.put_object,
    ("DELETE", "tagging"): tagging.delete_object,
    ("PUT", ""): object_writing.put,
    ("DELETE", ""): object_writing.delete,
    ("POST", "uploads"): multipart_operations.create,
    ("PUT", "uploadId"): multipart_operations.upload_part,
    ("POST", "uploadId"): multipart_operations.complete,
    ("DELETE", "uploadId"): multipart_operations.abort,
    ("GET", "uploadId"): multipart_operations.list_parts,
}
# Query parameters that name another operation than the plain one.
_BUCKET_SUBRESOURCES = {name for _, name in _BUCKET if name} | {
    "analytics",
    "intelligent-tiering",
    "inventory",
    "metadataConfiguration",
    "metadataTable",
    "metrics",
    "session",
}
_OBJECT_SUBRESOURCES = {name for _, name in _OBJECT if name} | {
    "legal-hold",
    "renameObject",
    "restore",
    "retention",
    "select",
    "torrent",
}
# The default bucket of the SageMaker SDKs, made when it is first used (with a default prefix they
# never create it, and a missing one ends them).
_DEFAULT_BUCKET = re.compile(r"sagemaker-([a-z]{2}(?:-[a-z]+)+-\d)-(\d{12})")
_SIGNED_REGION = re.compile(r"Credential=[^,&]*?(?:/|%2F)\d{8}(?:/|%2F)([a-z0-9-]+)")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class S3Handler:
    """Answers S3 requests from `buckets`, all of which belong to `account`."""

    def __init__(self, buckets: Buckets, *, account: str = "123456789012") -> None:
        self._store = Store(buckets, Uploads(buckets), account)

    def __call__(self, request: Request) -> Response:
        """The answer to any request; errors are S3's XML (no body to a HEAD)."""
        ident = secrets.token_hex(8).upper()
        try:
            response = self._answer(request)
        except AwsError as error:
            response = _error(error, request, ident)
        except BucketMissing as error:
            response = _error(no_such_bucket((error.where or "")[5:]), request, ident)
        except ObjectMissing:
            response = _error(no_such_key(request.path), request, ident)
        except OSError as error:
            if isinstance(error, (ConnectionError, TimeoutError)):
                raise
            response = _error(_storage_error(error), request, ident)
        except sqlite3.OperationalError as error:
            response = _error(_storage_error(error), request, ident)
        response.headers += (("x-amz-request-id", ident), ("Server", "AmazonS3"))
        return response

    def _answer(self, request: Request) -> Response:
        bucket, key = locate(request.hostname, request.path)
        query = parse_query(request.query)
        _check_expiry(query)
        signed = _SIGNED_REGION.search(request.headers.get("authorization") or request.query)
        region = signed[1] if signed else "us-east-1"
        call = Call(self._store, request, bucket, key, query, region)
        if not bucket:
            return self._service(call)
        known, subresources = (
            (_OBJECT, _OBJECT_SUBRESOURCES) if key else (_BUCKET, _BUCKET_SUBRESOURCES)
        )
        name = next((name for name in query if name in subresources), "")
        operation = known.get((request.method, name))
        if operation is None:
            raise _refusal(request, name, known, "an object" if key else "a bucket")
        if len(key.encode()) > 1024:
            raise S3Error("KeyTooLongError", Size=str(len(key.encode())), MaxSizeAllowed="1024")
        owner = request.headers.get("x-amz-expected-bucket-owner")
        if owner is not None and owner != self._store.account:
            raise S3Error("AccessDenied")
        if query.get("versionId", "null") != "null":
            raise S3Error(
                "InvalidArgument", "Invalid version id specified", ArgumentName="versionId"
            )
        if operation in (listing.list_objects, object_writing.put):
            self._make_default_bucket(call)
        return operation(call)

    def _service(self, call: Call) -> Response:
        if call.request.method != "GET":
            raise S3Error("MethodNotAllowed")
        return bucket_operations.list_buckets(call)

    def _make_default_bucket(self, call: Call) -> None:
        match = _DEFAULT_BUCKET.fullmatch(call.bucket)
        if match and match[2] == self._store.account and not call.buckets.exists(call.bucket):
            call.buckets.create(call.bucket, match[1])


def _refusal(
    request: Request, name: str, known: Mapping[tuple[str, str], Operation], level: str
) -> S3Error:
    if request.method == "POST" and not name:
        return not_implemented(
            "A browser's form upload (POST)", "upload with PutObject or a presigned PUT URL"
        )
    what = f"{request.method} ?{name}" if name else request.method
    same = sorted({f"{method} ?{sub}" for method, sub in known if sub and sub == name})
    others = sorted({method for method, sub in known if not sub})
    instead = ", ".join(same) if same else f"{', '.join(others)} and ?tagging"
    return not_implemented(f"{what} on {level}", f"what is: {instead}")


def _check_expiry(query: Mapping[str, str]) -> None:
    """A presigned URL ends with its time; its signature is not checked."""
    expires = None
    try:
        if "X-Amz-Expires" in query:
            begin = time.strptime(query.get("X-Amz-Date", ""), "%Y%m%dT%H%M%SZ")
            expires = calendar.timegm(begin) + int(query["X-Amz-Expires"])
        elif "Expires" in query and "Signature" in query:
            expires = int(query["Expires"])
    except ValueError:
        raise S3Error(
            "AuthorizationQueryParametersError",
            "X-Amz-Date and X-Amz-Expires must be a date (yyyyMMddTHHmmssZ) and seconds",
        ) from None
    if expires is not None and expires < time.time():
        raise S3Error(
            "AccessDenied",
            "Request has expired",
            Expires=xml.timestamp(expires)[:19] + "Z",
            ServerTime=xml.timestamp(time.time())[:19] + "Z",
        )


def _storage_error(error: Exception) -> S3Error:
    text = str(error)
    if (isinstance(error, OSError) and error.errno in _FULL) or "full" in text:
        _log.error("the disk of the buckets is full: %s", error)
        # 507 rather than 500 or 503, which clients repeat at once with the whole body.
        return S3Error(
            "InsufficientStorage",
            f"The disk of the buckets has no room for this object ({text}); nothing stored was "
            "changed. Delete objects or move BYOA_HOME to a larger disk.",
            status=507,
        )
    _log.error("the bucket store failed", exc_info=error)
    return S3Error(
        "InternalError", f"We encountered an internal error. Please try again. ({text})", status=500
    )


def _error(error: AwsError, request: Request, ident: str) -> Response:
    if request.method == "HEAD" or error.status == 304:
        return Response(error.status, [("Content-Type", "application/xml")])
    items = [("Code", error.code), ("Message", error.message), *error.members.items()]
    items += [("Resource", request.path), ("RequestId", ident), ("HostId", "byoa")]
    body = xml.document("Error", items)
    headers = [("Content-Type", "application/xml")]
    if error.code == "InvalidRange":
        headers.append(("Content-Range", f"bytes */{error.members.get('ActualObjectSize', '*')}"))
    return Response(error.status, headers, body)
