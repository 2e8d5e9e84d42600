"""Records in pieces: whatever the cuts, the same records and the same errors as in one go."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byoa.container import records
from byoa.container.channels import open_channels
from byoa.container.contract import ChannelConfig, InputDataConfig, Layout
from byoa.container.errors import DataError
from byoa.container.formats import npy, recordio, recordio_protobuf, registry
from byoa.container.formats.base import Part
from byoa.container.media_types import parse_media_type


@contextmanager
def channel(files, content_type, *, piece=None):
    """A channel of these files, cut into pieces of `piece` bytes."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if piece is not None:
            patch.setattr(records, "PIECE_BYTES", piece)
            patch.setattr(records, "_DEALT_BYTES", max(1, piece // 8))
        layout = Layout(Path(folder))
        layout.channel("train").mkdir(parents=True)
        for name, data in files.items():
            (layout.channel("train") / name).write_bytes(data)
        config = InputDataConfig({"train": ChannelConfig(content_type=content_type)})
        yield open_channels(layout, config)["train"]


def rows_of(batches):
    rows = []
    for features, labels in batches:
        table = features if labels is None else np.column_stack([labels, features])
        rows += [tuple(row) for row in table.tolist()]
    return rows


def csv_lines(table, end="\n", quoted=()):
    """Rows as lines; cells of the columns `quoted` in quotes, with a line end inside."""
    return "".join(
        ",".join(f'"{value}{end}"' if column in quoted else f"{value}"
                 for column, value in enumerate(row)) + end
        for row in table
    ).encode()


def frames(table):
    """recordio-protobuf of features; the label map of an answer renamed."""
    data = np.frombuffer(recordio_protobuf.FORMAT.encode(np.float32(table)), np.uint8)
    data = data.reshape(len(table), -1).copy()
    data[:, recordio.HEADER_BYTES] = 0x0A
    return data.tobytes()


def json_lines(table):
    return b"".join(json.dumps(row).encode() + b"\n" for row in table)


WRITERS = {
    "text/csv": [
        csv_lines, lambda rows: csv_lines(rows, "\r\n"), lambda rows: csv_lines(rows, "\r"),
        lambda rows: csv_lines(rows, quoted=(1,)), lambda rows: csv_lines(rows, "\r\n", (0, 1)),
        lambda rows: csv_lines(rows).rstrip(), lambda rows: csv_lines(rows) + b"\n\r\n\n",
        lambda rows: b"\xef\xbb\xbf" + csv_lines(rows),
    ],
    "text/csv; header=present": [
        lambda rows: b"a,b,c\n" + csv_lines(rows),
        lambda rows: b'"a\n""x""",b,c\r\n' + csv_lines(rows, "\r\n"),
    ],
    "text/csv; charset=utf-16": [lambda rows: csv_lines(rows).decode().encode("utf-16")],
    "application/jsonlines": [
        json_lines, lambda rows: json_lines(rows).rstrip(), lambda rows: json_lines(rows) + b" \n\n"
    ],
    "application/json": [lambda rows: json.dumps(rows).encode()],
    "application/x-recordio-protobuf": [frames],
    "application/x-npy": [
        lambda rows: npy.FORMAT.encode(np.float32(rows)),
        lambda rows: b"".join(npy.FORMAT.encode(np.float32([row])) for row in rows),
    ],
}


@st.composite
def contents(draw):
    """A content type, files of one width, and the records in them."""
    content_type = draw(st.sampled_from(list(WRITERS)))
    width = draw(st.integers(2, 4))
    cells = st.integers(-9999, 9999)
    files, rows = {}, []
    for number in range(draw(st.integers(1, 4))):
        table = draw(st.lists(st.lists(cells, min_size=width, max_size=width), max_size=60))
        data = draw(st.sampled_from(WRITERS[content_type]))(table) if table else b""
        zipped = draw(st.booleans())
        files[f"{number}.gz" if zipped else f"{number}"] = gzip.compress(data) if zipped else data
        rows += [tuple(map(float, row)) for row in table]
    return content_type, files, rows


@settings(max_examples=150, deadline=None)
@given(
    contents(), st.integers(1, 600), st.integers(1, 70), st.integers(0, 50), st.integers(1, 4)
)
def test_every_record_comes_once_whatever_the_cuts(content, piece, size, shuffle, ranks):
    content_type, files, rows = content
    if not rows:
        return
    label_size = 0 if content_type == "application/x-recordio-protobuf" else 1
    with channel(files, content_type, piece=piece) as data:
        assert rows_of([data.load(label_size=label_size)]) == rows
        batches = list(data.batches(size, label_size=label_size))
        assert rows_of(batches) == rows
        assert {len(batch.features) for batch in batches[:-1]} <= {size}
        assert 0 < len(batches[-1].features) <= size
        shares = [
            rows_of(data.batches(
                size, label_size=label_size, shuffle=shuffle, seed=1, rank=rank, ranks=ranks
            ))
            for rank in range(ranks)
        ]
        assert Counter(row for share in shares for row in share) == Counter(rows)


FAULTS = {
    "text/csv": (csv_lines, [b"1\n", b"1,2,3,4\n", b"1,x,3\n", b"\n", b'1,"2"x,3\n', b"1,,3\n",
                             b'1,"\xff",3\n', b"\xef\xbb\xbf1,2,3\n"]),
    "text/csv; charset=cp1252": (csv_lines, [b"1,2,\x81\n"]),
    "application/jsonlines": (json_lines, [b"[1]\n", b"[1,2,3,4]\n", b'[1,"x",3]\n', b"\n", b"{\n",
                                           b'{"features":[2],"label":1}\n', b"[true,1,2]\n"]),
    "application/x-recordio-protobuf": (frames, [
        frames([[1, 2]]), frames([[1, 2, 3, 4]]), b"\0" * 8, recordio.frame(b"\xff\xff\xff"),
        recordio.frame(b""), frames([[1, 2, 3]])[:20],
    ]),
}


@pytest.mark.parametrize(
    ("content_type", "fault"),
    [(name, fault) for name, (_, faults) in FAULTS.items() for fault in faults],
)
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 400))
def test_a_fault_is_named_as_in_one_go_whatever_the_cuts(
    content_type, fault, before, behind, piece
):
    writer = FAULTS[content_type][0]
    data = b"".join([
        writer([[n, 20, 300] for n in range(before)]), fault,
        writer([[n, 20, 300] for n in range(behind)]),
    ])
    media = parse_media_type(content_type)
    with pytest.raises(DataError) as expected:
        registry.find(media).decode(data, media, label_size=1, where="train/a")
    with channel({"a": data}, content_type, piece=piece) as train:
        with pytest.raises(DataError) as caught:
            list(train.batches(7))
    assert str(caught.value) == str(expected.value)


