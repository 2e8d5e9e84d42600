"""Images: pixels as records, one size, one limit; alone, in RecordIO frames, and with labels."""

from __future__ import annotations

import io
import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byoa.container.errors import DataError
from byoa.container.formats import recordio
from byoa.container.formats.image import FORMAT, pixels
from byoa.container.formats.limits import MAX_DENSE_VALUES, LimitExceeded, Limits
from byoa.container.formats.recordio_images import FORMAT as FRAMES
from byoa.container.media_types import UnsupportedMediaType, parse_media_type

Image = pytest.importorskip("PIL.Image")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, rows, *, depth=8, colour=0):
    """A PNG file from its bytes up: `rows` are scan lines without their filter byte."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def saved(mode, size, kind="PNG", colour=None):
    stream = io.BytesIO()
    Image.new(mode, size, colour if colour is not None else 0).save(stream, kind)
    return stream.getvalue()


GREY = png(3, 2, [b"\x00\x01\x02", b"\x03\xff\x05"])
COLOUR = png(1, 2, [b"\x01\x02\x03", b"\x04\x05\x06"], colour=2)
CLEAR = png(1, 1, [b"\x01\x02\x03\x04"], colour=6)
DEEP = png(2, 1, [b"\x01\x00\xff\xff"], depth=16)


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (GREY, "image/png", [0, 1, 2, 3, 255, 5]),
        (COLOUR, "application/x-image", [1, 2, 3, 4, 5, 6]),
        (CLEAR, "image/png", [1, 2, 3, 4]),
        (DEEP, "image/png", [256, 65535]),
        (DEEP, "image/png; channels=1", [256, 65535]),
        (png(3, 1, [b"\xa0"], depth=1), "image/png", [255, 0, 255]),
        (saved("P", (1, 1)), "image/png", [0, 0, 0]),
        (saved("LA", (1, 1), colour=(7, 9)), "image/png", [7, 7, 7, 9]),
        (GREY, "image/png; channels=3; width=3; height=2", np.repeat([0, 1, 2, 3, 255, 5], 3)),
        (CLEAR, "image/png; channels=3", [1, 2, 3]),
        (saved("RGB", (1, 1), colour=(9, 9, 9)), "image/png; channels=1", [9]),
        (saved("L", (8, 8), "JPEG", 100), "image/jpeg", [100] * 64),
        (saved("CMYK", (1, 1), "JPEG"), "image/jpeg", [255, 255, 255]),
    ],
)
def test_an_image_is_a_record_of_height_width_channels(decode, body, content_type, expected):
    # TRAIN-125
    for view in (body, memoryview(body)):
        features, labels = decode(content_type, view, label_size=1)
        assert features.dtype == np.float32 and features.flags.writeable
        assert features.tolist() == [list(expected)] and labels is None


def test_the_first_image_settles_the_size_of_the_others():
    settled = FORMAT.settled(GREY, None)
    assert str(settled) == "application/x-image; width=3; height=2"
    assert pixels(GREY, settled, None).shape == (2, 3, 1)
    for width, height, side in ((2, 3, "2 pixels wide"), (3, 3, "3 pixels high")):
        with pytest.raises(DataError) as caught:
            FORMAT.decode(saved("L", (width, height)), settled, where="train/b.png")
        assert (caught.value.code, caught.value.where) == ("IMAGE_SIZE", "train/b.png")
        assert side in caught.value.message
    declared = parse_media_type("image/png; width=3; channels=3")
    assert FORMAT.settled(GREY, declared).parameters == {
        "width": "3", "height": "2", "channels": "3"
    }


@pytest.mark.parametrize(
    "parameters",
    ["channels=2", "channels=x", "width=-1", "height=1.5", "label_size=1", "label_size=x"],
)
def test_a_parameter_that_cannot_be_honoured_is_refused(decode, parameters):
    with pytest.raises(UnsupportedMediaType) as caught:
        decode(f"image/png; {parameters}", GREY)
    assert caught.value.code == "MEDIA_TYPE_UNSUPPORTED"


BOMB = png(50_000, 50_000, [b"\0" * 1000], colour=2)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"", "BODY_EMPTY", "no record"),
        (b"GIF89a" + bytes(20), "BODY_MALFORMED", "begins with b'GIF89a"),
        (GREY[:40], "BODY_MALFORMED", "cannot be read"),
        (GREY[:50], "BODY_MALFORMED", "cannot be read"),
        (saved("RGB", (64, 64), "JPEG")[:-200], "BODY_MALFORMED", "cannot be read"),
        (b"\xff\xd8\xff" + bytes(99), "BODY_MALFORMED", "cannot be read"),
        (BOMB, "IMAGE_TOO_LARGE", "50000×50000"),
        # Beyond Pillow's own limit too, which would warn.
        (png(20_000, 20_000, [b"\0"]), "IMAGE_TOO_LARGE", "20000×20000"),
    ],
)
def test_a_file_that_is_no_image_is_named(body, code, message):
    # pains 36: a bomb is refused by its header
    with pytest.raises(DataError) as caught:
        FORMAT.decode(body, where="train/a.png")
    assert (caught.value.code, caught.value.where) == (code, "train/a.png")
    assert message in caught.value.message and caught.value.expected


@pytest.mark.parametrize(
    ("limits", "what", "limit"),
    [
        (Limits(), "values", MAX_DENSE_VALUES),
        (Limits(columns=1 << 26), "columns", 1 << 26),
        (Limits(columns=1 << 26, values=1 << 25), "columns", 1 << 26),
        (Limits(columns=1 << 40, values=1 << 25), "values", 1 << 25),
    ],
)
def test_an_image_that_is_too_large_names_the_limit_that_it_exceeds(limits, what, limit):
    # HOST-32
    with pytest.raises(LimitExceeded) as caught:
        FORMAT.decode(BOMB, limits=limits)
    error = caught.value
    assert (error.what, error.size, error.limit) == (what, 7_500_000_000, limit)


def test_an_image_may_be_as_large_as_the_limits_allow():
    # HOST-32
    with pytest.raises(DataError) as caught:
        FORMAT.decode(png(8_200, 8_200, [b"\0"]), limits=Limits(columns=1 << 27))
    assert caught.value.code == "BODY_MALFORMED"  # its pixels are missing: it is unpacked


def test_sixteen_bits_are_not_squeezed_into_eight(decode):
    with pytest.raises(DataError) as caught:
        decode("image/png; channels=3", DEEP)
    assert caught.value.code == "IMAGE_CHANNELS"


def test_without_pillow_the_error_is_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.JpegImagePlugin", None)
    with pytest.raises(UnsupportedMediaType) as caught:
        FORMAT.decode(GREY, where="train/a.png")
    assert caught.value.code == "MEDIA_TYPE_NOT_INSTALLED"
    assert "pip install 'byoa[image]'" in caught.value.remedy and "Pillow" in caught.value.message


@given(st.binary(max_size=60), st.integers(0, 700), st.booleans())
def test_damaged_bytes_are_read_or_refused_with_a_code(noise, position, jpeg):
    body = bytearray(JPEG if jpeg else GREY)
    position = min(position, len(body))
    body[position:position + len(noise)] = noise
    try:
        FORMAT.decode(bytes(body))
    except DataError as error:
        assert error.code.isupper()


JPEG = saved("RGB", (8, 8), "JPEG", (1, 2, 3))


# --- in frames ------------------------------------------------------------------------------------


def packed(label, image, *several):
    """A frame as MXNet's im2rec writes it."""
    head = struct.pack(f"<IfQQ{len(several)}f", len(several), label, 7, 0, *several)
    return recordio.frame(head + image)


