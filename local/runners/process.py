"""Containers without Docker: each is a process group of this machine under a shim of its own.

Where the kernel allows it a container sees its real /opt/ml; elsewhere SAGEMAKER_BASE_DIR tells it
where its /opt/ml is. Its environment is its own: nothing of the server's but what a machine has.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from byoa.container.contract import ALGORITHM_VARIABLE, ROOT
from byoa.container.errors import ByoaError, UnsupportedError
from byoa.container.supervisor import Exit
from byoa.local.runners import identity, sandbox, shim
from byoa.local.runners import process_parts as parts
from byoa.local.runners.base import Container, ContainerSpec, Network, Runner, Usage, Warm
from byoa.local.runners.images import ENTRYPOINT, Image, Images
from byoa.local.runners.process_usage import usage_below
from byoa.local.runners.shared_network import SharedNetworks
from byoa.local.runners.warm_process import WarmProcess

LOOPBACK = "127.0.0.1"
LOOPBACK_INTERFACE = "lo0" if sys.platform == "darwin" else "lo"
MAX_HOSTS = 64  # of a job: each is a process of this machine
SANDBOX_CHOICES = ("auto", "off")
_LOST = Exit(128 + signal.SIGKILL, signal=int(signal.SIGKILL))


class ProcessRunner(Runner):
    """Runs images of `Images`; the containers' own files are in `home`/containers."""

    name = "process"

    def __init__(self, images: Images, home: Path, *, sandbox: str = "auto") -> None:
        if sandbox not in SANDBOX_CHOICES:
            raise ByoaError(
                "SETTING_INVALID",
                f"BYOA_SANDBOX is {sandbox!r}",
                expected=" or ".join(SANDBOX_CHOICES),
            )
        self._images = images
        self._directory = home / "containers"
        self._networks = SharedNetworks(home / "networks")
        self._sandbox = sandbox
        self._probe = threading.Lock()
        self._unavailable: str | None = None
        self._probed = False

    @property
    def no_sandbox(self) -> str | None:
        """Why containers have no private /opt/ml and network; None when they have."""
        with self._probe:
            if not self._probed:
                off = self._sandbox == "off"
                self._unavailable = "BYOA_SANDBOX is off" if off else sandbox.unavailable()
                self._probed = True
            return self._unavailable

    def check(
        self, image: str, *, isolated: bool = False, hosts: int = 1, serves: bool = False,
        program: Sequence[str] = (),
    ) -> None:
        self._images.resolve(image)
        within = next((part for part in program if parts.names_within(part)), None)
        if within is not None and self.no_sandbox is not None:
            raise UnsupportedError(
                "ENTRYPOINT_UNAVAILABLE",
                f"{within[:100]!r} names {ROOT} within a text, where it cannot be replaced by this"
                f" machine's directory, and for a real {ROOT} a process needs Linux namespaces,"
                f" which here {self.no_sandbox}",
                expected=f"arguments that are whole paths below {ROOT}",
                remedy="allow unprivileged user namespaces, or run the job in Docker"
                " (BYOA_RUNNER=docker)",
            )
        if hosts > 1 and self.no_sandbox is not None:
            raise UnsupportedError(
                "HOSTS_UNSUPPORTED",
                f"{hosts} hosts as processes of this machine need Linux namespaces, in which each"
                f" has its own /opt/ml and host names, and here {self.no_sandbox}",
                expected="ResourceConfig.InstanceCount 1",
                remedy="allow unprivileged user namespaces, or run the jobs in Docker"
                " (BYOA_RUNNER=docker)",
            )
        if hosts > MAX_HOSTS:
            raise UnsupportedError(
                "HOSTS_UNSUPPORTED",
                f"{hosts} hosts are too many for one machine",
                expected=f"ResourceConfig.InstanceCount of at most {MAX_HOSTS}",
            )
        if isolated and serves:
            raise UnsupportedError(
                "ISOLATION_UNAVAILABLE",
                "a process that serves cannot be isolated: its port would not be reachable",
                expected="EnableNetworkIsolation false for a container that serves",
                remedy="serve without network isolation, or in Docker (BYOA_RUNNER=docker)",
            )
        if isolated and self.no_sandbox is not None:
            raise UnsupportedError(
                "ISOLATION_UNAVAILABLE",
                f"network isolation needs Linux namespaces, and here {self.no_sandbox}",
                expected="EnableNetworkIsolation false",
                remedy="submit without network isolation, or allow unprivileged user namespaces",
            )

    def shows_read_only(self, image: str) -> bool:
        return self.no_sandbox is None

    def describe(self) -> str:
        return "processes of this machine"

    def interface(self, image: str) -> str:
        return LOOPBACK_INTERFACE  # all hosts are on this machine

    def release(self, network: Network) -> None:
        self._networks.close(network.name)

    def start(self, spec: ContainerSpec, warm: Warm | None = None) -> Container:
        network = spec.network
        self.check(
            spec.image, isolated=spec.isolated, serves=spec.port is not None,
            hosts=1 if network is None else len(network.hosts),
        )
        image = self._images.resolve(spec.image)
        directory = self._claim(spec.name)
        port = None if spec.port is None else _free_port()
        boxed = self.no_sandbox is None
        if spec.read_only and not boxed:  # of an earlier server, which had namespaces
            raise ByoaError(
                "READ_ONLY_UNAVAILABLE",
                "the container's FastFile channels need Linux namespaces, in which it cannot change"
                f" them, and here {self.no_sandbox}",
                remedy="submit the job again",
            )
        ahead = self._fitting(spec, image, warm, boxed=boxed)
        scratch = _scratch() if ahead is None else ahead.scratch
        shared = names = None
        if boxed and network is not None and (len(network.hosts) > 1 or sandbox.NAMES.exists()):
            names = scratch / "hosts"
            names.write_text(_names(self._directory, network), encoding="utf-8")
            if network.isolated and len(network.hosts) > 1:
                shared = self._networks.open(network.name)
        elif boxed and network is None and spec.host is not None and sandbox.NAMES.exists():
            names = scratch / "hosts"
            names.write_text(_and_this_machine_s(f"{LOOPBACK} {spec.host}"), encoding="utf-8")
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        shim.write_atomically(
            directory / shim.SPEC,
            {
                "argv": parts.argv(spec, image, scratch, boxed=boxed),
                "environment": parts.environment(spec, image, scratch, port, boxed=boxed),
                "cwd": str(parts.working_directory(spec, image, scratch, boxed=boxed)),
                "log": str(spec.log),
                "ml": str(spec.ml),
                "read_only": [
                    [str(shown), str(place.relative_to(spec.ml))]
                    for place, shown in spec.read_only.items()
                ],
                "scratch": str(scratch),
                "mount": str(scratch / "mount"),
                "sandbox": boxed,
                "isolated": spec.isolated,
                "host": spec.host,
                "names": None if names is None else str(names),
                "network": shared,
                "address": None if port is None else [LOOPBACK, port],
            },
        )
        process = None if ahead is None else ahead.become(directory)
        if process is None:
            process = _start_shim(directory)
        else:
            _know_shim(directory, process)
        return ProcessContainer(directory, process)

    def warm(self, spec: ContainerSpec) -> Warm | None:
        """The interpreter with the algorithm imported: of byoa's own `train` alone."""
        image = self._images.resolve(spec.image)
        hosts = 1 if spec.network is None else len(spec.network.hosts)
        algorithm = {**image.environment, **spec.environment}.get(ALGORITHM_VARIABLE)
        own = spec.entrypoint is None and image.entrypoint == ENTRYPOINT
        if not own or not algorithm or spec.port is not None or (spec.isolated and hosts > 1):
            return None
        boxed, scratch = self.no_sandbox is None, _scratch()
        return WarmProcess(
            parts.argv(spec, image, scratch, boxed=boxed),
            parts.environment(spec, image, scratch, None, boxed=boxed),
            terms=parts.terms(spec, image, scratch),
            cwd=scratch if image.folder is None else image.folder, scratch=scratch,
            boxed=boxed, isolated=spec.isolated, machine=parts.machine(),
        )

    def _fitting(
        self, spec: ContainerSpec, image: Image, warm: Warm | None, *, boxed: bool
    ) -> WarmProcess | None:
        """`warm`, if it can be this container; ended, if not."""
        if warm is None:
            return None
        if isinstance(warm, WarmProcess) and warm.fits(
            parts.terms(spec, image, warm.scratch), boxed=boxed, isolated=spec.isolated
        ):
            return warm
        warm.close()
        return None

    def adopt(self, handle: Mapping[str, Any]) -> Container | None:
        directory = self._directory / handle["name"]
        if not directory.joinpath(shim.SPEC).exists():
            return None
        container = ProcessContainer(directory)
        return container if container.is_known else None

    def _claim(self, name: str) -> Path:
        """A new directory for the container's files; what an ended one of the name left goes."""
        directory = self._directory / name
        for process in (_read(directory / shim.SHIM), _read(directory / shim.CHILD)):
            if process is not None and identity.is_running(process["pid"], process["started"]):
                raise ByoaError(
                    "CONTAINER_EXISTS",
                    f"container {name!r} is running",
                    expected="a name that no running container has",
                )
        if (left := _read(directory / shim.SPEC)) is not None:
            shutil.rmtree(left["scratch"], ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, mode=0o700)
        return directory


