"""Images through a Pipe with their labels behind them: an augmented manifest's attributes."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byoa.container.errors import DataError
from byoa.container.formats import recordio
from byoa.container.formats.image import FORMAT as IMAGE
from byoa.container.labelled_images import image_sources
from byoa.container.objects import objects

Image = pytest.importorskip("PIL.Image")

TYPES = ["application/x-image", "image/png", "application/x-recordio"]


def picture(*values, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(np.array([values], np.uint8)).save(stream, kind)
    return stream.getvalue()


IMAGES = [picture(value, 255 - value) for value in range(5)]
LABELS = [b"3", b"0", b"1.5", b"-2", b" 1e1\n"]
NUMBERS = [3, 0, 1.5, -2, 10]
PAIRS = list(itertools.chain(*zip(IMAGES, LABELS, strict=True)))


def wrapped(*payloads):
    return b"".join(map(recordio.frame, payloads))


def in_parts(data, places):
    """One record in several frames, with a magic between them that its writer leaves out."""
    ends = [0, *places, len(data)]
    parts = [data[start:end] for start, end in itertools.pairwise(ends)]
    flags = [1] + [2] * (len(parts) - 2) + [3]
    return recordio.MAGIC.join(parts), b"".join(
        recordio.MAGIC + (flag << 29 | len(part)).to_bytes(4, "little") + part
        + bytes(-len(part) % 4) for flag, part in zip(flags, parts, strict=True)
    )


@pytest.fixture
def pipe(channels):
    def make(content_type="application/x-image", **more):
        return channels.pipe(content_type, record_wrapper="RecordIO", **more)

    return make


def same(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine.features, other.features)
        np.testing.assert_array_equal(mine.labels, other.labels)
        assert mine.labels.dtype == np.float32 and mine.labels.shape == other.labels.shape
        assert mine.features.flags.writeable and mine.labels.flags.writeable
    return True


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", TYPES)
@pytest.mark.parametrize("several", [False, True])
def test_pairs_give_what_files_and_their_list_give(channels, pipe, platform, content_type, several):
    """TRAIN-113, TRAIN-114, FIX-07: load and batches, one label or several, in any mode."""
    labels = [b"[%b, 7]" % label.strip() if several else label for label in LABELS]
    lines = [
        f"{n}\t{number}{several * chr(9)}{several * '7'}\t{n}.png"
        for n, number in enumerate(NUMBERS)
    ]
    contents = {f"{n}.png": data for n, data in enumerate(IMAGES)}
    files = channels.files({**contents, "all.lst": "\n".join(lines).encode()})
    stream = wrapped(*itertools.chain(*zip(IMAGES, labels, strict=True)))
    with platform([stream] * 5, chunk=31):
        train = pipe(content_type)
        assert same([train.load()], [files.load()])
        width = 2 if several else 1
        assert same([train.load(label_size=width)], [files.load(label_size=width)])
        for options in ({}, {"shuffle": 9, "seed": 3, "epoch": 2}):
            assert same(train.batches(2, **options), files.batches(2, **options))
        bare = train.load(label_size=0)
        assert bare.labels is None
        np.testing.assert_array_equal(bare.features, files.load(label_size=0).features)


def test_a_host_of_several_that_read_all_takes_its_share_of_the_pairs(pipe, platform):
    with platform([wrapped(*PAIRS)]):
        (batch,) = pipe(job={"hosts": 2}).batches(9, rank=1, ranks=2)
    assert batch.labels.tolist() == [0, -2] and batch.features[:, 0].tolist() == [1, 3]


def test_jpeg_files_are_images_as_png_files_are(pipe, platform):
    images = [picture(*range(8), kind="JPEG"), picture(*range(8)), picture(*[9] * 8, kind="JPEG")]
    with platform([wrapped(*itertools.chain(*zip(images, (b"2", b"1", b"0"), strict=True)))]):
        features, labels = pipe("image/jpeg").load()
    assert labels.tolist() == [2, 1, 0]
    for row, image in zip(features, images, strict=True):
        np.testing.assert_array_equal(row, IMAGE.decode(image).features[0])


def test_one_line_is_one_pair(pipe, platform):
    with platform([wrapped(IMAGES[1], b"4")]):
        features, labels = pipe().load()
    assert (features.tolist(), labels.tolist()) == ([[1, 254]], [4])


@pytest.mark.parametrize("content_type", TYPES)
@pytest.mark.parametrize("payloads", [
    IMAGES, IMAGES[:1], [b"", *IMAGES], [IMAGES[0], b"", *IMAGES[1:], b""], [*IMAGES[:3], b"", b""],
])
def test_images_alone_have_no_labels_and_empty_objects_are_no_images(
    pipe, platform, content_type, payloads
):
    """TRAIN-120: each whole object is a record; S3 has an empty one for a folder."""
    with platform([wrapped(*payloads)] * 2):
        train = pipe(content_type)
        batch = train.load()
        assert batch.labels is None
        assert batch.features[:, 0].tolist() == list(range(sum(map(bool, payloads))))
        assert sum(len(each.features) for each in train.batches(2)) == len(batch.features)


@pytest.mark.parametrize("content_type", TYPES)
def test_a_stream_without_an_object_is_an_empty_channel(pipe, platform, content_type):
    with platform([b"", wrapped(b"", b"")]):
        train = pipe(content_type)
        for _ in range(2):
            with pytest.raises(DataError) as caught:
                train.load()
            assert caught.value.code == "CHANNEL_EMPTY"


def test_files_of_recordio_are_read_as_before(pipe, platform):
    """TRAIN-120: each object is a `.rec` file, whose own frames hold the images."""
    with platform([wrapped(wrapped(*IMAGES[:3]), b"", wrapped(*IMAGES[3:]))]):
        batch = pipe("application/x-recordio").load()
    assert batch.labels is None and batch.features[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_an_image_in_parts_is_put_together(pipe, platform):
    """TRAIN-121."""
    # Behind the end of a PNG file there may be anything, so also a magic.
    image, stream = in_parts(IMAGES[3] + b"tail" * 3, [len(IMAGES[3]), len(IMAGES[3]) + 5])
    assert image.count(recordio.MAGIC) == 2
    with platform([stream + wrapped(b"5") + stream + wrapped(b"6"), stream * 2, stream[:-16]]):
        train = pipe()
        features, labels = train.load()
        assert (features.tolist(), labels.tolist()) == ([[3, 252]] * 2, [5, 6])
        assert train.load().features.tolist() == [[3, 252]] * 2
        with pytest.raises(DataError, match="last part of the object is missing") as caught:
            train.load()
    assert caught.value.where == "train_2 object 1"


@pytest.mark.parametrize("labels", [(), (b"0", b"1")])
def test_all_images_have_the_first_one_s_size(pipe, platform, labels):
    images = (IMAGES[0], picture(1, 2, 3))
    payloads = itertools.chain(*itertools.zip_longest(images, labels)) if labels else images
    with platform([wrapped(*payloads)]):
        with pytest.raises(DataError) as caught:
            pipe().load()
    assert (caught.value.code, caught.value.where) == (
        "IMAGE_SIZE", f"train_0 object {3 if labels else 2}"
    )


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", TYPES)
@pytest.mark.parametrize(
    ("payloads", "code", "number", "message"),
    [
        ([b"0", IMAGES[0]], "BODY_MALFORMED", 1, "begins with b'0'"),
        ([b"GIF89a", b"0"], "BODY_MALFORMED", 1, "begins with b'GIF89a'"),
        ([IMAGES[0], b"0", b"1"], "BODY_MALFORMED", 3, "begins with b'1'"),
        ([IMAGES[0], b"0", b'{"class-name":"cat"}'], "BODY_MALFORMED", 3, "begins with b'{\"cla"),
        ([IMAGES[0], b"0", b"", b"1"], "BODY_MALFORMED", 3, "begins with b''"),
        ([IMAGES[0], IMAGES[1], b"1"], "BODY_MALFORMED", 3, "begins with b'1'"),
        ([IMAGES[0], b"0", IMAGES[1], IMAGES[2], b"1"], "LABEL_MISSING", 3,
         "train_0 object 4 is an image, too"),
        ([IMAGES[0], b"0", IMAGES[1]], "LABEL_MISSING", 3, "the stream ends there"),
    ],
)
def test_what_does_not_come_by_turns_is_named_with_its_record(
    pipe, platform, content_type, payloads, code, number, message
):
    """TRAIN-114."""
    with platform([wrapped(*payloads)] * 2):
        train = pipe(content_type)
        for epoch, call in enumerate((train.load, lambda: list(train.batches(1)))):
            with pytest.raises(DataError) as caught:
                call()
            found = caught.value
            assert (found.code, found.where) == (code, f"train_{epoch} object {number}")
            assert message.replace("train_0", f"train_{epoch}") in found.message
            assert "AttributeNames" in found.remedy and "source-ref" in found.remedy


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (b"", "the label is empty"), (b" ", "the label is empty"), (b"cat", "'cat'"),
        (b"true", "'true'"), (b"null", "'null'"), (b'"1"', "'\"1\"'"), (b"[]", "'[]'"),
        (b"[1,[2]]", "'[1,[2]]'"), (b"[1", "'[1'"), (b"1,2", "'1,2'"), (b'{"a":1}', "a"),
        (b"1_0", "'1_0'"), (b"\xff", "is not a number"), ("١".encode(), "'١'"),
        (b"1" * 70_000, "is not a number"), (b"GIF89a" + bytes(99), "GIF89a"),
    ],
)
def test_a_label_that_is_no_number_is_named_with_its_record(pipe, platform, label, message):
    """TRAIN-113."""
    with platform([wrapped(IMAGES[0], b"1", IMAGES[1], label)]):
        with pytest.raises(DataError) as caught:
            pipe().load()
    found = caught.value
    assert (found.code, found.where) == ("RECORD_NOT_A_NUMBER", "train_0 object 4")
    assert message in found.message and "number the classes" in found.remedy


def test_an_empty_label_of_the_first_image_is_named_as_one(pipe, platform):
    with platform([wrapped(IMAGES[0], b"", b"1")]):
        with pytest.raises(DataError, match="the label is empty") as caught:
            pipe().load()
    assert caught.value.where == "train_0 object 2"


@pytest.mark.parametrize(
    ("payloads", "options", "code", "number"),
    [
        (IMAGES, {"label_size": 1}, "LABEL_MISSING", 1),
        (PAIRS, {"label_size": 2}, "LABEL_MISSING", 1),
        ([IMAGES[0], b"[1,2]", IMAGES[1], b"3"], {"label_size": 2}, "LABEL_MISSING", 3),
        ([IMAGES[0], b"[1,2]", IMAGES[1], b"3"], {}, "RECORD_WIDTH", 3),
    ],
)
def test_every_image_has_as_many_labels(pipe, platform, payloads, options, code, number):
    with platform([wrapped(*payloads)]):
        with pytest.raises(DataError) as caught:
            pipe().load(**options)
    assert (caught.value.code, caught.value.where) == (code, f"train_0 object {number}")


# --- any stream -----------------------------------------------------------------------------------

PAYLOADS = st.lists(
    st.sampled_from([*IMAGES[:3], b"0", b"1", b"[1,2]", b"", b"x", recordio.MAGIC]), max_size=7
)


@settings(deadline=None)
@given(PAYLOADS, st.sampled_from([None, 0, 1]), st.integers(1, 64))
def test_any_objects_are_images_alone_or_pairs_or_are_refused(payloads, label_size, chunk):
    class Slow(io.RawIOBase):
        """Gives what is asked for, whatever the reader asks."""

        def __init__(self):
            self.inner = io.BytesIO(wrapped(*payloads))

        def read(self, size=-1):
            return b"".join(self.inner.read(min(chunk, size - at)) for at in range(0, size, chunk))

    kept = [payload for payload in payloads if payload]
    alone = all(payload in IMAGES for payload in kept)
    while payloads and not payloads[0]:
        del payloads[0]
    pairs = len(payloads) % 2 == 0 and all(
        payload in IMAGES if place % 2 == 0 else payload and payload not in IMAGES
        for place, payload in enumerate(payloads)
    )
    try:
        found = [
            (source.stream.read(1 << 20), source.labels)
            for source in image_sources(objects(Slow(), "p"), IMAGE, None, label_size)
        ]
    except DataError as error:
        assert error.where.startswith("p object ") and error.remedy
        assert not alone or label_size == 1 and kept
    else:
        assert alone or pairs
        assert [data for data, _ in found] == (kept if alone else payloads[::2])
        assert all((labels is None) == (alone or label_size == 0) for _, labels in found)
