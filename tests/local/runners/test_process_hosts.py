"""Containers that are processes of one machine, as hosts of one job: names, addresses, networks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from byoa.container.errors import UnsupportedError
from byoa.local.runners import identity, sandbox
from byoa.local.runners.base import Network
from byoa.local.runners.process import MAX_HOSTS, ProcessRunner
from byoa.local.runners.shared_network import SharedNetworks

PAIR = Network("training-pair", ("algo-1", "algo-2"))


@pytest.fixture
def boxing(images: Any, tmp_path: Path, sandbox_available: bool) -> ProcessRunner:
    if not sandbox_available:
        pytest.skip("the kernel allows no namespaces here")
    return ProcessRunner(images, tmp_path / "home")


def test_a_host_has_its_name_and_those_of_its_peers_and_the_machine_keeps_its_own(
    boxing: ProcessRunner, spec: Any
) -> None:
    """TRAIN-65"""
    before = socket.gethostname(), sandbox.NAMES.read_text()
    box = replace(
        spec(
            "import socket\n"
            "print(socket.gethostname(), *map(socket.gethostbyname, ('algo-1', 'algo-2')))\n"
            "print(socket.gethostbyname('localhost'))"
        ),
        host="algo-2", network=PAIR,
    )
    container = boxing.start(box)
    ended = container.wait(30)

    assert ended is not None and ended.code == 0, box.log.read_text()
    (name, first, second), (local,) = (line.split() for line in box.log.read_text().splitlines())
    assert name == "algo-2"
    assert first.startswith("127.") and first.endswith(".1")
    assert second == f"{first[:-2]}.2"
    assert local == "127.0.0.1"
    assert (socket.gethostname(), sandbox.NAMES.read_text()) == before


def test_hosts_are_refused_where_there_are_no_namespaces_saying_what_to_allow(
    plain_runner: Any, spec: Any
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        plain_runner.check("byoa", hosts=2)
    assert caught.value.code == "HOSTS_UNSUPPORTED"
    assert "BYOA_SANDBOX is off" in str(caught.value)
    assert "BYOA_RUNNER=docker" in str(caught.value)
    with pytest.raises(UnsupportedError):
        plain_runner.start(replace(spec(""), host="algo-1", network=PAIR))


def test_more_hosts_than_one_machine_should_run_are_refused(boxing: ProcessRunner) -> None:
    boxing.check("byoa", hosts=MAX_HOSTS)
    with pytest.raises(UnsupportedError, match=f"at most {MAX_HOSTS}"):
        boxing.check("byoa", hosts=MAX_HOSTS + 1)


def test_an_isolated_host_that_ends_at_once_leaves_its_network_to_the_later_one(
    boxing: ProcessRunner, spec: Any, tmp_path: Path
) -> None:
    """TRAIN-12"""
    network = replace(PAIR, isolated=True)
    source = "import os\nprint(os.stat('/proc/self/ns/net').st_ino)"
    boxes = [
        replace(spec(source, f"box-{host}"), host=host, network=network, isolated=True)
        for host in network.hosts
    ]
    for box in boxes:
        container = boxing.start(box)
        ended = container.wait(30)
        assert ended is not None and ended.code == 0, box.log.read_text()
    (first,), (second,) = (box.log.read_text().split() for box in boxes)

    assert first == second
    assert int(first) != os.stat("/proc/self/ns/net").st_ino
    (record,) = (tmp_path / "home" / "networks").iterdir()
    keeper = json.loads(record.read_text())
    assert identity.is_running(keeper["pid"], keeper["started"])
    boxing.release(network)
    assert not identity.is_running(keeper["pid"], keeper["started"])
    assert not record.exists()
    boxing.release(network)  # again changes nothing


def test_a_network_s_keeper_is_found_by_the_next_server_and_ended_by_it(
    boxing: ProcessRunner, tmp_path: Path
) -> None:
    first, second = SharedNetworks(tmp_path / "n"), SharedNetworks(tmp_path / "n")
    pid = first.open("job")
    assert second.open("job") == pid
    second.close("job")
    end = time.monotonic() + 10
    while identity.start_time(pid) is not None:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert first.open("job") != pid  # one that is gone is made again
    first.close("job")


def test_a_keeper_that_nobody_needs_ends_by_itself(
    boxing: ProcessRunner, tmp_path: Path
) -> None:
    """A server that is killed and never comes back leaves nothing for ever."""
    program = (
        "from byoa.local.runners import shared_network as module\n"
        "module.LOOK_SECONDS, module.ALONE_SECONDS = 0.05, 0.0\n"
        "module.keep()\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30)
    assert found.stdout == b"ready\n", found.stderr


def test_hosts_and_their_network_need_no_root(sandbox_available: bool) -> None:
    """With user namespaces."""
    if not sandbox_available:
        pytest.skip("the kernel allows no namespaces here")
    if os.geteuid() != 0:
        pytest.skip("this process is not root: the other tests have shown it")
    program = (
        "import ctypes, encodings.idna, os, pathlib, signal, socket, tempfile\n"
        "from byoa.local.runners import sandbox\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        # Who changes its user may not open its own /proc files before its next exec.
        "ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"
        "home = pathlib.Path(tempfile.mkdtemp())\n"
        "for name in ('ml', 'scratch'): (home / name).mkdir()\n"
        "(home / 'hosts').write_text('127.9.9.1 algo-1\\n')\n"
        "read, write = os.pipe()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try:\n"
        "        sandbox.leave_network()\n"
        "        os.write(write, b'ready')\n"
        "        signal.alarm(20)\n"
        "        signal.pause()\n"
        "    finally:\n"
        "        os._exit(1)\n"
        "os.close(write)\n"
        "assert os.read(read, 5) == b'ready'\n"
        "if os.fork() == 0:\n"
        "    sandbox.enter(home / 'ml', home / 'scratch', isolated=True, network=pid,\n"
        "                  host='algo-1', names=home / 'hosts')\n"
        "    same = os.stat('/proc/self/ns/net').st_ino == os.stat(f'/proc/{pid}/ns/net').st_ino\n"
        "    print(socket.gethostname(), socket.gethostbyname('algo-1'), same, flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "os.kill(pid, signal.SIGKILL)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30,
        cwd="/", env=os.environ | {"TMPDIR": "/tmp"},
    )
    if found.returncode != 0 and "Operation not permitted" in found.stderr:
        pytest.skip("user namespaces are for root alone here")
    assert found.stdout == "algo-1 127.9.9.1 True\n", found.stderr
