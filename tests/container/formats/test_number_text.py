"""Text of numbers: every route gives the same bits, and accepts the same text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byoa.container.errors import DataError
from byoa.container.formats import json_text, number_text, text_csv
from byoa.container.formats.number_text import exact, table

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


def outcome(body):
    try:
        return text_csv.FORMAT.decode(body).features.tobytes()
    except DataError as error:
        return str(error)


@pytest.mark.parametrize("block", [1 << 17, 4])
@given(rows=ROWS, equal=st.booleans())
def test_every_route_gives_the_same_bits_and_the_same_errors(block, rows, equal):
    if equal:  # seldom so by chance
        rows = [(row * 4)[:len(rows[0])] for row in rows]
    body = "\n".join(",".join(row) for row in rows).encode()
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_csv, "_BLOCK_BYTES", block)
        found["simdjson"] = outcome(body)
        patch.setattr(number_text, "accelerator", lambda: None)
        found["orjson"] = outcome(body)
        patch.setattr(json_text, "accelerator", lambda: None)
        found["json"] = outcome(body)
        patch.setattr(text_csv, "table", lambda text: None)
        found["exact"] = outcome(body)
    assert len(set(found.values())) == 1, found


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
