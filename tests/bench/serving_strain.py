"""The inference server under strain: more load than it can bear, signals, a million requests.

    python tests/bench/serving_strain.py                          everything
    python tests/bench/serving_strain.py --parts start overload   some of it
    python tests/bench/serving_strain.py --parts memory --requests 1000000

    start      from the start to the first 200 of /ping and to the first right answer, without and
               with torch; beside `python -c "import numpy"` and `import torch`
    ping       /ping, asked 50 times a second at 98 % of the best closed-loop rate
    overload   the same at 1.5 times that rate, offered whether or not the server keeps up
    sigterm    what becomes of the requests of 32 connections when the server is told to end
    sigkill    the same when one of two workers is killed
    cores      two workers on two CPUs against one on one; the load shares them, so by a second of
               the server's CPU as well
    memory     the server's memory over so many requests

The server and the models are those of serving.py.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import serving

PARTS = ("start", "ping", "overload", "sigterm", "sigkill", "cores", "memory")
PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
PING_SECONDS = 0.02
CONNECTIONS = 128
DOOR = "express"
MOST_CONNECTIONS = 1500  # of an open loop


class Exchange:
    """One connection with one request on its way; tells a status, or that it was lost."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.due = 0.0
        self.busy = False

    def send(self, request: bytes, due: float) -> bool:
        self.due, self.busy, self.buffer = due, True, b""
        try:
            self.socket.sendall(request)
        except OSError:
            return False
        return True

    def read(self) -> int | None:
        """A whole answer's status, None while there is more to come, 0 where it ended without."""
        try:
            data = self.socket.recv(1 << 18)
        except OSError:
            return 0
        if not data:
            return 0
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        lower = head.lower()
        start = lower.index(b"content-length:") + 15
        if len(body) < int(lower[start:].split(b"\r\n", 1)[0]):
            return None
        self.busy = False
        return int(head[9:12])


def closed_loop(port: int, request: bytes, connections: int, seconds: float, at=None):
    """What became of each request, and how long each answer took; `at` is called once, after a
    third of the time. A connection that ends is opened again, while somebody listens."""
    poll, peers = select.epoll(), {}
    told: Counter[str] = Counter()
    latencies: list[tuple[float, float]] = []  # when it was answered, and after how long

    def connect() -> None:
        try:
            peer = Exchange(port)
        except OSError:
            told["not connected"] += 1
            return
        peers[peer.socket.fileno()] = peer
        poll.register(peer.socket, select.EPOLLIN)
        begin(peer)

    def end(peer: Exchange) -> None:
        del peers[peer.socket.fileno()]
        poll.unregister(peer.socket)
        peer.socket.close()

    def begin(peer: Exchange) -> None:
        if not peer.send(request, time.perf_counter()):
            told["lost"] += 1
            end(peer)
            connect()

    started = time.perf_counter()
    for _ in range(connections):
        connect()
    while (now := time.perf_counter()) < started + seconds and peers:
        if at is not None and now > started + seconds / 3:
            at()
            at = None
        for descriptor, _ in poll.poll(0.05):
            peer = peers[descriptor]
            status = peer.read()
            if status is None:
                continue
            if status:
                now = time.perf_counter()
                latencies.append((now, now - peer.due))
                told[str(status)] += 1
                if b"connection: close" in peer.buffer[:400].lower():
                    end(peer)
                    connect()
                else:
                    begin(peer)
            else:
                told["lost" if peer.busy else "closed"] += 1
                end(peer)
                connect()
    told["hanging"] = sum(
        peer.busy and time.perf_counter() - peer.due > 2 for peer in peers.values()
    )
    for peer in list(peers.values()):
        end(peer)
    return told, latencies


def open_loop(port: int, request: bytes, rate: float, seconds: float):
    """Requests at a rate, whatever becomes of them: statuses, latencies by status (from when each
    was due), and latencies of /ping. The connections are there before."""
    poll = select.epoll()
    free = [Exchange(port) for _ in range(MOST_CONNECTIONS)]
    peers = {peer.socket.fileno(): peer for peer in free}
    for descriptor in peers:
        poll.register(descriptor, select.EPOLLIN)
    told: Counter[str] = Counter()
    latencies: dict[str, list[float]] = {}
    pings, asker = asked(port, seconds)
    started, sent = time.perf_counter(), 0
    while (now := time.perf_counter()) < started + seconds:
        while sent < (now - started) * rate:
            due = started + sent / rate
            sent += 1
            if free:
                free.pop().send(request, due)
            else:
                told["not sent"] += 1
        for descriptor, _ in poll.poll(0.001):
            peer = peers[descriptor]
            status = peer.read()
            if status is None:
                continue
            if status:
                told[str(status)] += 1
                latencies.setdefault(str(status), []).append(time.perf_counter() - peer.due)
                free.append(peer)
            else:
                told["lost"] += 1
                poll.unregister(peer.socket)
                del peers[descriptor]
                peer.socket.close()
    for peer in peers.values():
        peer.socket.close()
    times = pings.recv()
    asker.join()
    return told, latencies, times


