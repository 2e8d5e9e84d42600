"""The container engine of this machine: Docker's or Podman's socket, found as their own CLIs do.

`connect` says, where there is none, what was tried, why each try failed and how to mend it.
"""

from __future__ import annotations

import errno
import grp
import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from byoa.container.errors import UnsupportedError

CONNECT_SECONDS = 2.0
# Of one answer of the engine's; those that take their time (wait, logs, pull) have no limit.
ANSWER_SECONDS = 120.0
# A log stream and a wait hold a connection for each running container.
POOL_CONNECTIONS = 100

UNAVAILABLE = "DOCKER_UNAVAILABLE"
START = "start it: `sudo systemctl start docker`, or open Docker Desktop"
_INSTALL = (
    "install Docker Engine or Podman, or name the engine's address in DOCKER_HOST; without one,"
    " byoa's own images run as processes: BYOA_RUNNER=process"
)


class EngineUnavailable(UnsupportedError):
    """There is no container engine that answers."""

    def __init__(self, message: str, *, remedy: str = START) -> None:
        super().__init__(UNAVAILABLE, message, remedy=remedy)


@dataclass(frozen=True)
class _Try:
    """An address, where it comes from, and why nobody answers there."""

    url: str
    origin: str
    problem: str
    cure: str


def connect(environ: Mapping[str, str] = os.environ) -> Any:
    """A `docker.DockerClient` of the engine that DOCKER_HOST, Docker's context or a socket names.

    Raises EngineUnavailable (DOCKER_UNAVAILABLE).
    """
    url, origin = find(environ)
    try:
        return _client(url, environ)
    except Exception as error:  # the SDK's, requests' and urllib3's have no common base
        raise _unavailable(
            [_Try(url, origin, f"it does not answer as an engine: {error}", START)]
        ) from error


def find(environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """The engine's address and where it comes from, without the SDK; raises EngineUnavailable."""
    tries: list[_Try] = []
    for url, origin in _addresses(environ):
        failure = _reach(url, origin)
        if failure is None:
            return url, origin
        tries.append(failure)
    raise _unavailable(tries)


def _unavailable(tries: Sequence[_Try]) -> EngineUnavailable:
    # A socket that is there says more than those that are not.
    telling = [each for each in tries if each.problem != _ABSENT]
    if not telling:
        names = ", ".join(each.url for each in tries)
        return EngineUnavailable(
            f"there is no container engine: none of {names} exists", remedy=_INSTALL
        )
    return EngineUnavailable(
        "no container engine answers: "
        + "; ".join(f"{each.url} ({each.origin}): {each.problem}" for each in telling),
        remedy=telling[0].cure,
    )


def test_label(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The label by which tests find what they made: BYOA_TEST, where it is set."""
    return {"byoa.test": environ["BYOA_TEST"]} if environ.get("BYOA_TEST") else {}


_ABSENT = "there is no socket"


def _addresses(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Addresses in the order in which they are tried; an explicit one is the only one."""
    if host := environ.get("DOCKER_HOST"):
        yield host, "DOCKER_HOST"
        return
    if found := _context(environ):
        yield found
        return
    home = Path(environ.get("HOME") or "~").expanduser()
    runtime = Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    for path, origin in (
        (Path("/var/run/docker.sock"), "Docker"),
        (runtime / "docker.sock", "rootless Docker"),
        (home / ".docker/run/docker.sock", "Docker Desktop"),
        (home / ".docker/desktop/docker.sock", "Docker Desktop"),
        (home / ".colima/default/docker.sock", "Colima"),
        (Path("/run/podman/podman.sock"), "Podman"),
        (runtime / "podman/podman.sock", "rootless Podman"),
    ):
        yield f"unix://{path}", origin


def _context(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The address of the context that `docker context use` or DOCKER_CONTEXT chose."""
    home = Path(environ.get("HOME") or "~").expanduser()
    folder = Path(environ.get("DOCKER_CONFIG") or home / ".docker")
    name = environ.get("DOCKER_CONTEXT") or _json(folder / "config.json").get("currentContext")
    if not name or name == "default":
        return None
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = _json(folder / "contexts/meta" / digest / "meta.json")
    host = meta.get("Endpoints", {}).get("docker", {}).get("Host")
    return (host, f"Docker's context {name}") if host else None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _reach(url: str, origin: str) -> _Try | None:
    """Why a unix socket cannot be reached; None when it can, or is another kind of address."""
    parts = urlsplit(url)
    if parts.scheme == "ssh":
        return _Try(
            url, origin, "an engine on another machine cannot mount this one's directories",
            "use an engine of this machine: unset DOCKER_HOST, or `docker context use default`",
        )
    if parts.scheme != "unix":
        return None
    path = parts.path
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_SECONDS)
        try:
            probe.connect(path)
        except FileNotFoundError:
            return _Try(url, origin, _ABSENT, _INSTALL)
        except PermissionError:
            group = _group(path)
            return _Try(
                url, origin, f"permission denied, and only {group} may use it",
                f"`sudo usermod -aG {group.rpartition(' ')[2]} $USER`, then log in again",
            )
        except OSError as error:
            dead = error.errno == errno.ECONNREFUSED
            return _Try(
                url, origin,
                "the socket is there and nobody listens: the daemon is stopped" if dead
                else error.strerror or str(error),
                "start it: `systemctl --user start podman.socket`" if "odman" in origin else START,
            )
    return None


def _group(path: str) -> str:
    try:
        return f"group {grp.getgrgid(os.stat(path).st_gid).gr_name}"
    except (KeyError, OSError):
        return "root"


def _client(url: str, environ: Mapping[str, str]) -> Any:
    import docker
    from docker.utils import kwargs_from_env

    given = kwargs_from_env(environment={**environ, "DOCKER_HOST": url})
    client = docker.DockerClient(
        **given, version="auto", timeout=ANSWER_SECONDS, max_pool_size=POOL_CONNECTIONS
    )
    try:
        client.ping()
    except BaseException:
        client.close()
        raise
    return client
