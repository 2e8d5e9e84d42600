"""Pipe channels through real FIFOs: epochs, early ends, waits that have an end, and wrapping."""

from __future__ import annotations

import contextlib
import gc
import gzip
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from byoa.container import pipe as pipes
from byoa.container.errors import ContractError, DataError, UnsupportedError
from byoa.container.formats import npy, recordio

LINES = [b"%d,%d,0.5\n" % (n, 2 * n) for n in range(30_000)]
LABELS = list(range(30_000))


def labels_of(batches):
    return [int(label) for batch in batches for label in batch.labels]


def reading():
    """The threads and descriptors with which a channel is read."""
    fifos = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            name = os.readlink(f"/proc/self/fd/{descriptor}")
            info = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
            mode = int(info.split("flags:")[1].split()[0], 8) & os.O_ACCMODE
            if "/input/data/train_" in name and mode == os.O_RDONLY:
                fifos.append(name)
    return [t.name for t in threading.enumerate() if t.name.startswith("channel ")], fifos


def test_each_pass_reads_the_next_fifo_to_its_end(channels, platform):
    # TRAIN-94, TRAIN-95, TRAIN-96
    train = channels.pipe("text/csv")
    with platform([b"".join(LINES), b"7,8,9\n", b"1,2,3\n4,5,6"], delay=0.05) as writer:
        assert labels_of(train.batches(512)) == LABELS
        assert train.load().features.tolist() == [[8, 9]]
        assert labels_of(train.batches(512, epoch=0)) == [1, 4]
        assert writer.wait(3) == ["written"] * 3
    assert reading() == ([], [])


def test_a_pipe_gives_what_the_files_give(channels, platform):
    content = b"".join(LINES)
    files = channels.files({"a.csv": content}, "text/csv")
    with platform([content, content], chunk=7_001):
        train = channels.pipe("text/csv")
        for options in ({}, {"shuffle": 1000, "seed": 3}):
            expected = files.batches(512, **options)
            for theirs, ours in zip(train.batches(512, **options), expected, strict=True):
                np.testing.assert_array_equal(theirs.features, ours.features)
                np.testing.assert_array_equal(theirs.labels, ours.labels)


def test_leaving_a_pass_early_closes_its_fifo_and_the_next_pass_begins(channels, platform):
    # TRAIN-95
    train = channels.pipe("text/csv")
    long = b"".join(LINES) * 8
    with platform([long, long, b"1,2,3\n"]) as writer:
        for batch in train.batches(100):
            assert len(batch.labels) == 100
            break
        assert reading() == ([], [])
        passes = train.batches(100)
        next(passes)
        passes.close()
        assert reading() == ([], [])
        assert labels_of(train.batches(100)) == [1]
        assert writer.wait(3) == ["closed", "closed", "written"]


def test_a_stop_ends_the_wait_for_a_fifo_and_for_its_writer(channels):
    # TRAIN-150
    train = channels.pipe("text/csv", job={"stopping": lambda: True})
    assert list(train.batches(1)) == []  # there is no FIFO
    os.mkfifo(channels.layout.fifo("train", 0))  # nobody writes
    assert list(train.batches(1)) == []
    assert reading() == ([], [])


def test_an_iterator_that_is_dropped_leaves_neither_thread_nor_descriptor(channels, platform):
    train = channels.pipe("text/csv")
    with platform([b"".join(LINES) * 8] * 2) as writer:
        for _ in range(2):
            passes = train.batches(10)
            next(passes)
            assert reading()[0] == ["channel train"]
            cycle = [passes]
            cycle.append(cycle)
            del passes, cycle
            gc.collect()
            assert reading() == ([], [])
        assert writer.wait(2) == ["closed", "closed"]


def test_a_second_pass_beside_the_first_one_is_refused(channels, platform, monkeypatch):
    # TRAIN-95
    monkeypatch.setattr(pipes, "_BUSY_SECONDS", 0.1)
    train = channels.pipe("text/csv")
    with platform([b"".join(LINES) * 8, b"1,2,3\n"]):
        first = train.batches(10)
        next(first)
        with pytest.raises(UnsupportedError) as caught:
            next(train.batches(10))
        assert caught.value.code == "PIPE_BUSY" and "close()" in caught.value.remedy
        first.close()
        assert labels_of(train.batches(10)) == [1]


@pytest.mark.parametrize("call", ["batches", "load"])
def test_a_fifo_that_does_not_appear_ends_the_wait(channels, call):
    train = channels.pipe("text/csv")
    train.pipe.patience = 0.1
    with pytest.raises(ContractError) as caught:
        list(train.batches(1)) if call == "batches" else train.load()
    assert caught.value.code == "PIPE_MISSING"
    assert caught.value.where == str(channels.layout.data / "train_0")