@pytest.mark.parametrize("piece", [40, 1 << 20])
def test_a_fault_in_a_part_that_one_rank_decodes_is_named_by_its_byte(piece):
    lines = b"1,2,3\n" * 99 + b"4,5,x\n" + b"1,2,3\n" * 50
    with channel({"a.csv": lines}, None, piece=piece) as train:
        faults = []
        for rank in range(3):
            try:
                list(train.batches(7, rank=rank, ranks=3))
            except DataError as error:
                faults.append(error)
    if piece == 40:
        (fault,) = faults
        after, record = _numbers(fault.where)
        assert after + 6 * (record - 1) == 99 * 6
    else:
        assert [fault.where for fault in faults] == ["train/a.csv record 100, column 3"] * 3


def _numbers(where):
    words = where.replace(",", "").split()
    return int(words[words.index("byte") + 1]), int(words[words.index("record") + 1])


def test_large_files_are_dealt_in_parts_of_one_size():
    rows = [(n, n % 7) for n in range(1_000_000, 1_200_000)]
    with channel({"a.csv": csv_lines(rows)}, None) as train:
        shares = [rows_of(train.batches(1000, rank=rank, ranks=3)) for rank in range(3)]
    assert sorted(row for share in shares for row in share) == rows
    for share in shares:
        assert abs(len(share) - len(rows) / 3) < len(rows) / 500


