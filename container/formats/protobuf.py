"""The protobuf wire code of SageMaker's Record message, read and written without a library.

    Record   features map<string, Value> = 1, label map<string, Value> = 2 (TRAIN-122)
    Value    float32_tensor = 2, float64_tensor = 3, int32_tensor = 7, bytes = 9 (TRAIN-123)
    tensor   values = 1, keys = 2, shape = 3; uint64 keys and shape; packed or not

uid, metadata and configuration say nothing about the numbers and are passed over, as are unknown
fields, which a reader of protobuf must.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Malformed", "Record", "Tensor", "read_record", "write_record"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_TENSORS = {2: "<f4", 3: "<f8", 7: "int32"}
_TENSOR_FIELDS = {"f4": 2, "f8": 3, "i4": 7}
_BYTES_FIELD = 9
_FIXED = {"<f4": (_FIXED32, "<f"), "<f8": (_FIXED64, "<d")}


class Malformed(ValueError):
    """What is wrong with a message; the caller knows which record it is."""


class Tensor(NamedTuple):
    """A tensor of one record. `span` is where its values lie in the message, if in one piece."""

    dtype: str
    values: list[float] | NDArray[Any]
    span: tuple[int, int] | None
    keys: list[int]
    shape: list[int]


class Record(NamedTuple):
    features: dict[str, Tensor]
    label: dict[str, Tensor]


def read_record(data: bytes) -> Record:
    """The tensors of one message. Raises Malformed."""
    record = Record({}, {})
    for number, wire, start, end in _fields(data, 0, len(data)):
        if number in (1, 2) and wire == _BYTES:
            name, tensor = _entry(data, start, end)
            record[number - 1][name] = tensor
    return record


def write_record(label: Mapping[str, NDArray[Any]]) -> bytes:
    """A message whose label map holds each array (k,) of float32, float64 or int32."""
    return b"".join(
        _field(2, _field(1, name.encode("utf-8")) + _field(2, _value(array)))
        for name, array in label.items()
    )


# --- reading --------------------------------------------------------------------------------------


def _fields(data: bytes, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Each field of a message: number, wire type, and where its value begins and ends."""
    while position < end:
        key, position = _varint(data, position, end)
        number, wire = key >> 3, key & 7
        start = position
        if wire == _VARINT:
            _, position = _varint(data, position, end)
        elif wire == _BYTES:
            length, start = _varint(data, position, end)
            position = start + length
        elif wire in (_FIXED32, _FIXED64):
            position += 4 if wire == _FIXED32 else 8
        else:
            raise Malformed(f"wire type {wire} is not known")
        if position > end or not number:
            raise Malformed(f"field {number} is cut off or no field")
        yield number, wire, start, position


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
    raise Malformed("a varint is cut off")


def _entry(data: bytes, start: int, end: int) -> tuple[str, Tensor]:
    """One entry of a map: key = 1, value = 2."""
    name = ""
    tensor: Tensor | None = None
    for number, wire, first, last in _fields(data, start, end):
        if number == 1 and wire == _BYTES:
            try:
                name = data[first:last].decode("utf-8")
            except UnicodeDecodeError:
                raise Malformed("a map's key is not UTF-8") from None
        elif number == 2 and wire == _BYTES:
            tensor = _tensor_of(data, first, last)
    if tensor is None:
        raise Malformed(f"{name[:60]!r} has no tensor of float32, float64 or int32")
    return name, tensor


def _tensor_of(data: bytes, start: int, end: int) -> Tensor | None:
    tensor: Tensor | None = None
    for number, wire, first, last in _fields(data, start, end):
        if wire == _BYTES and number in _TENSORS:
            tensor = _tensor(data, first, last, _TENSORS[number])
        elif number == _BYTES_FIELD:
            raise Malformed("a value holds bytes, not a tensor of numbers")
    return tensor


def _tensor(data: bytes, start: int, end: int, dtype: str) -> Tensor:
    values: list[float] = []
    spans: list[tuple[int, int]] = []
    integers: dict[int, list[int]] = {2: [], 3: []}
    for number, wire, first, last in _fields(data, start, end):
        if number == 1:
            values.extend(_numbers(data, first, last, wire, dtype))
            spans.append((first, last))
        elif number in integers and wire in (_VARINT, _BYTES):
            integers[number].extend(_varints(data, first, last))
    whole = len(spans) == 1 and dtype in _FIXED
    return Tensor(dtype, values, spans[0] if whole else None, integers[2], integers[3])


def _numbers(data: bytes, start: int, end: int, wire: int, dtype: str) -> Any:
    """Values of one field, packed or single."""
    if dtype not in _FIXED:
        if wire not in (_VARINT, _BYTES):
            raise Malformed("an int32 tensor's values are no varints")
        return [_signed(value) for value in _varints(data, start, end)]
    single, code = _FIXED[dtype]
    size = struct.calcsize(code)
    if wire not in (single, _BYTES) or (end - start) % size:
        raise Malformed(f"a tensor's values are not of {size} bytes each")
    return struct.unpack(f"<{(end - start) // size}{code[1]}", data[start:end])


def _varints(data: bytes, position: int, end: int) -> list[int]:
    values = []
    while position < end:
        value, position = _varint(data, position, end)
        values.append(value)
    return values


def _signed(value: int) -> int:
    """The low 32 bits as two's complement: negative numbers are written sign-extended."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


# --- writing --------------------------------------------------------------------------------------


def _value(array: NDArray[Any]) -> bytes:
    if array.dtype.kind == "i":
        packed = b"".join(_write_varint(int(value) & 0xFFFFFFFFFFFFFFFF) for value in array)
    else:
        packed = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return _field(_TENSOR_FIELDS[f"{array.dtype.kind}{array.dtype.itemsize}"], _field(1, packed))


def _field(number: int, payload: bytes) -> bytes:
    return _write_varint(number << 3 | _BYTES) + _write_varint(len(payload)) + payload


def _write_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
