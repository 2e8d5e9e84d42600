"""Limits of what a body holds: every codec keeps them, and the model's width comes first."""

from __future__ import annotations

import pytest

from byoa.container.errors import DataError
from byoa.container.formats import registry
from byoa.container.formats.limits import LIMITS, LimitExceeded, Limits
from tests.bodies import ONE_RECORD, TYPES, body

SEVERAL = [name for name in TYPES if name not in ONE_RECORD]


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize(
    ("limits", "code", "what", "size"),
    [
        (Limits(records=2), "RECORDS_TOO_MANY", "records", 3),
        (Limits(values=26), "VALUES_TOO_MANY", "values", 27),
    ],
)
def test_every_codec_of_several_records_keeps_the_limits(name, limits, code, what, size):
    given = body(name, [[8] * 9] * 3)
    assert registry.find(name).decode(given).features.shape == (3, 9)
    with pytest.raises(LimitExceeded) as caught:
        registry.find(name).decode(given, limits=limits)
    error = caught.value
    assert (error.code, error.what, error.size, error.limit) == (code, what, size, size - 1)


@pytest.mark.parametrize("name", TYPES)
def test_every_codec_keeps_the_width(name):
    given = body(name, [[8] * 9])
    assert registry.find(name).decode(given, limits=Limits(columns=9)).features.shape == (1, 9)
    with pytest.raises(LimitExceeded) as caught:
        registry.find(name).decode(given, limits=Limits(columns=8))
    assert (caught.value.what, caught.value.size, caught.value.limit) == ("columns", 9, 8)


@pytest.mark.parametrize("name", TYPES)
def test_a_record_that_fits_no_model_is_refused_as_that(name):
    """Whatever limit it is over as well: to raise that would not help."""
    with pytest.raises(DataError) as caught:
        registry.find(name).decode(body(name, [[8] * 9]), limits=Limits(values=9, features=8))
    assert caught.value.code == "RECORD_WIDTH"
    assert "8 features a record" in caught.value.expected


@pytest.mark.parametrize("name", ["text/csv", "application/x-npy", "application/x-parquet"])
def test_label_columns_do_not_count(name):
    given = body(name, [[1] * 9])
    batch = registry.find(name).decode(given, label_size=2, limits=Limits(columns=7, features=7))
    assert batch.features.shape == (1, 7)


def test_a_file_of_a_channel_has_a_limit_of_values_alone():
    LIMITS.require(1 << 27, 2)
    with pytest.raises(LimitExceeded, match="VALUES_TOO_MANY"):
        LIMITS.require(1 << 27, 3)
