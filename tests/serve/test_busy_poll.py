"""Looking for the next request before the loop sleeps, ever more rarely where nothing comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from byoa.serve import busy_poll as module
from byoa.serve.busy_poll import CROWD_PASSED, FORGIVEN, MOST_PASSED, BusyPoll

SECONDS = 1.0


class Clock:
    """In the place of `time`: it goes on where a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def on_a_loop(act: Callable[[BusyPoll], Awaitable[None]], seconds: float = SECONDS) -> None:
    async def run() -> None:
        await act(BusyPoll(seconds))

    asyncio.run(run())


async def a_round() -> None:
    await asyncio.sleep(0)


async def in_vain(poll: BusyPoll, clock: Clock) -> None:
    """Let a look end that has found nothing."""
    clock.now += 1.1 * SECONDS
    await a_round()
    assert not poll.looking


def answer(poll: BusyPoll) -> None:
    poll.answered(others=False)


def passed(poll: BusyPoll) -> int:
    """The answers after which nobody looks."""
    for count in range(2 * MOST_PASSED):
        answer(poll)
        if poll.looking:
            return count
    raise AssertionError("it never looks again")


async def found(poll: BusyPoll, times: int) -> None:
    """Requests that come while it looks."""
    for _ in range(times):
        answer(poll)
        await a_round()
        assert poll.looking


async def be_cautious(poll: BusyPoll, clock: Clock, looks: int) -> None:
    for _ in range(looks):
        passed(poll)
        await in_vain(poll, clock)


def test_after_an_answer_the_loop_looks_for_so_long_and_then_sleeps(clock):
    async def act(poll):
        answer(poll)
        for _ in range(9):
            clock.now += SECONDS / 10
            await a_round()
            assert poll.looking
        await in_vain(poll, clock)

    on_a_loop(act)


def test_requests_that_follow_one_another_are_looked_for_each_as_long_as_the_first(clock):
    async def act(poll):
        answer(poll)
        for _ in range(5):
            clock.now += 0.9 * SECONDS
            await found(poll, 1)
            await a_round()
            assert poll.looking

    on_a_loop(act)


def test_where_nothing_comes_the_loop_looks_ever_more_rarely(clock):
    async def act(poll):
        counts = []
        for _ in range(14):
            counts.append(passed(poll))
            await in_vain(poll, clock)
        assert counts[:5] == [0, 1, 3, 7, 15]
        assert counts[-1] == MOST_PASSED

    on_a_loop(act)


def test_requests_in_a_row_make_it_less_cautious(clock):
    async def act(poll):
        await be_cautious(poll, clock, 6)
        assert passed(poll) == 63
        await found(poll, 2 * FORGIVEN)
        await in_vain(poll, clock)
        assert passed(poll) == 2 * (63 // 4) + 1

    on_a_loop(act)


def test_requests_that_are_not_in_a_row_do_not(clock):
    async def act(poll):
        await be_cautious(poll, clock, 3)
        assert passed(poll) == 7
        await found(poll, FORGIVEN - 1)
        await in_vain(poll, clock)
        assert passed(poll) == 15
        await found(poll, FORGIVEN - 1)
        await in_vain(poll, clock)
        assert passed(poll) == 31

    on_a_loop(act)


def test_nobody_looks_while_requests_come_together(clock):
    async def act(poll):
        for _ in range(3):
            answer(poll)
        await a_round()
        assert not poll.looking
        assert passed(poll) == CROWD_PASSED

    on_a_loop(act)


def test_a_crowd_does_not_make_it_less_cautious(clock):
    async def act(poll):
        await be_cautious(poll, clock, 10)
        assert passed(poll) == 1023
        for _ in range(2):
            answer(poll)
        await a_round()
        assert passed(poll) == 1023

    on_a_loop(act)


def test_nobody_looks_while_other_requests_are_in_work(clock):
    async def act(poll):
        poll.answered(others=True)
        assert not poll.looking
        answer(poll)
        assert poll.looking
        poll.answered(others=True)
        await a_round()
        assert not poll.looking

    on_a_loop(act)


def test_0_seconds_are_never():
    async def act(poll):
        answer(poll)
        assert not poll.looking

    on_a_loop(act, 0)
