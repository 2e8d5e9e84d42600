"""InvokeEndpointWithResponseStream by unmodified boto3, to containers of either runner."""

import json
import shutil
import socket
import uuid
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError, EventStreamError
from hosting_harness import CALLER, STREAMING_IMAGE, Hosting, wait_until

pytestmark = pytest.mark.both_runners


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """Gives a server of an image, with one endpoint, `ep`."""
    running = {}

    def get(image):
        if image not in running:
            home = tmp_path_factory.mktemp("streaming") / "home"
            running[image] = Hosting(home, image, startup_window=20.0)
            running[image].deploy()
        return running[image]

    yield get
    for hosting in running.values():
        hosting.close()


@pytest.fixture
def streaming(deployed, runner_kind, request):
    """A server of the runner, with one endpoint, `ep`, whose container streams."""
    return deployed(
        STREAMING_IMAGE if runner_kind == "process"
        else request.getfixturevalue("streaming_server_image")
    )


class Gate:
    """A directory of the container's, of which it waits for files: calls make them."""

    def __init__(self, hosting):
        self.place = f"/tmp/gate-{uuid.uuid4().hex}"
        self._hosting = hosting

    def open(self, *names):
        order = json.dumps({"gate": self.place, "open": names}).encode()
        answer = self._hosting.runtime.invoke_endpoint(EndpointName="ep", Body=order)
        return json.loads(answer["Body"].read())


@pytest.fixture
def gate(streaming):
    made = Gate(streaming)
    yield made
    shutil.rmtree(made.place, ignore_errors=True)  # of a process, it is this machine's


def start(hosting, gate=None, **order):
    if gate is not None:
        order["gate"] = gate.place
    return hosting.runtime.invoke_endpoint_with_response_stream(
        EndpointName="ep", Body=json.dumps(order).encode(), Accept="application/jsonlines"
    )


def payloads(answer):
    with closing(answer["Body"]) as events:
        for event in events:
            yield event["PayloadPart"]["Bytes"]


def test_parts_arrive_one_by_one_while_the_next_are_not_made(streaming, gate):
    """STRM-01, STRM-02."""
    gate.open("head", "0")
    answer = start(streaming, gate, parts=["one", "two"])
    assert answer["ContentType"] == "application/jsonlines"
    received = payloads(answer)
    assert next(received) == b"one"
    gate.open("1", "end")
    assert list(received) == [b"two"]


def test_a_client_that_leaves_in_the_middle_ends_the_container_s_work(streaming, gate):
    """STRM-02."""
    gate.open("head", "0")
    answer = start(streaming, gate, parts=["one", "two"])
    assert next(payloads(answer)) == b"one"
    answer["Body"].close()
    wait_until(lambda: "left" in gate.open())


def test_a_client_that_leaves_before_the_first_byte_ends_the_container_s_work(streaming, gate):
    """STRM-02."""
    assert gate.open() == []
    order = json.dumps({"parts": ["one"], "gate": gate.place}).encode()
    parts = urlsplit(streaming.url)
    (backend,) = streaming.router.find(CALLER, "ep").variants[0].backends
    with socket.create_connection((parts.hostname, parts.port), 30) as client:
        client.sendall(b"POST /endpoints/ep/invocations-response-stream HTTP/1.1\r\nHost: x\r\n"
                       b"Content-Length: %d\r\n\r\n%b" % (len(order), order))
        wait_until(lambda: backend.outstanding)
    wait_until(lambda: "left" in gate.open())


def test_an_error_before_the_first_byte_is_a_model_error(streaming):
    """STRM-06."""
    with pytest.raises(ClientError) as raised:
        start(streaming, status=503, body="no room")
    assert raised.value.response["OriginalStatusCode"] == 503
    assert raised.value.response["OriginalMessage"] == "no room"


def test_a_container_that_dies_in_the_middle_of_a_stream_breaks_it(streaming, gate):
    """STRM-05, STRM-06: and another one takes its place."""
    gate.open("head", "0")
    received = payloads(start(streaming, gate, parts=["one", "two"]))
    assert next(received) == b"one"
    with pytest.raises(ClientError):
        streaming.runtime.invoke_endpoint(EndpointName="ep", Body=b'{"exit": 3}')
    with pytest.raises(EventStreamError) as raised:
        next(received)
    assert raised.value.response["Error"]["Code"] == "ModelStreamError"

    def again():
        try:
            return list(payloads(start(streaming, parts=["back"])))
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ModelError"
            return None

    assert wait_until(again) == [b"back"]
