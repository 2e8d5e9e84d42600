"""Fixtures of the format tests: every parser of numbers, and a decoder by content type."""

from __future__ import annotations

import pytest

from byoa.container.formats import json_text, number_text, registry
from byoa.container.media_types import parse_media_type


@pytest.fixture
def decode():
    def call(content_type, body, **options):
        media = parse_media_type(content_type)
        return registry.find(media).decode(body, media, **options)

    return call


@pytest.fixture(params=["simdjson", "orjson", "json"])
def parser(request, monkeypatch):
    """Run the test with each parser that may be installed, as if faster ones were not."""
    if request.param == "simdjson":
        pytest.importorskip("simdjson")
    else:
        monkeypatch.setattr(number_text, "accelerator", lambda: None)
    if request.param == "orjson":
        pytest.importorskip("orjson")
    if request.param == "json":
        monkeypatch.setattr(json_text, "accelerator", lambda: None)
    return request.param
