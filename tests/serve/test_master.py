"""How many workers there are, and what /ping says when they end again and again."""

from __future__ import annotations

import contextlib
import http.client
from dataclasses import replace

import pytest
from gunicorn.errors import HaltServer

from byoa.container.hardware import measure
from byoa.serve import master
from byoa.serve.master import Board, Crew
from byoa.serve.plan import make_plan
from byoa.serve.settings import read

GIB = 1 << 30


@pytest.fixture
def plan(tmp_path):
    """A plan for so many CPUs and so much memory, of a model of some bytes."""
    def make(cpus, memory, model_bytes=0, **variables):
        model = tmp_path / "model"
        model.mkdir(exist_ok=True)
        with (model / "weights").open("wb") as file:
            file.truncate(model_bytes)
        found = replace(measure(), cpus=float(cpus), memory_bytes=memory, gpus=())
        return make_plan(read(variables), found, {"SAGEMAKER_BASE_DIR": str(tmp_path)})

    return make


@pytest.fixture
def killed(monkeypatch):
    """How many processes the kernel has killed for memory."""
    count = [0]
    monkeypatch.setattr(master, "oom_kills", lambda: count[0])
    return count


def test_where_memory_is_plenty_all_workers_start_at_once(plan):
    made = plan(4, 16 * GIB, GIB)
    assert (made.workers, made.measure) == (4, False)
    assert Crew(made, Board(4), print).wanted() == 4


def test_where_memory_is_short_the_first_worker_is_measured(plan):
    """TRAP-24: a worker a CPU would be killed for memory."""
    made = plan(4, 4 * GIB, GIB)
    assert (made.workers, made.measure) == (4, True)
    board, said = Board(4), []
    crew = Crew(made, board, said.append)
    assert crew.wanted() == 1
    assert not board.complete
    board.set_ready(0, int(1.5 * GIB))
    assert crew.wanted() == 2
    assert said == ["a worker takes 1.61 GB with the model: 2 of 4 are started in 3.87 GB"]
    assert not board.complete
    board.set_ready(1, int(1.5 * GIB))
    assert board.complete


def test_one_worker_is_started_however_large_the_model(plan):
    made = plan(2, GIB, GIB)
    board = Board(2)
    crew = Crew(made, board, lambda text: None)
    board.set_ready(0, 5 * GIB)
    assert crew.wanted() == 1
    assert board.complete


def test_workers_that_are_set_are_not_measured(plan):
    assert not plan(4, GIB, GIB, BYOA_WORKERS="4").measure


def test_a_kill_for_memory_leaves_one_worker_less(plan, killed):
    made = plan(3, 64 * GIB)
    board, said = Board(3), []
    crew = Crew(made, board, said.append)
    for slot in range(3):
        board.set_ready(slot, GIB)
    crew.ended(1)  # for another reason
    assert crew.wanted() == 3
    for left in (2, 1, 1):
        killed[0] += 1
        crew.ended(1)
        assert crew.wanted() == left
    assert said[0].startswith("a worker was killed for memory: 2 from now on; to do: set")
    assert len(said) == 2


def test_deaths_before_the_model_is_there_end_the_server(plan):
    crew = Crew(plan(1, GIB), Board(1), print)
    crew.ended(1)
    crew.ended(1)
    with pytest.raises(HaltServer):
        crew.ended(1)


@pytest.mark.parametrize("door", ["express", "flask"])
def test_workers_that_end_again_and_again_turn_ping_red(servers, door):
    """HOST-24: so that the platform replaces the instance."""
    server = servers(door)
    assert server.call("GET", "/ping").json["workers"] == 1

    def failing():
        return server.ping() == 503 and (
            server.call("GET", "/ping").json.get("code") == "WORKERS_CRASHING"
        )

    for _ in range(15):  # a busy machine may take longer than a minute for five
        server.wait_for(lambda: server.ping() == 200 or failing())
        if failing():
            break
        with contextlib.suppress(http.client.HTTPException, OSError):
            server.invoke("909,0,0,0\n")
    server.wait_for(failing)
    assert "5 workers have ended within 60 s" in server.log
    assert server.invoke("1,2,3,4\n").status == 200


def test_workers_that_are_told_to_end_are_no_crashes(servers):
    """A reload replaces all of them; SIGTTIN and SIGTTOU are gunicorn's for one more or fewer."""
    import signal

    server = servers(BYOA_WORKERS="2")
    before = set(server.workers())
    server.process.send_signal(signal.SIGHUP)
    server.wait_for(lambda: len(server.workers()) == 2 and not before & set(server.workers()))
    server.process.send_signal(signal.SIGTTOU)
    server.wait_for(lambda: len(server.workers()) == 1)
    server.process.send_signal(signal.SIGTTIN)
    server.wait_for(lambda: len(server.workers()) == 2)
    assert server.ping() == 200
    assert "have ended within" not in server.log
