"""The model's thread: one call at a time, a limited queue, and when work may skip the hop."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from byoa.serve import compute as compute_module
from byoa.serve.batching import RecordFailed, Work
from byoa.serve.busy import ServerBusy
from byoa.serve.compute import (
    GATHER_SECONDS,
    LONG_SECONDS,
    MOMENT_SECONDS,
    NEAR_CALLS,
    PROOFS,
    QUICK_SECONDS,
    STRIKE_SECONDS,
    STRIKES,
    Compute,
)
from byoa.serve.streaming import Stream, StreamBroken


class Model:
    """A loaded model that remembers its calls: records, and the thread of each."""

    def __init__(self, predict=None, max_batch=None, batch_buckets=()):
        self.calls: list[int] = []
        self.threads: list[threading.Thread] = []
        self.max_batch = max_batch
        self.batch_buckets = batch_buckets
        self._predict = predict or (lambda records: records.sum(axis=1))

    def predict(self, records):
        self.calls.append(len(records))
        self.threads.append(threading.current_thread())
        return self._predict(records)

    def work(self, *values: float) -> Work:
        """A request of one record for each value, all of width 1."""
        return Work(self, np.array(values, dtype=np.float32).reshape(-1, 1))


@pytest.fixture
def compute():
    made = Compute(limit=50)
    made.start()
    yield made
    made.stop()


def sleeping(seconds: float, each: float = 0.0):
    """A predict that takes so long, and for each record so much longer."""
    def predict(records):
        time.sleep(seconds + each * len(records))
        return records.sum(axis=1)
    return predict


def prove(compute: Compute) -> None:
    for _ in range(PROOFS):
        compute.observe(QUICK_SECONDS / 10)


def test_work_runs_on_the_models_thread_and_gives_a_future(compute):
    model = Model()
    (outcome,) = compute.attempt([model.work(3.0)])
    assert isinstance(outcome, Future)
    assert outcome.result(5).tolist() == [3.0]
    assert model.threads[0].name == "model"


def test_an_exception_reaches_whoever_waits(compute):
    with pytest.raises(ZeroDivisionError):
        compute.submit(lambda: 1 / 0).result(5)
    assert compute.submit(lambda: 1).result(5) == 1


def test_a_model_that_has_proved_quick_runs_where_it_is_called(compute):
    prove(compute)
    model = Model()
    (outcome,) = compute.attempt([model.work(3.0)])
    assert outcome.tolist() == [3.0]
    assert model.threads == [threading.current_thread()]


def test_no_model_is_trusted_before_it_has_proved_quick(compute):
    for _ in range(PROOFS - 1):
        compute.observe(0.0)
    assert not compute.quick
    compute.observe(0.0)
    assert compute.quick


def test_one_slow_call_sends_the_next_ones_to_the_thread_for_a_while(compute):
    prove(compute)
    compute.observe(2 * LONG_SECONDS)
    assert isinstance(compute.attempt([Model().work(1.0)])[0], Future)
    for _ in range(200):
        compute.observe(0.0)
    assert compute.quick


def test_a_call_that_the_system_interrupted_is_not_taken_for_a_slow_model(compute):
    prove(compute)
    for _ in range(3):
        compute.observe(10 * QUICK_SECONDS)
        for _ in range(NEAR_CALLS):
            assert compute.quick
            compute.observe(QUICK_SECONDS / 10)
    compute.observe(10 * QUICK_SECONDS)
    assert compute.quick
    compute.observe(10 * QUICK_SECONDS)
    assert not compute.quick


@pytest.mark.parametrize("between", [1, 3, NEAR_CALLS - 1])
def test_a_model_that_is_slow_now_and_then_is_not_taken_for_a_quick_one(compute, between):
    """TRAP-08: as one that looks into a cache first."""
    for _ in range(100):
        compute.observe(15 * QUICK_SECONDS)
        for _ in range(between):
            compute.observe(QUICK_SECONDS / 5)
    assert not compute.quick


def test_the_first_call_of_a_model_may_be_slow(compute):
    compute.observe(LONG_SECONDS)
    prove(compute)
    assert compute.quick


def test_a_model_that_blocks_its_caller_again_and_again_is_not_trusted_any_more():
    """TRAP-08: the caller is the one who answers /ping."""
    compute = Compute(limit=5)
    for _ in range(STRIKES):
        prove(compute)
        for _ in range(200):
            compute.observe(0.0)
        assert compute.quick
        compute.attempt([Model(sleeping(STRIKE_SECONDS * 1.05)).work(1.0)])
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

    def predict(records):
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.0005)
        running -= 1
        return records

    model = Model(predict)

    def call() -> None:
        (outcome,) = compute.attempt([model.work(1.0)])
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


def test_that_the_queue_is_full_is_known_before_a_request_is_decoded():
    """HOST-36. A quick model waits for no queue."""
    compute = Compute(limit=2)
    compute.submit(lambda: None)
    assert compute.refusal() is None
    compute.submit(lambda: None)
    refusal = compute.refusal()
    assert refusal is not None and refusal.code == "QUEUE_FULL"
    prove(compute)
    assert compute.refusal() is None


def test_how_long_what_waits_will_take_is_known_once_calls_have_been_measured():
    compute = Compute(limit=50)
    for _ in range(4):
        compute.submit(lambda: None)
    assert compute.backlog_seconds == 0.0
    compute.observe(0.05)
    assert compute.backlog_seconds == pytest.approx(0.2)
    for records in (1, 2, 4, 8) * 10:
        compute.cost.observe(records, 0.001 + 0.001 * records)
    assert compute.backlog_seconds == pytest.approx(0.005, rel=1e-3)


def test_a_model_is_known_to_be_quick_again_though_all_its_calls_are_joint(compute):
    prove(compute)
    compute.observe(2 * LONG_SECONDS)
    assert not compute.quick
    model = Model()
    for _ in range(200):
        if compute.quick:
            break
        with compute._running:  # so that both wait
            futures = [compute.submit(model.work(value)) for value in range(2)]
        for future in futures:
            future.result(5)
    assert compute.quick


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


# --- joining --------------------------------------------------------------------------------------


@pytest.fixture
def held(compute):
    """Keeps the model's thread busy until it is called."""
    release = threading.Event()
    compute.submit(lambda: release.wait(5), measured=False)
    while compute.busy_seconds == 0:
        time.sleep(0.001)
    return release.set


