"""One call of the S3 API: the request, whom it is about, and the store that answers it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from byoa.local.api.http import Request, Response
from byoa.local.api.s3 import xml
from byoa.local.api.s3.errors import S3Error, no_such_bucket, no_such_key
from byoa.local.storage.buckets import Buckets, ObjectInfo
from byoa.local.storage.multipart import Uploads

__all__ = ["Call", "Store", "quoted", "xml_response"]

XML_BODY_LIMIT_BYTES = 2 << 20  # 1,000 keys of 1,024 bytes, escaped, in a DeleteObjects


@dataclass(frozen=True)
class Store:
    """What all calls share. `account` owns every bucket."""

    buckets: Buckets
    uploads: Uploads
    account: str

    @property
    def owner(self) -> str:
        """The canonical user id: 64 hexadecimal digits, made of the account's."""
        return self.account.rjust(64, "0")


@dataclass(frozen=True)
class Call:
    """One request; `query` is decoded, `region` the one it was signed for."""

    store: Store
    request: Request
    bucket: str
    key: str
    query: Mapping[str, str]
    region: str

    @property
    def buckets(self) -> Buckets:
        return self.store.buckets

    def header(self, name: str, default: str = "") -> str:
        return self.request.headers.get(name, default) or default

    def number(self, name: str, default: int, most: int, least: int = 0) -> int:
        """A query parameter that is a number; above `most` it is `most`, as AWS does."""
        text = self.query.get(name, "")
        if not text:
            return default
        if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) < least:
            raise S3Error(
                "InvalidArgument",
                f"Argument {name} must be an integer between {least} and {2**31 - 1}",
                ArgumentName=name,
                ArgumentValue=text,
            )
        return min(int(text), most)

    def xml(self, name: str) -> xml.Tree:
        """The request's XML document."""
        data = self.request.body.read(XML_BODY_LIMIT_BYTES + 1)
        if len(data) > XML_BODY_LIMIT_BYTES:
            raise S3Error("MalformedXML")
        return xml.parse(data, name)

    def require_bucket(self) -> None:
        if not self.buckets.exists(self.bucket):
            raise no_such_bucket(self.bucket)

    def object(self) -> ObjectInfo:
        """The object of the call; NoSuchBucket, NoSuchKey."""
        info = self.buckets.stat(self.bucket, self.key)
        if info is None:
            self.require_bucket()
            raise no_such_key(self.key)
        return info


def xml_response(
    name: str, items: Iterable[tuple[str, Any]], headers: Iterable[tuple[str, str]] = ()
) -> Response:
    """A 200 with an XML document."""
    fields = [("Content-Type", "application/xml"), *headers]
    return Response(200, fields, xml.document(name, items))


def quoted(etag: str) -> str:
    """An ETag as it is sent."""
    return f'"{etag}"'
