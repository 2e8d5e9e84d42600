"""recordio-protobuf against the contract's bytes and the SageMaker SDK's own classes."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from byoa.container.errors import AlgorithmError, DataError
from byoa.container.formats import protobuf, recordio
from byoa.container.formats.recordio_protobuf import FORMAT, _decode_each, _decode_equal

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
MATRICES = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2), elements=FLOATS)

# FIX-09
RECORD = bytes.fromhex(
    "0a160a0676616c756573120c120a0a080000803f00000040"
    "12120a0676616c756573120812060a0400000000"
)
FRAMED = bytes.fromhex("0a23d7ce2c000000") + RECORD


def field(number, payload):
    return bytes([number << 3 | 2, len(payload)]) + payload


def message(tensor, *, key=b"values", where=1, kind=2):
    value = field(kind, tensor)
    return field(where, field(1, key) + field(2, value))


def floats(*values):
    return field(1, struct.pack(f"<{len(values)}f", *values))


def dense(*values):
    return recordio.frame(message(floats(*values)))


@pytest.fixture(scope="module")
def sdk():
    """The SageMaker SDK's writers and message class: the other implementation."""
    import importlib
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        utils = importlib.import_module("sagemaker.serializer_utils")
        utils.Record = importlib.import_module("sagemaker.amazon.record_pb2").Record
    return utils


# --- frames ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "framed"),
    [
        (b"abc", "0a23d7ce0300000061626300"),  # FIX-08
        (b"abcd", "0a23d7ce0400000061626364"),
        (b"", "0a23d7ce00000000"),
    ],
)
def test_a_frame_is_magic_length_payload_padding(payload, framed):
    # TRAIN-121
    assert recordio.frame(payload) == bytes.fromhex(framed)
    assert list(recordio.payloads(bytes.fromhex(framed))) == [payload]
    assert recordio.frame_length(bytes.fromhex(framed)) == len(framed) // 2


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_frames_one_after_the_other_give_their_payloads(payloads):
    assert list(recordio.payloads(b"".join(map(recordio.frame, payloads)))) == payloads


def part(flag, payload):
    word = flag << 29 | len(payload)
    return recordio.MAGIC + word.to_bytes(4, "little") + payload + bytes(-len(payload) % 4)


def test_a_record_in_parts_is_joined_with_the_magic_that_its_writer_left_out():
    body = part(1, b"abcd") + part(2, b"efgh") + part(3, b"ij") + part(0, b"k")
    magic = recordio.MAGIC
    assert list(recordio.payloads(body)) == [b"abcd" + magic + b"efgh" + magic + b"ij", b"k"]
    assert recordio.frame_length(body) is None


@pytest.mark.parametrize(
    ("body", "record", "message"),
    [
        (b"abcdefgh", 1, "no RecordIO frame"),
        (recordio.frame(b"abc") + b"\x0a\x23", 2, "header is cut off"),
        (recordio.frame(b"abc")[:-1], 1, "the body ends before"),
        (recordio.frame(b"abcd") + recordio.frame(b"abcd")[:-1], 2, "the body ends before"),
        (part(2, b"a"), 1, "out of order"),
        (part(3, b"a"), 1, "out of order"),
        (part(5, b"a"), 1, "out of order"),
        (part(1, b"a") + part(0, b"b"), 1, "out of order"),
        (part(1, b"a") + part(1, b"b"), 1, "out of order"),
        (part(0, b"a") + part(1, b"a") + part(2, b"b"), 2, "last part"),
    ],
)
def test_a_broken_frame_is_named_with_record_and_byte(body, record, message):
    with pytest.raises(DataError) as caught:
        list(recordio.payloads(body, "train/a.pbr"))
    assert caught.value.code == "BODY_MALFORMED"
    assert caught.value.where == f"train/a.pbr record {record}"
    assert message in caught.value.message and "byte " in caught.value.message


# --- records --------------------------------------------------------------------------------------


