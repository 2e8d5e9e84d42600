"""JSON text: orjson where it is installed, else the standard library, with the same results.

Both refuse NaN and Infinity, which are no JSON (RFC 8259), and both write them as null.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from byoa.container.formats.predictions import not_encodable, plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["dumps", "items", "loads", "number_texts", "quick"]


@lru_cache(maxsize=1)
def accelerator() -> Any:
    """The orjson module, or None. Imported at first use: the start path is standard library."""
    try:
        import orjson
    except ImportError:
        return None
    return orjson


def quick(data: bytes) -> Any:
    """The document, by the fastest parser there is. Raises ValueError."""
    fast = accelerator()
    return _loads(data) if fast is None else fast.loads(data)


def loads(data: bytes) -> Any:
    """The document. Raises ValueError with the position of what is wrong.

    What orjson refuses the standard library reads again, so that error and edge (1e400 is
    infinite) do not depend on what is installed.
    """
    fast = accelerator()
    if fast is not None:
        try:
            return fast.loads(data)
        except ValueError:
            pass
    return _loads(data)


def _loads(data: bytes) -> Any:
    try:
        return json.loads(str(data, "utf-8"), parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def dumps(document: Any) -> bytes:
    """Compact UTF-8. The document holds what `items` gives and plain Python values."""
    fast = accelerator()
    try:
        if fast is not None:
            try:
                return bytes(fast.dumps(document, option=fast.OPT_SERIALIZE_NUMPY))
            except TypeError:  # integers beyond 64 bits, which the standard library writes
                document = plain(document)
        text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise not_encodable("text that is not Unicode (a lone surrogate)") from None


def items(column: NDArray[Any] | list[Any]) -> NDArray[Any] | list[Any]:
    """The values of a column, one a record, as `dumps` takes them."""
    if isinstance(column, list) or accelerator() is None:
        return list(plain(column))
    return column


def number_texts(column: NDArray[Any]) -> list[bytes]:
    """Each row of a numeric array (n,) or (n, k) as `1,2.5,nan`: the shortest exact decimals."""
    import numpy as np

    fast = accelerator()
    if column.dtype.kind == "b":
        column = column.astype(np.uint8)
    finite = column.dtype.kind != "f" or np.isfinite(column).all()
    if fast is None or not column.size or not finite:
        return [",".join(map(str, np.ravel(row))).encode() for row in column]
    text: bytes = fast.dumps(column, option=fast.OPT_SERIALIZE_NUMPY)
    return text[2:-2].split(b"],[") if column.ndim == 2 else text[1:-1].split(b",")


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