class ProcessContainer(Container):
    """A container known by its directory: the files of its shim, and what they say of processes.

    `process` is the shim where this server started it.
    """

    def __init__(
        self, directory: Path, process: subprocess.Popen[bytes] | None = None
    ) -> None:
        self._directory = directory
        self._process = process
        self._lock = threading.Lock()
        self._exit: Exit | None = None
        spec = _read(directory / shim.SPEC) or {}
        self._scratch, self._address = spec["scratch"], spec["address"]
        if process is not None:  # it need not have written its own number down yet
            self._pid, self._started = process.pid, identity.start_time(process.pid)
        else:
            record = _read(directory / shim.SHIM) or {"pid": 0, "started": None}
            self._pid, self._started = record["pid"], record["started"]

    @property
    def handle(self) -> dict[str, Any]:
        return {"runner": ProcessRunner.name, "name": self._directory.name}

    @property
    def address(self) -> tuple[str, int] | None:
        return None if self._address is None else (str(self._address[0]), int(self._address[1]))

    @property
    def lost(self) -> bool:
        return self._exit is _LOST

    @property
    def is_known(self) -> bool:
        """Whether it runs, or has left its exit."""
        return identity.is_running(self._pid, self._started) or self._left_exit() is not None

    def wait(self, timeout: float) -> Exit | None:
        if self._exit is not None:
            return self._exit
        if not identity.wait_for_end(self._pid, self._started, timeout):
            return None
        with self._lock:
            if self._exit is None:
                if self._process is not None:
                    self._process.wait()
                    _running.discard(self._process)
                self._exit = self._left_exit() or self._lost()
        return self._exit

    def terminate(self) -> None:
        identity.send(self._pid, self._started, shim.TERMINATE)

    def kill(self) -> None:
        if not identity.send(self._pid, self._started, shim.KILL):
            self._kill_child()

    def usage(self) -> Usage | None:
        if not identity.is_running(self._pid, self._started):
            return None
        return usage_below(self._pid)

    def remove(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _left_exit(self) -> Exit | None:
        document = _read(self._directory / shim.EXIT)
        return None if document is None else Exit.from_json(document)

    def _lost(self) -> Exit:
        """Somebody killed the shim: the container must not go on without anyone to watch it."""
        self._kill_child()
        return _LOST

    def _kill_child(self) -> None:
        child = _read(self._directory / shim.CHILD)
        if child is not None and identity.is_running(child["pid"], child["started"]):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child["pid"], signal.SIGKILL)


