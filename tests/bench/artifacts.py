"""model.tar.gz of a large model: byoa's packing beside `tar czf` and Python's tarfile, in one run.

    python tests/bench/artifacts.py [--mib 256] [--rounds 1]

What users wait for at the end of a job. Three models: float32 and bfloat16 weights (random, as
trained ones nearly are), and text, which compresses well. Prints seconds, the archive's size, and
how many times as long the peers take.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from byoa.local.storage.packing import pack

PART_MIB = 64


def weights(path: Path, mib: int, kind: str) -> None:
    """A file of so many MiB."""
    random = np.random.default_rng(0)
    with path.open("wb") as file:
        for _ in range(max(1, mib // PART_MIB)):
            if kind == "text":
                rows = random.normal(size=PART_MIB << 16)
                text = "\n".join(f"{value:.6f},{value > 0:d}" for value in rows).encode()
                file.write((text * 2)[: PART_MIB << 20])
                continue
            count = (PART_MIB << 20) // (4 if kind == "float32" else 2)
            values = random.normal(0, 0.02, count).astype(np.float32)
            if kind == "bfloat16":
                values = (values.view(np.uint32) >> 16).astype(np.uint16)
            file.write(values.tobytes())


def by_byoa(model: Path, target: Path) -> None:
    pack({"algo-1": model}, target)


def by_tar(model: Path, target: Path) -> None:
    subprocess.run(["tar", "czf", str(target), "-C", str(model), "."], check=True)


def by_tarfile(model: Path, target: Path) -> None:
    with tarfile.open(target, "w:gz") as archive:
        archive.add(model, ".")


PEERS: tuple[tuple[str, Callable[[Path, Path], None]], ...] = (
    ("byoa", by_byoa), ("tar czf", by_tar), ("tarfile", by_tarfile),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256, help="size of each model (256)")
    parser.add_argument("--rounds", type=int, default=1, help="the best of so many counts (1)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="byoa-artifacts-") as folder:
        base = Path(folder)
        print(f"{'':<10} {'':<8} {'seconds':>8} {'MB/s':>6} {'of size':>8} {'times byoa':>11}")
        for kind in ("float32", "bfloat16", "text"):
            model = base / kind
            model.mkdir()
            weights(model / "weights", arguments.mib, kind)
            size = (model / "weights").stat().st_size
            taken = {name: float("inf") for name, _ in PEERS}
            shares = dict.fromkeys(taken, 0.0)
            for _ in range(arguments.rounds):
                for name, packs in PEERS:  # one after the other: others' load meets all alike
                    target = base / "model.tar.gz"
                    began = time.perf_counter()
                    packs(model, target)
                    taken[name] = min(taken[name], time.perf_counter() - began)
                    shares[name] = target.stat().st_size / size
                    target.unlink()
            for name, seconds in taken.items():
                print(f"{kind:<10} {name:<8} {seconds:>8.1f} {size / seconds / 1e6:>6.0f}"
                      f" {shares[name]:>8.3f} {seconds / taken['byoa']:>11.1f}")
            shutil.rmtree(model)


if __name__ == "__main__":
    main()
