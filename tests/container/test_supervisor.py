"""The supervisor, with real processes only (TRAIN-144, TRAIN-150, TRAP-05, TRAP-24)."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from byoa.container import supervisor as module
from byoa.container.supervisor import Exit, Supervisor, run

LIMIT = 30.0  # seconds that no test here needs


# A handler that prints must not come in between of another print: the "up" of a child whose handler
# prints goes past Python's buffer.
UP = "import os; os.write(1, b'up\\n')\n"


def python(text):
    return [sys.executable, "-c", text]


def collect(argv, **options):
    lines = []
    ended = run(argv, env=dict(os.environ), on_line=lines.append, **options)
    return ended, lines


def started(text, **options):
    """A started child that has printed its first line, and the list of its lines."""
    lines, first = [], threading.Event()

    def on_line(line):
        lines.append(line)
        first.set()

    child = Supervisor(python(text), env=dict(os.environ), on_line=on_line, **options)
    child.start()
    assert first.wait(LIMIT)
    return child, lines


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def gone(pid):
    deadline = time.monotonic() + LIMIT
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid)


def test_stdout_and_stderr_arrive_merged_in_order_and_the_code_is_the_child_s():
    ended, lines = collect(python(
        "import os, sys\n"
        "for n in range(500): os.write(1 + n % 2, b'%d\\n' % n)\n"
        "sys.exit(7)"
    ))
    assert lines == [str(n) for n in range(500)]
    assert (ended.code, ended.signal, ended.out_of_memory) == (7, None, False)
    assert ended.seconds > 0


def test_a_megabyte_written_just_before_the_exit_is_not_lost():
    ended, lines = collect(python(
        "import os\n"
        "data = b''.join(b'line %07d\\n' % n for n in range(100_000))\n"
        "while data: data = data[os.write(1, data):]\n"
        "os._exit(0)"
    ))
    assert ended.code == 0
    assert lines == [f"line {n:07d}" for n in range(100_000)]


def test_a_last_line_without_newline_and_empty_lines_are_delivered():
    _, lines = collect(python("import os; os.write(1, b'a\\n\\nb\\r\\nc')"))
    assert lines == ["a", "", "b", "c"]


def test_silence_is_no_line():
    ended, lines = collect(python("pass"))
    assert (ended.code, lines) == (0, [])


def test_a_very_long_line_is_split_without_loss_and_not_inside_a_character():
    # three bytes each, so that 256 KiB falls inside a character
    _, lines = collect(python(
        "import sys\n"
        "sys.stdout.reconfigure(encoding='utf-8')\n"
        "sys.stdout.write('€' * 200_000 + '\\nend')"
    ))
    assert "".join(lines[:-1]) == "€" * 200_000
    assert lines[-1] == "end"
    assert [len(line.encode()) <= module.LINE_LIMIT_BYTES for line in lines] == [True] * len(lines)
    assert len(lines) == 4


def test_a_line_of_exactly_the_limit_is_one_line():
    _, lines = collect(python(f"print('x' * {module.LINE_LIMIT_BYTES}); print('y')"))
    assert [len(line) for line in lines] == [module.LINE_LIMIT_BYTES, 1]


def test_invalid_utf8_is_replaced():
    _, lines = collect(python("import os; os.write(1, b'a\\xffb\\xe2\\x82\\n')"))
    assert lines == ["a\ufffdb\ufffd"]


def test_arguments_reach_the_child_unchanged():
    """No shell is between (pain 11)."""
    values = ["a b", "$(touch x)", "it's", '"q"', "line\nbreak", ""]
    _, lines = collect([*python("import sys; print(sys.argv[1:])"), *values])
    assert lines == [repr(values)]


def test_environment_and_directory_are_the_given_ones(tmp_path):
    lines = []
    run(python("import os; print(os.getcwd(), os.environ.get('A'), os.environ.get('HOME'))"),
        env={"A": "1"}, cwd=tmp_path, on_line=lines.append)
    assert lines == [f"{tmp_path} 1 None"]


def test_a_program_that_does_not_exist_raises_and_leaks_no_descriptor():
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        collect(["/nowhere/at/all"])
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_descriptor_is_left_after_a_run():
    collect(python("pass"))
    before = len(os.listdir("/proc/self/fd"))
    collect(python("print(1)"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_death_by_signal_is_128_plus_its_number():
    """TRAIN-144"""
    ended, _ = collect(python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"))
    assert (ended.code, ended.signal) == (139, signal.SIGSEGV)


def test_a_kill_from_elsewhere_is_137_but_not_called_out_of_memory():
    """TRAP-24: 137 alone is no evidence."""
    ended, _ = collect(python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))
    assert (ended.code, ended.signal, ended.out_of_memory) == (137, signal.SIGKILL, False)


def test_a_kill_while_the_kernel_counted_a_memory_kill_is_out_of_memory(monkeypatch):
    counts = iter([3, 4])
    monkeypatch.setattr(module, "oom_kills", lambda: next(counts))
    ended, _ = collect(python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))
    assert ended.out_of_memory


def test_our_own_kill_is_not_out_of_memory_whatever_the_kernel_counted(monkeypatch):
    counts = iter([3, 4])
    monkeypatch.setattr(module, "oom_kills", lambda: next(counts))
    child, _ = started("import time; print('up', flush=True); time.sleep(100)")
    child.kill()
    ended = child.wait(LIMIT)
    assert (ended.code, ended.out_of_memory) == (137, False)


MEMORY_GROUP = Path("/sys/fs/cgroup/memory")


def test_a_real_out_of_memory_kill_is_told_from_the_counter(tmp_path):
    """The kernel kills the child of a 64 MiB cgroup (v1, or v2 with the memory controller)."""
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    group = (MEMORY_GROUP.parent if unified else MEMORY_GROUP) / f"byoa-test-{os.getpid()}"
    try:
        group.mkdir()
        name = "memory.max" if unified else "memory.limit_in_bytes"
        (group / name).write_text(str(64 << 20))
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    program = (
        "import os, sys\n"
        "open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid()))\n"
        "from byoa.container.supervisor import run\n"
        "ended = run([sys.executable, '-c', 'x = bytearray(200 << 20)'],"
        " env=dict(os.environ), on_line=print)\n"
        "print(ended.code, ended.out_of_memory)\n"
    )
    try:
        answer = subprocess.run(
            [*python(program), str(group)], capture_output=True, text=True, timeout=LIMIT
        )
    finally:
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            try:
                group.rmdir()
                break
            except OSError:  # the last process is still on its way out
                time.sleep(0.02)
    assert answer.stdout.split() == ["137", "True"], answer.stderr


def test_peak_memory_is_the_child_s():
    """Measured from a small process: the kernel counts a child from its parent's size at fork."""
    code = (
        "import os, sys\n"
        "from byoa.container.supervisor import run\n"
        "for size in (0, 150 << 20):\n"
        "    work = f\"x = bytearray({size}); x[::4096] = b'1' * len(x[::4096])\"\n"
        "    ended = run([sys.executable, '-c', work], env=dict(os.environ), on_line=print)\n"
        "    print(ended.peak_rss_bytes)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT
    )
    small, large = (int(line) for line in answer.stdout.split())
    assert large > 150 << 20
    assert 0 < small < 100 << 20


