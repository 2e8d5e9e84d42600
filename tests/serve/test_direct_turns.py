"""What becomes of an exchange whose outcome waits for its turn among many."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from byoa.serve import rounds
from byoa.serve.aside import Aside
from byoa.serve.busy_poll import BusyPoll
from byoa.serve.core import Job
from byoa.serve.direct import Direct
from byoa.serve.messages import REQUEST_ID, Answer
from byoa.serve.meter import Meter
from byoa.serve.moments import Moments
from byoa.serve.streaming import Stream
from byoa.serve.visit import Watch

LATER = b"later"


class Compute:
    """Of a quick model whose calls are worth joining; one that is asked for a Future."""

    gathers = True

    def attempt(self, works):
        return list(works)


class Core:
    """Answers each body with itself, LATER when the future is done."""

    settings = SimpleNamespace(payload_limit=0, deadline=60.0)

    def __init__(self, later: Future | None = None) -> None:
        self.compute = Compute()
        self.later = later

    def must_wait(self, request):
        return False

    def prepare(self, request):
        compute = SimpleNamespace(gathers=False) if self.later else self.compute
        return Job(request, request.body, compute, None, None)  # type: ignore[arg-type]

    def start(self, job):
        return self.later if job.work == LATER else job.work

    def finish(self, job, outcome):
        return outcome if isinstance(outcome, Answer) else Answer(200, outcome)


class Connection:
    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send_whole(self, exchange, status, head, body):
        self.sent.append(body)
        return True

    def answered(self):
        pass

    def hand_over(self, exchange, begun):
        return False


def exchange_of(direct: Direct, body: bytes):
    head = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/csv")]
    exchange = direct.open(b"POST", b"/invocations", head)
    exchange.body = body
    return exchange


@pytest.fixture
def full(monkeypatch):
    """Rounds that are over as soon as they have begun, as in a crowd."""
    monkeypatch.setattr(rounds, "ROUND_SECONDS", -1.0)


def direct_of(core: Core, poll: BusyPoll | None = None) -> Direct:
    poll = poll or BusyPoll(0)
    return Direct(core, Watch(Meter()), Moments(), Aside(1), poll)  # type: ignore[arg-type]


def test_who_has_said_all_is_answered_although_its_moment_has_not_come(full):
    """HOST-30: the connection is closed as soon as `hurry` has returned."""
    async def run():
        direct, connections = direct_of(Core()), [Connection() for _ in range(3)]
        exchanges = [exchange_of(direct, b"%d" % i) for i in range(3)]
        for exchange, connection in zip(exchanges, connections, strict=True):
            direct.answer(exchange, connection)
        for i, (exchange, connection) in enumerate(zip(exchanges, connections, strict=True)):
            direct.hurry(exchange, connection)
            assert connection.sent == [b"%d" % i]
        await asyncio.sleep(0.01)
        assert [len(each.sent) for each in connections] == [1, 1, 1]

    asyncio.run(run())


def test_a_moments_outcomes_are_told_in_turn(full):
    """HOST-20: between two of them the loop looks who else has sent something."""
    async def run():
        direct, connection = direct_of(Core()), Connection()
        for i in range(3):
            direct.answer(exchange_of(direct, b"%d" % i), connection)
        seen = []
        while len(connection.sent) < 3:
            seen.append(len(connection.sent))
            await asyncio.sleep(0)
        assert connection.sent == [b"0", b"1", b"2"]
        assert set(seen) == {0, 1, 2}

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_stream_whose_client_leaves_before_its_turn_is_closed(full):
    """Else it would count among those that are open."""
    closed = []

    class Closing(Stream):
        def __init__(self) -> None:
            pass

        def close(self) -> None:
            closed.append(self)

    async def run():
        later: Future = Future()
        direct, connection = direct_of(Core(later)), Connection()
        exchange = exchange_of(direct, LATER)
        direct.answer(exchange, connection)
        direct.answer(exchange_of(direct, b"2"), Connection())  # so that the round is over
        later.set_result(Answer(200, Closing()))
        while exchange.told is None:
            await asyncio.sleep(0)
        direct.left(exchange)
        await asyncio.sleep(0.01)
        assert closed and not connection.sent

    asyncio.run(asyncio.wait_for(run(), 30))


def test_after_an_answer_the_loop_looks_for_the_next_request_unless_another_is_in_work():
    async def run():
        poll = BusyPoll(60.0)
        later: Future = Future()
        direct = direct_of(Core(later), poll)
        direct.answer(exchange_of(direct, LATER), Connection())
        direct.answer(exchange_of(direct, b"1"), Connection())
        assert not poll.looking
        later.set_result(Answer(200, b"2"))
        while not poll.looking:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(run(), 30))


def test_after_a_refusal_the_loop_does_not_look_for_the_next_request():
    class Refusing(Core):
        def prepare(self, request):
            return Answer(503, b"busy", headers=((REQUEST_ID, "1"),))

        def backlog_seconds(self):
            return 0.0

    async def run():
        poll, connection = BusyPoll(60.0), Connection()
        direct = direct_of(Refusing(), poll)
        direct.answer(exchange_of(direct, b"1"), connection)
        assert connection.sent == [b"busy"] and not poll.looking

    asyncio.run(asyncio.wait_for(run(), 30))
