"""Containers of an engine: how images are entered, ends, logs to the last byte, owners of files."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from byoa.container.errors import ByoaError
from byoa.local.runners.base import Limits

pytestmark = pytest.mark.docker

READY = "print('ready', flush=True)\n"


# --- entry (TRAIN-01 … TRAIN-03, HOST-01) --------------------------------------------------------


@pytest.fixture(scope="session")
def entry_images(build_image: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One image with ENTRYPOINT and CMD, one with neither and a program called `train`."""
    built = {}
    for name, lines in {
        "with-entrypoint": 'ENTRYPOINT ["echo", "own"]\nCMD ["default"]\nENV FROM_IMAGE=yes\n'
        'HEALTHCHECK CMD ["false"]\nVOLUME /opt/ml/model\nWORKDIR /srv\n',
        "without-entrypoint": 'RUN printf \'#!/bin/sh\\necho "${0##*/} $*"\\n\' > /usr/bin/train'
        " && chmod 755 /usr/bin/train && cp /usr/bin/train /usr/bin/serve\n",
    }.items():
        folder = tmp_path_factory.mktemp("images") / name
        folder.mkdir()
        (folder / "Dockerfile").write_text(f"ARG BASE_IMAGE\nFROM $BASE_IMAGE\n{lines}")
        built[name] = build_image(folder)
    return built


@pytest.mark.parametrize(
    ("image", "entrypoint", "command", "printed"),
    [
        ("with-entrypoint", None, ("train",), "own train\n"),
        ("with-entrypoint", None, ("--a", "b c"), "own --a b c\n"),
        ("with-entrypoint", ("echo", "other"), (), "other\n"),
        ("with-entrypoint", ("echo", "other"), ("x",), "other x\n"),
        ("without-entrypoint", None, ("train",), "train \n"),
        ("with-entrypoint", None, ("serve",), "own serve\n"),
        ("without-entrypoint", None, ("serve",), "serve \n"),
    ],
)
def test_entrypoint_and_command_are_the_service_s(
    docker_runner: Any, entry_images: Any, spec: Any, run: Any,
    image: str, entrypoint: Any, command: Any, printed: str,
) -> None:
    """TRAIN-01, TRAIN-02, TRAIN-03: `train` replaces CMD, an entrypoint replaces both."""
    box = spec("", image=entry_images[image], entrypoint=entrypoint, command=command)

    assert run(docker_runner, box).code == 0
    assert box.log.read_text() == printed


def test_an_image_without_the_program_ends_with_the_convention_s_code(
    docker_runner: Any, base_image: str, spec: Any, run: Any
) -> None:
    """TRAIN-144, TRAP-01: an exit like any other, with the engine's words in the log."""
    box = spec("", image=base_image, entrypoint=None, command=("serve",), port=8080)
    container = docker_runner.start(box)

    assert container.wait(0).code == 127
    assert container.address is None
    assert re.search(r"'serve' cannot be run: .*executable file not found", box.log.read_text())
    container.remove()


