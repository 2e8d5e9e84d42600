"""Tags of objects and buckets: get, put, delete, and the x-amz-tagging header."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from byoa.local.api.http import Response
from byoa.local.api.s3.call import Call, xml_response
from byoa.local.api.s3.errors import S3Error

__all__ = [
    "delete_bucket",
    "delete_object",
    "get_bucket",
    "get_object",
    "header_tags",
    "put_bucket",
    "put_object",
]

OBJECT_TAGS_LIMIT = 10
BUCKET_TAGS_LIMIT = 50


def header_tags(text: str) -> dict[str, str]:
    """The tags of an x-amz-tagging header, which is written like a query."""
    pairs = parse_qsl(text, keep_blank_values=True)
    return _checked(pairs, OBJECT_TAGS_LIMIT)


def _checked(pairs: list[tuple[str, str]], limit: int) -> dict[str, str]:
    tags = dict(pairs)
    if len(tags) != len(pairs):
        raise S3Error("InvalidTag", "Cannot provide multiple Tags with the same key")
    if len(tags) > limit:
        code = "BadRequest" if limit == OBJECT_TAGS_LIMIT else "InvalidTag"
        raise S3Error(code, f"Object tags cannot be greater than {limit}")
    for key, value in tags.items():
        if not 1 <= len(key) <= 128:
            raise S3Error("InvalidTag", "The TagKey you have provided is invalid", TagKey=key)
        if len(value) > 256:
            raise S3Error("InvalidTag", "The TagValue you have provided is invalid", TagKey=key)
    return tags


def _answer(tags: Mapping[str, str]) -> Response:
    rows = [("Tag", [("Key", key), ("Value", value)]) for key, value in tags.items()]
    return xml_response("Tagging", [("TagSet", rows)])


def _body_tags(call: Call, limit: int) -> dict[str, str]:
    sets = call.xml("Tagging").children("TagSet")
    if len(sets) != 1:
        raise S3Error("MalformedXML")
    return _checked(
        [(tag.text("Key"), tag.text("Value")) for tag in sets[0].children("Tag")], limit
    )


def get_object(call: Call) -> Response:
    return _answer(call.object().tags)


def put_object(call: Call) -> Response:
    call.object()
    tags = _body_tags(call, OBJECT_TAGS_LIMIT)
    call.buckets.update(call.bucket, call.key, lambda info: info.with_(tags=tags))
    return Response(200)


def delete_object(call: Call) -> Response:
    call.object()
    call.buckets.update(call.bucket, call.key, lambda info: info.with_(tags={}))
    return Response(204)


def get_bucket(call: Call) -> Response:
    tags = call.buckets.bucket_tags(call.bucket)
    if not tags:
        raise S3Error(
            "NoSuchTagSet", "The TagSet does not exist", status=404, BucketName=call.bucket
        )
    return _answer(tags)


def put_bucket(call: Call) -> Response:
    call.require_bucket()
    call.buckets.set_bucket_tags(call.bucket, _body_tags(call, BUCKET_TAGS_LIMIT))
    return Response(204)


def delete_bucket(call: Call) -> Response:
    call.buckets.set_bucket_tags(call.bucket, {})
    return Response(204)
