"""Operations on buckets: list, create, head, delete, and their configuration as of a new one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from byoa.local.api.http import Response
from byoa.local.api.s3 import xml
from byoa.local.api.s3.call import Call, xml_response
from byoa.local.api.s3.errors import S3Error
from byoa.local.storage.buckets import valid_bucket_name

__all__ = [
    "CONFIGURATION",
    "acl_items",
    "configuration",
    "create",
    "delete",
    "head",
    "list_buckets",
]

Items = list[tuple[str, Any]]


def list_buckets(call: Call) -> Response:
    prefix = call.query.get("prefix", "")
    after = call.query.get("continuation-token", "")
    limit = call.number("max-buckets", 10_000, 10_000, 1)
    region = call.query.get("bucket-region")
    found = [
        each
        for each in call.buckets.describe()
        if each[0].startswith(prefix) and each[0] > after and region in (None, each[2])
    ]
    page = found[:limit]
    rows: Items = [
        (
            "Bucket",
            [
                ("Name", name),
                ("CreationDate", xml.timestamp(created)),
                ("BucketRegion", where),
            ],
        )
        for name, created, where in page
    ]
    items: Items = [("Owner", [("ID", call.store.owner)]), ("Buckets", rows)]
    if len(found) > limit:
        items.append(("ContinuationToken", page[-1][0]))
    if prefix:
        items.append(("Prefix", prefix))
    return xml_response("ListAllMyBucketsResult", items)


def create(call: Call) -> Response:
    """BucketAlreadyOwnedByYou for one that exists, but 200 in us-east-1, as AWS does."""
    if not valid_bucket_name(call.bucket):
        raise S3Error("InvalidBucketName", BucketName=call.bucket)
    if call.header("x-amz-bucket-object-lock-enabled").lower() == "true":
        raise S3Error(
            "NotImplemented", "Object Lock is not run here; create the bucket without", status=501
        )
    check_acl(call)
    region = call.region
    if not call.request.body.exhausted:
        tree = call.xml("CreateBucketConfiguration")
        region = tree.text("LocationConstraint") or region
    if not call.buckets.create(call.bucket, region) and call.region != "us-east-1":
        raise S3Error("BucketAlreadyOwnedByYou", BucketName=call.bucket)
    return Response(200, [("Location", f"/{call.bucket}")])


def check_acl(call: Call) -> None:
    """AccessControlListNotSupported for more than the owner's own access, as for buckets with
    object ownership enforced, which is AWS's default."""
    acl = call.header("x-amz-acl", "private")
    grants = any(name.startswith("x-amz-grant-") for name in call.request.headers)
    if grants or acl not in ("private", "bucket-owner-full-control"):
        raise S3Error("AccessControlListNotSupported")


def head(call: Call) -> Response:
    call.require_bucket()
    return Response(200, [("x-amz-bucket-region", _region(call))])


def delete(call: Call) -> Response:
    call.require_bucket()
    if not call.buckets.remove(call.bucket):
        raise S3Error("BucketNotEmpty", BucketName=call.bucket)
    return Response(204)


def _region(call: Call) -> str:
    for name, _, region in call.buckets.describe():
        if name == call.bucket:
            return region
    return call.region


def acl_items(call: Call) -> Items:
    """The one grant that there is: the owner's full control."""
    owner = [("ID", call.store.owner)]
    grantee = f'Grantee xmlns:xsi="{xml.XSI}" xsi:type="CanonicalUser"'
    grant = [(grantee, owner), ("Permission", "FULL_CONTROL")]
    return [("Owner", owner), ("AccessControlList", [("Grant", grant)])]


def _location(call: Call) -> Response:
    region = _region(call)
    # us-east-1 is the empty constraint, for ever; the element's own text holds the region.
    text = "" if region == "us-east-1" else xml.escape(region)
    name = "LocationConstraint"
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<{name} xmlns="{xml.NAMESPACE}">{text}</{name}>'
    )
    return Response(200, [("Content-Type", "application/xml")], body.encode())


def _answer(name: str, items: Items) -> Callable[[Call], Response]:
    return lambda call: xml_response(name, items)


def _absent(code: str, message: str) -> Callable[[Call], Response]:
    def refuse(call: Call) -> Response:
        raise S3Error(code, message, status=404, BucketName=call.bucket)

    return refuse


_ENCRYPTION: Items = [
    (
        "Rule",
        [
            ("ApplyServerSideEncryptionByDefault", [("SSEAlgorithm", "AES256")]),
            ("BucketKeyEnabled", "false"),
        ],
    )
]
_BLOCKED = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")

# What AWS answers for a new bucket on which nothing was configured.
CONFIGURATION: dict[str, Callable[[Call], Response]] = {
    "accelerate": _answer("AccelerateConfiguration", []),
    "acl": lambda call: xml_response("AccessControlPolicy", acl_items(call)),
    "cors": _absent("NoSuchCORSConfiguration", "The CORS configuration does not exist"),
    "encryption": _answer("ServerSideEncryptionConfiguration", _ENCRYPTION),
    "lifecycle": _absent(
        "NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist"
    ),
    "location": _location,
    "logging": _answer("BucketLoggingStatus", []),
    "notification": _answer("NotificationConfiguration", []),
    "object-lock": _absent(
        "ObjectLockConfigurationNotFoundError",
        "Object Lock configuration does not exist for this bucket",
    ),
    "ownershipControls": _answer(
        "OwnershipControls", [("Rule", [("ObjectOwnership", "BucketOwnerEnforced")])]
    ),
    "policy": _absent("NoSuchBucketPolicy", "The bucket policy does not exist"),
    "policyStatus": _absent("NoSuchBucketPolicy", "The bucket policy does not exist"),
    "publicAccessBlock": _answer(
        "PublicAccessBlockConfiguration", [(name, "true") for name in _BLOCKED]
    ),
    "replication": _absent(
        "ReplicationConfigurationNotFoundError", "The replication configuration was not found"
    ),
    "requestPayment": _answer("RequestPaymentConfiguration", [("Payer", "BucketOwner")]),
    "versioning": _answer("VersioningConfiguration", []),
    "website": _absent(
        "NoSuchWebsiteConfiguration",
        "The specified bucket does not have a website configuration",
    ),
}


def configuration(call: Call) -> Response:
    """One of `CONFIGURATION`, for a bucket that exists."""
    call.require_bucket()
    name = next(name for name in call.query if name in CONFIGURATION)
    return CONFIGURATION[name](call)
