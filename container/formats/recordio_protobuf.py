"""application/x-recordio-protobuf: RecordIO frames of SageMaker's Record message.

Equal records, what a writer of dense data produces, differ in their values only: the first is
parsed, the others are compared with it outside of the values, and one array takes them all.
Features and labels lie under the key "values" (TRAIN-124), or under the only key there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byoa.container.errors import DataError
from byoa.container.formats import predictions as shapes
from byoa.container.formats.base import Batch, Format, body_empty, place, to_float32
from byoa.container.formats.limits import LIMITS, Limits
from byoa.container.formats.protobuf import Malformed, Record, Tensor, read_record, write_record
from byoa.container.formats.recordio import (
    HEADER_BYTES,
    frame,
    frame_length,
    payloads,
    whole_frames,
)
from byoa.container.formats.sparse import Sparse, sparse, stack
from byoa.container.media_types import MediaType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FORMAT"]

_KEY = "values"
_EXACT_LIMIT = 2**24  # float32 holds every integer up to here


class _RecordIoProtobuf(Format):
    name = "recordio-protobuf"
    media_types = ("application/x-recordio-protobuf",)
    suffixes = (".pbr", ".recordio", ".protobuf")
    sample = "the bytes of sagemaker.serializers.RecordSerializer for an array (records, columns)"

    def decode(
        self,
        data: bytes | memoryview,
        media: MediaType | None = None,
        *,
        label_size: int = 0,
        where: str | None = None,
        limits: Limits = LIMITS,
    ) -> Batch:
        """Dense and sparse records. Labels are named in this format: `label_size` is not needed."""
        if not len(data):
            raise body_empty(where, self.sample)
        return _decode_equal(data, where, limits) or _decode_each(data, where, limits)

    def boundary(self, data: bytes | memoryview, media: MediaType | None = None) -> int | None:
        """Behind the last whole frame, or the last part of a record in several."""
        return whole_frames(data)

    def encode(self, predictions: Any, media: MediaType | None = None) -> bytes:
        """One frame a record: a label map with a tensor for each column, or one called "values".

        Named columns are float32 as far as it is exact, because the clients of SageMaker's built-in
        algorithms read labels, too, as that."""
        normal = shapes.normalise(predictions)
        columns = normal if isinstance(normal, dict) else {_KEY: normal}
        arrays = {name: _tensor_column(column) for name, column in columns.items()}
        if isinstance(normal, dict):
            arrays = {name: _as_float32(array) for name, array in arrays.items()}
        records = len(next(iter(arrays.values())))
        if records and all(array.dtype.kind == "f" for array in arrays.values()):
            return _encode_equal(arrays, records)
        return b"".join(
            frame(write_record({name: array[index] for name, array in arrays.items()}))
            for index in range(records)
        )


FORMAT = _RecordIoProtobuf()


# --- equal records --------------------------------------------------------------------------------


def _decode_equal(
    data: bytes | memoryview, where: str | None, limits: Limits = LIMITS
) -> Batch | None:
    """Dense records that differ in nothing but values; None where these are others."""
    import numpy as np

    length = frame_length(data)
    if length is None or len(data) % length:
        return None
    first = bytes(data[HEADER_BYTES:HEADER_BYTES + int.from_bytes(data[4:8], "little")])
    try:
        record = read_record(first)
    except Malformed:
        return None  # the other route names the fault
    features, label = _tensor(record.features, "features", place(where, 1)), None
    tensors = [features]
    if record.label:
        label = _tensor(record.label, "label", place(where, 1))
        tensors.append(label)
    if any(each.span is None or each.keys or not each.values for each in tensors):
        return None
    frames = np.frombuffer(data, dtype=np.uint8).reshape(-1, length)
    position = 0
    for start, end in sorted(_in_frame(each) for each in tensors):
        if (frames[:, position:start] != frames[0, position:start]).any():
            return None
        position = end
    if (frames[:, position:] != frames[0, position:]).any():
        return None
    limits.require(len(frames), len(features.values), where)
    labels = None if label is None else _squeeze(_values(frames, label))
    return Batch(_values(frames, features), labels)


def _in_frame(tensor: Tensor) -> tuple[int, int]:
    start, end = tensor.span or (0, 0)
    return start + HEADER_BYTES, end + HEADER_BYTES


def _values(frames: NDArray[np.uint8], tensor: Tensor) -> NDArray[np.float32]:
    import numpy as np

    start, end = _in_frame(tensor)
    raw = np.ascontiguousarray(frames[:, start:end]).view(tensor.dtype)
    # A single frame's slice is contiguous already: it would be the sender's read-only buffer.
    return raw if raw.flags.writeable and raw.dtype == np.float32 else to_float32(raw)


def _encode_equal(arrays: dict[str, NDArray[Any]], records: int) -> bytes:
    """All frames at once: the first as a pattern, with each column's bytes laid over it."""
    import numpy as np

    head = frame(write_record({name: array[0] for name, array in arrays.items()}))
    spans = read_record(head[HEADER_BYTES:_payload_end(head)]).label
    frames = np.tile(np.frombuffer(head, dtype=np.uint8), (records, 1))
    for name, array in arrays.items():
        start, end = _in_frame(spans[name])
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        frames[:, start:end] = little.view(np.uint8).reshape(records, -1)
    return frames.tobytes()


