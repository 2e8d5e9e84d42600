"""The registry: formats by content type and suffix, and answers by the Accept header."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from byoa.container.errors import DataError
from byoa.container.formats import registry
from byoa.container.formats.checks import require_finite, require_width
from byoa.container.media_types import NotAcceptable, UnsupportedMediaType, parse_media_type


@pytest.mark.parametrize(
    ("content_type", "name"),
    [
        ("text/csv", "csv"),
        ("TEXT/CSV; header=present", "csv"),
        ("application/json; charset=utf-8", "json"),
        ("application/jsonlines", "jsonlines"),
        ("application/x-jsonlines", "jsonlines"),
        ("application/jsonl", "jsonlines"),
        ("application/x-recordio-protobuf", "recordio-protobuf"),
        ("application/x-npy", "npy"),
        ("text/libsvm; first_index=0", "libsvm"),
        ("text/x-libsvm", "libsvm"),
        ("application/x-parquet", "parquet"),
        ("application/vnd.apache.parquet", "parquet"),
        ("application/x-image", "image"),
        ("image/jpeg", "image"),
        ("image/png", "image"),
        ("application/x-recordio", "recordio-images"),
    ],
)
def test_a_format_is_found_by_its_content_type(content_type, name):
    # pains 14: parameters and letter case do not hide a format
    assert registry.find(content_type).name == name
    assert registry.find(parse_media_type(content_type)).name == name


@pytest.mark.parametrize("content_type", ["text/xml", "application/octet-stream", ""])
def test_an_unknown_content_type_lists_what_is_known_with_samples(content_type):
    # ITK-04
    with pytest.raises(UnsupportedMediaType) as caught:
        registry.find(content_type)
    assert caught.value.code == ("MEDIA_TYPE_UNSUPPORTED" if content_type else "MEDIA_TYPE_MISSING")
    for each in registry.all():
        assert each.media_types[0] in caught.value.expected
        assert each.sample in caught.value.expected


def test_names_types_and_suffixes_are_each_of_one_format():
    for attribute in ("media_types", "suffixes"):
        values = [value for each in registry.all() for value in getattr(each, attribute)]
        assert len(values) == len(set(values))
        assert all(value == value.lower() for value in values)
    for each in registry.all():
        assert all(registry.by_suffix(suffix.upper()) is each for suffix in each.suffixes)
    assert registry.by_suffix(".exe") is None


@pytest.mark.parametrize("each", [f for f in registry.all() if not f.sample.startswith("the ")],
                         ids=lambda each: each.name)
def test_every_sample_is_a_body_that_decodes(each):
    assert each.decode(each.sample.encode()).features.shape[0] == 1


@pytest.mark.parametrize(
    ("accept", "default", "answer"),
    [
        (None, "text/csv", "text/csv"),
        ("", "text/csv", "text/csv"),
        ("*/*", "application/jsonlines", "application/jsonlines"),
        ("*/*", "application/x-jsonlines", "application/x-jsonlines"),
        ("*/*", "text/csv; header=present; label_size=1", "text/csv; header=present"),
        ("application/json", "text/csv", "application/json"),
        ("application/json; charset=UTF-8", "text/csv", "application/json; charset=utf-8"),
        ("application/json; profile=x", "text/csv", "application/json"),
        ("text/*", "application/json", "text/csv"),
        ("application/*", "text/csv", "application/json"),
        ("application/*", "application/x-npy", "application/x-npy"),
        ("text/csv;q=0.2, application/json;q=0.9", "text/csv", "application/json"),
        ("text/csv, application/json", "application/json", "text/csv"),
        ("application/json, */*;q=0.1", "text/csv", "application/json"),
        ("text/csv, */*", "application/json", "text/csv"),
        ("text/xml, */*;q=0.1", "application/json", "application/json"),
        ("application/json;q=0, */*", "application/json", "text/csv"),
        ("*/*, text/csv;q=0", "text/csv", "application/json"),
        ("text/csv; header=present", "application/json", "text/csv; header=present"),
        ("text/csv; header=maybe, application/json;q=0.5", "text/csv", "application/json"),
        ("text/html, image/gif, *; q=.2, */*; q=.2", "text/csv", "text/csv"),
        ("application/x-jsonlines", "text/csv", "application/x-jsonlines"),
    ],
)
def test_the_answer_follows_the_accept_header(accept, default, answer):
    format_, media = registry.negotiate(accept, default)
    assert str(media) == answer
    assert format_ is registry.find(media)


@pytest.mark.parametrize(
    "accept", ["text/xml", "image/*", "application/json;q=0", "text/csv;charset=utf-16", "*/*;q=0"]
)
def test_what_cannot_be_answered_is_not_acceptable(accept):
    with pytest.raises(NotAcceptable) as caught:
        registry.negotiate(accept, "text/csv")
    assert caught.value.code == "NOT_ACCEPTABLE"
    assert "application/json" in caught.value.expected


def test_importing_the_registry_and_the_channels_costs_the_standard_library_only():
    program = (
        "import sys; import byoa.container.channels, byoa.container.formats.registry as r;"
        "r.find('text/csv'); r.negotiate('text/*', 'text/csv');"
        "print(sorted({'numpy', 'orjson', 'simdjson', 'pyarrow', 'PIL', 'torch', 'flask'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_value_that_is_not_finite_is_named():
    features = np.ones((3, 4), dtype=np.float32)
    require_finite(features)
    features[1, 2] = np.nan
    features[2, 0] = np.inf
    with pytest.raises(DataError) as caught:
        require_finite(features)
    assert (caught.value.code, caught.value.where) == ("VALUE_NOT_FINITE", "record 2, column 3")
    with pytest.raises(DataError) as caught:
        require_finite(features, "train/a.csv", first_record=11, first_column=2)
    assert caught.value.where == "train/a.csv record 12, column 4"


def test_a_width_that_the_model_does_not_know_is_named():
    require_width(np.ones((2, 64), np.float32), 64)
    with pytest.raises(DataError) as caught:
        require_width(np.ones((2, 5), np.float32), 64, "the body,")
    assert caught.value.code == "RECORD_WIDTH"
    assert str(caught.value).startswith("the body, record 1: has 5 columns, expected 64")