def asked(port: int, seconds: float):
    """A process that asks for /ping on a connection of its own, since the load has its hands full,
    and the end of a pipe from which what each took can be received."""
    ours, theirs = multiprocessing.Pipe(duplex=False)

    def ask() -> None:
        ping, until, times = Exchange(port), time.perf_counter() + seconds, []
        while (begun := time.perf_counter()) < until:
            status = None
            if ping.send(PING, begun):
                while (status := ping.read()) is None:
                    pass  # its socket waits
            if status != 200:
                break  # it shows in their number
            times.append(time.perf_counter() - begun)
            time.sleep(max(0.0, begun + PING_SECONDS - time.perf_counter()))
        theirs.send(times)

    asker = multiprocessing.get_context("fork").Process(target=ask, daemon=True)
    asker.start()
    theirs.close()  # the asker's alone: if it ends, nobody waits for it
    return ours, asker


def quantile(values, part: float) -> float:
    """In milliseconds."""
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * part))] * 1e3 if values else float("nan")


def running(base: Path, workers: int = 1, cpus=(serving.SERVER_CPU,), **variables: str):
    """The server with so many workers on these CPUs."""
    argv, known = serving.SERVERS[DOOR]
    serving.SERVERS["strained"] = (argv, {**known, "BYOA_WORKERS": str(workers), **variables})
    return serving.running("strained", base, cpus)


def megabytes(pid: int, *kinds: str) -> float:
    """Of the server's processes together, as the kernel counts them by kind."""
    total = 0
    for each in serving.tree(pid):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            if line.startswith(kinds):
                total += int(line.split()[1])
    return total / 1024


# --- the parts ------------------------------------------------------------------------------------


def start(base: Path, options) -> None:
    for workload, library in (("tiny-json", "numpy"), ("mlp-json", "torch")):
        request = serving.request_of(workload)
        pings, answers, imports, memory = [], [], [], []
        for _ in range(options.rounds):
            begun = time.perf_counter()
            with running(base) as (port, pid, seconds):
                serving.one_answer(port, request)
                answers.append(time.perf_counter() - begun)
                pings.append(seconds)
                serving.load(port, request, 8, 0.5)
                memory.append(megabytes(pid, "Pss:"))
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {library}"], check=True)
            imports.append(time.perf_counter() - begun)
        print(
            f"start, {workload}: /ping {statistics.median(pings):.2f} s,"
            f" first answer {statistics.median(answers):.2f} s;"
            f" python -c 'import {library}' {statistics.median(imports):.2f} s;"
            f" memory {statistics.median(memory):.0f} MB PSS"
        )


def ping(base: Path, options) -> None:
    offered(base, options, "ping", 0.98)  # nearly all that it can do


def overload(base: Path, options) -> None:
    offered(base, options, "overload", 1.5)


def offered(base: Path, options, part: str, of_peak: float) -> None:
    """What becomes of so much of the best rate, and of /ping meanwhile."""
    for workload in ("tiny-json", "mlp-json", "csv-1000"):
        request = serving.request_of(workload)
        seconds = options.seconds * 2
        with running(base) as (port, pid, _):
            serving.one_answer(port, request)  # it may have something to import
            peak = best_rate(port, request)
            before = serving.cpu_seconds(pid)
            told, latencies, pings = open_loop(port, request, of_peak * peak, seconds)
            busy = (serving.cpu_seconds(pid) - before) / seconds
        answered = told["200"] / seconds
        print(
            f"{part}, {workload}: peak {peak:,.0f}/s, offered {of_peak * peak:,.0f}/s, answered"
            f" {answered:,.0f}/s = {answered / peak:.0%} of the peak, the server's CPU {busy:.0%}"
            f" busy; {dict(told)};"
            f" 200: p50 {quantile(latencies.get('200', ()), 0.5):.0f} ms"
            f" p99 {quantile(latencies.get('200', ()), 0.99):.0f} ms;"
            f" 503: p50 {quantile(latencies.get('503', ()), 0.5):.0f} ms"
            f" p99 {quantile(latencies.get('503', ()), 0.99):.0f} ms;"
            f" /ping p50 {quantile(pings, 0.5):.0f} ms p99 {quantile(pings, 0.99):.0f} ms"
            f" of {len(pings)}"
        )


