"""Labels of images, by a .lst file or by folder."""

from __future__ import annotations

import numpy as np
import pytest

from byoa.container.errors import DataError
from byoa.container.formats.image_labels import class_labels, classes_of, list_labels, read_list


def test_a_list_gives_each_path_its_label():
    listed = read_list(b"\xef\xbb\xbf0\t1\tcats/1.jpg\r\n7\t0.5\t./dogs/2 b.jpg\r\n", "train_lst/a")
    assert listed == {"cats/1.jpg": (1.0,), "dogs/2 b.jpg": (0.5,)}
    labels = list_labels(listed, ["dogs/2 b.jpg", "cats/1.jpg"], "train_lst/a")
    assert labels.dtype == np.float32 and labels.tolist() == [0.5, 1]


def test_a_list_may_have_several_labels():
    listed = read_list(b"0\t1\t0\t3.5\ta.jpg", "f")
    assert list_labels(listed, ["a.jpg"], "f").tolist() == [[1, 0, 3.5]]


@pytest.mark.parametrize(
    ("data", "code", "where", "message"),
    [
        (b"0\t1\ta.jpg\n1\t2\n", "RECORD_WIDTH", "f line 2", "has 2 parts"),
        (b"0 1 a.jpg", "RECORD_WIDTH", "f line 1", "'0 1 a.jpg' has 1 parts"),
        (b"", "RECORD_WIDTH", "f line 1", "has 1 parts"),
        (b"0\t1\ta.jpg\n\n1\t1\tb.jpg", "RECORD_WIDTH", "f line 2", "''"),
        (b"0\t1\ta.jpg\n1\t1\t2\tb.jpg", "RECORD_WIDTH", "f line 2", "has 2 labels, expected 1"),
        (b"x\t1\ta.jpg", "RECORD_NOT_A_NUMBER", "f line 1", "index 'x'"),
        (b"0\tcat\ta.jpg", "RECORD_NOT_A_NUMBER", "f line 1", "'cat'"),
        (b"0\t1_0\ta.jpg", "RECORD_NOT_A_NUMBER", "f line 1", "'1_0'"),
        (b"0\t1\t", "PATH_OUTSIDE", "f line 1", "''"),
        (b"0\t1\t/etc/a.jpg", "PATH_OUTSIDE", "f line 1", "'/etc/a.jpg'"),
        (b"0\t1\ta/../../b.jpg", "PATH_OUTSIDE", "f line 1", "b.jpg"),
        (b"0\t1\ta.jpg\n1\t2\ta.jpg", "LABEL_TWICE", "f line 2", "'a.jpg'"),
        (b"0\t1\t\xff.jpg", "BODY_MALFORMED", "f", "UTF-8"),
    ],
)
def test_a_faulty_line_is_named(data, code, where, message):
    with pytest.raises(DataError) as caught:
        read_list(data, "f")
    assert (caught.value.code, caught.value.where) == (code, where)
    assert message in caught.value.message


def test_an_image_that_the_list_leaves_out_is_named():
    with pytest.raises(DataError) as caught:
        list_labels({"a.jpg": (1.0,)}, ["a.jpg", "b.jpg"], "train_lst/a.lst")
    assert (caught.value.code, caught.value.where) == ("LABEL_MISSING", "b.jpg")
    assert "train_lst/a.lst" in caught.value.message


def test_classes_are_the_folders_in_the_order_of_their_names():
    paths = ["dogs/1.jpg", "cats/a/2.jpg", "dogs/3.jpg"]
    classes = classes_of(paths)
    assert classes == ("cats", "dogs")
    assert class_labels(paths, classes).tolist() == [1, 0, 1]
    assert class_labels(["cats/9.jpg"], classes).dtype == np.float32


@pytest.mark.parametrize(
    ("path", "code"), [("1.jpg", "LABEL_MISSING"), ("birds/1.jpg", "LABEL_UNKNOWN")]
)
def test_an_image_without_a_class_is_named(path, code):
    with pytest.raises(DataError) as caught:
        class_labels(["cats/1.jpg", path], ("cats", "dogs"))
    assert (caught.value.code, caught.value.where) == (code, path)
