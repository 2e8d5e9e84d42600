"""What an instance type gives its containers: CPUs, memory, shared memory, GPUs (HW-07).

A size the service has and this table lacks gives no limits: the container has the whole machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from byoa.local.runners.base import Limits

GIB = 1 << 30
# /dev/shm: "up to half of memory" in the service's inference documentation (TRAIN-182).
SHARED_MEMORY_SHARE = 0.5

# family: "size vCPU/GiB[/GPUs]", of EC2's instances of the same name
_T = "medium 2/4, large 2/8, xlarge 4/16, 2xlarge 8/32"
_M5 = "large 2/8, xlarge 4/16, 2xlarge 8/32, 4xlarge 16/64, 12xlarge 48/192, 24xlarge 96/384"
_M6 = f"{_M5}, 8xlarge 32/128, 16xlarge 64/256"
_C6 = (
    "large 2/4, xlarge 4/8, 2xlarge 8/16, 4xlarge 16/32, 8xlarge 32/64, 12xlarge 48/96,"
    " 16xlarge 64/128, 24xlarge 96/192"
)
_R5 = (
    "large 2/16, xlarge 4/32, 2xlarge 8/64, 4xlarge 16/128, 8xlarge 32/256, 12xlarge 48/384,"
    " 16xlarge 64/512, 24xlarge 96/768"
)
# 16xlarge has one GPU although 12xlarge has four (HW-08).
_G4 = (
    "xlarge 4/16/1, 2xlarge 8/32/1, 4xlarge 16/64/1, 8xlarge 32/128/1, 12xlarge 48/192/4,"
    " 16xlarge 64/256/1"
)
_G5 = f"{_G4}, 24xlarge 96/384/4, 48xlarge 192/768/8"
_FAMILIES = {
    "t2": _T,
    "t3": _T,
    "m4": "xlarge 4/16, 2xlarge 8/32, 4xlarge 16/64, 10xlarge 40/160, 16xlarge 64/256",
    "m5": _M5,
    "m5d": _M5,
    "m6i": f"{_M6}, 32xlarge 128/512",
    "m7i": f"{_M6}, 48xlarge 192/768",
    "c4": "large 2/3.75, xlarge 4/7.5, 2xlarge 8/15, 4xlarge 16/30, 8xlarge 36/60",
    "c5": "large 2/4, xlarge 4/8, 2xlarge 8/16, 4xlarge 16/32, 9xlarge 36/72, 18xlarge 72/144",
    "c5n": "xlarge 4/10.5, 2xlarge 8/21, 4xlarge 16/42, 9xlarge 36/96, 18xlarge 72/192",
    "c6i": f"{_C6}, 32xlarge 128/256",
    "c7i": f"{_C6}, 48xlarge 192/384",
    "r5": _R5,
    "r6i": f"{_R5}, 32xlarge 128/1024",
    "r7i": f"{_R5}, 48xlarge 192/1536",
    "p2": "xlarge 4/61/1, 8xlarge 32/488/8, 16xlarge 64/732/16",
    "p3": "2xlarge 8/61/1, 8xlarge 32/244/4, 16xlarge 64/488/8",
    "p3dn": "24xlarge 96/768/8",
    "p4d": "24xlarge 96/1152/8",
    "p4de": "24xlarge 96/1152/8",
    "p5": "4xlarge 16/256/1, 48xlarge 192/2048/8",
    "p5e": "48xlarge 192/2048/8",
    "p5en": "48xlarge 192/2048/8",
    "p6-b200": "48xlarge 192/2048/8",
    "p6-b300": "48xlarge 192/4096/8",
    "p6e-gb200": "36xlarge 144/960/4",
    "g4dn": _G4,
    "g5": _G5,
    "g6": _G5,
    "g6e": (
        "xlarge 4/32/1, 2xlarge 8/64/1, 4xlarge 16/128/1, 8xlarge 32/256/1, 12xlarge 48/384/4,"
        " 16xlarge 64/512/1, 24xlarge 96/768/4, 48xlarge 192/1536/8"
    ),
    "g7e": (
        "2xlarge 8/64/1, 4xlarge 16/128/1, 8xlarge 32/256/1, 12xlarge 48/512/2,"
        " 24xlarge 96/1024/4, 48xlarge 192/2048/8"
    ),
    "trn1": "2xlarge 8/32, 32xlarge 128/512",
    "trn1n": "32xlarge 128/512",
    "trn2": "48xlarge 192/2048",
    "inf1": "xlarge 4/8, 2xlarge 8/16, 6xlarge 24/48, 24xlarge 96/192",
    "inf2": "xlarge 4/16, 8xlarge 32/128, 24xlarge 96/384, 48xlarge 192/768",
}


@dataclass(frozen=True)
class InstanceSize:
    """The hardware of an instance type."""

    cpus: int
    memory_bytes: int
    gpus: int = 0


def _parse() -> dict[str, InstanceSize]:
    sizes = {}
    for family, text in _FAMILIES.items():
        for entry in text.split(", "):
            size, _, figures = entry.partition(" ")
            cpus, memory, gpus = (*figures.split("/"), "0")[:3]
            sizes[f"ml.{family}.{size}"] = InstanceSize(
                int(cpus), int(float(memory) * GIB), int(gpus)
            )
    return sizes


INSTANCE_SIZES = _parse()


def limits_of(instance_type: str) -> Limits:
    """What a container has on an instance of this type ("ml.m5.large")."""
    size = INSTANCE_SIZES.get(instance_type)
    if size is None:
        return Limits()
    return Limits(
        cpus=float(size.cpus),
        memory_bytes=size.memory_bytes,
        shm_bytes=int(size.memory_bytes * SHARED_MEMORY_SHARE),
        gpus=size.gpus,
    )