def test_the_contracts_record_is_read():
    # FIX-09, TRAIN-122, TRAIN-123, TRAIN-124
    for body in (FRAMED, memoryview(FRAMED), FRAMED * 3):
        features, labels = FORMAT.decode(body)
        assert features.tolist() == [[1, 2]] * (len(body) // len(FRAMED))
        assert labels.tolist() == [0] * len(features)
        assert features.dtype == labels.dtype == np.float32
        assert features.flags.writeable and features.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("records", [1, 5])
@pytest.mark.parametrize("labelled", [True, False])
def test_what_the_sdk_writes_is_read(sdk, dtype, records, labelled):
    matrix = np.arange(-3, records * 4 - 3).reshape(records, 4).astype(dtype)
    given_labels = np.arange(records).astype(dtype) if labelled else None
    stream = io.BytesIO()
    sdk.write_numpy_to_dense_tensor(stream, matrix, given_labels)
    features, labels = FORMAT.decode(stream.getvalue())
    np.testing.assert_array_equal(features, matrix)
    if labelled:
        np.testing.assert_array_equal(labels, given_labels)
    else:
        assert labels is None


def test_sparse_records_that_the_sdk_writes_are_read(sdk):
    import scipy.sparse

    matrix = np.array([[0, 1, 0, 2], [0, 0, 0, 0], [3, 0, 0, 0]], dtype=np.float32)
    stream = io.BytesIO()
    sdk.write_spmatrix_to_sparse_tensor(
        stream, scipy.sparse.coo_matrix(matrix), np.array([1, 0, 1], np.float32)
    )
    features, labels = FORMAT.decode(stream.getvalue())
    assert features.tolist() == matrix.tolist() and labels.tolist() == [1, 0, 1]


@given(MATRICES, st.booleans())
def test_the_fast_and_the_record_route_agree(matrix, double):
    kind, code = (3, "d") if double else (2, "f")
    body = b"".join(
        recordio.frame(
            message(field(1, struct.pack(f"<{len(row)}{code}", *row)), kind=kind)
            + message(floats(index), where=2)
        )
        for index, row in enumerate(matrix.tolist())
    )
    fast, slow = _decode_equal(body, None), _decode_each(body, None)
    for batch in (fast, slow):
        np.testing.assert_array_equal(batch.features, matrix)
        np.testing.assert_array_equal(batch.labels, np.arange(len(matrix)))


@pytest.mark.parametrize(
    ("other", "second"),
    [
        (message(floats(3, 4)) + field(3, b"uid"), [3, 4]),  # another length
        (message(floats(3, 4), key=b"valuez"), [3, 4]),  # the same length, another key
        (field(3, b"u") + message(floats(3, 4)), [3, 4]),
        (message(field(1, bytes([3, 4])), kind=7), [3, 4]),  # another type
    ],
)
def test_records_that_differ_in_more_than_values_take_the_record_route(other, second):
    body = dense(1, 2) + recordio.frame(other)
    assert _decode_equal(body, None) is None
    assert FORMAT.decode(body).features.tolist() == [[1, 2], second]


def test_a_record_of_equal_length_and_another_width_is_refused():
    double = message(field(1, struct.pack("<d", 3)), kind=3)
    assert len(double) == len(message(floats(1, 2)))
    with pytest.raises(DataError) as caught:
        FORMAT.decode(dense(1, 2) + recordio.frame(double))
    assert (caught.value.code, caught.value.where) == ("RECORD_WIDTH", "record 2")


def test_other_fields_are_passed_over():
    extra = field(3, b"uid-1") + field(4, b"{}") + b"\x38\x96\x01" + b"\x45abcd" + b"\x49abcdefgh"
    body = recordio.frame(extra + message(floats(1, 2)))
    assert FORMAT.decode(body).features.tolist() == [[1, 2]]


def test_values_that_are_not_packed_are_read():
    single = b"".join(b"\x0d" + struct.pack("<f", value) for value in (1, 2))
    integers = b"\x08\x05" + b"\x08" + b"\xff" * 9 + b"\x01"
    assert FORMAT.decode(recordio.frame(message(single))).features.tolist() == [[1, 2]]
    assert FORMAT.decode(recordio.frame(message(integers, kind=7))).features.tolist() == [[5, -1]]


def test_a_single_key_need_not_be_called_values():
    body = recordio.frame(message(floats(1), key=b"pixels") + message(floats(3), key=b"y", where=2))
    features, labels = FORMAT.decode(body)
    assert (features.tolist(), labels.tolist()) == ([[1]], [3])


def sparse(keys, shape, *values):
    packed = floats(*values) + field(2, bytes(keys)) + field(3, bytes(shape))
    return recordio.frame(message(packed))


@pytest.mark.parametrize(
    ("body", "code", "where", "text"),
    [
        (b"", "BODY_EMPTY", None, "no record"),
        (recordio.frame(b""), "BODY_MALFORMED", "record 1", "no features"),
        (dense(1) + recordio.frame(b"\xff"), "BODY_MALFORMED", "record 2", "varint"),
        (recordio.frame(b"\x0a\x50"), "BODY_MALFORMED", "record 1", "cut off"),
        (recordio.frame(b"\x0b"), "BODY_MALFORMED", "record 1", "wire type 3"),
        (recordio.frame(b"\x02\x00"), "BODY_MALFORMED", "record 1", "no field"),
        (recordio.frame(b"\x0d\x00"), "BODY_MALFORMED", "record 1", "cut off"),
        (recordio.frame(message(b"", kind=9)), "BODY_MALFORMED", "record 1", "bytes"),
        (recordio.frame(field(1, field(1, b"values"))), "BODY_MALFORMED", "record 1", "no tensor"),
        (recordio.frame(field(1, field(1, b"\xff"))), "BODY_MALFORMED", "record 1", "UTF-8"),
        (recordio.frame(message(field(1, b"abc"))), "BODY_MALFORMED", "record 1", "4 bytes"),
        (recordio.frame(message(b"\x0d" + bytes(4), kind=7)), "BODY_MALFORMED", "record 1",
         "varints"),
        (recordio.frame(message(floats(1), key=b"a") + message(floats(1), key=b"b")),
         "BODY_MALFORMED", "record 1", "keys 'a', 'b'"),
        (dense(1, 2) + dense(1), "RECORD_WIDTH", "record 2", "has 1 column, expected 2"),
        (dense(), "RECORD_WIDTH", "record 1", "has 0 columns"),
        (recordio.frame(message(floats(1)) + message(floats(1), where=2)) + dense(1),
         "LABEL_MISSING", "record 2", "label"),
        (sparse([4], [4], 1), "SPARSE_INVALID", "record 1", "outside"),
        (sparse([1], [], 1), "SPARSE_INVALID", "record 1", "shape"),
        (sparse([1, 2], [4], 1), "SPARSE_INVALID", "record 1", "one length"),
        (dense(1, 2)[:-4], "BODY_MALFORMED", "record 1", "the body ends before"),
    ],
)
def test_a_faulty_record_is_named(body, code, where, text):
    with pytest.raises(DataError) as caught:
        FORMAT.decode(body)
    assert (caught.value.code, caught.value.where) == (code, where)
    assert text in caught.value.message


@given(st.binary(max_size=40), st.integers(0, 52))
def test_damaged_bytes_are_read_or_refused_with_a_code(noise, position):
    body = bytearray(FRAMED)
    body[position:position + len(noise)] = noise
    try:
        FORMAT.decode(bytes(body))
    except DataError as error:
        assert error.code.isupper()


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "columns",
    [
        {"score": np.array([[0.1, 0.9], [0.5, 0.5]], np.float32)},
        {"predicted_label": np.array([3, -1]), "score": np.array([0.25, 0.5])},
        {"a": [1, 2], "b": [[1.5], [2.5]]},
        {"flag": np.array([True, False])},
        {"b" * 200: np.arange(2000, dtype=np.float32).reshape(2, 1000)},
    ],
)
def test_the_sdks_class_reads_our_answers(sdk, columns):
    answer = FORMAT.encode(columns)
    payloads = list(sdk.read_recordio(io.BytesIO(answer)))
    assert len(payloads) == 2
    for index, payload in enumerate(payloads):
        label = sdk.Record.FromString(payload).label
        assert set(label) == set(columns)
        for name, column in columns.items():
            value = label[name]
            tensor = getattr(value, value.WhichOneof("value"))
            assert list(tensor.values) == np.ravel(column[index]).tolist()


