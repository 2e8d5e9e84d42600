"""Tunnels where a company's proxy is the way out."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading

import pytest

from byoa.local.api.upstream import Proxy, UpstreamError, proxy_for
from byoa.local.environment import SAVED, VARIABLES

COMPANY = "http://proxy.example:3128"


class Company:
    """A tiny proxy: notes each CONNECT's head, answers `reply`, then sends back what it gets."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.reply = b"HTTP/1.1 200 OK\r\nVia: 1.1 company\r\n\r\n"
        self.heads = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                with sock:
                    head = b""
                    while not head.endswith(b"\r\n\r\n"):
                        chunk = sock.recv(1)
                        if not chunk:
                            break
                        head += chunk
                    self.heads.append(head.decode())
                    sock.sendall(self.reply)
                    while data := sock.recv(65536):
                        sock.sendall(b"far:" + data)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)


@pytest.fixture
def company(monkeypatch):
    for name in (*VARIABLES, SAVED):
        monkeypatch.delenv(name, raising=False)
    proxy = Company()
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:p%40ss@127.0.0.1:{proxy.port}")
    yield proxy
    proxy.close()


def _connect(wire, target):
    """The socket and all that came with the head of the answer to a CONNECT."""
    sock = socket.create_connection(("127.0.0.1", wire.server.port), timeout=20)
    sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = sock.recv(4096)
        if not chunk:
            break
        data += chunk
    return sock, data


def _refusal(wire, target):
    sock, data = _connect(wire, target)
    with sock:
        while chunk := sock.recv(4096):
            data += chunk
    assert data.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    return data.partition(b"\r\n\r\n")[2].decode()


def test_a_tunnel_goes_through_the_company_s_proxy_with_its_credentials(wire, company):
    """The name does not resolve here: only the proxy can know it."""
    sock, data = _connect(wire, "files.invalid:8443")
    with sock:
        assert data == b"HTTP/1.1 200 Connection established\r\n\r\n"
        sock.sendall(b"hello")
        assert sock.recv(100) == b"far:hello"
    expected = base64.b64encode(b"me:p@ss").decode()
    assert company.heads == [
        "CONNECT files.invalid:8443 HTTP/1.1\r\nHost: files.invalid:8443\r\n"
        f"Proxy-Authorization: Basic {expected}\r\n\r\n"]


def test_what_the_far_end_says_at_once_is_not_lost(wire, company):
    company.reply += b"220 ready"
    sock, data = _connect(wire, "mail.invalid:25")
    with sock:
        while not data.endswith(b"220 ready"):
            chunk = sock.recv(100)
            assert chunk
            data += chunk


def test_aws_hosts_end_here_all_the_same(wire, company):
    sock, data = _connect(wire, "sts.us-west-2.amazonaws.com:443")
    sock.close()
    assert b" 200 " in data
    assert company.heads == []


def test_a_host_in_no_proxy_is_dialled_directly(wire, company, monkeypatch):
    monkeypatch.setenv("NO_PROXY", ".invalid")
    assert "cannot connect to files.invalid:443" in _refusal(wire, "files.invalid:443")
    assert company.heads == []


def test_the_user_s_proxy_is_known_from_before_byoa_env(wire, company, monkeypatch):
    url = f"http://127.0.0.1:{company.port}"
    for name, value in {"HTTPS_PROXY": wire.url, "https_proxy": wire.url, "NO_PROXY": "x",
                        SAVED: "HTTPS_PROXY", f"{SAVED}_HTTPS_PROXY": url}.items():
        monkeypatch.setenv(name, value)
    sock, data = _connect(wire, "files.invalid:443")
    sock.close()
    assert b" 200 " in data
    assert len(company.heads) == 1


def test_this_server_is_no_proxy_of_its_own(wire, company, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", wire.url)
    assert "cannot connect to files.invalid:443" in _refusal(wire, "files.invalid:443")


@pytest.mark.parametrize(("reply", "reason"), [
    (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
     "it answers 407 Proxy Authentication Required; put user:password@ into HTTPS_PROXY"),
    (b"HTTP/1.0 403 Forbidden\r\n\r\n", "it answers 403 Forbidden"),
    (b"SSH-2.0-x\r\n\r\n", "its answer is no HTTP"),
])
def test_a_proxy_that_refuses_is_a_502_with_its_reason(wire, company, reply, reason):
    company.reply = reply
    text = _refusal(wire, "files.invalid:443")
    assert f"through the proxy 127.0.0.1:{company.port} to files.invalid:443" in text
    assert reason in text
    assert "p@ss" not in text and "p%40ss" not in text


def test_a_proxy_that_does_not_answer_in_time_is_a_502(wire, company, monkeypatch):
    monkeypatch.setattr("byoa.local.api.proxy.CONNECT_SECONDS", 0.2)
    company.reply = b""
    assert "timed out" in _refusal(wire, "files.invalid:443")


def test_a_proxy_that_is_not_there_is_a_502(wire, company, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    assert f"cannot connect to the proxy 127.0.0.1:{port}" in _refusal(wire, "files.invalid:443")


@pytest.mark.parametrize(("url", "expected"), [
    ("http://proxy.example:3128", Proxy("proxy.example", 3128)),
    ("proxy.example:3128", Proxy("proxy.example", 3128)),
    ("http://proxy.example/", Proxy("proxy.example", 80)),
    ("http://[::1]:8080", Proxy("::1", 8080)),
    ("http://a:b@p", Proxy("p", 80, "Basic " + base64.b64encode(b"a:b").decode())),
    ("", None), ("  ", None),
])
def test_the_proxy_s_url_is_read_as_other_tools_do(url, expected):
    assert proxy_for("files.invalid", 443, {"https_proxy": url}) == expected


@pytest.mark.parametrize(("url", "reason"), [
    ("https://p:443", "only http:// is supported"), ("socks5://p:1", "only http:// is supported"),
    ("http://", "not the URL of a proxy"), ("http://p:port", "not the URL of a proxy")])
def test_a_proxy_of_another_kind_is_refused_by_name(url, reason):
    with pytest.raises(UpstreamError, match=reason):
        proxy_for("files.invalid", 443, {"HTTPS_PROXY": url})


def test_credentials_are_not_in_the_proxy_s_repr():
    proxy = proxy_for("files.invalid", 443, {"HTTPS_PROXY": "http://a:b@p"})
    assert proxy is not None
    assert proxy.authorization not in repr(proxy)


@pytest.mark.parametrize(("no_proxy", "host", "direct"), [
    ("*", "a.example", True), ("example", "a.example", True), (".example", "a.example", True),
    ("*.example", "a.example", True), ("a.example", "ba.example", False),
    ("x, a.example", "A.example.", True), ("a.example:443", "a.example", True),
    ("a.example:80", "a.example", False), ("10.0.0.0/8", "10.1.2.3", True),
    ("10.0.0.0/8", "11.1.2.3", False), ("10.1.2.3", "10.1.2.3", True),
    ("fd00::/8", "fd00::1", True), ("fd00::1", "fd00::1", True), ("", "localhost", True),
    ("", "127.0.0.7", True), ("", "::1", True), ("", "a.example", False),
])
def test_no_proxy_names_what_is_dialled_directly(no_proxy, host, direct):
    found = proxy_for(host, 443, {"HTTPS_PROXY": COMPANY, "NO_PROXY": no_proxy})
    assert (found is None) is direct
