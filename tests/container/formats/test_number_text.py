"""Text of numbers: every route gives the same bits, and accepts the same text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byoa.container.errors import DataError
from byoa.container.formats import json_text, number_text, text_csv
from byoa.container.formats.number_text import document, exact, row, table
from byoa.container.media_types import parse_media_type

CELLS = st.one_of(
    st.floats().map(repr),
    st.floats(width=32).map(lambda value: f"{value:.9g}"),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda value: f"{value:+.17e}"),
    st.integers(-(10**25), 10**25).map(str),
    # Between two float32s, where rounding once and rounding twice differ.
    st.integers(2**53, 2**63).map(str),
    st.sampled_from([
        "0", "-0", "+0", "-0.0", "-0e5", "1e400", "-1e400", "1e-400", "5e-324", "2e-324", "1e39",
        "1.17549435e-38", "1e-45", "7e-46", "3.4028235677973366e38", "3.4028236e38", "+1", ".5",
        "5.", "-.5", "1e5", "1E+05", "1e-05", "007", "-00", "1_0", "0x1p3", "nan", "-nan", "inf",
        "Infinity", "-8e18", "-8000000000000000000", "", " ", "1 2", "true", "null", "[1", "1]",
        "{}", "1e", "1.2.3", "--1", "9007199254740993", "9007199791611905", "18446744073709551616",
        "1\x00", "\u0661", "\xa01", "1\x0b", "1\x0c", "NaN(1)",
    ]),
)
PADDED = st.builds(
    "{}{}{}".format, st.sampled_from(["", " ", "\t", "  "]), CELLS, st.sampled_from(["", " ", "\t"])
)
ROWS = st.lists(st.lists(PADDED, min_size=1, max_size=4), min_size=1, max_size=5)


# What a line may be but numbers: more lines, JSON that is no cell, bytes that are no text.
NOISE = st.text("0123456789.,-+eEnaif_\n\r\t\"'[]{}:x \x00\x0b\ufeff\xa0\u0661", max_size=24)
ONE_ROW = st.builds(
    lambda cells, noise, place, tail: b",".join(cells[:place] + noise + cells[place:]) + tail,
    st.lists(PADDED.map(str.encode), max_size=5),
    st.lists(NOISE.map(str.encode) | st.binary(max_size=6), max_size=2), st.integers(0, 5),
    st.sampled_from([b"", b"\n", b"\r\n", b"\r", b"\n\n", b"\n\r", b" \n", b",\n", b"\n "]),
)


AS_WITH_NUMPY_1 = number_text.accelerator() and number_text._own()._replace(quiet=None)


def outcome(body, media=None, label_size=0):
    try:
        batch = text_csv.FORMAT.decode(body, media, label_size=label_size, where="f.csv")
    except DataError as error:
        return str(error)
    labels = None if batch.labels is None else (batch.labels.shape, batch.labels.tobytes())
    for array in batch:
        assert array is None or array.flags.writeable and array.flags.c_contiguous
    return batch.features.shape, batch.features.tobytes(), labels


@pytest.mark.parametrize("block", [1 << 17, 4])
@given(rows=ROWS, equal=st.booleans())
def test_every_route_gives_the_same_bits_and_the_same_errors(block, rows, equal):
    if equal:  # seldom so by chance
        rows = [(row * 4)[:len(rows[0])] for row in rows]
    body = "\n".join(",".join(row) for row in rows).encode()
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_csv, "_BLOCK_BYTES", block)
        found["row"] = outcome(body)
        patch.setattr(text_csv, "row", lambda text: None)
        found["simdjson"] = outcome(body)
        patch.setattr(number_text, "accelerator", lambda: None)
        found["orjson"] = outcome(body)
        patch.setattr(json_text, "accelerator", lambda: None)
        found["json"] = outcome(body)
        patch.setattr(text_csv, "table", lambda text: None)
        found["exact"] = outcome(body)
    assert len(set(found.values())) == 1, found


@given(body=ONE_ROW, label_size=st.integers(0, 2))
def test_a_single_row_is_read_or_refused_as_the_exact_route_does(body, label_size):
    with pytest.MonkeyPatch.context() as patch:
        found = {"row": outcome(body, label_size=label_size)}
        if number_text.accelerator() is not None:
            patch.setattr(number_text, "_own", lambda: AS_WITH_NUMPY_1)
            found["numpy 1"] = outcome(body, label_size=label_size)
        patch.setattr(text_csv, "row", lambda text: None)
        found["table"] = outcome(body, label_size=label_size)
        patch.setattr(text_csv, "table", lambda text: None)
        found["exact"] = outcome(body, label_size=label_size)
    assert len(set(found.values())) == 1, found


@pytest.mark.parametrize("content_type", [None, "text/csv", "text/csv; header=present",
                                          "text/csv; label_size=1", "text/csv; charset=utf-16"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r"])
def test_a_single_row_s_content_type_is_honoured(content_type, end):
    media = content_type and parse_media_type(content_type)
    body = f"1,2{end}".encode("utf-16" if content_type and "utf-16" in content_type else "utf-8")
    found = outcome(body, media)
    if content_type == "text/csv; header=present":
        assert found.startswith("f.csv: there is no record")
    elif content_type == "text/csv; label_size=1":
        assert found == ((1, 1), np.float32(2).tobytes(), ((1,), np.float32(1).tobytes()))
    else:
        assert found == ((1, 2), np.array([1, 2], np.float32).tobytes(), None)


@pytest.mark.parametrize(
    "text",
    [b"", b" ", b"1\n2", b"1\r2", b"1,\n2", b"1,\r2", b"[1", b"1],[2", b"1]", b"1,", b",1", b"1,,2",
     b"nan", b"inf", b"+1", b".5", b"5.", b"1_0", b"0x1", b"true", b"null", b'"1"', b'{"a":1}',
     b"-0", b"1,-0", b"1e400", b"\xef\xbb\xbf1", b"\xff", b"1\x00", b"1\x0b"],
)
def test_what_is_no_single_plain_row_is_left_to_the_other_routes(text):
    assert row(text) is None


def test_a_plain_row_takes_the_route_for_rows():
    pytest.importorskip("simdjson")
    assert row(b" 1, -0.5,1e-05,0,-0.0,18446744073709551615").tolist() == [
        [1, -0.5, np.float32(1e-05), 0, 0, 2.0**64]
    ]
    # Beyond float32, alone or by the sum of the squares, and short of it.
    assert row(b"1e39,-1e39,1").tolist() == [[np.inf, -np.inf, 1]]
    assert row(b"1e38,3e38,1e-46").tolist() == [[np.float32(1e38), np.float32(3e38), 0]]
    assert row(b"1e300,1e300").tolist() == [[np.inf, np.inf]]


@given(st.floats(allow_nan=False).filter(lambda value: value != 0))
def test_a_number_is_read_as_float64_and_then_rounded(value):
    with np.errstate(over="ignore"):
        expected = np.float64(value).astype(np.float32)
    assert text_csv.FORMAT.decode(repr(value).encode()).features[0, 0] == expected


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    "text",
    [b"", b"1,,2", b"1,2\n3", b"1\n2,3", b"1,2\n", b"\n1", b"1\n\n2", b"nan", b"1]", b"[1",
     b"1],[2", b'"1"', b'{"a":1}',
     b"{}", b"null", b"true", b"-0", b"1,-0\n2,3", b"1,2\n-0 ,3", b"1e400",
     # The mark of a line's end, where it would make ragged lines look like equal ones.
     b"1,-8e18,2\n3", b"-8e18", b"-8e18\n-8e18", b"1,-8e18\n2,3", b"-8000000000000000000,1\n2,3"],
)
def test_what_is_no_table_of_plain_numbers_is_left_to_the_exact_route(text):
    found = table(text)
    if found is not None:  # a single line has no mark, and other parsers have none
        lines = [list(map(float, line.split(b","))) for line in text.split(b"\n")]
        np.testing.assert_array_equal(found, np.array(lines, np.float32))


@pytest.mark.usefixtures("parser")
def test_plain_numbers_take_the_fast_route():
    assert table(b"1,-0.5,1e-05\n0,2,-3").tolist() == [[1, -0.5, np.float32(1e-05)], [0, 2, -3]]


@pytest.mark.parametrize("cells", [["1_0"], [b"1_0"], ["\u0661"], ["x"], [b""], [b"1", b"0x1"]])
def test_what_is_no_decimal_number_is_refused(cells):
    with pytest.raises(ValueError):
        exact(cells)


def test_threads_do_not_share_a_parser():
    from concurrent.futures import ThreadPoolExecutor

    texts = [b",".join(b"%d" % (index + step) for step in range(2000)) for index in range(64)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(table, texts * 4))
    for index, each in enumerate(found):
        np.testing.assert_array_equal(each[0], np.arange(2000, dtype=np.float32) + index % 64)


def test_documents_of_numbers_alone_take_the_fast_route():
    pytest.importorskip("simdjson")
    assert document(b'{"instances": [[1, -2.5], [3, 4e5]]}').tolist() == [[1, -2.5], [3, 4e5]]
    assert document(b"[[1],[2],[3]]").tolist() == [[1], [2], [3]]
    assert document(b"[1, 2, 3]").tolist() == [[1, 2, 3]]
