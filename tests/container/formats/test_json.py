"""JSON and JSON Lines: the record forms, their faults, and answers that any parser reads."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from byoa.container.errors import AlgorithmError, DataError
from byoa.container.formats import json_document, json_lines, json_text, predictions

JSON, LINES = json_document.FORMAT, json_lines.FORMAT
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
MATRICES = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2), elements=FLOATS)
pytestmark = pytest.mark.usefixtures("parser")


def body(document):
    return json.dumps(document).encode()


TWO = [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (TWO, TWO),
        ([1, 2], [[1, 2]]),
        ({"features": [1, 2]}, [[1, 2]]),
        ({"data": {"features": {"values": [1, 2]}}}, [[1, 2]]),
        ([{"features": [1, 2]}, {"features": [3, 4]}], TWO),
        ({"instances": TWO}, TWO),
        ({"instances": [{"features": row} for row in TWO]}, TWO),
        ({"instances": [{"data": {"features": {"values": row}}} for row in TWO]}, TWO),
        ({"instances": [{"features": TWO[0]}, {"data": {"features": {"values": TWO[1]}}}]}, TWO),
        ({"instances": [{"features": {"keys": [2], "shape": [4], "values": [5]}},
                        {"features": [1, 2, 3, 4]}]}, [[0, 0, 5, 0], [1, 2, 3, 4]]),
        ({"data": {"features": {"keys": [], "shape": [2], "values": []}}}, [[0, 0]]),
        ([10**39, -(10**400), 1], [[np.inf, -np.inf, 1]]),
    ],
)
def test_each_record_form_is_read(document, expected):
    features, labels = JSON.decode(body(document))
    assert features.dtype == np.float32 and features.flags.c_contiguous and features.flags.writeable
    assert features.tolist() == expected and labels is None


def test_a_number_beyond_float64_is_infinite_with_either_parser():
    assert JSON.decode(b"[1e400,-1e400]").features.tolist() == [[np.inf, -np.inf]]


def test_null_is_a_missing_value():
    assert np.isnan(JSON.decode(b"[[1,null]]").features[0, 1])


def test_labels_are_named_or_lead_bare_arrays():
    features, labels = JSON.decode(b'[{"features":[1,2],"label":7},{"features":[3,4],"label":8}]')
    assert (features.tolist(), labels.tolist()) == (TWO, [7, 8])
    features, labels = JSON.decode(b'{"features":[1],"label":{"values":[7,8]}}', label_size=1)
    assert (features.tolist(), labels.tolist()) == ([[1]], [[7, 8]])
    features, labels = JSON.decode(b'{"data":{"features":{"values":[1]}},"label":[5]}')
    assert (features.tolist(), labels.tolist()) == ([[1]], [5])
    features, labels = JSON.decode(b"[[7,1,2],[8,3,4]]", label_size=1)
    assert (features.tolist(), labels.tolist()) == (TWO, [7, 8])


@pytest.mark.parametrize(
    ("text", "code", "where", "message"),
    [
        (b"", "BODY_EMPTY", None, "no record"),
        (b" \n", "BODY_EMPTY", None, "no record"),
        (b"[]", "BODY_EMPTY", None, "no record"),
        (b'{"instances":[]}', "BODY_EMPTY", None, "no record"),
        (b"[1,2", "BODY_MALFORMED", None, "not JSON"),
        (b"[NaN]", "BODY_MALFORMED", None, "not JSON"),
        (b"[Infinity]", "BODY_MALFORMED", None, "not JSON"),
        (b"[\xff]", "BODY_MALFORMED", None, "not JSON"),
        (b"[" * 100_000, "BODY_MALFORMED", None, "not JSON"),
        (b'"text"', "BODY_MALFORMED", None, "a string"),
        (b"null", "BODY_MALFORMED", None, "null"),
        (b"3", "BODY_MALFORMED", None, "a number"),
        (b'{"instances":{}}', "BODY_MALFORMED", None, "not an array"),
        (b'{"instances":[1,2]}', "BODY_MALFORMED", "record 1", "a number"),
        (b'{"instances":[[1]],"signature":"x"}', "BODY_MALFORMED", None, "'signature'"),
        (b'{"inputs":[1]}', "BODY_MALFORMED", "record 1", "no features"),
        (b'[{"features":[1]},{"features":[2],"weight":1}]', "BODY_MALFORMED", "record 2",
         "'weight'"),
        (b'[{"features":[1]},[2]]', "BODY_MALFORMED", "record 2", "bare array"),
        (b'{"data":[1]}', "BODY_MALFORMED", "record 1", "data is an array"),
        (b'{"features":3}', "BODY_MALFORMED", "record 1", "features is a number"),
        (b'{"features":{"values":3}}', "BODY_MALFORMED", "record 1", "no array of values"),
        (b'[[1,2],["3",4]]', "RECORD_NOT_A_NUMBER", "record 2, column 1", "'3'"),
        (b"[[1,2],[3,true]]", "RECORD_NOT_A_NUMBER", "record 2, column 2", "true"),
        (b"[[1,2],[3,[4]]]", "RECORD_NOT_A_NUMBER", "record 2, column 2", "an array"),
        (b"[1,[2]]", "RECORD_NOT_A_NUMBER", "record 1, column 2", "an array"),
        (b'[{"features":[1]},{"features":[{}]}]', "RECORD_NOT_A_NUMBER", "record 2, column 1",
         "an object"),
        (b"[[1,2],[3]]", "RECORD_WIDTH", "record 2", "has 1 column, expected 2"),
        (b"[[]]", "RECORD_WIDTH", "record 1", "has 0 columns"),
        (b'[{"features":[1],"label":1},{"features":[1]}]', "LABEL_MISSING", "record 2", "label"),
        (b'[{"features":[1]},{"features":[1],"label":1}]', "LABEL_MISSING", "record 2", "label"),
        (b'{"features":[1],"label":"x"}', "RECORD_NOT_A_NUMBER", "label of record 1, column 1",
         "'x'"),
        (b'{"features":{"keys":[4],"shape":[4],"values":[1]}}', "SPARSE_INVALID", "record 1",
         "outside"),
        (b'{"features":{"keys":[1,1],"shape":[4],"values":[1,2]}}', "SPARSE_INVALID", "record 1",
         "twice"),
        (b'{"features":{"keys":[1],"values":[1]}}', "SPARSE_INVALID", "record 1", "shape"),
        (b'{"features":{"keys":[1],"shape":[-4],"values":[1]}}', "SPARSE_INVALID", "record 1",
         "shape"),
        (b'{"features":{"keys":[1,2],"shape":[4],"values":[1]}}', "SPARSE_INVALID", "record 1",
         "one length"),
        (b'{"features":{"keys":[1],"shape":[4],"values":["x"]}}', "RECORD_NOT_A_NUMBER",
         "record 1, column 1", "'x'"),
    ],
)
def test_a_fault_is_named_with_its_place(text, code, where, message):
    with pytest.raises(DataError) as caught:
        JSON.decode(text)
    assert (caught.value.code, caught.value.where) == (code, where)
    assert message in caught.value.message


def test_a_small_body_cannot_ask_for_gigabytes():
    record = {"features": {"keys": [0], "shape": [2**14, 2**14], "values": [1]}}
    with pytest.raises(DataError) as caught:
        JSON.decode(body([record, record]))
    assert caught.value.code == "VALUES_TOO_MANY"


def test_the_charset_of_a_document_is_honoured(decode):
    assert decode("application/json; charset=utf-16", "[1,2]".encode("utf-16")).features.size == 2
    assert decode("application/json; charset=UTF-8", b"\xef\xbb\xbf[1]").features.tolist() == [[1]]


# --- JSON Lines -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [b"[1,2]\n[3,4]", b"[1,2]\r\n[3,4]\r\n\n", b'{"features":[1,2]}\n{"features":[3,4]}\n',
     b'{"data":{"features":{"values":[1,2]}}}\n{"features":[3,4]}'],
)
def test_json_lines_hold_a_record_each(text):
    assert LINES.decode(text).features.tolist() == TWO


@pytest.mark.parametrize(
    ("text", "code", "where"),
    [
        (b"", "BODY_EMPTY", None),
        (b"\n\n", "BODY_EMPTY", None),
        (b"[1,2]\n\n[3,4]", "BODY_MALFORMED", "record 2"),
        (b"[1,2]\n[3,4", "BODY_MALFORMED", "record 2"),
        (b"[1,2],[3,4]", "BODY_MALFORMED", "record 1"),
        (b"[1,2]\n7", "BODY_MALFORMED", "record 1"),
        (b"[1,2]\n[3,false]", "RECORD_NOT_A_NUMBER", "record 2, column 2"),
        (b"[1,2]\n[3]", "RECORD_WIDTH", "record 2"),
    ],
)
def test_a_faulty_line_is_named(text, code, where):
    with pytest.raises(DataError) as caught:
        LINES.decode(text)
    assert (caught.value.code, caught.value.where) == (code, where)


@pytest.mark.parametrize(
    "content_type", ["application/jsonlines", "application/x-jsonlines", "application/jsonl"]
)
def test_json_lines_go_by_several_names(decode, content_type):
    assert decode(content_type, b"[5,1]", label_size=1).labels.tolist() == [5]


# --- answers --------------------------------------------------------------------------------------

ANSWERS = [
    (np.array([0.1, 2], np.float32), [0.1, 2.0]),
    (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    (np.array([[0.1, np.nan], [np.inf, 1e30]], ">f4"), [[0.1, None], [None, 1e30]]),
    (np.array([0.1, np.nan]), [0.1, None]),
    (np.array([True, False]), [True, False]),
    (np.array(["cat", "dog"]), ["cat", "dog"]),
    (np.array([{"a": 1}, None], dtype=object), [{"a": 1}, None]),
    (np.array([0.5], np.float16), [0.5]),
    (np.zeros((2, 0)), [[], []]),
    (np.zeros((0, 2)), []),
    (np.asfortranarray(np.array([[1, 2], [3, 4]], np.uint8)), [[1, 2], [3, 4]]),
    ([1, "zwei – drei", None, float("nan"), {"a": [np.float32(0.1)]}, np.int64(7), np.bool_(True)],
     [1, "zwei – drei", None, None, {"a": [0.1]}, 7, True]),
    ((np.array([0.1], np.float32), [float("inf")]), [[0.1], [None]]),
    ([{1: 0.5, np.int64(2): 0.5}], [{"1": 0.5, "2": 0.5}]),
    ([10**30, -(2**63), 2**64 - 1], [10**30, -(2**63), 2**64 - 1]),
    ({"predicted_label": np.array([3, 1]), "score": np.array([[0.1, np.nan], [1, 0]], np.float32),
      "text": ["a", "b"]},
     [{"predicted_label": 3, "score": [0.1, None], "text": "a"},
      {"predicted_label": 1, "score": [1.0, 0.0], "text": "b"}]),
]


@pytest.mark.parametrize(("given", "expected"), ANSWERS)
def test_answers_are_valid_json_with_null_for_nan(given, expected):
    def refuse(name):
        raise AssertionError(name)

    document = json.loads(JSON.encode(given), parse_constant=refuse)
    assert document == {"predictions": expected}
    lines = LINES.encode(given).decode().splitlines()
    assert [json.loads(line, parse_constant=refuse) for line in lines] == expected


@pytest.mark.parametrize(
    "value", [object(), b"bytes", {1, 2}, "\ud800", {"\ud800": 1}, {2.5: 1}, {True: 1}, 1j]
)
def test_a_prediction_that_json_cannot_hold_is_the_algorithms_error(value):
    with pytest.raises(AlgorithmError) as caught:
        JSON.encode([value])
    assert caught.value.code == "PREDICTION_NOT_ENCODABLE"


@given(MATRICES)
def test_what_is_written_is_read_back_to_the_last_bit(matrix):
    document = json.loads(JSON.encode(matrix))
    np.testing.assert_array_equal(
        JSON.decode(body({"instances": document["predictions"]})).features, matrix
    )
    np.testing.assert_array_equal(LINES.decode(LINES.encode(matrix)).features, matrix)


@given(MATRICES)
def test_a_batch_is_read_as_its_single_records(matrix):
    lines = LINES.encode(matrix)
    singles = [LINES.decode(line).features for line in lines.splitlines()]
    np.testing.assert_array_equal(LINES.decode(lines).features, np.concatenate(singles))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
        lambda inner: st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["features", "instances", "data", "values", "keys", "shape", "label"]),
            inner, max_size=3,
        ),
        max_leaves=12,
    )
)
def test_any_document_is_read_or_refused_with_a_code(document):
    try:
        JSON.decode(json.dumps(document).encode())
    except DataError as error:
        assert error.code.isupper()


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    | st.floats(width=32).map(np.float32) | st.integers(-(2**31), 2**31 - 1).map(np.int32)
)


@given(
    st.one_of(
        st.lists(
            st.recursive(SCALARS, lambda x: st.lists(x) | st.dictionaries(st.text(), x),
                         max_leaves=6)
        ),
        arrays.arrays(
            st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_, np.float16]),
            arrays.array_shapes(max_dims=3),
        ),
    )
)
def test_both_encoders_write_the_same_document(given):
    pytest.importorskip("orjson")
    real = json_text.accelerator
    texts = []
    for module in (__import__("orjson"), None):
        json_text.accelerator = lambda module=module: module
        try:
            texts.append(JSON.encode(given))
        finally:
            json_text.accelerator = real
    assert json.loads(texts[0]) == json.loads(texts[1])


def test_the_accelerator_is_orjson_where_it_is_installed(monkeypatch):
    monkeypatch.undo()  # the fixture's replacement
    orjson = pytest.importorskip("orjson")
    assert json_text.accelerator() is orjson
    json_text.accelerator.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "orjson", None)
    assert json_text.accelerator() is None
    json_text.accelerator.cache_clear()


# --- the normal form of predictions ---------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    ["text", 3, None, {}, {"a": [1], "b": [1, 2]}, {"a": 3}, np.float32(1), (x for x in "ab"),
     np.array(3)],
)
def test_what_is_not_one_prediction_a_record_is_refused(wrong):
    with pytest.raises(AlgorithmError) as caught:
        predictions.normalise(wrong)
    assert caught.value.code == "PREDICTION_SHAPE"


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "S3", "V2"])
def test_arrays_of_no_number_or_text_are_refused(dtype):
    with pytest.raises(AlgorithmError) as caught:
        predictions.normalise(np.zeros(2, dtype=dtype))
    assert caught.value.code == "PREDICTION_NOT_ENCODABLE"


@pytest.mark.parametrize(
    ("given", "middle"),
    [
        (np.arange(4), [1, 2]),
        ([1, 2, 3, 4], [2, 3]),
        ({"a": np.arange(4), "b": list("wxyz")}, {"a": [1, 2], "b": ["x", "y"]}),
    ],
)
def test_predictions_are_counted_and_cut_by_record(given, middle):
    assert predictions.count(given) == 4
    part = predictions.take(given, 1, 3)
    if isinstance(part, dict):
        assert {name: list(column) for name, column in part.items()} == middle
    else:
        assert list(part) == middle


def test_a_wrong_value_s_cure_does_not_promise_null(decode):
    """`null` decodes to nan, and whoever needs finite values refuses it."""
    with pytest.raises(DataError) as caught:
        decode("application/json", b'{"instances": [[1, "x"]]}')
    assert (caught.value.code, caught.value.expected) == ("RECORD_NOT_A_NUMBER", "a JSON number")


NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**25), 10**25).map(str),
    st.sampled_from(
        ["0", "-0", "-0.0", "1e400", "5e-324", "1e39", "3.4028235677973366e38", "1E+05"]
    ),
)
PIECES = st.one_of(
    NUMBERS, NUMBERS,
    st.sampled_from(["null", "true", '"1"', '"["', "[]", "[1]", "[[1]]", "{}", '{"features":[1]}',
                     "NaN", "+1", "01", "", "1 2"]),
)
DOCUMENTS = st.builds(
    str.format,
    st.sampled_from(['{{"instances":{}}}', ' {{ "instances" : {} }} ', "{}", "[{}]", '{{"a":{}}}',
                     '{{"instances":{},"a":1}}', '{{"instances":[[1]],"instances":{}}}',
                     '{{"inst\\u0061nces":{}}}', "{}x", '{{"a":{{"instances":{}}}}}',
                     "\ufeff{}", "\ufeff\ufeff{}"]),
    st.lists(st.lists(PIECES, max_size=4).map(lambda row: f"[{', '.join(row)}]"), max_size=4).map(
        lambda rows: f"[{','.join(rows)}]"
    ) | st.lists(PIECES, max_size=4).map(lambda row: f"[{','.join(row)}]"),
)


@given(text=DOCUMENTS, label_size=st.integers(0, 2))
def test_numbers_are_read_to_the_same_bits_and_refused_with_the_same_words_by_each_parser(
    text, label_size
):
    def outcome():
        try:
            batch = json_document.FORMAT.decode(text.encode(), label_size=label_size, where="f")
        except DataError as error:
            return str(error)
        return batch.features.shape, batch.features.tobytes(), repr(batch.labels)

    with pytest.MonkeyPatch.context() as patch:
        found = outcome()
        patch.setattr(json_document, "document", lambda body: None)
        assert outcome() == found
