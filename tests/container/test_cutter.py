"""The cutter: pieces that end where records end, however the bytes come."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byoa.container import cutter as module
from byoa.container.cutter import Cutter, everything, marked
from byoa.container.errors import DataError


def lines(data):
    return data.rfind(b"\n") + 1


def cut(data, size, boundary=lines):
    return Cutter(io.BytesIO(data), boundary, size, "train/a")


@given(st.lists(st.binary(max_size=9).map(lambda b: b.replace(b"\n", b"") or b"x")),
       st.binary(max_size=5).map(lambda b: b.replace(b"\n", b"x")), st.integers(1, 40))
def test_pieces_are_the_stream_and_end_with_lines(texts, tail, size):
    data = b"".join(text + b"\n" for text in texts) + tail
    pieces = list(cut(data, size).pieces())
    assert b"".join(piece for _, piece in pieces) == data
    assert [offset for offset, _ in pieces] == [
        sum(len(piece) for _, piece in pieces[:number]) for number in range(len(pieces))
    ]
    longest = max(map(len, texts), default=0) + 1
    for _, piece in pieces[:-1]:
        assert piece.endswith(b"\n")
        assert len(piece) <= max(size, 2 * longest)


def test_where_it_cuts_does_not_depend_on_how_the_bytes_came():
    class Slow(io.BytesIO):
        def read(self, size=-1):
            return b"".join(io.BytesIO.read(self, 1) for _ in range(size))

    data = b"".join(b"x" * (n % 13) + b"y\n" for n in range(200))
    assert list(Cutter(Slow(data), lines, 50, "").pieces()) == list(cut(data, 50).pieces())


def test_the_head_is_the_first_record_and_not_in_the_pieces():
    reader = cut(b"name,other\n1,2\n3,4\n", 4)
    assert reader.head() == b"name,other\n"
    assert list(reader.pieces()) == [(11, b"1,2\n3,4\n")]
    assert cut(b"name", 2).head() == b"name"
    assert cut(b"", 2).head() == b""


@pytest.mark.parametrize("size", [3, 100, 10_000])
def test_the_first_record_is_the_one_that_others_are_compared_with(size):
    reader = cut(b"first record\n" + b"other\n" * 1000, size)
    next(reader.pieces())
    assert reader.first().startswith(b"first record\n")
    assert len(reader.first()) <= 64


def test_blank_lines_stay_with_what_follows_them():
    # A fault in the middle, none at the end: which it is, is known with what is behind them.
    pieces = [piece for _, piece in cut(b"1\n\n\n\n2\n3\n\n\n", 4).pieces()]
    assert pieces[0] == b"1\n" and pieces[-1] == b"\n\n"
    assert not any(piece.isspace() for piece in pieces[:-1])


def test_a_part_of_a_piece_ends_with_a_record_too():
    reader = cut(b"", 1)
    assert [reader.end(b"12\n34\n56\n", limit) for limit in (0, 2, 3, 5, 6, 9)] == [
        0, 0, 3, 3, 6, 9
    ]


def test_a_record_without_an_end_is_refused_with_its_place(monkeypatch):
    monkeypatch.setattr(module, "RECORD_LIMIT_BYTES", 100)
    reader = cut(b"1\n" + b"x" * 1000, 10)
    with pytest.raises(DataError, match=r"byte 2, counted from 0") as caught:
        list(reader.pieces())
    assert (caught.value.code, caught.value.where) == ("RECORD_TOO_WIDE", "train/a")


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 35])
def test_everything_is_all_that_is_left(monkeypatch, size):
    monkeypatch.setattr(module, "_CHUNK_BYTES", 10)
    assert bytes(everything(io.BytesIO(b"x" * size))) == b"x" * size


def test_a_byte_order_mark_is_seen_in_a_view_as_well():
    assert marked(b"\xef\xbb\xbf1") and marked(memoryview(b"\xef\xbb\xbf1"))
    assert not marked(b"1\xef\xbb\xbf") and not marked(memoryview(b""))
