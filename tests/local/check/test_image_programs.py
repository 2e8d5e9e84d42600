"""Finding programs: what an ENTRYPOINT, a shebang and a binary's header name."""

from __future__ import annotations

import platform
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from byoa.local.check.image_programs import Elf, elf, interpreter, script_of
from byoa.local.check.proc import descendants


@pytest.mark.parametrize(
    ("argv", "script"),
    [
        (("python", "main.py"), "main.py"),
        (("/usr/bin/python3.11", "-u", "-W", "ignore", "-X", "dev", "main.py"), "main.py"),
        (("python", "-m", "byoa.container"), None),
        (("python", "-c", "pass"), None),
        (("python",), None),
        (("bash", "-e", "-o", "pipefail", "start.sh", "more"), "start.sh"),
        (("bash", "-c", "start.sh"), None),
        (("/opt/program/train", "main.py"), None),
    ],
)
def test_the_script_of_an_interpreter_is_its_first_argument_that_is_no_option(
    argv: tuple[str, ...], script: str | None
) -> None:
    assert script_of(argv) == script


def test_env_stands_for_the_program_that_it_looks_for() -> None:
    assert interpreter(["/usr/bin/env", "-S", "LANG=C", "python3", "-u"]) == "python3"
    assert interpreter(["/bin/sh", "-e"]) == "/bin/sh"


@pytest.mark.skipif(sys.platform != "linux", reason="its binaries are no ELF files")
def test_a_real_binary_says_its_processor_and_its_loader() -> None:
    head = Path("/proc/self/exe").resolve().read_bytes()[:65536]
    found = elf(head)
    assert found is not None
    assert found.architecture == {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    assert found.loader is not None and Path(found.loader).exists()


def test_a_32_bit_binary_of_the_other_byte_order_is_read_and_a_script_is_none() -> None:
    name = b"/lib/ld.so.1\0"
    header = struct.pack(">4sBBBB8xHHIIIIIHHHHHH", b"\x7fELF", 1, 2, 1, 0, 2, 40, 1, 0, 52, 0, 0,
                         52, 32, 1, 0, 0, 0)
    segment = struct.pack(">8I", 3, 84, 0, 0, len(name), len(name), 4, 1)
    assert elf(header + segment + name) == Elf("arm", "/lib/ld.so.1")
    assert elf(b"#!/bin/sh\n") is None


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_the_processes_below_one_are_found_with_their_arguments() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "import subprocess, sys; subprocess.run([sys.executable, '-c',"
         " 'print(\"up\", flush=True); input()'])"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None and child.stdout.readline() == b"up\n"
        found = descendants(child.pid)
    finally:
        child.communicate(b"\n", timeout=20)
    assert [each.ppid for each in found[1:]] == [child.pid]
    assert found[0].pid == child.pid
    assert found[1].argv[1] == "-c"
    assert descendants(child.pid) == []
