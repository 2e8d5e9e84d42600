"""Objects through unmodified boto3: put, get, head, ranges, conditions, copies, deletes, tags."""

from __future__ import annotations

import base64
import datetime
import hashlib
import http.client
import zlib

import pytest


def body_of(answer) -> bytes:
    with answer["Body"] as stream:
        return stream.read()


def test_an_object_comes_back_as_it_was_put(s3, home):
    put = s3.put_object(
        Bucket="data",
        Key="train/part 1+é.csv",
        Body=b"1,2,3\n",
        ContentType="text/csv",
        CacheControl="no-cache",
        ContentEncoding="identity",
        Metadata={"Origin": "digits"},
    )
    assert put["ETag"].strip('"') == hashlib.md5(b"1,2,3\n").hexdigest()
    got = s3.get_object(Bucket="data", Key="train/part 1+é.csv")
    assert body_of(got) == b"1,2,3\n"
    assert got["ContentType"] == "text/csv"
    assert got["CacheControl"] == "no-cache" and got["ContentEncoding"] == "identity"
    assert got["Metadata"] == {"origin": "digits"}
    assert got["ETag"] == put["ETag"] and got["AcceptRanges"] == "bytes"
    assert got["ServerSideEncryption"] == "AES256"
    assert abs(got["LastModified"].timestamp() - datetime.datetime.now().timestamp()) < 60
    assert (home / "s3/data/train/part 1+é.csv").read_bytes() == b"1,2,3\n"


def test_an_empty_object_is_an_object(s3):
    s3.put_object(Bucket="data", Key="_SUCCESS")
    got = s3.get_object(Bucket="data", Key="_SUCCESS")
    assert body_of(got) == b"" and got["ContentLength"] == 0
    assert got["ETag"] == '"d41d8cd98f00b204e9800998ecf8427e"'


def test_a_missing_object_or_bucket_is_named(s3, refused):
    with refused("NoSuchKey", 404) as caught:
        s3.get_object(Bucket="data", Key="nothing")
    assert caught.value.response["Error"]["Key"] == "nothing"
    assert caught.value.response["ResponseMetadata"]["RequestId"]
    with refused("NoSuchBucket", 404):
        s3.get_object(Bucket="nowhere", Key="nothing")
    with refused("NoSuchBucket", 404):
        s3.put_object(Bucket="nowhere", Key="k", Body=b"x" * 3_000_000)
    with refused("404", 404) as caught:
        s3.head_object(Bucket="data", Key="nothing")
    assert caught.value.response["Error"]["Message"] == "Not Found"


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=99990-", 99990, 100000),
        ("bytes=-5", 99995, 100000),
        ("bytes=-200000", 0, 100000),
        ("bytes=5-999999", 5, 100000),
        ("bytes=0-99998", 0, 99999),
    ],
)
def test_a_range_gives_exactly_its_bytes(s3, wanted, start, end):
    data = bytes(range(250)) * 400
    s3.put_object(Bucket="data", Key="k", Body=data)
    got = s3.get_object(Bucket="data", Key="k", Range=wanted)
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert got["ContentRange"] == f"bytes {start}-{end - 1}/100000"
    assert body_of(got) == data[start:end]
    assert s3.head_object(Bucket="data", Key="k", Range=wanted)["ContentLength"] == end - start


@pytest.mark.parametrize("wanted", ["bytes=0-1,3-4", "bytes=5-2", "lines=1-2", "bytes=-"])
def test_a_range_that_is_no_single_range_is_ignored(ask, s3, wanted):
    s3.put_object(Bucket="data", Key="k", Body=b"0123456789")
    status, headers, body = ask("GET", "/data/k", headers={"Range": wanted})
    assert (status, body) == (200, b"0123456789")


def test_a_range_beyond_the_end_is_refused_with_the_size(s3, refused):
    s3.put_object(Bucket="data", Key="k", Body=b"0123456789")
    for wanted in ("bytes=10-", "bytes=-0"):
        with refused("InvalidRange", 416) as caught:
            s3.get_object(Bucket="data", Key="k", Range=wanted)
        assert caught.value.response["Error"]["ActualObjectSize"] == "10"


