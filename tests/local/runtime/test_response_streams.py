"""InvokeEndpointWithResponseStream by unmodified boto3, to a model server that streams."""

import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import ClientError, EventStreamError
from hosting_harness import CALLER, STREAMING_IMAGE, Hosting, wait_until

from byoa.local.runtime.routing import Backend, Route, VariantRoute

STREAM = "/endpoints/ep/invocations-response-stream"
# The frame of FIX-10.
HI = bytes.fromhex(
    "0000006b00000059997770650d3a6d6573736167652d747970650700056576656e740b3a6576656e742d7479706507"
    "000b5061796c6f6164506172740d3a636f6e74656e742d747970650700186170706c69636174696f6e2f6f63746574"
    "2d73747265616d68697dde0062"
)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server with one endpoint, `ep`, whose container streams."""
    home = tmp_path_factory.mktemp("streams")
    hosting = Hosting(home, invocation_timeout=0.3, stream_timeout=60.0, startup_window=20.0)
    hosting.image = STREAMING_IMAGE
    try:
        hosting.deploy()
        yield hosting
    finally:
        hosting.close()


class Gate:
    """What the container waits for; it notes when its client has left."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def open(self, *names: object) -> None:
        for name in names:
            self.directory.joinpath(str(name)).touch()

    def has_left(self) -> bool:
        return self.directory.joinpath("left").exists()


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path)


def start(hosting, name="ep", gate=None, members=(), **order):
    if gate is not None:
        order["gate"] = str(gate.directory)
    return hosting.runtime.invoke_endpoint_with_response_stream(
        EndpointName=name, Body=json.dumps(order).encode(), **dict(members)
    )


def payloads(answer):
    """The bytes of each part, as they come."""
    with closing(answer["Body"]) as events:
        for event in events:
            assert list(event) == ["PayloadPart"]
            yield event["PayloadPart"]["Bytes"]


def fails(hosting, **order):
    with pytest.raises(ClientError) as raised:
        start(hosting, **order)
    return raised.value.response


def idle(hosting):
    """Whether no request is counted into any instance."""
    route = hosting.router.find(CALLER, "ep")
    return not any(each.outstanding for variant in route.variants for each in variant.backends)


def test_a_part_arrives_before_the_next_one_is_made(served, gate):
    """STRM-01, STRM-02: the container waits until the part before has arrived."""
    gate.open("head")
    answer = start(served, gate=gate, parts=["one", "two", "three"])
    received = payloads(answer)
    for number, text in enumerate((b"one", b"two", b"three")):
        gate.open(number)
        assert next(received) == text
    gate.open("end")
    assert list(received) == []
    wait_until(lambda: idle(served))