def test_the_child_leads_its_own_session_and_group():
    child, lines = started(
        "import os, time; print(os.getpid(), os.getpgrp(), os.getsid(0), flush=True)"
    )
    child.wait(LIMIT)
    assert lines == [f"{child.pid} {child.pid} {child.pid}"]


def test_a_grandchild_that_holds_the_pipe_delays_the_end_only_by_the_drain_and_is_killed():
    child, lines = started(
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
        "print(p.pid, flush=True)", drain=0.2,
    )
    ended = child.wait(LIMIT)
    assert ended is not None and ended.code == 0
    assert gone(int(lines[0]))


def test_a_grandchild_may_finish_its_output_after_the_child():
    ended, lines = collect(python(
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c',"
        " 'import time; time.sleep(0.3); print(\"late\")'])"
    ))
    assert (ended.code, lines) == (0, ["late"])


def test_a_grandchild_in_a_session_of_its_own_does_not_hang_us():
    child, lines = started(
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'],"
        " start_new_session=True)\n"
        "print(p.pid, flush=True)", drain=0.2,
    )
    try:
        assert child.wait(LIMIT).code == 0
    finally:
        os.kill(int(lines[0]), signal.SIGKILL)


def test_a_grandchild_that_floods_from_its_own_session_does_not_hang_us():
    child, lines = started(
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c',"
        " 'while True: print(\"noise\" * 100)'], start_new_session=True,"
        " stderr=subprocess.DEVNULL)\n"
        "print(p.pid, flush=True)", drain=0.1,
    )
    assert child.wait(LIMIT).code == 0
    assert gone(int(next(line for line in lines if line.isdigit())))  # by SIGPIPE


