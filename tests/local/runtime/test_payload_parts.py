"""The body of a streamed answer, from a stream that does what a test says."""

import json

import pytest
from botocore.eventstream import EventStreamBuffer

from byoa.local.api.http import Disconnected
from byoa.local.runtime.connection import CallerLeft
from byoa.local.runtime.payload_parts import PayloadParts
from byoa.local.runtime.routing import Backend


class Stream:
    """Gives what it was given, and raises what is an exception."""

    status = 200

    def __init__(self, *pieces) -> None:
        self._pieces = [*pieces, b""]
        self.closed = 0

    def read(self, deadline):
        piece = self._pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece

    def close(self):
        self.closed += 1


class Parts:
    """PayloadParts of a stream, and what became of its request."""

    def __init__(self, *pieces) -> None:
        self.stream = Stream(*pieces)
        self.backend = Backend("i-1")
        assert self.backend.enter()
        self.statuses = []
        self.body = PayloadParts(self.stream, self.backend, 0.0, self.statuses.append)

    def received(self):
        buffer = EventStreamBuffer()
        for each in self.body:
            buffer.add_data(each)
        return [(event.headers.get(":exception-type"), event.payload) for event in buffer]

    @property
    def over(self):
        return self.stream.closed == 1 and self.backend.outstanding == 0


def test_each_piece_is_a_part_and_the_end_has_none():
    """STRM-02, STRM-07."""
    parts = Parts(b"a", b"b")
    assert parts.received() == [(None, b"a"), (None, b"b")]
    assert parts.over and parts.statuses == [200]


def test_the_request_ends_once_however_often_its_body_is_closed():
    parts = Parts(b"a")
    parts.received()
    parts.body.close()
    parts.body.close()
    assert parts.over and parts.statuses == [200]


def test_a_body_that_nobody_begins_to_read_ends_its_request():
    """The server closes it where the answer's head cannot be sent."""
    parts = Parts(b"a")
    parts.body.close()
    assert parts.over and parts.received() == []


def test_a_caller_that_left_gets_no_event_and_counts_as_no_error():
    parts = Parts(b"a", CallerLeft())
    next(parts.body)
    with pytest.raises(Disconnected):
        next(parts.body)
    assert parts.over and parts.statuses == [200]


def test_a_failure_of_our_own_is_an_internal_stream_failure(caplog):
    """STRM-05."""
    parts = Parts(b"a", ZeroDivisionError("oops"), b"never")
    _, (kind, payload) = parts.received()
    assert kind == "InternalStreamFailure"
    assert "ZeroDivisionError: oops" in json.loads(payload)["Message"]
    assert "Traceback" in caplog.text
    assert parts.over and parts.statuses == [0]


@pytest.mark.parametrize(
    ("error", "code"),
    [(TimeoutError(), "ModelInvocationTimeExceeded"), (ConnectionResetError("x"), "StreamBroken")],
)
def test_a_failure_of_the_model_is_the_last_event(error, code):
    """STRM-05, STRM-06."""
    parts = Parts(b"a", error, b"never")
    _, (kind, payload) = parts.received()
    assert (kind, json.loads(payload)["ErrorCode"]) == ("ModelStreamError", code)
    assert parts.over and parts.statuses == [0]