def test_conditions_on_reading(s3, refused):
    etag = s3.put_object(Bucket="data", Key="k", Body=b"x")["ETag"]
    past, future = datetime.datetime(2020, 1, 1), datetime.datetime(2100, 1, 1)
    with refused("304", 304):
        s3.get_object(Bucket="data", Key="k", IfNoneMatch=etag)
    with refused("304", 304):
        s3.head_object(Bucket="data", Key="k", IfModifiedSince=future)
    with refused("PreconditionFailed", 412):
        s3.get_object(Bucket="data", Key="k", IfMatch='"another"')
    with refused("PreconditionFailed", 412):
        s3.get_object(Bucket="data", Key="k", IfUnmodifiedSince=past)
    assert body_of(s3.get_object(Bucket="data", Key="k", IfMatch=etag)) == b"x"
    assert body_of(s3.get_object(Bucket="data", Key="k", IfNoneMatch='"another"')) == b"x"
    assert body_of(s3.get_object(Bucket="data", Key="k", IfModifiedSince=past)) == b"x"
    # If-Match decides over the date (RFC 9110, 13.2.2).
    got = s3.get_object(Bucket="data", Key="k", IfMatch=etag, IfUnmodifiedSince=past)
    assert body_of(got) == b"x"


def test_conditions_on_writing_and_deleting(s3, refused):
    etag = s3.put_object(Bucket="data", Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    with refused("PreconditionFailed", 412):
        s3.put_object(Bucket="data", Key="k", Body=b"2", IfNoneMatch="*")
    with refused("PreconditionFailed", 412):
        s3.put_object(Bucket="data", Key="k", Body=b"2", IfMatch='"another"')
    with refused("NoSuchKey", 404):
        s3.put_object(Bucket="data", Key="other", Body=b"2", IfMatch=etag)
    assert body_of(s3.get_object(Bucket="data", Key="k")) == b"1"
    second = s3.put_object(Bucket="data", Key="k", Body=b"2", IfMatch=etag)["ETag"]
    with refused("PreconditionFailed", 412):
        s3.delete_object(Bucket="data", Key="k", IfMatch=etag)
    s3.delete_object(Bucket="data", Key="k", IfMatch=second)
    with refused("NotImplemented", 501):
        s3.put_object(Bucket="data", Key="k", Body=b"2", IfNoneMatch='"etag"')


def test_response_headers_can_be_overridden_by_the_query(s3):
    s3.put_object(Bucket="data", Key="k", Body=b"x", ContentType="text/plain")
    got = s3.get_object(
        Bucket="data",
        Key="k",
        ResponseContentType="text/csv",
        ResponseContentDisposition='attachment; filename="k.csv"',
    )
    got["Body"].close()
    assert got["ContentType"] == "text/csv"
    assert got["ContentDisposition"] == 'attachment; filename="k.csv"'


def test_a_wrong_content_md5_is_refused_and_nothing_is_stored(s3, refused):
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    with refused("BadDigest", 400):
        s3.put_object(Bucket="data", Key="k", Body=b"x", ContentMD5=wrong)
    with refused("InvalidDigest", 400):
        s3.put_object(Bucket="data", Key="k", Body=b"x", ContentMD5="nonsense")
    assert s3.list_objects_v2(Bucket="data")["KeyCount"] == 0
    right = base64.b64encode(hashlib.md5(b"x").digest()).decode()
    s3.put_object(Bucket="data", Key="k", Body=b"x", ContentMD5=right)


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
def test_a_checksum_is_verified_kept_and_given_back(s3, algorithm):
    name = f"Checksum{algorithm}"
    put = s3.put_object(Bucket="data", Key="k", Body=b"123456789", ChecksumAlgorithm=algorithm)
    head = s3.head_object(Bucket="data", Key="k", ChecksumMode="ENABLED")
    assert put[name] == head[name] and head["ChecksumType"] == "FULL_OBJECT"
    assert name not in s3.head_object(Bucket="data", Key="k")
    listed = s3.list_objects_v2(Bucket="data")["Contents"][0]
    assert listed["ChecksumAlgorithm"] == [algorithm]
    attributes = s3.get_object_attributes(
        Bucket="data", Key="k", ObjectAttributes=["Checksum", "ObjectSize", "ETag"]
    )
    assert attributes["Checksum"][name] == put[name] and attributes["ObjectSize"] == 9


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("crc32", "y/Q5Jg=="),
        ("crc32c", "4waSgw=="),
        ("crc64nvme", "rosUhgp5mIg="),
        ("sha1", "98O8HYCOBHMq32eZZczDTKeuNEE="),
    ],
)
def test_a_wrong_checksum_is_refused(ask, s3, name, right):
    header = f"x-amz-checksum-{name}"
    status, _, answer = ask("PUT", "/data/k", b"123456780", {header: right})
    assert status == 400 and b"<Code>BadDigest</Code>" in answer
    status, headers, _ = ask("PUT", "/data/k", b"123456789", {header: right})
    assert status == 200 and headers[header] == right
    status, _, answer = ask("PUT", "/data/k", b"123456789", {header: "AAAA"})
    assert status == 400 and b"<Code>InvalidRequest</Code>" in answer


