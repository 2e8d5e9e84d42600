"""Multipart uploads through unmodified boto3: parts, copies, completion, errors, listings."""

from __future__ import annotations

import hashlib
import io
import os

import pytest
from boto3.s3.transfer import TransferConfig

MIB = 1 << 20


def body_of(answer) -> bytes:
    with answer["Body"] as stream:
        return stream.read()


def begin(s3, key="k", **options):
    upload = s3.create_multipart_upload(Bucket="data", Key=key, **options)
    return {"Bucket": "data", "Key": key, "UploadId": upload["UploadId"]}


def put(s3, at, number, body):
    return {
        "PartNumber": number,
        "ETag": s3.upload_part(**at, PartNumber=number, Body=body)["ETag"],
    }


def test_parts_in_any_order_become_one_object(s3, home):
    at = begin(s3, ContentType="text/csv", Metadata={"m": "1"}, Tagging="t=1")
    data = [os.urandom(5 * MIB), os.urandom(6 * MIB), b"the end"]
    parts = [put(s3, at, number, data[number - 1]) for number in (3, 1, 2)]
    parts.sort(key=lambda part: part["PartNumber"])
    answer = s3.complete_multipart_upload(**at, MultipartUpload={"Parts": parts})
    digest = hashlib.md5(b"".join(hashlib.md5(piece).digest() for piece in data)).hexdigest()
    assert answer["ETag"] == f'"{digest}-3"'
    got = s3.get_object(Bucket="data", Key="k")
    assert body_of(got) == b"".join(data)
    assert got["ETag"] == answer["ETag"] and got["Metadata"] == {"m": "1"}
    assert got["ContentType"] == "text/csv" and got["TagCount"] == 1
    part = s3.get_object(Bucket="data", Key="k", PartNumber=2)
    assert body_of(part) == data[1] and part["PartsCount"] == 3
    assert list((home / "s3/.byoa/uploads").iterdir()) == []
    assert list((home / "s3/.byoa/temp").iterdir()) == []
    # A client that lost the answer asks again.
    again = s3.complete_multipart_upload(**at, MultipartUpload={"Parts": parts})
    assert again["ETag"] == answer["ETag"]


def test_a_part_sent_again_replaces_the_earlier_one(s3):
    at = begin(s3)
    put(s3, at, 1, b"old")
    part = put(s3, at, 1, b"new!")
    listed = s3.list_parts(**at)["Parts"]
    assert [(p["PartNumber"], p["Size"], p["ETag"]) for p in listed] == [(1, 4, part["ETag"])]
    s3.complete_multipart_upload(**at, MultipartUpload={"Parts": [part]})
    assert body_of(s3.get_object(Bucket="data", Key="k")) == b"new!"


def test_some_of_the_parts_may_be_left_out(s3):
    at = begin(s3)
    data = {number: os.urandom(5 * MIB) for number in (1, 2, 7)}
    parts = {number: put(s3, at, number, body) for number, body in data.items()}
    s3.complete_multipart_upload(**at, MultipartUpload={"Parts": [parts[1], parts[7]]})
    assert body_of(s3.get_object(Bucket="data", Key="k")) == data[1] + data[7]


