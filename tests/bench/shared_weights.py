"""Memory of a server's processes with a model of 400 MB, and seconds until it answers.

    python tests/bench/shared_weights.py [--megabytes 400] [--workers 1 2 4]

Memory is the sum of PSS over master and workers: a page that k processes share counts 1/k in each.
Every worker has predicted once, so that all weights have been read. The ways to load:

    copy      the file is read into the worker's own memory
    mapped    the file is mapped: np.load(…, mmap_mode="r"), or safetensors' tensors as they are
    preload   copy, with BYOA_PRELOAD=1: once in the master, before the fork
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

SECONDS = 120.0
NUMPY = '''
import numpy as np
from byoa.algorithms import Algorithm

class Product(Algorithm):
    def train(self, run): raise AssertionError
    def load(self, model_dir, device): return np.load(model_dir / "weights.npy"{mapped})
    def predict(self, model, records): return (records @ model).sum(axis=1)
'''
TORCH = '''
import torch
from safetensors.torch import load_file
from byoa.algorithms import Algorithm

class Product(Algorithm):
    def train(self, run): raise AssertionError
    def load(self, model_dir, device):
        tensors = load_file(model_dir / "weights.safetensors")
        with torch.device("{place}"):
            layer = torch.nn.Linear(*tensors["weight"].shape, bias=False)
        layer.load_state_dict(tensors, assign={assign})
        return layer.eval()
    def predict(self, model, records):
        with torch.inference_mode():
            return model(torch.from_numpy(records)).sum(dim=1).numpy()
'''
WAYS = {
    "numpy copy": (NUMPY.format(mapped=""), {}),
    "numpy mapped": (NUMPY.format(mapped=', mmap_mode="r"'), {}),
    "numpy preload": (NUMPY.format(mapped=""), {"BYOA_PRELOAD": "1"}),
    "torch copy": (TORCH.format(place="cpu", assign=False), {}),
    "torch mapped": (TORCH.format(place="meta", assign=True), {}),
    "torch preload": (TORCH.format(place="cpu", assign=False), {"BYOA_PRELOAD": "1"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--only", nargs="+", default=list(WAYS))
    given = parser.parse_args()
    side = int((given.megabytes * 1e6 / 4) ** 0.5)
    print(f"weights {side}×{side} float32, {side * side * 4 / 1e6:.0f} MB; sum of PSS in MB")
    print(f"{'':14}" + "".join(f"{count:>4} worker{'s' if count > 1 else ' '}" + " " * 8
                              for count in given.workers))
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        write_weights(base / "model", side)
        for name in given.only:
            code, variables = WAYS[name]
            (base / "product.py").write_text(code)
            cells = [serve(base, count, variables) for count in given.workers]
            row = "".join(f"{pss:8.0f} ({seconds:4.1f} s)" for pss, seconds in cells)
            print(f"{name:14}{row}", flush=True)


def write_weights(directory: Path, side: int) -> None:
    import numpy as np
    import torch
    from safetensors.torch import save_file

    directory.mkdir()
    weights = np.random.default_rng(0).standard_normal((side, side), dtype=np.float32)
    np.save(directory / "weights.npy", weights)
    save_file({"weight": torch.from_numpy(weights)}, directory / "weights.safetensors")
    os.sync()  # until then pages of the files count as dirty
    (directory / "byoa.json").write_text(json.dumps({
        "byoa": 1, "algorithm": "product:Product", "hyperparameters": {},
        "input": {"features": side, "sample": [[1.0] * side]},
    }))


def serve(base: Path, workers: int, variables: dict[str, str]) -> tuple[float, float]:
    """Megabytes of all processes, and seconds until every worker has the model."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ, "SAGEMAKER_BASE_DIR": str(base), "SAGEMAKER_BIND_TO_PORT": str(port),
        "BYOA_WORKERS": str(workers), "PYTHONPATH": str(base), **variables,
    }
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "byoa.serve"], env=environment, stdout=subprocess.DEVNULL
    )
    try:
        while not ready(port):
            if process.poll() is not None or time.perf_counter() - started > SECONDS:
                raise SystemExit(f"the server did not start within {SECONDS:g} s")
            time.sleep(0.01)
        seconds = time.perf_counter() - started
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return sum(pss(int(pid)) for pid in (process.pid, *children)) / 1e6, seconds
    finally:
        process.terminate()
        process.wait(60)


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    main()
