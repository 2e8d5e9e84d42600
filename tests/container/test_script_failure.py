"""The failure of a script, read from the end of its output (TRAIN-141, TK-10, TRAP-23, TRAP-24).

Every output is what a real Python printed.
"""

import signal
import subprocess
import sys
import textwrap

import pytest

from byoa.container.script_failure import last_exception, report
from byoa.container.supervisor import Exit

FAILED = Exit(1, seconds=3.0, peak_rss_bytes=2_000_000_000)


@pytest.fixture
def printed(tmp_path):
    """The lines that a script prints until it fails."""

    def run(source, name="train.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(source))
        done = subprocess.run(
            [sys.executable, name], cwd=tmp_path, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=60,
        )
        assert done.returncode != 0
        return done.stdout.splitlines()

    return run


def test_the_exception_its_message_and_its_line_come_first(printed, tmp_path):
    lines = printed("""
        print("epoch 1", flush=True)
        def fit():
            raise ValueError("bad shape: (3, 4)")
        fit()
    """)
    text = report("train.py", tmp_path, FAILED, lines, 0)
    assert text.splitlines()[:2] == [
        "ValueError: bad shape: (3, 4) at train.py:4 in fit:"
        ' raise ValueError("bad shape: (3, 4)")',
        "train.py exited with code 1 after 3 s, peak memory 2 GB",
    ]
    assert "Traceback (most recent call last)" in text
    assert len(text) <= 1024


def test_the_line_is_the_script_s_and_not_the_library_s(printed, tmp_path):
    lines = printed("import json\njson.loads('{')\n")
    text = report("train.py", tmp_path, FAILED, lines, 0)
    assert text.startswith("json.decoder.JSONDecodeError: Expecting property name")
    assert "at train.py:2 in <module>: json.loads('{')" in text.splitlines()[0]


def test_a_module_in_a_folder_is_named_with_it(printed, tmp_path):
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "dense.py").write_text("def f():\n    1 / 0\n")
    lines = printed("from layers import dense\ndense.f()\n")
    assert report("train.py", tmp_path, FAILED, lines, 0).startswith(
        "ZeroDivisionError: division by zero at layers/dense.py:2 in f: 1 / 0"
    )


def test_of_chained_exceptions_the_last_is_taken(printed):
    lines = printed("""
        try:
            {}["a"]
        except KeyError as error:
            raise RuntimeError("no a") from error
    """)
    found = last_exception(lines)
    assert (found.name, found.message, found.frames[-1].line) == ("RuntimeError", "no a", 5)


def test_a_worker_s_traceback_inside_the_message_is_the_cause(printed):
    lines = printed("""
        import traceback
        def load():
            raise KeyError("image_7")
        try:
            load()
        except KeyError:
            text = traceback.format_exc()
        raise RuntimeError("worker 3 failed\\nOriginal " + text)
    """)
    found = last_exception(lines)
    assert (found.name, found.message) == ("KeyError", "'image_7'")
    assert found.frames[-1].function == "load"


def test_an_error_of_syntax_names_file_and_line(printed, tmp_path):
    lines = printed("x = 1\nif x\n    pass\n")
    assert report("train.py", tmp_path, FAILED, lines, 0).startswith(
        "SyntaxError: expected ':' at train.py:2: if x"
    )


def test_a_missing_module_names_the_importing_line(printed, tmp_path):
    lines = printed("import os\nimport not_in_the_image\n")
    assert report("train.py", tmp_path, FAILED, lines, 0).startswith(
        "ModuleNotFoundError: No module named 'not_in_the_image' at train.py:2 in <module>"
    )


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_an_exception_group_names_its_line(printed):
    lines = printed("""
        raise ExceptionGroup("two", [ValueError("a"), TypeError("b")])
    """)
    found = last_exception(lines)
    assert found.name == "ExceptionGroup" and found.message.startswith("two (2 sub-exceptions)")
    assert found.frames[-1].line == 2


