"""What the supervisor passes on: bytes as they come, and signals to a whole group (pain 9)."""

import os
import signal
import sys
import threading

import pytest

from byoa.container.supervisor import Exit, Supervisor, run

LIMIT = 30.0  # seconds that no test here needs


def python(text):
    return [sys.executable, "-c", text]


def test_the_bytes_are_handed_on_as_they_come_and_the_lines_besides():
    seen, lines = [], []
    ended = run(
        python("import os; os.write(1, b'a\\xff\\r'); os.write(2, b'b\\n\\nno end')"),
        env=dict(os.environ), on_line=lines.append, tee=seen.append,
    )
    assert ended.code == 0
    assert b"".join(seen) == b"a\xff\rb\n\nno end"
    assert lines == ["a\ufffd\rb", "", "no end"]


def test_an_error_of_the_one_who_takes_the_bytes_is_raised_at_the_end():
    def refuse(data):
        raise BrokenPipeError("nobody reads")

    with pytest.raises(BrokenPipeError, match="nobody reads"):
        run(python("print('x' * 1_000_000)"), env=dict(os.environ), on_line=lambda line: None,
            tee=refuse)


def group_started(inner, **options):
    """A shell that waits for a Python program, which is ready."""
    lines, ready = [], threading.Event()

    def on_line(line):
        lines.append(line)
        if line == "ready":
            ready.set()

    child = Supervisor(
        ["/bin/sh", "-c", '"$0" -c "$1"; echo after', sys.executable, inner],
        env=dict(os.environ), on_line=on_line, group=True, **options,
    )
    child.start()
    assert ready.wait(LIMIT)
    return child, lines


SAVES = """
import os, signal, sys, time
def save(*_):
    time.sleep({pause})
    os.write(1, b"saved\\n")
    sys.exit()
signal.signal(signal.SIGTERM, save)
os.write(1, b"ready\\n")
time.sleep(60)
"""


def test_a_group_gets_the_signal_and_the_rest_of_the_grace_when_its_shell_has_died():
    child, lines = group_started(SAVES.format(pause=6), drain=0.1)
    child.terminate()
    ended = child.wait(LIMIT)
    assert lines == ["ready", "saved"]
    assert (ended.code, ended.signal, ended.stopped) == (143, signal.SIGTERM, True)


def test_what_outlasts_the_grace_of_its_group_is_killed():
    child, lines = group_started(SAVES.format(pause=50), drain=0.1, stop_grace=0.5)
    child.terminate()
    assert child.wait(LIMIT).signal == signal.SIGTERM
    assert lines == ["ready"]


def test_a_group_that_nobody_stopped_is_waited_for_only_by_the_drain():
    child = Supervisor(
        ["/bin/sh", "-c", "sleep 60 &"], env=dict(os.environ), on_line=lambda line: None,
        group=True, drain=0.1,
    )
    child.start()
    ended = child.wait(LIMIT)  # which is less than the sleep
    assert (ended.code, ended.stopped) == (0, False)


def test_an_exit_tells_whether_it_was_asked_for():
    assert Exit.from_json(Exit(0, stopped=True).to_json()).stopped
    assert not Exit.from_json({"code": 1}).stopped, "as an earlier version wrote it"
