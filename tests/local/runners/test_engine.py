"""Finding the container engine, and saying why there is none."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from byoa.local.runners import engine
from byoa.local.runners.engine import EngineUnavailable, connect, find


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a socket's has at most 107 bytes."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def listening(folder: Path) -> Iterator[Path]:
    path = folder / "engine.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()
        yield path


def test_docker_host_is_the_only_address_that_is_tried(listening: Path, folder: Path) -> None:
    assert find({"DOCKER_HOST": f"unix://{listening}"}) == (f"unix://{listening}", "DOCKER_HOST")
    with pytest.raises(EngineUnavailable, match="absent.sock exists"):
        find({"DOCKER_HOST": f"unix://{folder}/absent.sock"})


def test_docker_s_context_comes_before_the_sockets(listening: Path, folder: Path) -> None:
    meta = folder / ".docker/contexts/meta" / hashlib.sha256(b"mine").hexdigest() / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Endpoints": {"docker": {"Host": f"unix://{listening}"}}}))
    config = folder / ".docker/config.json"
    config.write_text(json.dumps({"currentContext": "mine"}))

    assert find({"HOME": str(folder)}) == (f"unix://{listening}", "Docker's context mine")
    config.write_text("{}")
    found = find({"HOME": str(folder), "DOCKER_CONTEXT": "mine"})
    assert found[1] == "Docker's context mine"


@pytest.mark.parametrize(
    ("place", "origin"),
    [("run/docker.sock", "rootless Docker"), ("run/podman/podman.sock", "rootless Podman"),
     (".colima/default/docker.sock", "Colima")],
)
def test_the_sockets_of_other_engines_are_found(
    folder: Path, place: str, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = {"/var/run/docker.sock", "/run/podman/podman.sock"}
    reach = engine._reach
    monkeypatch.setattr(  # this machine's own may be there
        engine, "_reach",
        lambda url, name: reach(f"{url}.absent" if url[len("unix://"):] in system else url, name),
    )
    path = folder / place
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()
        found = find({"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder / "run")})
    assert found == (f"unix://{path}", origin)


def test_a_stopped_daemon_is_told_from_an_absent_one(listening: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        listening.unlink()
        server.bind(str(listening))  # bound, and nobody listens
        with pytest.raises(EngineUnavailable) as caught:
            connect({"DOCKER_HOST": f"unix://{listening}"})
    assert caught.value.code == "DOCKER_UNAVAILABLE"
    assert "the daemon is stopped" in str(caught.value)
    assert "systemctl start docker" in str(caught.value.remedy)


def test_a_socket_that_is_closed_to_the_user_is_told_with_its_group(listening: Path) -> None:
    os.chmod(listening, 0o600)
    source = (
        "import os, sys\n"
        "import grp, socket\n"
        "from byoa.local.runners.engine import EngineUnavailable, find\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: find({'DOCKER_HOST': 'unix://' + sys.argv[1]})\n"
        "except EngineUnavailable as error: print(error)\n"
    )
    if os.geteuid() == 0:
        os.chmod(listening.parent, 0o755)
    else:
        os.chmod(listening, 0)
    ran = subprocess.run(
        [sys.executable, "-c", source, str(listening)], cwd="/", capture_output=True, text=True,
        timeout=30,
    )
    assert "permission denied" in ran.stdout, ran.stderr
    assert "sudo usermod -aG" in ran.stdout


def test_something_that_is_no_engine_is_told(listening: Path) -> None:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = listening.with_name("other.sock")
    server.bind(str(path))
    server.listen()

    def answer() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = server.accept()
                with peer, contextlib.suppress(OSError):
                    peer.recv(1000)
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        with pytest.raises(EngineUnavailable, match="does not answer as an engine"):
            connect({"DOCKER_HOST": f"unix://{path}"})
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


def test_an_engine_of_another_machine_is_refused() -> None:
    with pytest.raises(EngineUnavailable, match="another machine"):
        find({"DOCKER_HOST": "ssh://somebody@example.com"})