def best_rate(port: int, request: bytes) -> float:
    serving.load(port, request, 8, 0.5)
    return max(serving.load(port, request, each, 1.5)[0] / 1.5 for each in (8, 32, CONNECTIONS))


def sigterm(base: Path, options) -> None:
    for workload in ("tiny-json", "mlp-json", "csv-1000"):
        total: Counter[str] = Counter()
        for _ in range(options.rounds):
            request = serving.request_of(workload)
            with running(base) as (port, pid, _):
                serving.one_answer(port, request)  # it may have something to import
                told, _ = closed_loop(
                    port, request, 32, options.seconds * 1.5,
                    lambda pid=pid: os.kill(pid, signal.SIGTERM),
                )
                total += told
        print(f"sigterm, {workload}, {options.rounds} times: {dict(total)}")


def sigkill(base: Path, options) -> None:
    for workload in ("tiny-json", "csv-1000"):
        total: Counter[str] = Counter()
        gaps = []
        for _ in range(options.rounds):
            with running(base, workers=2) as (port, pid, _):
                victim = serving.tree(pid)[1]
                told, latencies = closed_loop(
                    port, serving.request_of(workload), 32, options.seconds * 3,
                    lambda victim=victim: os.kill(victim, signal.SIGKILL),
                )
                total += told
                times = [when for when, _ in latencies]
                gaps.append(max(b - a for a, b in zip(times, times[1:], strict=False)))
                gone = victim not in serving.tree(pid) and len(serving.tree(pid)) == 3
        print(
            f"sigkill, {workload}, {options.rounds} times, 32 connections: {dict(total)}; longest"
            f" time without any answer {max(gaps) * 1e3:.0f} ms; replaced: {gone}"
        )


def cores(base: Path, options) -> None:
    """Rates, and rates by the server's own CPU: the second of two CPUs is the load's as well."""
    os.sched_setaffinity(0, {serving.SERVER_CPU, serving.CLIENT_CPU})
    try:
        for workload in ("tiny-json", "mlp-json", "csv-1000"):
            request = serving.request_of(workload)
            rates: dict[int, list[float]] = {1: [], 2: []}
            by_cpu: dict[int, list[float]] = {1: [], 2: []}
            for _ in range(options.rounds):
                for workers in rates:
                    cpus = (serving.SERVER_CPU, serving.CLIENT_CPU)[:workers]
                    with running(base, workers=workers, cpus=cpus) as (port, pid, _):
                        serving.load(port, request, CONNECTIONS, 1.0)
                        before = serving.cpu_seconds(pid)
                        done = serving.load(port, request, CONNECTIONS, options.seconds)[0]
                        used = serving.cpu_seconds(pid) - before
                    rates[workers].append(done / options.seconds)
                    by_cpu[workers].append(done / used)
            one, two = (statistics.median(rates[each]) for each in (1, 2))
            alone, beside = (statistics.median(by_cpu[each]) for each in (1, 2))
            print(
                f"cores, {workload}, {CONNECTIONS} connections: one worker {one:,.0f}/s, two"
                f" {two:,.0f}/s = {two / one:.2f} times; by a second of the server's CPU"
                f" {alone:,.0f} and {beside:,.0f}, so two CPUs = {2 * beside / alone:.2f} times one"
            )
    finally:
        os.sched_setaffinity(0, {serving.CLIENT_CPU})


def memory(base: Path, options) -> None:
    request = serving.request_of("tiny-json")
    seen = []
    with running(base) as (port, pid, _):
        done = 0
        while done < options.requests:
            done += serving.load(port, request, 32, 2.0)[0]
            # What others share with them changes as others come and go.
            seen.append(megabytes(pid, "Private_Dirty:", "Private_Clean:"))
    first = seen[max(1, len(seen) // 10)]
    print(
        f"memory over {done:,} requests, MB of their own: {seen[0]:.1f} at first,"
        f" {first:.1f} after a tenth, {min(seen):.1f} to {max(seen):.1f}, {seen[-1]:.1f} at the end"
        f" ({seen[-1] / first - 1:+.1%} since the tenth)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--door", choices=("express", "express-gunicorn", "flask"),
                        default="express")
    parser.add_argument("--requests", type=int, default=1_000_000, help="of the part memory")
    options = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("two CPUs are needed: one for the server, one for the load")
    os.sched_setaffinity(0, {serving.CLIENT_CPU})
    global DOOR
    DOOR = options.door
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        serving.write_model(base / "model")
        for part in options.parts:
            globals()[part](base, options)


if __name__ == "__main__":
    main()
