"""application/x-recordio: RecordIO frames that each hold one JPEG or PNG file.

So come the objects of a Pipe channel with RecordWrapperType=RecordIO (TRAIN-120), without labels,
and the .rec files of MXNet's im2rec, whose frames put a header with the label before the image:

    uint32 flag, float32 label, uint64 id, uint64 id2, then flag more float32 labels
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from byoa.container.errors import DataError
from byoa.container.formats.base import Batch, Format, body_empty, columns, place, to_float32
from byoa.container.formats.image import FORMAT as IMAGE
from byoa.container.formats.image import IMAGE_BEGINNINGS, pixels
from byoa.container.formats.limits import LIMITS, Limits
from byoa.container.formats.recordio import payloads, whole_frames
from byoa.container.media_types import MediaType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FORMAT"]

_HEADER = struct.Struct("<IfQQ")


class _RecordIoImages(Format):
    name = "recordio-images"
    media_types = ("application/x-recordio",)
    suffixes = (".rec",)
    sample = "the bytes of RecordIO frames, a JPEG or PNG file in each"
    writes = False

    def decode(
        self,
        data: bytes | memoryview,
        media: MediaType | None = None,
        *,
        label_size: int = 0,
        where: str | None = None,
        limits: Limits = LIMITS,
    ) -> Batch:
        """A record a frame, images as in formats.image, all of one size; labels where they are."""
        import numpy as np

        images: list[NDArray[np.float32]] = []
        labels: list[tuple[float, ...]] = []
        for number, payload in enumerate(payloads(data, where), 1):
            here = place(where, number)
            label, image = _parts(payload, here)
            images.append(pixels(image, media, here, limits).reshape(-1))
            labels.append(label)
            if number == 1:
                media = IMAGE.settled(image, media)
            if len(images[-1]) != len(images[0]) or len(label) != len(labels[0]):
                raise DataError(
                    "RECORD_WIDTH",
                    f"has {columns(len(images[-1]))} and {len(label)} labels, expected"
                    f" {len(images[0])} and {len(labels[0])}", where=here,
                    expected="images with the channels and labels of record 1",
                )
            limits.require(number, len(images[0]), where)
        if not images:
            raise body_empty(where, self.sample)
        if not labels[0]:
            return Batch(np.stack(images), None)
        matrix = to_float32(labels)
        return Batch(np.stack(images), matrix[:, 0].copy() if len(labels[0]) == 1 else matrix)

    def settled(
        self, data: bytes | memoryview, media: MediaType | None = None
    ) -> MediaType | None:
        """As the first frame's image decides."""
        first = next(payloads(data), None)
        return media if first is None else IMAGE.settled(_parts(first, None)[1], media)

    def boundary(self, data: bytes | memoryview, media: MediaType | None = None) -> int | None:
        """Behind the last whole frame, or the last part of a record in several."""
        return whole_frames(data)


FORMAT = _RecordIoImages()


def _parts(payload: bytes, where: str | None) -> tuple[tuple[float, ...], bytes]:
    """The labels and the image of a frame; no label where it begins with the image."""
    if payload.startswith(IMAGE_BEGINNINGS):
        return (), payload
    if len(payload) > _HEADER.size:
        flag, label, _, _ = _HEADER.unpack_from(payload)
        start = _HEADER.size + 4 * flag
        if payload.startswith(IMAGE_BEGINNINGS, start):
            several: Any = struct.unpack_from(f"<{flag}f", payload, _HEADER.size)
            return several or (label,), payload[start:]
    raise DataError(
        "BODY_MALFORMED", f"holds no image: it begins with {payload[:8]!r}", where=where,
        expected="a JPEG or PNG file in each frame, or im2rec's header and one",
        remedy="records of numbers are application/x-recordio-protobuf",
    )
