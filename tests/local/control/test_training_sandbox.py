"""Jobs with a private /opt/ml and network: containers, and processes where the kernel allows it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.both_runners


@pytest.fixture
def boxed(new_laboratory: Any) -> Any:
    laboratory = new_laboratory("auto")
    if laboratory.runner.name == "process" and laboratory.runner.no_sandbox is not None:
        pytest.skip(f"no namespaces here: {laboratory.runner.no_sandbox}")
    return laboratory


def test_a_program_that_knows_only_opt_ml_trains(
    boxed: Any, training_request: Any, channel: Any
) -> None:
    """TRAIN-30; images that were never written for byoa spell /opt/ml out."""
    boxed.buckets.put_bytes("tests", "d/a.csv", b"1,2,3")
    program = boxed.program(
        "assert 'SAGEMAKER_BASE_DIR' not in os.environ\n"
        "data = open('/opt/ml/input/data/train/a.csv').read()\n"
        "open('/opt/ml/model/weights', 'w').write(data)\n"
        "open('/opt/ml/checkpoints/1', 'w').write('c')\n"
        "open('/opt/ml/output/data/report', 'w').write('r')\n"
        "open('/opt/ml/output/failure', 'w').write('went wrong')\n"
        "print(os.getcwd())\n"
        "sys.exit(2)\n"
    )
    boxed.call(
        "CreateTrainingJob",
        **training_request(
            "private", AlgorithmSpecification=program,
            InputDataConfig=[channel("train", "s3://tests/d/")],
            CheckpointConfig={"S3Uri": "s3://tests/ck"},
        ),
    )
    described = boxed.wait("private")

    assert described["FailureReason"] == "AlgorithmError: went wrong, exit code: 2"
    # A process has no image whose WORKDIR it could keep.
    assert boxed.lines("private") == ["/opt/ml/code" if boxed.runner.name == "process" else "/"]
    assert boxed.keys("output/private/") == [
        "output/private/output/model.tar.gz", "output/private/output/output.tar.gz",
    ]
    assert boxed.keys("ck") == ["ck/1"]


def test_a_script_from_a_channel_may_be_the_entrypoint(
    boxed: Any, training_request: Any, channel: Any
) -> None:
    """TRAIN-02, TRAIN-03, TRAIN-09; as the Python SDK v3 starts its driver."""
    boxed.buckets.put_bytes(
        "tests", "code/run.sh", b'echo "$# $1" > /opt/ml/model/arguments; echo started\n'
    )
    boxed.call(
        "CreateTrainingJob",
        **training_request(
            "script",
            AlgorithmSpecification={
                "TrainingImage": boxed.byoa_image, "TrainingInputMode": "File",
                "ContainerEntrypoint": ["/bin/bash"],
                "ContainerArguments": [
                    "-c", "chmod +x /opt/ml/input/data/code/run.sh && "
                    "touch /opt/ml/input/sm_training.env && "  # TRAIN-32
                    "/bin/bash /opt/ml/input/data/code/run.sh 'a b'",
                ],
            },
            InputDataConfig=[channel("code", "s3://tests/code/")],
        ),
    )
    assert boxed.wait("script")["TrainingJobStatus"] == "Completed"
    assert boxed.lines("script") == ["started"]


def test_an_isolated_job_reaches_nothing_and_is_not_told_where_s3_is(
    boxed: Any, training_request: Any, channel: Any
) -> None:
    """TRAIN-12, CHK-16: data and artifacts are moved outside the container all the same."""
    boxed.buckets.put_bytes("tests", "d/a", b"1")
    boxed.call(
        "CreateTrainingJob",
        **training_request(
            "isolated",
            AlgorithmSpecification=boxed.program(
                "import socket\n"
                "print([n for _, n in socket.if_nameindex()], 'AWS_ENDPOINT_URL' in os.environ)\n"
                "(ml / 'model' / 'x').write_text((ml / 'input/data/train/a').read_text())"
            ),
            InputDataConfig=[channel("train", "s3://tests/d/")],
            EnableNetworkIsolation=True,
        ),
    )
    described = boxed.wait("isolated")

    assert described["TrainingJobStatus"] == "Completed"
    assert described["EnableNetworkIsolation"] is True
    assert boxed.lines("isolated") == ["['lo'] False"]
    assert boxed.keys("output/isolated/") == ["output/isolated/output/model.tar.gz"]


@pytest.mark.process_only("an engine runs as it likes")
def test_it_needs_no_root(boxed: Any, tmp_path: Path) -> None:
    """With user namespaces; what the container writes belongs to who started the server."""
    if os.geteuid() != 0:
        pytest.skip("this process is not root: the other tests have shown it")
    program = (
        "import ctypes, fcntl, os, pathlib, socket, struct, tempfile\n"
        "from byoa.local.runners import sandbox\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        # Who changes its user may not open its own /proc files before its next exec.
        "ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"
        "home = pathlib.Path(tempfile.mkdtemp())\n"
        "for name in ('ml', 'scratch'): (home / name).mkdir()\n"
        "sandbox.enter(home / 'ml', home / 'scratch', isolated=True)\n"
        "pathlib.Path('/opt/ml/file').touch()\n"
        "print(home / 'ml' / 'file')\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30,
        cwd="/", env=os.environ | {"TMPDIR": "/tmp"},
    )
    if found.returncode != 0 and "Operation not permitted" in found.stderr:
        pytest.skip("user namespaces are for root alone here")
    assert found.returncode == 0, found.stderr
    written = Path(found.stdout.strip())

    assert written.stat().st_uid == 65534