def test_a_stream_may_take_longer_than_an_ordinary_answer(served, gate):
    """HOST-31: the limit of ordinary ones is 0.3 s here, of streams 60 s."""
    gate.open("head", 0)
    received = payloads(start(served, gate=gate, parts=["one", "two"]))
    assert next(received) == b"one"
    time.sleep(0.5)
    gate.open(1, "end")
    assert list(received) == [b"two"]


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_bytes_and_their_order_are_kept_and_no_part_is_large(served, framing):
    """STRM-02, TRAP-49: parts are slices, whatever the container's chunks are."""
    received = list(payloads(start(served, bytes=5_000_192, framing=framing)))
    sent = bytes(range(256)) * (5_000_192 // 256)
    assert hashlib.sha256(b"".join(received)).digest() == hashlib.sha256(sent).digest()
    assert 0 < min(map(len, received)) <= max(map(len, received)) <= 65_536


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_an_empty_stream_has_no_event(served, framing):
    """STRM-07."""
    assert list(payloads(start(served, parts=[], framing=framing))) == []


def raw(hosting, order, path=STREAM, **headers):
    """Status, headers and body, as they are on the wire; without a signature."""
    parts = urlsplit(hosting.url)
    with closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)) as connection:
        connection.request("POST", path, json.dumps(order).encode(), headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def test_the_bytes_of_a_stream_are_the_golden_ones(served):
    """CHK-42, FIX-10, STRM-04, STRM-05, STRM-07: no event follows the last part."""
    status, headers, body = raw(served, {"parts": ["hi"]})
    assert status == 200
    assert headers["Content-Type"] == "application/vnd.amazon.eventstream"
    assert headers["Transfer-Encoding"] == "chunked"
    assert headers["X-Amzn-SageMaker-Content-Type"] == "application/jsonlines"
    assert "X-Secret" not in headers
    assert body == HI


def test_accept_and_type_have_their_own_members(served):
    """STRM-03, HOST-34."""
    answer = start(served, members={
        "Accept": "text/event-stream", "ContentType": "application/x-own",
        "CustomAttributes": "trace=7", "TargetVariant": "AllTraffic", "InferenceId": "id-1",
    })
    assert answer["ContentType"] == "application/json"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"]
    seen = json.loads(b"".join(payloads(answer)))["headers"]
    assert seen["accept"] == "text/event-stream"
    assert seen["content-type"] == "application/x-own"
    assert seen["x-amzn-sagemaker-custom-attributes"] == "trace=7"
    assert seen["x-amzn-sagemaker-inference-id"] == "id-1"
    assert not {"x-amzn-sagemaker-accept", "authorization"} & set(seen)
    answer = start(served, parts=["x"])
    assert answer["ContentType"] == "application/jsonlines"
    assert answer["CustomAttributes"] == "took=3"
    list(payloads(answer))


def test_a_header_accept_of_http_s_own_is_not_the_caller_s(served):
    """STRM-03."""
    body = raw(served, {}, Accept="text/html")[2]
    assert b'"accept"' not in body


@pytest.mark.parametrize(("status", "kind"), [(400, "client"), (503, "server")])
def test_an_error_before_the_first_byte_is_a_model_error(served, status, kind):
    """STRM-06, ERR-01, ERR-02."""
    error = fails(served, status=status, body="bad")
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert error["Error"]["Code"] == "ModelError"
    assert (error["OriginalStatusCode"], error["OriginalMessage"]) == (status, "bad")
    assert error["Error"]["Message"].startswith(f"Received {kind} error ({status}) from primary")
    assert error["LogStreamArn"].endswith("/aws/sagemaker/Endpoints/ep")
    wait_until(lambda: idle(served))


@pytest.mark.parametrize(
    ("end", "framing", "word"),
    [("early", "chunked", "before its last chunk"), ("early", "length", "too early"),
     ("reset", "chunked", "reset"), ("garbled", "chunked", "size")],
)
def test_a_stream_that_breaks_ends_with_an_event_that_says_so(served, gate, end, framing, word):
    """STRM-05, STRM-06: after the first byte."""
    gate.open("head", 0)
    received = payloads(start(served, gate=gate, parts=["one"], end=end, framing=framing))
    assert next(received) == b"one"
    gate.open("end")
    with pytest.raises(EventStreamError) as raised:
        next(received)
    error = raised.value.response["Error"]
    assert error["Code"] == "ModelStreamError"
    assert error["Message"].startswith("The connection to the model broke: ")
    assert word in error["Message"]
    wait_until(lambda: idle(served))


def events(body):
    """Headers and payload of each event, by botocore's own reader."""
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    return [(event.headers, event.payload) for event in buffer]


def test_the_event_of_a_broken_stream_has_the_api_s_error_code(served):
    """STRM-05, STRM-06: the last event; the HTTP status stays 200."""
    status, _, body = raw(served, {"parts": ["one"], "end": "early"})
    assert status == 200
    (_, part), (headers, payload) = events(body)
    assert part == b"one"
    assert headers == {":message-type": "exception", ":exception-type": "ModelStreamError",
                       ":content-type": "application/json"}
    assert json.loads(payload)["ErrorCode"] == "StreamBroken"


def test_a_container_that_has_just_died_is_a_model_error(served):
    """STRM-06, ERR-03."""
    with routed_to_nobody(served):
        error = fails(served, parts=["x"])
    assert (error["Error"]["Code"], error["OriginalStatusCode"]) == ("ModelError", 0)
    assert "refused" in error["OriginalMessage"]


@contextmanager
def routed_to_nobody(hosting):
    """`ep` with an instance in place of its own that has just died."""
    usual = hosting.router.find(CALLER, "ep")
    dead = Backend("i-dead")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead.connect(free.getsockname())
    dead.ready = True
    hosting.router.set(CALLER, "ep", Route([VariantRoute("AllTraffic", 1.0, [dead])]))
    try:
        yield dead
    finally:
        hosting.router.set(CALLER, "ep", usual)
        dead.close()


@pytest.fixture
def brief(start_hosting):
    """A server whose streams may take 3 s."""
    hosting = start_hosting(stream_timeout=3.0)
    hosting.image = STREAMING_IMAGE
    hosting.deploy()
    return hosting


def test_a_stream_that_is_late_ends_with_an_event_that_says_so(brief, gate):
    """HOST-31, STRM-05, STRM-06; its container learns of it."""
    gate.open("head", 0)
    body = raw(brief, {"parts": ["one", "two"], "gate": str(gate.directory)})[2]
    (_, part), (headers, payload) = events(body)
    assert part == b"one"
    assert headers[":exception-type"] == "ModelStreamError"
    assert json.loads(payload)["ErrorCode"] == "ModelInvocationTimeExceeded"
    wait_until(gate.has_left)


def test_a_stream_that_does_not_begin_in_time_is_a_model_error(brief, gate):
    """HOST-31, ERR-04, STRM-06."""
    error = fails(brief, gate=gate, parts=["one"])
    assert (error["Error"]["Code"], error["OriginalStatusCode"]) == ("ModelError", 0)
    assert "timed out while waiting" in error["OriginalMessage"]
    wait_until(gate.has_left)


def leave(hosting, gate, path=STREAM, *, receive):
    """Ask for a stream, receive something of it or nothing, and go."""
    order = json.dumps({"parts": ["one", "two"], "gate": str(gate.directory)}).encode()
    parts = urlsplit(hosting.url)
    with socket.create_connection((parts.hostname, parts.port), 30) as client:
        client.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (
            path.encode(), len(order), order))
        received = b""
        while receive not in received:
            received += (more := client.recv(65536))
            assert more, received
        wait_until(lambda: not idle(hosting))