@pytest.mark.parametrize("ranks", [1, 2])
def test_files_of_another_width_are_refused_on_every_rank(ranks):
    files = {"a.csv": b"1,2,3\n" * 20, "b.csv": b"1,2\n" * 20}
    with channel(files, None, piece=16) as train:
        for rank in range(ranks):
            with pytest.raises(DataError) as caught:
                list(train.batches(7, rank=rank, ranks=ranks))
            assert caught.value.where == "train/b.csv"
            assert "has 1 features a record, train/a.csv has 2" in caught.value.message


def test_a_header_alone_is_a_file_without_a_record():
    for data in (b"a,b\n", b"a,b", b"a,b\n\n\n"):
        with channel({"a.csv": data}, "text/csv; header=present") as train:
            with pytest.raises(DataError) as caught:
                list(train.batches(1))
        assert (caught.value.code, caught.value.where) == ("BODY_EMPTY", "train/a.csv")


def test_a_record_that_does_not_end_is_refused_before_it_fills_memory(monkeypatch):
    from byoa.container import cutter

    monkeypatch.setattr(cutter, "RECORD_LIMIT_BYTES", 1000)
    with channel({"a.csv": b"1," * 4000}, None, piece=100) as train:
        with pytest.raises(DataError) as caught:
            list(train.batches(1))
    assert (caught.value.code, caught.value.where) == ("RECORD_TOO_WIDE", "train/a.csv")


def libsvm(table):
    """Zeros are left out, as writers do; a comment now and then."""
    return b"".join(
        b" ".join([b"%d" % row[0], *(b"%d:%d" % pair for pair in enumerate(row[1:]) if pair[1])])
        + (b" # odd\n# by itself\n" if row[0] % 5 == 1 else b"\n") for row in table
    )


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(-9, 9), *[st.sampled_from([0, 0, 1, -20])] * 3), min_size=1,
            max_size=30,
        ), min_size=1, max_size=3,
    ), st.integers(1, 300), st.integers(1, 40), st.integers(1, 4), st.booleans(),
)
def test_libsvm_has_one_width_whatever_the_cuts(tables, piece, size, ranks, declared):
    files = {f"{number}": libsvm(table) for number, table in enumerate(tables)}
    rows = [row for table in tables for row in table]
    content_type = "text/libsvm; features=3" if declared else "text/libsvm"
    options = {} if declared else {"columns": 3}
    with channel(files, content_type, piece=piece) as train:
        assert rows_of(train.batches(size, **options)) == rows
        shares = [
            rows_of(train.batches(size, rank=rank, ranks=ranks, **options))
            for rank in range(ranks)
        ]
        assert Counter(row for share in shares for row in share) == Counter(rows)
        assert rows_of([train.load(columns=3)]) == rows
        if all(any(any(row[1:]) for row in table) for table in tables):
            loaded = train.load()
            width = max(place for row in rows for place in range(1, 4) if row[place])
            assert loaded.features.shape[1] == (3 if declared else width)
            assert rows_of([loaded]) == [row[:1 + loaded.features.shape[1]] for row in rows]


@pytest.mark.parametrize(
    "fault", [b"x 1:1\n", b"1 4:1\n", b"\n", b"1:2\n", b"1 -1:1\n", b"1 1:1 1:2\n", b"1 2\n"]
)
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 400))
def test_a_fault_in_libsvm_is_named_as_in_one_go_whatever_the_cuts(fault, before, behind, piece):
    data = libsvm([[n, 20, 0, 3] for n in range(before)]) + fault + b"1 1:1\n" * behind
    media = parse_media_type("text/libsvm; features=3")
    with pytest.raises(DataError) as expected:
        registry.find(media).decode(data, media, label_size=1, where="train/a")
    with channel({"a": data}, str(media), piece=piece) as train:
        with pytest.raises(DataError) as caught:
            list(train.batches(7))
    assert str(caught.value) == str(expected.value)


@pytest.mark.parametrize("content_type", [None, "text/libsvm"])
def test_batches_of_libsvm_need_a_declared_width(content_type):
    with channel({"a.svm": b"1 1:2\n"}, content_type) as train:
        with pytest.raises(DataError) as caught:
            list(train.batches(1))
        assert (caught.value.code, caught.value.where) == ("RECORD_WIDTH", "train/a.svm")
        for way in ("columns=N", "text/libsvm; features=N", "load()"):
            assert way in caught.value.remedy
        assert rows_of(train.batches(1, columns=2)) == [(1, 0, 2)]
        assert rows_of([train.load()]) == [(1, 0, 2)]