def test_what_the_image_sets_stays_and_nothing_of_the_server_comes_in(
    docker_runner: Any, engine: Any, entry_images: Any, spec: Any, run: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TRAIN-14, TRAIN-80, HW-02; a health check of the image is not run."""
    monkeypatch.setenv("AWS_PROFILE", "private")
    box = spec(
        "print(json.dumps(dict(os.environ))); print(os.getcwd(), socket.gethostname())",
        image=entry_images["with-entrypoint"], environment={"A": "1", "EMPTY": ""}, host="algo-1",
    )
    box = replace(box, entrypoint=("python3", "-c", "import socket\n" + box.entrypoint[2]))
    container = docker_runner.start(box)
    state = engine.api.inspect_container(container.id)
    assert container.wait(20).code == 0
    variables, place = box.log.read_text().splitlines()

    found = {name for name in eval(variables)} - {"LC_CTYPE"}
    assert found == {"PATH", "HOME", "HOSTNAME", "FROM_IMAGE", "A", "EMPTY",
                     "NVIDIA_VISIBLE_DEVICES"}
    assert place == "/srv algo-1"
    assert "Health" not in state["State"]
    container.remove()


# --- ends ----------------------------------------------------------------------------------------


def test_the_first_process_without_a_handler_ignores_sigterm(
    docker_runner: Any, spec: Any, start_ready: Any
) -> None:
    """TRAIN-150: it is PID 1, without an init before it, as on the service."""
    container = start_ready(docker_runner, spec(READY + "time.sleep(60)"))
    container.terminate()

    assert container.wait(0.5) is None
    began = time.monotonic()
    assert container.stop(0.1).signal == signal.SIGKILL
    assert time.monotonic() - began < 15
    container.remove()


def test_a_lack_of_memory_is_told_by_the_kernel(
    docker_runner: Any, spec: Any, run: Any
) -> None:
    """TRAIN-142: by the engine's flag, and not by the code 137, which a kill has, too."""
    hungry = spec("b'x' * (300 << 20)", limits=Limits(memory_bytes=64 << 20))
    ended = run(docker_runner, hungry)
    assert (ended.code, ended.signal, ended.out_of_memory) == (137, signal.SIGKILL, True)

    exits = run(docker_runner, spec("sys.exit(137)", "exits"))
    assert (exits.code, exits.out_of_memory) == (137, False)


def test_limits_are_the_instance_s_or_the_machine_s(
    docker_runner: Any, engine: Any, spec: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """TRAIN-182; what the machine lacks is said."""
    info = engine.info()
    small = docker_runner.start(spec(
        "print(os.statvfs('/dev/shm').f_blocks * os.statvfs('/dev/shm').f_frsize)", "small",
        limits=Limits(cpus=0.5, memory_bytes=1 << 30, shm_bytes=1 << 29),
    ))
    host = engine.api.inspect_container(small.id)["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"]) == (5 * 10**8, 1 << 30, 1 << 30)
    assert not caplog.records or "less than" not in caplog.text

    with caplog.at_level("INFO", "byoa.docker"):
        large = docker_runner.start(spec(
            "", "large",
            limits=Limits(cpus=info["NCPU"] + 1.0, memory_bytes=1 << 50, shm_bytes=1 << 49, gpus=0),
        ))
    host = engine.api.inspect_container(large.id)["HostConfig"]
    assert (host["NanoCpus"], host["Memory"]) == (0, 0)
    assert host["ShmSize"] == info["MemTotal"] // 2
    assert f"large: this machine has less than the instance type: {info['NCPU']} of" in caplog.text
    for container in (small, large):
        assert container.wait(20).code == 0
        container.remove()
    log = (spec("", "small").log).read_text()
    assert int(log) == 1 << 29


# --- logs ----------------------------------------------------------------------------------------


def test_a_burst_is_whole_and_in_order(docker_runner: Any, spec: Any, run: Any) -> None:
    """Lines, colours, progress bars, other scripts, a long line, no newline at the end."""
    box = spec(
        """
        out = sys.stdout.buffer
        for number in range(60_000):
            out.write(b'line %d of a burst of the kind that a verbose loop prints\\n' % number)
        out.write(b'\\x1b[31mred\\x1b[0m 10%\\r50%\\r100%\\n' + 'é 漢字'.encode() + b'\\n')
        out.write(b'x' * 300_000 + b'\\nthe end')
        """
    )
    assert run(docker_runner, box, 120.0).code == 0
    data = box.log.read_bytes()

    lines = data.split(b"\n")
    assert [int(line.split()[1]) for line in lines[:60_000]] == list(range(60_000))
    assert lines[60_000] == b"\x1b[31mred\x1b[0m 10%\r50%\r100%"
    assert lines[60_001].decode() == "é 漢字"
    assert lines[60_002] == b"x" * 300_000
    assert lines[60_003] == b"the end"


def test_both_streams_are_in_the_log_each_in_its_order(
    docker_runner: Any, spec: Any, run: Any
) -> None:
    box = spec(
        "for number in range(200):\n"
        "    print(number, file=sys.stdout if number % 2 else sys.stderr, flush=True)\n"
    )
    assert run(docker_runner, box).code == 0
    numbers = [int(line) for line in box.log.read_text().splitlines()]

    assert sorted(numbers) == list(range(200))
    for rest in (0, 1):  # two pipes have no common order
        assert [n for n in numbers if n % 2 == rest] == list(range(rest, 200, 2))


def test_a_log_goes_on_where_a_killed_server_left_it(
    docker_runner: Any, make_docker_runner: Any, spec: Any, tmp_path: Path, until: Any
) -> None:
    """Each byte once, wherever in a line the server was killed, for several servers in turn."""
    box = spec(
        "sys.stdout.write('first run\\n')\n"
        "for number in range(6000):\n"
        "    sys.stdout.write(f'{number} same same same\\n')\n"
        "    if number % 20 == 0: sys.stdout.flush(); time.sleep(0.002)\n"
    )
    box.log.write_text("before\n")  # of an earlier container that wrote to the same file
    server = (
        "import sys, time; from pathlib import Path, PosixPath\n"
        "from byoa.local.runners.base import ContainerSpec, Limits\n"
        "from byoa.local.runners.docker import DockerRunner\n"
        "runner = DockerRunner(Path(sys.argv[1]), labels={'byoa.test': 'runners'})\n"
        f"container = runner.adopt({{'name': 'box'}}) or runner.start({box!r})\n"
        "container.wait(60)\n"
    )
    for _ in range(3):
        size = box.log.stat().st_size
        child = subprocess.Popen([sys.executable, "-c", server, str(tmp_path / "home")])
        until(lambda size=size: box.log.stat().st_size > size)
        time.sleep(random.uniform(0.0, 0.1))
        child.kill()
        child.wait(10)
        with box.log.open("r+b") as file:  # as when it was killed in the middle of a line
            file.truncate(max(len("before\n"), box.log.stat().st_size - random.randrange(30)))
    container = make_docker_runner().adopt({"name": "box"})

    assert container.wait(60).code == 0
    assert box.log.read_text().splitlines() == [
        "before", "first run", *(f"{number} same same same" for number in range(6000))
    ]
    container.remove()


def test_the_log_of_a_container_that_ended_while_no_server_ran_is_read_later(
    docker_runner: Any, make_docker_runner: Any, engine: Any, spec: Any, until: Any
) -> None:
    box = spec("print('alone'); sys.exit(3)")
    # Started by hand under the runner's labels: nobody follows it.
    docker_runner.connect()
    labels = docker_runner._labels_of(box)
    made = engine.api.create_container(
        box.image, list(box.entrypoint[1:]), entrypoint=list(box.entrypoint[:1]), labels=labels,
        name=docker_runner._prefix + "box",
    )
    engine.api.start(made["Id"])
    engine.api.wait(made["Id"])
    assert not box.log.exists()

    adopted = make_docker_runner().adopt({"name": "box"})
    assert adopted.wait(0).code == 3
    assert box.log.read_text() == "alone\n"
    adopted.remove()


# --- owners --------------------------------------------------------------------------------------

UNPRIVILEGED = """
import os, shutil, sys
from pathlib import Path
from byoa.container.contract import Layout
from byoa.local.runners import engine
from byoa.local.runners.base import ContainerSpec
from byoa.local.runners.docker import DockerRunner

home, image, source = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
if os.geteuid() == 0:  # whoever uses the engine without being root is in its socket's group
    engine.connect().close()  # all is imported: root's Python may be closed to others
    os.setgroups([os.stat(engine.find()[0].removeprefix('unix://')).st_gid])
    os.setgid(65534)
    os.setuid(65534)
runner = DockerRunner(home, labels={'byoa.test': 'runners'})
layout = Layout(home / 'ml')
layout.create()
(layout.model / 'mine').write_text('server')
spec = ContainerSpec('box', image, (), layout.root, home / 'log',
                     entrypoint=('python3', '-c', source))
container = runner.start(spec)
if sys.argv[4] == 'wait':
    ended = container.wait(30)
    print(ended.code, sorted(path.name for path in layout.model.rglob('*')))
    print((layout.model / 'secret').read_text(), (layout.model / 'deep' / 'file').read_text())
    assert {path.lstat().st_uid for path in layout.root.rglob('*')} == {os.geteuid()}
container.remove()
shutil.rmtree(layout.root)
print('removed', os.listdir(home))
runner.close()
"""

LEAVES_ROOTS_FILES = """
import os, pathlib, sys, time
model = pathlib.Path('/opt/ml/model')
(model / 'secret').write_text('s')
os.chmod(model / 'secret', 0)
(model / 'deep').mkdir()
(model / 'deep' / 'file').write_text('d')
os.chmod(model / 'deep', 0)
os.chown(model / 'mine', 4242, 4242)
(model / 'link').symlink_to('/etc/shadow')
os.umask(0o777)
(pathlib.Path('/opt/ml/output') / 'closed').mkdir()
print('ready', flush=True)
if sys.argv[1:]: time.sleep(60)
"""


@pytest.mark.parametrize("how", ["wait", "kill"])
def test_what_root_left_belongs_to_the_server_s_user(
    engine: Any, base_image: str, how: str
) -> None:
    """No root-owned leftovers, whatever modes a program left; also when it is removed running."""
    folder = Path(tempfile.mkdtemp(prefix="byoa-unprivileged-", dir="/tmp"))
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
    try:
        ran = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, str(folder), base_image,
             LEAVES_ROOTS_FILES + ("" if how == "wait" else "time.sleep(60)"), how],
            cwd="/", text=True, capture_output=True, timeout=60,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        )
        assert ran.returncode == 0, ran.stderr
        *told, last = ran.stdout.splitlines()
        assert last.startswith("removed")
        if how == "wait":
            assert told == ["0 ['deep', 'file', 'link', 'mine', 'secret']", "s d"]
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)


