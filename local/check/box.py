"""One running container of the image under test, whichever way it runs."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from byoa.container.supervisor import Exit

LOOK_SECONDS = 0.05  # between two looks at a log that grows


@dataclass(frozen=True)
class Process:
    """A process inside a box; numbers are those of this machine."""

    pid: int
    ppid: int
    argv: tuple[str, ...]


@dataclass(frozen=True)
class BoxSpec:
    """How a box is started: `docker run` with exactly these options, no TTY and no init."""

    command: tuple[str, ...]  # the arguments after the image: ("train",), ("serve",)
    ml: Path  # mounted at /opt/ml
    environment: Mapping[str, str] = field(default_factory=dict)
    network: str = "bridge"  # "bridge", "none" or the name of `Trial.network()`
    host: str | None = None  # host name inside, "algo-1"; its alias in a network of the trial
    port: int | None = None  # port inside that is published on 127.0.0.1
    user: str | None = None  # "1000:1000"; None is the image's
    entrypoint: tuple[str, ...] | None = None  # replaces the image's ENTRYPOINT
    read_only_model: bool = False  # /opt/ml/model is mounted read-only (HOST-40)
    read_only_data: bool = False  # /opt/ml/input/data is, as FastFile mounts are (TRAIN-93)
    read_only: bool = False  # the whole root file system is, but /tmp
    mounts: Mapping[str, Path] = field(default_factory=dict)  # more of this machine, by inner path
    memory_bytes: int | None = None
    shm_bytes: int | None = None


class Box(ABC):
    """A started container. `remove` it, or leave that to the trial's end."""

    spec: BoxSpec

    @property
    def ml(self) -> Path:
        """This machine's directory that the box sees as /opt/ml."""
        return self.spec.ml

    @property
    @abstractmethod
    def address(self) -> tuple[str, int] | None:
        """Host and port of this machine that lead to the published port; None without one."""

    @property
    @abstractmethod
    def log(self) -> str:
        """stdout and stderr so far, merged."""

    @abstractmethod
    def wait(self, timeout: float) -> Exit | None:
        """The exit, with the log whole; None when it still runs after `timeout` seconds."""

    @abstractmethod
    def terminate(self) -> None:
        """Send SIGTERM to the first process, as the service does, and return at once."""

    @abstractmethod
    def kill(self) -> None:
        """Send SIGKILL and return at once."""

    @abstractmethod
    def processes(self) -> list[Process]:
        """The processes inside, the first one first; empty once it has ended."""

    @abstractmethod
    def kill_process(self, process: Process) -> bool:
        """Send SIGKILL to one of `processes`; False where that cannot be done from here."""

    @abstractmethod
    def listeners(self) -> list[tuple[str, int]]:
        """Inner addresses and ports on which a process listens: ("0.0.0.0", 8080)."""

    @abstractmethod
    def changes(self) -> list[str]:
        """Inner paths that were added or changed beside /opt/ml; what is lost with the box."""

    @abstractmethod
    def remove(self) -> None:
        """Kill what still runs and remove the container; `ml` and the log stay."""

    @property
    def running(self) -> bool:
        return self.wait(0.0) is None

    def stop(self, grace: float) -> Exit | None:
        """SIGTERM, at most `grace` seconds, SIGKILL; None where it had to be killed."""
        self.terminate()
        ended = self.wait(grace)
        if ended is None:
            self.kill()
            self.wait(10.0)
        return ended

    def wait_for_log(self, text: str, timeout: float) -> bool:
        """Whether `text` is in the log before the box has ended or `timeout` seconds are over."""
        until = time.monotonic() + timeout
        while text not in self.log:
            if time.monotonic() > until:
                return False
            if self.wait(LOOK_SECONDS) is not None:
                return text in self.log
        return True

    def tail(self, lines: int = 20) -> str:
        """The last lines of the log, as evidence."""
        return "\n".join(self.log.splitlines()[-lines:])
