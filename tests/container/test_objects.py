"""Objects in RecordIO frames: whatever the reads, each object's bytes and no others."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byoa.container.errors import DataError
from byoa.container.formats.recordio import MAGIC, frame
from byoa.container.objects import objects


def split(payload):
    """An object as a writer has it that splits at each magic, which it leaves out."""
    parts = payload.split(MAGIC)
    if len(parts) == 1:
        return frame(payload)
    flags = [1] + [2] * (len(parts) - 2) + [3]
    return b"".join(
        MAGIC + (flag << 29 | len(part)).to_bytes(4, "little") + part + bytes(-len(part) % 4)
        for flag, part in zip(flags, parts, strict=True)
    )


def whole(stream, size):
    parts = []
    while part := stream.read(size):
        assert len(part) <= size
        parts.append(part)
    return b"".join(parts)


PAYLOADS = st.lists(st.one_of(st.binary(max_size=9), st.just(MAGIC)), max_size=5).map(b"".join)


@given(st.lists(PAYLOADS, max_size=5), st.integers(1, 12))
def test_objects_come_one_by_one(payloads, size):
    stream = io.BytesIO(b"".join(map(split, payloads)))
    found = [(name, whole(each, size)) for name, each in objects(stream, "train_0")]
    assert found == [
        (f"train_0 object {number}", payload) for number, payload in enumerate(payloads, 1)
    ]


@given(st.lists(PAYLOADS, max_size=5), st.integers(0, 12))
def test_what_is_not_read_of_an_object_is_skipped(payloads, size):
    stream = io.BytesIO(b"".join(map(split, payloads)))
    found = [each.read(size) for _, each in objects(stream, "train_0")]
    assert found == [payload[:size] for payload in payloads]


@given(st.lists(PAYLOADS, min_size=1, max_size=3), st.data())
def test_a_stream_that_is_cut_off_is_refused_at_its_end(payloads, data):
    stream = b"".join(map(split, payloads))
    ends = [len(b"".join(map(split, payloads[:count]))) for count in range(len(payloads) + 1)]
    cut = data.draw(st.integers(1, len(stream) - 1).filter(lambda at: at not in ends), "cut")
    with pytest.raises(DataError) as caught:
        for _, each in objects(io.BytesIO(stream[:cut]), "train_0"):
            whole(each, 5)
    number = sum(end <= cut for end in ends)
    assert caught.value.code == "BODY_MALFORMED"
    assert caught.value.where == f"train_0 object {number}"
