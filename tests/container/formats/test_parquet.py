"""Parquet: what pyarrow and pandas write is read; what is no number is named by its column."""

from __future__ import annotations

import decimal
import io
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from byoa.container.errors import AlgorithmError, DataError
from byoa.container.formats.limits import Limits
from byoa.container.formats.parquet import FORMAT
from byoa.container.media_types import UnsupportedMediaType

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

# A float32 column x of 1.5 and null.
GOLDEN = bytes.fromhex(
    "504152311500150415142c15041500150615061c0000000200000003010000c03f1504192c350018067363"
    "68656d6115020015082502180178001604191c191c26001c15081925060019180178150016041"
    "63a163a2608491c150015001502003c290619260202000000163a16042608163a002820706172"
    "717565742d6370702d6172726f772076657273696f6e2032362e302e31191c1c0000007a00000050415231"
)


def test_the_golden_bytes_are_read():
    np.testing.assert_array_equal(FORMAT.decode(GOLDEN).features, [[1.5], [np.nan]])


def written(columns, **options):
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "gzip"}, {"compression": "zstd"}, {"compression": "none"},
     {"row_group_size": 3}, {"use_dictionary": False}, {"version": "1.0"},
     {"data_page_version": "2.0"}],
)
def test_rows_are_records_and_columns_are_features(options):
    table = np.arange(40, dtype=np.float32).reshape(10, 4)
    body = written({f"c{index}": column for index, column in enumerate(table.T)}, **options)
    for view in (body, memoryview(body)):
        features, labels = FORMAT.decode(view)
        assert features.tolist() == table.tolist() and labels is None
        assert features.dtype == np.float32
        assert features.flags.c_contiguous and features.flags.writeable


def test_every_kind_of_number_is_read():
    decimals = [decimal.Decimal("1.25"), decimal.Decimal("-3")]
    body = written({
        "bool": [True, False],
        "int8": pa.array([-1, 2], pa.int8()),
        "uint64": pa.array([2**64 - 1, 2], pa.uint64()),
        "int64": pa.array([2**53 + 1, 2], pa.int64()),
        "float16": pa.array(np.array([0.5, 2], np.float16)),
        "double": [1e39, 1e-50],
        "decimal128": decimals,
        "decimal256": pa.array(decimals, pa.decimal256(60, 3)),
        "dictionary": pa.array([7, 8]).dictionary_encode(),
    })
    assert FORMAT.decode(body).features.tolist() == [
        [1, -1, 2.0**64, 2.0**53, 0.5, np.inf, 1.25, 1.25, 7],
        [0, 2, 2, 2, 2, 0, -3, -3, 8],
    ]


def test_null_is_a_missing_value_in_every_kind():
    body = written({
        "bool": [True, None], "int64": [None, 2**60], "float32": pa.array([1, None], pa.float32()),
        "decimal": [decimal.Decimal("1.5"), None], "null": pa.nulls(2), "nan": [float("nan"), 1],
    })
    expected = [[1, np.nan, 1, 1.5, np.nan, np.nan], [np.nan, 2**60, np.nan, np.nan, np.nan, 1]]
    np.testing.assert_array_equal(FORMAT.decode(body).features, np.array(expected, np.float32))


def test_the_leading_columns_can_be_labels(decode):
    # TRAIN-125
    body = written({"y": [1, 0], "a": [2, 3], "b": [4, 5]})
    assert decode("application/x-parquet", body, label_size=1).labels.tolist() == [1, 0]
    batch = decode("application/vnd.apache.parquet; label_size=2", body, label_size=1)
    assert batch.features.tolist() == [[4], [5]] and batch.labels.tolist() == [[1, 2], [0, 3]]
    assert decode("application/x-parquet; label_size=0", body, label_size=1).labels is None


def test_what_pandas_writes_is_read_unless_its_index_is_a_column():
    pandas = pytest.importorskip("pandas")

    def body(rows, **options):
        stream = io.BytesIO()
        frame = pandas.DataFrame({"a": [1.5, None], "b": [3, 4]}, index=rows)
        frame.to_parquet(stream, engine="pyarrow", **options)
        return stream.getvalue()

    for whole in (body(None), body([7, 9], index=False)):
        np.testing.assert_array_equal(
            FORMAT.decode(whole).features, np.array([[1.5, 3], [np.nan, 4]], np.float32)
        )
    for index in ([7, 2], pandas.Index([7, 2], name="id")):
        with pytest.raises(DataError) as caught:
            FORMAT.decode(body(index), where="train/a.parquet")
        assert (caught.value.code, caught.value.where) == (
            "COLUMN_UNEXPECTED", "train/a.parquet column 3"
        )
        assert "index=False" in caught.value.remedy


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ({"a": [1], "city": ["Bern"]}, "string"),
        ({"a": [1], "city": pa.array(["Bern"]).dictionary_encode()}, "dictionary"),
        ({"a": [1], "city": pa.array([0], pa.timestamp("ms"))}, "timestamp"),
        ({"a": [1], "city": [[1.5]]}, "list"),
        ({"a": [1], "city": [{"x": 1}]}, "struct"),
        ({"a": [1], "city": [b"Bern"]}, "binary"),
    ],
)
def test_a_column_that_is_no_number_is_named(columns, kind):
    with pytest.raises(DataError) as caught:
        FORMAT.decode(written(columns), where="train/a.parquet")
    assert (caught.value.code, caught.value.where) == (
        "RECORD_NOT_A_NUMBER", "train/a.parquet column 2"
    )
    assert "'city'" in caught.value.message and kind in caught.value.message
    assert "numbers" in caught.value.remedy


