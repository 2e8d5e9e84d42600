"""What the engine's machine has, and how an instance type's limits fit on it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byoa.container.errors import UnsupportedError
from byoa.local.runners.base import Limits

_NVIDIA = Path("/proc/driver/nvidia/gpus")
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_EMULATORS = {"amd64": "qemu-x86_64", "arm64": "qemu-aarch64", "arm": "qemu-arm"}
_GIB = 1 << 30


@dataclass(frozen=True)
class Machine:
    """The engine's machine, which is this one, or the virtual one of Docker Desktop."""

    cpus: int
    memory_bytes: int
    architecture: str  # as images name it: "amd64"
    gpus: int
    rootless: bool  # root of a container is the engine's user outside
    remapped: bool  # root of a container is nobody in particular outside
    selinux: bool
    virtual: bool  # Docker Desktop: containers' addresses are not this machine's
    podman: bool
    limits_memory: bool
    limits_cpus: bool

    @classmethod
    def of(cls, info: Mapping[str, Any], version: Mapping[str, Any]) -> Machine:
        """From the engine's own account of itself (GET /info, GET /version)."""
        options = {
            part
            for entry in info.get("SecurityOptions") or ()
            for part in entry.split(",")
            if part.startswith("name=")
        }
        name = str(info.get("Architecture"))
        parts = [part.get("Name", "") for part in version.get("Components") or ()]
        return cls(
            cpus=int(info.get("NCPU") or 1),
            memory_bytes=int(info.get("MemTotal") or 0),
            architecture=_ARCHITECTURES.get(name, name),
            gpus=len(list(_NVIDIA.iterdir())) if _NVIDIA.is_dir() else 0,
            rootless="name=rootless" in options,
            remapped="name=userns" in options,
            selinux="name=selinux" in options,
            virtual="Docker Desktop" in str(info.get("OperatingSystem")),
            podman=any("odman" in part for part in parts),
            limits_memory=bool(info.get("MemoryLimit", True)),
            limits_cpus=bool(info.get("CpuCfsQuota", True)),
        )

    def emulates(self, architecture: str) -> bool:
        """Whether images of a foreign architecture run here, if slowly."""
        if self.virtual:
            return True
        emulator = _EMULATORS.get(architecture, f"qemu-{architecture}")
        return _BINFMT.joinpath(emulator).exists()

    def check_pipes(self) -> None:
        """Raise UnsupportedError where containers cannot read a FIFO that this process writes."""
        if self.virtual or sys.platform != "linux":
            raise UnsupportedError(
                "PIPES_UNSUPPORTED",
                "the engine's containers run in a virtual machine, and both ends of a FIFO are in"
                " one kernel",
                expected="input mode FastFile or File",
                remedy="use FastFile, or an engine that runs on this machine itself",
            )

    def fit(self, asked: Limits) -> tuple[Limits, str]:
        """The limits that a container gets, and in words what the machine lacks ("" nothing)."""
        lacks = []
        cpus, memory, gpus = asked.cpus, asked.memory_bytes, asked.gpus
        if cpus is not None and cpus > self.cpus:
            lacks.append(f"{self.cpus} of {cpus:g} CPUs")
            cpus = None
        if memory is not None and memory > self.memory_bytes:
            lacks.append(f"{self.memory_bytes / _GIB:.1f} of {memory / _GIB:g} GiB of memory")
            memory = None
        if gpus > self.gpus:
            lacks.append(f"{self.gpus} of {gpus} GPUs")
            gpus = self.gpus
        if memory is not None and not self.limits_memory:
            lacks.append("no way to limit memory")
            memory = None
        if cpus is not None and not self.limits_cpus:
            lacks.append("no way to limit CPUs")
            cpus = None
        # TRAIN-182: never Docker's 64 MB. It is a bound, not a reservation.
        shared = min(asked.shm_bytes or self.memory_bytes, self.memory_bytes // 2)
        fitted = dataclasses.replace(
            asked, cpus=cpus, memory_bytes=memory, shm_bytes=shared, gpus=gpus
        )
        return fitted, ", ".join(lacks)
