"""A box that is a process of this machine: an algorithm of byoa's, checked without an engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

from byoa.container.contract import ALGORITHM_VARIABLE
from byoa.container.errors import ByoaError
from byoa.container.supervisor import Exit
from byoa.local.check import proc
from byoa.local.check.box import Box, BoxSpec, Process
from byoa.local.check.checks import NotApplicable
from byoa.local.runners.base import Container, ContainerSpec
from byoa.local.runners.images import OWN_REPOSITORY, Images, algorithms_in
from byoa.local.runners.listeners import listening
from byoa.local.runners.process import ProcessRunner
from byoa.local.storage.state import State

# Of a built-in's name alone: what is wrong with an author's own module is for the checks to find.
_FIND = (
    "import sys\nfrom byoa.algorithms.registry import find\nfrom byoa.container.errors import"
    " ByoaError\ntry: find(sys.argv[1])\nexcept ByoaError as error: sys.exit(str(error))"
)


class ProcessBoxes:
    """Starts boxes of one algorithm; everything that it keeps is below `home`."""

    def __init__(self, algorithm: str, home: Path) -> None:
        self.algorithm = algorithm
        self.environment = _environment(algorithm)
        _refuse_unknown(self.environment[ALGORITHM_VARIABLE])
        self._home = home
        self._state = State(home / "state.sqlite")
        self._runner = ProcessRunner(Images(self._state), home)

    def start(self, spec: BoxSpec) -> ProcessBox:
        _refuse(spec)
        isolated = spec.network == "none"
        if isolated and self._runner.no_sandbox is not None:
            raise NotApplicable(f"a process has no network of its own: {self._runner.no_sandbox}")
        if isolated and spec.port is not None:
            raise NotApplicable("a process without a network has no port that can be reached")
        name = f"check-{uuid.uuid4().hex[:12]}"
        log = self._home / "logs" / f"{name}.log"
        container = self._runner.start(
            ContainerSpec(
                name, OWN_REPOSITORY, spec.command, spec.ml, log,
                environment={**self.environment, **spec.environment},
                port=spec.port, isolated=isolated,
            )
        )
        return ProcessBox(spec, container, log, self._home / "containers" / name)

    def close(self) -> None:
        self._state.close()


class ProcessBox(Box):
    """A process group under the process runner's shim."""

    def __init__(
        self, spec: BoxSpec, container: Container, log: Path, directory: Path
    ) -> None:
        self.spec = spec
        self._container = container
        self._log = log
        self._directory = directory

    @property
    def address(self) -> tuple[str, int] | None:
        return self._container.address

    @property
    def log(self) -> str:
        try:
            return self._log.read_bytes().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def wait(self, timeout: float) -> Exit | None:
        return self._container.wait(timeout)

    def terminate(self) -> None:
        self._container.terminate()

    def kill(self) -> None:
        self._container.kill()

    def processes(self) -> list[Process]:
        if not Path("/proc/self/stat").exists():
            raise NotApplicable("this machine has no /proc in which to see processes")
        first = self._first()
        return [] if first is None else proc.descendants(first)

    def kill_process(self, process: Process) -> bool:
        return proc.kill(process)

    def listeners(self) -> list[tuple[str, int]]:
        own = proc.inodes(each.pid for each in self.processes())
        first = self._first()
        if first is None:
            return []
        try:
            tables = [Path(f"/proc/{first}/net/{name}").read_text() for name in ("tcp", "tcp6")]
        except OSError:
            return []
        return listening(tables, own)

    def changes(self) -> list[str]:
        raise NotApplicable("a process has no file system of its own")

    def _first(self) -> int | None:
        try:
            document = json.loads((self._directory / "child.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return int(document["pid"])

    def remove(self) -> None:
        if self.wait(0.0) is None:
            self.kill()
            self.wait(10.0)
        self._container.remove()


def _refuse(spec: BoxSpec) -> None:
    """What only a container has."""
    for given, what in (
        (spec.entrypoint, "a process has no ENTRYPOINT to replace"),
        (spec.user, "a process runs as whoever started it"),
        (spec.read_only_model, "a process's /opt/ml/model cannot be made read-only"),
        (spec.read_only_data, "a process's /opt/ml/input/data cannot be made read-only"),
        (spec.read_only, "a process's file system cannot be made read-only"),
        (spec.mounts, "a process has no mounts"),
        (spec.memory_bytes or spec.shm_bytes, "a process has no memory limit of its own"),
        (spec.network not in ("bridge", "none"), "a process has no network to share"),
    ):
        if given:
            raise NotApplicable(what)


def _refuse_unknown(algorithm: str) -> None:
    """Without samples a name that means nothing would make each check a skip, and none a failure.
    A process asks: this side knows no algorithms."""
    if ":" in algorithm:
        return
    asked = subprocess.run(  # noqa: S603 - an argv of our own
        [sys.executable, "-c", _FIND, algorithm], capture_output=True, text=True, timeout=60,
        check=False,
    )
    if asked.returncode:
        raise ByoaError(
            "ALGORITHM_UNKNOWN", asked.stderr.strip().removesuffix(" [ALGORITHM_UNKNOWN]"),
            remedy="name one of these, a file with an Algorithm class, or a folder with one",
        )


def _environment(algorithm: str) -> dict[str, str]:
    """Variables that choose the algorithm: a built-in's name, module:Class, a file or a folder."""
    from byoa.local.commands.box import algorithm_environment

    folder = Path(algorithm)
    if not folder.is_dir():
        return algorithm_environment(algorithm)
    found = algorithms_in(folder.resolve())
    if len(found) != 1:
        raise ByoaError(
            "ALGORITHM_AMBIGUOUS" if found else "ALGORITHM_MISSING",
            f"{folder} has {len(found)} algorithms" + (f": {', '.join(found)}" if found else ""),
            expected="a folder with one class that derives from Algorithm, a file of it, or a"
            " built-in algorithm's name",
        )
    before = os.environ.get("PYTHONPATH")
    path = str(folder.resolve())
    return {
        ALGORITHM_VARIABLE: found[0],
        "PYTHONPATH": f"{path}{os.pathsep}{before}" if before else path,
    }


