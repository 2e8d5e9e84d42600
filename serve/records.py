"""A body's records, as a model takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from byoa.container.formats.base import Format, widen
from byoa.container.formats.checks import require_finite, require_width
from byoa.container.media_types import MediaType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def decode(
    decoder: Format, body: bytes, media: MediaType, features: int | None
) -> NDArray[np.float32]:
    """float32 (n, features), all finite; `features` None for any number of columns.

    Raises DataError saying which record and column is wrong.
    """
    batch = decoder.decode(body, media)
    if decoder.open_ended and features is not None:
        batch = widen(batch, features)
    found = batch.features
    if features is not None:
        require_width(found, features)
    require_finite(found)
    return found