def test_a_daemon_without_our_pipe_is_killed_with_the_group():
    child, lines = started(
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'],"
        " stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(p.pid, flush=True)"
    )
    child.wait(LIMIT)
    assert gone(int(lines[0]))


def test_a_child_that_closes_its_output_is_still_waited_for():
    ended, lines = collect(python(
        "import os, time\nos.write(1, b'x')\nos.close(1); os.close(2)\n"
        "time.sleep(0.3)\nos._exit(5)"
    ))
    assert (ended.code, lines) == (5, ["x"])


def test_wait_returns_none_while_the_child_runs_and_the_same_exit_ever_after():
    child, _ = started("import sys; print('up', flush=True); import time; time.sleep(0.5)")
    assert child.wait(0) is None
    ended = child.wait(LIMIT)
    assert ended.code == 0
    assert child.wait(0) is ended
    child.terminate()  # after the end: nothing to do
    child.kill()


def test_terminate_reaches_the_child_which_may_exit_in_its_own_way():
    """TRAIN-150"""
    child, lines = started(
        "import signal, sys, time\n"
        "def stop(*_): print('saved'); sys.exit(3)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        + UP +
        "time.sleep(100)"
    )
    child.terminate()
    ended = child.wait(LIMIT)
    assert (ended.code, ended.signal, lines) == (3, None, ["up", "saved"])


def test_a_child_that_ignores_sigterm_is_killed_with_its_group_after_the_grace():
    """TRAIN-150: a second SIGTERM does not restart the clock."""
    child, lines = started(
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(1000)", stop_grace=0.4,
    )
    child.terminate()
    child.terminate()
    ended = child.wait(LIMIT)
    assert (ended.code, ended.signal, ended.out_of_memory) == (137, signal.SIGKILL, False)
    assert gone(int(lines[0]))


def test_a_line_handler_that_fails_does_not_block_the_child_and_its_error_is_raised():
    def full(line):
        raise OSError(28, "No space left on device")

    child = Supervisor(python("print('x' * 1_000_000)"), env={}, on_line=full)
    child.start()
    with pytest.raises(OSError, match="No space left"):
        child.wait(LIMIT)
    assert child.wait(0).code == 0


def test_a_child_is_started_once():
    child, _ = started("print('up')")
    with pytest.raises(RuntimeError, match="once"):
        child.start()
    child.wait(LIMIT)


RUNNER = (
    "import os, signal, sys\n"
    "from byoa.container.supervisor import run\n"
    "mine = lambda *_: print('parent saw it', flush=True)\n"
    "signal.signal(signal.SIGTERM, mine)\n"
    "ended = run([sys.executable, '-c', sys.argv[1]], env=dict(os.environ),\n"
    "            on_line=lambda line: print(line, flush=True), stop_grace=float(sys.argv[2]))\n"
    "print(ended.code, signal.getsignal(signal.SIGTERM) is mine,\n"
    "      signal.getsignal(signal.SIGINT) is signal.default_int_handler, flush=True)\n"
)


