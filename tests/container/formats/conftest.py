"""Fixtures of the format tests: both JSON parsers, and a decoder by content type."""

from __future__ import annotations

import pytest

from byoa.container.formats import json_text, registry
from byoa.container.media_types import parse_media_type


@pytest.fixture
def decode():
    def call(content_type, body, **options):
        media = parse_media_type(content_type)
        return registry.find(media).decode(body, media, **options)

    return call


@pytest.fixture(params=["orjson", "json"])
def parser(request, monkeypatch):
    """Run the test with orjson and with the standard library in its place."""
    if request.param == "orjson":
        pytest.importorskip("orjson")
    else:
        monkeypatch.setattr(json_text, "accelerator", lambda: None)
    return request.param