# Popen objects of shims that have not been waited for: a shim may outlive who started it, which
# Popen would take for a mistake.
_running: set[subprocess.Popen[bytes]] = set()


def _start_shim(directory: Path) -> subprocess.Popen[bytes]:
    environment = parts.machine()
    with open(directory / "shim.err", "wb") as errors:
        # Blocked until the shim has a child to pass them to, so that an early stop is not lost.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {shim.TERMINATE, shim.KILL})
        try:
            process = subprocess.Popen(  # noqa: S603 - an argv of our own
                [sys.executable, "-m", shim.__name__, str(directory)],
                env=environment, cwd=directory, stdin=subprocess.DEVNULL,
                stdout=errors, stderr=errors, start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    _know_shim(directory, process)
    return process


def _know_shim(directory: Path, process: subprocess.Popen[bytes]) -> None:
    _running.add(process)
    # The shim writes it too, but only when it has come up: a server killed before that is followed
    # by one that finds the container all the same.
    shim.record(directory / shim.SHIM, process.pid)


def _scratch() -> Path:
    """A container's own temporary directory, home and mount point."""
    scratch = Path(tempfile.mkdtemp(prefix="byoa-"))  # short: socket paths end at 107 bytes
    for name in ("tmp", "home", "mount"):
        scratch.joinpath(name).mkdir()
    return scratch


def _names(directory: Path, network: Network) -> str:
    """/etc/hosts of a job's hosts: an address each, of a loopback network that is the job's own."""
    # 127.0.0.0/8 is all this machine; two jobs that use one port must not meet on one address.
    # Nor those of two servers: hence the directory.
    second, third = hashlib.sha256(f"{directory}/{network.name}".encode()).digest()[:2]
    lines = [
        f"127.{second or 1}.{third}.{number} {host}"
        for number, host in enumerate(network.hosts, start=1)
    ]
    return _and_this_machine_s(*lines)


def _and_this_machine_s(*lines: str) -> str:
    """Lines of /etc/hosts, and after them what this machine has there."""
    with contextlib.suppress(OSError, UnicodeError):
        lines = (*lines, sandbox.NAMES.read_text(encoding="utf-8"))
    return "\n".join(lines) + "\n"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return document


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        return int(taken.getsockname()[1])
