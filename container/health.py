"""The image's health check, `python -m byoa.container.health`: 0 healthy, 1 not.

A server is asked for /ping on its port (HOST-20, PIPE-03); a job is healthy while it runs.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from byoa.container import contract

PROCESSES = Path("/proc")


def serves(commands: Iterable[list[str]]) -> bool:
    """Whether one of the processes is the server, or the entrypoint that becomes it."""
    return any(
        command[at : at + 2] == ["-m", "byoa.serve"]
        or command[at : at + 3] == ["-m", "byoa.container", "serve"]
        for command in commands
        for at in range(len(command))
    )


def commands(processes: Path = PROCESSES) -> list[list[str]]:
    """The arguments of every process that can be seen."""
    found = []
    for file in processes.glob("[0-9]*/cmdline"):
        try:
            text = file.read_bytes()
        except OSError:  # it has ended
            continue
        found.append(text.decode("utf-8", "replace").rstrip("\0").split("\0"))
    return found


def ping(port: int) -> str:
    """"" where the server answers 200, else what it did."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", port, timeout=contract.PING_TIMEOUT_SECONDS
    )
    try:
        connection.request("GET", contract.PING_PATH)
        answer = connection.getresponse()
        body = answer.read(500).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"/ping on port {port}: {type(error).__name__}: {error}"
    finally:
        connection.close()
    return "" if answer.status == 200 else f"/ping on port {port}: {answer.status} {body}"


def main(environ: Mapping[str, str] = os.environ) -> int:
    if not serves(commands()):
        return 0
    wrong = ping(int(environ.get(contract.PORT_VARIABLE) or contract.DEFAULT_PORT))
    if wrong:
        print(wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
