"""The hosts of a job as one group: over real sockets, a thread or a process each."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from byoa.container import peers as peers_module
from byoa.container.contract import ResourceConfig
from byoa.container.errors import ContractError, PeerError
from byoa.container.peers import PORT, Peers
from tests.loopback import INTERFACE, addresses

LIMIT = 30.0
pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on its loopback"
)


@pytest.fixture
def group():
    """The peers of a job of so many hosts."""
    made = []

    def create(count, **options):
        hosts = addresses(count)
        created = [
            Peers(ResourceConfig(host, hosts, network_interface_name=INTERFACE),
                  say=lambda text: None, **options)
            for host in hosts
        ]
        made.extend(created)
        return created

    yield create
    for peer in made:
        peer.close()


def at_once(*calls):
    """Run the calls in a thread each; what they return, or raise."""

    def catch(call):
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(LIMIT) for future in [pool.submit(catch, each) for each in calls]]


def each(peers, work):
    return at_once(*(lambda peer=peer: work(peer) for peer in peers))


def test_every_host_gets_what_all_give_in_the_order_of_ranks(group):
    """TRAIN-62, TRAIN-67, DIST-10"""
    peers = group(3)
    assert [peer.rank for peer in peers] == [0, 1, 2]
    gathered = each(peers, lambda peer: peer.all_gather(f"from {peer.rank}".encode()))
    assert gathered == [[b"from 0", b"from 1", b"from 2"]] * 3


def test_rank_is_the_place_in_the_list_of_hosts_not_the_number_in_the_name():
    """TRAP-15"""
    hosts = ("algo-1", "algo-10", "algo-2")
    assert Peers(ResourceConfig("algo-2", hosts)).rank == 2


def test_the_first_host_broadcasts(group):
    peers = group(3)
    got = each(peers, lambda peer: peer.broadcast(b"plan" if peer.rank == 0 else None))
    assert got == [b"plan"] * 3
    with pytest.raises(ValueError, match="must have data"):
        peers[0].broadcast(None)


def test_a_barrier_holds_until_the_last_has_come(group):
    peers = group(2)
    each(peers, lambda peer: peer.open())
    came = threading.Event()
    waiting = threading.Thread(target=lambda: (peers[0].barrier(), came.set()))
    waiting.start()
    assert not came.wait(0.2)
    peers[1].barrier()
    assert came.wait(LIMIT)
    waiting.join()


def test_states_of_megabytes_and_of_nothing_arrive_whole(group):
    peers = group(3)
    big = os.urandom(5 << 20)
    parts = [big, b"", big[::-1]]
    for gathered in each(peers, lambda peer: peer.all_gather(parts[peer.rank])):
        assert gathered == parts


def test_many_collectives_in_turn_stay_in_step(group):
    def work(peer):
        total = 0
        for number in range(200):
            total += sum(int(part) for part in peer.all_gather(str(number * peer.rank).encode()))
            peer.barrier()
        return total

    assert each(group(3), work) == [3 * sum(range(200))] * 3


def test_a_single_host_opens_no_socket(monkeypatch):
    """CHK-16: it may have no network at all."""
    def refuse(*arguments, **options):
        raise AssertionError("a socket was opened")

    for name in ("socket", "create_connection", "create_server", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    alone = Peers(ResourceConfig())
    assert (alone.rank, alone.size) == (0, 1)
    assert alone.open()
    assert alone.all_gather(b"x") == [b"x"]
    assert alone.broadcast(b"y") == b"y"
    alone.barrier()
    assert alone.lost() is None
    alone.fail("of no interest to anybody")
    alone.close()


def test_a_host_that_fails_tells_the_others_why(group):
    """Also those that have no connection to it, and those that wait in a collective."""
    peers = group(3)
    each(peers, lambda peer: peer.open())

    def work(peer):
        if peer.rank == 1:
            return peer.fail("ValueError: no good at mine.py:3\nand more")
        return peer.all_gather(b"")

    first, _, last = each(peers, work)
    for error in (first, last):
        assert isinstance(error, PeerError)
        assert error.code == "PEER_LOST"
        name = peers[0].hosts[1]
        assert error.message == f"{name} has failed: ValueError: no good at mine.py:3"


def test_the_first_host_does_not_part_before_it_has_told_the_others_who_was_lost(
    group, monkeypatch
):
    """TRAIN-140: else they would name the first host, which ends because of another."""
    relay = Peers._relay

    def late(peer, gone, reason, code):
        time.sleep(0.3)  # its own collective has raised meanwhile
        relay(peer, gone, reason, code)

    monkeypatch.setattr(Peers, "_relay", late)
    peers = group(3)
    each(peers, lambda peer: peer.barrier())

    def work(peer):
        if peer.rank == 1:
            peer.fail("ValueError: odd")
            return None
        try:
            peer.barrier()
        finally:
            peer.close()

    hub, _, other = each(peers, work)
    for lost in (hub, other):
        assert str(lost).startswith(f"{peers[1].hosts[1]} has failed: ValueError: odd")


def test_a_host_that_is_done_may_go_before_the_others(group):
    """DIST-11"""
    peers = group(3)
    each(peers, lambda peer: peer.barrier())
    peers[2].close()
    assert peers[0].lost(0.2) is None
    assert peers[1].lost() is None


def test_a_collective_names_the_host_that_is_done_and_does_not_come(group):
    peers = group(2)
    each(peers, lambda peer: peer.barrier())
    peers[1].close()
    with pytest.raises(PeerError) as caught:
        peers[0].barrier()
    assert caught.value.message == f"{peers[0].hosts[1]} has ended and does not come to barrier 2"


@pytest.mark.parametrize("late", [0, 2])
def test_a_wait_has_a_limit_and_names_who_did_not_come(group, late):
    peers = group(3)
    each(peers, lambda peer: peer.open())
    for peer in peers:
        peer.timeout = 0.3
    come = [peer for peer in peers if peer.rank != late]
    for error in each(come, lambda peer: peer.all_gather(b"")):
        assert error.code == "PEER_TIMEOUT"
        assert f"{peers[0].hosts[late]} did not come to all_gather 1 within 0.3 s" in error.message


def test_a_long_wait_says_who_is_waited_for(group, monkeypatch):
    monkeypatch.setattr(peers_module, "TELL_SECONDS", 0.05)
    peers = group(2)
    said = []
    each(peers, lambda peer: peer.open())
    peers[0]._say = said.append

    def work(peer):
        if peer.rank == 1:
            end = time.monotonic() + LIMIT
            while not said and time.monotonic() < end:
                time.sleep(0.01)
        peer.barrier()

    each(peers, work)
    assert said[0].startswith(f"still waiting for {peers[0].hosts[1]} to come to barrier 1")


def test_hosts_that_are_not_at_the_same_collective_are_told_so(group):
    peers = group(2)

    def work(peer):
        return peer.barrier() if peer.rank == 0 else peer.all_gather(b"")

    first, second = each(peers, work)
    one, two = peers[0].hosts
    assert first.code == "PEERS_OUT_OF_STEP"
    assert first.message == f"{two} is at all_gather 1 while {one} is at barrier 1"
    assert first.message in second.message


def test_hosts_may_start_in_any_order_and_later(group):
    """TRAIN-65, CHK-13: the others wait for the first one to listen."""
    peers = group(3)

    def work(peer):
        time.sleep(0.3 if peer.rank == 0 else 0.0)
        return peer.all_gather(str(peer.rank).encode())

    assert each(peers, work) == [[b"0", b"1", b"2"]] * 3


def test_a_host_that_never_comes_is_named(group, monkeypatch):
    """TRAP-16: no hang."""
    monkeypatch.setattr(peers_module, "MEET_SECONDS", 0.4)
    peers = group(3)
    first, second = at_once(peers[0].open, peers[1].open)
    assert first.code == "PEER_ABSENT"
    assert f"{peers[0].hosts[2]} did not connect to {peers[0].hosts[0]}:{PORT}" in first.message
    assert second.code == "PEER_ABSENT"


def test_a_first_host_that_never_listens_is_named(group, monkeypatch):
    monkeypatch.setattr(peers_module, "MEET_SECONDS", 0.3)
    peers = group(2)
    with pytest.raises(PeerError) as caught:
        peers[1].open()
    assert f"{peers[0].hosts[0]} did not listen on port {PORT} within 0.3 s" in caught.value.message


def test_a_stop_ends_the_meeting(group):
    """TRAIN-150"""
    stop = threading.Event()
    peers = group(2, stopping=stop.is_set)
    threading.Timer(0.3, stop.set).start()
    assert each(peers[:1], lambda peer: peer.open()) == [False]
    with pytest.raises(PeerError) as caught:
        peers[1].all_gather(b"")
    assert caught.value.code == "PEERS_NOT_MET"


def test_a_stranger_is_not_taken_for_a_host(group):
    """Whatever connects to the port: who says nothing of the job is let go."""
    peers = group(2)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(peers[0].all_gather, b"0")
        with connected(peers[0].hosts[0]) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\nHost: algo-1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert stranger.recv(100) == b""
        second = pool.submit(peers[1].all_gather, b"1")
        assert first.result(LIMIT) == second.result(LIMIT) == [b"0", b"1"]


def test_a_host_of_another_job_is_not_taken_for_one_of_this(group, monkeypatch):
    monkeypatch.setattr(peers_module, "MEET_SECONDS", 0.5)
    peers = group(2)
    other = Peers(
        ResourceConfig(peers[1].hosts[1], peers[1].hosts, network_interface_name=INTERFACE),
        job="another", say=lambda text: None,
    )
    first, second = at_once(peers[0].open, other.open)
    assert "did not connect" in first.message
    assert "its job is another" in second.message


def test_a_taken_port_is_named(group):
    peers = group(2)
    with socket.create_server((peers[0].hosts[0], PORT)), pytest.raises(ContractError) as caught:
        peers[0].open()
    assert caught.value.code == "PEERS_PORT_TAKEN"
    assert f"{peers[0].hosts[0]}:{PORT}: " in caught.value.message


def test_who_watches_is_called_when_a_host_fails(group):
    peers = group(3)
    each(peers, lambda peer: peer.open())
    called = [threading.Event() for _ in peers]
    seen = {}
    for peer in peers[:2]:
        peer.watch(lambda lost, peer=peer: (
            seen.update({peer.rank: lost.message}), called[peer.rank].set()
        ))
    peers[2].fail("KeyError: 'x'")
    for rank in (0, 1):
        assert called[rank].wait(LIMIT)
        assert seen[rank] == f"{peers[0].hosts[2]} has failed: KeyError: 'x'"
    late = []
    peers[0].watch(lambda lost: late.append(lost.message))
    assert len(late) == 1


PROGRAM = f"""
import sys, time, traceback
from byoa.container.contract import ResourceConfig
from byoa.container.peers import Peers

