"""What this container really has: CPUs, memory, GPUs, and the kernel's count of memory kills.

Measured from affinity, cgroup files and the driver, never guessed; no third-party import.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

PROC = Path("/proc")
NVIDIA_SMI_SECONDS = 20.0  # the driver of a machine with many GPUs takes seconds to answer
_UNLIMITED = 1 << 60  # cgroup v1 writes "no limit" as a number near 2**63


@dataclass(frozen=True)
class Gpu:
    name: str
    memory_bytes: int | None  # None where only the device file is known


@dataclass(frozen=True)
class Hardware:
    """CPUs that may be used at once, bytes of memory, GPUs, and where each figure comes from."""

    cpus: float
    cpu_source: str
    memory_bytes: int
    memory_source: str
    gpus: tuple[Gpu, ...] = ()
    device: str = "cpu"  # "cpu" or "cuda"
    device_source: str = "no GPU"
    notice: str = ""  # a sentence for the log about a GPU that one would expect to be used

    @property
    def threads(self) -> int:
        """Threads that a computation should use."""
        return max(1, int(self.cpus))

    def describe(self) -> str:
        """The plan as one line."""
        gpus = ", ".join(
            gpu.name if gpu.memory_bytes is None else f"{gpu.name} {size(gpu.memory_bytes)}"
            for gpu in self.gpus
        )
        return (
            f"{self.cpus:g} CPUs ({self.cpu_source}), {size(self.memory_bytes)} memory"
            f" ({self.memory_source}), {len(self.gpus)} GPUs{f' ({gpus})' if gpus else ''}"
            f" → device {self.device} ({self.device_source}), {self.threads} threads"
        )


def measure(environ: Mapping[str, str] = os.environ, proc: Path = PROC) -> Hardware:
    """Measure this process's share of the machine."""
    cpus, cpu_source = _cpus(proc)
    memory, memory_source = _memory(proc)
    gpus = _gpus(environ)
    build = _torch_build()
    device, device_source = _device(gpus, build)
    notice = _missing(environ) if build == "cuda" and not gpus else ""
    return Hardware(cpus, cpu_source, memory, memory_source, gpus, device, device_source, notice)


def size(count: float) -> str:
    """Bytes for a human: 41 MB, 7.6 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


# --- CPU and memory -------------------------------------------------------------------------------


def _cpus(proc: Path) -> tuple[float, str]:
    if hasattr(os, "sched_getaffinity"):
        affinity, source = len(os.sched_getaffinity(0)), "affinity"
    else:  # macOS has no affinity
        affinity, source = os.cpu_count() or 1, "machine"
    quotas = [q for directory in _directories(proc, "cpu") if (q := _cpu_quota(directory))]
    quota = min(quotas, default=None)
    if quota is None or quota >= affinity:
        return float(affinity), source
    return quota, f"cgroup quota, {affinity} by {source}"


def _cpu_quota(directory: Path) -> float | None:
    try:
        words = (directory / "cpu.max").read_text().split()  # v2: "200000 100000" or "max 100000"
    except OSError:
        try:
            words = [
                (directory / name).read_text().strip()
                for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            ]
        except OSError:
            return None
    try:
        quota, period = int(words[0]), int(words[1])
    except (ValueError, IndexError):
        return None  # "max"
    return quota / period if quota > 0 and period > 0 else None


def _memory(proc: Path) -> tuple[int, str]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = []
    for directory in _directories(proc, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            value = _integer(directory / name)
            if value is not None and value < _UNLIMITED:
                limits.append(value)
    limit = min(limits, default=None)
    if limit is None or limit >= total:
        return total, "machine"
    return limit, f"cgroup limit, machine has {size(total)}"


def _integer(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # absent, or "max"
        return None


# --- cgroups --------------------------------------------------------------------------------------


def _directories(proc: Path, controller: str, pid: int | str = "self") -> Iterator[Path]:
    """The cgroup of a process for a controller, then its ancestors that are visible here.

    A limit anywhere on the way up binds. v1 and v2 hierarchies may be mounted side by side.
    """
    try:
        groups = (proc / str(pid) / "cgroup").read_text().splitlines()
        mounts = (proc / "self" / "mountinfo").read_text().splitlines()
    except OSError:
        return
    for line in groups:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        for mount in mounts:
            head, _, tail = mount.partition(" - ")
            fields, kind = head.split(), tail.split()
            if len(fields) < 5 or len(kind) < 3:
                continue
            if kind[0] != ("cgroup" if controllers else "cgroup2"):
                continue
            if controllers and controller not in kind[2].split(","):
                continue
            root, point = PurePosixPath(fields[3]), Path(fields[4])
            try:
                below = PurePosixPath(group).relative_to(root)
            except ValueError:  # the process's group is above what is mounted here
                below = PurePosixPath()
            directory = point / below
            while True:
                yield directory
                if directory == point or point not in directory.parents:
                    break
                directory = directory.parent


def oom_kills(pid: int | str = "self", proc: Path = PROC) -> int | None:
    """How many processes the kernel has killed for memory in the cgroup of `pid`; outside any
    memory cgroup, on the whole machine. None where the kernel does not tell."""
    for directory in _directories(proc, "memory", pid):
        for name in ("memory.events", "memory.oom_control"):
            count = _counter(directory / name)
            if count is not None:
                return count
    return _counter(proc / "vmstat")


def _counter(path: Path) -> int | None:
    try:
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        pass
    return None


def resident_bytes() -> int:
    """What this process has in memory."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # no /proc: macOS
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * os.sysconf("SC_PAGE_SIZE")