# --- what is left behind -------------------------------------------------------------------------


def test_what_nobody_needs_is_swept_and_what_somebody_needs_is_kept(
    docker_runner: Any, make_docker_runner: Any, engine: Any, spec: Any, start_ready: Any
) -> None:
    for name in ("job-kept-algo-1", "job-ended-algo-1", "job-lost-algo-1"):
        start_ready(docker_runner, spec(READY + "time.sleep(60)", name))
    docker_runner.start(spec("", "own-algo-1")).wait(20)
    later = make_docker_runner()
    own = later.start(spec(READY + "time.sleep(60)", "later-algo-1"))

    assert sorted(later.running()) == [
        "job-ended-algo-1", "job-kept-algo-1", "job-lost-algo-1", "later-algo-1"
    ]
    gone = ["job-ended-algo-1", "job-lost-algo-1", "own-algo-1"]
    assert sorted(later.orphans(lambda name: "kept" in name)) == gone
    assert sorted(later.sweep(lambda name: "kept" in name)) == gone
    assert sorted(later.running()) == ["job-kept-algo-1", "later-algo-1"]
    assert later.adopt({"name": "job-lost-algo-1"}) is None
    own.remove()


def test_a_container_of_another_state_directory_is_nobody_s_here(
    docker_runner: Any, engine: Any, spec: Any, tmp_path: Path, start_ready: Any
) -> None:
    from byoa.local.runners.docker import DockerRunner

    start_ready(docker_runner, spec(READY + "time.sleep(60)"))
    other = DockerRunner(tmp_path / "elsewhere")
    try:
        assert other.running() == [] and other.orphans(lambda name: False) == []
        assert other.adopt({"name": "box"}) is None
    finally:
        other.close()


def test_a_container_that_was_made_and_not_started_is_forgotten(
    docker_runner: Any, engine: Any, base_image: str, spec: Any, run: Any
) -> None:
    """The server was killed in between: the job starts anew."""
    docker_runner.connect()
    box = spec("print('anew')")
    engine.api.create_container(
        base_image, ["true"], name=docker_runner._prefix + "box",
        labels=docker_runner._labels_of(box),
    )
    assert docker_runner.adopt({"name": "box"}) is None
    assert run(docker_runner, box).code == 0
    assert box.log.read_text() == "anew\n"


def test_a_container_that_somebody_else_removes_does_not_keep_its_waiter(
    docker_runner: Any, engine: Any, spec: Any, start_ready: Any
) -> None:
    """The engine kills it first: whether that is seen, or only that it is gone, is a race."""
    container = start_ready(docker_runner, spec(READY + "time.sleep(60)"))
    engine.api.remove_container(container.id, force=True)

    try:
        assert container.wait(20).code == 137
    except ByoaError as error:
        assert error.code == "CONTAINER_GONE"
    container.remove()