def test_a_writer_that_falls_silent_ends_the_wait(channels, platform):
    train = channels.pipe("text/csv")
    train.pipe.patience = 0.2
    with platform([b"1,2,3\n4"], pause=60, chunk=6):
        with pytest.raises(ContractError) as caught:
            list(train.batches(1))
    assert caught.value.code == "PIPE_SILENT"


def test_a_plain_file_in_a_fifo_s_place_is_no_fifo(channels):
    channels.layout.fifo("train", 0).write_bytes(b"1,2,3\n")
    with pytest.raises(ContractError) as caught:
        channels.pipe("text/csv").load()
    assert caught.value.code == "PIPE_NOT_A_FIFO"


def test_a_stop_ends_a_pass_where_it_would_have_to_wait(channels, platform):
    # TRAIN-150
    asked = threading.Event()
    train = channels.pipe("application/jsonlines", job={"stopping": asked.is_set})
    with platform([b"[1,2]\n[3,4]\n"], pause=60, chunk=6):
        threading.Timer(0.1, asked.set).start()
        assert list(train.batches(1)) == []  # two whole records, but a piece is not full yet
    assert reading() == ([], [])


def test_a_stop_does_not_keep_records_back_that_are_there(channels, platform):
    train = channels.pipe("text/csv", job={"stopping": lambda: True})
    with platform([b"".join(LINES)]):
        assert labels_of(train.batches(100)) == LABELS


def test_a_stop_while_a_channel_is_loaded_is_an_error_and_no_half_channel(channels, platform):
    train = channels.pipe("text/csv", job={"stopping": lambda: True})
    with platform([b"1,2,3\n4,5,6\n"], pause=60, chunk=6):
        with pytest.raises(DataError) as caught:
            train.load()
    assert caught.value.code == "CHANNEL_STOPPED"


def test_a_fifo_without_a_byte_is_an_empty_channel(channels, platform):
    train = channels.pipe("text/csv")
    with platform([b"", b""]):
        for call in (train.load, lambda: list(train.batches(1))):
            with pytest.raises(DataError) as caught:
                call()
            assert caught.value.code == "CHANNEL_EMPTY"


def test_a_host_of_several_may_be_given_no_object(channels, platform):
    # TRAIN-100
    job = {"hosts": 2}
    with platform([b""]):
        train = channels.pipe("text/csv", distribution="ShardedByS3Key", job=job)
        assert list(train.batches(1)) == []


@pytest.mark.parametrize(
    ("content_type", "why"),
    [("application/json", "cannot be told apart"), ("text/csv; header=present", "header lines"),
     ("text/csv; charset=utf-16", "cannot be told apart")],
)
def test_what_cannot_be_cut_in_a_stream_is_refused_with_what_can(channels, content_type, why):
    # TRAIN-120
    train = channels.pipe(content_type)
    for call in (train.load, lambda: train.batches(1)):
        with pytest.raises(UnsupportedError, match=why) as caught:
            call()
        assert caught.value.code == "PIPE_NEEDS_RECORDIO"
        assert "FastFile" in caught.value.remedy and "RecordIO" in caught.value.remedy


def test_a_pipe_needs_a_content_type_because_it_has_no_suffix(channels):
    with pytest.raises(DataError, match="no file names") as caught:
        channels.pipe().batches(1)
    assert caught.value.code == "FORMAT_UNKNOWN"


def test_a_fifo_has_one_reader_a_host(channels, platform):
    # TRAIN-95
    with pytest.raises(UnsupportedError) as caught:
        channels.pipe("text/csv").batches(1, rank=1, ranks=2)
    assert caught.value.code == "PIPE_RANKS" and "FastFile" in caught.value.remedy
    with platform([b"1,2,3\n4,5,6\n7,8,9\n"]):
        train = channels.pipe("text/csv", job={"hosts": 2})
        assert labels_of(train.batches(9, rank=1, ranks=2)) == [4]


def test_an_error_counts_records_over_the_whole_stream(channels, platform):
    train = channels.pipe("text/csv")
    with platform([b"".join([*LINES * 5, b"1,x,3\n", *LINES])]):
        with pytest.raises(DataError) as caught:
            list(train.batches(100))
    assert caught.value.code == "RECORD_NOT_A_NUMBER"
    assert caught.value.where == "train_0 record 150001, column 2"


# --- RecordWrapperType=RecordIO -------------------------------------------------------------------


def wrapped(*objects):
    return b"".join(map(recordio.frame, objects))


