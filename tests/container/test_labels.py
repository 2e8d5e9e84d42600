"""Images of a channel with their labels: from a list, from folders, or none."""

from __future__ import annotations

import gzip
import io

import numpy as np
import pytest

from byoa.container.channels import open_channels
from byoa.container.contract import ChannelConfig, InputDataConfig
from byoa.container.errors import DataError, UnsupportedError

pytest.importorskip("PIL")


def png(value):
    from PIL import Image

    stream = io.BytesIO()
    Image.new("L", (2, 1), value).save(stream, "PNG")
    return stream.getvalue()


FOLDERS = {"cat/1.png": png(1), "dog/2.png.gz": gzip.compress(png(2)), "cat/sub/3.png": png(3)}


@pytest.fixture
def job(channels):
    """Makes several channels, of files each, and gives them by name."""

    def make(contents, *, job=None, **config):
        for name, files in contents.items():
            for relative, data in files.items():
                path = channels.layout.channel(name) / relative
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        config = {name: ChannelConfig(**config) for name in contents}
        return open_channels(channels.layout, InputDataConfig(config), **job or {})

    return make


def labelled(batches):
    """The value of each image with its label or labels."""
    return [
        (int(features[0]), None if batch.labels is None else batch.labels[row].tolist())
        for batch in batches for row, features in enumerate(batch.features)
    ]


@pytest.mark.parametrize("content_type", [None, "application/x-image"])
def test_folders_are_classes_in_load_and_in_batches(job, content_type):
    train = job({"train": FOLDERS}, content_type=content_type)["train"]
    if content_type:  # the suffix .gz alone says that a file is compressed
        assert train.config.content_type == content_type
    expected = [(1, 0), (3, 0), (2, 1)]
    assert labelled([train.load()]) == labelled(train.batches(2)) == expected
    assert train.load().labels.dtype == np.float32
    assert labelled([train.load(label_size=1)]) == expected
    assert labelled([train.load(label_size=0)]) == [(1, None), (3, None), (2, None)]
    shares = [labelled(train.batches(2, rank=rank, ranks=2)) for rank in range(2)]
    assert shares == [expected[::2], expected[1::2]]


def test_a_class_means_the_same_in_each_channel(job):
    channels = job({"train": FOLDERS, "test": {"dog/9.png": png(9)}, "other": {"ant/1.csv": b"1"}})
    assert labelled([channels["test"].load()]) == [(9, 1)]
    channels = job({"train": FOLDERS, "test": {"dog/9.png": png(9)}, "more": {"ant/1.png": png(4)}})
    assert labelled([channels["test"].load()]) == [(9, 2)]


def test_a_list_in_the_channel_labels_its_images(job):
    listed = {**FOLDERS, "all.lst": b"0\t5\tcat/1.png\n1\t6\tcat/sub/3.png\n2\t7\tdog/2.png.gz\n"}
    train = job({"train": listed})["train"]
    assert labelled([train.load()]) == labelled(train.batches(9)) == [(1, 5), (3, 6), (2, 7)]


def test_a_list_in_a_channel_of_its_own_labels_the_images_and_may_have_several_labels(job):
    # as SageMaker's image classification has it: channels train and train_lst
    train = job({
        "train": {"1.png": png(1), "2.png": png(2)},
        "train_lst": {"train.lst": b"0\t1\t0\t2.png\n1\t0\t1\t1.png\n"},
    }, content_type="application/x-image")["train"]
    assert labelled(train.batches(2)) == [(1, [0, 1]), (2, [1, 0])]
    assert labelled([train.load(label_size=2)]) == [(1, [0, 1]), (2, [1, 0])]
    with pytest.raises(DataError, match="2 labels each, not 1") as caught:
        train.load(label_size=1)
    assert caught.value.code == "LABEL_MISSING"


def test_images_without_folders_or_in_one_folder_have_no_label(job):
    for files in ({"1.png": png(1)}, {"images/1.png": png(1), "images/2.png": png(1)}):
        train = job({"train": files})["train"]
        assert train.load().labels is None
        with pytest.raises(DataError, match="0 labels each, not 1") as caught:
            next(train.batches(1, label_size=1))
        assert ".lst" in caught.value.expected and "folder" in caught.value.expected
        for path in train.files():
            path.unlink()


@pytest.mark.parametrize(
    ("more", "code", "where"),
    [
        ({"5.png": png(5)}, "LABEL_MISSING", "5.png"),
        ({"a.lst": b"0\t1\tcat/1.png\n"}, "LABEL_MISSING", "cat/sub/3.png"),
        ({"a.lst": b"0\tx\tcat/1.png\n"}, "RECORD_NOT_A_NUMBER", "train/a.lst line 1"),
        ({"a.lst": b"", "b.lst": b""}, "LIST_AMBIGUOUS", "train"),
    ],
)
def test_a_fault_in_the_labels_is_named(job, more, code, where):
    train = job({"train": {**FOLDERS, **more}})["train"]
    for call in (train.load, lambda: list(train.batches(1))):
        with pytest.raises(DataError) as caught:
            call()
        assert (caught.value.code, caught.value.where) == (code, where)


def test_no_host_sees_all_folders_of_a_channel_that_is_divided(job):
    # TRAIN-100
    train = job({"train": FOLDERS}, distribution="ShardedByS3Key", job={"hosts": 2})["train"]
    with pytest.raises(UnsupportedError) as caught:
        train.load()
    assert caught.value.code == "LABELS_SHARDED" and "train_lst" in caught.value.remedy
    assert len(train.load(label_size=0).features) == 3


def test_a_list_without_images_is_data(job):
    train = job({"train": {"a.csv": b"1,2\n", "b.lst": b"3,4\n"}}, content_type="text/csv")["train"]
    assert train.load().labels.tolist() == [1, 3]
    train = job({"test": {"b.lst": b"3,4\n"}})["test"]
    with pytest.raises(DataError) as caught:
        train.load()
    assert (caught.value.code, caught.value.where) == ("FORMAT_UNKNOWN", "test/b.lst")
