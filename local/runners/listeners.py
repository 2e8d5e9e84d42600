"""Listening sockets, as the kernel's tables tell of them: where a server in a container listens."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable

Listener = tuple[str, int]  # address and port

ENGINE_DNS = "127.0.0.11"  # Docker's resolver listens there in networks of one's own
_LISTEN = "0A"


def listening(tables: Iterable[str], own: set[str] | None = None) -> list[Listener]:
    """Listening addresses in texts of /proc/net/tcp and tcp6; of the sockets `own` where given."""
    found = set()
    for table in tables:
        for line in table.splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[3] == _LISTEN and (own is None or fields[9] in own):
                address, _, port = fields[1].partition(":")
                found.add((_address(address), int(port, 16)))
    return sorted(found)


def _address(text: str) -> str:
    """Dotted or colon form of the kernel's words of four bytes in host order."""
    words = [int(text[at:at + 8], 16) for at in range(0, len(text), 8)]
    packed = b"".join(struct.pack("=I", word) for word in words)
    if len(packed) == 4:
        return socket.inet_ntoa(packed)
    return str(ipaddress.IPv6Address(packed))


def described(listeners: Iterable[Listener]) -> str:
    """`127.0.0.1:8080 and [::1]:9000`, in the order of their ports."""
    texts = [
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        for host, port in sorted(listeners, key=lambda each: (each[1], each[0]))
    ]
    return " and ".join(dict.fromkeys(texts)) or "no port"


def is_loopback(host: str) -> bool:
    return host.startswith("127.") or host in ("::1",) or host.startswith("::ffff:127.")


def is_everywhere(host: str) -> bool:
    return host in ("0.0.0.0", "::")  # noqa: S104 - compared, never bound
