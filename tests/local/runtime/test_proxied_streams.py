"""InvokeEndpointWithResponseStream by unmodified boto3, at AWS's own address through the proxy."""

import json
from contextlib import closing

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError
from hosting_harness import CALLER, STREAMING_IMAGE, Hosting, wait_until

from byoa.local import environment
from byoa.local.api.certificates import Authority
from byoa.local.api.http import HttpServer
from byoa.local.api.proxy import ProxyDoor


@pytest.fixture(scope="module")
def proxied(tmp_path_factory):
    """A server with one endpoint, `ep`, whose container streams, and a door for HTTPS_PROXY."""
    hosting = Hosting(tmp_path_factory.mktemp("proxied"), STREAMING_IMAGE, startup_window=20.0)
    door = ProxyDoor(Authority(hosting.home / "ca"))
    server = HttpServer(hosting.dispatcher, "127.0.0.1", 0, door)
    door.server = server
    server.start()
    try:
        hosting.deploy()
        yield hosting, server
    finally:
        door.close()
        server.stop(5.0)
        hosting.close()


@pytest.fixture
def runtime(proxied, monkeypatch):
    """A client that knows nothing of this machine but what `byoa env` prints."""
    hosting, server = proxied
    variables = environment.write(hosting.settings, server.port, CALLER.region, environ={})
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    config = Config(retries={"max_attempts": 0}, read_timeout=30)
    session = boto3.session.Session()
    with closing(session.client("sagemaker-runtime", config=config)) as client:
        assert client.meta.endpoint_url == "https://runtime.sagemaker.us-west-2.amazonaws.com"
        yield client


@pytest.fixture
def start(runtime, tmp_path):
    """Asks for a stream whose container waits for files in `tmp_path`."""
    def ask(opened=(), **order):
        for name in opened:
            tmp_path.joinpath(name).touch()
        body = json.dumps({"gate": str(tmp_path), **order}).encode()
        return runtime.invoke_endpoint_with_response_stream(EndpointName="ep", Body=body)

    return ask


def payloads(answer):
    with closing(answer["Body"]) as events:
        for event in events:
            yield event["PayloadPart"]["Bytes"]


def test_parts_arrive_through_the_proxy_while_the_next_are_not_made(start, tmp_path):
    """STRM-01, STRM-02: TLS holds none of them back."""
    received = payloads(start(["head", "0"], parts=["one", "two"]))
    assert next(received) == b"one"
    for name in ("1", "end"):
        tmp_path.joinpath(name).touch()
    assert list(received) == [b"two"]


def test_megabytes_arrive_whole_through_the_proxy(start):
    """STRM-02."""
    answer = start(["head", "0", "end"], bytes=5_000_192)
    assert b"".join(payloads(answer)) == bytes(range(256)) * (5_000_192 // 256)


def test_a_client_of_the_proxy_that_leaves_ends_the_container_s_work(start, tmp_path):
    """STRM-02: though its end comes through TLS."""
    answer = start(["head", "0"], parts=["one", "two"])
    assert next(payloads(answer)) == b"one"
    answer["Body"].close()
    wait_until(tmp_path.joinpath("left").exists)


def test_errors_before_the_first_byte_and_after_it_pass_the_proxy(start):
    """STRM-05, STRM-06."""
    with pytest.raises(ClientError) as refused:
        start(status=400, body="bad")
    assert refused.value.response["OriginalMessage"] == "bad"
    received = payloads(start(["head", "0", "end"], parts=["one"], end="early"))
    assert next(received) == b"one"
    with pytest.raises(EventStreamError, match="ModelStreamError"):
        next(received)
