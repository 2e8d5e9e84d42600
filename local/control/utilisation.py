"""CPU, memory, disk and GPU of a job's hosts while it runs, as the service measures an instance.

Percentages as TRAIN-193 has them: 100 is one CPU or GPU, all of the memory, all of the disk. The
service looks once a minute; jobs here may be over in seconds, so it is often at first and seldom
later.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from byoa.container.errors import ByoaError
from byoa.local.control.metric_series import SYSTEM, Point
from byoa.local.runners.base import Usage

if TYPE_CHECKING:
    from byoa.local.control.training_host import TrainingHost

FIRST_SECONDS = 0.25  # until the first look: the start belongs to the job
MIN_SECONDS, MAX_SECONDS = 0.5, 60.0  # from one look to the next
GROWTH = 0.05  # of the time that has passed: a point in twenty of what there is
GPU_SECONDS = 5.0  # for nvidia-smi to answer
JOIN_SECONDS = 10.0

log = logging.getLogger(__name__)


class Utilisation:
    """Measures in a thread of its own from `start` to `end` or `stop`; `peaks` is each host's most
    memory, in bytes, as far as it was seen."""

    def __init__(
        self, hosts: Sequence[TrainingHost], keep: Callable[[Sequence[Point]], None]
    ) -> None:
        self._hosts = hosts
        self._keep = keep
        self.peaks: dict[str, int] = {}
        self._before: dict[str, tuple[float, float]] = {}  # monotonic and CPU seconds
        self._gpus = shutil.which("nvidia-smi")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._measure, name="utilisation", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Measure no more; a look that is under way need not be waited for."""
        self._ended.set()

    def stop(self) -> None:
        """Measure no more, and leave no thread."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_SECONDS)

    def _measure(self) -> None:
        began = time.monotonic()
        pause = FIRST_SECONDS
        while not self._ended.wait(pause):
            try:
                gpus = self._measure_gpus() if self._gpus else []
                points = [each for host in self._hosts for each in self._host(host, gpus)]
                if points:
                    self._keep(points)
            except Exception:  # a job is not to fail because it could not be measured
                log.exception("the job's hosts are measured no more")
                return
            pause = min(MAX_SECONDS, max(MIN_SECONDS, GROWTH * (time.monotonic() - began)))

    def _host(self, host: TrainingHost, gpus: Sequence[tuple[str, float]]) -> list[Point]:
        if host.container is None or host.exit is not None:
            return []
        try:
            usage = host.container.usage()
        except ByoaError as error:
            log.info("%s is not measured: %s", host.name, error)
            return []
        if usage is None:
            return []
        self.peaks[host.name] = max(self.peaks.get(host.name, 0), usage.memory_bytes)
        cpu = self._cpu(host.name, usage)
        if cpu is None:
            return []
        disk = shutil.disk_usage(host.layout.root)
        values = [
            ("CPUUtilization", cpu),
            ("MemoryUtilization", 100 * usage.memory_bytes / (usage.memory_limit or _memory())),
            ("DiskUtilization", 100 * disk.used / disk.total),
            *gpus,
        ]
        now = time.time()
        return [Point(name, round(value, 3), now, host.name, kind=SYSTEM) for name, value in values]

    def _cpu(self, host: str, usage: Usage) -> float | None:
        now = time.monotonic()
        before, self._before[host] = self._before.get(host), (now, usage.cpu_seconds)
        if before is None:
            return None
        return max(0.0, 100 * (usage.cpu_seconds - before[1]) / (now - before[0]))

    def _measure_gpus(self) -> list[tuple[str, float]]:
        """Of the machine's GPUs, which are every host's; none where they cannot be asked."""
        try:
            said = subprocess.run(  # noqa: S603 - the driver's own tool, by an argv
                [str(self._gpus), "--query-gpu=utilization.gpu,memory.used,memory.total",
                 "--format=csv,noheader,nounits"],
                capture_output=True, text=True, timeout=GPU_SECONDS, check=True,
            ).stdout
            rows = [[float(each) for each in line.split(",")] for line in said.splitlines()]
            if not rows:
                return []
            return [
                ("GPUUtilization", sum(busy for busy, _, _ in rows)),
                ("GPUMemoryUtilization", sum(100 * used / total for _, used, total in rows)),
            ]
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            log.info("the GPUs are not measured: %s", error)
            self._gpus = None
            return []


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
