"""FastFile channels, and that no write of a job ever reaches the bucket."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

pytestmark = pytest.mark.both_runners

# Everything that a program may try on a file of a channel, and what it says.
VANDAL = """
def attempt(what, path):
    try:
        what(path)
        return 'done'
    except OSError as error:
        return error.strerror
def write(path):
    with path.open('r+b') as file: file.write(b'CHANGED')
def damage(channel):
    found = {}
    path = ml / 'input/data' / channel / 'sub/a'
    for name, what in (
        ('chmod', lambda p: p.chmod(0o777)),
        ('write', write),
        ('append', lambda p: os.write(os.open(p, os.O_WRONLY | os.O_APPEND), b'more')),
        ('truncate', lambda p: os.truncate(p, 0)),
        ('utime', lambda p: os.utime(p, (0, 0))),
        ('xattr', lambda p: os.setxattr(p, 'user.byoa', b'1')),
        ('create', lambda p: p.with_name('new').touch()),
        ('rename', lambda p: p.rename(p.with_name('other'))),
        ('unlink', lambda p: p.unlink(missing_ok=True)),
        ('remove folder', lambda p: __import__('shutil').rmtree(p.parent)),
    ):
        found[name] = attempt(what, path)
    return found
"""


def opened(new_laboratory: Any, sandbox: str) -> Any:
    """"auto": containers have a private /opt/ml; "off": processes have none."""
    laboratory = new_laboratory(sandbox)
    if sandbox == "auto" and laboratory.runner.name == "process":
        if laboratory.runner.no_sandbox is not None:
            pytest.skip(f"no namespaces here: {laboratory.runner.no_sandbox}")
    return laboratory


@pytest.fixture
def boxed(new_laboratory: Any) -> Any:
    return opened(new_laboratory, "auto")


@pytest.fixture
def fast(channel: Any) -> Any:
    def build(name: str, uri: str, mode: str = "FastFile", **source: Any) -> dict[str, Any]:
        made: dict[str, Any] = channel(name, uri, InputMode=mode)
        made["DataSource"]["S3DataSource"].update(source)
        return made

    return build


def submit(
    laboratory: Any, training_request: Any, name: str, source: str, **members: Any
) -> None:
    laboratory.call("CreateTrainingJob", **training_request(
        name, AlgorithmSpecification=laboratory.program(source), **members,
    ))


def condition(laboratory: Any, key: str) -> tuple[bytes, int, int, Any]:
    """Bytes, mode and time of an object's file, and what the index says of it."""
    path = laboratory.buckets.path("tests", key)
    status = path.stat()
    return (
        path.read_bytes(), status.st_mode, status.st_mtime_ns,
        laboratory.buckets.stat("tests", key),
    )


def until_tidied(laboratory: Any) -> None:
    """The files go after the status is told."""
    assert all(run.join(10) for run in list(laboratory.training._runs.values()))


@pytest.mark.parametrize("mode", ["FastFile", "File"])
@pytest.mark.parametrize("sandbox", ["auto", "off"])
def test_no_write_of_a_job_reaches_the_bucket(
    new_laboratory: Any, training_request: Any, fast: Any, mode: str, sandbox: str
) -> None:
    """TRAIN-90, TRAIN-93: not as root either. A File channel is the job's own to write to."""
    laboratory = opened(new_laboratory, sandbox)
    laboratory.buckets.put_bytes("tests", "d/sub/a", b"original", content_type="text/csv")
    before = condition(laboratory, "d/sub/a")
    submit(
        laboratory, training_request, "vandal",
        VANDAL + "print(os.geteuid())\nprint(json.dumps(damage('train')))",
        InputDataConfig=[fast("train", "s3://tests/d/", mode)],
    )
    assert laboratory.wait("vandal")["TrainingJobStatus"] == "Completed"
    attempts = json.loads(laboratory.lines("vandal")[1])

    assert condition(laboratory, "d/sub/a") == before
    assert laboratory.keys("d") == ["d/sub/a"]
    if mode == "File":
        assert set(attempts.values()) <= {"done", "Operation not supported",
                                          "No such file or directory"}
        assert attempts["write"] == attempts["truncate"] == attempts["create"] == "done"
    elif sandbox == "auto" or laboratory.runner.name == "docker":
        assert set(attempts.values()) == {"Read-only file system"}
    if laboratory.runner.name == "docker":
        assert laboratory.lines("vandal")[0] == "0"


def test_a_fastfile_channel_is_the_objects_files(
    boxed: Any, training_request: Any, fast: Any
) -> None:
    """TRAIN-93: at the same path as in File mode, keys keep their structure; nothing is copied."""
    for key in ("d/a", "d/sub/b", "other"):
        boxed.buckets.put_bytes("tests", key, key.encode())
    submit(boxed, training_request, "whole", """
for name in ('folder', 'one'):
    here = ml / 'input/data' / name
    found = {str(p.relative_to(here)): [p.read_text(), p.stat().st_ino]
             for p in here.rglob('*') if p.is_file()}
    print(json.dumps(found))
""", InputDataConfig=[fast("folder", "s3://tests/d/"), fast("one", "s3://tests/d/sub/b")])
    assert boxed.wait("whole")["TrainingJobStatus"] == "Completed"

    def inode(key: str) -> int:
        return int(boxed.buckets.path("tests", key).stat().st_ino)

    folder, one = map(json.loads, boxed.lines("whole"))
    assert folder == {"a": ["d/a", inode("d/a")], "sub/b": ["d/sub/b", inode("d/sub/b")]}
    assert one == {"b": ["d/sub/b", inode("d/sub/b")]}
    until_tidied(boxed)
    assert not boxed.ml("whole").parent.exists()


