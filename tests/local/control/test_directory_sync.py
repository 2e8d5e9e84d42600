"""A directory that is kept the same as an S3 prefix: nothing half-written goes up, nothing whole is
lost (TRAIN-170 … TRAIN-175, pain 10)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from byoa.local.control.directory_sync import DirectorySync
from byoa.local.storage.buckets import Buckets

URI = "s3://tests/ck"


@pytest.fixture
def buckets(tmp_path: Path) -> Any:
    made = Buckets(tmp_path / "home")
    made.create("tests")
    yield made
    made.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "checkpoints"
    made.mkdir()
    return made


@pytest.fixture
def sync(buckets: Buckets, directory: Path) -> Any:
    made = DirectorySync(buckets, URI, directory, interval=0.05)
    yield made
    made.abandon()


def keys(buckets: Buckets) -> list[str]:
    return [each.key.removeprefix("ck/") for each in buckets.keys("tests", "ck/")]


def content(buckets: Buckets, name: str) -> bytes:
    return buckets.path("tests", f"ck/{name}").read_bytes()


def until(look: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not look():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_host_that_is_adopted_does_not_overwrite_what_another_has_written_since(
    buckets: Buckets, directory: Path, tmp_path: Path
) -> None:
    """TRAIN-172: only what this host has newer than S3 is uploaded."""
    for name in ("restored", "own"):
        (tmp_path / name).write_text("old")
        os.utime(tmp_path / name, (time.time() - 60,) * 2)
        buckets.put_bytes("tests", f"ck/{name}", b"of another host")
        (tmp_path / name).rename(directory / name)
    (directory / "own").write_text("newer")
    os.utime(directory / "own", (time.time() + 60,) * 2)
    (directory / "never").write_text("uploaded")
    sync = DirectorySync(buckets, URI, directory)
    sync.resume()
    sync.finish()

    assert content(buckets, "restored") == b"of another host"
    assert content(buckets, "own") == b"newer"
    assert content(buckets, "never") == b"uploaded"


def test_what_is_restored_is_not_uploaded_again_and_a_later_object_is_not_pulled(
    buckets: Buckets, sync: Any, directory: Path
) -> None:
    """TRAIN-170."""
    before = buckets.put_bytes("tests", "ck/a/b", b"1")
    sync.restore(lambda: None)
    buckets.put_bytes("tests", "ck/later", b"2")
    sync.start()
    sync.finish()

    assert [path.name for path in directory.rglob("*")] == ["a", "b"]
    assert buckets.stat("tests", "ck/a/b").modified == before.modified
    assert keys(buckets) == ["a/b", "later"]


def test_files_and_deletions_go_up_while_the_container_runs(
    buckets: Buckets, sync: Any, directory: Path
) -> None:
    """TRAIN-171."""
    sync.start()
    (directory / "deep").mkdir()
    (directory / "deep" / "a").write_text("1")
    until(lambda: keys(buckets) == ["deep/a"])
    (directory / "deep" / "a").write_text("two")
    until(lambda: content(buckets, "deep/a") == b"two")
    (directory / "deep" / "a").unlink()
    until(lambda: keys(buckets) == [])


def test_a_file_that_grows_is_not_uploaded_before_it_is_whole(
    buckets: Buckets, sync: Any, directory: Path
) -> None:
    sync.start()
    (directory / "beside").write_text("1")
    with (directory / "growing").open("wb", buffering=0) as file:
        while not keys(buckets):
            file.write(b"x" * 100)
            time.sleep(0.01)
        assert keys(buckets) == ["beside"]
    whole = (directory / "growing").read_bytes()
    until(lambda: "growing" in keys(buckets))

    assert content(buckets, "growing") == whole


@pytest.mark.parametrize("replace", [
    lambda path: path.write_bytes(b"in place"),
    lambda path: os.truncate(path, 100),
    lambda path: path.unlink(),
    lambda path: os.truncate(path, 1),
    lambda path: path.with_name("x").write_bytes(b"another file") and path.with_name("x").replace(
        path),
], ids=["rewritten", "grown", "deleted", "cut", "renamed-over"])
def test_a_file_that_changes_while_it_is_read_is_not_uploaded(
    buckets: Buckets, sync: Any, directory: Path, monkeypatch: pytest.MonkeyPatch, replace: Any
) -> None:
    """Its bytes may be half of one version and half of another."""
    (directory / "a").write_bytes(b"the first version")
    commit, seen = buckets.commit, []

    def change_then_commit(bucket: str, draft: Any, info: Any, **how: Any) -> Any:
        if not seen:
            seen.append(info)
            replace(directory / "a")
        return commit(bucket, draft, info, **how)

    monkeypatch.setattr(buckets, "commit", change_then_commit)
    sync._upload(sync._scan())
    assert seen and keys(buckets) == []
    sync.finish()
    left = {path.name: path.read_bytes() for path in directory.iterdir()}

    assert {name: content(buckets, name) for name in keys(buckets)} == left


def test_a_file_of_the_same_size_and_time_that_is_renamed_in_goes_up(
    buckets: Buckets, sync: Any, directory: Path
) -> None:
    moment = (time.time() - 60,) * 2
    for name, text in (("a", "old"), ("part.sagemaker-ignore", "new")):
        (directory / name).write_text(text)
        os.utime(directory / name, moment)
    sync._upload(sync._scan())
    (directory / "part.sagemaker-ignore").replace(directory / "a")
    sync.finish()

    assert content(buckets, "a") == b"new"


def test_markers_and_parts_never_go_up_even_at_the_end(
    buckets: Buckets, sync: Any, directory: Path
) -> None:
    """TRAIN-173: what a killed save has left is in a directory of such a name."""
    part = directory / "algo-1-step-00000002.part.sagemaker-ignore"
    part.mkdir()
    (part / "weights").write_text("half")
    for name in ("a.sagemaker-uploading", "a.sagemaker-uploaded", "b.sagemaker-ignore"):
        (directory / name).write_text("")
    (directory / "a").write_text("whole")
    sync.finish()

    assert keys(buckets) == ["a"]


def test_the_last_checkpoint_stays_in_s3_until_the_next_is_there(
    buckets: Buckets, sync: Any, directory: Path
) -> None:
    """With `keep = 1` the old one is removed at once when the new one is written."""
    from byoa.container.checkpoints import Checkpoints

    checkpoints = Checkpoints(directory, keep=1)
    checkpoints.save({"weights": b"1"}, 1)
    sync.finish()
    sync = DirectorySync(buckets, URI, directory, interval=0.05)
    sync.resume()
    checkpoints.save({"weights": b"2"}, 2)
    deleted = []
    delete = buckets.delete

    def watched(bucket: str, key: str) -> bool:
        deleted.append((key, [name for name in keys(buckets) if "00000002" in name]))
        return delete(bucket, key)

    buckets.delete = watched  # type: ignore[method-assign,assignment]
    sync.start()
    until(lambda: len(deleted) == 2)
    sync.abandon()

    assert all(len(newer) == 2 for _, newer in deleted)


def test_checkpoints_that_are_replaced_within_an_interval_go_up_all_the_same(
    buckets: Buckets, directory: Path
) -> None:
    """A quick training would have none in S3 when it is interrupted."""
    from byoa.container.checkpoints import Checkpoints

    checkpoints, sync = Checkpoints(directory, keep=1), DirectorySync(
        buckets, URI, directory, interval=0.3
    )
    sync.start()
    end, step = time.monotonic() + 20, 0
    while not any(name.endswith("checkpoint.json") for name in keys(buckets)):
        assert time.monotonic() < end
        step += 1
        checkpoints.save({"weights": b"w" * 100}, step)
        time.sleep(0.02)
    sync.abandon()


def test_a_link_out_of_the_directory_does_not_go_up(
    buckets: Buckets, sync: Any, directory: Path, tmp_path: Path
) -> None:
    """A container must not read this machine's files by naming them."""
    (tmp_path / "secret").write_text("secret")
    (directory / "out").symlink_to(tmp_path / "secret")
    (directory / "a").write_text("1")
    (directory / "latest").symlink_to("a")
    (directory / "broken").symlink_to("nowhere")
    sync.finish()

    assert keys(buckets) == ["a", "latest"]


def test_an_object_that_is_deleted_while_checkpoints_are_restored_is_passed_over(
    buckets: Buckets, sync: Any, directory: Path
) -> None:
    buckets.put_bytes("tests", "ck/a", b"1")
    buckets.put_bytes("tests", "ck/b", b"2")
    sync.restore(lambda: buckets.delete("tests", "ck/b") and None)

    assert [path.name for path in directory.iterdir()] == ["a"]
