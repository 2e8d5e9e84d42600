"""Frames and gunzip of a Pipe channel, held against byoa's reader of frames and Python's gzip."""

from __future__ import annotations

import gzip
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from byoa.container.formats.recordio import frame
from byoa.local.control import record_wrapping
from byoa.local.control.record_wrapping import NotGzip, gunzip, header, padding


@pytest.fixture
def gunzipped(tmp_path: Path) -> Any:
    def decompress(data: bytes) -> bytes:
        path = tmp_path / "file.gz"
        path.write_bytes(data)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return b"".join(_bounded(gunzip(descriptor)))
        finally:
            os.close(descriptor)

    return decompress


def _bounded(blocks: Iterator[bytes]) -> Iterator[bytes]:
    for block in blocks:
        assert 0 < len(block) <= record_wrapping.BLOCK_BYTES
        yield block


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 1000])
def test_a_frame_is_the_one_that_readers_expect(length: int) -> None:
    """TRAIN-121, FIX-08."""
    payload = bytes(range(length % 251)) + bytes(length - length % 251)

    assert header(length) + payload + padding(length) == frame(payload)
    assert (header(3) + b"abc" + padding(3)).hex() == "0a23d7ce0300000061626300"


@pytest.mark.parametrize("length", [0, 1, 1 << 18, (1 << 20) + 7])
@pytest.mark.parametrize("compressible", [True, False])
def test_a_file_is_what_gzip_says_it_is(gunzipped: Any, length: int, compressible: bool) -> None:
    data = bytes(length) if compressible else random.Random(1).randbytes(length)

    assert gunzipped(gzip.compress(data)) == data


@pytest.mark.parametrize("block", [1, 7, 1 << 18])
def test_several_files_in_a_row_and_zeros_between_them(
    gunzipped: Any, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """As gzip itself reads them, wherever a block ends."""
    monkeypatch.setattr(record_wrapping, "BLOCK_BYTES", block)
    one, empty, two = map(gzip.compress, (b"one", b"", b"two"))
    data = one + empty + bytes(9) + two + bytes(512)

    assert gunzipped(data) == b"onetwo" == gzip.decompress(data)


@pytest.mark.parametrize(
    "data",
    [b"\0" + gzip.compress(b"one"), gzip.compress(b"one") + b"more", gzip.compress(b"one")[:-1],
     gzip.compress(b"one")[:5], b"x", gzip.compress(b"one") + gzip.compress(b"two")[:4]],
    ids=["zero first", "garbage after", "short", "header cut", "no gzip", "second cut"],
)
def test_what_is_no_whole_gzip_file_is_told(gunzipped: Any, data: bytes) -> None:
    with pytest.raises(NotGzip):
        gunzipped(data)
