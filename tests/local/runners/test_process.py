"""Containers as processes: environment, signals, output, ends, and life after the server's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from byoa.container.errors import ByoaError, UnsupportedError
from byoa.local.runners import identity
from byoa.local.runners.process import ProcessRunner


def run(runner: Any, spec: Any, timeout: float = 20.0) -> Any:
    container = runner.start(spec)
    ended = container.wait(timeout)
    assert ended is not None, spec.log.read_text()
    container.remove()
    return ended


def test_output_and_exit_code_come_back(runner: Any, spec: Any) -> None:
    box = spec("print('out'); print('err', file=sys.stderr); sys.exit(5)")
    ended = run(runner, box)

    assert (ended.code, ended.signal, ended.out_of_memory) == (5, None, False)
    assert sorted(box.log.read_text().splitlines()) == ["err", "out"]
    assert ended.seconds > 0 and ended.peak_rss_bytes > 1_000_000


def test_the_container_writes_to_the_directory_that_it_was_given(runner: Any, spec: Any) -> None:
    box = spec("(ml / 'model' / 'x').write_text('é'); print(os.getcwd())")

    assert run(runner, box).code == 0
    assert (box.ml / "model" / "x").read_text() == "é"
    cwd = Path(box.log.read_text().strip())
    assert cwd in (Path("/opt/ml/code"), box.ml / "code")


def test_paths_of_the_contract_in_variables_and_arguments_are_where_they_say(
    runner: Any, spec: Any
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


def test_the_environment_is_clean_and_the_platforms_names_win(
    runner: Any, spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRAIN-83; the person's own credentials and settings do not come in."""
    monkeypatch.setenv("AWS_PROFILE", "private")
    monkeypatch.setenv("MY_SECRET", "private")
    box = spec(
        "print(json.dumps(dict(os.environ)))",
        environment={"A": "1", "SAGEMAKER_BASE_DIR": "/x", "SAGEMAKER_BIND_TO_PORT": "1"},
    )
    run(runner, box)
    found = json.loads(box.log.read_text())

    assert found["A"] == "1" and found["LANG"] == "C.UTF-8"
    assert found.get("SAGEMAKER_BASE_DIR") in (None, str(box.ml))
    assert "SAGEMAKER_BIND_TO_PORT" not in found  # nothing is published
    assert found["PATH"].split(os.pathsep)[0] == os.path.dirname(sys.executable)
    assert not {"AWS_PROFILE", "MY_SECRET"} & found.keys()
    assert found["HOME"] != os.environ.get("HOME")
    assert not Path(found["TMPDIR"]).exists()  # removed with the container


