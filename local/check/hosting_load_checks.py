"""Checks of many requests at once: they are answered, and /ping stays quick beside them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from byoa.container.contract import INVOCATIONS_PATH, PING_PATH
from byoa.local.check.checks import NotApplicable, Verdict, check, failed, passed
from byoa.local.check.hosting_http import LATE, Connection, NoReply, Reply, head
from byoa.local.check.hosting_server import Outcome, Serving, plain, shared
from byoa.local.check.trial import Trial

PARALLEL = 100
_IDLE = 8
_PING_PAUSE_SECONDS = 0.02
_TAKE_UP_SECONDS = 0.5  # a server has then begun to read a request
# A server that queues the hundred answers the last one so much later than a single request.
_QUEUE_ANSWERS_SECONDS = 60.0
_BUSY = (429, 503)


@check(
    "idle-connections-do-not-block",
    clause="HOST-11, TRAP-08",
    group="hosting",
    title="Connections that stay open keep no other client waiting",
    cure="serve each connection by a thread or an event loop of its own (ThreadingHTTPServer,"
    " gunicorn --threads), or close it after an answer",
    needs=("ping-answers-in-two-seconds",),
)
def idle_connections(trial: Trial) -> Verdict:
    server = shared(trial)
    limit = trial.limits.ping_seconds
    request = head("GET", PING_PATH, server.address, [])
    with ExitStack() as stack:
        for number in range(_IDLE):
            try:
                connection = stack.enter_context(Connection(server.address))
                connection.send(request, timeout=limit)
                connection.reply(timeout=limit)
            except NoReply as error:
                return failed(
                    f"while {number} connections were open and idle, /ping on a new one was not"
                    f" answered: {error}"
                )
    return passed(f"{_IDLE} connections, one /ping each")


@contextmanager
def _half_sent(trial: Trial, server: Serving) -> Iterator[tuple[Connection, bytes]]:
    """A connection whose request has begun, and the rest of its body."""
    body, headers, _ = plain(trial)
    if len(body) < 2:
        raise NotApplicable("the sample request's body is too short to be sent in two parts")
    begin = head(
        "POST", INVOCATIONS_PATH, server.address,
        [*headers, ("Content-Length", str(len(body))), ("Connection", "close")],
    )
    middle = len(body) // 2
    with Connection(server.address) as connection:
        connection.send(begin + body[:middle])
        connection.awaits(_TAKE_UP_SECONDS)
        yield connection, body[middle:]


@check(
    "ping-beside-a-running-request",
    clause="TRAP-08, HOST-24, HOST-36",
    group="hosting",
    title="GET /ping answers within 2 s while a request is running",
    cure="answer /ping on another thread or process than predictions: gunicorn with at least two"
    " workers or with threads, never one synchronous worker",
    needs=("idle-connections-do-not-block",),
)
def ping_beside_a_request(trial: Trial) -> Verdict:
    server = shared(trial)
    with _half_sent(trial, server) as (connection, rest):
        outcome = server.get_ping()
        connection.send(rest)
        try:
            connection.reply("POST", timeout=trial.limits.invocation_seconds)
        except NoReply:
            pass  # others look at answers
    if isinstance(outcome, Reply) and outcome.status == 200:
        return passed(f"{outcome.seconds * 1000:.0f} ms")
    told = outcome if isinstance(outcome, Reply) else f"not answered: {outcome}"
    return failed(f"while one request was being sent, GET /ping was {told}")


@dataclass(frozen=True)
class _Load:
    """What came of the parallel requests, and of /ping meanwhile."""

    outcomes: tuple[Outcome, ...]
    pings: tuple[Outcome, ...]
    seconds: float


def _load(trial: Trial) -> _Load:
    """The sample request, a hundred times at once, each on a connection of its own."""
    body, headers, _ = plain(trial)
    server = shared(trial)
    ended = threading.Event()
    pings: list[Outcome] = []

    def ping() -> None:
        while not ended.is_set():
            pings.append(server.get_ping())
            ended.wait(_PING_PAUSE_SECONDS)

    def invoke(number: int) -> Outcome:
        return server.request(
            "POST", INVOCATIONS_PATH, headers=headers, body=body,
            timeout=max(trial.limits.invocation_seconds, _QUEUE_ANSWERS_SECONDS),
            discard=True,  # a hundred large answers would fill this machine's memory
        )

    began = time.monotonic()
    pinger = threading.Thread(target=ping, daemon=True)
    with ThreadPoolExecutor(PARALLEL) as pool:
        waiting = [pool.submit(invoke, number) for number in range(PARALLEL)]
        pinger.start()
        outcomes = tuple(each.result() for each in waiting)
    seconds = time.monotonic() - began
    ended.set()
    pinger.join()
    return _Load(outcomes, tuple(pings), seconds)


def _loaded(trial: Trial) -> _Load:
    return trial.memo("hosting: load", lambda: _load(trial))


@check(
    "hundred-requests-at-once",
    clause="CHK-09, HOST-36, HOST-11",
    group="hosting",
    title="100 parallel requests are all answered",
    cure="let requests wait in a queue, or answer 503 where it is full; raise the listen backlog",
    needs=("ping-beside-a-running-request",),
)
def hundred_at_once(trial: Trial) -> Verdict:
    _, _, expected = plain(trial)
    load = _loaded(trial)
    told = Counter(
        str(each.status) if isinstance(each, Reply) else str(each) for each in load.outcomes
    )
    good = {str(expected.status), *map(str, _BUSY)}
    bad = {what: count for what, count in told.items() if what not in good}
    if bad:
        parts = ", ".join(f"{count} × {what}" for what, count in sorted(bad.items()))
        return failed(
            f"of {PARALLEL} requests at once {sum(bad.values())} failed: {parts}; one alone is"
            f" {expected.status}",
            evidence=shared(trial).box.tail(),
        )
    counts = ", ".join(f"{count} × {status}" for status, count in sorted(told.items()))
    return passed(f"{counts} in {load.seconds:.1f} s")


@check(
    "ping-under-load",
    clause="CHK-09, TRAP-08, HOST-24",
    group="hosting",
    title="GET /ping never takes more than 2 s beside 100 parallel requests",
    cure="answer /ping beside the queue of predictions, on a thread or process that no prediction"
    " takes; keep it free of locks that predictions hold",
    needs=("ping-beside-a-running-request",),
)
def ping_under_load(trial: Trial) -> Verdict:
    load = _loaded(trial)
    limit = trial.limits.ping_seconds
    late = [each for each in load.pings if isinstance(each, NoReply) and each.kind == LATE]
    if late:
        return failed(
            f"beside {PARALLEL} requests GET /ping was not answered within {limit:g} s"
            f" ({len(late)} of {len(load.pings)} times)"
        )
    wrong = [each for each in load.pings if not isinstance(each, Reply) or each.status != 200]
    if wrong:
        return failed(
            f"beside {PARALLEL} requests GET /ping was {wrong[0]}",
            evidence=shared(trial).box.tail(),
        )
    slowest = max(each.seconds for each in load.pings if isinstance(each, Reply))
    return passed(f"the slowest of {len(load.pings)} took {slowest * 1000:.0f} ms")
