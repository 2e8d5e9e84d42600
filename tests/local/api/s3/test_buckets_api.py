"""Buckets and listings through unmodified boto3, path-style and by host."""

from __future__ import annotations

import hashlib

import pytest

KEYS = ["a.csv", "a/1", "a/2", "a/b/3", "b/4", "é/5", "z & <z>", "\U0001f600", "\ufb01"]


def body_of(answer) -> bytes:
    with answer["Body"] as stream:
        return stream.read()


@pytest.fixture
def filled(s3):
    for key in KEYS:
        s3.put_object(Bucket="data", Key=key, Body=key.encode())
    return s3


def test_a_bucket_lives_from_create_to_delete(s3, refused):
    assert [each["Name"] for each in s3.list_buckets()["Buckets"]] == ["data"]
    assert s3.head_bucket(Bucket="data")["BucketRegion"] == "us-east-1"
    s3.put_object(Bucket="data", Key="d/k", Body=b"x")
    with refused("BucketNotEmpty", 409):
        s3.delete_bucket(Bucket="data")
    s3.delete_object(Bucket="data", Key="d/k")
    s3.delete_bucket(Bucket="data")
    with refused("404", 404) as caught:
        s3.head_bucket(Bucket="data")
    # The SageMaker SDKs create their default bucket on exactly this text.
    assert caught.value.response["Error"]["Message"] == "Not Found"
    with refused("NoSuchBucket", 404):
        s3.delete_bucket(Bucket="data")


def test_creating_a_bucket_again(s3, connect, refused):
    s3.create_bucket(Bucket="data")
    west = connect(region="us-west-2")
    constraint = {"LocationConstraint": "us-west-2"}
    west.create_bucket(Bucket="west", CreateBucketConfiguration=constraint)
    with refused("BucketAlreadyOwnedByYou", 409):
        west.create_bucket(Bucket="west", CreateBucketConfiguration=constraint)
    assert west.get_bucket_location(Bucket="west")["LocationConstraint"] == "us-west-2"
    assert s3.get_bucket_location(Bucket="data")["LocationConstraint"] is None


@pytest.mark.parametrize("name", ["UPPER", "ab", "10.0.0.1", "a..b", "a" * 64, ".byoa", "-a-"])
def test_an_impossible_bucket_name_is_refused(ask, name):
    status, _, answer = ask("PUT", f"/{name}")
    assert status == 400 and b"InvalidBucketName" in answer


def test_the_default_bucket_of_the_sdks_is_made_on_first_sight(connect, refused):
    client = connect(region="us-west-2")
    name = "sagemaker-us-west-2-123456789012"
    with refused("404", 404):
        client.head_bucket(Bucket=name)
    assert client.list_objects_v2(Bucket=name, Prefix="x")["KeyCount"] == 0
    assert client.head_bucket(Bucket=name)["BucketRegion"] == "us-west-2"
    client.put_object(Bucket="sagemaker-eu-west-1-123456789012", Key="k", Body=b"x")
    for other in ("sagemaker-us-west-2-999999999999", "sagemaker-data"):
        with refused("NoSuchBucket", 404):
            client.list_objects_v2(Bucket=other)


def test_a_bucket_of_another_owner_is_denied(s3, refused):
    s3.head_bucket(Bucket="data", ExpectedBucketOwner="123456789012")
    with refused("403", 403):
        s3.head_bucket(Bucket="data", ExpectedBucketOwner="999999999999")
    with refused("AccessDenied", 403):
        s3.put_object(Bucket="data", Key="k", Body=b"x", ExpectedBucketOwner="999999999999")