@pytest.mark.parametrize("opened", [["head", 0], ["head"], []])
def test_a_client_that_leaves_ends_the_container_s_work(served, gate, opened):
    """STRM-02: at once, though the container sends nothing; before the first byte as well."""
    gate.open(*opened)
    receive = {2: b"one", 1: b"eventstream", 0: b""}[len(opened)]
    leave(served, gate, receive=receive)
    wait_until(gate.has_left)
    wait_until(lambda: idle(served))


def test_a_connection_whose_stream_ended_well_is_used_again(served):
    """HOST-11."""
    def connection():
        return json.loads(b"".join(payloads(start(served))))["connection"]

    first = connection()
    assert list(payloads(start(served, parts=["one", "two"]))) != []
    assert connection() == first
    raw(served, {"parts": ["one"], "end": "early"})
    assert connection() != first


def test_what_a_stream_does_not_have_is_refused_with_the_nearest(served):
    """STRM-03, SESS-01."""
    for header, value, words in (
        ("X-Amzn-SageMaker-Target-Model", "m.tar.gz", "call InvokeEndpoint"),
        ("X-Amzn-SageMaker-Session-Id", "NEW_SESSION", "open one by InvokeEndpoint"),
        ("X-Amzn-SageMaker-Enable-Explanations", "`true`", "ExplainerConfig"),
        ("X-Amzn-SageMaker-Inference-Component", "ic", "production variant"),
    ):
        status, headers, body = raw(served, {"parts": ["x"]}, **{header: value})
        assert (status, headers["x-amzn-ErrorType"]) == (400, "ValidationError")
        assert words in json.loads(body)["Message"]


def test_an_unknown_endpoint_and_a_body_that_is_too_large_are_refused(served):
    """ERR-06, HOST-32, STRM-06."""
    with pytest.raises(served.runtime.exceptions.ValidationError, match="not found"):
        start(served, "nobody")
    assert fails(served, filler="x" * 6_300_000)["Error"]["Code"] == "413"


def test_metrics_count_streams_as_other_invocations(served):
    """CWM-01, ERR-08: a stream that breaks is an error of the model's."""
    served.deploy("measured-streams")
    path = STREAM.replace("/ep/", "/measured-streams/")
    for order in ({"parts": ["x"]}, {"status": 400, "body": "bad"}, {"status": 500, "body": "bad"},
                  {"parts": ["x"], "end": "early"}):
        raw(served, order, path)

    def total(name):
        served.metrics.flush()
        now = datetime.now(timezone.utc)
        points = served.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/SageMaker", MetricName=name, StartTime=now - timedelta(minutes=10),
            EndTime=now + timedelta(minutes=1), Period=3600, Statistics=["Sum"],
            Dimensions=[{"Name": "EndpointName", "Value": "measured-streams"},
                        {"Name": "VariantName", "Value": "AllTraffic"}],
        )["Datapoints"]
        return sum(point["Sum"] for point in points)

    # The last is counted when its connection has been let go, a moment after its bytes.
    wait_until(lambda: total("Invocations") == 4)
    assert total("Invocation4XXErrors") == 1
    assert total("Invocation5XXErrors") == 2
    assert total("InvocationModelErrors") == 3


def test_an_update_lets_a_stream_end_that_goes_on_longer_than_ordinary_answers(served, gate):
    """ALG-04, HOST-03: the old instance ends when its last stream has."""
    served.deploy("turned")
    served.create_config("next", AllTraffic="ep")
    gate.open("head", 0)
    received = payloads(start(served, "turned", gate, parts=["one", "two"]))
    assert next(received) == b"one"
    served.sm.update_endpoint(EndpointName="turned", EndpointConfigName="next")
    assert served.settled("turned")["EndpointStatus"] == "InService"
    time.sleep(0.6)
    gate.open(1, "end")
    assert list(received) == [b"two"]


SCRIPT = r"""
import sagemaker
from sagemaker.iterators import LineIterator
from sagemaker.predictor import Predictor

predictor = Predictor("ep", sagemaker_session=sagemaker.Session())
order = rb'{"parts": ["first li", "ne\nsecond ", "line\n"]}'
for line in predictor.predict_stream(order, iterator=LineIterator):
    print(line.decode())
"""


def test_the_sagemaker_sdk_streams_lines(served, tmp_path):
    """STRM-02, TRAP-49: `predict_stream`, lines that are split over parts."""
    script = tmp_path / "stream.py"
    script.write_text(SCRIPT)
    own = {"AWS_ENDPOINT_URL": served.url, "AWS_REGION": CALLER.region, "HOME": str(tmp_path),
           "AWS_DEFAULT_REGION": CALLER.region, "AWS_ACCESS_KEY_ID": "a",
           "AWS_SECRET_ACCESS_KEY": "b"}
    done = subprocess.run([sys.executable, script], env={**os.environ, **own}, timeout=120,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-2:] == ["first line", "second line"]