def test_a_width_that_is_declared_is_not_the_algorithm_s_to_change():
    with channel({"a": b"1 1:2\n"}, "text/libsvm; features=2") as train:
        for call in (lambda: train.load(columns=3), lambda: list(train.batches(1, columns=3))):
            with pytest.raises(DataError, match="3 columns, as the algorithm asks for"):
                call()


@pytest.mark.parametrize(
    ("files", "where"),
    [
        ({"a.csv": b"1,2,3\n", "b.svm": b"1 3:1\n"}, "train/b.svm"),
        ({"a.svm": b"1 3:1\n", "b.csv": b"1,2,3\n"}, "train/b.csv"),
        ({"a.svm": b"1 1:1\n", "b.csv": b"1,2,3\n", "c.svm": b"1 3:1\n"}, "train/c.svm"),
    ],
)
def test_only_libsvm_is_widened_to_fit(files, where):
    with channel(files, None) as train:
        with pytest.raises(DataError) as caught:
            train.load()
        assert (caught.value.code, caught.value.where) == ("RECORD_WIDTH", where)


def test_short_records_of_many_columns_are_decoded_a_few_at_a_time():
    # In one piece they would be 4 GB.
    with channel({"a": b"1 7:2\n" * 10_000}, "text/libsvm; features=100000") as train:
        count = 0
        for batch in train.batches(1000):
            assert batch.features.shape == (1000, 100_000)
            assert (batch.features[:, 7] == 2).all()
            count += 1
            if count == 2:
                break


def array(shape, order="C", dtype=np.float32):
    stream = io.BytesIO()
    np.save(stream, np.asarray(np.arange(np.prod(shape)).reshape(shape), dtype, order))
    return stream.getvalue()


@pytest.mark.parametrize(("order", "piece"), [("C", 100), ("C", 1 << 20), ("F", 100)])
@pytest.mark.parametrize("ranks", [1, 3])
def test_an_array_longer_than_any_record_may_be_is_read_row_by_row(
    monkeypatch, order, piece, ranks
):
    from byoa.container import cutter

    monkeypatch.setattr(cutter, "RECORD_LIMIT_BYTES", 1000)
    files = {"a.npy": array((500, 4), order) + array((3, 4), order, np.int64), "b.npy": array((4,))}
    expected = [tuple(row) for part in ((500, 4), (3, 4), (1, 4))
                for row in np.arange(np.prod(part), dtype=float).reshape(part).tolist()]
    with channel(files, None, piece=piece) as train:
        assert rows_of([train.load()]) == expected
        shares = [rows_of(train.batches(7, rank=rank, ranks=ranks)) for rank in range(ranks)]
    assert shares == [expected[rank::ranks] for rank in range(ranks)]


@pytest.mark.parametrize(
    "fault",
    [
        array((9, 4))[:-5], array((9, 4))[:20], array((9, 4))[:7], array((9, 3)), array((0, 4)),
        array((2, 3, 4)), array((9, 4))[:6] + b"\x09" + array((9, 4))[7:], b"1,2,3\n" * 9,
        array((9, 4)).replace(b"descr", b"DESCR"), array((9, 4)).replace(b"<f4", b"|O8"),
        array((9, 4)).replace(b"(9, 4)", b"(9000000000000, 4)"),
    ],
)
@settings(max_examples=5, deadline=None)
@given(st.integers(1, 400))
def test_a_fault_in_an_array_is_named_as_in_one_go_whatever_the_cuts(fault, piece):
    for data in (array((30, 4)) + fault, fault):
        try:
            registry.by_suffix(".npy").decode(data, label_size=1, where=Part("train/a.npy"))
        except DataError as error:
            expected = str(error)
        else:
            continue  # of another width than the array before it alone
        with channel({"a.npy": data}, None, piece=piece) as train:
            with pytest.raises(DataError) as caught:
                list(train.batches(7))
        assert str(caught.value) == expected