def test_the_configuration_of_a_new_bucket_is_aws_default(s3, refused):
    bucket = {"Bucket": "data"}
    assert "Status" not in s3.get_bucket_versioning(**bucket)
    assert "LoggingEnabled" not in s3.get_bucket_logging(**bucket)
    assert s3.get_bucket_request_payment(**bucket)["Payer"] == "BucketOwner"
    assert s3.get_bucket_acl(**bucket)["Grants"][0]["Permission"] == "FULL_CONTROL"
    rules = s3.get_bucket_encryption(**bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    assert all(s3.get_public_access_block(**bucket)["PublicAccessBlockConfiguration"].values())
    for call, code in (
        (s3.get_bucket_policy, "NoSuchBucketPolicy"),
        (s3.get_bucket_lifecycle_configuration, "NoSuchLifecycleConfiguration"),
        (s3.get_bucket_cors, "NoSuchCORSConfiguration"),
        (s3.get_bucket_tagging, "NoSuchTagSet"),
        (s3.get_bucket_website, "NoSuchWebsiteConfiguration"),
        (s3.get_bucket_replication, "ReplicationConfigurationNotFoundError"),
        (s3.get_object_lock_configuration, "ObjectLockConfigurationNotFoundError"),
    ):
        with refused(code, 404):
            call(**bucket)
    with refused("NoSuchBucket", 404):
        s3.get_bucket_versioning(Bucket="nowhere")
    with refused("NotImplemented", 501):
        s3.put_bucket_versioning(**bucket, VersioningConfiguration={"Status": "Enabled"})


def test_tags_of_a_bucket(s3, refused):
    tags = {"TagSet": [{"Key": "team", "Value": "a & b"}]}
    s3.put_bucket_tagging(Bucket="data", Tagging=tags)
    assert s3.get_bucket_tagging(Bucket="data")["TagSet"] == tags["TagSet"]
    s3.delete_bucket_tagging(Bucket="data")
    with refused("NoSuchTagSet", 404):
        s3.get_bucket_tagging(Bucket="data")


def test_keys_are_listed_in_the_order_of_their_bytes(filled):
    for call in (filled.list_objects, filled.list_objects_v2, filled.list_object_versions):
        answer = call(Bucket="data")
        rows = answer.get("Contents") or answer["Versions"]
        assert [row["Key"] for row in rows] == sorted(KEYS, key=str.encode)
        assert rows[0]["Size"] == 5 and rows[0]["ETag"].startswith('"')
        assert rows[0]["StorageClass"] == "STANDARD"
        assert not answer["IsTruncated"]


@pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2", "list_object_versions"])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(("prefix", "delimiter"), [("", ""), ("", "/"), ("a", "/"), ("a/", "/")])
def test_pages_of_any_size_add_up(filled, operation, size, prefix, delimiter):
    pages = filled.get_paginator(operation).paginate(
        Bucket="data", Prefix=prefix, Delimiter=delimiter, PaginationConfig={"PageSize": size}
    )
    keys, prefixes = [], []
    for page in pages:
        keys += [row["Key"] for row in page.get("Contents", page.get("Versions", []))]
        prefixes += [row["Prefix"] for row in page.get("CommonPrefixes", [])]
    matching = sorted((key for key in KEYS if key.startswith(prefix)), key=str.encode)
    rest = {key: key[len(prefix) :] for key in matching}
    rolled = [key for key in matching if delimiter and delimiter in rest[key]]
    assert keys == [key for key in matching if key not in rolled]
    expected = {prefix + rest[key].partition(delimiter)[0] + delimiter for key in rolled}
    assert prefixes == sorted(expected, key=str.encode)


def test_a_listing_starts_after_a_key_and_tells_what_was_asked(filled, refused):
    answer = filled.list_objects_v2(
        Bucket="data", StartAfter="a/2", MaxKeys=2, FetchOwner=True, Prefix="", Delimiter=""
    )
    assert [row["Key"] for row in answer["Contents"]] == ["a/b/3", "b/4"]
    assert answer["StartAfter"] == "a/2" and answer["KeyCount"] == 2 and answer["IsTruncated"]
    assert answer["Contents"][0]["Owner"]["ID"]
    answer = filled.list_objects_v2(
        Bucket="data", ContinuationToken=answer["NextContinuationToken"]
    )
    assert answer["Contents"][0]["Key"] == "z & <z>"
    assert filled.list_objects_v2(Bucket="data", MaxKeys=0)["KeyCount"] == 0
    with refused("InvalidArgument", 400):
        filled.list_objects_v2(Bucket="data", ContinuationToken="nonsense")
    with refused("NoSuchBucket", 404):
        filled.list_objects_v2(Bucket="nowhere")


def test_a_listing_without_url_encoding_escapes_its_xml(ask, filled):
    status, _, answer = ask("GET", "/data?list-type=2&prefix=z")
    assert status == 200 and b"<Key>z &amp; &lt;z&gt;</Key>" in answer


def test_a_marker_of_version_1_may_be_a_common_prefix(filled):
    answer = filled.list_objects(Bucket="data", Delimiter="/", MaxKeys=2)
    assert answer["NextMarker"] == "a/"
    answer = filled.list_objects(Bucket="data", Delimiter="/", Marker="a/")
    assert [row["Prefix"] for row in answer["CommonPrefixes"]] == ["b/", "é/"]


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("data.s3.us-east-1.amazonaws.com", "/k"),
        ("data.s3.amazonaws.com", "/k"),
        ("data.s3-us-west-2.amazonaws.com", "/k"),
        ("data.s3.dualstack.eu-west-1.amazonaws.com:443", "/k"),
        ("data.localhost:4566", "/k"),
        ("s3-us-west-2.amazonaws.com", "/data/k"),
        ("s3.us-east-1.amazonaws.com", "/data/k"),
        ("s3.amazonaws.com", "/data/k"),
        ("localhost", "/data/k"),
    ],
)
def test_a_bucket_is_named_by_host_or_by_path(ask, s3, host, target):
    s3.put_object(Bucket="data", Key="k", Body=b"here")
    assert ask("GET", target, headers={"Host": host})[2] == b"here"
    # Plain proxying: the target is the whole URL.
    assert ask("GET", f"http://{host}{target}")[2] == b"here"


def test_a_dotted_bucket_is_found_by_host(ask, s3):
    s3.create_bucket(Bucket="my.data")
    s3.put_object(Bucket="my.data", Key="s3.amazonaws.com/k", Body=b"here")
    host = {"Host": "my.data.s3.us-east-1.amazonaws.com"}
    assert ask("GET", "/s3.amazonaws.com/k", headers=host)[2] == b"here"


def test_files_that_a_person_puts_or_takes_are_seen(s3, home):
    s3.put_object(Bucket="data", Key="in/a", Body=b"x")
    folder = home / "s3/data/in"
    (folder / "b").write_bytes(b"dropped")
    (folder / "link").symlink_to("/etc/passwd")
    assert [row["Key"] for row in s3.list_objects_v2(Bucket="data")["Contents"]] == ["in/a", "in/b"]
    assert body_of(s3.get_object(Bucket="data", Key="in/b")) == b"dropped"
    (folder / "b").write_bytes(b"edited!")
    got = s3.get_object(Bucket="data", Key="in/b")
    assert body_of(got) == b"edited!"
    assert got["ETag"].strip('"') == hashlib.md5(b"edited!").hexdigest()
    (folder / "a").unlink()
    assert [row["Key"] for row in s3.list_objects_v2(Bucket="data")["Contents"]] == ["in/b"]
