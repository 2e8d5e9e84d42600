"""What an algorithm's `predict` may return, and its one normal form for the encoders.

    array (n,) or (n, k), or anything with __array__    one row a record
    list or tuple of n items                            one item a record
    dict of columns {name: one of the above}            one value of each column a record

Numeric arrays stay arrays, in native byte order and C order; all else becomes a list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from byoa.container.errors import AlgorithmError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Column: TypeAlias = NDArray[Any] | list[Any]

__all__ = ["count", "flat", "native", "normalise", "not_encodable", "plain", "take"]

_EXPECTED = "an array (n,) or (n, k), a list of n items, or a dict of such columns"


def normalise(predictions: Any) -> Column | dict[str, Column]:
    """The normal form. Raises AlgorithmError: PREDICTION_SHAPE, PREDICTION_NOT_ENCODABLE."""
    if not isinstance(predictions, Mapping):
        return _column(predictions)
    columns = {str(name): _column(value) for name, value in predictions.items()}
    lengths = {name: len(value) for name, value in columns.items()}
    if not columns or len(set(lengths.values())) > 1:
        raise AlgorithmError(
            "PREDICTION_SHAPE", f"the columns of the predictions have lengths {lengths}",
            expected="a dict of columns of equal length, one value a record",
        )
    return columns


def flat(array: NDArray[Any]) -> NDArray[Any]:
    """(n,), (n, k) or more dimensions as (n, product of the others)."""
    return array.reshape(len(array), math.prod(array.shape[1:]))


def count(predictions: Any) -> int:
    """How many records the predictions are for."""
    normal = normalise(predictions)
    return len(next(iter(normal.values()))) if isinstance(normal, dict) else len(normal)


def take(predictions: Any, start: int, stop: int) -> Any:
    """The predictions of records `start` to `stop`, in the normal form."""
    normal = normalise(predictions)
    if isinstance(normal, dict):
        return {name: column[start:stop] for name, column in normal.items()}
    return normal[start:stop]


def plain(value: Any) -> Any:
    """One prediction as JSON's own types: NaN and infinities become null.

    A float32 becomes the shortest decimal that is the same float32: 0.1, not 0.10000000149.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if type(value) is float:
        return value if -_MAX <= value <= _MAX else None
    if isinstance(value, Mapping):
        return {_key(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if hasattr(value, "__array__"):
        return _plain_array(value)
    raise not_encodable(type(value).__name__)


_MAX = 1.7976931348623157e308


def not_encodable(what: str, expected: str = "numbers, strings, lists and dicts") -> AlgorithmError:
    return AlgorithmError(
        "PREDICTION_NOT_ENCODABLE", f"a prediction holds {what}, which cannot be written",
        expected=expected, remedy="convert it in the algorithm's predict",
    )


def _column(value: Any) -> Column:
    if isinstance(value, (list, tuple)):
        return list(value)
    if not hasattr(value, "__array__"):
        raise AlgorithmError(
            "PREDICTION_SHAPE", f"predict returned {type(value).__name__}", expected=_EXPECTED
        )
    array = native(value)
    if array.ndim == 0:
        raise AlgorithmError(
            "PREDICTION_SHAPE", "predict returned a single value", expected=_EXPECTED
        )
    return array if array.dtype.kind in "biuf" else list(array.tolist())


def native(value: Any) -> NDArray[Any]:
    """A native, C-ordered array; float16 and long double take the nearest common float."""
    import numpy as np

    array = np.asarray(value)
    dtype = array.dtype
    if dtype.kind not in "biufUO":
        raise not_encodable(f"values of type {dtype}")
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        dtype = np.dtype(np.float32 if dtype.itemsize == 2 else np.float64)
    return np.asarray(array, dtype=dtype.newbyteorder("="), order="C")


def _plain_array(value: Any) -> Any:
    array = native(value)
    if array.dtype.kind == "O":
        return plain(array.tolist())
    if array.dtype.kind != "f":
        return array.tolist()
    if array.ndim:
        return [_plain_array(each) for each in array]
    number = float(str(array))  # str of a float32 is its shortest decimal
    return number if -_MAX <= number <= _MAX else None


def _key(name: Any) -> str:
    kind = getattr(getattr(name, "dtype", None), "kind", None)  # a numpy integer has one
    if isinstance(name, bool) or not (isinstance(name, (str, int)) or kind in ("i", "u")):
        raise not_encodable(f"a key of type {type(name).__name__}", "keys that are strings")
    return str(name)