def test_an_incomplete_completion_is_refused_and_can_be_mended(s3, refused):
    at = begin(s3)
    one, two = put(s3, at, 1, b"small"), put(s3, at, 2, b"two")
    complete = s3.complete_multipart_upload
    with refused("EntityTooSmall", 400):
        complete(**at, MultipartUpload={"Parts": [one, two]})
    with refused("InvalidPartOrder", 400):
        complete(**at, MultipartUpload={"Parts": [two, one]})
    with refused("InvalidPart", 400):
        complete(**at, MultipartUpload={"Parts": [one, {"PartNumber": 3, "ETag": two["ETag"]}]})
    with refused("InvalidPart", 400):
        complete(**at, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": two["ETag"]}]})
    with refused("MalformedXML", 400):
        complete(**at, MultipartUpload={"Parts": []})
    s3.put_object(Bucket="data", Key="k", Body=b"there first")
    with refused("PreconditionFailed", 412):
        complete(**at, MultipartUpload={"Parts": [one]}, IfNoneMatch="*")
    assert body_of(s3.get_object(Bucket="data", Key="k")) == b"there first"
    complete(**at, MultipartUpload={"Parts": [one]})
    assert body_of(s3.get_object(Bucket="data", Key="k")) == b"small"


def test_an_aborted_upload_is_gone(s3, home, refused):
    at = begin(s3)
    part = put(s3, at, 1, b"x")
    s3.abort_multipart_upload(**at)
    for call in (
        lambda: s3.upload_part(**at, PartNumber=2, Body=b"x"),
        lambda: s3.list_parts(**at),
        lambda: s3.abort_multipart_upload(**at),
        lambda: s3.complete_multipart_upload(**at, MultipartUpload={"Parts": [part]}),
    ):
        with refused("NoSuchUpload", 404):
            call()
    assert list((home / "s3/.byoa/uploads").iterdir()) == []
    with refused("NoSuchKey"):
        s3.get_object(Bucket="data", Key="k")


def test_a_part_number_out_of_range_is_refused(ask, s3):
    at = begin(s3)
    for number in ("0", "10001", "x", "-1"):
        target = f"/data/k?partNumber={number}&uploadId={at['UploadId']}"
        status, _, answer = ask("PUT", target, b"x")
        assert status == 400 and b"InvalidArgument" in answer


def test_uploads_and_parts_are_listed_in_pages(s3):
    first, second, other = begin(s3, "a"), begin(s3, "a"), begin(s3, "b/c")
    uploads = s3.list_multipart_uploads(Bucket="data", MaxUploads=1)
    assert uploads["IsTruncated"]
    pages = s3.get_paginator("list_multipart_uploads").paginate(
        Bucket="data", PaginationConfig={"PageSize": 1}
    )
    found = [each["UploadId"] for page in pages for each in page["Uploads"]]
    assert found == [each["UploadId"] for each in (first, second, other)]
    listed = s3.list_multipart_uploads(Bucket="data", Prefix="b/")["Uploads"]
    assert [each["Key"] for each in listed] == ["b/c"]
    for number in (2, 4, 6):
        put(s3, other, number, b"x" * number)
    pages = s3.get_paginator("list_parts").paginate(**other, PaginationConfig={"PageSize": 2})
    sizes = [part["Size"] for page in pages for part in page.get("Parts", [])]
    assert sizes == [2, 4, 6]


def test_ranges_of_objects_become_parts(s3, refused):
    data = os.urandom(12 * MIB)
    s3.put_object(Bucket="data", Key="source", Body=data)
    source = {"Bucket": "data", "Key": "source"}
    at = begin(s3)
    parts = []
    for number, (first, last) in enumerate([(1, 6 * MIB), (0, 5 * MIB - 1)], start=1):
        answer = s3.upload_part_copy(
            **at, PartNumber=number, CopySource=source, CopySourceRange=f"bytes={first}-{last}"
        )
        etag = answer["CopyPartResult"]["ETag"]
        assert etag.strip('"') == hashlib.md5(data[first : last + 1]).hexdigest()
        parts.append({"PartNumber": number, "ETag": etag})
    # The source may change and go before the upload completes.
    s3.put_object(Bucket="data", Key="source", Body=b"another")
    s3.delete_object(Bucket="data", Key="source")
    s3.complete_multipart_upload(**at, MultipartUpload={"Parts": parts})
    got = body_of(s3.get_object(Bucket="data", Key="k"))
    assert got == data[1 : 6 * MIB + 1] + data[: 5 * MIB]
    at = begin(s3)
    source = {"Bucket": "data", "Key": "k"}
    for wrong in ("bytes=0-99999999", "bytes=5-2", "0-5", "bytes=5-"):
        with refused("InvalidArgument", 400):
            s3.upload_part_copy(**at, PartNumber=1, CopySource=source, CopySourceRange=wrong)
    whole = s3.upload_part_copy(**at, PartNumber=1, CopySource=source)["CopyPartResult"]
    assert whole["ETag"].strip('"') == hashlib.md5(got).hexdigest()


@pytest.mark.parametrize("kind", ["COMPOSITE", "FULL_OBJECT"])
def test_the_checksum_of_the_whole_follows_from_the_parts(s3, refused, kind):
    import base64
    import zlib

    data = [os.urandom(5 * MIB), b"the end"]
    at = begin(s3, ChecksumAlgorithm="CRC32", ChecksumType=kind)
    parts = []
    for number, body in enumerate(data, start=1):
        answer = s3.upload_part(**at, PartNumber=number, Body=body, ChecksumAlgorithm="CRC32")
        assert base64.b64decode(answer["ChecksumCRC32"]) == zlib.crc32(body).to_bytes(4, "big")
        parts.append(
            {
                "PartNumber": number,
                "ETag": answer["ETag"],
                "ChecksumCRC32": answer["ChecksumCRC32"],
            }
        )
    with refused("InvalidPart"):
        s3.complete_multipart_upload(
            **at, MultipartUpload={"Parts": [parts[0], {**parts[1], "ChecksumCRC32": "AAAAAA=="}]}
        )
    with refused("BadDigest"):
        s3.complete_multipart_upload(
            **at, MultipartUpload={"Parts": parts}, ChecksumCRC32="AAAAAA==", ChecksumType=kind
        )
    answer = s3.complete_multipart_upload(**at, MultipartUpload={"Parts": parts})
    if kind == "FULL_OBJECT":
        expected = base64.b64encode(zlib.crc32(b"".join(data)).to_bytes(4, "big")).decode()
    else:
        raw = b"".join(zlib.crc32(body).to_bytes(4, "big") for body in data)
        expected = base64.b64encode(zlib.crc32(raw).to_bytes(4, "big")).decode() + "-2"
    assert answer["ChecksumCRC32"] == expected and answer["ChecksumType"] == kind
    head = s3.head_object(Bucket="data", Key="k", ChecksumMode="ENABLED")
    assert head["ChecksumCRC32"] == expected
    assert body_of(s3.get_object(Bucket="data", Key="k")) == b"".join(data)


@pytest.mark.parametrize("algorithm", ["SHA256", "CRC32"])
def test_the_transfer_manager_uploads_downloads_and_copies(s3, algorithm):
    data = os.urandom(11 * MIB + 7)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    s3.upload_fileobj(
        io.BytesIO(data), "data", "k", Config=config, ExtraArgs={"ChecksumAlgorithm": algorithm}
    )
    s3.copy({"Bucket": "data", "Key": "k"}, "data", "copy", Config=config)
    for key in ("k", "copy"):
        target = io.BytesIO()
        s3.download_fileobj("data", key, target, Config=config)
        assert target.getvalue() == data
        assert s3.head_object(Bucket="data", Key=key)["ETag"].endswith('-3"')


def test_parts_of_unequal_sizes_and_a_late_first_part(s3):
    sizes = {1: 7 * MIB, 2: 5 * MIB, 3: 9 * MIB, 4: 3}
    data = {number: os.urandom(size) for number, size in sizes.items()}
    at = begin(s3)
    parts = [put(s3, at, number, data[number]) for number in (4, 2, 3, 1)]
    parts.sort(key=lambda part: part["PartNumber"])
    s3.complete_multipart_upload(**at, MultipartUpload={"Parts": parts})
    got = body_of(s3.get_object(Bucket="data", Key="k"))
    assert got == b"".join(data[number] for number in sorted(data))


def test_a_completion_asked_for_twice_at_once_happens_once(s3, connect):
    from concurrent.futures import ThreadPoolExecutor

    at = begin(s3)
    parts = [put(s3, at, number, os.urandom(5 * MIB)) for number in range(1, 5)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(
                lambda _: s3.complete_multipart_upload(**at, MultipartUpload={"Parts": parts}),
                range(4),
            )
        )
    assert len({answer["ETag"] for answer in answers}) == 1
    assert s3.head_object(Bucket="data", Key="k")["ContentLength"] == 20 * MIB