def test_frames_hold_an_image_each(decode):
    # TRAIN-120, TRAIN-121
    features, labels = decode("application/x-recordio", recordio.frame(GREY) * 2)
    assert features.tolist() == [[0, 1, 2, 3, 255, 5]] * 2 and labels is None
    assert FRAMES.boundary(recordio.frame(GREY) * 2 + b"\x0a") == 2 * len(recordio.frame(GREY))


def test_the_labels_of_im2rec_are_read():
    features, labels = FRAMES.decode(packed(3, GREY) + packed(4, GREY))
    assert features.shape == (2, 6) and labels.tolist() == [3, 4]
    assert FRAMES.decode(packed(0, GREY, 1, 2)).labels.tolist() == [[1, 2]]


def test_a_later_file_s_frames_have_the_size_of_the_first():
    settled = FRAMES.settled(packed(1, GREY), None)
    with pytest.raises(DataError) as caught:
        FRAMES.decode(packed(1, saved("L", (2, 3))), settled)
    assert caught.value.code == "IMAGE_SIZE"


@pytest.mark.parametrize(
    ("body", "code", "where"),
    [
        (b"", "BODY_EMPTY", "f"),
        (b"nonsense", "BODY_MALFORMED", "f record 1"),
        (recordio.frame(GREY) + recordio.frame(b"numbers"), "BODY_MALFORMED", "f record 2"),
        (recordio.frame(GREY) + recordio.frame(bytes(99)), "BODY_MALFORMED", "f record 2"),
        (recordio.frame(GREY) + recordio.frame(GREY[:50]), "BODY_MALFORMED", "f record 2"),
        (recordio.frame(GREY) + recordio.frame(saved("L", (2, 3))), "IMAGE_SIZE", "f record 2"),
        (recordio.frame(GREY) + recordio.frame(saved("RGB", (3, 2))), "RECORD_WIDTH", "f record 2"),
        (recordio.frame(GREY) + packed(1, GREY), "RECORD_WIDTH", "f record 2"),
    ],
)
def test_a_faulty_frame_is_named(body, code, where):
    with pytest.raises(DataError) as caught:
        FRAMES.decode(body, where="f")
    assert (caught.value.code, caught.value.where) == (code, where)


def test_many_images_are_bounded_as_other_records_are():
    with pytest.raises(LimitExceeded) as caught:
        FRAMES.decode(recordio.frame(GREY) * 2, limits=Limits(values=11))
    assert caught.value.code == "VALUES_TOO_MANY"
