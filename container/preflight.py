"""Before a job on several hosts begins: does every host reach every other one? (TRAP-16)

Names, the interface, a connection from each host to each other one on a port as NCCL and Gloo take
them, and one integer summed over all; what fails is a table, instead of a training that hangs.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from byoa.container import network_interface
from byoa.container.contract import ResourceConfig
from byoa.container.errors import ContractError, PeerError
from byoa.container.peers import Peers

CHECK_SECONDS = 60.0  # for everything once the hosts have met
CONNECT_SECONDS = 10.0
_THREADS = 16
_FINE = "ok"


def check(
    resources: ResourceConfig, peers: Peers, *,
    say: Callable[[str], None] = lambda text: print(text, flush=True),
) -> bool:
    """Return when the hosts reach one another; False when the job was asked to stop before.

    A single host has nobody to reach. Raises ContractError PREFLIGHT_FAILED, or PeerError where a
    host did not come at all, after a table that says which and why.
    """
    if peers.size == 1:
        return True
    started = time.monotonic()
    interface = network_interface.find(resources, say)
    try:
        if not peers.open():
            return False
    except PeerError as error:
        absent = {host: "did not come" for host in peers.absent}
        say(_table({host: {"result": absent.get(host, _FINE)} for host in resources.hosts}))
        raise error
    usual, peers.timeout = peers.timeout, CHECK_SECONDS
    try:
        reports, total = _exchange(resources, peers, interface)
    finally:
        peers.timeout = usual
    expected = sum(range(1, peers.size + 1))
    failed = [f"{host} {each['result']}" for host, each in reports.items()
              if each["result"] != _FINE]
    if total != expected:
        failed.append(f"the ranks sum to {total} instead of {expected}")
    if failed:
        say(_table(reports))
        raise ContractError(
            "PREFLIGHT_FAILED", "; ".join(failed),
            expected="every host of the job reaches every other one on any TCP port (TRAIN-67)",
            remedy="in a VPC let the security group's members reach each other on all ports; see"
            " the table in the log",
        )
    if peers.rank == 0:
        say(f"pre-flight: {peers.size} hosts reach one another by {interface}, and sum to {total},"
            f" in {time.monotonic() - started:.2f} s")
    return True


def _exchange(
    resources: ResourceConfig, peers: Peers, interface: str
) -> tuple[dict[str, dict[str, Any]], int]:
    """What each host found, by host, and the sum of one integer of each."""
    address = network_interface.address_of(resources, interface)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family, backlog=4 * peers.size) as listener:
        place = json.dumps(listener.getsockname()[:2]).encode()
        places = [json.loads(each) for each in peers.all_gather(place)]
        others = [rank for rank in range(peers.size) if rank != peers.rank]
        with ThreadPoolExecutor(min(_THREADS, len(others))) as pool:
            found = pool.map(lambda rank: _reach(resources.hosts[rank], *places[rank]), others)
            wrong = [text for text in found if text]
        report = {
            "address": address, "interface": interface, "integer": peers.rank + 1,
            "result": ", ".join(wrong) or _FINE,
        }
        # The listener stays open until everybody has tried it.
        gathered = [json.loads(each) for each in peers.all_gather(json.dumps(report).encode())]
    reports = dict(zip(resources.hosts, gathered, strict=True))
    return reports, sum(int(each["integer"]) for each in gathered)


def _reach(host: str, address: str, port: int) -> str:
    """Why `host` cannot be reached at its interface; empty when it can."""
    try:
        socket.create_connection((address, port), CONNECT_SECONDS).close()
    except OSError as error:
        return f"does not reach {host} at {address}:{port} ({error})"
    return ""


def _table(reports: Mapping[str, Mapping[str, Any]]) -> str:
    head = ("host", "address", "interface", "result")
    rows = [head, *(
        (host, *(str(each.get(name, "-")) for name in head[1:])) for host, each in reports.items()
    )]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n  ".join(["pre-flight failed", *lines])
