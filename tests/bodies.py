"""Bodies of every content type for the same records, and what may be wrong with them."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from byoa.container.formats import recordio, registry

Rows = Sequence[Sequence[int]]
TYPES = tuple(name for each in registry.all() for name in each.media_types)
# An image is one record; the others hold several.
ONE_RECORD = ("application/x-image", "image/jpeg", "image/png")


def body(content_type: str, rows: Rows) -> bytes:
    """`rows`, whole numbers from 0 to 255, all of one width, as a body of that type.

    A JPEG has the values of its rows nearly, and 8 columns at least are best.
    """
    return _WRITERS[content_type](rows)


def png(rows: Rows) -> bytes:
    """A grey image whose pixels are the values, one row of it a row."""
    width, height = len(rows[0]), len(rows)
    lines = b"".join(b"\0" + bytes(row) for row in rows)
    return b"\x89PNG\r\n\x1a\n" + b"".join([
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""),
    ])


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _csv(rows: Rows) -> bytes:
    return "".join(",".join(map(str, row)) + "\n" for row in rows).encode()


def _json(rows: Rows) -> bytes:
    return json.dumps({"instances": [{"features": list(row)} for row in rows]}).encode()


def _json_lines(rows: Rows) -> bytes:
    return "".join(json.dumps({"features": list(row)}) + "\n" for row in rows).encode()


def _npy(rows: Rows) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(rows, dtype=np.float32))
    return file.getvalue()


def _libsvm(rows: Rows) -> bytes:
    lines = [" ".join(f"{i}:{value}" for i, value in enumerate(row)) for row in rows]
    return "".join(f"{line}\n" for line in lines).encode()


def _parquet(rows: Rows) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    table = pa.table({f"c{i}": [row[i] for row in rows] for i in range(len(rows[0]))})
    pq.write_table(table, file)
    return file.getvalue()


def _protobuf(rows: Rows) -> bytes:
    return b"".join(recordio.frame(record(row)) for row in rows)


def record(row: Sequence[float]) -> bytes:
    """SageMaker's Record message with the features `row`."""
    values = struct.pack(f"<{len(row)}f", *row)
    return field(1, field(1, b"values") + field(2, field(2, field(1, values))))


def sparse_record(keys: Sequence[int], values: Sequence[float], shape: Sequence[int]) -> bytes:
    """The same of a sparse tensor."""
    tensor = field(1, struct.pack(f"<{len(values)}f", *values))
    tensor += field(2, b"".join(map(varint, keys))) + field(3, b"".join(map(varint, shape)))
    return field(1, field(1, b"values") + field(2, field(2, tensor)))


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited field of protobuf."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def _frames(rows: Rows) -> bytes:
    return b"".join(recordio.frame(png([row])) for row in rows)


def _jpeg(rows: Rows) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.array(rows, dtype=np.uint8)).save(file, "jpeg", quality=100)
    return file.getvalue()


_BY_FORMAT: dict[str, Callable[[Rows], bytes]] = {
    "csv": _csv, "json": _json, "jsonlines": _json_lines, "recordio-protobuf": _protobuf,
    "npy": _npy, "libsvm": _libsvm, "parquet": _parquet, "image": png,
    "recordio-images": _frames,
}
_WRITERS: dict[str, Callable[[Rows], bytes]] = {
    name: _BY_FORMAT[each.name] for each in registry.all() for name in each.media_types
}
_WRITERS["image/jpeg"] = _jpeg