def _payload_end(head: bytes) -> int:
    return HEADER_BYTES + int.from_bytes(head[4:8], "little")


# --- any records ----------------------------------------------------------------------------------


def _decode_each(
    data: bytes | memoryview, where: str | None, limits: Limits = LIMITS
) -> Batch:
    rows: list[Any] = []
    labels: list[Any] = []
    for number, payload in enumerate(payloads(data, where), 1):
        here = place(where, number)
        record = _record(payload, here)
        rows.append(_row(_tensor(record.features, "features", here), here))
        if record.label:
            labels.append(_row(_tensor(record.label, "label", here), here))
        if labels and len(labels) < number:
            raise DataError(
                "LABEL_MISSING", "some records have a label and some have none", where=here,
                expected="a label in every record or in none",
            )
    features = stack(rows, where, limits)
    limits = limits._replace(features=None)  # of the features alone
    return Batch(features, _squeeze(stack(labels, where, limits)) if labels else None)


def _record(payload: bytes, where: str | None) -> Record:
    try:
        return read_record(payload)
    except Malformed as error:
        raise DataError(
            "BODY_MALFORMED", str(error), where=where,
            expected="SageMaker's Record message: features and label, each a map of tensors",
        ) from None


def _tensor(tensors: dict[str, Tensor], what: str, where: str | None) -> Tensor:
    if len(tensors) != 1 and _KEY not in tensors:
        names = ", ".join(repr(name[:60]) for name in sorted(tensors)[:5])
        keys = f"keys {names}{', …' if len(tensors) > 5 else ''}" if tensors else f"no {what}"
        raise DataError(
            "BODY_MALFORMED", f"has {keys}", where=where,
            expected=f'{what} under the key "{_KEY}", or under one single key',
        )
    return tensors.get(_KEY) or next(iter(tensors.values()))


def _row(tensor: Tensor, where: str | None) -> NDArray[np.float32] | Sparse:
    values = to_float32(tensor.values)
    if tensor.keys:
        return sparse(tensor.keys, values, tensor.shape, where)
    if not len(values) and tensor.shape:  # a sparse record without a value other than zero
        return sparse([], values, tensor.shape, where)
    return values


def _squeeze(labels: NDArray[np.float32]) -> NDArray[np.float32]:
    return labels[:, 0].copy() if labels.shape[1] == 1 else labels


def _as_float32(array: NDArray[Any]) -> NDArray[Any]:
    """Integers as float32, where it holds each of them."""
    import numpy as np

    if array.dtype.kind == "f" or (array.size and np.abs(array).max() > _EXACT_LIMIT):
        return array
    return array.astype(np.float32)


def _tensor_column(column: NDArray[Any] | list[Any]) -> NDArray[Any]:
    """A column as (records, k) of float32, float64 or int32, what a tensor can hold."""
    import numpy as np

    try:
        array = np.array(column) if isinstance(column, list) else column
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "biuf":
        raise shapes.not_encodable(
            "values that make no numeric tensor",
            "numbers, or Accept application/json for text and nested answers",
        )
    array = shapes.flat(array)
    if array.dtype.kind == "f":
        return array
    if array.size and not -(2**31) <= array.min() <= array.max() < 2**31:
        raise shapes.not_encodable(
            f"integers from {int(array.min())} to {int(array.max())}",
            "integers of 32 bits, or floats",
        )
    return array.astype(np.int32)
