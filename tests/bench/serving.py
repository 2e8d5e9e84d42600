"""Requests a second and CPU a request of byoa's two doors beside what one would write by hand.

    python tests/bench/serving.py                     every server, every workload
    python tests/bench/serving.py --rounds 3 --seconds 1 --only express flask-bare
    python tests/bench/serving.py --profile           where a request's time goes in byoa

The same two models everywhere: 64 features in numpy, and an MLP 784-512-512-10 in torch, whose
requests are worth joining. The server has CPU 0, the load generator CPU 1: one
worker, closed loop over kept-alive connections, rounds interleaved, medians. The peers:

    flask-bare   one Flask view under gunicorn gthread, 4 threads, hand-written codec
    asgi-bare    a bare ASGI function on uvicorn with the same codec and no checks: the floor
    fastapi      an endpoint of FastAPI on uvicorn with the same codec, where FastAPI is installed
    litserve     LitServe with the same codec, where it is installed (`pip install litserve`)
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import io
import json
import os
import platform
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FEATURES, CLASSES = 64, 10
MLP = (784, 512, 512, 10)
HERE = Path(__file__).resolve().parent
SERVER_CPU, CLIENT_CPU = 0, 1
BASELINE = "flask-bare"
BYOA = [sys.executable, "-m", "byoa.serve"]
GUNICORN = [
    sys.executable, "-m", "gunicorn", "--chdir", str(HERE), "--no-control-socket",
    "--keep-alive", "75", "--log-level", "warning",
]
SERVERS: dict[str, tuple[list[str], dict[str, str]]] = {
    "express": (BYOA, {"BYOA_SERVER": "express", "BYOA_ASGI_WORKER": "uvicorn"}),
    "express-thread": (
        BYOA, {"BYOA_SERVER": "express", "BYOA_ASGI_WORKER": "uvicorn", "BYOA_INLINE": "0"}
    ),
    "express-alone": (
        BYOA, {"BYOA_SERVER": "express", "BYOA_ASGI_WORKER": "uvicorn", "BYOA_MAX_BATCH": "1"}
    ),
    "express-gunicorn": (BYOA, {"BYOA_SERVER": "express", "BYOA_ASGI_WORKER": "gunicorn"}),
    "flask": (BYOA, {"BYOA_SERVER": "flask"}),
    "flask-bare": (
        [*GUNICORN, "-k", "gthread", "--threads", "4", "-b", "127.0.0.1:{port}",
         "serving:flask_app()"], {},
    ),
    "asgi-bare": (
        [sys.executable, "-m", "uvicorn", "--app-dir", str(HERE), "--port", "{port}",
         "--no-access-log", "--log-level", "warning", "--lifespan", "off", "serving:asgi_app"], {},
    ),
    "fastapi": (
        [sys.executable, "-m", "uvicorn", "--app-dir", str(HERE), "--port", "{port}", "--factory",
         "--no-access-log", "--log-level", "warning", "serving:fastapi_app"], {},
    ),
    "litserve": ([sys.executable, str(HERE / "peers" / "litserve_app.py"), "{port}"], {}),
}
NEEDS = {"fastapi": "fastapi", "litserve": "litserve"}


@dataclass(frozen=True)
class Workload:
    rows: int
    features: int
    connections: int


WORKLOADS = {
    "tiny-json": Workload(1, FEATURES, 8),
    "tiny-csv": Workload(1, FEATURES, 8),
    "csv-1000": Workload(1000, FEATURES, 8),
    "mlp-json": Workload(1, MLP[0], 32),
}


# --- the model, and what the peers do with it -----------------------------------------------------


@functools.cache
def weights():
    import numpy as np

    return np.random.default_rng(7).normal(size=(FEATURES, CLASSES)).astype(np.float32)


@functools.cache
def mlp():
    import torch

    torch.manual_seed(7)
    torch.set_num_threads(1)
    layers = []
    for inputs, outputs in zip(MLP, MLP[1:], strict=False):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1], torch.nn.Softmax(dim=1)).eval()


def predict(records):
    import numpy as np

    if records.shape[1] == MLP[0]:
        import torch

        torch.set_num_threads(1)  # of this thread, whichever it is
        with torch.inference_mode():
            return mlp()(torch.from_numpy(records)).numpy()
    logits = records @ weights()
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def by_hand(content_type: str, body: bytes) -> bytes:
    """Decode, predict, encode: the few lines that a careful author writes."""
    import numpy as np

    if content_type == "text/csv":
        records = np.loadtxt(io.BytesIO(body), delimiter=",", dtype=np.float32, ndmin=2)
    else:
        records = np.asarray(json.loads(body)["instances"], dtype=np.float32)
    return json.dumps({"predictions": predict(records).tolist()}).encode()


def flask_app():
    from flask import Flask, Response, request

    app = Flask("bench", root_path=str(HERE), instance_path=str(HERE))

    @app.post("/invocations")
    def invocations():
        body = by_hand(request.content_type, request.get_data())
        return Response(body, content_type="application/json")

    @app.get("/ping")
    def ping():
        return ""

    return app


async def asgi_app(scope, receive, send):
    body = b""
    if scope["path"] == "/invocations":
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        body = by_hand(dict(scope["headers"])[b"content-type"].decode(), body)
    await send({
        "type": "http.response.start", "status": 200,
        "headers": [
            (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)),
        ],
    })
    await send({"type": "http.response.body", "body": body})


def fastapi_app():
    from fastapi import FastAPI, Request, Response

    app = FastAPI()

    async def invocations(request):
        body = by_hand(request.headers["content-type"], await request.body())
        return Response(body, media_type="application/json")

    invocations.__annotations__["request"] = Request  # the name is not the module's
    app.post("/invocations")(invocations)

    @app.get("/ping")
    async def ping():
        return Response(b"")

    return app


def write_model(directory: Path) -> None:
    """byoa's model directory for the same model."""
    directory.mkdir(parents=True)
    (directory / "byoa.json").write_text(json.dumps({
        "byoa": 1, "algorithm": "bench_model:Bench", "hyperparameters": {},
        "input": {"features": None, "sample": None},
    }))
    code = directory / "code"
    code.mkdir()
    (code / "bench_model.py").write_text(
        "from byoa.algorithms import Algorithm\n"
        "import serving\n"
        "class Bench(Algorithm):\n"
        "    def train(self, run): raise AssertionError\n"
        "    def load(self, model_dir, device): return serving.weights()\n"
        "    def predict(self, model, records): return serving.predict(records)\n"
    )


