"""A real server over a socket, in this process or its own, and unmodified boto3 clients of it."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import boto3
import pytest
from botocore.config import Config

from byoa.local.api.http import HttpServer
from byoa.local.api.s3 import S3Handler
from byoa.local.storage.buckets import Buckets

ACCOUNT = "123456789012"

# What `byoa up` does of it: the store, the handler, the server; the port on standard output.
SERVER = """
import resource, sys, threading
from pathlib import Path
from byoa.local.api.http import HttpServer
from byoa.local.api.s3 import S3Handler
from byoa.local.storage.buckets import Buckets
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
    import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
server = HttpServer(S3Handler(Buckets(Path(sys.argv[1]))), "127.0.0.1", 0)
server.start()
print(server.port, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def _client(port: int, region: str = "us-east-1", **options) -> Iterator:
    endpoint = f"http://127.0.0.1:{port}"
    client = boto3.client(
        "s3",
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}, **options),
    )
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def buckets(home):
    buckets = Buckets(home)
    yield buckets
    buckets.close()


@pytest.fixture
def port(buckets):
    server = HttpServer(S3Handler(buckets, account=ACCOUNT), "127.0.0.1", 0)
    server.start()
    yield server.port
    server.stop(timeout=5)


@pytest.fixture
def connect(port):
    """Another client: `connect(region=…, s3={…}, …)`."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(_client(port, **options))


@pytest.fixture
def s3(connect):
    """A client, and a bucket called `data`."""
    client = connect()
    client.create_bucket(Bucket="data")
    return client


@pytest.fixture
def ask(port):
    """A bare HTTP request: `ask(method, target, body, headers)` → status, headers, body."""

    def ask(method, target, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(method, target, body, headers or {})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    return ask


@pytest.fixture
def refused():
    """`with refused("NoSuchKey", 404):` around a call that must fail so."""
    from botocore.exceptions import ClientError

    @contextlib.contextmanager
    def refused(code: str, status: int | None = None):
        with pytest.raises(ClientError) as caught:
            yield caught
        answer = caught.value.response
        assert answer["Error"]["Code"] == code, answer
        if status is not None:
            assert answer["ResponseMetadata"]["HTTPStatusCode"] == status

    return refused


class ServerProcess:
    def __init__(self, home, limit: int | None = None) -> None:
        arguments = [sys.executable, "-c", SERVER, str(home), *([str(limit)] if limit else [])]
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self.port = int(self.process.stdout.readline())

    def rss(self) -> int:
        """Bytes resident now and at the peak, whichever the kernel tells as the peak."""
        with open(f"/proc/{self.process.pid}/status") as status:
            line = next(each for each in status if each.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def spawn(home):
    """A server in its own process: `spawn(limit=…)` → (ServerProcess, client)."""
    with contextlib.ExitStack() as stack:

        def spawn(limit: int | None = None, **options):
            server = ServerProcess(home, limit)
            stack.callback(server.kill)
            return server, stack.enter_context(_client(server.port, **options))

        yield spawn
