"""Directories that a server's workers share."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from byoa.container.errors import ContractError
from byoa.serve.shared_directories import SharedDirectories

SERVER = """
import sys, time
from byoa.serve.shared_directories import SharedDirectories
path = SharedDirectories(None).make("byoa-models-")
(path / "resnet").mkdir()
print(path, flush=True)
time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def server(folder):
    """A process with a directory of its own, and that directory."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(folder)}, start_new_session=True,
    ) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_a_directory_is_the_server_s_alone_and_goes_with_it(folder):
    directories = SharedDirectories(None)
    path = directories.make("byoa-models-")
    assert path.parent == folder and path.stat().st_mode & 0o777 == 0o700
    (path / "resnet").write_text("x")
    directories.remove()
    assert not list(folder.iterdir())


def test_what_a_killed_server_has_left_goes_when_the_next_one_starts(folder, server):
    process, left = server
    assert (left / "resnet").is_dir()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    assert left.is_dir()
    SharedDirectories(None).make("byoa-models-")
    assert not left.exists()
    assert len(list(folder.iterdir())) == 2  # the new one and its lock


def test_what_a_living_server_has_stays(folder, server):
    _, path = server
    SharedDirectories(None).make("byoa-models-")
    assert (path / "resnet").is_dir()


def test_what_others_have_named_alike_stays(folder):
    (folder / "byoa-models-mine").mkdir()
    SharedDirectories(None).make("byoa-models-")
    assert (folder / "byoa-models-mine").is_dir()


def test_what_is_named_like_a_lock_and_is_none_holds_up_nobody(folder):
    os.mkfifo(folder / "byoa-models-x.lock")
    (folder / "byoa-models-y.lock").symlink_to(folder / "nowhere")
    assert SharedDirectories(None).make("byoa-models-").is_dir()


def test_where_there_are_no_locks_a_directory_is_made_and_never_taken_for_left_over(
    folder, monkeypatch
):
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    path = SharedDirectories(None).make("byoa-models-")
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert list(folder.iterdir()) == [path]
    SharedDirectories(None).make("byoa-models-")
    assert path.is_dir()


def test_an_author_s_directory_is_made_and_stays(tmp_path):
    directories = SharedDirectories(None)
    path = tmp_path / "deep" / "sessions"
    assert directories.of_the_author(str(path)) == str(path)
    assert path.is_dir()
    directories.remove()
    assert path.is_dir()


def test_a_directory_that_cannot_be_made_is_an_error_that_names_its_variable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ContractError, match="SAGEMAKER_SESSIONS_PATH") as caught:
        SharedDirectories(None).of_the_author(str(tmp_path / "file" / "sessions"))
    assert caught.value.code == "SETTING_INVALID"