WHOLE = written({"a": np.arange(1000.0), "b": np.arange(1000)})


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"", "BODY_EMPTY", "no record"),
        (written({"a": pa.array([], pa.int64())}), "BODY_EMPTY", "no record"),
        (b"PAR1", "BODY_MALFORMED", "4 bytes"),
        (b"1,2,3\n" * 9, "BODY_MALFORMED", "magic bytes"),
        (WHOLE[:-1], "BODY_MALFORMED", "cannot be read"),
        (WHOLE[:100] + b"\xff" * 400 + WHOLE[500:], "BODY_MALFORMED", "cannot be read"),
    ],
)
def test_a_file_that_is_no_table_is_refused(body, code, message):
    with pytest.raises(DataError) as caught:
        FORMAT.decode(body, where="train/a.parquet")
    assert (caught.value.code, caught.value.where) == (code, "train/a.parquet")
    assert message in caught.value.message


def test_a_small_file_of_very_many_equal_rows_is_refused_before_it_is_read():
    body = written({name: np.zeros(600_000, np.int8) for name in "ab"})
    assert len(body) < 20_000
    with pytest.raises(DataError) as caught:
        FORMAT.decode(body, limits=Limits(values=1_000_000))
    assert caught.value.code == "VALUES_TOO_MANY"
    assert "600000 records of 2 columns" in caught.value.message


def test_without_pyarrow_the_error_is_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for call in (lambda: FORMAT.decode(WHOLE, where="train/a.parquet"), lambda: FORMAT.encode([1])):
        with pytest.raises(UnsupportedMediaType) as caught:
            call()
        assert caught.value.code == "MEDIA_TYPE_NOT_INSTALLED"
        assert "pip install 'byoa[parquet]'" in caught.value.remedy
        assert "pyarrow" in caught.value.message


@pytest.mark.parametrize(
    ("predictions", "columns"),
    [
        (np.array([3, 1]), {"prediction": [3, 1]}),
        (np.array([[0.25, 0.75]], np.float32), {"prediction_0": [0.25], "prediction_1": [0.75]}),
        ({"label": ["cat"], "score": np.array([[0.5, 0.5]])},
         {"label": ["cat"], "score_0": [0.5], "score_1": [0.5]}),
        ([[1, 2], [3]], {"prediction": [[1, 2], [3]]}),
        ([True, None], {"prediction": [True, None]}),
        (np.zeros((1, 2, 2), np.int8), {f"prediction_{index}": [0] for index in range(4)}),
    ],
)
def test_an_answer_has_a_column_for_each_of_the_predictions(predictions, columns):
    assert pq.read_table(io.BytesIO(FORMAT.encode(predictions))).to_pydict() == columns


@pytest.mark.parametrize("wrong", [[1, "a"], [object()], ["\ud800"], [2**70], [{"a": 1}, 3]])
def test_an_answer_that_is_no_column_is_the_algorithms_error(wrong):
    with pytest.raises(AlgorithmError) as caught:
        FORMAT.encode(wrong)
    assert caught.value.code == "PREDICTION_NOT_ENCODABLE"


@given(
    arrays.arrays(
        st.sampled_from([np.float32, np.int32, np.bool_]),
        arrays.array_shapes(min_dims=2, max_dims=2),
    )
)
def test_what_is_written_is_read_back(matrix):
    np.testing.assert_array_equal(
        FORMAT.decode(FORMAT.encode(matrix)).features, matrix.astype(np.float32)
    )


@given(st.binary(max_size=60), st.integers(0, 600))
def test_damaged_bytes_are_read_or_refused_with_a_code(noise, position):
    body = bytearray(SMALL)
    position = min(position, len(body))
    body[position:position + len(noise)] = noise
    try:
        FORMAT.decode(bytes(body))
    except DataError as error:
        assert error.code.isupper()


SMALL = written({"a": [1.5, 2.5], "b": [1, 2]})
