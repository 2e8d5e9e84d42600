"""Where a request's time on the server goes, layer by layer: `serving.py --profile` prints it.

A connection is given its bytes in this process, without sockets, and so is each of the steps behind
it; what the server's CPU takes under load beyond that is the kernel's and the event loop's.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUNDS, CALLS = 7, 300
LAYERS = ("kernel and event loop", "HTTP, door and counts", "checks and negotiation", "decode",
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
    given = request_of(request)
    while core.ping().status != 200 or server.direct._core.ping().status != 200:
        time.sleep(0.01)
    for _ in range(200):
        core.answer(given)
    job = core.prepare(given)
    content_type = given.headers["content-type"]
    decoder, media = registry.find(content_type), parse_media_type(content_type)
    outcome = ended(core.start(job))
    start = least(lambda: ended(core.start(job)))
    whole = asyncio.run(connection(application, server, request))
    prepare = least(lambda: core.prepare(given))
    decode = least(lambda: records.decode(decoder, given.body, media, None, LIMITS))
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


class Transport(asyncio.Transport):
    """Takes what a connection writes, and tells when an answer is there."""

    def __init__(self) -> None:
        super().__init__()
        self.answered: asyncio.Future[None] | None = None

    def write(self, data: Any) -> None:
        if not data.startswith(b"HTTP/1.1 200"):
            if data.startswith(b"HTTP/1.1"):
                raise SystemExit(f"the answer is {data!r}")
            return  # a body behind its head
        if self.answered is not None:
            self.answered.set_result(None)

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def connection(application: Any, server: Any, request: bytes) -> float:
    """Microseconds of a request from its bytes to those of its answer, the least of the rounds."""
    import uvicorn
    from uvicorn.server import ServerState

    from byoa.serve.uvicorn_protocol import Protocol

    loop = asyncio.get_running_loop()
    state = ServerState()
    state.default_headers = [(b"date", b"Thu, 01 Jan 2026 00:00:00 GMT")]
    config = uvicorn.Config(application, lifespan="off", log_config=None, access_log=False)
    config.load()
    protocol = Protocol(
        config=config, server_state=state, app_state={}, _loop=loop, direct=server.direct,
        openings=server.openings, settings=server.settings, on_accepted=lambda: None,
    )
    transport = Transport()
    protocol.connection_made(transport)
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(CALLS):
            transport.answered = loop.create_future()
            protocol.data_received(request)
            await transport.answered
        rounds.append((time.perf_counter() - started) / CALLS * 1e6)
    return least_of(rounds)


def request_of(request: bytes) -> Any:
    from byoa.serve.messages import Request

    head, _, body = request.partition(b"\r\n\r\n")
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    headers = {name.decode().lower(): value.strip().decode() for name, _, value in lines}
    return Request("POST", "/invocations", headers, body)


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
