"""Images in a Pipe with RecordWrapperType=RecordIO, each with its label in the record behind it.

So come the lines of an augmented manifest whose AttributeNames are an image's and its label's
(TRAIN-113, TRAIN-114), and the images of a prefix come alone. No file tells a container which it
is: what is a JPEG or PNG file by its first bytes is an image, and what stands behind the first one
decides for all. A label that is an image itself, a mask say, therefore is read as one.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from byoa.container.cutter import everything
from byoa.container.errors import DataError
from byoa.container.formats.base import Format, to_float32
from byoa.container.formats.image import FORMAT as IMAGE
from byoa.container.formats.image import IMAGE_BEGINNINGS
from byoa.container.formats.number_text import exact
from byoa.container.formats.recordio import MAGIC
from byoa.container.formats.recordio_images import FORMAT as RECORDIO_IMAGES
from byoa.container.labels import labels_width
from byoa.container.media_types import MediaType
from byoa.container.objects import Readable
from byoa.container.records import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FORMATS", "image_sources"]

FORMATS: tuple[Format, ...] = (IMAGE, RECORDIO_IMAGES)
"""The formats whose objects may be images."""

_HEAD_BYTES = max(map(len, IMAGE_BEGINNINGS))
_LABEL_BYTES = 1 << 16  # as text
_REMEDY = (
    "give the channel AttributeNames of the image and of its label, in this order and no others,"
    " such as source-ref and class, and every line both"
)


class _Object:
    """One of the stream; `head` are its first bytes, which `read` gives once more."""

    def __init__(self, name: str, stream: Readable) -> None:
        self.name = name
        self.head = self._unread = stream.read(_HEAD_BYTES)
        self.is_image = self.head.startswith(IMAGE_BEGINNINGS)
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        first, self._unread = self._unread[:size], self._unread[size:]
        return first + self._stream.read(size - len(first)) if size > len(first) else first


def image_sources(
    objects: Iterable[tuple[str, Readable]], format_: Format, media: MediaType | None,
    label_size: int | None,
) -> Iterator[Source]:
    """The images among a pass's objects, of a content type of FORMATS, each with its label.

    With `label_size` 0 labels are passed over; otherwise it is how many an image has to have.
    Where the content type is RecordIO's, the objects may be files of that instead. An empty object,
    as S3 has one for a folder, is no image. Raises DataError, naming the object:
    BODY_MALFORMED, LABEL_MISSING, RECORD_NOT_A_NUMBER.
    """
    found = (_Object(name, stream) for name, stream in objects)
    first = next((each for each in found if each.head), None)
    if first is None:
        return
    if format_ is RECORDIO_IMAGES and first.head.startswith(MAGIC):
        for each in chain([first], found):
            yield Source(each.name, each, format_, media)
        return
    for name, image, label in _by_turns(chain([first], found)):
        labels = None if label is None or label_size == 0 else _numbers(*label)
        if label_size and (width := labels_width(labels)) != label_size:
            raise DataError(
                "LABEL_MISSING", f"the image has {width} labels, not {label_size}", where=name,
                expected="as many labels as the algorithm asks for, such as"
                f" {list(range(label_size)) if label_size > 1 else 0}, in the object behind it",
                remedy=_REMEDY,
            )
        yield Source(name, io.BytesIO(image), IMAGE, media, labels)


def _by_turns(
    objects: Iterable[_Object],
) -> Iterator[tuple[str, bytes | memoryview, tuple[str, bytes] | None]]:
    """Each image, its name before it, and its label with the name of that; None without one."""
    labelled: bool | None = None  # not known before the second object
    waiting: tuple[str, bytes | memoryview] | None = None
    empty = ""  # the name of an empty object behind the one that waits
    for each in objects:
        if each.is_image:
            if waiting is not None:
                if labelled:
                    raise _no_label(waiting[0], f"{each.name} is an image, too")
                labelled = False
                yield *waiting, None
            waiting = each.name, everything(each)
            if labelled is False:
                yield *waiting, None
                waiting = None
        elif not each.head and not labelled:
            empty = each.name
        elif waiting is not None:
            if empty:
                raise _no_number(empty, "")
            labelled = True
            yield *waiting, (each.name, each.read(_LABEL_BYTES + 1))
            waiting = None
        else:
            raise _no_image(each, labelled)
    if waiting is not None:
        if labelled:
            raise _no_label(waiting[0], "the stream ends there")
        yield *waiting, None


def _numbers(name: str, data: bytes) -> NDArray[np.float32]:
    """One image's label, float32 (1,), or its labels, (1, labels)."""
    text = data.decode("utf-8", "replace").strip()
    several = text.startswith("[") and text.endswith("]")
    try:
        if len(data) > _LABEL_BYTES:
            raise ValueError
        numbers = to_float32([exact(text[1:-1].split(",") if several else [text])])
    except ValueError:
        raise _no_number(name, text) from None
    return numbers[0] if numbers.shape[1] == 1 else numbers


def _no_number(name: str, text: str) -> DataError:
    return DataError(
        "RECORD_NOT_A_NUMBER",
        f"{text[:60]!r} is not a number" if text else "the label is empty", where=name,
        expected="the label of the image before it: a number, or several as [0,1]",
        remedy="number the classes from 0 in the label's attribute of the manifest",
    )


def _no_image(found: _Object, labelled: bool | None) -> DataError:
    expected = "a JPEG or PNG file"
    if labelled is None:
        expected += " as the first object, and then its label or the next image"
    elif labelled:
        expected += ", behind the label of the last one"
    else:
        expected += ", as all before it, which have no labels behind them"
    return DataError(
        "BODY_MALFORMED", f"it begins with {found.head!r}, as no JPEG and no PNG file does",
        where=found.name, expected=expected, remedy=_REMEDY,
    )


def _no_label(name: str, why: str) -> DataError:
    return DataError(
        "LABEL_MISSING", f"the image has no label behind it, as those before it have: {why}",
        where=name, expected="image, label, image, label … in the order of AttributeNames",
        remedy=_REMEDY,
    )
