"""Shares of traffic, busy instances, draining."""

import threading
from collections import Counter
from math import sqrt

import pytest

from byoa.local.runtime.routing import LEAST_OUTSTANDING, Backend, Route, Router, VariantRoute
from byoa.local.settings import Caller


def ready(name: str) -> Backend:
    backend = Backend(name)
    backend.ready = True
    return backend


def variant(name: str, weight: float, count: int = 1) -> VariantRoute:
    return VariantRoute(name, weight, [ready(f"{name}-{n}") for n in range(count)])


def test_traffic_follows_the_weights_within_three_standard_deviations():
    """CHK-38, VAR-01."""
    route = Route([variant("a", 1.0), variant("b", 3.0)])
    calls = 4000
    counted = Counter(route.choose().name for _ in range(calls))
    spread = 3 * sqrt(calls * 0.25 * 0.75)
    assert abs(counted["a"] - calls * 0.25) < spread


@pytest.mark.parametrize("weights", [(0.0, 1.0, 0.0), (0.0, 0.0, 2.5), (7.0, 0.0, 0.0)])
def test_a_variant_of_weight_zero_gets_no_traffic(weights):
    """VAR-01."""
    route = Route([variant(str(n), weight) for n, weight in enumerate(weights)])
    chosen = {route.choose().name for _ in range(500)}
    assert chosen == {str(n) for n, weight in enumerate(weights) if weight}


def test_a_variant_of_weight_zero_is_found_by_its_name():
    assert Route([variant("a", 1.0), variant("b", 0.0)]).variant("b").name == "b"


def test_the_least_busy_instance_is_taken():
    """HOST-49: LEAST_OUTSTANDING_REQUESTS."""
    chosen = VariantRoute("v", 1.0, [ready("x"), ready("y"), ready("z")], LEAST_OUTSTANDING)
    taken = [chosen.enter() for _ in range(3)]
    assert {backend.id for backend in taken} == {"x", "y", "z"}
    taken[1].leave(answered=True)
    assert chosen.enter() is taken[1]


@pytest.mark.parametrize("strategy", ["RANDOM", LEAST_OUTSTANDING])
def test_idle_instances_share_the_traffic(strategy):
    """HOST-49: of either strategy."""
    chosen = VariantRoute("v", 1.0, [ready("x"), ready("y")], strategy)
    counted = Counter()
    for _ in range(400):
        backend = chosen.enter()
        counted[backend.id] += 1
        backend.leave(answered=True)
    assert min(counted.values()) > 400 / 2 - 3 * sqrt(400 / 4)


def test_an_instance_that_is_not_ready_gets_nothing():
    chosen = VariantRoute("v", 1.0, [Backend("new"), ready("old")])
    assert {chosen.enter().id for _ in range(50)} == {"old"}
    assert VariantRoute("v", 1.0, [Backend("new")]).enter() is None


def test_a_sibling_is_another_instance_that_is_ready():
    first, second = ready("x"), ready("y")
    chosen = VariantRoute("v", 1.0, [first, Backend("new"), second])
    assert {chosen.enter(besides=first) for _ in range(20)} == {second}
    assert VariantRoute("v", 1.0, [first]).enter(besides=first) is None


def test_draining_waits_for_the_requests_in_flight_and_takes_no_more():
    """HOST-03."""
    backend = ready("x")
    assert backend.enter()
    drained = threading.Event()
    thread = threading.Thread(target=lambda: backend.drain(10.0) and drained.set())
    thread.start()
    assert not drained.wait(0.1)
    assert not backend.enter()
    backend.leave(answered=True)
    thread.join(5)
    assert drained.is_set()


def test_draining_ends_in_time_when_a_request_hangs():
    backend = ready("x")
    backend.enter()
    assert not backend.drain(0.05)


def test_routes_belong_to_an_account_and_a_region():
    router = Router()
    here, there = Caller("1", "us-west-2"), Caller("1", "eu-west-1")
    router.set(here, "ep", Route([variant("a", 1.0)]))
    assert router.find(here, "ep") is not None
    assert router.find(there, "ep") is None
    router.remove(here, "ep")
    assert router.find(here, "ep") is None
