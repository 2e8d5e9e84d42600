"""Channels: which files count, how they become one batch, and errors that name the file."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from byoa.container.channels import Channel, open_channels
from byoa.container.contract import ChannelConfig, InputDataConfig, Layout
from byoa.container.errors import DataError, UnsupportedError
from byoa.container.formats import npy
from byoa.container.media_types import UnsupportedMediaType


@pytest.fixture
def channel(channels):
    return channels.files


def test_channels_come_from_the_configuration_and_not_from_the_directory(tmp_path):
    # TRAIN-31
    layout = Layout(tmp_path)
    for name in ("train", "code", "sm_drivers"):
        layout.channel(name).mkdir(parents=True)
    (layout.data / "train-manifest").write_text("{}")
    config = InputDataConfig({"validation": ChannelConfig(), "train": ChannelConfig()})
    channels = open_channels(layout, config)
    assert list(channels) == ["validation", "train"]
    assert channels["train"] == Channel("train", ChannelConfig(), layout.data / "train")


def test_files_are_sorted_and_markers_are_skipped(channel):
    # TRAIN-31, TRAIN-90, TRAIN-173
    data = channel({
        "b.csv": b"", "a/2.csv": b"", "a/1.csv": b"", "a/b/3.csv": b"", ".hidden": b"",
        ".git/config": b"", "._a.csv": b"", "c.csv.sagemaker-uploading": b"",
        "c.csv.sagemaker-uploaded": b"", "d.sagemaker-ignore": b"", "train-manifest": b"",
        "_SUCCESS": b"", "a/train-manifest": b"",
    })
    names = [path.relative_to(data.directory).as_posix() for path in data.files()]
    assert names == ["a/1.csv", "a/2.csv", "a/b/3.csv", "a/train-manifest", "b.csv"]


def test_links_to_files_are_data(channel, tmp_path):
    data = channel({})
    (tmp_path / "object").write_bytes(b"1,2\n")
    (data.directory / "linked.csv").symlink_to(tmp_path / "object")
    assert data.load().features.tolist() == [[2]]


def test_a_channel_is_one_batch_in_the_order_of_its_files(channel):
    data = channel({"2.csv": b"3,5,6\n", "1.csv": b"1,1,2\r\n2,3,4"})
    features, labels = data.load()
    assert features.tolist() == [[1, 2], [3, 4], [5, 6]] and labels.tolist() == [1, 2, 3]
    assert features.dtype == labels.dtype == np.float32 and features.flags.c_contiguous


def test_the_label_leads_unless_it_is_said_otherwise(channel):
    # TRAIN-125
    files = {"a": b"1,2,3\n"}
    assert channel(files, "text/csv").load().labels.tolist() == [1]
    assert channel(files, "text/csv;label_size=0").load().labels is None
    assert channel(files, "text/csv").load(label_size=0).features.shape == (1, 3)
    assert channel(files, "text/csv;label_size=0").load(label_size=2).labels.tolist() == [[1, 2]]


def test_the_content_type_wins_over_the_suffix(channel):
    data = channel({"a.csv": b'{"features":[1,2],"label":3}\n'}, "application/jsonlines")
    assert data.load().features.tolist() == [[1, 2]]


def test_formats_mix_by_suffix_where_no_content_type_is_given(channel):
    data = channel({
        "a.csv": b"1,2\n", "b.jsonl": b'{"features":[3],"label":4}\n', "c.JSON": b"[[5,6]]",
        "d.npy": npy.FORMAT.encode(np.array([[7, 8]])),
    })
    features, labels = data.load()
    assert (features.tolist(), labels.tolist()) == ([[2], [3], [6], [8]], [1, 4, 5, 7])


def test_each_file_has_its_own_header(channel):
    files = {"a": b"y,x\n1,2\n", "b": b'"y","x"\n3,4\n'}
    assert channel(files, "text/csv; header=present").load().labels.tolist() == [1, 3]


def test_gzip_is_decompressed(channel):
    body = gzip.compress(b"1,2\n")
    assert channel({"a.csv.gz": body, "b.csv": b"3,4\n"}).load().labels.tolist() == [1, 3]
    assert channel({"a.csv.gz": body, "b.csv": b"3,4\n"}, "text/csv").load().labels.size == 2


def test_files_without_a_byte_hold_no_record(channel):
    files = {"part-0": b"", "part-1": b"1,2\n", "part-2.gz": gzip.compress(b""), "part-3.gz": b""}
    assert channel(files, "text/csv").load().labels.tolist() == [1]


@pytest.mark.parametrize(
    ("files", "content_type", "code", "where", "message"),
    [
        ({"a.csv": b"1,2\n", "part-2.csv": b"1,2\n" * 16 + b"1,2,3\n"}, None, "RECORD_WIDTH",
         "train/part-2.csv record 17", "has 3 columns, expected 2"),
        ({"a.csv": b"1,2\n", "sub/b.csv": b"1,2\n" * 16 + b"1,x\n"}, None, "RECORD_NOT_A_NUMBER",
         "train/sub/b.csv record 17, column 2", "'x'"),
        ({"a.csv": b"1,2\n", "b.csv": b"1,2,3\n"}, None, "RECORD_WIDTH", "train/b.csv",
         "has 2 features a record, train/a.csv has 1"),
        ({"a.jsonl": b'{"features":[1],"label":1}', "b.jsonl": b'{"features":[1]}'}, None,
         "RECORD_WIDTH", "train/b.jsonl", "has 0 labels"),
        ({"a.csv.gz": b"1,2\n"}, None, "BODY_MALFORMED", "train/a.csv.gz", "gzip"),
        ({"a.csv.gz": gzip.compress(b"1,2\n" * 99)[:-9]}, None, "BODY_MALFORMED",
         "train/a.csv.gz", "gzip"),
        ({"a.csv": b"\n"}, None, "BODY_EMPTY", "train/a.csv", "no record"),
        ({"a.parquet": b"PAR1"}, None, "FORMAT_UNKNOWN", "train/a.parquet", ".parquet"),
        ({"data": b"1,2"}, None, "FORMAT_UNKNOWN", "train/data", "(none)"),
        ({"data.gz": b"1,2"}, None, "FORMAT_UNKNOWN", "train/data.gz", "(none)"),
    ],
)
def test_a_fault_is_named_with_file_and_record(channel, files, content_type, code, where, message):
    with pytest.raises(DataError) as caught:
        channel(files, content_type).load()
    assert (caught.value.code, caught.value.where) == (code, where)
    assert message in caught.value.message


def test_an_unknown_suffix_lists_suffixes_and_content_types(channel):
    with pytest.raises(DataError) as caught:
        channel({"a.xyz": b"1"}).load()
    for name in (".csv", "text/csv", ".npy", "application/x-npy", ".gz"):
        assert name in caught.value.expected
    assert "ContentType" in caught.value.remedy


def test_a_content_type_that_is_not_known_is_refused(channel):
    with pytest.raises(UnsupportedMediaType) as caught:
        channel({"a.csv": b"1,2"}, "application/x-parquet").load()
    assert "text/csv" in caught.value.expected


@pytest.mark.parametrize("files", [{}, {".hidden": b"1"}, {"a.csv": b""}])
def test_a_channel_without_data_says_what_to_do(channel, files):
    for call in (channel(files).load, channel(files).files):
        if call.__name__ == "files" and "a.csv" in files:
            continue
        with pytest.raises(DataError) as caught:
            call()
        assert caught.value.code == "CHANNEL_EMPTY"
        assert "'train'" in caught.value.message and "S3Uri" in caught.value.remedy


def test_a_channel_whose_directory_is_missing_says_so(tmp_path):
    missing = Channel("train", ChannelConfig(), tmp_path / "train")
    with pytest.raises(DataError, match="does not exist") as caught:
        missing.load()
    assert caught.value.code == "CHANNEL_EMPTY"


def test_fast_file_reads_as_file(channel):
    fast = channel({"a.csv": b"1,2"}, input_mode="FastFile")
    assert fast.load().labels.tolist() == [1]
    assert [path.name for path in fast.files()] == ["a.csv"]
    assert [batch.labels.tolist() for batch in fast.batches(1)] == [[1]]


def test_a_pipe_has_no_files_and_says_what_has(channels):
    with pytest.raises(UnsupportedError) as caught:
        channels.pipe("text/csv").files()
    assert caught.value.code == "PIPE_HAS_NO_FILES"
    assert "FastFile" in caught.value.remedy and "batches()" in caught.value.remedy


def rows_of(batches):
    """Label and features of each record, as tuples, in order."""
    rows = []
    for features, labels in batches:
        table = features if labels is None else np.column_stack([labels, features])
        rows += [tuple(row) for row in table.tolist()]
    return rows


FILES = {
    "b.csv": b"4,5,6\n7,8,9\n10,11,12", "a.csv.gz": gzip.compress(b"1,2,3\n"), "empty.csv": b"",
    "c/d.csv": b"13,14,15\r\n16,17,18\r\n",
}
RECORDS = [(1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12), (13, 14, 15), (16, 17, 18)]


def test_batches_have_the_size_asked_for_and_the_last_one_what_is_left(channel):
    # TRAIN-90
    batches = list(channel(FILES).batches(4))
    assert [batch.features.shape for batch in batches] == [(4, 2), (2, 2)]
    assert rows_of(batches) == rows_of([channel(FILES).load()]) == RECORDS
    for features, labels in batches:
        assert features.dtype == labels.dtype == np.float32
        assert features.flags.c_contiguous and features.flags.writeable


def test_no_batch_is_empty(channel):
    assert [len(batch.features) for batch in channel(FILES).batches(3)] == [3, 3]
    assert [len(batch.features) for batch in channel(FILES).batches(100)] == [6]


def test_label_size_means_in_batches_what_it_means_in_load(channel):
    # TRAIN-125
    files = {"a": b"1,2,3\n"}
    for content_type, size in (
        ("text/csv", None), ("text/csv;label_size=0", None), ("text/csv;label_size=0", 2),
        ("text/csv", 0),
    ):
        loaded = channel(files, content_type).load(label_size=size)
        (batch,) = channel(files, content_type).batches(9, label_size=size)
        assert rows_of([batch]) == rows_of([loaded])
        assert (batch.labels is None) == (loaded.labels is None)


def test_a_shuffle_depends_on_seed_and_epoch_alone(channel):
    data = channel({"a.csv": b"".join(b"%d,0\n" % n for n in range(1000))})

    def order(**options):
        return [row[0] for row in rows_of(data.batches(7, shuffle=100, **options))]

    first = order(seed=1)
    assert sorted(first) == list(range(1000)) and first != sorted(first)
    assert order(seed=1) == first == [row[0] for row in rows_of(
        data.batches(64, shuffle=100, seed=1)
    )]
    assert order(seed=2) != first != order(seed=1, epoch=1)


def test_small_files_are_dealt_to_ranks_record_by_record(channel):
    data = channel(FILES)
    shares = [rows_of(data.batches(2, rank=rank, ranks=4)) for rank in range(4)]
    assert shares == [RECORDS[rank::4] for rank in range(4)]


def test_a_rank_for_which_there_is_no_record_gets_no_batch(channel):
    assert list(channel({"a.csv": b"1,2\n"}).batches(2, rank=1, ranks=2)) == []


def test_a_sharded_channel_is_divided_among_the_ranks_of_a_host_alone(channel):
    # TRAIN-100
    data = channel(FILES, distribution="ShardedByS3Key", job={"hosts": 2})
    assert rows_of(data.batches(9, rank=1, ranks=2)) == RECORDS  # the only rank of its host
    assert rows_of(data.batches(9)) == RECORDS
    for host in (0, 2):
        shares = [rows_of(data.batches(9, rank=host + rank, ranks=4)) for rank in (0, 1)]
        assert shares == [RECORDS[::2], RECORDS[1::2]]
    with pytest.raises(UnsupportedError) as caught:
        data.batches(9, rank=1, ranks=3)
    assert caught.value.code == "RANKS_UNEVEN" and "FullyReplicated" in caught.value.remedy


def test_a_host_whose_shard_has_no_object_gets_no_batch(channel):
    # TRAIN-100
    sharded = channel({"a.csv": b""}, distribution="ShardedByS3Key", job={"hosts": 2})
    assert list(sharded.batches(2)) == []


@pytest.mark.parametrize("files", [{"a.csv": b""}, {"a.csv.gz": gzip.compress(b"")}, {}])
def test_a_channel_without_a_record_is_refused_by_batches_too(channel, files):
    with pytest.raises(DataError) as caught:
        list(channel(files).batches(2))
    assert caught.value.code == "CHANNEL_EMPTY"


@pytest.mark.parametrize(
    "wrong", [{"size": 0}, {"shuffle": -1}, {"seed": -1}, {"epoch": -1}, {"rank": -1},
              {"ranks": 0}, {"rank": 2, "ranks": 2}],
)
def test_arguments_out_of_range_are_refused_at_the_call(channel, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        channel(FILES).batches(**{"size": 1, **wrong})


def test_columns_that_the_algorithm_asks_for_are_checked(channel):
    data = channel(FILES)
    assert rows_of(data.batches(9, columns=2)) == rows_of([data.load(columns=2)]) == RECORDS
    for call in (lambda: list(data.batches(9, columns=3)), lambda: data.load(columns=3)):
        with pytest.raises(DataError, match="3 columns, as the algorithm asks for") as caught:
            call()
        assert (caught.value.code, caught.value.where) == ("RECORD_WIDTH", "train/a.csv.gz")


def test_a_file_that_cannot_be_read_is_named(channel):
    data = channel({"a.csv": b"1,2\n"})
    (data.directory / "b.csv").symlink_to("/proc/self/mem")  # opens, but does not read
    with pytest.raises(DataError) as caught:
        data.load()
    assert (caught.value.code, caught.value.where) == ("FILE_UNREADABLE", "train/b.csv")


def test_the_first_batch_of_each_pass_is_observed(channel):
    seen = []
    data = channel(FILES, job={"observe": lambda batch: seen.append(batch.features.tolist())})
    list(data.batches(2))
    data.load()
    assert [len(features) for features in seen] == [2, 6]