def test_objects_that_change_meanwhile_do_not_change_under_the_job(
    boxed: Any, training_request: Any, fast: Any
) -> None:
    for name in ("replaced", "removed"):
        boxed.buckets.put_bytes("tests", f"d/{name}", b"before")
    submit(boxed, training_request, "steady", """
print('ready', flush=True)
while not (ml / 'input/go').exists(): time.sleep(0.02)
print({p.name: p.read_text() for p in sorted((ml / 'input/data/train').iterdir())})
""", InputDataConfig=[fast("train", "s3://tests/d/")])
    boxed.until_printed("steady", "ready")
    boxed.buckets.put_bytes("tests", "d/replaced", b"after")
    boxed.buckets.put_bytes("tests", "d/new", b"after")
    boxed.buckets.delete("tests", "d/removed")
    (boxed.ml("steady") / "input/go").touch()
    boxed.wait("steady")

    assert boxed.lines("steady")[1] == "{'removed': 'before', 'replaced': 'before'}"


def test_hosts_get_shards_of_a_fastfile_channel(
    boxed: Any, training_request: Any, fast: Any
) -> None:
    """TRAIN-100: the third host gets none."""
    for key in ("d/a", "d/b"):
        boxed.buckets.put_bytes("tests", key, b"1")
    submit(
        boxed, training_request, "shards",
        "print(sorted(p.name for p in (ml / 'input/data/train').iterdir()))",
        InputDataConfig=[fast("train", "s3://tests/d/", S3DataDistributionType="ShardedByS3Key")],
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 3, "VolumeSizeInGB": 1},
    )
    assert boxed.wait("shards")["TrainingJobStatus"] == "Completed"

    assert sorted(boxed.lines("shards")) == ["['a']", "['b']", "[]"]


def test_a_failed_job_keeps_its_files_but_no_input(
    boxed: Any, training_request: Any, fast: Any
) -> None:
    boxed.buckets.put_bytes("tests", "d/a", b"1")
    submit(boxed, training_request, "failed", "sys.exit(1)",
           InputDataConfig=[fast("train", "s3://tests/d/")])
    boxed.wait("failed")
    until_tidied(boxed)

    assert [each.name for each in boxed.ml("failed").parent.iterdir()] == ["ml"]
    assert boxed.get("d/a") == b"1"


@pytest.mark.process_only("it is about the server's side")
def test_what_not_everybody_may_read_is_copied(
    boxed: Any, training_request: Any, fast: Any
) -> None:
    """A program that has given up root reads it all the same, and the object stays private."""
    boxed.buckets.put_bytes("tests", "d/a", b"1")
    path = boxed.buckets.path("tests", "d/a")
    path.chmod(0o600)
    submit(
        boxed, training_request, "private",
        "p = ml / 'input/data/train/a'\nprint(oct(p.stat().st_mode), p.stat().st_ino)",
        InputDataConfig=[fast("train", "s3://tests/d/")],
    )
    boxed.wait("private")

    mode, inode = boxed.lines("private")[0].split()
    assert mode == "0o100444" and int(inode) != path.stat().st_ino
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.process_only("an engine shows directories by itself")
def test_a_read_only_directory_needs_no_root(tmp_path: Any) -> None:
    """In a user namespace; flags of the filesystem that it is on stay, as the kernel demands."""
    import subprocess
    import sys

    if os.geteuid() != 0:
        pytest.skip("this process is not root: the other tests have shown it")
    program = (
        "import ctypes, os, pathlib, tempfile\n"
        "from byoa.local.runners import sandbox\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"
        "home = pathlib.Path(tempfile.mkdtemp(dir='/dev/shm'))\n"  # nosuid, nodev
        "for name in ('ml/here', 'scratch', 'shown'): (home / name).mkdir(parents=True)\n"
        "(home / 'shown/a').write_text('1')\n"
        "sandbox.enter(home / 'ml', home / 'scratch', read_only=[(home / 'shown', 'here')])\n"
        "print(pathlib.Path('/opt/ml/here/a').read_text())\n"
        "try: pathlib.Path('/opt/ml/here/a').write_text('2')\n"
        "except OSError as error: print(error.strerror)\n"
        "(home / 'shown/a').unlink()\n"
        "import shutil; shutil.rmtree(home, ignore_errors=True)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, cwd="/",
    )
    if found.returncode != 0 and "Operation not permitted" in found.stderr:
        if "unshare" in found.stderr:
            pytest.skip("user namespaces are for root alone here")
    assert found.returncode == 0, found.stderr

    assert found.stdout.splitlines() == ["1", "Read-only file system"]