def test_what_waits_becomes_one_call_and_each_gets_its_own(compute, held):
    model = Model()
    futures = [compute.submit(model.work(*values)) for values in ((1, 2), (3,), (4, 5, 6))]
    held()
    assert [future.result(5).tolist() for future in futures] == [[1, 2], [3], [4, 5, 6]]
    assert model.calls == [6]


def test_an_idle_server_waits_for_nobody(compute):
    model = Model()
    for value in range(5):
        assert compute.submit(model.work(value)).result(5).tolist() == [value]
    assert model.calls == [1] * 5


@pytest.mark.parametrize(("own", "servers", "calls"), [
    (None, 4, [4, 2]), (2, 256, [2, 2, 2]), (1, 256, [1] * 6), (None, 1, [1] * 6),
])
def test_a_call_is_no_larger_than_the_algorithm_and_the_server_allow(own, servers, calls):
    compute = Compute(limit=50, max_batch=servers)
    model = Model(max_batch=own)
    futures = [compute.submit(model.work(value)) for value in range(6)]
    compute.start()
    assert [future.result(5).tolist() for future in futures] == [[each] for each in range(6)]
    compute.stop()
    assert model.calls == calls


def test_a_request_larger_than_a_call_may_be_is_one_call_of_its_own():
    compute = Compute(limit=50, max_batch=2)
    model = Model()
    futures = [compute.submit(model.work(*values)) for values in ((1,), (2, 3, 4), (5,))]
    compute.start()
    assert [future.result(5).tolist() for future in futures] == [[1], [2, 3, 4], [5]]
    compute.stop()
    assert sorted(model.calls) == [2, 3]


def test_records_of_another_model_or_width_wait_for_a_call_of_their_own(compute, held):
    first, second = Model(), Model()
    wide = Work(first, np.ones((1, 2), dtype=np.float32))
    works = [first.work(1), second.work(2), first.work(3), wide, second.work(4)]
    futures = [compute.submit(work) for work in works]
    held()
    assert [future.result(5).tolist() for future in futures] == [[1], [2], [3], [2], [4]]
    assert (sorted(first.calls), second.calls) == ([1, 2], [2])


def test_a_request_that_gave_up_is_left_out_of_the_call(compute, held):
    model = Model()
    futures = [compute.submit(model.work(value)) for value in range(4)]
    assert futures[0].cancel() and futures[2].cancel()
    held()
    assert [futures[i].result(5).tolist() for i in (1, 3)] == [[1], [3]]
    assert model.calls == [2]


def test_a_bad_record_fails_its_own_request_alone_and_is_numbered(compute, held):
    def predict(records):
        if (records < 0).any():
            raise ValueError("negative")
        return records[:, 0]

    model = Model(predict)
    requests = [(1, 2), (3, -4, 5), (6,)]
    futures = [compute.submit(model.work(*values)) for values in requests]
    held()
    assert futures[0].result(5).tolist() == [1, 2]
    assert futures[2].result(5).tolist() == [6]
    with pytest.raises(RecordFailed) as caught:
        futures[1].result(5)
    assert isinstance(caught.value.error, ValueError) and caught.value.record == 2