def aws_chunked(data: bytes, size: int, *, signed: bool, trailer: str) -> bytes:
    mark = b";chunk-signature=" + b"0" * 64 if signed else b""
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    body = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), mark, piece) for piece in pieces)
    body += b"0" + mark + b"\r\n" + (f"{trailer}\r\n".encode() if trailer else b"")
    if trailer and signed:
        body += b"x-amz-trailer-signature:" + b"0" * 64 + b"\r\n"
    return body + b"\r\n"


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("trailing", [True, False])
def test_a_streamed_upload_is_unwrapped_and_its_trailer_verified(ask, s3, signed, trailing):
    data = bytes(range(256)) * 1000
    crc = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    kind = "AWS4-HMAC-SHA256-PAYLOAD" if signed else "UNSIGNED-PAYLOAD"
    headers = {
        "x-amz-content-sha256": f"STREAMING-{kind}" + ("-TRAILER" if trailing else ""),
        "x-amz-decoded-content-length": str(len(data)),
        "Content-Encoding": "gzip, aws-chunked",
    }
    if trailing:
        headers["x-amz-trailer"] = "x-amz-checksum-crc32"
    trailer = f"x-amz-checksum-crc32:{crc}" if trailing else ""
    body = aws_chunked(data, 65536, signed=signed, trailer=trailer)
    status, answered, text = ask("PUT", "/data/k", body, headers)
    assert status == 200, text
    assert answered.get("x-amz-checksum-crc32") == (crc if trailing else None)
    status, answered, stored = ask("GET", "/data/k")
    assert stored == data and answered["Content-Encoding"] == "gzip"
    if trailing:
        wrong = aws_chunked(data, 65536, signed=signed, trailer="x-amz-checksum-crc32:AAAAAA==")
        status, _, text = ask("PUT", "/data/other", wrong, headers)
        assert status == 400 and b"BadDigest" in text
    short = aws_chunked(data[:-1], 65536, signed=signed, trailer=trailer)
    status, _, text = ask("PUT", "/data/other", short, headers)
    assert status == 400 and b"IncompleteBody" in text
    assert ask("GET", "/data/other")[0] == 404


def test_a_copy_keeps_or_replaces_metadata_and_tags(s3, refused):
    s3.put_object(
        Bucket="data",
        Key="a b+é",
        Body=b"x" * 100_000,
        Metadata={"m": "1"},
        ContentType="text/csv",
        Tagging="t=1",
    )
    s3.create_bucket(Bucket="other")
    source = {"Bucket": "data", "Key": "a b+é"}
    answer = s3.copy_object(Bucket="other", Key="copy", CopySource=source)
    head = s3.head_object(Bucket="other", Key="copy")
    assert answer["CopyObjectResult"]["ETag"] == head["ETag"]
    assert head["Metadata"] == {"m": "1"} and head["ContentType"] == "text/csv"
    assert s3.get_object_tagging(Bucket="other", Key="copy")["TagSet"] == [
        {"Key": "t", "Value": "1"}
    ]
    s3.copy_object(
        Bucket="other",
        Key="copy",
        CopySource=source,
        MetadataDirective="REPLACE",
        Metadata={"n": "2"},
        TaggingDirective="REPLACE",
        Tagging="u=2",
        ContentType="text/plain",
    )
    head = s3.head_object(Bucket="other", Key="copy")
    assert head["Metadata"] == {"n": "2"} and head["ContentType"] == "text/plain"
    assert s3.get_object_tagging(Bucket="other", Key="copy")["TagSet"] == [
        {"Key": "u", "Value": "2"}
    ]
    assert body_of(s3.get_object(Bucket="other", Key="copy")) == b"x" * 100_000
    with refused("NoSuchKey", 404):
        s3.copy_object(Bucket="other", Key="c", CopySource={"Bucket": "data", "Key": "gone"})
    with refused("InvalidRequest", 400):
        s3.copy_object(Bucket="data", Key="a b+é", CopySource=source)
    s3.copy_object(Bucket="data", Key="a b+é", CopySource=source, MetadataDirective="REPLACE")
    assert s3.head_object(Bucket="data", Key="a b+é")["Metadata"] == {}


