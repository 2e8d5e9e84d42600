"""What the local runtime adds to an invocation: the same request to the container and through it.

Run: python tests/bench/invoke.py [--calls N]. The container answers at once, in a process of its
own, as do the service and the client; calls alternate, so that a busy machine slows both alike.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import socket
import statistics
import threading
import time
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from byoa.local.api.http import HttpServer
from byoa.local.runtime.connection import Connection
from byoa.local.runtime.invocation_metrics import InvocationMetrics
from byoa.local.runtime.invocations import Invocations
from byoa.local.runtime.routing import Backend, Route, Router, VariantRoute
from byoa.local.settings import Caller, Settings

CALLER = Caller("123456789012", "us-west-2")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: 2\r\n\r\n1\n"


def container(ready: Pipe) -> None:
    """A server that reads a request with a Content-Length and answers at once."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    ready.send(listener.getsockname())

    def serve(peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = bytearray()
        size = None
        while data := peer.recv(1 << 20):
            buffer += data
            if size is None and (end := buffer.find(b"\r\n\r\n")) >= 0:
                length = buffer[:end].lower().partition(b"content-length:")[2].split(b"\r\n")[0]
                size = end + 4 + int(length)
            if size is not None and len(buffer) >= size:
                del buffer[:size]
                size = None
                peer.sendall(ANSWER)

    while True:
        peer, _ = listener.accept()
        threading.Thread(target=serve, args=(peer,), daemon=True).start()


class NoMetrics:
    """Takes the statistics; their writing is moto's time, not an invocation's."""

    def put_statistics(self, *_: object, **__: object) -> None:
        return


class NoEndpoints:
    def status(self, caller: Caller, name: str) -> str | None:
        return None


def service(ready: Pipe, address: tuple[str, int]) -> None:
    """The runtime with one endpoint, `ep`."""
    backend = Backend("i-1")
    backend.connect(address)
    backend.ready = True
    router = Router()
    router.set(CALLER, "ep", Route([VariantRoute("AllTraffic", 1.0, [backend])]))
    metrics = InvocationMetrics(NoMetrics())
    metrics.start()
    invocations = Invocations(router, NoEndpoints(), metrics, Settings(home=Path("unused")))
    server = HttpServer(lambda request: invocations.handle(request, CALLER))
    server.start()
    ready.send(("127.0.0.1", server.port))
    threading.Event().wait()


def start(target: object, *arguments: object) -> tuple[multiprocessing.Process, tuple[str, int]]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    return process, ours.recv()


def call(connection: Connection, path: str, body: bytes) -> float:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    began = time.perf_counter()
    answer = connection.exchange(head, body, time.monotonic() + 30, None)
    seconds = time.perf_counter() - began
    assert answer.status == 200, answer
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=3000)
    arguments = parser.parse_args()
    model, address = start(container)
    runtime, door = start(service, address)
    print(f"Python {platform.python_version()}, {platform.machine()}")
    try:
        for size in (100, 10_000, 1_000_000):
            body = b"1" * size
            calls = arguments.calls if size < 1_000_000 else arguments.calls // 10
            direct = Connection(address, time.monotonic() + 30)
            through = Connection(door, time.monotonic() + 30)
            times = [
                (call(direct, "/invocations", body),
                 call(through, "/endpoints/ep/invocations", body))
                for _ in range(calls)
            ]
            direct.close()
            through.close()
            alone, both = (statistics.median(column) * 1e6 for column in zip(*times, strict=True))
            print(
                f"{size:>9,} bytes: container {alone:7.0f} µs, through the runtime {both:7.0f} µs:"
                f" {both - alone:+.0f} µs, {both / alone:.2f} times"
            )
    finally:
        for process in (runtime, model):
            process.terminate()
            process.join(5)


if __name__ == "__main__":
    main()