def test_a_model_whose_records_cost_as_much_alone_as_together_is_not_made_to_wait():
    """Where a call has next to no fixed cost a joint one only delays the first of it."""
    compute = Compute(limit=200)
    for records in (1, 2, 4, 8) * 10:
        compute.cost.observe(records, 0.001 * records)
    model = Model()
    futures = [compute.submit(model.work(value)) for value in range(20)]
    compute.start()
    for future in futures:
        future.result(5)
    compute.stop()
    assert model.calls == [1] * 20


def test_a_moments_requests_are_one_call_on_the_callers_thread(compute):
    prove(compute)
    for records in (1, 8, 16) * 10:
        compute.cost.observe(records, QUICK_SECONDS * (0.5 + 0.05 * records))
    assert compute.gathers and compute.cost.fixed > GATHER_SECONDS
    model = Model()
    outcomes = compute.attempt([model.work(value) for value in range(40)])
    assert [each.tolist() for each in outcomes] == [[value] for value in range(40)]
    assert model.calls == [40]
    assert set(model.threads) == {threading.current_thread()}


def test_a_moments_requests_that_take_long_together_are_joined_on_the_models_thread():
    """HOST-20: meanwhile /ping is answered."""
    compute = Compute(limit=200)
    compute.start()
    prove(compute)
    for records in (1, 8, 16) * 10:
        compute.cost.observe(records, QUICK_SECONDS * (0.5 + 0.05 * records))
    model = Model()
    together = int(MOMENT_SECONDS / (0.05 * QUICK_SECONDS))
    outcomes = compute.attempt([model.work(value) for value in range(together)])
    assert [each.result(20).tolist() for each in outcomes] == [[v] for v in range(together)]
    assert len(model.calls) < together
    assert threading.current_thread() not in model.threads
    compute.stop()


def test_joining_is_tried_again_where_it_had_seemed_to_gain_nothing():
    """What was measured in a bad moment does not stay."""
    compute = Compute(limit=400)
    for records in (1, 2, 4, 8) * 10:
        compute.cost.observe(records, 0.001 * records)
    model = Model()
    futures = [compute.submit(model.work(value)) for value in range(200)]
    compute.start()
    for future in futures:
        future.result(20)
    compute.stop()
    assert model.calls[:20] == [1] * 20
    assert max(model.calls) > 1


def test_a_quick_model_tries_again_whether_its_requests_gain_by_being_gathered(
    compute, monkeypatch
):
    """One bad moment must not end it: nothing else would tell that it is over."""
    prove(compute)
    monkeypatch.setattr(compute_module, "QUICK_SECONDS", 60.0)  # however busy the machine is
    for records in (1, 8, 16) * 10:
        compute.cost.observe(records, 0.1 * GATHER_SECONDS * records)
    assert not compute.gathers
    monkeypatch.setattr(compute.cost, "observe", lambda records, seconds: None)
    model, gathered = Model(), 0
    for value in range(256):
        if compute.gathers:
            gathered += 1
            compute.attempt([model.work(value) for _ in range(8)])
        else:
            compute.attempt([model.work(value)])
    assert 2 <= gathered <= 32
    assert max(model.calls) == 8


def test_a_stream_that_is_open_is_read_to_its_end_after_a_stop():
    """One of many models is unloaded while its answer is being sent."""
    compute = Compute(limit=4)
    compute.start()
    stream = Stream(iter([b"one", b"two", b"three"]), compute, 60.0, lambda error: None)
    begun = compute.submit(stream.begin, measured=False)
    compute.stop()
    assert begun.result(20) is stream
    assert b"".join(stream) == b"onetwothree"
    compute._thread.join(20)
    assert not compute._thread.is_alive()


def test_a_stream_that_is_let_go_closes_its_generator():
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield b"x" * 1000
        finally:
            closed.set()

    compute = Compute(limit=4)
    compute.start()
    stream = Stream(endless(), compute, 60.0, lambda error: None)
    compute.submit(stream.begin, measured=False).result(20)
    stream.close()
    assert closed.wait(20)
    compute.stop()
    compute._thread.join(20)
    assert not compute._thread.is_alive()


def test_a_stream_that_never_ends_is_cut_although_there_is_always_more():
    """HOST-31"""
    failed = []
    compute = Compute(limit=4)
    compute.start()
    stream = Stream(itertools.repeat(b"x"), compute, 0.2, failed.append)
    compute.submit(stream.begin, measured=False).result(20)
    with pytest.raises(StreamBroken):
        for _ in stream:
            pass
    stream.close()
    assert [error.code for error in failed] == ["STREAM_TIMEOUT"]
    compute.stop()
    compute._thread.join(20)
    assert not compute._thread.is_alive()
