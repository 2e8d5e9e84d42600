"""How soon a large FastFile channel is there, beside a copy of the same files.

    python tests/bench/fastfile.py [--size-gib 2] [--files 100] [--real]

Starts a server of its own and trains a program that does nothing, once in FastFile and once in File
mode; prints the seconds that each job spent in Downloading, and those of a plain `cp`. The files
take no place on the disk, which flatters the copies, unless --real.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pipe import Server

MIB = 1 << 20
GOAL_SECONDS = 1.0


def downloading(described: dict[str, Any]) -> float:
    """Seconds from Downloading to the status after it."""
    (entry,) = [
        each for each in described["SecondaryStatusTransitions"] if each["Status"] == "Downloading"
    ]
    return float((entry["EndTime"] - entry["StartTime"]).total_seconds())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-gib", type=float, default=2.0, help="of all files")
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--real", action="store_true", help="files of random bytes")
    options = parser.parse_args()
    length = int(options.size_gib * 1024 * MIB) // options.files
    with tempfile.TemporaryDirectory(prefix="byoa-bench-") as directory:
        home = Path(directory, "home")
        with Server(home) as server:
            folder = home / "s3/bench/data"
            folder.mkdir()
            for number in range(options.files):
                with (folder / f"part-{number:03}").open("wb") as file:
                    for _ in range(length // MIB if options.real else 0):
                        file.write(os.urandom(MIB))
                    file.truncate(length)
            began = time.monotonic()
            server.client("s3").list_objects_v2(Bucket="bench")  # it learns of the files
            print(f"{options.files} files of {length / MIB:.1f} MiB"
                  f" ({'random bytes' if options.real else 'sparse'}), found by the server in"
                  f" {time.monotonic() - began:.1f} s")
            seconds = {
                mode: downloading(server.job(mode.lower(), ["true"], mode))
                for mode in ("FastFile", "File")
            }
            began = time.monotonic()
            subprocess.run(
                ["cp", "--recursive", "--sparse=never", "--reflink=never", str(folder),
                 str(Path(directory, "copy"))],
                check=True, timeout=3600,
            )
            seconds["cp"] = time.monotonic() - began
    for name, taken in seconds.items():
        print(f"{name:9s} {taken:8.3f} s   {taken / seconds['FastFile']:7.1f} times FastFile's")
    met = seconds["FastFile"] < GOAL_SECONDS
    print(f"goal: FastFile in less than {GOAL_SECONDS} s: {'met' if met else 'missed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
