"""Finding programs: what an ENTRYPOINT, a shebang and a binary's header name."""

from __future__ import annotations

import platform
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from byoa.local.check.image_programs import Elf, elf, interpreter, script_of
from byoa.local.check.proc import descendants, listening


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


@pytest.mark.skipif(sys.byteorder != "little", reason="the kernel writes words in host order")
def test_the_kernels_table_of_sockets_gives_addresses_and_ports() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid inode\n"
        "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 41 1\n"
        "   1: 00000000:2328 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 42 1\n"
        "   2: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000 0 0 43 1\n"
    )
    six = table.splitlines()[0] + (
        "\n   0: 00000000000000000000000000000000:1F91 "
        "00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 44 1\n"
    )
    assert listening([table, six]) == [("0.0.0.0", 9000), ("127.0.0.1", 8080), ("::", 8081)]
    assert listening([table], {"41"}) == [("127.0.0.1", 8080)]


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
