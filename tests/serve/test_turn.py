"""The model, lent to a thread that is not its own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from byoa.serve.compute import Compute
from byoa.serve.turn import Turn

SECONDS = 30


@pytest.fixture
def compute():
    made = Compute(limit=50)
    made.start()
    yield made
    made.stop()


def test_nobody_else_has_the_model_meanwhile(compute):
    """TRAP-08"""
    turn = Turn(compute)
    turn.take()
    turn.take()  # it has it already
    waiting = compute.submit(lambda: "answered", measured=False)
    other = Turn(compute)
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(other.take)
        assert not waiting.done() and not taken.done()
        assert compute.busy_seconds > 0
        turn.give()
        turn.give()
        assert waiting.result(SECONDS) == "answered"
        taken.result(SECONDS)
    other.give()
    assert turn.held > 0 and other.waited > 0


def test_turns_are_in_the_order_in_which_they_were_asked_for(compute):
    first, order = Turn(compute), []
    first.take()
    compute.submit(lambda: order.append("request"), measured=False)
    first.share()  # somebody waits, so that it goes first
    order.append("turn")
    first.give()
    compute.submit(lambda: None, measured=False).result(SECONDS)
    assert order == ["request", "turn"]


def test_many_threads_have_it_one_at_a_time(compute):
    inside, most = [], []

    def work() -> None:
        turn = Turn(compute)
        turn.take()
        for _ in range(50):
            inside.append(threading.current_thread())
            most.append(len(inside))
            inside.pop()
            turn.share()
        turn.give()

    with ThreadPoolExecutor(4) as pool:
        for each in [pool.submit(work) for _ in range(4)]:
            each.result(SECONDS)
    assert set(most) == {1} and len(most) == 200