def test_a_message_of_many_lines_keeps_the_place_in_the_first_line(printed, tmp_path):
    lines = printed("raise ValueError('first\\n' + 'more\\n' * 50)")
    text = report("train.py", tmp_path, FAILED, lines, 0)
    assert text.startswith("ValueError: first at train.py:1 in <module>: ")
    assert text.splitlines()[1] == "more"
    assert "train.py exited with code 1" in text


def test_lines_after_the_traceback_do_not_hide_it(printed, tmp_path):
    lines = printed("""
        import atexit
        atexit.register(lambda: print("uploading logs: done"))
        raise ValueError("x")
    """)
    assert report("train.py", tmp_path, FAILED, lines, 0).startswith(
        "ValueError: x at train.py:4 in <module>: "
    )


def test_an_exception_s_name_in_a_log_line_is_no_failure(printed, tmp_path):
    """No guess by substring (pain 2)."""
    lines = printed("""
        import logging, sys
        logging.error("retrying after ValueError: 503", stack_info=True)
        print("KeyError: handled", flush=True)
        sys.exit(3)
    """)
    assert last_exception(lines) is None
    text = report("train.py", tmp_path, Exit(3), lines, 0)
    assert text.startswith("train.py exited with code 3 and printed no traceback; its last lines:")
    assert "KeyError: handled" in text


def test_the_text_of_sys_exit_is_among_the_last_lines(printed, tmp_path):
    lines = printed("import sys\nsys.exit('no data in SM_CHANNEL_TRAIN')\n")
    text = report("train.py", tmp_path, FAILED, lines, 0)
    assert "its last lines: no data in SM_CHANNEL_TRAIN" in text


def test_an_abort_as_python_shuts_down_names_the_cure(tmp_path):
    """gloo's threads, where the process group was not destroyed."""
    ended = Exit(134, signal.SIGABRT)
    said = ["loss=0.1", "terminate called without an active exception"]
    text = report("train.py", tmp_path, ended, said, 0)
    assert text.startswith("SIGABRT: train.py was ended by signal 6: ")
    assert "call destroy_process_group() at its end" in text.splitlines()[0]
    assert "destroy_process_group" not in report("train.py", tmp_path, ended, said[:1], 0)


def test_no_output_at_all_is_said(tmp_path):
    assert "its last lines: none" in report("train.py", tmp_path, Exit(3), [], 0)


def test_a_kill_for_memory_is_said_first(tmp_path):
    """TRAP-24"""
    ended = Exit(137, 9, out_of_memory=True, seconds=60.0, peak_rss_bytes=7_600_000_000)
    text = report("train.py", tmp_path, ended, ["epoch 3"], 1)
    assert text.startswith("OutOfMemory: the kernel killed train.py for memory")
    assert "peak memory 7.6 GB" in text


def test_a_kill_without_evidence_is_a_signal(tmp_path):
    text = report("train.py", tmp_path, Exit(137, 9), ["epoch 3"], 0)
    assert text.startswith("SIGKILL: train.py was ended by signal 9")
    assert "memory; use" not in text


def test_a_worker_that_the_kernel_killed_is_mentioned(printed, tmp_path):
    lines = printed("raise RuntimeError('DataLoader worker (pid 7) is killed')")
    text = report("train.py", tmp_path, FAILED, lines, 2)
    assert text.startswith("RuntimeError: DataLoader worker (pid 7) is killed at train.py:1")
    assert "the kernel killed 2 process(es) of this container for memory" in text


def test_a_bus_error_points_at_shared_memory(tmp_path):
    """TRAP-24"""
    text = report("train.py", tmp_path, Exit(135, int(signal.SIGBUS)), [], 0)
    assert text.startswith("SIGBUS: ") and "/dev/shm" in text


def test_a_huge_message_stays_within_the_limit_with_its_place(printed, tmp_path):
    lines = printed("raise ValueError('x' * 100_000)")
    text = report("train.py", tmp_path, FAILED, lines, 0)
    assert len(text) <= 1024
    assert "x … at train.py:1 in <module>" in text
