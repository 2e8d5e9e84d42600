"""What a runner runs and gives back. Runners know containers, never jobs or endpoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byoa.container.contract import NETWORK_INTERFACE
from byoa.container.supervisor import Exit


@dataclass(frozen=True)
class Network:
    """What the containers of one job share: they reach one another by host name."""

    name: str  # unique on this machine, e.g. "training-job-1"
    hosts: tuple[str, ...]  # every host of the job, in the service's order
    isolated: bool = False  # reaches nothing but these hosts (TRAIN-12)


@dataclass(frozen=True)
class Limits:
    """What an instance gives its container; None leaves the machine's own limit."""

    cpus: float | None = None
    memory_bytes: int | None = None
    shm_bytes: int | None = None
    gpus: int = 0


@dataclass(frozen=True)
class ContainerSpec:
    """One container to run, as SageMaker's contract describes it."""

    name: str  # unique on this machine, e.g. "training-job-1-algo-1"
    image: str  # as the request gave it
    command: tuple[str, ...]  # replaces the image's CMD: ("train",) or ("serve",)
    ml: Path  # the directory of this machine that the container sees as /opt/ml
    log: Path  # receives stdout and stderr merged, line by line
    # Directories of this machine that it sees, and cannot change, at places below `ml`.
    read_only: Mapping[Path, Path] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] | None = None  # replaces the image's ENTRYPOINT (TRAIN-02)
    port: int | None = None  # port that the container listens on, to be published
    isolated: bool = False  # EnableNetworkIsolation (TRAIN-12)
    host: str | None = None  # its host name, "algo-1"; one of network.hosts where there is one
    network: Network | None = None
    limits: Limits = Limits()


@dataclass(frozen=True)
class Usage:
    """What a running container has used and uses now."""

    cpu_seconds: float  # since its start
    memory_bytes: int
    memory_limit: int | None = None  # its own; None: the machine's


class Warm(ABC):
    """A program that was started ahead of its container; it waits for one, at most."""

    @abstractmethod
    def close(self) -> None:
        """End it, if no container has taken it; returns at once."""


class Container(ABC):
    """A started container. It outlives the server that started it."""

    @property
    @abstractmethod
    def handle(self) -> dict[str, Any]:
        """JSON from which `Runner.adopt` finds the container again after a restart."""

    @property
    @abstractmethod
    def address(self) -> tuple[str, int] | None:
        """Host and port where the published port answers on this machine."""

    def listeners(self) -> list[tuple[str, int]]:
        """Addresses and ports, as seen inside, where its processes listen now; empty where nobody
        can tell, or where that says nothing about how it would listen on the service."""
        return []

    @property
    def lost(self) -> bool:
        """Whether its `exit` is made up: what watched it was killed, and it with that."""
        return False

    @abstractmethod
    def wait(self, timeout: float) -> Exit | None:
        """The exit, or None when it still runs after `timeout` seconds (0 looks once)."""

    @abstractmethod
    def terminate(self) -> None:
        """Send SIGTERM to the container's first process and return at once."""

    @abstractmethod
    def kill(self) -> None:
        """Send SIGKILL to every process of the container and return at once."""

    @abstractmethod
    def remove(self) -> None:
        """Forget a finished container's own files; the log and `ml` stay."""

    def usage(self) -> Usage | None:
        """What it uses; None when it has ended, or where that cannot be told."""
        return None

    def stop(self, grace: float) -> Exit | None:
        """SIGTERM, at most `grace` seconds, SIGKILL; the exit (TRAIN-150, HOST-03)."""
        self.terminate()
        ended = self.wait(grace)
        if ended is None:
            self.kill()
            ended = self.wait(10.0)
        return ended


class Runner(ABC):
    """Starts containers. `process` runs byoa's own images without Docker."""

    name: str

    @abstractmethod
    def check(
        self, image: str, *, isolated: bool = False, hosts: int = 1, serves: bool = False,
        program: Sequence[str] = (),
    ) -> None:
        """Raise UnsupportedError for an image that it cannot run, or not in this way: without a
        network, on so many hosts, behind a published port, with a `program` and arguments that the
        image does not know of; the error names the nearest it can."""

    def check_pipes(self, image: str) -> None:  # noqa: B027 - most have one kernel with this server
        """Raise UnsupportedError where a container of `image` cannot read a FIFO that this server
        writes to."""

    def shows_read_only(self, image: str) -> bool:
        """Whether a container of `image` gets what its `read_only` names."""
        return True

    def inside(self, image: str, url: str) -> str:
        """The address at which a container of `image` reaches `url`, a server of this machine."""
        return url

    def interface(self, image: str) -> str:
        """The network interface by which the hosts of a job of `image` reach one another."""
        return NETWORK_INTERFACE

    @abstractmethod
    def start(self, spec: ContainerSpec, warm: Warm | None = None) -> Container:
        """Start and return at once; raises ByoaError when the container cannot be started.

        `warm` is used where it was started for a container like this one, and is ended where not.
        """

    def warm(self, spec: ContainerSpec) -> Warm | None:
        """Start a program ahead of the next container like `spec`, of another name; None where
        nothing can be done ahead. It ends with this process at the latest."""
        return None

    @abstractmethod
    def adopt(self, handle: Mapping[str, Any]) -> Container | None:
        """The container of an earlier server, running or ended; None when nothing is left.

        `{"name": …}` is enough where the server died before it could keep the handle.
        """

    def release(self, network: Network) -> None:  # noqa: B027 - most have nothing to remove
        """Remove what was made for a network whose containers have all been removed."""

    def describe(self) -> str:
        """What runs containers here, in a few words for a person."""
        return self.name

    def shuts_out(self, client: str) -> bool:
        """Whether the client at this address is a container that may reach no server of ours."""
        return False

    def sweep(self, keep: Callable[[str], bool]) -> list[str]:
        """Remove containers and networks of earlier servers but those whose name is to be kept;
        the names of what is removed."""
        return []

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of what the runner holds; containers run on."""
