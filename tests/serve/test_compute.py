"""The model's thread: one call at a time, a limited queue, and when work may skip the hop."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from byoa.serve.compute import PROOFS, QUICK_SECONDS, STRIKE_SECONDS, STRIKES, Compute, ServerBusy


@pytest.fixture
def compute():
    made = Compute(limit=50)
    made.start()
    yield made
    made.stop()


def prove(compute: Compute) -> None:
    for _ in range(PROOFS):
        compute.observe(QUICK_SECONDS / 10)


def test_work_runs_on_the_models_thread_and_gives_a_future(compute):
    outcome = compute.attempt(threading.current_thread)
    assert isinstance(outcome, Future)
    assert outcome.result(5).name == "model"


def test_an_exception_reaches_whoever_waits(compute):
    with pytest.raises(ZeroDivisionError):
        compute.submit(lambda: 1 / 0).result(5)
    assert compute.submit(lambda: 1).result(5) == 1


def test_a_model_that_has_proved_quick_runs_where_it_is_called(compute):
    prove(compute)
    assert compute.attempt(threading.current_thread) is threading.current_thread()


def test_no_model_is_trusted_before_it_has_proved_quick(compute):
    for _ in range(PROOFS - 1):
        compute.observe(0.0)
    assert not compute.quick
    compute.observe(0.0)
    assert compute.quick


def test_one_slow_call_sends_the_next_ones_to_the_thread_for_a_while(compute):
    prove(compute)
    compute.observe(10 * QUICK_SECONDS)
    assert isinstance(compute.attempt(lambda: None), Future)
    for _ in range(200):
        compute.observe(0.0)
    assert compute.quick


def test_a_model_that_blocks_its_caller_again_and_again_is_not_trusted_any_more():
    """TRAP-08: the caller is the one who answers /ping."""
    compute = Compute(limit=5)
    for _ in range(STRIKES):
        prove(compute)
        for _ in range(200):
            compute.observe(0.0)
        assert compute.quick
        compute.attempt(lambda: time.sleep(STRIKE_SECONDS * 1.05))
    prove(compute)
    for _ in range(200):
        compute.observe(0.0)
    assert not compute.quick


def test_inline_calls_can_be_switched_off():
    compute = Compute(limit=5, inline=False)
    prove(compute)
    assert not compute.quick


def test_the_model_is_never_called_twice_at_a_time(compute):
    prove(compute)
    running, most = 0, 0

    def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.0005)
        running -= 1

    def call() -> None:
        outcome = compute.attempt(work)
        if isinstance(outcome, Future):
            outcome.result(10)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: call(), range(200)))
    assert most == 1


def test_a_full_queue_is_refused():
    """HOST-36."""
    compute = Compute(limit=2)
    compute.submit(lambda: None)
    compute.submit(lambda: None)
    with pytest.raises(ServerBusy) as caught:
        compute.submit(lambda: None)
    assert caught.value.code == "QUEUE_FULL"


def test_work_whose_request_gave_up_is_not_done():
    compute = Compute(limit=5)
    done: list[int] = []
    dropped = compute.submit(lambda: done.append(1))
    kept = compute.submit(lambda: done.append(2))
    assert dropped.cancel()
    compute.start()
    kept.result(5)
    compute.stop()
    assert done == [2]


def test_how_long_a_call_has_been_running_is_known(compute):
    assert compute.busy_seconds == 0
    release = threading.Event()
    future = compute.submit(lambda: release.wait(5))
    end = time.monotonic() + 5
    while compute.busy_seconds == 0 and time.monotonic() < end:
        time.sleep(0.001)
    assert compute.busy_seconds > 0
    release.set()
    future.result(5)
    assert compute.busy_seconds == 0
