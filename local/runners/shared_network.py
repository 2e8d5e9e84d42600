"""A network that the hosts of one isolated job share, and that reaches nothing else (TRAIN-12).

A process of its own makes the namespace and keeps it until every host has joined: any of the hosts
may end at once. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, cast

from byoa.container.errors import ByoaError
from byoa.local.runners import identity, sandbox, shim

LOOK_SECONDS = 10.0  # between two looks at who is in the namespace
ALONE_SECONDS = 60.0  # after which nobody is expected to join any more
END_SECONDS = 10.0
READY = b"ready\n"


# By PID, those that have not been waited for: a keeper may outlive who started it, which Popen
# would take for a mistake.
_keepers: dict[int, subprocess.Popen[bytes]] = {}


class SharedNetworks:
    """The networks of this machine's jobs by name; their keepers' records are in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()

    def open(self, name: str) -> int:
        """The number of a process within the network, which is made where it does not exist."""
        with self._lock:
            record = self._read(name)
            if record is not None and identity.is_running(*record):
                return record[0]
            if record is not None:
                _reap(record[0])
            return self._start(name)

    def close(self, name: str) -> None:
        """End the keeper; those that have joined keep the network until they end."""
        with self._lock:
            record = self._read(name)
            self._path(name).unlink(missing_ok=True)
        if record is not None:
            identity.send(*record, signal.SIGKILL)
            _reap(record[0])

    def _start(self, name: str) -> int:
        keeper = subprocess.Popen(  # noqa: S603 - an argv of our own
            [sys.executable, "-m", __name__], cwd="/", start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        with cast("IO[bytes]", keeper.stdout) as output:
            said = output.readline()
            if said != READY:
                said += output.read()
        if said != READY:
            keeper.kill()
            keeper.wait(END_SECONDS)
            raise ByoaError(
                "NETWORK_UNAVAILABLE",
                f"no network for the hosts of {name}: {said.decode(errors='replace').strip()}",
                remedy="submit without network isolation, or with InstanceCount 1",
            )
        self._directory.mkdir(parents=True, exist_ok=True)
        shim.write_atomically(
            self._path(name), {"pid": keeper.pid, "started": identity.start_time(keeper.pid)}
        )
        _keepers[keeper.pid] = keeper
        return keeper.pid

    def _read(self, name: str) -> tuple[int, str | None] | None:
        try:
            record = json.loads(self._path(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return record["pid"], record["started"]

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"


def _reap(pid: int) -> None:
    keeper = _keepers.pop(pid, None)
    if keeper is not None:
        keeper.wait(END_SECONDS)


def keep() -> None:
    """Make the network and keep it while anybody is in it, or may still come."""
    sandbox.leave_network()
    os.write(1, READY)
    started = time.monotonic()
    while time.monotonic() - started < ALONE_SECONDS or _others():
        time.sleep(LOOK_SECONDS)


def _others() -> bool:
    """Whether another process is in this one's network."""
    own = os.stat("/proc/self/ns/net").st_ino
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):  # it has ended, or belongs to somebody else
                if os.stat(f"/proc/{name}/ns/net").st_ino == own:
                    return True
    return False


if __name__ == "__main__":
    keep()
