"""The network interface by which the hosts of a job reach one another (TRAIN-63, TRAP-16).

resourceconfig.json names it. Standard library only.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Callable

from byoa.container.contract import ResourceConfig

_GET_ADDRESS = 0x8915  # Linux: SIOCGIFADDR
_ANY_PORT = 9  # nothing is sent to it: only the route is asked for


def names() -> list[str]:
    """The interfaces of this machine."""
    return [name for _, name in socket.if_nameindex()]


def find(
    resources: ResourceConfig, say: Callable[[str], None] = lambda text: print(text, flush=True)
) -> str:
    """The interface that resourceconfig.json names.

    Some emulators name one that their containers have not: then it is the one by which another
    host is reached, and `say` is told so.
    """
    wanted, have = resources.network_interface_name, names()
    if wanted in have:
        return wanted
    others = [host for host in resources.hosts if host != resources.current_host]
    found = next(filter(None, map(_towards, others)), None)
    if found is None:
        return wanted
    say(
        f"resourceconfig.json names the network interface {wanted!r}, which is not here (there are"
        f" {', '.join(have)}); {found!r} is taken, by which the other hosts are reached"
    )
    return found


def address(interface: str) -> str | None:
    """The interface's IPv4 address; None where it has none, or the system does not tell."""
    if sys.platform != "linux":
        return None
    import fcntl

    request = struct.pack("256s", interface.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            answer = fcntl.ioctl(control, _GET_ADDRESS, request)
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])


def is_loopback(interface: str) -> bool:
    """Whether the job's hosts are processes of one machine, which share its ports."""
    found = address(interface)
    return found.startswith("127.") if found else interface.startswith("lo")


def listening_address(resources: ResourceConfig, interface: str) -> str:
    """The address on which this host listens for the others: the interface's own. Hosts that are
    processes of one machine have an address each on its loopback interface, that of their name."""
    found = None if is_loopback(interface) else address(interface)
    if found is not None:
        return found
    return str(socket.getaddrinfo(resources.current_host, None, type=socket.SOCK_STREAM)[0][4][0])


def _towards(host: str) -> str | None:
    """The interface of the route to `host`."""
    with contextlib.suppress(OSError), socket.socket(
        socket.AF_INET, socket.SOCK_DGRAM
    ) as probe:
        probe.connect((host, _ANY_PORT))
        own = probe.getsockname()[0]
        return next((name for name in names() if address(name) == own), None)
    return None
