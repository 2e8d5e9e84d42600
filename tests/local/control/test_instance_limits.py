"""What instance types give their containers."""

from __future__ import annotations

import pytest

from byoa.local.control.instance_limits import INSTANCE_SIZES, limits_of
from byoa.local.runners.base import Limits

GIB = 1 << 30


@pytest.mark.parametrize(
    ("instance_type", "cpus", "gib", "gpus"),
    [
        ("ml.t3.medium", 2, 4, 0),
        ("ml.m5.large", 2, 8, 0),
        ("ml.c4.large", 2, 3.75, 0),
        ("ml.c5n.xlarge", 4, 10.5, 0),
        ("ml.m7i.48xlarge", 192, 768, 0),
        ("ml.g5.12xlarge", 48, 192, 4),
        ("ml.g5.16xlarge", 64, 256, 1),  # HW-08
        ("ml.p3.2xlarge", 8, 61, 1),
    ],
)
def test_an_instance_type_has_ec2_s_figures(
    instance_type: str, cpus: int, gib: float, gpus: int
) -> None:
    """HW-07, TRAIN-182: /dev/shm is half of the memory."""
    assert limits_of(instance_type) == Limits(
        cpus=float(cpus), memory_bytes=int(gib * GIB), shm_bytes=int(gib * GIB / 2), gpus=gpus
    )


def test_an_unknown_type_gives_the_whole_machine() -> None:
    assert limits_of("ml.x9.huge") == Limits()


def test_the_table_is_of_one_form() -> None:
    assert len(INSTANCE_SIZES) > 150
    assert all(0 < size.cpus <= 192 and size.memory_bytes >= 3 * GIB
               for size in INSTANCE_SIZES.values())