def runner(child, grace=100.0):
    return subprocess.Popen(
        [*python(RUNNER), child, str(grace)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_forwards_signals_and_restores_the_handlers(number):
    child = (
        "import signal, sys, time\n"
        f"def stop(n, _): print('child got', n, flush=True); sys.exit(0)\n"
        f"signal.signal({int(number)}, stop)\n"
        + UP +
        "time.sleep(100)"
    )
    with runner(child) as process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        output, _ = process.communicate(timeout=LIMIT)
    assert output.splitlines() == [f"child got {int(number)}", "0 True True"]


def test_a_second_signal_is_forwarded_too_and_breaks_nothing():
    child = (
        "import signal, sys, time\n"
        "seen = []\n"
        "def stop(n, _):\n"
        "    seen.append(n); os.write(1, f'got {len(seen)}\\n'.encode())\n"
        "    if len(seen) == 3: sys.exit(9)\n"
        "signal.signal(signal.SIGTERM, stop); signal.signal(signal.SIGINT, stop)\n"
        + UP +
        "while True: time.sleep(0.05)"
    )
    with runner(child) as process:
        assert process.stdout.readline() == "up\n"
        for count, number in enumerate((signal.SIGTERM, signal.SIGINT, signal.SIGTERM), 1):
            process.send_signal(number)
            assert process.stdout.readline() == f"got {count}\n"
        output, _ = process.communicate(timeout=LIMIT)
    assert output == "9 True True\n"


def test_run_kills_a_child_that_ignores_the_forwarded_signal():
    child = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('up', flush=True)\n"
        "time.sleep(1000)"
    )
    with runner(child, grace=0.3) as process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=LIMIT)
    assert output == "137 True True\n"


def test_run_sees_a_signal_that_does_not_interrupt_its_waiting():
    """As when it comes the moment before the main thread begins to wait: Python's handler runs
    in that thread alone, once it runs again."""
    code = (
        "import os, signal, sys, threading\n"
        "from byoa.container.supervisor import run\n"
        "def to_this_thread(line):\n"
        "    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)\n"
        "ended = run([sys.executable, '-c', sys.argv[1]], env=dict(os.environ),\n"
        "            on_line=to_this_thread)\n"
        "print(ended.code)\n"
    )
    child = "import time; print('up', flush=True); time.sleep(1000)"
    answer = subprocess.run(
        [sys.executable, "-c", code, child], capture_output=True, text=True, timeout=LIMIT
    )
    assert answer.stdout == "143\n", answer.stderr


def test_run_outside_the_main_thread_needs_an_empty_forward():
    results = []

    def work():
        try:
            collect(python("pass"))
        except ValueError as error:
            results.append(str(error))
        results.append(collect(python("pass"), forward=())[0].code)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(LIMIT)
    assert "main thread" in results[0]
    assert results[1] == 0


def test_it_works_where_the_kernel_has_no_pidfd(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    ended, lines = collect(python("print('x')"))
    assert (ended.code, lines) == (0, ["x"])


def test_it_works_where_python_has_no_waitid(monkeypatch):
    monkeypatch.delattr(os, "waitid", raising=False)
    ended, lines = collect(python("print('x'); raise SystemExit(4)"))
    assert (ended.code, lines) == (4, ["x"])


def test_a_child_reaped_by_somebody_else_ends_with_a_code_that_is_no_success():
    child, _ = started(
        "import subprocess, sys; print('up', flush=True)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(0.7)'])"
    )
    os.waitpid(child.pid, 0)  # while the supervisor still waits for the grandchild's output
    assert child.wait(LIMIT).code == module.EXIT_LOST


def test_an_exit_survives_json():
    ended = Exit(137, 9, True, 1.5, 1 << 20, 1_700_000_000.5)
    assert Exit.from_json({**ended.to_json(), "later": 1}) == ended
