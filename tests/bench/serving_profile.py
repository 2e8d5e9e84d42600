"""Where a request's time on the server goes, layer by layer: `serving.py --profile` prints it.

The application is called in this process, without sockets, and so is each of its steps; what the
server's CPU takes under load beyond that is the HTTP server, the event loop and the kernel.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUNDS, CALLS = 7, 300
LAYERS = ("HTTP server and sockets", "door, counts and routing", "checks and negotiation", "decode",
          "queue and batching", "predict", "encode")


def layers(base: Path, request: bytes, on_the_wire: float) -> dict[str, float]:
    """Microseconds of each layer; `on_the_wire`: the server's CPU a request, under load."""
    from byoa.container.formats import registry
    from byoa.container.formats.limits import LIMITS
    from byoa.container.hardware import measure
    from byoa.container.media_types import parse_media_type
    from byoa.serve import records
    from byoa.serve.plan import make_plan
    from byoa.serve.server import Server
    from byoa.serve.settings import read

    os.environ["SAGEMAKER_BASE_DIR"] = str(base)
    settings = read({"BYOA_WORKERS": "1"})
    server = Server(settings, make_plan(settings, measure()))
    application, core = server.load(), server._core()
    scope, body = scope_of(request)
    given = request_of(scope, body)
    while core.ping().status != 200:
        time.sleep(0.01)
    asyncio.run(calls(application, scope, body, 200))  # until the model has proved to be quick
    for _ in range(200):
        core.answer(given)
    job = core.prepare(given)
    content_type = given.headers["content-type"]
    decoder, media = registry.find(content_type), parse_media_type(content_type)
    outcome = ended(core.start(job))
    start = least(lambda: ended(core.start(job)))
    whole = least_of([
        asyncio.run(calls(application, scope, body, CALLS)) / CALLS for _ in range(ROUNDS)
    ])
    prepare = least(lambda: core.prepare(given))
    decode = least(lambda: records.decode(decoder, body, media, None, LIMITS))
    predict = least(lambda: job.work.model.predict(job.work.features))
    encode = least(lambda: core.finish(job, outcome))
    values = (
        on_the_wire - whole, whole - prepare - start - encode, prepare - decode, decode,
        start - predict, predict, encode,
    )
    return dict(zip(LAYERS, values, strict=True))


def ended(outcome: Any) -> Any:
    """What a model gives that runs on its own thread counts with the hop there, as queue."""
    return outcome.result() if hasattr(outcome, "result") else outcome


async def calls(application: Any, scope: dict[str, Any], body: bytes, count: int) -> float:
    """Microseconds of so many requests, one after the other."""
    message = {"type": "http.request", "body": body, "more_body": False}

    async def receive() -> dict[str, Any]:
        return message

    async def send(message: dict[str, Any]) -> None:
        if message.get("status", 200) != 200:
            raise SystemExit(f"the answer is {message}")

    started = time.perf_counter()
    for _ in range(count):
        await application(dict(scope), receive, send)
    return (time.perf_counter() - started) * 1e6


def scope_of(request: bytes) -> tuple[dict[str, Any], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")[1:]
    headers = [
        (name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)
    ]
    return {"type": "http", "method": "POST", "path": "/invocations", "headers": headers,
            "query_string": b"", "http_version": "1.1"}, body


def request_of(scope: dict[str, Any], body: bytes) -> Any:
    from byoa.serve.messages import Request

    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    return Request("POST", scope["path"], headers, body)


def least(step: Callable[[], Any]) -> float:
    """Microseconds of a step, the least of several rounds."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(CALLS):
            step()
        rounds.append((time.perf_counter() - started) / CALLS * 1e6)
    return least_of(rounds)


def least_of(rounds: list[float]) -> float:
    return min(rounds)
