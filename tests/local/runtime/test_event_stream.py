"""Frames of an event stream, by their golden bytes and by botocore's own reader."""

import json

import pytest
from botocore.eventstream import EventStreamBuffer

from byoa.local.runtime import event_stream


def read(*frames):
    buffer = EventStreamBuffer()
    for frame in frames:
        for each in frame:
            buffer.add_data(bytes([each]))
    return [(event.headers, event.payload) for event in buffer]


def test_a_payload_part_is_the_golden_one():
    """FIX-10, STRM-04, STRM-05."""
    assert event_stream.payload_part(b"hi") == bytes.fromhex(
        "0000006b00000059997770650d3a6d6573736167652d747970650700056576656e740b3a6576656e742d747970"
        "6507000b5061796c6f6164506172740d3a636f6e74656e742d747970650700186170706c69636174696f6e2f6f"
        "637465742d73747265616d68697dde0062"
    )


def test_an_exception_is_the_golden_one():
    """FIX-11, STRM-05."""
    members = {"Message": "x", "ErrorCode": "StreamBroken"}
    assert event_stream.exception("ModelStreamError", members) == bytes.fromhex(
        "000000980000005e0887cf4b0d3a6d6573736167652d74797065070009657863657074696f6e0f3a6578636570"
        "74696f6e2d747970650700104d6f64656c53747265616d4572726f720d3a636f6e74656e742d74797065070010"
        "6170706c69636174696f6e2f6a736f6e7b224d657373616765223a2278222c224572726f72436f6465223a2253"
        "747265616d42726f6b656e227db53d3885"
    )


@pytest.mark.parametrize("data", [b"", b"\0\xff\r\n", bytes(range(256)) * 256])
def test_any_bytes_pass_through_botocore_s_reader(data):
    """STRM-04."""
    ((headers, payload),) = read(event_stream.payload_part(data))
    assert payload == data
    assert headers == {":message-type": "event", ":event-type": "PayloadPart",
                       ":content-type": "application/octet-stream"}


def test_frames_follow_one_another_without_a_mark_between_them():
    """STRM-07."""
    error = event_stream.exception("InternalStreamFailure", {"Message": "é"})
    (_, one), (headers, two) = read(event_stream.payload_part(b"1"), error)
    assert (one, json.loads(two)) == (b"1", {"Message": "é"})
    assert headers[":exception-type"] == "InternalStreamFailure"
