"""Headers of objects: from a PutObject's request into the store, and back to a GET's answer."""

from __future__ import annotations

from byoa.local.api.s3.bucket_operations import check_acl
from byoa.local.api.s3.call import Call, quoted
from byoa.local.api.s3.conditions import http_date
from byoa.local.api.s3.errors import S3Error, not_implemented
from byoa.local.api.s3.tagging import header_tags
from byoa.local.storage.buckets import ObjectInfo

__all__ = ["answer_headers", "checksum_headers", "described", "encryption_headers"]

Pairs = list[tuple[str, str]]

DEFAULT_TYPE = "binary/octet-stream"
METADATA_LIMIT_BYTES = 2048

_SSE = "x-amz-server-side-encryption"
_KEPT = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "x-amz-website-redirect-location",
    # Noted and given back; the bytes stay plain, as they are files for their owner to read.
    _SSE,
    f"{_SSE}-aws-kms-key-id",
    f"{_SSE}-bucket-key-enabled",
    f"{_SSE}-context",
)
_ENCRYPTIONS = ("AES256", "aws:kms", "aws:kms:dsse")
_STORAGE_CLASSES = (
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
)
_REFUSED = {
    f"{_SSE}-customer-": ("Encryption with a customer's key (SSE-C)", "send the object without it"),
    "x-amz-copy-source-server-side-encryption-customer-": (
        "Encryption with a customer's key (SSE-C)",
        "copy the object without it",
    ),
    "x-amz-object-lock-": ("Object Lock", "store the object without it"),
    "x-amz-write-offset-bytes": ("Appending to an object", "put the whole object"),
}
# Title case as AWS sends it; names not listed go out as they are.
_SPELLING = {
    "cache-control": "Cache-Control",
    "content-disposition": "Content-Disposition",
    "content-encoding": "Content-Encoding",
    "content-language": "Content-Language",
    "expires": "Expires",
}


def described(call: Call) -> ObjectInfo:
    """What the request's headers say of the object to be; refuses what is not run here."""
    check_acl(call)
    metadata: dict[str, str] = {}
    for name, value in call.request.headers.items():
        if name.startswith("x-amz-meta-"):
            metadata[name[11:]] = value
        elif name.startswith("x-amz-"):
            for refused, (what, instead) in _REFUSED.items():
                if name.startswith(refused):
                    raise not_implemented(what, instead)
    size = sum(len(name) + len(value) for name, value in metadata.items())
    if size > METADATA_LIMIT_BYTES:
        raise S3Error(
            "MetadataTooLarge",
            "Your metadata headers exceed the maximum allowed metadata size",
            Size=str(size),
            MaxSizeAllowed=str(METADATA_LIMIT_BYTES),
        )
    headers = {name: value for name in _KEPT if (value := call.header(name))}
    encoding = headers.pop("content-encoding", "")
    encoding = ",".join(
        each for part in encoding.split(",") if (each := part.strip()) not in ("", "aws-chunked")
    )
    if encoding:
        headers["content-encoding"] = encoding
    if headers.get(_SSE, "AES256") not in _ENCRYPTIONS:
        raise S3Error(
            "InvalidEncryptionAlgorithmError",
            f"The encryption request you specified is not valid. Supported values: {_ENCRYPTIONS}",
        )
    storage = call.header("x-amz-storage-class", "STANDARD")
    if storage not in _STORAGE_CLASSES:
        raise S3Error(
            "InvalidStorageClass",
            f"The storage class {storage} is not kept here; those that are: "
            + ", ".join(_STORAGE_CLASSES),
        )
    if storage != "STANDARD":
        headers["x-amz-storage-class"] = storage
    tags = header_tags(call.header("x-amz-tagging"))
    content_type = call.header("content-type", DEFAULT_TYPE)
    return ObjectInfo(call.key, 0, "", 0.0, content_type, metadata, headers, tags=tags)


def encryption_headers(info: ObjectInfo) -> Pairs:
    """How the object is encrypted, as AWS says for every object: by default with its own key."""
    pairs = [(name, value) for name, value in info.headers.items() if name.startswith(_SSE)]
    return pairs if any(name == _SSE for name, _ in pairs) else [(_SSE, "AES256"), *pairs]


def checksum_headers(info: ObjectInfo) -> Pairs:
    """The object's checksums and their type."""
    pairs = [(f"x-amz-checksum-{name}", value) for name, value in info.checksums.items()]
    return [*pairs, ("x-amz-checksum-type", checksum_type(info))] if pairs else []


def checksum_type(info: ObjectInfo) -> str:
    """COMPOSITE where a checksum is one of the parts' checksums, else FULL_OBJECT."""
    return "COMPOSITE" if any("-" in value for value in info.checksums.values()) else "FULL_OBJECT"


def answer_headers(call: Call, info: ObjectInfo) -> Pairs:
    """The head of a GET's or HEAD's answer, but for length, range and checksums."""
    given = {"content-type": info.content_type or DEFAULT_TYPE, **info.headers}
    for name, value in call.query.items():
        if name.startswith("response-"):
            given[name[9:]] = value
    pairs = [
        ("Last-Modified", http_date(info.modified)),
        ("ETag", quoted(info.etag)),
        ("Accept-Ranges", "bytes"),
        ("Content-Type", given.pop("content-type")),
        *encryption_headers(info),
    ]
    for name, value in given.items():
        if not name.startswith(_SSE):
            pairs.append((_SPELLING.get(name, name), value))
    pairs += [(f"x-amz-meta-{name}", value) for name, value in info.metadata.items()]
    if info.tags:
        pairs.append(("x-amz-tagging-count", str(len(info.tags))))
    return pairs
