"""The state store: atomic, thread-safe, and whole after a SIGKILL."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from byoa.container.errors import ByoaError
from byoa.local.settings import Caller
from byoa.local.storage.state import AlreadyExists, Missing, Row, State

CALLER = Caller("111122223333", "us-west-2")
ELSEWHERE = Caller("111122223333", "eu-west-1")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    store = State(tmp_path / "home" / "state.sqlite")
    yield store
    store.close()


def make(state: State, name: str, caller: Caller = CALLER, **document: object) -> Row:
    return state.create(
        "thing", caller, name, arn=caller.arn("thing", name), status="New", document=document
    )


def test_a_row_comes_back_as_it_was_stored(state: State) -> None:
    made = make(state, "a", nested={"é": [1, 2.5, None, True]}, text="🙂")

    assert state.get("thing", CALLER, "a") == made
    assert made.arn == "arn:aws:sagemaker:us-west-2:111122223333:thing/a"
    assert made.document == {"nested": {"é": [1, 2.5, None, True]}, "text": "🙂"}
    assert made.created == made.modified
    assert made.caller == CALLER


def test_a_name_is_unique_within_kind_account_and_region(state: State) -> None:
    first = make(state, "a")
    with pytest.raises(AlreadyExists) as caught:
        make(state, "a")

    assert caught.value.row == first
    make(state, "a", ELSEWHERE)
    state.create("other", CALLER, "a", arn="x", status="", document={})
    assert [row.region for row in state.list("thing")] == ["us-west-2", "eu-west-1"]


def test_rows_are_listed_in_order_of_creation(state: State) -> None:
    for name in ("b", "a", "c"):
        make(state, name)

    assert [row.name for row in state.list("thing", CALLER)] == ["b", "a", "c"]
    assert state.list("thing", ELSEWHERE) == []


def test_a_document_that_was_read_is_the_readers_own(state: State) -> None:
    make(state, "a", values=[1])
    read = state.get("thing", CALLER, "a")
    assert read is not None
    read.document["values"].append(2)

    again = state.get("thing", CALLER, "a")
    assert again is not None and again.document == {"values": [1]}


def test_a_change_is_stored_and_stamped(state: State) -> None:
    made = make(state, "a", count=1)

    def change(row: Row) -> None:
        row.status = "Changed"
        row.document["count"] += 1

    changed = state.mutate("thing", CALLER, "a", change)
    assert changed.status == "Changed" and changed.document == {"count": 2}
    assert changed.modified > made.modified and changed.created == made.created
    assert state.get("thing", CALLER, "a") == changed


def test_a_change_that_raises_changes_nothing(state: State) -> None:
    made = make(state, "a", count=1)

    def change(row: Row) -> None:
        row.document["count"] = 99
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        state.mutate("thing", CALLER, "a", change)
    assert state.get("thing", CALLER, "a") == made
    make(state, "b")  # and the store is usable


def test_a_change_of_a_row_that_is_not_there_is_an_error(state: State) -> None:
    with pytest.raises(Missing):
        state.mutate("thing", CALLER, "a", lambda row: None)


def test_changes_of_many_threads_are_all_kept(state: State) -> None:
    make(state, "a", count=0)

    def add() -> None:
        for _ in range(25):
            state.mutate(
                "thing", CALLER, "a",
                lambda row: row.document.update(count=row.document["count"] + 1),
            )

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = state.get("thing", CALLER, "a")
    assert found is not None and found.document["count"] == 200


def test_two_processes_may_use_the_file_at_the_same_time(state: State) -> None:
    make(state, "a", count=0)
    program = (
        "import sys; from pathlib import Path\n"
        "from byoa.local.storage.state import State; from byoa.local.settings import Caller\n"
        "state = State(Path(sys.argv[1]))\n"
        "for _ in range(50): state.mutate('thing', Caller('111122223333', 'us-west-2'), 'a',\n"
        "    lambda row: row.document.update(count=row.document['count'] + 1))\n"
        "state.close()\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", program, str(state.path)]) for _ in range(2)
    ]
    assert [child.wait(60) for child in children] == [0, 0]
    found = state.get("thing", CALLER, "a")
    assert found is not None and found.document["count"] == 100


def test_a_killed_process_loses_nothing_that_it_had_committed(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    program = (
        "import sys, time; from pathlib import Path\n"
        "from byoa.local.storage.state import State; from byoa.local.settings import Caller\n"
        "state = State(Path(sys.argv[1])); caller = Caller('1', 'r')\n"
        "for number in range(10**6):\n"
        "    state.create('thing', caller, str(number), arn='', status='', document={})\n"
        "    print(number, flush=True)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    for _ in range(40):
        last = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    last = max([last, *(int(line) for line in child.stdout.read().split())])
    child.stdout.close()
    child.wait(10)

    state = State(path)
    names = {row.name for row in state.list("thing")}
    state.close()
    assert {str(number) for number in range(last + 1)} <= names


def test_deleting_takes_the_tags_along(state: State) -> None:
    made = make(state, "a")
    state.set_tags(made.arn, {"k": "v"})

    assert state.delete("thing", CALLER, "a") is True
    assert state.get("thing", CALLER, "a") is None
    assert state.tags(made.arn) == {}
    assert state.delete("thing", CALLER, "a") is False


def test_tags_keep_their_order_and_take_new_values(state: State) -> None:
    state.set_tags("arn:x", {"b": "1", "a": "2"})
    state.set_tags("arn:x", {"b": "3", "c": ""})
    state.remove_tags("arn:x", ["a", "none"])

    assert list(state.tags("arn:x").items()) == [("b", "3"), ("c", "")]
    assert state.tags("arn:y") == {}


def test_who_waits_is_woken_by_any_change(state: State) -> None:
    assert state.wait_for_change(0.01) is False
    since = state.changes
    thread = threading.Thread(target=make, args=(state, "a"))
    thread.start()
    assert state.wait_for_change(10.0, since) is True
    thread.join(10)
    # A change before the wait is not missed.
    assert state.wait_for_change(0.0, since) is True


def test_a_file_of_another_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    State(path).close()
    database = sqlite3.connect(path)
    database.execute("UPDATE schema_version SET version = 99")
    database.commit()
    database.close()

    with pytest.raises(ByoaError, match="schema version 99.*expected: version 1.*BYOA_HOME"):
        State(path)
