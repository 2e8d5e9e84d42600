"""How the checker runs containers: as the service does, and leaving nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from byoa.local.check import reclaim
from byoa.local.check.catalogue import all_checks
from byoa.local.check.docker_box import sweep
from byoa.local.check.image_facts import LABEL
from byoa.local.check.runs import run_checks
from byoa.local.check.trial import Samples, Trial
from byoa.local.demo.registry import Registry

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
SLEEP = ("python3", "-c", "import time; print('ready', flush=True); time.sleep(60)")


@pytest.fixture
def trial(good_image: str, check_samples: Samples) -> Iterator[Trial]:
    with Trial.of_image(good_image, check_samples) as made:
        yield made


def _left(engine: Any, owner: str) -> list[Any]:
    filters = {"label": f"{LABEL}={owner}"}
    return [*engine.api.containers(all=True, filters=filters),
            *engine.api.networks(filters=filters)]


def _python(trial: Trial, program: str, **options: Any) -> str:
    """The log of a Python program run in the image, to its end."""
    box = trial.box(("-c", program), ml=options.pop("ml", None) or trial.new_ml(),
                    entrypoint=("python3",), **options)
    assert box.wait(30) is not None, box.log
    return box.log


def test_a_container_sees_the_tree_as_the_service_makes_it(trial: Trial) -> None:
    """TRAIN-08, TRAIN-30: directories 0755, files 0644, and no terminal."""
    found = json.loads(_python(trial, (
        "import json, os, stat, sys\n"
        "found = {}\n"
        "for folder, _, names in os.walk('/opt/ml'):\n"
        "    for path in [folder, *(os.path.join(folder, name) for name in names)]:\n"
        "        status = os.stat(path)\n"
        "        found[path] = [oct(stat.S_IMODE(status.st_mode)), status.st_uid]\n"
        "found['tty'] = sys.stdout.isatty()\n"
        "found['host'] = os.uname().nodename\n"
        "found['pid'] = os.getpid()\n"
        "print(json.dumps(found))"
    ), host="algo-1"))
    assert (found.pop("tty"), found.pop("host"), found.pop("pid")) == (False, "algo-1", 1)
    assert {uid for _, uid in found.values()} == {os.getuid()}
    files = {path for path, (mode, _) in found.items() if mode == "0o644"}
    assert files == {
        f"/opt/ml/input/config/{name}.json"
        for name in ("hyperparameters", "inputdataconfig", "resourceconfig",
                     "metric-definition-regex")
    } | {"/opt/ml/input/data/train/part-0.csv", "/opt/ml/input/data/train-manifest"}
    assert {mode for path, (mode, _) in found.items() if path not in files} == {"0o755"}


def test_the_users_samples_are_out_of_a_containers_reach(
    trial: Trial, check_samples: Samples
) -> None:
    source = check_samples.channels["train"] / "part-0.csv"
    before = source.read_text()
    log = _python(trial, "open('/opt/ml/input/data/train/part-0.csv', 'w').write('gone')")
    assert log == ""
    assert source.read_text() == before


def test_every_byte_of_the_log_is_kept_to_the_last_line(trial: Trial) -> None:
    log = _python(trial, "for n in range(20000): print('line', n)\nprint('last', end='')")
    assert log == "".join(f"line {n}\n" for n in range(20000)) + "last"


def test_a_program_that_cannot_be_started_is_a_box_that_has_ended(trial: Trial) -> None:
    """TRAP-01, TRAP-02: 127 for what is not there, 126 for what may not be executed."""
    missing = trial.box((), ml=trial.new_ml(), entrypoint=("nowhere",))
    ended = missing.wait(10)
    assert ended is not None and ended.code == 127
    assert "executable file not found" in missing.log
    closed = trial.box((), ml=trial.new_ml(), entrypoint=("/opt/program/train.py",))
    ended = closed.wait(10)
    assert ended is not None and ended.code == 126
    assert "permission denied" in closed.log


def test_signals_exits_and_memory_are_told_apart(trial: Trial) -> None:
    killed = trial.box(SLEEP[1:], ml=trial.new_ml(), entrypoint=SLEEP[:1])
    assert killed.wait_for_log("ready", 20)
    assert killed.running
    killed.kill()
    ended = killed.wait(10)
    assert ended is not None and (ended.code, ended.signal) == (137, signal.SIGKILL)
    assert not ended.out_of_memory
    greedy = trial.box(("-c", "x = bytearray(1 << 30); x[::4096] = b'1' * (1 << 18)"),
                       ml=trial.new_ml(), entrypoint=("python3",), memory_bytes=64 << 20)
    ended = greedy.wait(30)
    assert ended is not None and ended.out_of_memory


def test_processes_and_listeners_are_those_inside(trial: Trial) -> None:
    """TRAP-06: the address on which a server listens tells why nobody reaches it."""
    box = trial.box(
        ("-c", "import socket, time\ns = socket.create_server(('127.0.0.1', 8080))\n"
         "print('ready', flush=True)\ntime.sleep(60)"),
        ml=trial.new_ml(), entrypoint=("python3",), port=8080,
    )
    assert box.wait_for_log("ready", 20)
    assert box.listeners() == [("127.0.0.1", 8080)]
    assert [each.argv[:2] for each in box.processes()] == [("python3", "-c")]
    assert box.address is not None and box.address[0] == "127.0.0.1"


def test_hosts_of_a_network_find_one_another_and_none_reaches_nothing(trial: Trial) -> None:
    network = trial.network()
    peer = trial.box(SLEEP[1:], ml=trial.new_ml(), entrypoint=SLEEP[:1], network=network,
                     host="algo-2")
    assert peer.wait_for_log("ready", 20)
    look = "import socket; print(socket.gethostbyname('algo-2'))"
    assert _python(trial, look, network=network, host="algo-1").count(".") == 3
    assert "gaierror" in _python(trial, look, network="none")


def test_a_read_only_model_cannot_be_written_and_the_rest_can(trial: Trial) -> None:
    """HOST-40."""
    log = _python(trial, (
        "open('/opt/ml/output/x', 'w').close()\n"
        "try: open('/opt/ml/model/x', 'w')\n"
        "except OSError as error: print(error.strerror)"
    ), read_only_model=True)
    assert log == "Read-only file system\n"


def test_what_a_containers_root_wrote_can_be_removed_by_another_user(trial: Trial) -> None:
    """The engine changes the owner; nothing of the image is run for it."""
    ml = trial.new_ml()
    box = trial.box(("-c", (
        "import os\n"
        "os.makedirs('/opt/ml/model/deep', 0o700)\n"
        "open('/opt/ml/model/deep/closed', 'w').write('weights')\n"
        "os.chmod('/opt/ml/model/deep/closed', 0o600)"
    )), ml=ml, entrypoint=("python3",))
    assert box.wait(20) is not None
    reclaim.reclaim(trial.engine, box.id, (4321, 4321))  # type: ignore[attr-defined]
    for path in (ml / "model", ml / "model/deep", ml / "model/deep/closed"):
        assert path.stat().st_uid == 4321
    assert (ml / "model/deep/closed").read_text() == "weights"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_after_an_interrupt(
    number: int, build_image: Callable[..., str], tmp_path: Path, engine: Any
) -> None:
    """Ctrl-C and a CI system's SIGTERM in the middle of a run."""
    folder = tmp_path / "slow"
    folder.mkdir()
    folder.joinpath("Dockerfile").write_text(
        "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n"
        f'ENTRYPOINT {json.dumps(list(SLEEP))}\n'
    )
    image = build_image(folder)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    child = subprocess.Popen(
        [sys.executable, "-m", "byoa.local.cli", "check", image, "--only", "training"],
        env=os.environ | {"TMPDIR": str(temporary)}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )
    try:
        mine = {"ancestor": image, "label": LABEL, "status": "running"}
        until = time.monotonic() + 60
        while not engine.api.containers(filters=mine):
            assert time.monotonic() < until and child.poll() is None
            time.sleep(0.1)
        child.send_signal(number)
        output, _ = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 128 + number, output
    assert engine.api.containers(all=True, filters={"ancestor": image}) == []
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("next_command", [
    ("check", "good", "--only", "image-linux-amd64"), ("prune",),
])
def test_what_a_killed_checker_left_goes_with_the_next_command(
    next_command: tuple[str, ...], good_image: str, tmp_path: Path, engine: Any
) -> None:
    """And nothing of a checker that still runs."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary)}
    program = (
        "import sys, time\n"
        "from byoa.local.check.trial import Samples, Trial\n"
        "trial = Trial.of_image(sys.argv[1], Samples())\n"
        f"trial.box({SLEEP[1:]!r}, ml=trial.new_ml(), entrypoint={SLEEP[:1]!r},"
        " network=trial.network(), host='algo-1')\n"
        "print(trial.owner, flush=True)\n"
        "time.sleep(120)\n"
    )
    checkers = [
        subprocess.Popen([sys.executable, "-c", program, good_image], env=environment, text=True,
                         stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    owners: list[str] = []
    try:
        for each in checkers:
            assert each.stdout is not None
            owners.append(each.stdout.readline().strip())
        killed, running = owners
        checkers[0].kill()
        checkers[0].wait()
        assert len(_left(engine, killed)) == len(_left(engine, running)) == 2
        assert len(list(temporary.iterdir())) == 2
        argv = [good_image if each == "good" else each for each in next_command]
        if next_command == ("prune",):
            argv += ["--home", str(tmp_path / "home")]
        done = subprocess.run([sys.executable, "-m", "byoa.local.cli", *argv], env=environment,
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        assert _left(engine, killed) == []
        assert len(_left(engine, running)) == 2
        assert len(list(temporary.iterdir())) == 1
    finally:
        for each in checkers:
            each.kill()
            each.communicate()
        for owner in owners:
            sweep(engine, owner)


def test_a_trial_removes_its_containers_and_networks(
    good_image: str, check_samples: Samples, engine: Any
) -> None:
    with pytest.raises(RuntimeError, match="in the middle"):
        with Trial.of_image(good_image, check_samples) as trial:
            trial.box(SLEEP[1:], ml=trial.new_ml(), entrypoint=SLEEP[:1],
                      network=trial.network(), host="algo-1")
            assert trial.facts is not None and trial.facts.files.entry("/opt/program/main.py")
            assert len(_left(engine, trial.owner)) == 3
            folder = trial.new_folder().parent
            raise RuntimeError("in the middle")
    assert _left(engine, trial.owner) == []
    assert not folder.exists()


def test_an_index_in_the_registry_is_no_single_image(
    good_image: str, engine: Any, tmp_path: Path
) -> None:
    """TRAP-03: what buildx pushes with attestations is refused by the service."""
    with Registry(tmp_path / "registry") as registry:
        name = f"{registry.address}/{good_image.partition(':')[0]}"
        tags = [f"{name}:{tag}" for tag in ("single", "index")]
        try:
            engine.api.tag(good_image, tags[0])
            for event in engine.api.push(tags[0], stream=True, decode=True):
                assert "error" not in event, event
            _put_index(registry.address, name.partition("/")[2])
            for event in engine.api.pull(name, "index", stream=True, decode=True):
                assert "error" not in event, event
            outcomes = {}
            for tag in tags:
                with Trial.of_image(tag, Samples()) as trial:
                    (result,) = run_checks(trial, all_checks(), only=["image-single-platform"])
                    outcomes[tag] = result.verdict
        finally:
            for tag in tags:
                engine.api.remove_image(tag, force=True)
    assert outcomes[tags[0]].outcome == "pass", outcomes
    assert outcomes[tags[1]].outcome == "fail"
    assert INDEX in outcomes[tags[1]].cause


def _put_index(address: str, repository: str) -> None:
    """An index of the one image that is there, as buildx leaves one."""
    url = f"http://{address}/v2/{repository}/manifests/"
    request = urllib.request.Request(f"{url}single", headers={"Accept": MANIFEST})
    with urllib.request.urlopen(request, timeout=10) as answer:
        content, digest = answer.read(), answer.headers["Docker-Content-Digest"]
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{
            "mediaType": MANIFEST, "digest": digest, "size": len(content),
            "platform": {"architecture": "amd64", "os": "linux"},
        }],
    }
    request = urllib.request.Request(
        f"{url}index", json.dumps(index).encode(), {"Content-Type": INDEX}, method="PUT"
    )
    urllib.request.urlopen(request, timeout=10).close()
