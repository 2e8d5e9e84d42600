"""The bucket store itself: keys and paths, files that come and go, copies, moves, failures."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from byoa.container.errors import ByoaError
from byoa.local.storage import checksums, files
from byoa.local.storage.buckets import (
    BucketMissing,
    Buckets,
    ObjectMissing,
    parse_s3_uri,
    valid_bucket_name,
)
from byoa.local.storage.object_index import after_prefix


@pytest.fixture
def buckets(tmp_path):
    buckets = Buckets(tmp_path / "home")
    buckets.create("data")
    yield buckets
    buckets.close()


def read(buckets, key: str) -> bytes:
    info, fd = buckets.open("data", key)
    with os.fdopen(fd, "rb") as file:
        data = file.read()
    assert len(data) == info.size
    return data


ODD_KEYS = [
    "dir/",
    "/",
    "//",
    "/etc/passwd",
    "a//b",
    ".",
    "..",
    "../../escape",
    "a/../b",
    "a/./b",
    "a/..",
    "x" * 300,
    "nul\0byte",
]


@pytest.mark.parametrize("key", [*ODD_KEYS, ".byoa/index.sqlite", "-", "a\\b", "é", "a\nb", " "])
def test_any_key_works_and_stays_within_the_store(buckets, tmp_path, key):
    buckets.put_bytes("data", key, b"here", content_type="text/plain")
    assert read(buckets, key) == b"here"
    assert [each.key for each in buckets.keys("data")] == [key]
    assert buckets.path("data", key).resolve().is_relative_to(tmp_path / "home/s3")
    outside = [p for p in tmp_path.rglob("*") if not p.is_relative_to(tmp_path / "home/s3")]
    assert outside == [tmp_path / "home"]
    assert (files.plain_path(key) is None) == (key in ODD_KEYS)
    assert buckets.delete("data", key) and not buckets.delete("data", key)
    assert buckets.stat("data", key) is None
    assert buckets.remove("data")


def test_a_key_may_be_a_folder_of_other_keys(buckets):
    for keys in (["a", "a/b", "a/b/c"], ["d/e/f", "d/e", "d"]):
        for key in keys:
            buckets.put_bytes("data", key, key.encode())
        for key in keys:
            assert read(buckets, key) == key.encode()
    assert [each.key for each in buckets.keys("data")] == ["a", "a/b", "a/b/c", "d", "d/e", "d/e/f"]
    for key in ("a", "d/e/f"):
        buckets.delete("data", key)
    assert read(buckets, "a/b") == b"a/b" and read(buckets, "d") == b"d"
    # Once the folder is gone the name is free for a file.
    buckets.delete_many("data", ["d", "d/e"])
    buckets.put_bytes("data", "d", b"again")
    assert buckets.path("data", "d") == buckets.root / "data" / "d"


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        st.text(st.sampled_from("ab/.é\0"), min_size=1, max_size=7), st.binary(max_size=9)
    )
)
def test_any_set_of_keys_is_kept_apart(buckets, wanted):
    for key, data in wanted.items():
        buckets.put_bytes("data", key, data)
    assert {each.key: read(buckets, each.key) for each in buckets.keys("data")} == wanted
    assert sorted(buckets.delete_many("data", list(wanted))) == sorted(wanted)
    assert list(buckets.keys("data")) == []
    assert list((buckets.root / "data").iterdir()) == []


def test_a_key_of_the_wrong_length_is_refused(buckets):
    for key in ("", "x" * 1025, "é" * 513):
        with pytest.raises(ByoaError) as caught:
            buckets.put_bytes("data", key, b"")
        assert caught.value.code == "KEY_INVALID"
    buckets.put_bytes("data", "é" * 512, b"")


def test_a_link_in_the_folder_leads_nowhere(buckets, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (buckets.root / "data" / "link").symlink_to(outside)
    (buckets.root / "data" / "file").symlink_to(outside / "secret")
    assert buckets.stat("data", "link/secret") is None
    assert buckets.stat("data", "file") is None
    buckets.put_bytes("data", "link/secret", b"mine")
    buckets.put_bytes("data", "file", b"mine")
    assert read(buckets, "link/secret") == read(buckets, "file") == b"mine"
    assert (outside / "secret").read_bytes() == b"secret"
    assert [each.key for each in buckets.keys("data")] == ["file", "link/secret"]


def test_nothing_is_found_outside_of_buckets(buckets):
    for bucket in (".byoa", "..", ".", "", "nowhere"):
        assert buckets.stat(bucket, "index.sqlite") is None
        assert not buckets.exists(bucket)
    with pytest.raises(BucketMissing):
        buckets.put_bytes("nowhere", "k", b"")
    with pytest.raises(BucketMissing):
        list(buckets.keys("nowhere"))
    with pytest.raises(ObjectMissing):
        buckets.path("data", "k")


def test_an_object_is_replaced_and_never_written_in_place(buckets):
    buckets.put_bytes("data", "k", b"one")
    path = buckets.path("data", "k")
    inode = path.stat().st_ino
    with path.open("rb") as reader:
        buckets.put_bytes("data", "k", b"two")
        assert reader.read() == b"one"
    assert path.read_bytes() == b"two" and path.stat().st_ino != inode


def test_a_materialised_copy_is_the_jobs_own(buckets, tmp_path):
    data = os.urandom(3_000_000)
    buckets.put_bytes("data", "d/k", data)
    target = tmp_path / "channel" / "deep" / "k"
    info = buckets.materialise("data", "d/k", target)
    assert target.read_bytes() == data and info.size == len(data)
    with target.open("r+b") as file:
        file.write(b"changed")
    assert read(buckets, "d/k") == data
    # A link that the job left in the target's place is replaced, not followed.
    target.unlink()
    os.link(buckets.path("data", "d/k"), target)
    buckets.materialise("data", "d/k", target)
    target.write_bytes(b"changed")
    assert read(buckets, "d/k") == data
    with pytest.raises(ObjectMissing):
        buckets.materialise("data", "absent", target)


def test_a_link_is_the_object_as_it_was(buckets, tmp_path, monkeypatch):
    buckets.put_bytes("data", "d/k", b"first")
    target = tmp_path / "channel" / "deep" / "k"
    before = buckets.path("data", "d/k").stat()
    assert buckets.link("data", "d/k", target)
    assert target.stat().st_ino == before.st_ino
    buckets.put_bytes("data", "d/k", b"second")
    assert (target.read_bytes(), read(buckets, "d/k")) == (b"first", b"second")
    assert buckets.link("data", "d/k", target) and target.read_bytes() == b"second"
    buckets.delete("data", "d/k")
    assert target.read_bytes() == b"second"
    with pytest.raises(ObjectMissing):
        buckets.link("data", "d/k", target)


def test_what_cannot_be_linked_is_said(buckets, tmp_path, monkeypatch):
    buckets.put_bytes("data", "k", b"private")
    buckets.path("data", "k").chmod(0o640)
    assert not buckets.link("data", "k", tmp_path / "k")
    assert not (tmp_path / "k").exists()
    assert buckets.path("data", "k").stat().st_mode & 0o777 == 0o640

    def link(*arguments, **how):
        raise OSError(errno.EXDEV, "another filesystem")

    monkeypatch.setattr(os, "link", link)
    assert not buckets.link("data", "k", tmp_path / "k")


@pytest.mark.parametrize("move", [True, False])
def test_a_file_is_copied_or_given_away(buckets, tmp_path, move):
    source = tmp_path / "model.tar.gz"
    data = os.urandom(2_000_000)
    source.write_bytes(data)
    inode = source.stat().st_ino
    info = buckets.put_file("data", "m/k", source, content_type="application/gzip", move=move)
    assert info.etag == hashlib.md5(data).hexdigest() and info.content_type == "application/gzip"
    assert read(buckets, "m/k") == data
    assert source.exists() != move
    assert (buckets.path("data", "m/k").stat().st_ino == inode) == move


def test_a_file_that_could_not_be_stored_is_still_its_owners(buckets, tmp_path):
    source = tmp_path / "file"
    source.write_bytes(b"x")
    with pytest.raises(BucketMissing):
        buckets.put_file("nowhere", "k", source, move=True)
    assert source.read_bytes() == b"x"
    assert list((buckets.side / "temp").iterdir()) == []


def test_a_failed_commit_leaves_the_object_of_before(buckets, monkeypatch):
    buckets.put_bytes("data", "k", b"before")

    def full(bucket, info):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(buckets.index, "put", full)
    for key in ("k", "new"):
        with pytest.raises(sqlite3.OperationalError):
            buckets.put_bytes("data", key, b"after")
    monkeypatch.undo()
    assert read(buckets, "k") == b"before"
    assert [each.key for each in buckets.keys("data")] == ["k"]
    assert list((buckets.side / "temp").iterdir()) == []


def test_a_condition_is_judged_and_met_in_one_step(buckets):
    won: list[int] = []

    def absent(now):
        if now is not None:
            raise FileExistsError

    def compete(index: int) -> None:
        with buckets.draft() as draft:
            draft.write(b"x")
            info = files_info("k")
            try:
                buckets.commit("data", draft, info, condition=absent)
                won.append(index)
            except FileExistsError:
                pass

    threads = [threading.Thread(target=compete, args=(index,)) for index in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(10)
    assert len(won) == 1


def files_info(key):
    from byoa.local.storage.object_index import ObjectInfo

    return ObjectInfo(key, 1, hashlib.md5(b"x").hexdigest(), 1.0)


def test_what_a_person_does_in_the_folder_is_followed(buckets):
    buckets.put_bytes("data", "d/a", b"a", content_type="text/plain")
    folder = buckets.root / "data" / "d"
    (folder / "b").write_bytes(b"b")
    (folder / "sub").mkdir()
    (folder / "sub" / "c").write_bytes(b"c")
    os.mkfifo(folder / "pipe")
    assert [each.key for each in buckets.keys("data", "d/")] == ["d/a", "d/b", "d/sub/c"]
    assert [each.key for each in buckets.keys("data", "d/s")] == ["d/sub/c"]
    (folder / "a").write_bytes(b"edited")
    info = buckets.stat("data", "d/a")
    assert info.size == 6 and info.etag == hashlib.md5(b"edited").hexdigest()
    assert info.content_type == "text/plain"
    (folder / "b").unlink()
    assert buckets.stat("data", "d/b") is None
    assert [each.key for each in buckets.keys("data")] == ["d/a", "d/sub/c"]
    (buckets.root / "mine").mkdir()
    (buckets.root / "mine" / "k").write_bytes(b"x")
    assert buckets.names() == ["data", "mine"]
    assert [each.key for each in buckets.keys("mine")] == ["k"]


def test_objects_are_there_after_a_restart_and_drafts_are_not(buckets, tmp_path):
    buckets.put_bytes("data", "k", b"x", content_type="text/csv")
    draft = buckets.draft()
    draft.write(b"half")
    # Another process on the same folder leaves alone what the running one writes.
    with_server = Buckets(tmp_path / "home")
    assert draft.path.exists() and with_server.stat("data", "k").content_type == "text/csv"
    with_server.close()
    os.close(draft.fd)
    buckets.close()
    again = Buckets(tmp_path / "home")
    assert not draft.path.exists()
    assert again.stat("data", "k").content_type == "text/csv"
    again.close()


def test_writers_and_readers_of_one_key_never_see_a_mixture(buckets):
    bodies = {hashlib.md5(body).hexdigest(): body for body in (b"a" * 10, b"b" * 70_000, b"c")}
    stop = threading.Event()
    buckets.put_bytes("data", "k", b"c")
    seen: list[str] = []

    def write(body: bytes) -> None:
        while not stop.is_set():
            buckets.put_bytes("data", "k", body)

    threads = [threading.Thread(target=write, args=(body,)) for body in bodies.values()]
    for each in threads:
        each.start()
    try:
        for _ in range(300):
            info, fd = buckets.open("data", "k")
            with os.fdopen(fd, "rb") as file:
                assert file.read() == bodies[info.etag]
            seen.append(info.etag)
    finally:
        stop.set()
        for each in threads:
            each.join(10)
    assert len(set(seen)) > 1


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://b/k", ("b", "k")),
        ("s3://b", ("b", "")),
        ("s3://b/", ("b", "")),
        ("s3a://b/k//l", ("b", "k//l")),
    ],
)
def test_an_s3_uri_is_taken_apart(uri, expected):
    assert parse_s3_uri(uri) == expected


@pytest.mark.parametrize("uri", ["", "s3://", "s3:///k", "file:///b/k", "b/k"])
def test_what_is_no_s3_uri_is_refused(uri):
    with pytest.raises(ByoaError) as caught:
        parse_s3_uri(uri)
    assert caught.value.code == "S3_URI_INVALID"


def test_bucket_names_follow_the_rules():
    for good in ("abc", "a-b.c", "0a0", "a" * 63, "sagemaker-us-east-1-123456789012"):
        assert valid_bucket_name(good)
    for bad in ("ab", "a" * 64, "A-b", "a_b", ".ab", "ab.", "a..b", "1.2.3.4", "xn--a", "a/b"):
        assert not valid_bucket_name(bad)


@given(st.lists(st.text(max_size=4), max_size=30), st.text(max_size=2))
def test_after_prefix_bounds_exactly_the_keys_with_the_prefix(texts, prefix):
    end = after_prefix(prefix)
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        if "\ud800" <= max(text, default="") <= "\udfff":
            continue
        inside = raw >= prefix.encode() and (end is None or raw < end.encode())
        assert inside == text.startswith(prefix)


@given(st.binary(max_size=70_000), st.integers(0, 70_000))
@settings(max_examples=25, deadline=None)
def test_checksums_of_pieces_combine_to_that_of_the_whole(data, cut):
    import zlib

    pieces = [data[:cut], data[cut:]]
    for name in ("crc32", "crc32c", "crc64nvme"):
        whole, parts = checksums.new(name), []
        for piece in pieces:
            whole.update(piece)
            part = checksums.new(name)
            part.update(piece)
            parts.append((part.digest(), len(piece)))
        assert checksums.combine(name, parts) == whole.digest()
    lanes = checksums._LaneCrc("crc32")
    lanes.update(data)
    assert lanes.digest() == zlib.crc32(data).to_bytes(4, "big")


def test_the_check_values_of_the_crc_catalogue_hold():
    for name, value in (
        ("crc32", "cbf43926"),
        ("crc32c", "e3069283"),
        ("crc64nvme", "ae8b14860a799888"),
    ):
        digest = checksums.new(name)
        digest.update(b"123456789")
        assert digest.digest().hex() == value
        assert len(digest.digest()) == len(value) // 2


def test_a_crc_over_many_blocks_is_that_of_its_bytes():
    import zlib

    data = os.urandom((5 << 20) // 2 + 12_345)
    lanes = checksums._LaneCrc("crc32")
    for at in range(0, len(data), 300_001):
        lanes.update(data[at : at + 300_001])
    assert lanes.digest() == zlib.crc32(data).to_bytes(4, "big")
