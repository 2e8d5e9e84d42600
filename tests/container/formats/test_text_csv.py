"""CSV: what is read, what is refused with record and column, and what is written."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from byoa.container.errors import AlgorithmError, DataError
from byoa.container.formats import text_csv
from byoa.container.formats.text_csv import FORMAT
from byoa.container.media_types import UnsupportedMediaType, parse_media_type

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
MATRICES = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2), elements=FLOATS)
pytestmark = pytest.mark.usefixtures("parser")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"1,2\n3,4\n", [[1, 2], [3, 4]]),
        (b"1,2\n3,4", [[1, 2], [3, 4]]),
        (b"1,2\r\n3,4\r\n", [[1, 2], [3, 4]]),
        (b"1,2\r3,4\r", [[1, 2], [3, 4]]),
        (b"1,2\n\n\n", [[1, 2]]),
        (b"7", [[7]]),
        (b"7\n8\n", [[7], [8]]),
        (b" 1 , 2\t\n-3,+4", [[1, 2], [-3, 4]]),
        (b".5,5.,1e3,-1E-2,007", [[0.5, 5, 1000, -0.01, 7]]),
        (b'"1","2"\r\n3,"4"\r\n', [[1, 2], [3, 4]]),
        (b'"1\n",2', [[1, 2]]),
        (b"\xef\xbb\xbf1,2\n", [[1, 2]]),
        (b"16777217,9007199254740993", [[16777216, 9007199254740992]]),
        (b"123456789012345678901234567890,1", [[1.2345679e29, 1]]),
        (b"18446744073709551615,1" + b"0" * 400, [[2.0**64, np.inf]]),
    ],
)
def test_records_are_lines_of_numbers(decode, body, expected):
    features, labels = decode("text/csv", body)
    assert features.dtype == np.float32 and features.flags.c_contiguous and features.flags.writeable
    assert labels is None
    np.testing.assert_array_equal(features, np.array(expected, dtype=np.float32))


def test_nan_and_infinity_are_kept(decode):
    features, _ = decode("text/csv", b"1,nan,NaN\ninf,-Infinity,1e400\n")
    assert np.isnan(features[0, 1:]).all()
    assert features[1].tolist() == [np.inf, -np.inf, np.inf]


def test_a_number_beyond_float32_is_infinite_without_a_warning(decode):
    assert decode("text/csv", b"1e39,-1e39").features.tolist() == [[np.inf, -np.inf]]


@pytest.mark.parametrize(
    ("body", "code", "where", "message"),
    [
        (b"1,2\n3,4\n5,abc", "RECORD_NOT_A_NUMBER", "record 3, column 2", "'abc'"),
        (b"1,2\n3,", "RECORD_NOT_A_NUMBER", "record 2, column 2", "empty"),
        (b"1, ,3", "RECORD_NOT_A_NUMBER", "record 1, column 2", "empty"),
        (b'1,2\n"3",x', "RECORD_NOT_A_NUMBER", "record 2, column 2", "'x'"),
        (b'1,2\n"",4', "RECORD_NOT_A_NUMBER", "record 2, column 1", "empty"),
        (b"1_000,2", "RECORD_NOT_A_NUMBER", "record 1, column 1", "'1_000'"),
        ('"١",2'.encode(), "RECORD_NOT_A_NUMBER", "record 1, column 1", "'١'"),
        (b"true,2", "RECORD_NOT_A_NUMBER", "record 1, column 1", "'true'"),
        (b"1,null", "RECORD_NOT_A_NUMBER", "record 1, column 2", "'null'"),
        (b"1,2\n[3,4]", "RECORD_NOT_A_NUMBER", "record 2, column 1", "'[3'"),
        (b"1],[2", "RECORD_NOT_A_NUMBER", "record 1, column 1", "'1]'"),
        (b"0x10,2", "RECORD_NOT_A_NUMBER", "record 1, column 1", "'0x10'"),
        (b"1,2\n3,\xff", "RECORD_NOT_A_NUMBER", "record 2, column 2", "not a number"),
        (b"1,2\n3,4\n5", "RECORD_WIDTH", "record 3", "has 1 column, expected 2"),
        (b"1,2\n3,4,5", "RECORD_WIDTH", "record 2", "has 3 columns, expected 2"),
        (b"1,2,3\n4\n5,6", "RECORD_WIDTH", "record 2", "has 1 column, expected 3"),
        (b"1,2\n\n3,4", "RECORD_WIDTH", "record 2", "the line is empty"),
        (b"\n1,2", "RECORD_WIDTH", "record 1", "the line is empty"),
        (b'"1","2"\n\n"3","4"', "RECORD_WIDTH", "record 2", "the line is empty"),
        (b'1,"2\n3,4', "BODY_MALFORMED", "record 1", "quotes"),
        (b'"1"2,3', "BODY_MALFORMED", "record 1", "quotes"),
        (b'1,2\n"\xff",1', "BODY_MALFORMED", "record 2", "UTF-8"),
        (b"", "BODY_EMPTY", None, "no record"),
        (b"\r\n\n", "BODY_EMPTY", None, "no record"),
    ],
)
def test_a_fault_is_named_with_record_and_column(decode, body, code, where, message):
    with pytest.raises(DataError) as caught:
        decode("text/csv", body)
    assert (caught.value.code, caught.value.where) == (code, where)
    assert message in caught.value.message


def test_an_empty_cell_s_cure_is_none_that_the_checks_refuse(decode):
    """`nan` decodes, and whoever needs finite values refuses it: it is not promised."""
    with pytest.raises(DataError) as caught:
        decode("text/csv", b"1,2\n3,")
    assert caught.value.expected == "a decimal number"
    assert "nan" not in str(caught.value)


def test_the_place_begins_with_the_file(decode):
    with pytest.raises(DataError) as caught:
        decode("text/csv", b"1,2\n3,x", where="train/part-2.csv")
    assert str(caught.value).startswith(
        "train/part-2.csv record 2, column 2: 'x' is not a number"
    )


def test_a_header_is_passed_over_when_the_content_type_says_so(decode):
    body = b"a,b\n1,2\n"
    assert decode("text/csv; header=present", body).features.tolist() == [[1, 2]]
    assert decode('TEXT/CSV; Header="Present"', body).features.tolist() == [[1, 2]]
    with pytest.raises(DataError) as caught:
        decode("text/csv; header=absent", body)
    assert "header=present" in (caught.value.remedy or "")


@pytest.mark.parametrize("head", [b'"a","b"', b'"a\nb","c,d"', b'"say ""x""",b'])
def test_a_header_may_be_quoted(decode, head):
    assert decode("text/csv;header=present", head + b"\r\n1,2").features.tolist() == [[1, 2]]


