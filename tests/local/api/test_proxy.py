"""HTTPS_PROXY on the one port: AWS hosts end here, others are tunnelled."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import threading

import pytest
import requests

from byoa.local.api.certificates import Authority


@pytest.fixture
def through_proxy(wire, monkeypatch):
    """The variables that `byoa env` prints for TLS; also for clients of this process."""
    from byoa.local import environment
    from byoa.local.settings import Settings

    variables = environment.write(
        Settings(home=wire.home), wire.server.port, "us-west-2", environ={})
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    return wire


@pytest.fixture
def echo_server():
    """A plain TCP server that sends back what it got once the client half-closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                with sock:
                    data = b""
                    while chunk := sock.recv(65536):
                        data += chunk
                    sock.sendall(b"got:" + data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def _connect(wire, target):
    sock = socket.create_connection(("127.0.0.1", wire.server.port), timeout=20)
    sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        data = sock.recv(4096)
        if not data:
            break
        head += data
    return sock, head


def test_boto3_reaches_sts_by_its_own_host_name_over_tls(through_proxy):
    import boto3

    with contextlib.closing(boto3.session.Session().client("sts", region_name="us-west-2")) as sts:
        assert sts.meta.endpoint_url == "https://sts.us-west-2.amazonaws.com"
        assert sts.get_caller_identity()["Arn"].startswith(
            "arn:aws:sts::123456789012:assumed-role/")


def test_requests_reaches_s3_by_a_virtual_host_over_tls(through_proxy):
    answer = requests.get("https://bucket.s3.us-west-2.amazonaws.com/some/key?list-type=2",
                          timeout=20)
    assert answer.status_code == 200
    seen = through_proxy.s3_requests[0]
    assert (seen.host, seen.path, seen.query, seen.secure) == (
        "bucket.s3.us-west-2.amazonaws.com", "/some/key", "list-type=2", True)
    assert seen.client[0] == "127.0.0.1"


def test_boto3_s3_uses_virtual_hosts_through_the_proxy(through_proxy):
    import boto3

    with contextlib.closing(boto3.session.Session().client("s3", region_name="us-west-2")) as s3:
        s3.put_object(Bucket="bucket", Key="a b", Body=b"x" * 200_000)
    seen = through_proxy.s3_requests[0]
    assert (seen.method, seen.host) == ("PUT", "bucket.s3.us-west-2.amazonaws.com")
    assert seen.path == "/a%20b"


def test_the_telemetry_of_the_sdk_ends_here(through_proxy):
    answer = requests.get(
        "https://sm-pysdk-t-us-west-2.s3.us-west-2.amazonaws.com/telemetry?x=1", timeout=20)
    assert (answer.status_code, answer.content) == (200, b"")


def test_many_requests_share_a_connection_through_the_proxy(through_proxy):
    with requests.Session() as session:
        for _ in range(5):
            assert session.get("https://s3.us-west-2.amazonaws.com/", timeout=20).ok
    assert len(through_proxy.s3_requests) == 5


def test_a_client_that_does_not_trust_the_authority_does_not_hurt_the_server(through_proxy):
    with pytest.raises(requests.exceptions.SSLError):
        requests.get("https://iam.amazonaws.com/", timeout=20,
                     verify=Authority(through_proxy.home / "other").certificate)
    assert requests.get("https://s3.us-west-2.amazonaws.com/", timeout=20).ok


def test_a_tls_server_that_is_not_aws_s_is_tunnelled_untouched(wire, tmp_path):
    """pip in a container goes on verifying the real host."""
    theirs = Authority(tmp_path / "their-ca")
    listener = socket.create_server(("127.0.0.1", 0))
    body = b"y" * 3_000_000

    def serve():
        sock, _ = listener.accept()
        with theirs.context("localhost").wrap_socket(sock, server_side=True) as tls:
            while b"\r\n\r\n" not in tls.recv(65536):
                pass
            tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(
            f"https://localhost:{listener.getsockname()[1]}/", timeout=20,
            proxies={"https": wire.url}, verify=str(theirs.certificate))
    thread.join(10)
    listener.close()
    assert answer.content == body
    assert not wire.s3_requests


def test_a_half_closed_tunnel_still_carries_the_answer(wire, echo_server):
    sock, head = _connect(wire, f"127.0.0.1:{echo_server}")
    assert head.startswith(b"HTTP/1.1 200 ")
    with sock:
        payload = bytes(range(256)) * 4096
        sock.sendall(payload)
        sock.shutdown(socket.SHUT_WR)
        data = b""
        while chunk := sock.recv(65536):
            data += chunk
    assert data == b"got:" + payload


def test_a_host_that_does_not_answer_is_a_502_with_the_reason(wire):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    sock, head = _connect(wire, f"127.0.0.1:{port}")
    with sock:
        assert head.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        answer = head.partition(b"\r\n\r\n")[2]
        while chunk := sock.recv(4096):
            answer += chunk
    assert f"cannot connect to 127.0.0.1:{port}".encode() in answer


@pytest.mark.parametrize("target", ["nonsense", "host:0", "host:99999", ":443", "host:4x3"])
def test_a_malformed_target_is_a_400(wire, target):
    sock, head = _connect(wire, target)
    sock.close()
    assert head.startswith(b"HTTP/1.1 400 ")


def test_tunnels_end_when_the_door_closes(wire, monkeypatch):
    monkeypatch.setattr("byoa.local.api.proxy._SLICE_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sock, head = _connect(wire, f"127.0.0.1:{silent.getsockname()[1]}")
        with sock:
            assert b" 200 " in head
            wire.door.close()
            assert sock.recv(1) == b""


def test_a_silent_tunnel_is_cut_after_its_idle_time(wire, monkeypatch):
    monkeypatch.setattr("byoa.local.api.proxy._SLICE_SECONDS", 0.05)
    monkeypatch.setattr("byoa.local.api.proxy.IDLE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sock, head = _connect(wire, f"127.0.0.1:{silent.getsockname()[1]}")
        with sock:
            assert b" 200 " in head
            assert sock.recv(1) == b""


def test_more_tunnels_than_there_are_slots_are_a_503(wire, monkeypatch, echo_server):
    wire.door._slots = threading.BoundedSemaphore(1)
    first, head = _connect(wire, f"127.0.0.1:{echo_server}")
    second, refused = _connect(wire, f"127.0.0.1:{echo_server}")
    first.close()
    second.close()
    assert b" 200 " in head
    assert refused.startswith(b"HTTP/1.1 503 ")


def test_tls_1_1_is_not_spoken(through_proxy):
    sock, head = _connect(through_proxy, "iam.amazonaws.com:443")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with pytest.warns(DeprecationWarning):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with sock, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(sock, server_hostname="iam.amazonaws.com")


def test_pythons_own_urllib_with_only_the_printed_variables_works(through_proxy, tmp_path):
    """SSL_CERT_FILE and https_proxy, in a process of its own."""
    import os

    program = ("import urllib.request as u; "
               "print(u.urlopen('https://s3.us-west-2.amazonaws.com/', timeout=20).status)")
    done = subprocess.run([sys.executable, "-c", program], env=dict(os.environ), timeout=60,
                          capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("200", "")
