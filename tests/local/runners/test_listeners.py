"""Where servers listen, read from the kernel's tables."""

from __future__ import annotations

import sys

import pytest

from byoa.local.runners.listeners import described, listening


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


def test_listeners_are_told_as_addresses_by_port() -> None:
    assert described([("::1", 9000), ("127.0.0.1", 8080)]) == "127.0.0.1:8080 and [::1]:9000"
    assert described([]) == "no port"
