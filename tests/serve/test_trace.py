"""The trace that a request names: W3C's header, X-Ray's header, and what is neither."""

from __future__ import annotations

import pytest

from byoa.serve import trace

ID, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize("value", [f"00-{ID}-{SPAN}-01", f"00-{ID}-{SPAN}-00",
                                   f"cc-{ID}-{SPAN}-01", f"cc-{ID}-{SPAN}-01-more-to-come"])
def test_a_valid_traceparent_is_read(value):
    assert trace.fields({"traceparent": value}) == {"trace_id": ID, "parent_id": SPAN}


@pytest.mark.parametrize("value", [
    "", "nonsense", f"ff-{ID}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{ID}-{'0' * 16}-01",
    f"00-{ID.upper()}-{SPAN}-01", f"00-{ID}-{SPAN}-01-more", f"00-{ID}-{SPAN}", f"0-{ID}-{SPAN}-01",
    f"cc-{ID}-{SPAN}-01more", f"00-{ID}-{SPAN}-01, 00-{ID}-{SPAN}-01", f"00-{ID[1:]}-{SPAN}-01",
    f"cc-{ID}-{SPAN}-01-" + "x" * 1000,
])
def test_an_invalid_traceparent_is_none(value):
    assert trace.fields({"traceparent": value}) == {}


@pytest.mark.parametrize("value", [
    "Root=1-5759e988-bd862e3fe1be46a994272793",
    "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
    "Self=1-67891234-12456789abcdef012345678;Root=1-5759e988-bd862e3fe1be46a994272793",
])
def test_x_rays_header_counts_where_there_is_no_traceparent(value):
    root = {"trace_id": "1-5759e988-bd862e3fe1be46a994272793"}
    assert trace.fields({"x-amzn-trace-id": value}) == root
    both = {"x-amzn-trace-id": value, "traceparent": f"00-{ID}-{SPAN}-01"}
    assert trace.fields(both)["trace_id"] == ID
    assert trace.fields({**both, "traceparent": "00-x"}) == root


@pytest.mark.parametrize("value", ["", "Root=", "Root=2-5759e988-bd862e3fe1be46a994272793",
                                   "root=1-5759e988-bd862e3fe1be46a994272793"])
def test_what_is_no_root_is_none(value):
    assert trace.fields({"x-amzn-trace-id": value}) == {}