def test_a_plain_array_lies_under_values():
    assert FORMAT.encode(np.array([0.0], np.float32)) == recordio.frame(RECORD[24:])
    assert FORMAT.encode(np.zeros((0, 2))) == b""


@given(MATRICES)
def test_what_is_written_is_read_back_and_batches_equal_singles(matrix):
    body = FORMAT.encode({"values": matrix})
    rows = [protobuf.read_record(each).label["values"].values for each in recordio.payloads(body)]
    np.testing.assert_array_equal(np.array(rows, dtype=np.float32), matrix)
    singles = [FORMAT.encode(matrix[index:index + 1]) for index in range(len(matrix))]
    assert b"".join(singles) == body


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=5))
def test_integers_are_read_back(values):
    [payload] = recordio.payloads(FORMAT.encode(np.array([values])))
    assert list(protobuf.read_record(payload).label["values"].values) == values


@pytest.mark.parametrize("wrong", [["text"], [[1], [1, 2]], [2**31], [-(2**31) - 1], [None]])
def test_an_answer_that_no_tensor_holds_is_the_algorithms_error(wrong):
    with pytest.raises(AlgorithmError) as caught:
        FORMAT.encode(wrong)
    assert caught.value.code == "PREDICTION_NOT_ENCODABLE"


def test_a_payload_beyond_29_bits_is_refused():
    class Long(bytes):
        def __len__(self):
            return 1 << 29

    with pytest.raises(DataError) as caught:
        recordio.frame(Long())
    assert caught.value.code == "RECORD_TOO_WIDE"