hosts = tuple(sys.argv[2:])
peers = Peers(ResourceConfig(sys.argv[1], hosts, network_interface_name={INTERFACE!r}))
print(*peers.all_gather(sys.argv[1].encode()), flush=True)
try:
    sys.stdin.read() if peers.rank == 1 else peers.all_gather(b"")
except Exception:
    traceback.print_exc()
    time.sleep(2)  # as a job's host waits to be stopped, so that the others hear why
    sys.exit(1)
"""


def test_a_host_whose_process_is_killed_is_named_at_once():
    """SIGKILL gives it no time for a word: the end of its connection says it."""
    hosts = addresses(3)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, host, *hosts], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for host in hosts
    ]
    with contextlib.ExitStack() as stack:
        for process in started:
            stack.enter_context(process)
            stack.callback(process.kill)
        for process in started:
            assert process.stdout.readline().split() == [f"b'{host}'" for host in hosts]
        started[1].send_signal(signal.SIGKILL)
        for process in (started[0], started[2]):
            assert process.wait(LIMIT) == 1
            assert f"{hosts[1]} ended without a word" in process.stderr.read()


@contextlib.contextmanager
def connected(host):
    end = time.monotonic() + LIMIT
    while True:
        try:
            with socket.create_connection((host, PORT), LIMIT) as sock:
                yield sock
                return
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.02)