def in_parts(data):
    """One record in three frames, as a writer splits it where the magic occurs in it."""

    def part(flag, payload):
        word = flag << 29 | len(payload)
        return recordio.MAGIC + word.to_bytes(4, "little") + payload + bytes(-len(payload) % 4)

    first, middle, last = data.split(recordio.MAGIC)
    return part(1, first) + part(2, middle) + part(3, last)


def arrays(*rows):
    return npy.FORMAT.encode(np.array(rows, np.float32))


@pytest.mark.parametrize(
    ("content_type", "objects"),
    [
        ("text/csv", [b"1,2,3\n4,5,6", b"", b"7,8,9\n"]),
        ("text/csv; header=present", [b"a,b,c\n1,2,3\n4,5,6", b"", b"a,b,c\n7,8,9\n"]),
        ("text/csv; charset=utf-16", ["1,2,3\n4,5,6\n".encode("utf-16"), "7,8,9".encode("utf-16")]),
        ("application/json", [b"[[1,2,3],[4,5,6]]", b"[7,8,9]"]),
        ("application/x-npy", [arrays([1, 2, 3], [4, 5, 6]), arrays([7, 8, 9])]),
        ("application/jsonlines", [b'{"features":[2,3],"label":1}\n{"features":[5,6],"label":4}',
                                   b'{"features":[8,9],"label":7}\n']),
    ],
)
@pytest.mark.parametrize("chunk", [5, 1 << 16])
def test_whole_objects_are_decoded_each_by_itself(channels, platform, content_type, objects, chunk):
    # TRAIN-114, TRAIN-120, TRAIN-121
    train = channels.pipe(content_type, record_wrapper="RecordIO")
    with platform([wrapped(*objects)] * 2, chunk=chunk):
        features, labels = train.load()
        assert (labels.tolist(), features.tolist()) == ([1, 4, 7], [[2, 3], [5, 6], [8, 9]])
        assert labels_of(train.batches(2)) == [1, 4, 7]


def test_an_object_in_parts_is_put_together_with_the_magic_between_them(channels, platform):
    # TRAIN-121
    magic = np.frombuffer(recordio.MAGIC, np.float32)[0]
    whole = arrays([0, magic, 1, magic])
    train = channels.pipe("application/x-npy;label_size=0", record_wrapper="RecordIO")
    with platform([in_parts(whole) + wrapped(arrays([5, 6, 7, 8]))]):
        assert train.load().features.tolist() == [[0, magic, 1, magic], [5, 6, 7, 8]]


def test_an_object_larger_than_memory_should_hold_is_read_in_pieces(channels, platform):
    train = channels.pipe("text/csv", record_wrapper="RecordIO")
    with platform([wrapped(b"".join(LINES) * 5, b"1,2,3\n4,x,6\n")]):
        passes = train.batches(1000)
        assert len([next(passes) for _ in range(150)]) == 150
        with pytest.raises(DataError) as caught:
            list(passes)
    assert caught.value.where == "train_0 object 2 record 2, column 2"


@pytest.mark.parametrize(
    ("stream", "message", "where"),
    [
        (b"1,2,3\n", "no RecordIO frame begins here (byte 0", "object 1"),
        (wrapped(b"1,2,3\n") + b"1,2,3\n", "no RecordIO frame begins here (byte 16", "object 2"),
        (wrapped(b"1,2,3\n")[:-1], "ends within a frame (byte 15", "object 1"),
        (wrapped(b"1,2,3\n")[:11], "ends within a frame (byte 11", "object 1"),
        (wrapped(b"1,2,3\n")[:6], "header is cut off (byte 0", "object 1"),
        (in_parts(recordio.MAGIC * 2)[8:], "parts of an object are out of order (byte 0",
         "object 1"),
        (in_parts(recordio.MAGIC * 2)[:16], "last part of the object is missing (byte 16",
         "object 1"),
    ],
)
def test_a_broken_frame_is_named_by_its_byte_in_the_stream(
    channels, platform, stream, message, where
):
    train = channels.pipe("text/csv", record_wrapper="RecordIO")
    with platform([stream]):
        with pytest.raises(DataError) as caught:
            list(train.batches(1))
    assert caught.value.code == "BODY_MALFORMED" and message in caught.value.message
    assert caught.value.where == f"train_0 {where}"


def test_gzip_is_the_platform_s_business_in_a_pipe(channels, platform):
    # TRAIN-102
    train = channels.pipe("text/csv")
    with platform([gzip.compress(b"1,2,3\n")]):
        with pytest.raises(DataError):
            train.load()
