"""What a call costs, learned from calls."""

from __future__ import annotations

import random

import pytest

from byoa.serve.cost import Cost


def learned(fixed: float, each: float, *, noise: float = 0.0, calls: int = 200) -> Cost:
    cost, chance = Cost(), random.Random(0)
    for _ in range(calls):
        records = chance.randint(1, 32)
        seconds = (fixed + each * records) * (1 + noise * chance.random())
        cost.observe(records, seconds)
    return cost


def test_fixed_and_variable_part_are_found():
    cost = learned(0.002, 0.0001)
    assert cost.fixed == pytest.approx(0.002, rel=1e-3)
    assert cost.each == pytest.approx(0.0001, rel=1e-3)
    assert cost.of(10) == pytest.approx(0.003, rel=1e-3)


def test_pauses_of_the_machine_do_not_count_as_the_models():
    cost = learned(0.002, 0.0001, noise=0.1)
    expected = cost.of(10)
    cost.observe(1, 5.0)
    assert cost.of(10) < 2 * expected


def test_a_model_that_has_become_slow_is_believed_in_the_end():
    cost = learned(0.0001, 0.0)
    for _ in range(300):
        cost.observe(1, 0.01)
    assert cost.of(1) == pytest.approx(0.01, rel=0.1)


def test_while_all_calls_are_alike_all_of_it_counts_as_fixed():
    cost = Cost()
    for _ in range(50):
        cost.observe(1, 0.001)
    assert (cost.fixed, cost.each) == (pytest.approx(0.001), 0.0)
    assert cost.worth(256) == 256


def test_more_is_joined_the_larger_the_fixed_part_is():
    assert learned(0.0, 0.001).worth(256) == 1
    assert learned(0.001, 0.001).worth(256) == 32
    assert learned(0.1, 0.001).worth(256) == 256
    assert learned(0.1, 0.001).worth(100) == 100


def test_no_more_is_joined_than_the_model_does_well_whatever_the_line_says():
    """A convolution whose records fit the cache by eights."""
    def seconds(records: int) -> float:
        return (0.0006 if records == 1 else 0.0003 if records <= 8 else 0.0005) * records

    cost, chance = Cost(), random.Random(0)
    for _ in range(300):
        records = min(cost.worth(256), chance.randint(1, 64))
        cost.observe(records, seconds(records) * chance.uniform(1, 1.3))
    assert 2 <= cost.worth(256) <= 8


def test_what_the_first_call_of_a_size_prepares_does_not_count_for_the_size():
    cost = Cost()
    for _ in range(10):
        cost.observe(1, 0.001)
    cost.observe(8, 0.020)
    cost.observe(8, 0.002)
    assert cost.worth(8) == 8


def test_what_the_first_joint_call_of_all_prepares_does_not_end_all_joining():
    cost = Cost()
    for _ in range(100):
        cost.observe(1, 0.00013)
    cost.observe(2, 0.02)
    assert (cost.fixed, cost.worth(256)) == (pytest.approx(0.00013), 256)
