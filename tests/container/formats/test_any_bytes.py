"""Whatever bytes come: every format reads them or refuses them with a code, in bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byoa.container.errors import DataError
from byoa.container.formats import recordio, registry
from byoa.container.media_types import MediaType, UnsupportedMediaType, parse_media_type

# Beginnings that lead past a format's first check, and what its own readers stumble over.
BEGINNINGS = (
    b"", b"\x93NUMPY\x01\x00", b"PAR1", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"{", b"[[",
    recordio.MAGIC, recordio.frame(b"\x0a\x16\x0a\x06values")[:20], b"\xef\xbb\xbf", b"1 1:",
    b"1,2\n",
)
TEXT = st.text("0123456789.,-+eEnaif:#\n\r\"[]{} \t\x00", max_size=60).map(str.encode)
BODIES = st.builds(
    lambda head, tail: head + tail,
    st.sampled_from(BEGINNINGS), st.binary(max_size=120) | TEXT,
)
PARAMETERS = st.dictionaries(
    st.sampled_from(
        ["label_size", "header", "charset", "features", "first_index", "width", "channels"]
    ),
    st.sampled_from(["0", "1", "2", "3", "present", "utf-16", "zlib", "x", "-1", "999999999"]),
    max_size=2,
)
KNOWN = {
    name: parse_media_type(name) for each in registry.all() for name in each.media_types
}
ALLOWED_BYTES = 64 << 20


@pytest.mark.parametrize("name", KNOWN)
@settings(deadline=None)
@given(body=BODIES, parameters=PARAMETERS, view=st.booleans(), label_size=st.integers(0, 2))
def test_any_bytes_are_read_or_refused_with_a_code(name, body, parameters, view, label_size):
    # pains 36
    media = MediaType(KNOWN[name].type, KNOWN[name].subtype, parameters)
    data = memoryview(body) if view else body
    format_ = registry.find(name)
    try:
        features, labels = format_.decode(data, media, label_size=label_size, where="f")
    except (DataError, UnsupportedMediaType) as error:
        assert error.code.isupper() and error.message
    else:
        assert features.dtype == np.float32 and features.ndim == 2 and features.size
        assert features.flags.writeable and features.flags.c_contiguous
        assert labels is None or len(labels) == len(features)


@pytest.mark.parametrize("name", KNOWN)
@settings(deadline=None)
@given(body=BODIES, parameters=PARAMETERS)
def test_any_bytes_have_a_boundary_within_them_or_none(name, body, parameters):
    media = MediaType(KNOWN[name].type, KNOWN[name].subtype, parameters)
    try:
        end = registry.find(name).boundary(body, media)
    except UnsupportedMediaType as error:
        assert error.code == "MEDIA_TYPE_UNSUPPORTED"
    else:
        assert end is None or 0 <= end <= len(body)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("text/libsvm", b"1 2000000000:1"),
        ("application/json", b'{"features":{"keys":[1],"shape":[2000000000],"values":[1]}}'),
        ("application/x-npy", b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f8', 'fortran_order': False, "
         b"'shape': (2000000000, 9), }\n"),
        ("application/x-recordio-protobuf", recordio.frame(bytes.fromhex(
            "0a1c" "0a0676616c756573" "1212" "1210" "0a040000803f" "120101" "1a0580a8d6b907"
        ))),
        ("application/x-recordio-protobuf", recordio.MAGIC + b"\xff\xff\xff\x1f" + bytes(8)),
    ],
)
def test_a_few_bytes_that_speak_of_gigabytes_take_none(name, body):
    """TRAIN-124 for the sparse record: keys, values and a shape."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            registry.find(name).decode(body)
        assert tracemalloc.get_traced_memory()[1] < ALLOWED_BYTES
    finally:
        tracemalloc.stop()
    assert caught.value.code in {"VALUES_TOO_MANY", "BODY_MALFORMED"}
