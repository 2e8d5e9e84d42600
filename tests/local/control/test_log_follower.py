"""Following a growing file: every line once, in order, whatever the sinks do."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from byoa.local.control.log_follower import LogFollower, mirror_path
from byoa.local.settings import Caller


@pytest.fixture
def follow(tmp_path: Path) -> Any:
    followers = []

    def start(*sinks: Any) -> tuple[LogFollower, Path]:
        follower = LogFollower(tmp_path / "log", *sinks, poll=0.01)
        followers.append(follower)
        follower.start()
        return follower, tmp_path / "log"

    yield start
    for follower in followers:
        follower.finish(10)


def wait(test: Any) -> None:
    end = time.monotonic() + 10
    while not test():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_lines_are_handed_on_while_the_file_grows(follow: Any) -> None:
    seen: list[tuple[float, str]] = []
    follower, path = follow(seen.extend)
    with path.open("w") as file:  # made after the follower has started
        file.write("one\ntw")
        file.flush()
        wait(lambda: len(seen) == 1)
        file.write("o\nthree")
    follower.finish()

    assert [line for _, line in seen] == ["one", "two", "three"]
    assert [moment for moment, _ in seen] == sorted(moment for moment, _ in seen)


def test_characters_and_lines_cut_by_a_write_are_put_together(follow: Any) -> None:
    seen: list[tuple[float, str]] = []
    follower, path = follow(seen.extend)
    with path.open("wb", buffering=0) as file:
        for byte in "né 🙂\nx\n".encode():
            file.write(bytes([byte]))
            time.sleep(0.002)
    follower.finish()

    assert [line for _, line in seen] == ["né 🙂", "x"]


def test_a_fast_writer_loses_nothing(follow: Any) -> None:
    seen: list[tuple[float, str]] = []
    follower, path = follow(seen.extend)

    def write() -> None:
        with path.open("w") as file:
            for number in range(50_000):
                file.write(f"{number}\n")

    thread = threading.Thread(target=write)
    thread.start()
    thread.join(30)
    follower.finish()

    assert [line for _, line in seen] == [str(number) for number in range(50_000)]


def test_a_file_that_never_comes_is_no_lines(follow: Any) -> None:
    seen: list[Any] = []
    follow(seen.extend)[0].finish()

    assert seen == []


def test_a_sink_that_fails_is_reported_once_and_does_not_stop_the_others(
    follow: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[tuple[float, str]] = []

    calls = []

    def broken(events: Any) -> None:
        calls.append(events)
        raise RuntimeError("broken sink")

    follower, path = follow(broken, seen.extend)
    path.write_text("a\n")
    wait(lambda: seen)
    path.write_text("a\nb\n")
    follower.finish()

    assert [line for _, line in seen] == ["a", "b"]
    assert caplog.text.count("RuntimeError: broken sink") == 1
    assert len(calls) == 2


def test_lines_from_before_the_start_have_the_files_time(follow: Any, tmp_path: Path) -> None:
    seen: list[tuple[float, str]] = []
    (tmp_path / "log").write_text("old\n")
    os.utime(tmp_path / "log", (1_000_000, 1_000_000))
    follower, path = follow(seen.extend)
    wait(lambda: seen)
    with path.open("a") as file:
        file.write("new\n")
    follower.finish()

    assert seen[0] == (1_000_000, "old")
    assert seen[1][0] > 1_000_000_000


def test_the_mirror_has_the_streams_path() -> None:
    """WIRE-42."""
    path = mirror_path(Path("/h"), Caller("1", "r"), "/aws/sagemaker/TrainingJobs", "j/algo-1-5")

    assert path == Path("/h/logs/1/r/aws/sagemaker/TrainingJobs/j/algo-1-5")
