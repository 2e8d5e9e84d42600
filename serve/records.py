"""A body's records, as a model takes them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from byoa.container.formats.base import Format, widen
from byoa.container.formats.checks import require_finite, require_width
from byoa.container.formats.limits import Limits
from byoa.container.media_types import MediaType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def decode(
    decoder: Format, body: bytes, media: MediaType, features: int | None, limits: Limits
) -> NDArray[np.float32]:
    """float32 (n, features), all finite; `features` None for any number of columns.

    Raises DataError saying which record and column is wrong, LimitExceeded for more than `limits`.
    """
    batch = decoder.decode(body, media, limits=_of_model(limits, features))
    if decoder.open_ended and features is not None:
        batch = widen(batch, features)
    found = batch.features
    if features is not None:
        require_width(found, features)
    require_finite(found)
    return found


@lru_cache(maxsize=256)
def _of_model(limits: Limits, features: int | None) -> Limits:
    return limits._replace(features=features)
