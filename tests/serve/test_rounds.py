"""Rounds of answering: each has an end, and everything has its turn."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from byoa.serve import rounds as module
from byoa.serve.rounds import REST_SECONDS, ROUND_SECONDS, Rounds


def test_pieces_that_fit_into_a_round_are_done_as_they_come(monkeypatch):
    monkeypatch.setattr(module, "ROUND_SECONDS", 60.0)  # however busy the machine is

    async def run():
        done = []
        rounds = Rounds()
        for piece in range(3):
            rounds.take(partial(done.append, piece))
            assert done[-1] == piece

    asyncio.run(run())


def test_what_a_round_does_not_reach_is_done_in_order_after_the_loop_has_looked_around():
    async def run():
        seen = []

        def do(piece):
            time.sleep(ROUND_SECONDS / 2)
            seen.append(piece)

        rounds = Rounds()
        for piece in range(9):
            rounds.take(partial(do, piece))
        assert 0 < len(seen) < 9
        asyncio.get_running_loop().call_soon(seen.append, "loop")
        while 8 not in seen:
            await asyncio.sleep(0)
        assert seen.index("loop") < seen.index(8)
        seen.remove("loop")
        assert seen == list(range(9))

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_round_that_is_over_leaves_the_next_one_its_time():
    async def run():
        done = []

        def do(piece):
            time.sleep(2 * ROUND_SECONDS)
            done.append(piece)

        rounds = Rounds()
        for piece in range(3):
            rounds.take(partial(do, piece))
            assert done == list(range(piece + 1))
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_rest_follows_the_round_and_is_one_however_often_it_is_asked_for(monkeypatch):
    rests = []
    monkeypatch.setattr(module.time, "sleep", rests.append)

    async def run():
        rounds = Rounds()
        rounds.take(partial(rounds.rest, 60.0))
        rounds.rest(REST_SECONDS / 2)
        assert not rests  # the round goes on
        await asyncio.sleep(0.01)
        assert rests == [REST_SECONDS]
        rounds.rest(0.0)
        rounds.rest(REST_SECONDS / 2)
        await asyncio.sleep(0.01)
        assert rests == [REST_SECONDS, REST_SECONDS / 2]

    asyncio.run(asyncio.wait_for(run(), 30))