@pytest.mark.parametrize("body", [b"a,b\n", b"a,b", b'"a"', b'"a"\r\n'])
def test_a_header_alone_is_an_empty_body(decode, body):
    with pytest.raises(DataError) as caught:
        decode("text/csv;header=present", body)
    assert caught.value.code == "BODY_EMPTY"


def test_records_are_counted_behind_the_header(decode):
    with pytest.raises(DataError) as caught:
        decode("text/csv;header=present", b"a,b\n1,2\n3,x")
    assert caught.value.where == "record 2, column 2"


def test_labels_are_the_leading_columns(decode):
    # TRAIN-125
    body = b"1,2,3\n4,5,6"
    features, labels = decode("text/csv", body, label_size=1)
    assert (features.tolist(), labels.tolist()) == ([[2, 3], [5, 6]], [1, 4])
    features, labels = decode("text/csv;label_size=2", body)
    assert (features.tolist(), labels.tolist()) == ([[3], [6]], [[1, 2], [4, 5]])
    features, labels = decode("text/csv;label_size=0", body, label_size=1)
    assert features.shape == (2, 3) and labels is None
    assert features.flags.c_contiguous


def test_labels_that_leave_no_feature_are_refused(decode):
    with pytest.raises(DataError) as caught:
        decode("text/csv", b"1\n2", label_size=1)
    assert caught.value.code == "RECORD_WIDTH"
    assert "label_size=0" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    "content_type",
    ["text/csv;header=maybe", "text/csv;label_size=-1", "text/csv;label_size=x",
     "text/csv;charset=klingon", "text/csv;charset=zlib"],
)
def test_a_parameter_that_cannot_be_honoured_is_refused(decode, content_type):
    with pytest.raises(UnsupportedMediaType) as caught:
        decode(content_type, b"1,2")
    assert caught.value.code == "MEDIA_TYPE_UNSUPPORTED"


@pytest.mark.parametrize("charset", ["utf-8", "US-ASCII", "utf-16", "latin-1", "utf-16-le"])
def test_the_charset_is_honoured(decode, charset):
    body = "1,2\n3,4".encode(charset)
    assert decode(f"text/csv; charset={charset}", body).features.tolist() == [[1, 2], [3, 4]]


def test_a_body_in_another_charset_than_it_says_is_malformed(decode):
    with pytest.raises(DataError) as caught:
        decode("text/csv;charset=utf-16-le", b"1,2")
    assert caught.value.code == "BODY_MALFORMED"


@pytest.mark.parametrize("view", [bytes, memoryview])
def test_bytes_and_views_are_alike(view):
    assert FORMAT.decode(view(b"1,2")).features.tolist() == [[1, 2]]


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(text_csv, "_BLOCK_BYTES", 10)
    monkeypatch.setattr(text_csv, "_ROW_BYTES", 10)


