"""Where a stream of concatenated files may be cut: format by format, and all of them by chunks."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byoa.container.errors import DataError
from byoa.container.formats import json_lines, npy, recordio, recordio_protobuf, registry, text_csv
from byoa.container.media_types import UnsupportedMediaType, parse_media_type


def boundary(content_type, data):
    media = parse_media_type(content_type)
    return registry.find(media).boundary(data, media)


@pytest.mark.parametrize(
    ("piece", "whole"),
    [
        (b"", 0),
        (b"1,2", 0),
        (b"1,2\n", 4),
        (b"1,2\n3", 4),
        (b"1,2\r\n3,4\r\n5", 10),
        (b"1,2\r3,4\r5", 8),
        (b"1,2\r", 0),  # perhaps half of a CRLF
        (b"1,2\n3,4\r", 4),
        (b'"1",2\n3', 6),
        (b'1,"2\n3', 0),
        (b'1,2\n3,"4\n\n5', 4),
        (b'1,2\n3,"4\n\r\n5",6\n"7\n', 16),
        (b'1\n"say ""x""\n",2\n"', 17),
        (b'"\n"\n"\n"\n"\n', 8),
    ],
)
def test_csv_is_cut_behind_the_last_line_end_that_is_in_no_quoted_cell(piece, whole):
    assert boundary("text/csv", piece) == boundary("text/csv", memoryview(piece)) == whole


@given(st.text('1,"\n\r', max_size=30))
def test_a_cut_through_csv_parts_no_record(text):
    end = text_csv.FORMAT.boundary(text.encode())

    def rows(part):
        return list(csv.reader(io.StringIO(part, newline="")))

    # Quotes inside of a bare cell are text to Python's reader, and refused by the format.
    if not any('"' in cell for row in rows(text) for cell in row):
        assert rows(text[:end]) + rows(text[end:]) == rows(text)


def test_json_lines_are_cut_at_line_feeds_whatever_a_string_holds():
    line = b'{"features": [1], "label": 2}\n'
    assert boundary("application/jsonlines", line * 2 + b'{"fea') == 2 * len(line)
    assert boundary("application/jsonlines", b'["\r') == 0


@pytest.mark.parametrize("content_type", ["text/csv", "application/jsonlines"])
@pytest.mark.parametrize(
    ("charset", "whole"),
    [("UTF8", 2), ("us-ascii", 2), ("latin-1", 2), ("windows-1252", 2), ("utf-16", None),
     ("utf-32-le", None), ("iso2022_jp", None), ("cp037", None)],
)
def test_a_charset_that_hides_its_line_ends_cannot_be_cut(content_type, charset, whole):
    assert boundary(f"{content_type}; charset={charset}", b"1\n2") == whole


def test_an_unknown_charset_is_refused():
    with pytest.raises(UnsupportedMediaType):
        boundary("text/csv; charset=klingon", b"1\n")


def test_csv_with_a_header_cannot_be_cut_because_each_file_has_one():
    assert boundary("text/csv; header=present", b"a,b\n1,2\n") is None
    assert boundary("text/csv; header=absent", b"1,2\n") == 4


def test_a_json_document_is_no_stream():
    assert boundary("application/json", b"[[1]]") is None


FRAMES = [recordio.frame(b"abcd"), recordio.frame(b"efgh"), recordio.frame(b"i" * 9)]


def part(flag, payload):
    word = flag << 29 | len(payload)
    return recordio.MAGIC + word.to_bytes(4, "little") + payload + bytes(-len(payload) % 4)


@pytest.mark.parametrize(
    ("frames", "rest"),
    [
        ([], b""),
        ([], FRAMES[0][:7]),
        ([], FRAMES[0][:-1]),
        (FRAMES[:1], b""),
        (FRAMES[:2], FRAMES[2][:1]),
        (FRAMES, FRAMES[2][:-1]),
        ([*FRAMES, FRAMES[0]], FRAMES[0][:9]),
        (FRAMES, part(1, b"a") + part(2, b"b")),
        ([*FRAMES, part(1, b"a"), part(2, b"b"), part(3, b"c")], FRAMES[0][:3]),
        ([part(1, b"a"), part(3, b"b")], part(1, b"c")),
    ],
)
def test_recordio_is_cut_behind_the_last_whole_record(frames, rest):
    # TRAIN-121
    whole = b"".join(frames)
    for data in (whole + rest, memoryview(whole + rest)):
        assert recordio_protobuf.FORMAT.boundary(data) == len(whole)


ARRAYS = [npy.FORMAT.encode(np.ones(shape, np.float32)) for shape in ((2, 3), (1, 3), (4, 3))]


@pytest.mark.parametrize(
    ("arrays", "rest"),
    [(0, b""), (0, ARRAYS[0][:5]), (0, ARRAYS[0][:11]), (0, ARRAYS[0][:50]), (0, ARRAYS[0][:-1]),
     (1, b""), (2, ARRAYS[0][:3]), (3, ARRAYS[1][:-1])],
)
def test_npy_is_cut_behind_the_last_whole_array(arrays, rest):
    whole = b"".join(ARRAYS[:arrays])
    for data in (whole + rest, memoryview(whole + rest)):
        assert npy.FORMAT.boundary(data) == len(whole)


@pytest.mark.parametrize(
    ("format_", "data"),
    [
        (recordio_protobuf.FORMAT, b"not a frame"),
        (recordio_protobuf.FORMAT, FRAMES[0] + b"not a frame"),
        (npy.FORMAT, b"no array"),
        (npy.FORMAT, ARRAYS[0] + b"no array, that is certain"),
        (npy.FORMAT, b"\x93NUMPY\x09\x00\x00\x00\x00\x00"),
    ],
)
def test_what_is_no_record_is_handed_out_so_that_decode_names_it(format_, data):
    assert format_.boundary(data) == len(data)
    with pytest.raises(DataError) as caught:
        format_.decode(data)
    assert caught.value.code == "BODY_MALFORMED"


def stream(content_type, rows):
    """`rows` as two files, one after the other."""
    half = len(rows) // 2
    if content_type == "application/x-npy":
        return npy.FORMAT.encode(rows[:half]) + npy.FORMAT.encode(rows[half:])
    if content_type == "application/x-recordio-protobuf":
        frames = np.frombuffer(recordio_protobuf.FORMAT.encode(rows), np.uint8)
        frames = frames.reshape(len(rows), -1).copy()
        frames[:, recordio.HEADER_BYTES] = 0x0A  # features in place of label
        return frames.tobytes()
    format_ = json_lines.FORMAT if content_type == "application/jsonlines" else text_csv.FORMAT
    return format_.encode(rows).replace(b"\n", b"\r\n")


@pytest.mark.parametrize(
    "content_type",
    ["text/csv", "application/jsonlines", "application/x-recordio-protobuf", "application/x-npy"],
)
@given(chunk=st.integers(1, 90))
def test_a_stream_that_comes_in_chunks_gives_every_record_once(content_type, chunk):
    rows = np.arange(33, dtype=np.float32).reshape(11, 3)
    format_, media = registry.find(content_type), parse_media_type(content_type)
    data = stream(content_type, rows)
    found, rest = [], b""
    for start in range(0, len(data), chunk):
        rest += data[start:start + chunk]
        end = format_.boundary(rest, media)
        if end:
            found.append(format_.decode(rest[:end], media).features)
            rest = rest[end:]
    if rest:
        found.append(format_.decode(rest, media).features)
    np.testing.assert_array_equal(np.concatenate(found), rows)
