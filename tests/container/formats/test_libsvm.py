"""libsvm: sparse lines become dense records of one width, and nothing is guessed on the way."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from byoa.container.errors import DataError
from byoa.container.formats.base import Batch, widen
from byoa.container.formats.libsvm import FORMAT
from byoa.container.media_types import UnsupportedMediaType

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
MATRICES = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2), elements=FLOATS)


@pytest.mark.parametrize(
    ("body", "features", "labels"),
    [
        (b"1 1:0.5 3:2\n-1 2:1e1\n", [[0.5, 0, 2], [0, 10, 0]], [1, -1]),
        (b"1 1:0.5\r\n2 2:7\r\n", [[0.5, 0], [0, 7]], [1, 2]),
        (b"+1 1:+.5 2:5.", [[0.5, 5]], [1]),
        (b"2.5\t 1:1   2:2 \n", [[1, 2]], [2.5]),
        (b"0\n1 2:3\n", [[0, 0], [0, 3]], [0, 1]),  # a record of zeros
        (b"1 3:3 1:1\n", [[1, 0, 3]], [1]),  # in any order
        (b"1 007:1", [[0, 0, 0, 0, 0, 0, 1]], [1]),
        (b"# head\n1 1:2 # first: 2\n\t# more\n3 1:4\n\n\n", [[2], [4]], [1, 3]),
        (b"1:2 2:3\n2:1\n", [[2, 3], [0, 1]], None),
        (b"\xef\xbb\xbf1 1:2", [[2]], [1]),
        (b"1 1:1e400 2:-1e39", [[np.inf, -np.inf]], [1]),
    ],
)
def test_a_line_is_a_label_and_what_is_not_zero(decode, body, features, labels):
    # TRAIN-125
    batch = decode("text/libsvm; first_index=1", body)
    assert batch.features.dtype == np.float32 and batch.features.flags.writeable
    assert batch.features.tolist() == features
    assert (None if batch.labels is None else batch.labels.tolist()) == labels


def test_nan_and_infinity_are_kept():
    features, labels = FORMAT.decode(b"nan 0:nan 1:-inf")
    assert np.isnan(labels[0]) and np.isnan(features[0, 0]) and features[0, 1] == -np.inf


def test_indices_count_from_0_and_from_1_where_it_is_declared(decode):
    assert decode("text/libsvm", b"1 1:5").features.tolist() == [[0, 5]]
    assert decode("text/libsvm", b"1 0:4 1:5").features.tolist() == [[4, 5]]
    assert decode("text/x-libsvm; first_index=0", b"1 1:5").features.tolist() == [[0, 5]]
    assert decode("text/libsvm; first_index=1", b"1 1:5").features.tolist() == [[5]]
    with pytest.raises(DataError) as caught:
        decode("text/libsvm; first_index=1", b"1 1:5\n1 1:5 2:6\n1 0:4 1:5", where="train/a.svm")
    assert (caught.value.code, caught.value.where) == ("SPARSE_INVALID", "train/a.svm record 3")
    assert "first_index=1" in caught.value.remedy


def test_the_width_is_found_or_declared(decode):
    assert decode("text/libsvm", b"1 3:1").features.shape == (1, 4)
    assert decode("text/libsvm; features=5", b"1 3:1").features.shape == (1, 5)
    assert decode("text/libsvm; features=2", b"1").features.tolist() == [[0, 0]]
    assert decode("text/libsvm; first_index=1; features=4", b"1 3:1").features.shape == (1, 4)


def test_a_narrower_batch_is_widened_with_zeros():
    batch = FORMAT.decode(b"1 1:1")
    wide = widen(batch, 4)
    assert wide.features.tolist() == [[0, 1, 0, 0]] and wide.features.dtype == np.float32
    assert wide.labels is batch.labels and widen(batch, 2) is batch
    assert widen(Batch(batch.features, None), 3).labels is None


def test_labels_are_required_where_the_caller_counts_on_them(decode):
    # Without this, XGBoost's `label:weight` would be read as a feature.
    for body in (b"1:0.5 2:3", b"1 1:2\n1:0.5 2:3"):
        with pytest.raises(DataError) as caught:
            decode("text/libsvm", body, label_size=1)
        assert caught.value.code == "LABEL_MISSING"
        assert caught.value.where == f"record {body.count(10) + 1}"
        assert "label_size=0" in caught.value.remedy
    assert decode("text/libsvm; label_size=0", b"1:0.5", label_size=1).labels is None


@pytest.mark.parametrize(
    ("body", "code", "where", "message"),
    [
        (b"", "BODY_EMPTY", "f", "no record"),
        (b"\n\n", "BODY_EMPTY", "f", "no record"),
        (b"# nothing\n", "BODY_EMPTY", "f", "no record"),
        (b"1 1:2\n\n1 1:2", "RECORD_WIDTH", "f record 2", "the line is empty"),
        (b"1", "RECORD_WIDTH", "f", "has 0 columns"),
        (b"# c\nx 1:2", "RECORD_NOT_A_NUMBER", "f record 1", "the label 'x'"),
        (b"1,2 1:2", "RECORD_NOT_A_NUMBER", "f record 1", "the label '1,2'"),
        (b"1_0 1:2", "RECORD_NOT_A_NUMBER", "f record 1", "the label '1_0'"),
        (b"1 1:2 2", "RECORD_NOT_A_NUMBER", "f record 1, pair 2", "'2'"),
        (b"1 2", "RECORD_NOT_A_NUMBER", "f record 1, pair 1", "'2'"),
        (b"1 1:2:3", "RECORD_NOT_A_NUMBER", "f record 1, pair 1", "'1:2:3'"),
        (b"1 1:2 3:", "RECORD_NOT_A_NUMBER", "f record 1, pair 2", "'3:'"),
        (b"1 :2", "RECORD_NOT_A_NUMBER", "f record 1, pair 1", "':2'"),
        (b"1 1:2 :3", "RECORD_NOT_A_NUMBER", "f record 1, pair 2", "':3'"),
        (b"1 -1:2", "RECORD_NOT_A_NUMBER", "f record 1, pair 1", "'-1:2'"),
        (b"1 1.0:2", "RECORD_NOT_A_NUMBER", "f record 1, pair 1", "'1.0:2'"),
        (b"1 1e2:2", "RECORD_NOT_A_NUMBER", "f record 1, pair 1", "'1e2:2'"),
        (b"1 1:1_0", "RECORD_NOT_A_NUMBER", "f record 1, pair 1", "'1:1_0'"),
        ("1 ١:2".encode(), "RECORD_NOT_A_NUMBER", "f record 1, pair 1", "'١:2'"),
        (b"1 1:\xff", "RECORD_NOT_A_NUMBER", "f record 1, pair 1", "1:"),
        (b"1 qid:3 1:2", "QID_UNSUPPORTED", "f record 1", "'qid:3'"),
        (b"1 1:2 qid:3", "QID_UNSUPPORTED", "f record 1", "'qid:3'"),
        (b"1 1:2 2:3 1:4", "SPARSE_INVALID", "f record 1", "index 1 occurs twice"),
        (b"1 1:2\n2:3", "LABEL_MISSING", "f record 2", "not with a label"),
        (b"2:3\n1 1:2", "LABEL_MISSING", "f record 1", "not with a label"),
        (b"1 1:1\n1 1:1 2000000000:1", "VALUES_TOO_MANY", "f record 2", "2000000001 columns"),
        (b"1 1:1\n1 " + b"9" * 40 + b":1", "RECORD_TOO_WIDE", "f record 2", "the limit is"),
        (b"1 100000000:1\n" * 3, "VALUES_TOO_MANY", "f record 1", "3 records of 100000001"),
    ],
)
def test_a_fault_is_named_with_file_record_and_pair(body, code, where, message):
    with pytest.raises(DataError) as caught:
        FORMAT.decode(body, where="f")
    assert (caught.value.code, caught.value.where) == (code, where)
    assert message in caught.value.message
    assert caught.value.expected


def test_an_index_beyond_the_declared_width_is_named(decode):
    with pytest.raises(DataError) as caught:
        decode("text/libsvm; features=2", b"1 1:1\n1 3:1")
    assert (caught.value.code, caught.value.where) == ("RECORD_WIDTH", "record 2")
    assert "features=2" in caught.value.message and "from 0 to 1" in caught.value.expected


@pytest.mark.parametrize(
    "parameters",
    ["first_index=2", "first_index=x", "features=-1", "features=x", "features=1e9",
     "features=99999999999", "label_size=2", "charset=klingon"],
)
def test_a_parameter_that_cannot_be_honoured_is_refused(decode, parameters):
    with pytest.raises(UnsupportedMediaType) as caught:
        decode(f"text/libsvm; {parameters}", b"1 1:2")
    assert caught.value.code == "MEDIA_TYPE_UNSUPPORTED"


def test_a_declared_width_is_bounded_as_a_found_one_is(decode):
    with pytest.raises(DataError) as caught:
        decode("text/libsvm; features=999999999", b"1 1:2", where="f")
    assert (caught.value.code, caught.value.where) == ("VALUES_TOO_MANY", "f")


@pytest.fixture(scope="module")
def dump():
    return pytest.importorskip("sklearn.datasets").dump_svmlight_file


@given(matrix=MATRICES)
def test_what_scikit_learn_writes_is_read(dump, matrix):
    stream = io.BytesIO()
    labels = np.arange(len(matrix))
    dump(matrix, labels, stream, zero_based=True, comment="golden")
    batch = FORMAT.decode(b"# features\n" + stream.getvalue() + b"0 %d:0\n" % (matrix.shape[1] - 1))
    np.testing.assert_array_equal(batch.features[:-1], matrix)
    np.testing.assert_array_equal(batch.labels[:-1], labels)


@given(MATRICES)
def test_a_batch_is_read_as_its_single_records(matrix):
    lines = [
        b"1 " + b" ".join(b"%d:%r" % (index, value) for index, value in enumerate(row))
        for row in matrix.tolist()
    ]
    singles = [FORMAT.decode(line).features for line in lines]
    np.testing.assert_array_equal(np.concatenate(singles), matrix)
    np.testing.assert_array_equal(FORMAT.decode(b"\n".join(lines)).features, matrix)


def test_a_format_of_requests_alone_is_no_answer():
    assert not FORMAT.writes
    with pytest.raises(NotImplementedError):
        FORMAT.encode([1])
