"""Inflating bodies piece by piece: the same bytes, however many members, and never more."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byoa.container.errors import DataError
from byoa.serve.content_encoding import TooLarge, inflate

_parts = st.lists(
    st.builds(lambda data, times: data * times, st.binary(max_size=40),
              st.sampled_from([1, 1, 99, 4096])), max_size=5,
)


@settings(deadline=None)
@given(_parts)
def test_members_that_follow_one_another_are_one_body(parts):
    whole = b"".join(parts)
    packed = b"".join(map(gzip.compress, parts))
    assert inflate(packed, "gzip", max(1, len(whole))) == whole
    assert inflate(packed, "GZIP ", 0) == whole
    if len(whole) > 1:
        with pytest.raises(TooLarge):
            inflate(packed, "gzip", len(whole) - 1)


@settings(deadline=None)
@given(_parts.filter(len), st.integers(1, 8))
def test_a_member_that_is_cut_off_is_refused(parts, missing):
    packed = b"".join(map(gzip.compress, parts))
    with pytest.raises(DataError, match="not whole gzip"):
        inflate(packed[:-missing], "gzip", 0)