def shared_bytes() -> int:
    """What of it other processes share, or would if they did the same: mapped files, and memory of
    before a fork that nobody has written to since. 0 where that is not known."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return 0
    found = {name: int(value.split()[0]) << 10 for name, value in (
        line.split(":", 1) for line in lines
    )}
    # Pages of files that are not yet on the disk count as dirty, too.
    own = min(found.get("Private_Dirty", 0), found.get("Anonymous", 0))
    return max(0, found.get("Rss", 0) - own)


# --- GPUs -----------------------------------------------------------------------------------------


def _gpus(environ: Mapping[str, str], dev: Path = Path("/dev")) -> tuple[Gpu, ...]:
    """GPUs by nvidia-smi, else by their device files; CUDA_VISIBLE_DEVICES hides some."""
    found = _query_nvidia_smi(environ)
    if found is None:
        found = [Gpu(path.name, None) for path in sorted(dev.glob("nvidia[0-9]*"))]
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and found:
        wanted = [each.strip() for each in visible.split(",") if each.strip()]
        # CUDA itself stops at the first invalid entry, and -1 is one.
        count = wanted.index("-1") if "-1" in wanted else len(wanted)
        indices = [int(each) for each in wanted[:count] if each.isdigit()]
        if len(indices) == count:
            return tuple(found[index] for index in indices if index < len(found))
        return tuple(found[:count])  # named by UUID
    return tuple(found)


def _query_nvidia_smi(environ: Mapping[str, str]) -> list[Gpu] | None:
    program = shutil.which("nvidia-smi", path=environ.get("PATH"))
    if program is None:
        return None
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed argv
            [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=NVIDIA_SMI_SECONDS, check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if answer.returncode != 0:
        return None
    gpus = []
    for line in answer.stdout.splitlines():
        name, _, mebibytes = line.rpartition(",")
        if name:
            known = mebibytes.strip().isdigit()
            gpus.append(Gpu(name.strip(), int(mebibytes) << 20 if known else None))
    return gpus


def _device(gpus: tuple[Gpu, ...], build: str | None) -> tuple[str, str]:
    if not gpus:
        return "cpu", "no GPU"
    if build == "cpu":
        return "cpu", "torch is a build without CUDA"
    return "cuda", gpus[0].name


def _missing(environ: Mapping[str, str]) -> str:
    """Why a torch that could use a GPU will not (CHK-17)."""
    if (visible := environ.get("CUDA_VISIBLE_DEVICES")) in ("", "-1"):
        why, cure = f"CUDA_VISIBLE_DEVICES={visible!r} hides them", "remove that variable"
    else:
        why = "the container was given none"
        cure = "choose an instance type with GPUs, or `docker run --gpus all` by hand"
    return (
        f"no GPU: torch here is a build for CUDA, but it finds no device, since {why};"
        f" all work is done by the CPU. To use a GPU {cure}"
    )


def _torch_build() -> str | None:
    """"cuda" or "cpu" as the installed torch says in its version file; None without torch.

    torch is neither imported nor asked for: that takes seconds, and nobody may need it.
    """
    files = (os.path.join(place or ".", "torch", "version.py") for place in sys.path)
    found = next(filter(os.path.isfile, files), None)
    if found is None:
        return None
    text = Path(found).read_text(encoding="utf-8", errors="replace")
    match = re.search(r"^cuda\b[^=]*=\s*(\S+)", text, re.MULTILINE)
    return None if match is None else ("cpu" if match.group(1) == "None" else "cuda")
