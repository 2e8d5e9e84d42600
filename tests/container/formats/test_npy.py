"""npy: arrays as numpy writes them, and no pickle whatever the header says."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from byoa.container.errors import AlgorithmError, DataError
from byoa.container.formats.npy import FORMAT

NUMERIC = ["|b1", "|i1", "|u1", "<i2", ">i4", "<i8", "<u8", "<f2", "<f4", ">f4", "<f8", ">f8"]


def saved(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def with_header(text, data=b"", version=1):
    head = text.encode() + b"\n"
    size = len(head).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + head + data


@pytest.mark.parametrize("dtype", NUMERIC)
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_numeric_type_is_read_in_both_orders(dtype, order):
    array = np.array([[0, 1, 2], [3, 4, 5]], dtype=dtype, order=order)
    features, labels = FORMAT.decode(saved(array))
    assert features.dtype == np.float32 and features.flags.c_contiguous and features.flags.writeable
    np.testing.assert_array_equal(features, array.astype(np.float32))
    assert labels is None


def test_one_dimension_is_one_record():
    assert FORMAT.decode(saved(np.arange(3))).features.tolist() == [[0, 1, 2]]


def test_the_leading_columns_can_be_labels(decode):
    body = saved(np.arange(6).reshape(2, 3))
    assert decode("application/x-npy; label_size=1", body).labels.tolist() == [0, 3]
    assert FORMAT.decode(memoryview(body), label_size=2).features.tolist() == [[2], [5]]


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_is_read(version):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ones((1, 2)), version=version)
    assert FORMAT.decode(stream.getvalue()).features.tolist() == [[1, 1]]


class Bomb:
    exploded = False

    def __reduce__(self):
        return (setattr, (Bomb, "exploded", True))


def test_an_object_array_is_refused_and_its_pickle_never_loaded():
    # pains 36
    with pytest.raises(DataError) as caught:
        FORMAT.decode(saved(np.array([Bomb()], dtype=object), allow_pickle=True))
    assert caught.value.code == "BODY_MALFORMED"
    assert "pickle" in caught.value.message and "never loaded" in caught.value.message
    assert not Bomb.exploded


HEAD = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "BODY_EMPTY"),
        (saved(np.zeros((0, 3))), "BODY_EMPTY"),
        (b"\x93NUMPY", "BODY_MALFORMED"),
        (pickle.dumps([1, 2, 3]), "BODY_MALFORMED"),
        (b"PK\x03\x04" + bytes(30), "BODY_MALFORMED"),
        (saved(np.ones((2, 3)))[:-1], "BODY_MALFORMED"),
        (saved(np.ones((2, 3))) + b"x", "BODY_MALFORMED"),
        (saved(np.ones((2, 3)))[:40], "BODY_MALFORMED"),
        (with_header(HEAD, bytes(8), version=9), "BODY_MALFORMED"),
        (with_header(HEAD.replace("(1, 2)", "(2**60, 2**60)")), "BODY_MALFORMED"),
        (with_header(HEAD.replace("(1, 2)", "(-1, -2)"), bytes(8)), "BODY_MALFORMED"),
        (with_header(HEAD.replace("(1, 2)", "(True, 2)"), bytes(8)), "BODY_MALFORMED"),
        (with_header(HEAD.replace("(1, 2)", "[1, 2]"), bytes(8)), "BODY_MALFORMED"),
        (with_header(HEAD.replace("False", "0"), bytes(8)), "BODY_MALFORMED"),
        (with_header(HEAD.replace("'shape'", "'size'"), bytes(8)), "BODY_MALFORMED"),
        (with_header(HEAD.replace("<f4", "<f16"), bytes(32)), "BODY_MALFORMED"),
        (with_header(HEAD.replace("<f4", "<U2"), bytes(16)), "BODY_MALFORMED"),
        (with_header(HEAD.replace("'<f4'", "[('a', '<f4')]"), bytes(8)), "BODY_MALFORMED"),
        (with_header("__import__('os')", bytes(8)), "BODY_MALFORMED"),
        (with_header("(" * 5000, version=2), "BODY_MALFORMED"),
        (with_header(HEAD + " " * 20_000, bytes(8), version=2), "BODY_MALFORMED"),
        (with_header("{'a': '\xff'}"), "BODY_MALFORMED"),
        (saved(np.float32(1)), "RECORD_WIDTH"),
        (saved(np.ones((2, 0))), "RECORD_WIDTH"),
        (saved(np.ones((2, 3, 0))), "RECORD_WIDTH"),
    ],
)
def test_a_body_that_is_no_table_of_numbers_is_refused(body, code):
    with pytest.raises(DataError) as caught:
        FORMAT.decode(body, where="train/a.npy")
    assert caught.value.code == code
    assert caught.value.where == "train/a.npy"


@pytest.mark.parametrize(
    "array",
    [np.arange(3), np.array([True]), np.ones((2, 3), np.float32), np.ones((7, 1, 2)),
     np.asfortranarray(np.ones((3, 2)))],
)
def test_an_answer_is_what_numpy_would_save(array):
    assert FORMAT.encode(array) == saved(np.ascontiguousarray(array))


def test_columns_are_flattened_side_by_side():
    answer = FORMAT.encode({"label": np.array([3, 1]), "score": np.array([[0.5, 0.25]] * 2)})
    assert np.load(io.BytesIO(answer)).tolist() == [[3, 0.5, 0.25], [1, 0.5, 0.25]]
    one = FORMAT.encode({"score": [[0.5, 0.25]]})
    assert np.load(io.BytesIO(one)).tolist() == [[0.5, 0.25]]


@pytest.mark.parametrize("wrong", [["a"], [[1], [1, 2]], [None], [{"a": 1}], np.array(["x"])])
def test_an_answer_that_is_no_numeric_array_is_the_algorithms_error(wrong):
    with pytest.raises(AlgorithmError) as caught:
        FORMAT.encode(wrong)
    assert caught.value.code == "PREDICTION_NOT_ENCODABLE"


@given(
    arrays.arrays(
        st.sampled_from([np.float32, np.int16, np.uint8]),
        arrays.array_shapes(min_dims=2, max_dims=2),
    )
)
def test_what_is_written_is_read_back(matrix):
    body = FORMAT.encode(matrix)
    expected = matrix.astype(np.float32)
    np.testing.assert_array_equal(FORMAT.decode(body).features, expected)
    singles = [FORMAT.decode(FORMAT.encode(matrix[i:i + 1])).features for i in range(len(matrix))]
    np.testing.assert_array_equal(np.concatenate(singles), expected)


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_of_more_dimensions_has_a_record_in_each_of_its_first(order):
    images = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    body = saved(np.asarray(images, order=order))
    expected = images.reshape(2, 60)
    np.testing.assert_array_equal(FORMAT.decode(body).features, expected)
    pieces = FORMAT.streamed(io.BytesIO(body).read, where="x", size=64)
    np.testing.assert_array_equal(np.concatenate([each.features for each in pieces]), expected)


@given(st.binary(max_size=80), st.integers(0, 127))
def test_damaged_bytes_are_refused_with_a_code(noise, position):
    body = bytearray(saved(np.ones((1, 2), np.float32)))
    body[position:position + len(noise)] = noise
    try:
        FORMAT.decode(bytes(body))
    except DataError as error:
        assert error.code in {"BODY_MALFORMED", "RECORD_WIDTH", "BODY_EMPTY"}
