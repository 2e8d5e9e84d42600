"""What holds for a container whatever runs it: output, ends, signals, names, a server's death.

Each test runs with processes, with and without a private /opt/ml, and with Docker.
"""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from byoa.container.errors import ByoaError

READY = "print('ready', flush=True)\n"


def test_output_and_exit_code_come_back(runner: Any, spec: Any, run: Any) -> None:
    box = spec("print('out'); print('err', file=sys.stderr); sys.exit(5)")
    ended = run(runner, box)

    assert (ended.code, ended.signal, ended.out_of_memory) == (5, None, False)
    assert sorted(box.log.read_text().splitlines()) == ["err", "out"]
    assert ended.seconds > 0
    assert abs(ended.moment - time.time()) < 60


def test_the_container_writes_to_the_directory_that_it_was_given(
    runner: Any, spec: Any, run: Any
) -> None:
    box = spec("(ml / 'model' / 'x').write_text('é')")

    assert run(runner, box).code == 0
    assert (box.ml / "model" / "x").read_text() == "é"


def test_a_directory_is_shown_where_nobody_can_change_it(
    runner: Any, spec: Any, run: Any, tmp_path: Path
) -> None:
    """TRAIN-93; a process without a private /opt/ml cannot be shown one, and says so."""
    shown = tmp_path / "shown"
    shown.mkdir()
    (shown / "file").write_text("kept")
    box = spec("print((ml / 'model' / 'file').read_text(), flush=True)\n"
               "(ml / 'model' / 'file').write_text('changed')")
    box = dataclasses.replace(box, read_only={box.ml / "model": shown})
    if not runner.shows_read_only(box.image):
        with pytest.raises(ByoaError, match="need Linux namespaces.*submit the job again"):
            runner.start(box)
        return

    assert run(runner, box).code == 1
    assert "kept" in box.log.read_text().splitlines()  # stdout and stderr keep no order in Docker
    assert "Read-only file system" in box.log.read_text()
    assert (shown / "file").read_text() == "kept"


def test_paths_of_the_contract_in_variables_and_arguments_are_where_they_say(
    runner: Any, spec: Any, run: Any
) -> None:
    """/opt/ml/… is what the container's code is told; without a private /opt/ml it is mapped."""
    box = spec(
        "pathlib.Path(os.environ['OUT']).write_text(os.environ['TEXT'])\n"
        "pathlib.Path(sys.argv[1]).touch()",
        command=("/opt/ml/model/argument",),
        environment={"OUT": "/opt/ml/model/out", "TEXT": "see /opt/ml/model; /opt/mlx"},
    )

    assert run(runner, box).code == 0, box.log.read_text()
    assert (box.ml / "model" / "out").read_text() == "see /opt/ml/model; /opt/mlx"
    assert (box.ml / "model" / "argument").exists()


def test_a_published_port_answers_at_the_containers_address(runner: Any, spec: Any) -> None:
    """PIPE-03."""
    box = spec(
        "import http.server\n"
        "class Ping(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(b'pong')\n"
        "port = int(os.environ.get('SAGEMAKER_BIND_TO_PORT', 8080))\n"
        "server = http.server.HTTPServer(('0.0.0.0', port), Ping)\n"
        "print('ready', flush=True); server.handle_request()",
        port=8080,
    )
    container = runner.start(box)
    host, port = container.address
    assert port != 8080  # a free one, so that several containers run side by side
    while "ready" not in (box.log.read_text() if box.log.exists() else ""):
        assert container.wait(0.02) is None, box.log.read_text()
    with urllib.request.urlopen(f"http://{host}:{port}/ping", timeout=10) as answer:
        assert answer.read() == b"pong"
    assert container.wait(10).code == 0
    container.remove()


def test_terminate_reaches_the_first_process_alone(
    runner: Any, spec: Any, start_ready: Any
) -> None:
    """TRAIN-150: SIGTERM goes to PID 1; whether its children get one is its own affair."""
    box = spec(
        """
        child = subprocess.Popen([sys.executable, '-c',
            'import signal, time; signal.signal(signal.SIGTERM, lambda *_: print("child got it", '
            'flush=True)); print("child", flush=True); time.sleep(60)'], stdout=subprocess.PIPE)
        child.stdout.readline()
        def stop(number, frame):
            print('first got it', child.poll(), flush=True)
            sys.exit(9)
        signal.signal(signal.SIGTERM, stop)
        import os
        os.write(1, b'ready\\n')  # past Python's buffer: the handler may come in at once
        time.sleep(60)
        """
    )
    container = start_ready(runner, box)
    assert container.wait(0) is None
    container.terminate()
    ended = container.wait(20)

    assert ended.code == 9
    assert box.log.read_text().splitlines() == ["ready", "first got it None"]
    container.remove()