def request_of(workload: str) -> bytes:
    import numpy as np

    size = (WORKLOADS[workload].rows, WORKLOADS[workload].features)
    rows = np.random.default_rng(3).integers(0, 17, size=size)
    if workload.endswith("json"):
        kind, body = "application/json", json.dumps({"instances": rows.tolist()})
    else:
        kind, body = "text/csv", "\n".join(",".join(map(str, row)) for row in rows.tolist())
    return (
        f"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
        f"Accept: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


# --- the load -------------------------------------------------------------------------------------


class Connection:
    """One kept-alive connection of the closed loop."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.due = 0.0

    def take(self) -> bytes | None:
        """The body of the answer when it is whole."""
        self.buffer += self.socket.recv(1 << 20)
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"an answer is not 200: {self.buffer[:300]!r}")
        start = head.lower().index(b"content-length:") + 15
        length = int(head[start:].split(b"\r\n", 1)[0])
        if len(body) < length:
            return None
        self.buffer = b""
        return body


def load(port: int, request: bytes, connections: int, seconds: float) -> tuple[int, list[float]]:
    """Answers in `seconds`, and the latency of each."""
    poll = select.epoll()
    peers: dict[int, Connection] = {}
    for _ in range(connections):
        peer = Connection(port)
        peers[peer.socket.fileno()] = peer
        poll.register(peer.socket, select.EPOLLIN)
        peer.due = time.perf_counter()
        peer.socket.sendall(request)
    latencies: list[float] = []
    end = time.perf_counter() + seconds
    clock = time.perf_counter
    while (now := clock()) < end:
        for descriptor, _ in poll.poll(end - now):
            peer = peers[descriptor]
            if peer.take() is not None:
                now = clock()
                latencies.append(now - peer.due)
                peer.due = now
                peer.socket.sendall(request)
    for peer in peers.values():
        peer.socket.close()
    poll.close()
    return len(latencies), latencies


def one_answer(port: int, request: bytes) -> list:
    """The predictions, to compare the servers."""
    peer = Connection(port)
    try:
        peer.socket.sendall(request)
        while (body := peer.take()) is None:
            pass
    finally:
        peer.socket.close()
    return json.loads(body)["predictions"]


def tree(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in tree(int(child)))]


def cpu_seconds(pid: int) -> float:
    """User and system time of the server's processes."""
    ticks = 0
    for each in tree(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(
    name: str, base: Path, cpus: Sequence[int] = (SERVER_CPU,)
) -> Iterator[tuple[int, int, float]]:
    """The server's port, pid, and seconds from its start to its first 200 of /ping."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv, variables = SERVERS[name]
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE), "BYOA_WORKERS": "1",
        "SAGEMAKER_BASE_DIR": str(base), "SAGEMAKER_BIND_TO_PORT": str(port), **variables,
    }
    started = time.perf_counter()
    process = subprocess.Popen(
        [word.format(port=port) for word in argv], env=environment, stdout=subprocess.DEVNULL,
        start_new_session=True, preexec_fn=lambda: os.sched_setaffinity(0, cpus),
    )
    try:
        while not ping(port):
            if process.poll() is not None or time.perf_counter() - started > 30:
                raise SystemExit(f"{name} does not start")
            time.sleep(0.005)
        yield port, process.pid, time.perf_counter() - started
    finally:
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ping(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


# --- rounds and report ----------------------------------------------------------------------------


@dataclass
class Sample:
    rate: float
    cpu: float  # µs a request
    p50: float  # ms
    p99: float


def measure(port: int, pid: int, request: bytes, connections: int, seconds: float) -> Sample:
    load(port, request, connections, min(1.0, seconds))
    before = cpu_seconds(pid)
    count, latencies = load(port, request, connections, seconds)
    used = cpu_seconds(pid) - before
    latencies.sort()
    return Sample(
        count / seconds, used / count * 1e6, latencies[len(latencies) // 2] * 1e3,
        latencies[int(len(latencies) * 0.99)] * 1e3,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", nargs="+", choices=SERVERS, default=list(SERVERS))
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    for name in [each for each in options.only if each in NEEDS]:
        if importlib.util.find_spec(NEEDS[name]) is None:
            print(f"{name} is left out: {NEEDS[name]} is not installed")
            options.only.remove(name)
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("two CPUs are needed: one for the server, one for the load")
    os.sched_setaffinity(0, {CLIENT_CPU})

    requests = {workload: request_of(workload) for workload in options.workloads}
    if options.profile:
        profile(options, requests)
        return
    found: dict[tuple[str, str], list[Sample]] = {}
    starts: dict[str, list[float]] = {}
    answers: dict[str, list] = {}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        write_model(base / "model")
        for turn in range(options.rounds):
            for name in options.only if turn % 2 == 0 else reversed(options.only):
                with running(name, base) as (port, pid, seconds):
                    starts.setdefault(name, []).append(seconds)
                    for workload, request in requests.items():
                        same(answers, workload, one_answer(port, request), name)
                        sample = measure(
                            port, pid, request, WORKLOADS[workload].connections,
                            options.seconds,
                        )
                        found.setdefault((workload, name), []).append(sample)
    report(options, found, starts)


def profile(options, requests) -> None:
    """Where the time of a request goes in byoa's express lane, microseconds."""
    from serving_profile import LAYERS, layers

    columns = {}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        write_model(base / "model")
        for workload, request in requests.items():
            samples = []
            for _ in range(options.rounds):
                with running("express", base) as (port, pid, _):
                    one_answer(port, request)  # whatever the first one imports
                    samples.append(measure(
                        port, pid, request, WORKLOADS[workload].connections, options.seconds
                    ).cpu)
            columns[workload] = layers(base, request, min(samples))
    print("| µs of CPU a request | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    for layer in LAYERS:
        print(f"| {layer} | " + " | ".join(f"{each[layer]:,.1f}" for each in columns.values())
              + " |")
    totals = (sum(each.values()) for each in columns.values())
    print("| **all** | " + " | ".join(f"{total:,.1f}" for total in totals) + " |")


def same(answers: dict[str, list], workload: str, answer: list, name: str) -> None:
    import numpy as np

    expected = answers.setdefault(workload, answer)
    if not np.allclose(answer, expected, atol=1e-4):
        raise SystemExit(f"{name} answers {workload} differently")


def report(options, found, starts) -> None:
    print(f"{platform.machine()}, Python {platform.python_version()}, {versions()}")
    print(
        f"one core for the server, 8 connections (mlp: 32), {options.rounds} rounds of"
        f" {options.seconds:g} s, medians\n"
    )
    print("| workload | server | req/s | ratio | CPU µs/req | p50 ms | p99 ms |")
    print("|---|---|---|---|---|---|---|")
    for workload in options.workloads:
        base = found.get((workload, BASELINE))
        for name in options.only:
            samples = found[workload, name]
            rate = statistics.median(each.rate for each in samples)
            ratio = f"{rate / statistics.median(s.rate for s in base):.2f}" if base else "-"
            cells = [
                statistics.median(getattr(each, part) for each in samples)
                for part in ("cpu", "p50", "p99")
            ]
            print(
                f"| {workload} | {name} | {rate:,.0f} | {ratio} | {cells[0]:,.0f}"
                f" | {cells[1]:.2f} | {cells[2]:.2f} |"
            )
    print(f"\nratio: to {BASELINE}. From the start to the first 200 of /ping, ms (median, least):")
    for name, seconds in starts.items():
        print(f"  {name}: {statistics.median(seconds) * 1e3:.0f}, {min(seconds) * 1e3:.0f}")


def versions() -> str:
    known = []
    for name in ("numpy", "flask", "gunicorn", "uvicorn", "uvloop", "httptools"):
        try:
            known.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            known.append(f"no {name}")
    return ", ".join(known)


if __name__ == "__main__":
    main()