def test_a_copy_is_conditional_on_its_source(s3, refused):
    etag = s3.put_object(Bucket="data", Key="k", Body=b"x")["ETag"]
    source = {"Bucket": "data", "Key": "k"}
    past = datetime.datetime(2020, 1, 1)
    for condition in (
        {"CopySourceIfMatch": '"another"'},
        {"CopySourceIfNoneMatch": etag},
        {"CopySourceIfUnmodifiedSince": past},
    ):
        with refused("PreconditionFailed", 412):
            s3.copy_object(Bucket="data", Key="c", CopySource=source, **condition)
    s3.copy_object(Bucket="data", Key="c", CopySource=source, CopySourceIfMatch=etag)


def test_a_copy_is_independent_of_its_source(s3):
    s3.put_object(Bucket="data", Key="k", Body=b"one")
    s3.copy_object(Bucket="data", Key="c", CopySource={"Bucket": "data", "Key": "k"})
    s3.put_object(Bucket="data", Key="k", Body=b"two")
    assert body_of(s3.get_object(Bucket="data", Key="c")) == b"one"
    s3.delete_object(Bucket="data", Key="k")
    assert body_of(s3.get_object(Bucket="data", Key="c")) == b"one"


def test_deleting_twice_is_fine(s3):
    s3.put_object(Bucket="data", Key="deep/er/k", Body=b"x")
    for _ in range(2):
        answer = s3.delete_object(Bucket="data", Key="deep/er/k")
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204


def test_many_objects_are_deleted_at_once(s3, home):
    keys = [f"d/{index}/é<&>" for index in range(30)] + ["a//b"]
    for key in keys:
        s3.put_object(Bucket="data", Key=key, Body=b"x")
    wanted = {"Objects": [{"Key": key} for key in [*keys[:10], "absent"]]}
    answer = s3.delete_objects(Bucket="data", Delete=wanted)
    assert {each["Key"] for each in answer["Deleted"]} == {*keys[:10], "absent"}
    wanted = {"Quiet": True, "Objects": [{"Key": key} for key in keys[10:]]}
    wanted["Objects"][0]["ETag"] = "another"
    answer = s3.delete_objects(Bucket="data", Delete=wanted)
    assert "Deleted" not in answer
    assert [(e["Key"], e["Code"]) for e in answer["Errors"]] == [(keys[10], "PreconditionFailed")]
    assert [e["Key"] for e in s3.list_objects_v2(Bucket="data")["Contents"]] == [keys[10]]
    assert [each.name for each in (home / "s3/data/d").iterdir()] == ["10"]


def test_a_delete_list_that_is_no_list_is_refused(ask, s3):
    for text in (b"", b"<Delete/>", b"<Delete><Object/></Delete>", b"<Other/>",
                 b"<!DOCTYPE x [<!ENTITY a 'b'>]><Delete><Object><Key>&a;</Key></Object></Delete>"):
        status, _, answer = ask("POST", "/data?delete", text)
        assert status == 400 and b"MalformedXML" in answer


