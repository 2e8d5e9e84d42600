"""The server as a process: flat memory, SIGKILL, a full disk."""

from __future__ import annotations

import hashlib
import threading

import pytest
from boto3.s3.transfer import TransferConfig

MIB = 1 << 20


def body_of(answer) -> bytes:
    with answer["Body"] as stream:
        return stream.read()


def sha256(path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while data := file.read(MIB):
            digest.update(data)
    return digest.hexdigest()


def test_memory_stays_flat_while_a_large_object_passes(spawn, tmp_path):
    server, s3 = spawn()
    s3.create_bucket(Bucket="data")
    source, target = tmp_path / "source", tmp_path / "target"
    block = hashlib.sha512(b"byoa").digest() * (MIB // 64)
    with source.open("wb") as file:
        for index in range(192):
            file.write(index.to_bytes(8, "big") + block[8:])
    s3.put_object(Bucket="data", Key="warm", Body=b"x")
    before = server.rss()
    s3.upload_file(str(source), "data", "parts")
    with source.open("rb") as file:
        s3.put_object(Bucket="data", Key="whole", Body=file)
    s3.copy({"Bucket": "data", "Key": "parts"}, "data", "copy")
    s3.download_file("data", "copy", str(target), Config=TransferConfig(max_concurrency=4))
    assert sha256(target) == sha256(source)
    assert s3.head_object(Bucket="data", Key="whole")["ContentLength"] == 192 * MIB
    assert server.rss() - before < 64 * MIB


def test_a_killed_server_loses_no_acknowledged_object(spawn, home):
    server, s3 = spawn()
    s3.create_bucket(Bucket="data")
    acknowledged: dict[str, bytes] = {}
    attempted: dict[str, bytes] = {}
    stop = threading.Event()

    def write(name: int) -> None:
        for index in range(100_000):
            key, body = f"{name}/{index % 40}", f"{name}-{index}".encode() * 50
            attempted[key] = body
            try:
                s3.put_object(Bucket="data", Key=key, Body=body, Metadata={"body": str(index)})
            except Exception:
                return
            acknowledged[key] = body
            if index > 100:
                stop.set()

    writers = [threading.Thread(target=write, args=(name,)) for name in range(3)]
    for each in writers:
        each.start()
    assert stop.wait(30)
    server.kill()
    for each in writers:
        each.join(20)
        assert not each.is_alive()
    _, s3 = spawn()
    assert acknowledged
    for key, body in acknowledged.items():
        got = s3.get_object(Bucket="data", Key=key)
        data = body_of(got)
        assert got["ETag"].strip('"') == hashlib.md5(data).hexdigest()
        # A put that was under way may have happened, though nobody was told.
        assert data in (body, attempted[key])
    assert list((home / "s3/.byoa/temp").iterdir()) == []


def test_an_upload_goes_on_after_a_kill(spawn):
    server, s3 = spawn()
    s3.create_bucket(Bucket="data")
    at = {"Bucket": "data", "Key": "k"}
    at["UploadId"] = s3.create_multipart_upload(**at)["UploadId"]
    one = s3.upload_part(**at, PartNumber=1, Body=b"1" * (5 * MIB))["ETag"]
    server.kill()
    _, s3 = spawn()
    two = s3.upload_part(**at, PartNumber=2, Body=b"2")["ETag"]
    parts = [{"PartNumber": 1, "ETag": one}, {"PartNumber": 2, "ETag": two}]
    s3.complete_multipart_upload(**at, MultipartUpload={"Parts": parts})
    assert body_of(s3.get_object(Bucket="data", Key="k")) == b"1" * (5 * MIB) + b"2"


def test_a_full_disk_is_told_and_what_was_stored_stays(spawn, home, refused):
    # RLIMIT_FSIZE stands for the full disk: a write beyond it fails in the same place.
    _, s3 = spawn(limit=4 * MIB)
    s3.create_bucket(Bucket="data")
    s3.put_object(Bucket="data", Key="k", Body=b"kept")
    with refused("InsufficientStorage", 507) as caught:
        s3.put_object(Bucket="data", Key="k", Body=b"x" * (8 * MIB))
    assert "no room" in caught.value.response["Error"]["Message"]
    upload = s3.create_multipart_upload(Bucket="data", Key="m")
    at = {"Bucket": "data", "Key": "m", "UploadId": upload["UploadId"]}
    with refused("InsufficientStorage", 507):
        s3.upload_part(**at, PartNumber=1, Body=b"x" * (8 * MIB))
    assert body_of(s3.get_object(Bucket="data", Key="k")) == b"kept"
    assert list((home / "s3/.byoa/temp").iterdir()) == []
    s3.put_object(Bucket="data", Key="small", Body=b"fits")


@pytest.mark.parametrize("reader_first", [True, False])
def test_a_reader_keeps_the_object_that_it_began_with(spawn, reader_first):
    _, s3 = spawn()
    s3.create_bucket(Bucket="data")
    s3.put_object(Bucket="data", Key="k", Body=b"1" * (20 * MIB))
    got = s3.get_object(Bucket="data", Key="k")
    if reader_first:
        assert got["Body"].read(10) == b"1" * 10
    s3.put_object(Bucket="data", Key="k", Body=b"2" * (20 * MIB))
    with got["Body"] as stream:
        assert set(stream.read()) == {ord("1")}
    assert set(body_of(s3.get_object(Bucket="data", Key="k"))) == {ord("2")}
