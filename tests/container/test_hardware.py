"""CPUs, memory, GPUs and memory kills, from made-up /proc trees and a made-up driver (pain 8)."""

import os
import sys

import pytest

from byoa.container import hardware
from byoa.container.hardware import Gpu, measure, oom_kills, size


class Machine:
    """A /proc whose mounts lead to cgroup directories that the test writes."""

    def __init__(self, root):
        self.proc = root / "proc"
        self.root = root
        (self.proc / "self").mkdir(parents=True)
        self.write("proc/self/cgroup", "")
        self.write("proc/self/mountinfo", "30 20 0:1 / / rw - ext4 /dev/sda rw\n")

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def unified(self, group="/", mount_root="/"):
        point = self.root / "fs"
        point.mkdir(exist_ok=True)
        self.write("proc/self/cgroup", f"0::{group}\n")
        self.write(
            "proc/self/mountinfo",
            f"31 20 0:2 {mount_root} {point} ro,nosuid shared:9 - cgroup2 cgroup2 rw\n",
        )

    def separate(self, group="/docker/abc", mount_root="/docker/abc"):
        lines = []
        for number, name in enumerate(("cpu,cpuacct", "memory")):
            point = self.root / name
            point.mkdir(exist_ok=True)
            lines.append(f"4{number} 20 0:3 {mount_root} {point} ro - cgroup cgroup rw,{name}\n")
        self.write("proc/self/mountinfo", "".join(lines))
        self.write("proc/self/cgroup", f"4:cpu,cpuacct:{group}\n3:memory:{group}\n0::/\n")


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.fixture
def eight(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


NOTHING = {"PATH": ""}


def test_without_cgroups_the_affinity_and_the_machine_count(machine, eight):
    found = measure(NOTHING, machine.proc)
    assert (found.cpus, found.cpu_source, found.threads) == (8.0, "affinity", 8)
    assert found.memory_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert (found.memory_source, found.device) == ("machine", "cpu")


@pytest.mark.parametrize(("quota", "cpus", "threads"), [
    ("250000 100000", 2.5, 2), ("50000 100000", 0.5, 1), ("max 100000", 8.0, 8),
    ("1600000 100000", 8.0, 8),
])
def test_the_quota_of_a_unified_cgroup_binds(machine, eight, quota, cpus, threads):
    machine.unified()
    machine.write("fs/cpu.max", quota + "\n")
    found = measure(NOTHING, machine.proc)
    assert (found.cpus, found.threads) == (cpus, threads)


def test_the_quota_of_a_version_1_cgroup_binds(machine, eight):
    machine.separate()
    machine.write("cpu,cpuacct/cpu.cfs_quota_us", "300000\n")
    machine.write("cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert measure(NOTHING, machine.proc).cpus == 3.0
    machine.write("cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    assert measure(NOTHING, machine.proc).cpus == 8.0


def test_a_limit_of_an_ancestor_binds_too(machine, eight):
    machine.unified(group="/job/step")
    machine.write("fs/job/step/cpu.max", "max 100000\n")
    machine.write("fs/job/cpu.max", "400000 100000\n")
    machine.write("fs/job/step/memory.max", "2000000\n")
    machine.write("fs/job/memory.max", "1000000\n")
    found = measure(NOTHING, machine.proc)
    assert (found.cpus, found.memory_bytes) == (4.0, 1_000_000)
    assert found.memory_source.startswith("cgroup limit")


def test_the_memory_limit_of_a_version_1_cgroup_binds_unless_it_says_none(machine):
    machine.separate()
    machine.write("memory/memory.limit_in_bytes", "1048576\n")
    assert measure(NOTHING, machine.proc).memory_bytes == 1 << 20
    machine.write("memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert measure(NOTHING, machine.proc).memory_source == "machine"


def test_a_group_outside_the_mounted_part_is_read_at_the_mount(machine, eight):
    machine.unified(group="/../other", mount_root="/container")
    machine.write("fs/cpu.max", "200000 100000\n")
    assert measure(NOTHING, machine.proc).cpus == 2.0


@pytest.mark.parametrize("version", ["unified", "separate"])
def test_memory_kills_are_counted_in_the_cgroup(machine, version):
    """TRAP-24"""
    getattr(machine, version)()
    name = "fs/memory.events" if version == "unified" else "memory/memory.oom_control"
    machine.write(name, "low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    machine.write("proc/vmstat", "oom_kill 9\n")
    assert oom_kills("self", machine.proc) == 2


def test_memory_kills_of_the_machine_where_there_is_no_cgroup(machine):
    machine.write("proc/vmstat", "nr_free_pages 3\noom_kill 9\n")
    assert oom_kills("self", machine.proc) == 9
    (machine.proc / "vmstat").unlink()
    assert oom_kills("self", machine.proc) is None


@pytest.fixture
def driver(tmp_path):
    """A directory for PATH with an nvidia-smi that prints what the test says."""

    def make(text, code=0):
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir()
        program.write_text(
            f"#!{sys.executable}\nimport sys\nprint({text!r}, end='')\nsys.exit({code})\n"
        )
        program.chmod(0o755)
        return str(program.parent)

    return make


TWO = "NVIDIA A10G, 23028\nNVIDIA A10G, 23028\n"


@pytest.mark.parametrize(("visible", "count"), [
    (None, 2), ("0,1", 2), ("1", 1), ("", 0), ("-1", 0), ("0,-1,1", 1), ("GPU-8932f937", 1),
    ("7", 0),
])
def test_gpus_are_what_the_driver_lists_and_the_variable_shows(
    machine, driver, monkeypatch, visible, count
):
    monkeypatch.setattr(hardware, "_torch_build", lambda: None)
    environ = {"PATH": driver(TWO)}
    if visible is not None:
        environ["CUDA_VISIBLE_DEVICES"] = visible
    found = measure(environ, machine.proc)
    assert found.gpus == (Gpu("NVIDIA A10G", 23028 << 20),) * count
    assert found.device == ("cuda" if count else "cpu")


def test_a_torch_without_cuda_leaves_the_gpu_alone_and_says_so(machine, driver, monkeypatch):
    """CHK-17: the device is one that the algorithm can use."""
    monkeypatch.setattr(hardware, "_torch_build", lambda: "cpu")
    found = measure({"PATH": driver(TWO)}, machine.proc)
    assert (found.device, len(found.gpus)) == ("cpu", 2)
    assert "torch is a build without CUDA" in found.describe()


@pytest.mark.parametrize(("text", "build"), [
    ("cuda: Optional[str] = None\n", "cpu"), ("cuda = '12.1'\n", "cuda"), ("", None),
])
def test_torch_s_build_is_read_without_importing_it(tmp_path, monkeypatch, text, build):
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')\n")
    (package / "version.py").write_text(f"__version__ = '2'\n{text}")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert hardware._torch_build() == build


def test_a_driver_that_fails_leaves_the_device_files(machine, driver, tmp_path):
    environ = {"PATH": driver("", code=9)}
    assert hardware._query_nvidia_smi(environ) is None
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / name).write_text("")
    assert [gpu.name for gpu in hardware._gpus(environ, dev=tmp_path)] == ["nvidia0", "nvidia1"]


def test_the_plan_is_one_line(machine, eight, driver, monkeypatch):
    monkeypatch.setattr(hardware, "_torch_build", lambda: "cuda")
    machine.unified()
    machine.write("fs/cpu.max", "250000 100000\n")
    machine.write("fs/memory.max", "4000000\n")
    text = measure({"PATH": driver(TWO)}, machine.proc).describe()
    assert text.startswith("2.5 CPUs (cgroup quota, 8 by affinity), 4 MB memory (cgroup limit")
    assert text.endswith(
        "2 GPUs (NVIDIA A10G 24.1 GB, NVIDIA A10G 24.1 GB) → device cuda (NVIDIA A10G), 2 threads"
    )


@pytest.mark.parametrize(("count", "text"), [
    (0, "0 B"), (999, "999 B"), (41_000_000, "41 MB"), (7_600_000_000, "7.6 GB"),
    (2e12, "2 TB"),
])
def test_sizes_are_for_humans(count, text):
    assert size(count) == text


def test_this_machine_can_be_measured():
    found = measure()
    assert found.cpus > 0 and found.memory_bytes > 0 and found.threads >= 1


@pytest.mark.parametrize(("build", "variables", "said"), [
    ("cuda", {}, "the container was given none"),
    ("cuda", {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES='' hides them"),
    ("cpu", {}, None),
    (None, {}, None),
])
def test_a_torch_for_cuda_without_a_device_is_told_in_one_line(
    machine, monkeypatch, build, variables, said
):
    """CHK-17"""
    monkeypatch.setattr(hardware, "_torch_build", lambda: build)
    monkeypatch.setattr(hardware, "_gpus", lambda environ: ())
    found = measure({"PATH": "", **variables}, machine.proc)
    assert (found.device, len(found.gpus)) == ("cpu", 0)
    if said is None:
        assert found.notice == ""
    else:
        assert found.notice.startswith("no GPU: ") and said in found.notice
        assert "\n" not in found.notice


def test_a_torch_for_cuda_with_a_device_needs_no_word(machine, driver, monkeypatch):
    monkeypatch.setattr(hardware, "_torch_build", lambda: "cuda")
    assert measure({"PATH": driver(TWO)}, machine.proc).notice == ""
