"""Any uid gets what it needs; what it may not write or read is named (TRAIN-08, HOST-40)."""

import getpass
import os
import pickle
import shutil
import stat
import tempfile
import warnings
from pathlib import Path

import pytest

from byoa.container import account
from byoa.container.account import Account, become, make_writable, obstacle, settle, unreadable
from byoa.container.errors import ContractError

ROOT = os.geteuid() == 0
NOBODY = 65534
NAMELESS = 20_000 + os.getpid() % 40_000  # no passwd entry, and no other test process's


@pytest.fixture
def open_directory():
    """A directory that every user may pass through, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="byoa-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def in_child():
    """Runs a function in a process of its own, as `uid` where this one is root; what it returned
    or raised."""

    def run(function, uid=None):
        read, write = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # xdist has threads
            pid = os.fork()
        if pid == 0:
            try:
                if uid is not None and ROOT:
                    os.setgroups([])
                    os.setgid(uid)
                    os.setuid(uid)
                result = function()
            except BaseException as error:
                result = f"{type(error).__name__}: {error}"
            os.write(write, pickle.dumps(result))
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as file:
            data = file.read()
        os.waitpid(pid, 0)
        return pickle.loads(data)

    return run


# --- HOME, TMPDIR and a name ---


def test_a_home_that_can_be_written_is_left_alone(tmp_path):
    environ = {"HOME": str(tmp_path)}
    settle(environ)
    assert environ["HOME"] == str(tmp_path)
    assert "TMPDIR" not in environ


@pytest.mark.parametrize("home", [None, "", "/nowhere", "/proc"])
def test_a_home_that_cannot_be_written_is_replaced_by_one_that_can(home, in_child):
    """--user without a passwd entry: the engine sets HOME=/; --read-only: nothing but /tmp."""

    def child():
        environ = {} if home is None else {"HOME": home}
        settle(environ)
        with tempfile.TemporaryFile(dir=environ["HOME"]):
            return environ["HOME"]

    uid = NAMELESS if ROOT else os.geteuid()
    found = in_child(child, uid)
    if ROOT:
        assert found == f"/tmp/home-{NAMELESS}"
        assert stat.S_IMODE(os.stat(found).st_mode) == 0o700
        os.rmdir(found)
    else:
        assert os.access(found, os.W_OK)


def test_a_temporary_directory_is_looked_for_where_it_can_be_written(tmp_path, monkeypatch):
    """--read-only without a tmpfs leaves /dev/shm."""
    monkeypatch.setattr(account, "TEMPORARY", ("/nowhere", str(tmp_path)))
    environ = {"HOME": str(tmp_path)}
    settle(environ)
    assert environ["TMPDIR"] == str(tmp_path)
    environ = {"HOME": str(tmp_path), "TMPDIR": "/nowhere/else"}
    settle(environ)
    assert environ["TMPDIR"] == str(tmp_path)


@pytest.mark.skipif(not ROOT, reason="only root becomes another uid")
def test_a_uid_without_an_entry_has_a_name_for_libraries_that_ask(in_child):
    def child():
        os.environ.pop("LOGNAME", None)
        os.environ.pop("USER", None)
        settle()
        return getpass.getuser(), str(account.own())

    name, shown = in_child(child, NAMELESS)
    assert name == str(NAMELESS) and shown == f"uid {NAMELESS}"
    shutil.rmtree(f"/tmp/home-{NAMELESS}", ignore_errors=True)


# --- another user ---


@pytest.mark.skipif(not ROOT, reason="only root becomes another user")
def test_root_is_given_up_for_good(in_child):
    nobody = account.find("nobody")
    if why := obstacle(nobody):
        pytest.skip(why)

    def child():
        os.environ["HOME"] = "/root"
        become(nobody)
        try:
            os.setuid(0)
        except PermissionError:
            back = False
        else:
            back = True
        with tempfile.TemporaryFile(dir=os.environ["HOME"]):
            return os.getresuid(), os.getresgid(), 0 in os.getgroups(), back, os.environ["HOME"]

    uids, gids, in_root_s_group, back, home = in_child(child)
    assert set(uids) == {nobody.uid} and set(gids) == {nobody.gid}
    assert not in_root_s_group and not back
    assert home != "/root"


@pytest.mark.skipif(not ROOT, reason="a pipe changes hands by root")
def test_the_new_user_can_open_standard_output(in_child):
    """`open("/dev/stdout")` of a library or an author."""
    nobody = account.find("nobody")
    if why := obstacle(nobody):
        pytest.skip(why)

    def child():
        read, write = os.pipe()
        os.dup2(write, 1)
        become(nobody)
        with open("/dev/stdout", "w") as file:
            file.write("heard")
        return os.read(read, 5)

    assert in_child(child) == b"heard"


def test_only_root_can_become_another(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "this is uid 1000" in obstacle(Account("byoa", 1000, 1000, "/home/byoa"))


@pytest.mark.parametrize(("capabilities", "known", "why"), [
    ("00000000a80425fb", "0 0 4294967295", None),  # the engine's default
    ("0000000000000000", "0 0 4294967295", "no capability to change users"),  # --cap-drop ALL
    ("000001ffffffffff", "0 501 1", "this user namespace has no id 1000"),  # rootless
])
def test_a_root_that_cannot_change_users_is_told_why(
    tmp_path, monkeypatch, capabilities, known, why
):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name, text in (("STATUS", f"Name:\tpython\nCapEff:\t{capabilities}\n"),
                       ("USER_MAP", f"  {known}\n"), ("GROUP_MAP", f"  {known}\n")):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(account, name, tmp_path / name)
    found = obstacle(Account("byoa", 1000, 1000, "/home/byoa"))
    assert found is None if why is None else why in found


def test_a_user_is_found_by_name():
    assert account.find("root") == Account("root", 0, 0, account.find("root").home)
    assert account.find("no-such-user") is None


# --- writing and reading ---


def test_a_directory_is_made(tmp_path):
    make_writable(tmp_path / "output" / "data")
    assert (tmp_path / "output" / "data").is_dir()


def test_a_file_in_a_directory_s_place_is_named(tmp_path):
    (tmp_path / "model").write_text("")
    with pytest.raises(ContractError, match="DIRECTORY_EXPECTED"):
        make_writable(tmp_path / "model")


def test_a_directory_of_another_s_is_named_with_owner_uid_and_cure(open_directory, in_child):
    """TRAIN-08: the platform's files are root's, and --user is not."""
    (open_directory / "model").mkdir(mode=0o555)
    for directory in (open_directory / "model", open_directory / "model" / "deeper"):
        said = in_child(lambda path=directory: make_writable(path), NOBODY)
        uid = NOBODY if ROOT else os.geteuid()
        assert f"uid {uid} (gid " in said and f"cannot write to {directory}: " in said
        assert f"of uid {os.geteuid()}, mode 0555" in said
        assert f"chown -R {uid}:" in said and "[DIRECTORY_NOT_WRITABLE]" in said


def test_the_first_file_that_may_not_be_read_is_found(open_directory, in_child):
    (open_directory / "a").write_text("")
    (open_directory / "gone").symlink_to(open_directory / "nothing")
    assert unreadable(open_directory) is None
    (open_directory / "code").mkdir()
    (open_directory / "code" / "b.py").write_text("")
    (open_directory / "code" / "b.py").chmod(0o200)
    assert in_child(lambda: unreadable(open_directory), NOBODY) == open_directory / "code" / "b.py"
    (open_directory / "code").chmod(0o200)
    assert in_child(lambda: unreadable(open_directory), NOBODY) == open_directory / "code"
    (open_directory / "code").chmod(0o700)
