"""Writing to a pipe whose reader is slow, gone, or never comes."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from byoa.local.control import pipe_end
from byoa.local.control.pipe_end import Ended, PipeEnd, ReaderGone


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    yield reading, writing
    for descriptor in (reading, writing):
        try:
            os.close(descriptor)
        except OSError:
            pass


def spliced(*arguments: Any) -> int:
    raise OSError(errno.EINVAL, "this filesystem cannot")


@pytest.fixture(params=["kernel", "without splice", "splice refused"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has no splice, and some filesystems refuse it."""
    if request.param != "kernel":
        refused = None if request.param == "without splice" else spliced
        monkeypatch.setattr(pipe_end, "_splice", refused)


def test_everything_arrives_in_order(how: None, pipe: tuple[int, int], tmp_path: Path) -> None:
    """Small writes are gathered, files moved by the kernel, and neither overtakes the other."""
    data = os.urandom(3_000_001)
    path = tmp_path / "file"
    path.write_bytes(data)
    found: list[bytes] = []

    def read() -> None:
        while block := os.read(pipe[0], 1 << 16):
            found.append(block)

    reader = threading.Thread(target=read)
    reader.start()
    end, file = PipeEnd(pipe[1], threading.Event()), os.open(path, os.O_RDONLY)
    for _ in range(2):
        end.write(b"head")
        end.copy(file, len(data))
        end.write(b"tail" * 50_000)
    end.flush()
    os.close(file)
    os.close(pipe[1])
    reader.join(20)

    assert b"".join(found) == (b"head" + data + b"tail" * 50_000) * 2


def test_a_reader_that_went_is_told(how: None, pipe: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    end = PipeEnd(pipe[1], threading.Event())
    assert not end.is_abandoned()
    os.close(pipe[0])

    assert end.is_abandoned()
    end.write(b"small")  # gathered as yet
    with pytest.raises(ReaderGone):
        end.flush()
    file = os.open(path, os.O_RDONLY)
    with pytest.raises(ReaderGone):
        end.copy(file, 1)
        end.flush()
    os.close(file)


def test_the_end_of_the_job_ends_a_wait_for_the_reader(
    how: None, pipe: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(5_000_000))
    ended = threading.Event()
    end, file = PipeEnd(pipe[1], ended), os.open(path, os.O_RDONLY)
    threading.Timer(0.2, ended.set).start()
    with pytest.raises(Ended):
        end.copy(file, 5_000_000)
    os.close(file)


def test_a_file_that_became_shorter_is_told(
    how: None, pipe: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    file = os.open(path, os.O_RDONLY)
    with pytest.raises(OSError, match="became shorter"):
        PipeEnd(pipe[1], threading.Event()).copy(file, 4)
    os.close(file)