@pytest.mark.usefixtures("small_blocks")
class TestBlocks:
    def test_large_text_is_read_in_blocks(self, decode):
        rows = np.arange(600, dtype=np.float32).reshape(-1, 3)
        body = "".join(",".join(map(str, row)) + "\r\n" for row in rows.tolist()).encode()
        np.testing.assert_array_equal(decode("text/csv", body).features, rows)

    def test_a_block_with_nan_takes_the_exact_route_alone(self, decode):
        features, _ = decode("text/csv", b"1,2\n" * 10 + b"nan,+2\n" + b"1,2\n" * 10)
        assert features.shape == (21, 2) and np.isnan(features[10, 0]) and features[10, 1] == 2

    @pytest.mark.parametrize(
        ("line", "where"),
        [(b"1,x\n", "record 11, column 2"), (b"1\n", "record 11"), (b"\n", "record 11")],
    )
    def test_faults_count_the_records_of_earlier_blocks(self, decode, line, where):
        with pytest.raises(DataError) as caught:
            decode("text/csv", b"1,2\n" * 10 + line + b"1,2\n" * 10)
        assert caught.value.where == where

    def test_a_block_of_another_width_is_refused(self, decode):
        with pytest.raises(DataError) as caught:
            decode("text/csv", b"1,2\n" * 9 + b"1,2,3\n" * 9)
        assert (caught.value.code, caught.value.where) == ("RECORD_WIDTH", "record 10")


@pytest.mark.parametrize(
    ("predictions", "expected"),
    [
        (np.array([0.1, 2, 1e-7], np.float32), b"0.1\n2.0\n1e-7\n"),
        (np.array([3, 1]), b"3\n1\n"),
        (np.array([True, False]), b"1\n0\n"),
        (np.array([[0.25, 0.75], [1, 0]], np.float32), b"0.25,0.75\n1.0,0.0\n"),
        (np.array([[np.nan, np.inf]], np.float64), b"nan,inf\n"),
        ([1, 2.5, "a,b", None, True], b'1\n2.5\n"a,b"\n\n1\n'),
        ([[1, 2], [3, 4]], b"1,2\n3,4\n"),
        ([np.float32(0.1), np.array([1, 2]), np.array(["x"])], b"0.1\n1,2\nx\n"),
        ([{"a": 1, "b": [2, 3]}], b"1,2,3\n"),
        (['say "x"\n'], b'"say ""x""\n"\n'),
        (np.zeros((2, 2, 2), np.int8), b"0,0,0,0\n0,0,0,0\n"),
        (np.zeros((0, 3)), b""),
        (np.array(["cat", "dog"]), b"cat\ndog\n"),
        ({"label": np.array([3, 1]), "score": np.array([[0.1, 0.9], [0.5, 0.5]], np.float32)},
         b"3,0.1,0.9\n1,0.5,0.5\n"),
    ],
)
def test_answers_are_one_line_a_record(parser, predictions, expected):
    answer = FORMAT.encode(predictions)
    if parser == "json":  # the same numbers; the standard library writes 1e-07
        answer = answer.replace(b"1e-07", b"1e-7")
    assert answer == expected


def test_an_answer_names_its_columns_when_asked():
    media = parse_media_type("text/csv; header=present")
    columns = {"label": [3], "score": np.array([[0.5, 0.25]]), "top": [[1, 2]]}
    assert FORMAT.encode(columns, media) == (
        b"label,score_0,score_1,top_0,top_1\n3,0.5,0.25,1,2\n"
    )
    assert FORMAT.encode(np.array([1]), media) == b"prediction\n1\n"


@pytest.mark.parametrize("value", [object(), b"bytes", "\ud800", 1j])
def test_a_prediction_that_is_no_text_or_number_is_the_algorithms_error(value):
    with pytest.raises(AlgorithmError) as caught:
        FORMAT.encode([value])
    assert caught.value.code == "PREDICTION_NOT_ENCODABLE"


@given(MATRICES)
def test_what_is_written_is_read_back_to_the_last_bit(matrix):
    np.testing.assert_array_equal(FORMAT.decode(FORMAT.encode(matrix)).features, matrix)


@given(MATRICES)
def test_a_batch_is_read_as_its_single_records(matrix):
    body = FORMAT.encode(matrix)
    singles = [FORMAT.decode(line).features for line in body.splitlines()]
    np.testing.assert_array_equal(FORMAT.decode(body).features, np.concatenate(singles))


@given(arrays.arrays(np.float64, (3, 2), elements=st.floats(allow_nan=True)), st.data())
def test_the_fast_and_the_exact_route_agree(matrix, data):
    texts = [
        [data.draw(st.sampled_from(["{!r}", " {!r}", "{:+.17e}", "{:g}"])).format(float(value))
         for value in row]
        for row in matrix
    ]
    body = "\n".join(",".join(row) for row in texts).encode()
    with np.errstate(over="ignore"):
        expected = np.array([[float(cell) for cell in row] for row in texts]).astype(np.float32)
    np.testing.assert_array_equal(FORMAT.decode(body).features, expected)


CSV_LIKE = st.text("0123456789.,-+eEnaif\n\r\" []", max_size=40).map(str.encode)


@given(st.binary(max_size=60) | CSV_LIKE)
def test_any_bytes_are_read_or_refused_with_a_code(body):
    try:
        features = FORMAT.decode(body).features
    except DataError as error:
        assert error.code in {
            "BODY_EMPTY", "BODY_MALFORMED", "RECORD_NOT_A_NUMBER", "RECORD_WIDTH"
        }
    else:
        rows = [row for row in csv.reader(io.StringIO(body.decode(), newline=""))]
        while rows and not rows[-1]:
            rows.pop()
        assert features.shape == (len(rows), len(rows[0]))
