"""Media types are read by the grammar of RFC 9110, and a bad header is a coded error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byoa.container.media_types import (
    MediaType,
    NotAcceptable,
    UnsupportedMediaType,
    parse_accept,
    parse_media_type,
)

TOKENS = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=8)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12)


@pytest.mark.parametrize(
    ("header", "essence", "parameters"),
    [
        ("text/csv", "text/csv", {}),
        ("  Text/CSV  ", "text/csv", {}),
        ("text/csv;header=present", "text/csv", {"header": "present"}),
        ("text/csv ; Header=Present;label_size=0", "text/csv",
         {"header": "Present", "label_size": "0"}),
        ('application/json; charset="utf-8"', "application/json", {"charset": "utf-8"}),
        (r'text/csv; a="x;\"y\",z"', "text/csv", {"a": 'x;"y",z'}),
        ("application/json;", "application/json", {}),
        ("application/json; ; charset=utf-8", "application/json", {"charset": "utf-8"}),
        ("text/csv; q=0.5", "text/csv", {"q": "0.5"}),
    ],
)
def test_a_content_type_is_read_with_its_parameters(header, essence, parameters):
    media = parse_media_type(header)
    assert media.essence == essence
    assert dict(media.parameters) == parameters
    assert media.q == 1.0


@pytest.mark.parametrize(
    "header",
    ["text", "text/", "/csv", "text csv", "text/csv; header", "text/csv; header=", "text/csv x",
     'text/csv; a="open', "text/csv; a=1; a=2", "*/*", "text/*", "text/csv, application/json",
     "text/csv; a=\x00", "tëxt/csv"],
)
def test_a_malformed_content_type_is_refused_with_a_code(header):
    with pytest.raises(UnsupportedMediaType) as caught:
        parse_media_type(header)
    assert caught.value.code == "MEDIA_TYPE_MALFORMED"
    assert caught.value.expected


@pytest.mark.parametrize("header", [None, "", "   ", ",", "*/*"])
def test_an_empty_accept_means_anything(header):
    # ITK-04
    assert [each.essence for each in parse_accept(header)] == ["*/*"]


def test_an_accept_list_keeps_its_order_and_its_qualities():
    ranges = parse_accept('text/*;q=0.25, application/json;a="x,y";q=1.000 ,, text/csv;q=0')
    assert [(each.essence, each.q, each.specificity) for each in ranges] == [
        ("text/*", 0.25, 1), ("application/json", 1.0, 2), ("text/csv", 0.0, 2),
    ]
    assert dict(ranges[1].parameters) == {"a": "x,y"}


def test_the_accept_header_of_javas_own_client_is_read():
    ranges = parse_accept("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2")
    assert [(each.essence, each.q) for each in ranges[-2:]] == [("*/*", 0.2), ("*/*", 0.2)]


@pytest.mark.parametrize(
    "header", ["json", "*/json", "text/csv;q=2", "text/csv;q=-1", "text/csv;q=high", "a/b c/d",
               "text/csv;q=1.5"],
)
def test_a_malformed_accept_is_refused_with_a_code(header):
    with pytest.raises(NotAcceptable) as caught:
        parse_accept(header)
    assert caught.value.code == "ACCEPT_MALFORMED"


def test_a_range_covers_what_it_says():
    assert MediaType("*", "*").covers("text/csv")
    assert MediaType("text", "*").covers("text/csv")
    assert not MediaType("text", "*").covers("textual/csv")
    assert not MediaType("text", "csv").covers("text/css")


@given(TOKENS, TOKENS, st.dictionaries(TOKENS.map(str.lower), VALUES, max_size=3))
def test_a_media_type_written_out_reads_as_itself(kind, subtype, parameters):
    if "*" in (kind, subtype):
        return
    media = MediaType(kind.lower(), subtype.lower(), parameters)
    assert parse_media_type(str(media)) == media


@given(st.text(max_size=40))
def test_any_text_as_a_header_is_read_or_refused_but_never_crashes(header):
    try:
        parse_media_type(header)
    except UnsupportedMediaType as error:
        assert error.code == "MEDIA_TYPE_MALFORMED"
    try:
        assert parse_accept(header)
    except NotAcceptable as error:
        assert error.code == "ACCEPT_MALFORMED"
