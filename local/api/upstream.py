"""The way out of a tunnel: dialled directly, or through the proxy that the user's company has.

HTTPS_PROXY and NO_PROXY are the user's, as they were before `byoa env` pointed them at byoa itself.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from byoa.local.environment import users

HEAD_BYTES = 64 * 1024  # of a proxy's answer to CONNECT
_STATUS = re.compile(r"HTTP/1\.[01] (\d{3})(?: (.*))?")

__all__ = ["Proxy", "UpstreamError", "dial", "proxy_for"]


class UpstreamError(Exception):
    """Why there is no way to the host, in words for a 502."""


@dataclass(frozen=True)
class Proxy:
    """A proxy by plain HTTP. `authorization` is the header's value; empty: none is sent."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """`host:port`, without the credentials."""
        return _authority(self.host, self.port)


def proxy_for(host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy that `environ` has for `host`; None where it is to be dialled directly.

    Raises UpstreamError for a proxy of another kind than http://.
    """
    variables = users(environ)
    url = (variables.get("https_proxy") or variables.get("HTTPS_PROXY") or "").strip()
    exceptions = variables.get("no_proxy") or variables.get("NO_PROXY") or ""
    if not url or _excepted(host, port, exceptions):
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme.lower() != "http":
            raise UpstreamError(
                f"HTTPS_PROXY is a proxy by {parts.scheme}://, only http:// is supported"
            )
        if not parts.hostname:
            raise ValueError
        chosen = parts.port or 80
    except ValueError:  # its text may have a piece of the password
        raise UpstreamError(
            "HTTPS_PROXY is not the URL of a proxy, http://[user:password@]host:port"
        ) from None
    authorization = ""
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(credentials.encode()).decode("ascii")
    return Proxy(parts.hostname, chosen, authorization)


def dial(
    host: str, port: int, *, environ: Mapping[str, str], own_port: int, seconds: float
) -> tuple[socket.socket, bytes]:
    """A connection to `host`, and what was read of it already.

    `own_port` is that of this server: a proxy that turns out to be it is passed over. Raises
    UpstreamError, within about `seconds` per step.
    """
    proxy = proxy_for(host, port, environ)
    if proxy is not None:
        remote = _connect(proxy.host, proxy.port, seconds, f"the proxy {proxy.name}")
        try:
            if not _is_ours(remote, own_port):
                return remote, _ask(remote, proxy, _authority(host, port), seconds)
        except BaseException:
            remote.close()
            raise
        remote.close()
    return _connect(host, port, seconds, _authority(host, port)), b""


def _connect(host: str, port: int, seconds: float, name: str) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout=seconds)
    except (OSError, UnicodeError) as error:
        raise UpstreamError(f"cannot connect to {name}: {error}") from None


def _is_ours(remote: socket.socket, own_port: int) -> bool:
    """Whether the other end is this server: the same address on both ends, and its port."""
    peer = remote.getpeername()
    return bool(peer[1] == own_port and peer[0] == remote.getsockname()[0])


def _ask(remote: socket.socket, proxy: Proxy, target: str, seconds: float) -> bytes:
    """Ask the proxy for a tunnel; the bytes of the tunnel that came with its answer."""
    request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    if proxy.authorization:
        request += f"Proxy-Authorization: {proxy.authorization}\r\n"
    through = f"through the proxy {proxy.name} to {target}"
    end = time.monotonic() + seconds
    data = b""
    try:
        remote.sendall((request + "\r\n").encode())
        while b"\r\n\r\n" not in data:
            remote.settimeout(max(end - time.monotonic(), 0.001))
            chunk = remote.recv(4096)
            if not chunk or len(data) > HEAD_BYTES:
                raise UpstreamError(f"no way {through}: its answer is no HTTP")
            data += chunk
    except OSError as error:
        raise UpstreamError(f"no way {through}: {error}") from None
    head, _, rest = data.partition(b"\r\n\r\n")
    line = head.split(b"\r\n", 1)[0].decode("latin-1")
    status = _STATUS.fullmatch(line)
    if status is None:
        raise UpstreamError(f"no way {through}: its answer is no HTTP")
    if not status[1].startswith("2"):
        hint = "; put user:password@ into HTTPS_PROXY" if status[1] == "407" else ""
        raise UpstreamError(f"no way {through}: it answers {line[9:200]}{hint}")
    return rest


def _excepted(host: str, port: int, exceptions: str) -> bool:
    """Whether NO_PROXY has the host: names with their subdomains, networks, each with a port."""
    name = host.lower().rstrip(".")
    address = _address(name)
    # No company's proxy reaches the loopback of this machine.
    if name == "localhost" or (address is not None and address.is_loopback):
        return True
    for entry in exceptions.lower().replace(",", " ").split():
        if entry == "*":
            return True
        if address is not None and _in_network(address, entry):
            return True
        bare, colon, only = entry.rpartition(":")
        if not (colon and only.isdigit() and ":" not in bare.strip("[]")):
            bare, only = entry, ""
        domain = bare.removeprefix("*").strip(".[]")
        if only in ("", str(port)) and domain and (name == domain or name.endswith(f".{domain}")):
            return True
    return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _in_network(address: ipaddress.IPv4Address | ipaddress.IPv6Address, entry: str) -> bool:
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
