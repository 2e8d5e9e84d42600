"""Whatever bytes come: every format reads them or refuses them with a code, in bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byoa.container.errors import DataError
from byoa.container.formats import recordio, registry
from byoa.container.formats.limits import Limits
from byoa.container.media_types import MediaType, UnsupportedMediaType
from tests.faults import FORMATS, PARAMETERS, RUNS, bodies, many

ALLOWED_BYTES = 64 << 20
LIMITS = Limits(values=1 << 20)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("run", RUNS)
@many
@given(data=st.data(), parameters=PARAMETERS, view=st.booleans(), label_size=st.integers(0, 2))
def test_any_bytes_are_read_or_refused_with_a_code(name, run, data, parameters, view, label_size):
    # pains 36
    format_ = FORMATS[name]
    kind, _, subtype = data.draw(st.sampled_from(format_.media_types)).partition("/")
    media = MediaType(kind, subtype, parameters)
    body = data.draw(bodies(name))
    given_ = memoryview(body) if view else body
    try:
        features, labels = format_.decode(
            given_, media, label_size=label_size, where="f", limits=LIMITS
        )
    except (DataError, UnsupportedMediaType) as error:
        assert error.code.isupper() and error.message
        assert len(str(error)) < 2048
    else:
        assert features.dtype == np.float32 and features.ndim == 2 and features.size
        assert features.flags.writeable and features.flags.c_contiguous
        assert labels is None or len(labels) == len(features)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("run", RUNS)
@many
@given(data=st.data(), parameters=PARAMETERS)
def test_any_bytes_have_a_boundary_within_them_or_none(name, run, data, parameters):
    kind, _, subtype = FORMATS[name].media_types[0].partition("/")
    body = data.draw(bodies(name))
    try:
        end = FORMATS[name].boundary(body, MediaType(kind, subtype, parameters))
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
