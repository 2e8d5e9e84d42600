"""JPEG and PNG, by Pillow (the extra `image`): an image is a record of height × width × channels.

Values are the file's own, 0 to 255 (to 65535 in a PNG of 16 bits), in rows from the top, channels
innermost, and are not scaled; a camera's note of how it was held is not applied. Channels are 1 for
grey, 3 for colour and 4 with transparency, or what `channels` in the media type converts to.
`width` and `height` there declare the size; otherwise a channel's first image does, see `settled`.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from byoa.container.errors import DataError
from byoa.container.formats.base import (
    Batch,
    Format,
    body_empty,
    label_size_of,
    not_installed,
    whole_number,
)
from byoa.container.formats.limits import LIMITS, LimitExceeded, Limits, wrong_width
from byoa.container.media_types import MediaType, UnsupportedMediaType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FORMAT", "IMAGE_BEGINNINGS", "pixels"]

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
IMAGE_BEGINNINGS = (_JPEG, _PNG)
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_DEEP_MODES = ("I;16", "I;16B", "I")


class _Image(Format):
    name = "image"
    media_types = ("application/x-image", "image/jpeg", "image/png")
    suffixes = (".jpg", ".jpeg", ".png")
    sample = "the bytes of one JPEG or PNG file"
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
        """One record. It has no label: a folder or a list names that (formats.image_labels)."""
        if label_size_of(media, 0):
            raise UnsupportedMediaType(
                "MEDIA_TYPE_UNSUPPORTED", f"label_size in Content-Type {media}", where=where,
                expected="no label in an image: its folder or a .lst file names it",
            )
        if not len(data):
            raise body_empty(where, self.sample)
        record = pixels(data, media, where, limits).reshape(1, -1)
        limits.require(1, record.shape[1], where)
        return Batch(record, None)

    def settled(
        self, data: bytes | memoryview, media: MediaType | None = None
    ) -> MediaType | None:
        """The media type with the size of this image, unless it has its own.

        Not with its channels, which would convert other images: they have another width instead.
        """
        media = media or MediaType("application", "x-image")
        height, width, _ = pixels(data, media, None).shape
        size = {"width": str(width), "height": str(height)}
        return MediaType(media.type, media.subtype, {**size, **media.parameters}, media.q)


FORMAT = _Image()


def pixels(
    data: bytes | memoryview, media: MediaType | None, where: str | None,
    limits: Limits = LIMITS,
) -> NDArray[np.float32]:
    """One image as (height, width, channels), of the size and channels that `media` declares.

    Raises LimitExceeded IMAGE_TOO_LARGE, DataError BODY_MALFORMED, IMAGE_SIZE, RECORD_WIDTH.
    """
    import numpy as np

    channels = whole_number(media, "channels", "channels=1, 3 or 4")
    if channels is not None and channels not in _MODES:
        raise UnsupportedMediaType(
            "MEDIA_TYPE_UNSUPPORTED", f"channels={channels} in Content-Type {media}",
            where=where, expected="channels=1, 3 or 4",
        )
    reader = _reader(data, where)
    try:
        image = reader(io.BytesIO(data))
        _require_size(image, media, where, limits)
        array = np.asarray(_converted(image, channels, where), dtype=np.float32)
    except DataError:
        raise
    except Exception as error:  # Pillow's readers raise a dozen kinds for broken files
        raise DataError(
            "BODY_MALFORMED", f"the image cannot be read: {error}", where=where,
            expected="a whole JPEG or PNG file",
        ) from None
    return array.reshape(image.height, image.width, -1)


def _reader(data: bytes | memoryview, where: str | None) -> Any:
    """The class that reads this file. Image.open would look through every format there is."""
    try:
        from PIL.JpegImagePlugin import JpegImageFile
        from PIL.PngImagePlugin import PngImageFile
    except ImportError:
        raise not_installed("Pillow", "image", where) from None
    head = bytes(data[:len(_PNG)])
    if head.startswith(_JPEG):
        return JpegImageFile
    if head == _PNG:
        return PngImageFile
    raise DataError(
        "BODY_MALFORMED", f"it begins with {head!r}, as no JPEG and no PNG file does", where=where,
        expected="a JPEG or PNG file",
    )


def _require_size(
    image: Any, media: MediaType | None, where: str | None, limits: Limits
) -> None:
    """By the file's header alone: nothing is unpacked yet."""
    values = image.width * image.height * len(image.getbands())
    what, most = (
        ("columns", limits.columns) if values > limits.columns else ("values", limits.values)
    )
    if values > most:
        raise LimitExceeded(
            "IMAGE_TOO_LARGE", f"the image has {image.width}×{image.height} pixels", what,
            values, most, where=where,
            expected=f"at most {most} values (width × height × channels)",
            remedy="scale the images down to the size that the algorithm takes",
        )
    # Channels may become fewer, pixels may not.
    if limits.features is not None and image.width * image.height > limits.features:
        raise wrong_width(image.width * image.height, limits.features, where)
    for name, found in (("width", image.width), ("height", image.height)):
        declared = whole_number(media, name, f"the number of pixels, such as {name}=28")
        if declared is not None and found != declared:
            raise DataError(
                "IMAGE_SIZE", f"the image is {found} pixels {_SIDES[name]}", where=where,
                expected=f"{declared}, as its Content-Type or the channel's first image says",
                remedy="scale all images to one size",
            )


_SIDES = {"width": "wide", "height": "high"}


def _converted(image: Any, channels: int | None, where: str | None) -> Any:
    """The image with one of the modes whose values are the pixels'."""
    if image.mode in _DEEP_MODES:
        if channels in (None, 1):
            return image
        raise DataError(
            "IMAGE_CHANNELS", f"the image has 1 channel of 16 bits, not {channels}", where=where,
            expected="images of 8 bits, or channels=1",
        )
    if channels is None:
        bands = image.getbands()
        if image.has_transparency_data:
            channels = 4
        else:
            channels = 1 if bands in (("L",), ("1",)) else 3
    mode = _MODES[channels]
    return image if image.mode == mode else image.convert(mode)
