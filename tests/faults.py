"""Bodies that are not what they say: random, mutated, and made to lie about their sizes.

`bodies(name)` is a hypothesis strategy of such bodies for a format, `encoded(name)` of the same
with a Content-Encoding. `BYOA_TEST_BODIES` says how many a test tries for each format, in
`RUNS` of 500 at most.
"""

from __future__ import annotations

import decimal
import gzip
import io
import json
import os
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from byoa.container.formats import recordio, registry
from tests.bodies import body, chunk, field, png, record, sparse_record

COUNT = int(os.environ.get("BYOA_TEST_BODIES", "60"))
_RUN = 500  # hypothesis keeps what it has tried until a run ends
RUNS = range(-(-COUNT // _RUN))
FORMATS = {each.name: each for each in registry.all()}
many = settings(
    max_examples=min(COUNT, _RUN), deadline=None, database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)

PARAMETERS = st.dictionaries(
    st.sampled_from(
        ["label_size", "header", "charset", "features", "first_index", "width", "channels"]
    ),
    st.sampled_from([
        "0", "1", "2", "3", "4", "present", "absent", "utf-16", "latin-1", "utf-7", "zlib",
        "punycode", "x", "-1", "999999999", "9999999999",
    ]),
    max_size=2,
)
# Beginnings that lead past a format's first check, and what its own readers stumble over.
BEGINNINGS = (
    b"", b"\x93NUMPY\x01\x00", b"PAR1", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"{", b"[[",
    recordio.MAGIC, recordio.frame(b"\x0a\x16\x0a\x06values")[:20], b"\xef\xbb\xbf", b"1 1:",
    b"1,2\n",
)
TEXT = st.text("0123456789.,-+eEnaif:#\n\r\"[]{} \t\x00", max_size=60).map(str.encode)
SIZES = (0, 1, 2, 7, 255, 65_535, 1 << 20, 1 << 29, (1 << 31) - 1, 1 << 31, (1 << 32) - 1,
         (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
NUMBERS = (b"9" * 400, b"1e999", b"-", b"nan", b"0x1", b"1_0", b"\xd9\xa1", b"", b"1e-999",
           b'"', b"[", b"{", b"null", b"true", b"\\u0000", b"\n", b"\r", b"\0", b":", b",", b"#")

random_bytes = st.builds(
    lambda head, tail: head + tail, st.sampled_from(BEGINNINGS), st.binary(max_size=300) | TEXT
)


# --- mutations ------------------------------------------------------------------------------------


@st.composite
def mutated(draw: Any, whole: st.SearchStrategy[bytes], most: int = 4) -> bytes:
    """A body with up to `most` faults."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, most))):
        if not data:
            break
        # Heads and tails are where formats keep their sizes.
        near = draw(st.integers(0, min(80, len(data) - 1)))
        at = draw(st.sampled_from([near, len(data) - 1 - near, None]))
        if at is None:
            at = draw(st.integers(0, len(data) - 1))
        kind = draw(st.sampled_from(
            ["flip", "set", "cut", "insert", "drop", "repeat", "size", "number"]
        ))
        if kind == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            data[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "drop":
            del data[at : at + draw(st.integers(1, 16))]
        elif kind == "repeat":
            data[at:at] = data[at : at + 24] * draw(st.sampled_from([1, 2, 300]))
        elif kind == "size":
            width, order = draw(st.sampled_from([(2, "<H"), (4, "<I"), (4, ">I"), (8, "<Q")]))
            value = draw(st.sampled_from(SIZES)) % (1 << 8 * width)
            data[at : at + width] = struct.pack(order, value)
        else:
            data[at : at + draw(st.integers(0, 3))] = draw(st.sampled_from(NUMBERS))
    return bytes(data)


# --- bodies that are whole ------------------------------------------------------------------------

ROWS = ([[7, 8, 9]], [[1, 2], [3, 4], [5, 6]], [[i % 256 for i in range(40)]] * 60)


@cache
def whole(name: str) -> tuple[bytes, ...]:
    """Bodies that a format reads, of several kinds."""
    found = [body(media, rows) for media in FORMATS[name].media_types for rows in ROWS]
    if name == "csv":
        found += [b'a,"b\nc"\n1,2\n', b'"1","2"\r\n"3","4"\r\n', b"1,2\n" * 30_000]
    elif name == "json":
        found += [b"[1,2]", b'{"features":{"keys":[1],"shape":[9],"values":[2]},"label":1}']
    elif name == "recordio-protobuf":
        found.append(recordio.frame(sparse_record([1, 5], [2, 3], [3, 3])) * 3)
    elif name == "parquet":
        found += _tables()
    elif name == "image":
        found += _images()
    return tuple(found)


def _tables() -> list[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = 100
    numbers = np.arange(count)
    columns: dict[str, Any] = {
        "b": numbers % 2 == 0, "i1": numbers.astype(np.int8), "u8": numbers.astype(np.uint64),
        "h": numbers.astype(np.float16), "f": numbers.astype(np.float32), "d": numbers / 3,
        "n": [None if i % 3 else float(i) for i in range(count)],
    }
    plain = pa.table({**columns, "z": pa.array([decimal.Decimal(i) for i in range(count)])})
    odd = pa.table({
        "s": ["x"] * count, "l": [[1, 2]] * count, "m": [{"a": 1}] * count, "t": [b"\0"] * count,
    })
    found = []
    for table, options in (
        (plain, {}), (odd, {}), (plain, {"compression": "gzip", "row_group_size": 13}),
        (plain, {"compression": "zstd", "data_page_version": "2.0"}),
        (plain, {"compression": "none", "use_dictionary": False}),
        (plain.select(["i1", "u8"]), {"use_dictionary": False, "compression": "lz4",
                                      "column_encoding": "DELTA_BINARY_PACKED"}),
        (plain.select(["f", "d"]), {"use_dictionary": False, "use_byte_stream_split": True}),
    ):
        file = io.BytesIO()
        pq.write_table(table, file, **options)
        found.append(file.getvalue())
    return found


def _images() -> list[bytes]:
    from PIL import Image

    found = []
    pixels = (np.arange(24 * 24 * 3) % 251).astype(np.uint8).reshape(24, 24, 3)
    for mode, kind, options in (
        ("RGB", "jpeg", {}), ("L", "jpeg", {"progressive": True}), ("CMYK", "jpeg", {}),
        ("RGB", "png", {}), ("P", "png", {}), ("RGBA", "png", {"optimize": True}),
        ("1", "png", {}), ("I;16", "png", {}),
    ):
        file = io.BytesIO()
        image = Image.fromarray(pixels)
        (image.convert("L").convert("I").convert(mode) if mode == "I;16" else image.convert(mode)
         ).save(file, kind, **options)
        found.append(file.getvalue())
    return found


# --- bodies that are made to lie ------------------------------------------------------------------

_key = st.sampled_from(
    ["instances", "features", "label", "data", "values", "keys", "shape", "configuration", "x"]
)
_number = st.sampled_from([0, 1, -1, 2, 1.5, 1e300, 10**30, 2**63, 10**12]) | st.integers(0, 5)
_documents = st.recursive(
    _number | st.none() | st.booleans() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_key, inner, max_size=4),
    max_leaves=12,
)
_deep = st.builds(
    lambda opening, times, rest: opening * times + rest,
    st.sampled_from([b"[", b'{"features":', b"[[1],", b'{"instances":[', b'{"data":{"features":']),
    st.sampled_from([1, 900, 2_000, 150_000]), st.sampled_from([b"", b"1", b"]" * 900]),
)
_some = st.lists(_number | st.none() | st.booleans(), max_size=4) | _number | st.none()
_tensor = st.fixed_dictionaries({"values": _some}, optional={"keys": _some, "shape": _some})
_features = st.fixed_dictionaries(
    {"features": _some | _tensor}, optional={"label": _some | _tensor}
)
_nearly = st.one_of(
    _features, _features.map(lambda each: {"data": each}),
    st.lists(_features, max_size=3).map(lambda each: {"instances": each}),
)
_json = st.builds(lambda value: json.dumps(value).encode(), _documents | _nearly) | _deep


def _again(text: str, times: int) -> bytes:
    """The text so many times, to a little more than the server takes."""
    return (text * min(times, (1 << 20) // len(text) + 1)).encode()


_cell = st.sampled_from(
    ["1", "2.5", "-0", "", " ", '"1"', '"', "nan", "1e400", "1" * 4400, "[", "é"]
)
_csv = st.builds(
    lambda rows, end, times: _again(end.join(",".join(row) for row in rows) + end, times),
    st.lists(st.lists(_cell, min_size=1, max_size=5), min_size=1, max_size=6),
    st.sampled_from(["\n", "\r\n", "\r", "\n\n"]), st.sampled_from([1, 1, 1, 5_000]),
)
_token = st.sampled_from([
    "1", "-1", "0:1", "1:2", "7:0.5", "1:1", "3000000:1", "1000000000:1", "9" * 40 + ":1",
    "9" * 4400 + ":1", "qid:3", "#", "x", "1:", ":1", "1:nan", "1:1:1", "-1:2",
])
_libsvm = st.builds(
    lambda lines, times: _again("".join(" ".join(line) + "\n" for line in lines), times),
    st.lists(st.lists(_token, max_size=5), min_size=1, max_size=6),
    st.sampled_from([1, 1, 1, 5_000]),
) | st.just(b"1 " + b" ".join(b"%d:1" % i for i in (*range(60_000), 59_999)))
_length = st.sampled_from([0, 1, 2, 3, 60, 10**6, 10**9, 2**63, 10**30])
_npy = st.builds(
    lambda version, descr, fortran, shape, rest, extra: _npy_file(
        version,
        f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, {extra}}}", rest,
    ),
    st.sampled_from([1, 2, 3, 4]),
    st.sampled_from(["'<f4'", "'>f8'", "'|b1'", "'|O'", "'<U9'", "[('a', '<f4')]", "'<f2'", "'<i8'",
                     "9", "'f'", "None", "'<c16'", "'<f9'"]),
    st.sampled_from(["False", "True", "0", "[" * 900]),
    st.lists(_length, max_size=40).map(tuple)
    | st.sampled_from(["5", "(1.5,)", "(-1,)", "(True,)"]),
    st.sampled_from([b"", bytes(8), bytes(24), bytes(960), b"\xff" * 16, bytes(200_000)]),
    st.sampled_from(["", "'x': 1", "'descr': '<f4'"]),
)


def _npy_file(version: int, header: str, rest: bytes) -> bytes:
    text = (header + "\n").encode()
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + rest


_varints = st.lists(st.sampled_from([0, 1, 2, 3, 9, 10**6, 10**9, 10**12, 2**63]), max_size=6)
_floats = st.lists(st.sampled_from([0.0, 1.0, -1.5, float("nan"), 3e38]), max_size=6)
_record = (
    st.builds(record, _floats)
    | st.builds(sparse_record, _varints, _floats, _varints)
    | st.builds(lambda times: sparse_record([1], [1], [2**63] * times), st.just(20_000))
    | st.builds(
        lambda parts: b"".join(parts),
        st.lists(st.builds(field, st.integers(0, 12), st.binary(max_size=30)), max_size=5),
    )
)
_protobuf = st.lists(
    (_record | mutated(st.sampled_from([record([1, 2]), sparse_record([1], [2], [3])])))
    .map(recordio.frame), min_size=1, max_size=4,
).map(b"".join)

_edge = st.sampled_from([0, 1, 2, 3, 24, 255, 8_000, 65_535, 1 << 20, (1 << 31) - 1, 1 << 31])
_png = st.builds(
    lambda width, height, depth, colour, method, interlace, between, data: (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(
            ">IIBBBBB", width, height, depth, colour, method, 0, interlace
        )) + b"".join(chunk(*each) for each in between) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    ),
    _edge, _edge, st.sampled_from([1, 2, 4, 8, 16, 3, 0]), st.sampled_from([0, 2, 3, 4, 6, 1]),
    st.sampled_from([0, 0, 0, 1]), st.integers(0, 2),
    st.lists(st.tuples(
        st.sampled_from([b"PLTE", b"tRNS", b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"acTL", b"fcTL",
                         b"fdAT", b"gAMA", b"eXIf", b"pHYs", b"IDAT", b"xxxx"]),
        st.binary(max_size=40) | st.just(b"a\0\0" + zlib.compress(bytes(20 << 20))),
    ), max_size=3),
    st.sampled_from([zlib.compress(bytes(n)) for n in (0, 9, 600, 1 << 16, 20 << 20)])
    | st.binary(max_size=60),
)
_frames = st.lists(
    (_png | mutated(st.sampled_from([png([[1, 2]]), png([[3, 4]])]))).flatmap(
        lambda image: st.sampled_from([
            image, struct.pack("<IfQQ", 0, 1.0, 7, 0) + image,
            struct.pack("<IfQQ", 2, 1.0, 7, 0) + bytes(8) + image,
            struct.pack("<IfQQ", (1 << 32) - 1, 1.0, 7, 0) + image,
        ])
    ).map(recordio.frame), min_size=1, max_size=3,
).map(b"".join)

_MADE: dict[str, st.SearchStrategy[bytes]] = {
    "csv": _csv, "json": _json,
    "jsonlines": st.lists(_json, min_size=1, max_size=4).map(b"\n".join),
    "npy": _npy, "libsvm": _libsvm, "recordio-protobuf": _protobuf, "image": _png,
    "recordio-images": _frames,
}


def bodies(name: str) -> st.SearchStrategy[bytes]:
    """Bodies for the format of that name: most of them faulty."""
    faulty = mutated(st.sampled_from(whole(name)))
    made = _MADE.get(name, faulty)
    return st.one_of(faulty, made, mutated(made, 2), random_bytes, faulty)


def encoded(name: str) -> st.SearchStrategy[tuple[bytes, str | None]]:
    """The same, and with a Content-Encoding that may be as faulty."""
    plain = bodies(name)
    packed = plain.map(_packed)
    bombs = st.sampled_from(_bombs())
    return st.one_of(
        *[plain.map(lambda data: (data, None))] * 6,
        st.one_of(packed, mutated(packed), plain, bombs).map(lambda data: (data, "gzip")),
    )


def _packed(data: bytes) -> bytes:
    return gzip.compress(data, 1)


@cache
def _bombs() -> tuple[bytes, ...]:
    zeros = gzip.compress(bytes(64 << 20))
    return zeros, gzip.compress(zeros), gzip.compress(b"") * 40_000, gzip.compress(b"1\n" * 600_000)


