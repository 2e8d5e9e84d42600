"""Whether a client is still there, by real sockets."""

from __future__ import annotations

import select
import socket
import ssl
import threading

import pytest

from byoa.local.api.certificates import Authority
from byoa.local.api.http_peer import Peer


@pytest.fixture(params=["as here", "as where nothing tells of an end"])
def watched(request, monkeypatch):
    """A peer, its client, and the two ends of what is awaited meanwhile."""
    if request.param != "as here":
        monkeypatch.setattr("byoa.local.api.http_peer._ENDED", 0)
    ours, client = socket.socketpair()
    awaited, other = socket.socketpair()
    ours.settimeout(5.0)  # as a server's connection has it
    with ours, client, awaited, other:
        yield Peer(ours), client, awaited, other


def test_what_is_awaited_comes_while_the_client_stays(watched):
    peer, _, awaited, other = watched
    other.send(b"x")
    assert peer.stays(awaited, 30.0)
    assert awaited.recv(1) == b"x"


def test_the_wait_ends_after_its_seconds(watched):
    peer, _, awaited, _ = watched
    assert peer.stays(awaited, 0.01)
    assert not select.select([awaited], [], [], 0)[0]


def test_a_client_that_closes_has_left_at_once(watched):
    peer, client, awaited, _ = watched
    timer = threading.Timer(0.05, client.close)
    timer.start()
    assert not peer.stays(awaited, 30.0)
    timer.join()


def test_a_client_that_sent_the_next_request_ahead_has_not_left(watched):
    peer, client, awaited, other = watched
    client.send(b"POST /next")
    assert peer.stays(awaited, 0.01)
    other.send(b"x")
    assert peer.stays(awaited, 30.0)


def test_a_connection_that_the_server_has_closed_is_left():
    ours, client = socket.socketpair()
    awaited, other = socket.socketpair()
    with client, awaited, other:
        peer = Peer(ours)
        ours.close()
        assert not peer.stays(awaited, 30.0)


def test_a_client_behind_tls_is_seen_to_leave(tmp_path):
    """As the proxy's clients are: a TLS socket does not peek."""
    authority = Authority(tmp_path)
    context = ssl.create_default_context(cafile=authority.certificate)
    plain, far = socket.socketpair()
    awaited, other = socket.socketpair()
    gone = threading.Event()

    def client():
        with context.wrap_socket(far, server_hostname="sts.amazonaws.com"):
            gone.wait(30)

    thread = threading.Thread(target=client)
    thread.start()
    with authority.context("sts.amazonaws.com").wrap_socket(plain, server_side=True) as ours:
        with awaited, other:
            peer = Peer(ours)
            assert peer.stays(awaited, 0.01)
            gone.set()
            assert not peer.stays(awaited, 30.0)
        thread.join(10)