def test_stop_kills_what_ignores_sigterm(runner: Any, spec: Any, start_ready: Any) -> None:
    """TRAIN-150, HOST-03; a kill of ours is no lack of memory."""
    box = spec("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + "time.sleep(60)")
    ended = start_ready(runner, box).stop(0.3)

    assert (ended.code, ended.signal, ended.out_of_memory) == (137, signal.SIGKILL, False)


def test_a_program_that_cannot_be_run_is_said_so_in_the_log(
    runner: Any, spec: Any, run: Any
) -> None:
    """TRAIN-144, TRAP-01."""
    missing = spec("", "missing", entrypoint=("/no/such",))
    assert run(runner, missing).code == 127
    said = missing.log.read_text().lower()
    assert "'/no/such' cannot be run: " in said and "no such file" in said
    plain = spec("", "plain", entrypoint=("/opt/ml/code/plain",))
    (plain.ml / "code" / "plain").write_text("#!/bin/sh\n")
    assert run(runner, plain).code == 126
    assert "permission denied" in plain.log.read_text().lower()


def test_a_name_is_free_again_when_the_container_has_ended(
    runner: Any, spec: Any, run: Any, start_ready: Any
) -> None:
    first = start_ready(runner, spec(READY + "time.sleep(60)"))
    with pytest.raises(ByoaError, match="container 'box' is running"):
        runner.start(spec(""))
    first.stop(5)

    assert run(runner, spec("print('second')")).code == 0


SERVERS = {
    "process": (
        "from byoa.local.runners.images import Images\n"
        "from byoa.local.runners.process import ProcessRunner\n"
        "from byoa.local.storage.state import State\n"
        "runner = ProcessRunner(Images(State(home / 'other.sqlite')), home, sandbox='off')\n"
    ),
    "docker": (
        "from byoa.local.runners.docker import DockerRunner\n"
        "runner = DockerRunner(home, labels={'byoa.test': 'runners'})\n"
    ),
}


def test_a_container_outlives_a_killed_server_and_is_adopted(
    runner: Any, spec: Any, until: Any, tmp_path: Path
) -> None:
    box = spec(READY + (
        "while not (ml / 'go').exists(): time.sleep(0.02)\n"
        "print('done'); sys.exit(4)"
    ))
    server = (
        "import sys, time; from pathlib import Path, PosixPath\n"
        "from byoa.local.runners.base import ContainerSpec, Limits\n"
        "home = Path(sys.argv[1])\n"
        f"{SERVERS[runner.name]}runner.start({box!r})\n"
        "time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", server, str(tmp_path / "home")])
    until(lambda: box.log.exists() and "ready" in box.log.read_text())
    child.kill()
    child.wait(10)

    container = runner.adopt({"name": "box"})
    assert container is not None
    assert container.wait(0.1) is None
    (box.ml / "go").touch()
    assert container.wait(20).code == 4
    assert box.log.read_text().splitlines() == ["ready", "done"]
    # And one that has ended meanwhile is found by what it left.
    assert runner.adopt(container.handle).wait(0).code == 4
    container.remove()
    assert runner.adopt(container.handle) is None


def test_a_container_that_nobody_started_is_not_adopted(runner: Any) -> None:
    assert runner.adopt({"name": "never"}) is None


def test_byoas_own_image_runs_byoas_entrypoint(
    runner: Any, spec: Any, run: Any, request: pytest.FixtureRequest
) -> None:
    """TRAIN-01: the image's ENTRYPOINT is kept, the command replaces its CMD."""
    image = (
        request.getfixturevalue("torch_free_image") if runner.name == "docker"
        else "111122223333.dkr.ecr.us-west-2.amazonaws.com/byoa:1"
    )
    box = spec("", image=image, entrypoint=None, command=("contract",))

    assert run(runner, box).code == 0
    assert box.log.read_text().startswith("# The container contract\n")


def test_an_isolated_container_has_loopback_and_nothing_else(
    runner: Any, spec: Any, run: Any
) -> None:
    """TRAIN-12, CHK-16."""
    if getattr(runner, "no_sandbox", None) is not None:
        pytest.skip(f"no isolation here: {runner.no_sandbox}")
    box = spec(
        """
        import socket
        print(sorted(name for _, name in socket.if_nameindex()))
        server = socket.create_server(('127.0.0.1', 0))
        socket.create_connection(server.getsockname(), 5).close()
        try:
            socket.create_connection(('192.0.2.1', 80), 5)
        except OSError as error:
            print(error.strerror)
        """,
        isolated=True,
    )

    assert run(runner, box).code == 0, box.log.read_text()
    assert box.log.read_text().splitlines() == ["['lo']", "Network is unreachable"]
