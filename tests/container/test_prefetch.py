"""Prefetching: a bounded line, a thread that ends with its iterator, errors with their place."""

from __future__ import annotations

import gc
import os
import threading
import time
import traceback

import pytest

from byoa.container import prefetch as module
from byoa.container.errors import UnsupportedError
from byoa.container.prefetch import Abandoned, Stopped, prefetch

LIMIT = 30.0


def ahead(produce, *, limit=10, stopping=lambda: False, weigh=lambda item: 1):
    return prefetch(produce, weigh=weigh, limit=limit, stopping=stopping, name="prefetch test")


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch test"]


def until(condition):
    end = time.monotonic() + LIMIT
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


class Endless:
    """Counts what it made, and keeps whether it was closed."""

    def __init__(self):
        self.made = 0
        self.closed = False

    def __call__(self, abandoned):
        try:
            while True:
                self.made += 1
                yield self.made
        finally:
            self.closed = True


def test_items_come_in_order_and_the_thread_ends():
    assert list(ahead(lambda abandoned: iter(range(1000)))) == list(range(1000))
    assert threads() == []


@pytest.mark.parametrize(("weight", "held"), [(1, 10), (3, 3), (99, 1)])
def test_the_thread_holds_as_much_as_the_limit_or_one_item(weight, held):
    endless = Endless()
    items = ahead(endless, weigh=lambda item: weight)
    assert next(items) == 1
    # Those that wait, the one that was taken, and the one for which there is no room.
    assert until(lambda: endless.made == held + 2)
    assert not until_more(endless, held + 2)
    assert next(items) == 2 and until(lambda: endless.made == held + 3)
    items.close()


def until_more(endless, made):
    time.sleep(0.05)
    return endless.made > made


def test_the_thread_s_exception_comes_after_its_items_with_its_traceback():
    def produce(abandoned):
        yield 1
        yield 2
        raise ValueError("at the third")

    items = ahead(produce)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="at the third") as caught:
        next(items)
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[-1] == "produce"
    assert threads() == [] and list(items) == []


def test_an_exception_of_the_consumer_ends_the_thread_and_closes_what_it_reads():
    endless = Endless()

    def consume():
        for item in ahead(endless):
            raise KeyError(item)

    with pytest.raises(KeyError) as caught:
        consume()
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-1] == "consume"
    del caught
    gc.collect()
    assert threads() == [] and endless.closed


@pytest.mark.parametrize("started", [False, True])
def test_close_ends_the_thread_and_is_repeatable(started):
    endless = Endless()
    items = ahead(endless)
    if started:
        next(items)
    items.close()
    items.close()
    assert list(items) == [] and threads() == [] and endless.closed == started


def test_collection_of_a_dropped_iterator_ends_the_thread():
    endless = Endless()
    items = ahead(endless)
    next(items)
    cycle = [items]
    cycle.append(cycle)
    del items, cycle
    gc.collect()
    assert threads() == [] and endless.closed


def test_a_producer_that_waits_is_told_that_nobody_wants_its_items():
    left = threading.Event()

    def produce(abandoned):
        yield 1
        while not abandoned():
            time.sleep(0.002)
        left.set()
        raise Abandoned

    items = ahead(produce)
    next(items)
    items.close()
    assert left.is_set() and threads() == []


def test_a_stop_ends_the_wait_for_an_item_but_keeps_none_back_that_is_there(monkeypatch):
    # TRAIN-150
    monkeypatch.setattr(module, "STOP_PATIENCE_SECONDS", 0.05)

    def produce(abandoned):
        yield from range(3)
        while not abandoned():
            time.sleep(0.002)

    items = ahead(produce, stopping=lambda: True)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(Stopped):
        next(items)
    assert threads() == []


def test_a_forked_child_is_told_that_the_thread_is_its_parent_s():
    items = ahead(Endless())
    next(items)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            next(items)
        except UnsupportedError as error:
            os.write(write, error.code.encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as answer:
        assert answer.read() == b"BATCHES_FORKED"
    os.waitpid(child, 0)
    assert next(items) == 2  # the parent's go on
    items.close()