def test_a_published_port_answers_at_the_containers_address(runner: Any, spec: Any) -> None:
    """PIPE-03."""
    box = spec(
        "import http.server\n"
        "class Ping(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(b'pong')\n"
        "port = int(os.environ['SAGEMAKER_BIND_TO_PORT'])\n"
        "server = http.server.HTTPServer(('127.0.0.1', port), Ping)\n"
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


READY = "print('ready', flush=True)\n"


def start_ready(runner: Any, box: Any, until: Any) -> Any:
    container = runner.start(box)
    until(lambda: box.log.exists() and "ready" in box.log.read_text())
    return container


def test_terminate_reaches_the_first_process_alone(runner: Any, spec: Any, until: Any) -> None:
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
    container = start_ready(runner, box, until)
    assert container.wait(0) is None
    container.terminate()
    ended = container.wait(20)

    assert ended.code == 9
    assert box.log.read_text().splitlines() == ["ready", "first got it None"]
    container.remove()


def test_a_termination_before_the_program_has_begun_is_not_lost(runner: Any, spec: Any) -> None:
    container = runner.start(spec("time.sleep(60)"))
    container.terminate()

    assert container.wait(20).signal == signal.SIGTERM
    container.remove()


def test_stop_kills_what_ignores_sigterm(runner: Any, spec: Any, until: Any) -> None:
    """TRAIN-150, HOST-03; a kill of ours is no lack of memory."""
    box = spec("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + "time.sleep(60)")
    ended = start_ready(runner, box, until).stop(0.3)

    assert (ended.code, ended.signal, ended.out_of_memory) == (137, signal.SIGKILL, False)


def test_nothing_outlives_the_first_process_not_even_a_daemon(
    runner: Any, spec: Any, until: Any
) -> None:
    box = spec(
        """
        orphan = subprocess.Popen(['sleep', '60'])
        daemon = subprocess.Popen(['sleep', '60'], start_new_session=True)
        print(orphan.pid, daemon.pid, flush=True)
        time.sleep(0.3)
        """
    )
    container = runner.start(box)
    until(lambda: box.log.exists() and box.log.read_text().endswith("\n"))
    pids = [int(pid) for pid in box.log.read_text().split()]
    assert all(identity.start_time(pid) for pid in pids)

    assert container.wait(20).code == 0
    assert [identity.start_time(pid) for pid in pids] == [None, None]
    container.remove()


def test_a_program_that_cannot_be_run_is_said_so_in_the_log(runner: Any, spec: Any) -> None:
    """TRAIN-144, TRAP-01."""
    missing = spec("", "missing", entrypoint=("/no/such",))
    assert run(runner, missing).code == 127
    assert "'/no/such' cannot be run: No such file" in missing.log.read_text()
    plain = spec("", "plain", entrypoint=(__file__,))
    assert run(runner, plain).code == 126
    assert "Permission denied" in plain.log.read_text()


def test_a_name_is_free_again_when_the_container_has_ended(
    plain_runner: Any, spec: Any, until: Any
) -> None:
    first = start_ready(plain_runner, spec(READY + "time.sleep(60)"), until)
    with pytest.raises(ByoaError, match="container 'box' is running"):
        plain_runner.start(spec(""))
    first.stop(5)

    assert run(plain_runner, spec("print('second')")).code == 0


# --- a server that goes -------------------------------------------------------------------------


def test_a_container_outlives_a_killed_server_and_is_adopted(
    plain_runner: Any, images: Any, spec: Any, until: Any, tmp_path: Path
) -> None:
    go, box = tmp_path / "go", spec(READY + (
        f"go = pathlib.Path({str(tmp_path / 'go')!r})\n"
        "while not go.exists(): time.sleep(0.02)\n"
        "print('done'); sys.exit(4)"
    ))
    server = (
        "import sys, time; from pathlib import Path\n"
        "from byoa.local.runners.base import ContainerSpec\n"
        "from byoa.local.runners.images import Images\n"
        "from byoa.local.runners.process import ProcessRunner\n"
        "from byoa.local.storage.state import State\n"
        "home, ml, log, script = map(Path, sys.argv[1:])\n"
        "runner = ProcessRunner(Images(State(home / 'other.sqlite')), home, sandbox='off')\n"
        "runner.start(ContainerSpec('box', 'byoa', (), ml, log,"
        " entrypoint=(sys.executable, str(script))))\n"
        "time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", server, str(tmp_path / "home"), str(box.ml), str(box.log),
         str(tmp_path / "box.py")]
    )
    until(lambda: box.log.exists() and "ready" in box.log.read_text())
    child.kill()
    child.wait(10)

    container = plain_runner.adopt({"name": "box"})
    assert container is not None
    assert container.wait(0.1) is None
    go.touch()
    assert container.wait(20).code == 4
    assert box.log.read_text().splitlines() == ["ready", "done"]
    # And one that has ended meanwhile is found by what it left.
    assert plain_runner.adopt(container.handle).wait(0).code == 4
    container.remove()
    assert plain_runner.adopt(container.handle) is None


def test_a_container_whose_shim_is_killed_does_not_run_on(
    plain_runner: Any, spec: Any, until: Any
) -> None:
    box = spec("print('ready', os.getpid(), flush=True)\ntime.sleep(60)")
    container = start_ready(plain_runner, box, until)
    pid = int(box.log.read_text().split()[1])
    os.kill(container._pid, signal.SIGKILL)

    assert container.wait(20).code == 137
    until(lambda: identity.start_time(pid) is None)


def test_a_container_that_has_vanished_is_not_adopted(plain_runner: Any, spec: Any) -> None:
    container = plain_runner.start(spec("time.sleep(60)"))
    container.kill()
    container.wait(20)
    (container._directory / "exit.json").unlink()

    assert plain_runner.adopt(container.handle) is None
    assert plain_runner.adopt({"name": "never"}) is None


# --- images and isolation -----------------------------------------------------------------------


def test_byoas_own_image_runs_byoas_entrypoint(runner: Any, spec: Any) -> None:
    """TRAIN-01: the image's ENTRYPOINT is kept, `train` replaces its CMD."""
    box = spec("", image="111122223333.dkr.ecr.us-west-2.amazonaws.com/byoa:1",
               entrypoint=None, command=("contract",))

    assert run(runner, box).code == 0
    assert box.log.read_text().startswith("# The container contract\n")


def test_a_registered_image_runs_in_its_folder_with_its_algorithm(
    runner: Any, images: Any, spec: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.py").write_text(
        "from byoa.algorithms import Algorithm\nclass Mine(Algorithm):\n    pass\n"
    )
    images.add("mine", folder)
    box = spec(
        "print(json.dumps([os.getcwd(), os.environ['BYOA_ALGORITHM'], sys.path]))", image="mine:2",
        environment={"PYTHONPATH": "/extra"},
    )
    assert run(runner, box).code == 0, box.log.read_text()
    cwd, algorithm, path = json.loads(box.log.read_text())

    assert cwd == str(folder) and algorithm == "model:Mine"
    assert path.index(str(folder)) < path.index("/extra")
    own = spec("print(os.environ['BYOA_ALGORITHM'])", "own", image="mine",
               environment={"BYOA_ALGORITHM": "other:Class"})
    run(runner, own)
    assert own.log.read_text() == "other:Class\n"


def test_an_unknown_image_is_refused_naming_what_there_is(
    plain_runner: Any, images: Any, spec: Any, tmp_path: Path
) -> None:
    (tmp_path / "known").mkdir()
    (tmp_path / "known" / "a.py").write_text(
        "from byoa.algorithms import Algorithm\nclass A(Algorithm): ...\n"
    )
    images.add("known", tmp_path / "known")

    with pytest.raises(UnsupportedError, match="known.*byoa image add team/xgboost FOLDER"):
        plain_runner.check("registry.example.com:5000/team/xgboost:1")
    with pytest.raises(UnsupportedError):
        plain_runner.start(spec("", image="python:3.12"))


def test_isolation_is_refused_where_there_are_no_namespaces(plain_runner: Any, spec: Any) -> None:
    """TRAIN-12: never accepted and ignored."""
    with pytest.raises(UnsupportedError, match="BYOA_SANDBOX is off"):
        plain_runner.check("byoa", isolated=True)
    with pytest.raises(UnsupportedError):
        plain_runner.start(spec("", isolated=True))


def test_an_isolated_container_has_loopback_and_nothing_else(
    images: Any, spec: Any, tmp_path: Path, sandbox_available: bool
) -> None:
    """TRAIN-12, CHK-16."""
    if not sandbox_available:
        pytest.skip("the kernel allows no namespaces here")
    runner = ProcessRunner(images, tmp_path / "home")
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
    with pytest.raises(UnsupportedError, match="serves"):
        runner.start(spec("", "server", isolated=True, port=8080))


def test_a_private_opt_ml_keeps_the_other_entries_of_opt_and_hides_nothing_outside(
    images: Any, spec: Any, tmp_path: Path, sandbox_available: bool
) -> None:
    if not sandbox_available:
        pytest.skip("the kernel allows no namespaces here")
    runner = ProcessRunner(images, tmp_path / "home")
    before = sorted(os.listdir("/opt"))
    first = spec(
        "print(sorted(os.listdir('/opt')), 'SAGEMAKER_BASE_DIR' in os.environ, flush=True)\n"
        "pathlib.Path('/opt/ml/model/first').touch(); time.sleep(1)", "first",
    )
    second = spec("pathlib.Path('/opt/ml/model/second').touch()", "second")
    containers = [runner.start(first), runner.start(second)]
    assert [container.wait(20).code for container in containers] == [0, 0]

    assert first.log.read_text() == f"{sorted({*before, 'ml'})} False\n"
    assert [path.name for path in (first.ml / "model").iterdir()] == ["first"]
    assert [path.name for path in (second.ml / "model").iterdir()] == ["second"]
    assert sorted(os.listdir("/opt")) == before
    for container in containers:
        container.remove()


def test_a_wrong_setting_is_refused(images: Any, tmp_path: Path) -> None:
    with pytest.raises(ByoaError, match="BYOA_SANDBOX is 'on'; expected: auto or off"):
        ProcessRunner(images, tmp_path, sandbox="on")
