"""What an engine says of its machine, and how instance types fit on it."""

from __future__ import annotations

from typing import Any

import pytest

from byoa.container.errors import UnsupportedError
from byoa.local.runners.base import Limits
from byoa.local.runners.docker_machine import Machine

GIB = 1 << 30
INFO: dict[str, Any] = {
    "NCPU": 4, "MemTotal": 16 * GIB, "Architecture": "x86_64", "OperatingSystem": "Debian",
    "SecurityOptions": ["name=seccomp,profile=default"],
}


def machine(version: dict[str, Any] | None = None, **members: Any) -> Machine:
    return Machine.of(INFO | members, version or {})


def test_an_engine_s_account_of_itself_is_read() -> None:
    plain = machine()
    assert (plain.cpus, plain.memory_bytes, plain.architecture) == (4, 16 * GIB, "amd64")
    assert not (plain.rootless or plain.remapped or plain.selinux or plain.virtual or plain.podman)

    assert machine(SecurityOptions=["name=seccomp,profile=default", "name=rootless"]).rootless
    assert machine(SecurityOptions=["name=userns"]).remapped
    assert machine(SecurityOptions=["name=selinux"]).selinux
    assert machine(OperatingSystem="Docker Desktop").virtual
    assert machine({"Components": [{"Name": "Podman Engine"}]}).podman
    assert machine(Architecture="aarch64").architecture == "arm64"


@pytest.mark.parametrize(
    ("asked", "given", "lacks"),
    [
        (Limits(2.0, 8 * GIB, 4 * GIB), Limits(2.0, 8 * GIB, 4 * GIB), ""),
        (Limits(4.0, 16 * GIB, 8 * GIB), Limits(4.0, 16 * GIB, 8 * GIB), ""),
        (Limits(8.0, 8 * GIB, 4 * GIB), Limits(None, 8 * GIB, 4 * GIB), "4 of 8 CPUs"),
        (Limits(2.0, 64 * GIB, 32 * GIB), Limits(2.0, None, 8 * GIB),
         "16.0 of 64 GiB of memory"),
        (Limits(), Limits(shm_bytes=8 * GIB), ""),
    ],
)
def test_a_machine_gives_what_it_has_and_says_what_it_lacks(
    asked: Limits, given: Limits, lacks: str
) -> None:
    """TRAIN-182: shared memory is never the engine's 64 MB."""
    assert machine().fit(asked) == (given, lacks)


def test_a_virtual_machine_s_containers_read_no_fifo_of_this_one() -> None:
    """TRAIN-94: the nearest is FastFile."""
    machine().check_pipes()
    with pytest.raises(UnsupportedError, match="virtual machine.*FastFile"):
        machine(OperatingSystem="Docker Desktop").check_pipes()


def test_gpus_that_are_not_there_are_told() -> None:
    """HW-02."""
    here = machine()
    limits, lacks = here.fit(Limits(gpus=here.gpus + 2))
    assert (limits.gpus, lacks) == (here.gpus, f"{here.gpus} of {here.gpus + 2} GPUs")


def test_an_engine_that_cannot_limit_is_told_so() -> None:
    limits, lacks = machine(MemoryLimit=False, CpuCfsQuota=False).fit(Limits(1.0, GIB))
    assert (limits.cpus, limits.memory_bytes) == (None, None)
    assert lacks == "no way to limit memory, no way to limit CPUs"


def test_a_virtual_machine_emulates_other_architectures() -> None:
    assert machine(OperatingSystem="Docker Desktop").emulates("arm64")
    assert not machine().emulates("s390x-none")
