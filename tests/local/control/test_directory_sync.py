"""A directory that several hosts sync to one prefix."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from byoa.local.control.directory_sync import DirectorySync
from byoa.local.storage.buckets import Buckets


@pytest.fixture
def buckets(tmp_path: Path) -> Any:
    made = Buckets(tmp_path / "home")
    made.create("tests")
    yield made
    made.close()


def test_a_host_that_is_adopted_does_not_overwrite_what_another_has_written_since(
    buckets: Buckets, tmp_path: Path
) -> None:
    """TRAIN-172: only what this host has newer than S3 is uploaded."""
    for name in ("restored", "own"):
        (tmp_path / name).write_text("old")
        os.utime(tmp_path / name, (time.time() - 60,) * 2)
        buckets.put_bytes("tests", f"ck/{name}", b"of another host")
    directory = tmp_path / "checkpoints"
    directory.mkdir()
    for name in ("restored", "own"):
        (tmp_path / name).rename(directory / name)
    (directory / "own").write_text("newer")
    os.utime(directory / "own", (time.time() + 60,) * 2)
    (directory / "never").write_text("uploaded")
    sync = DirectorySync(buckets, "s3://tests/ck", directory)
    sync.resume()
    sync.finish()

    assert buckets.path("tests", "ck/restored").read_bytes() == b"of another host"
    assert buckets.path("tests", "ck/own").read_bytes() == b"newer"
    assert buckets.path("tests", "ck/never").read_bytes() == b"uploaded"