def test_tags_of_an_object(s3, refused):
    s3.put_object(Bucket="data", Key="k", Body=b"x", Tagging="a=1&b=two%20words")
    got = s3.get_object(Bucket="data", Key="k")
    got["Body"].close()
    assert got["TagCount"] == 2
    assert s3.get_object_tagging(Bucket="data", Key="k")["TagSet"] == [
        {"Key": "a", "Value": "1"},
        {"Key": "b", "Value": "two words"},
    ]
    tags = {"TagSet": [{"Key": "c", "Value": "<&>"}]}
    s3.put_object_tagging(Bucket="data", Key="k", Tagging=tags)
    assert s3.get_object_tagging(Bucket="data", Key="k")["TagSet"] == tags["TagSet"]
    s3.delete_object_tagging(Bucket="data", Key="k")
    assert s3.get_object_tagging(Bucket="data", Key="k")["TagSet"] == []
    with refused("NoSuchKey", 404):
        s3.get_object_tagging(Bucket="data", Key="absent")
    with refused("BadRequest", 400):
        tags = {"TagSet": [{"Key": str(index), "Value": ""} for index in range(11)]}
        s3.put_object_tagging(Bucket="data", Key="k", Tagging=tags)


def test_a_presigned_put_with_a_form_content_type_keeps_its_body(s3, port):
    url = s3.generate_presigned_url("put_object", Params={"Bucket": "data", "Key": "k"})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("PUT", url.partition(str(port))[2], b"a=1&b=2", headers)
    assert connection.getresponse().status == 200
    connection.close()
    assert body_of(s3.get_object(Bucket="data", Key="k")) == b"a=1&b=2"


def test_a_presigned_url_serves_until_it_expires(s3, connect, ask, port):
    s3.put_object(Bucket="data", Key="a b", Body=b"x")
    parameters = {"Bucket": "data", "Key": "a b"}
    version_2 = s3.generate_presigned_url("get_object", Params=parameters)
    assert ask("GET", version_2.partition(str(port))[2])[2] == b"x"
    version_4 = connect(signature_version="s3v4")
    url = version_4.generate_presigned_url("get_object", Params=parameters, ExpiresIn=600)
    target = url.partition(str(port))[2]
    assert ask("GET", target)[2] == b"x"
    date = target.partition("X-Amz-Date=")[2][:16]
    status, _, answer = ask("GET", target.replace(date, "20200101T000000Z"))
    assert status == 403
    assert b"<Code>AccessDenied</Code><Message>Request has expired</Message>" in answer
    old = "/data/a%20b?AWSAccessKeyId=x&Signature=y&Expires=1500000000"
    assert ask("GET", old)[0] == 403
    assert ask("GET", target.replace(date, "yesterday"))[0] == 400


def test_encryption_that_was_asked_for_is_told(s3, refused):
    s3.put_object(
        Bucket="data", Key="k", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId="alias/k"
    )
    head = s3.head_object(Bucket="data", Key="k")
    assert head["ServerSideEncryption"] == "aws:kms" and head["SSEKMSKeyId"] == "alias/k"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}, "NotImplemented"),
        ({"ObjectLockLegalHoldStatus": "ON"}, "NotImplemented"),
        ({"ACL": "public-read"}, "AccessControlListNotSupported"),
        ({"StorageClass": "DEEP_ARCHIVE"}, "InvalidStorageClass"),
        ({"Metadata": {"big": "x" * 3000}}, "MetadataTooLarge"),
    ],
)
def test_what_is_not_run_is_refused_by_name(connect, s3, refused, options, code):
    # boto3 refuses to send a customer's key over plain HTTP by itself only when asked to.
    with refused(code):
        s3.put_object(Bucket="data", Key="k", Body=b"x", **options)


def test_an_unknown_subresource_is_refused_and_the_known_ones_are_named(ask, s3):
    status, _, answer = ask("PUT", "/data?lifecycle", b"<LifecycleConfiguration/>")
    assert status == 501 and b"PUT ?lifecycle on a bucket is not run here" in answer
    assert b"GET ?lifecycle" in answer
    status, _, answer = ask("GET", "/data/k?torrent")
    assert status == 501 and b"torrent" in answer
    status, _, answer = ask("POST", "/data", b"form")
    assert status == 501 and b"presigned PUT" in answer


def test_a_put_without_a_length_is_refused(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("PUT", "/data/k")
    connection.endheaders()
    assert connection.getresponse().status == 411
    connection.close()


def test_an_acl_is_the_owners(s3):
    s3.put_object(Bucket="data", Key="k", Body=b"x", ACL="bucket-owner-full-control")
    grants = s3.get_object_acl(Bucket="data", Key="k")["Grants"]
    assert [grant["Permission"] for grant in grants] == ["FULL_CONTROL"]
    assert grants[0]["Grantee"]["Type"] == "CanonicalUser"
