"""Whether the hosts of a job reach one another, before it begins."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from byoa.container import network_interface, peers, preflight
from byoa.container.contract import ResourceConfig
from byoa.container.errors import ContractError, PeerError
from byoa.container.peers import Peers
from tests.loopback import INTERFACE, addresses

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on its loopback"
)


class Host:
    """One host of a job and what it says."""

    def __init__(self, name, hosts, interface):
        self.said = []
        self.resources = ResourceConfig(name, hosts, network_interface_name=interface)
        self.peers = Peers(self.resources, say=self.said.append)

    def check(self):
        try:
            return preflight.check(self.resources, self.peers, say=self.said.append)
        except (ContractError, PeerError) as error:
            return error


@pytest.fixture
def job():
    made = []

    def create(count, interface=INTERFACE):
        names = addresses(count)
        made.extend(Host(name, names, interface) for name in names)
        return made[-count:]

    yield create
    for host in made:
        host.peers.close()


def check(hosts):
    with ThreadPoolExecutor(len(hosts)) as pool:
        return list(pool.map(Host.check, hosts))


def test_hosts_that_reach_one_another_are_one_line_of_the_first(job):
    """TRAIN-63, TRAIN-67, DIST-10"""
    hosts = job(3)
    assert check(hosts) == [True] * 3
    (line,) = hosts[0].said
    assert line.startswith(
        f"pre-flight: 3 hosts reach one another by {INTERFACE}, and sum to 6, in "
    )
    assert hosts[1].said == hosts[2].said == []


def test_a_single_host_checks_nothing():
    """CHK-16"""
    host = Host("algo-1", ("algo-1",), "eth0")
    assert host.check() is True
    assert host.said == []


def test_a_connection_that_fails_is_a_table_on_every_host(job, monkeypatch):
    """TRAP-16: one host does not reach another; all say which."""
    hosts = job(3)
    blocked = hosts[2].resources.current_host
    real, connect = preflight._reach, hosts[1].peers.rank

    def reach(host, address, port):
        if host == blocked and len(seen) < connect:
            seen.append(host)
            return f"does not reach {host} at {address}:{port} (timed out)"
        return real(host, address, port)

    seen = []
    monkeypatch.setattr(preflight, "_reach", reach)
    for error in check(hosts):
        assert error.code == "PREFLIGHT_FAILED"
        assert f"does not reach {blocked} at {blocked}:" in error.message
    for host in hosts:
        table = host.said[-1].splitlines()
        assert table[0] == "pre-flight failed"
        assert table[1].split() == ["host", "address", "interface", "result"]
        assert len(table) == 5
        assert sum("(timed out)" in line for line in table) == 1
        assert table[4].split() == [blocked, blocked, INTERFACE, "ok"]


def test_a_host_that_does_not_come_is_in_the_table(job, monkeypatch):
    monkeypatch.setattr(peers, "MEET_SECONDS", 0.5)
    hosts = job(3)
    first, second = check(hosts[:2])
    assert first.code == "PEER_ABSENT"
    assert isinstance(second, PeerError)
    table = hosts[0].said[-1].splitlines()
    names = [each.resources.current_host for each in hosts]
    assert [line.split()[0] for line in table[2:]] == names
    assert table[-1].endswith("did not come")
    assert table[2].endswith("ok")


def test_the_interface_is_the_one_that_the_platform_names():
    """TRAIN-63"""
    said = []
    named = ResourceConfig("algo-1", ("algo-1", "127.0.0.1"), network_interface_name=INTERFACE)
    assert network_interface.find(named, said.append) == INTERFACE
    assert said == []


def test_an_interface_that_is_not_there_is_replaced_by_the_route_s_and_said_so():
    """SDK v3's local mode names ethwe (LOC-05)."""
    said = []
    named = ResourceConfig("algo-1", ("algo-1", "127.0.0.1"), network_interface_name="ethwe")
    assert network_interface.find(named, said.append) == INTERFACE
    assert said[0].startswith("resourceconfig.json names the network interface 'ethwe', which is")


def test_a_host_s_address_is_its_interface_s_and_on_loopback_its_name_s(job):
    """TRAIN-63"""
    (host, _) = job(2)
    name = host.resources.current_host
    assert network_interface.address_of(host.resources, INTERFACE) == name
    for interface in network_interface.names():
        found = network_interface.address(interface)
        if found and not network_interface.is_loopback(interface):
            assert network_interface.address_of(host.resources, interface) == found
