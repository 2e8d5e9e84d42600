"""What workers count in shared memory, and its sum as text."""

from __future__ import annotations

import os
import threading

import pytest

from byoa.serve.meter import SERIES_LIMIT, Meter, Meters
from byoa.serve.metrics import Metrics
from tests.serve.exposition import Exposition


def seen(meters: Meters) -> Exposition:
    return Exposition(Metrics(meters).text().decode())


def worker(meters: Meters, slot: int) -> Meter:
    """A meter as a worker process has it after its fork."""
    meters.forks(slot)
    meter = meters.of(slot)
    meter.begin()
    return meter


def answered(meter: Meter, status: int = 200, model: str = "") -> None:
    meter.enter()
    meter.leave("/invocations", status, model, 0.01, 10, 100)


def test_the_counts_of_all_workers_are_summed():
    meters = Meters(2)
    for slot in range(2):
        meter = worker(meters, slot)
        answered(meter)
        answered(meter, 400)
        meter.call(5, 0.002, 2, [0.0, 0.3])
        meter.queued(3)
        meter.enter()
    found = seen(meters)
    assert found("byoa_requests_total", route="/invocations", status="200") == 2
    assert found("byoa_requests_total") == 4
    assert found("byoa_request_bytes_total") == 40
    assert found("byoa_response_bytes_total") == 400
    assert found("byoa_records_total") == 10
    assert found("byoa_requests_in_flight") == 2
    assert found("byoa_queue_depth") == 6
    assert found("byoa_workers") == 2
    assert found("byoa_request_duration_seconds_count") == 4
    assert found("byoa_request_duration_seconds_sum") == pytest.approx(0.04)
    assert found("byoa_queue_seconds_bucket", le="0.0001") == 2
    assert found("byoa_queue_seconds_sum") == pytest.approx(0.6)
    assert found("byoa_predict_seconds_bucket", le="0.001") == 0
    assert found("byoa_predict_seconds_bucket", le="0.0025") == 2
    assert found("byoa_batch_records_bucket", le="8") == 2
    assert found("byoa_batch_records_sum") == 10


def test_what_another_process_counts_is_seen_here():
    meters = Meters(1)
    meters.forks(0)
    child = os.fork()
    if child == 0:
        meter = meters.of(0)
        meter.begin()
        answered(meter, model="a")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert seen(meters)("byoa_requests_total", model="a") == 1


def test_the_counts_of_a_worker_that_died_stay_and_its_gauges_do_not():
    meters = Meters(1)
    first = worker(meters, 0)
    answered(first, model="a")
    first.enter()
    first.queued(2)
    first.set_models(1)
    meters.of(0).end()  # by the master
    gone = seen(meters)
    assert gone("byoa_workers") == gone("byoa_requests_in_flight") == gone("byoa_queue_depth") == 0
    assert gone("byoa_worker_models") == 0
    second = worker(meters, 0)
    answered(second, model="a")
    answered(second, model="b")
    found = seen(meters)
    assert found("byoa_requests_total", model="a") == 2
    assert found("byoa_requests_total", model="b") == 1
    assert found("byoa_worker_restarts_total") == 1
    assert found("byoa_requests_in_flight") == 0


def test_more_models_than_the_table_takes_are_counted_together():
    meters = Meters(1)
    meter = worker(meters, 0)
    for number in range(2 * SERIES_LIMIT):
        answered(meter, model=f"model-{number}")
    for status in range(600, 600 + SERIES_LIMIT):
        answered(meter, status)
    found = seen(meters)
    assert found("byoa_requests_total") == 3 * SERIES_LIMIT
    assert len(found.samples) < 2 * SERIES_LIMIT
    assert found("byoa_requests_total", model="other") > SERIES_LIMIT
    assert found("byoa_requests_total", model="model-0") == 1


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "a\tb", "größe", "x" * 240, "ü" * 120])
def test_a_model_of_any_name_is_one_label(name):
    meters = Meters(1)
    meter = worker(meters, 0)
    answered(meter, model=name)
    again = worker(meters, 0)  # a replacement finds it in the table
    answered(again, model=name)
    (label,) = seen(meters).labels("byoa_requests_total", "model")
    escaped = label.replace("\\\\", "\0").replace("\\n", "\n").replace('\\"', '"')
    assert escaped.replace("\0", "\\") == name
    assert seen(meters)("byoa_requests_total") == 2


def test_calls_from_several_threads_are_all_counted():
    meters = Meters(1)
    meter = worker(meters, 0)

    def count() -> None:
        for _ in range(2000):
            meter.call(1, 0.001, 1)
            meter.queued(1)
            meter.queued(-1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = seen(meters)
    assert found("byoa_predict_seconds_count") == found("byoa_queue_seconds_count") == 8000
    assert found("byoa_queue_depth") == 0
