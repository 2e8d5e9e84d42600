"""The SageMaker Python SDK v3, unmodified: `ModelTrainer` with source code (DRV-01 … DRV-07).

It never runs `train`: it uploads its own drivers, and bash runs them by ContainerEntrypoint.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PYTHON = Path(__file__).parents[2] / "build" / "sdk-v3" / "bin" / "python"
pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="the SDK v3 is not installed: `make sdk-v3` does it"
)

TRAIN = '''\
import json, os, sys
from pathlib import Path
from words import greeting

print(greeting, flush=True)
names = ("SM_HPS", "SM_HP_BATCH_SIZE", "SM_CHANNELS", "SM_MASTER_ADDR", "SM_MASTER_PORT",
         "SM_HOST_COUNT", "SM_CURRENT_HOST_RANK", "SM_SOURCE_DIR", "SM_ENTRY_SCRIPT",
         "SM_OUTPUT_FAILURE", "SM_INPUT_DATA_DIR")
seen = {"argv": sys.argv[1:], "cwd": os.getcwd(), "python": sys.executable,
        "variables": {name: os.environ.get(name) for name in names}}
Path(os.environ["SM_MODEL_DIR"], "seen.json").write_text(json.dumps(seen))
'''
RANKS = '''\
import os
import torch.distributed as distributed

distributed.init_process_group("gloo")
rank, size = distributed.get_rank(), distributed.get_world_size()
with open(os.path.join(os.environ["SM_MODEL_DIR"], f"rank-{rank}"), "w") as file:
    file.write(str(size))
distributed.destroy_process_group()
'''
# All trainers are started before the first is waited for: the SDK looks every five seconds.
RUN = """\
import json, sys
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.resources import TrainingJob
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, SourceCode
from sagemaker.train.distributed import Torchrun

image, name, data = sys.argv[1:4]
session = Session()
started = {}
for key, asked in json.loads(sys.argv[4]).items():
    uri = asked.pop("upload", None)
    if uri:
        asked["source"]["source_dir"] = (
            session.upload_data(uri, key_prefix=f"{name}-{key}") + "/"
        )
    more = {"distributed": Torchrun(process_count_per_node=2)} if asked.get("torchrun") else {}
    trainer = ModelTrainer(
        sagemaker_session=session, training_image=image, base_job_name=f"{name}-{key}",
        role="arn:aws:iam::123456789012:role/tests", source_code=SourceCode(**asked["source"]),
        compute=Compute(instance_type="ml.m5.large", instance_count=1),
        hyperparameters=asked.get("hyperparameters", {}), **more,
    )
    trainer.train(
        input_data_config=[InputData(channel_name="train", data_source=data)], wait=False
    )
    started[key] = trainer._latest_training_job
results = {}
for key, job in started.items():
    raised = None
    try:
        job.wait(poll=1)
    except Exception as error:
        raised = f"{type(error).__name__}: {error}"
    job.refresh()
    results[key] = {
        "job": job.training_job_name, "status": job.training_job_status, "raised": raised,
        "reason": job.failure_reason if raised else None,
        "model": job.model_artifacts.s3_model_artifacts,
    }
print("RESULT", json.dumps(results))
"""
AWKWARD = 'two words "quoted" ünï😀 $(touch x) \\ ; & | <'
HYPERPARAMETERS = {
    "epochs": 3, "lr": 0.1, "flag": True, "nothing": None, "layers": [1, 2],
    "options": {"b": 1, "a": "x y"}, "text": AWKWARD, "number": "001", "batch-size": 32,
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN)
    (folder / "words.py").write_text('greeting = "hello from the source"\n')
    (folder / "run.sh").write_text('#!/bin/bash\nset -e\necho "shell $#"\npython train.py "$@"\n')
    (folder / "fail.py").write_text("raise ValueError('no good')\n")
    (folder / "ranks.py").write_text(RANKS)
    (folder / "requirements.txt").write_text("numpy\n")  # which the image has: no network
    return folder


@pytest.fixture
def train(
    server: Any, clean_environment: dict[str, str], tmp_path: Path, image: str
) -> Callable[..., dict[str, Any]]:
    """Runs trainers, and gives their jobs by name."""
    environment = clean_environment | json.loads(server.byoa("env", "--json").stdout) | {
        "HOME": str(tmp_path)
    }
    data = tmp_path / "train.csv"
    data.write_text("1,2\n")

    def run(asked: dict[str, Any]) -> dict[str, Any]:
        ran = subprocess.run(
            [str(PYTHON), "-c", RUN, image, f"v3-{uuid.uuid4().hex[:6]}", str(data),
             json.dumps(asked)],
            env=environment, text=True, timeout=300, cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        lines = [line for line in ran.stdout.splitlines() if line.startswith("RESULT ")]
        assert ran.returncode == 0 and lines, ran.stdout
        found: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
        return found

    return run


def _model(server: Any, result: dict[str, Any]) -> dict[str, bytes]:
    assert result["status"] == "Completed", result
    bucket, key = result["model"].removeprefix("s3://").split("/", 1)
    body = server.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    found = {}
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None:
                found[member.name] = file.read()
    return found


def _log(server: Any, job: str) -> str:
    return str(server.byoa("logs", job).stdout)


@pytest.mark.both_runners
def test_a_model_trainer_runs_scripts_commands_and_requirements(
    server: Any, train: Any, source: Path
) -> None:
    """DRV-01 … DRV-06, TRAIN-02, TRAIN-09, TRAIN-32."""
    folder, archive = str(source), source.parent / "source.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path in source.iterdir():
            tar.add(path, path.name)
    results = train({
        "python": {"source": {"source_dir": folder, "entry_script": "train.py"},
                   "hyperparameters": HYPERPARAMETERS},
        "shell": {"source": {"source_dir": folder, "entry_script": "run.sh"},
                  "hyperparameters": {"epochs": 3, "text": "two words"}},
        "command": {"source": {"source_dir": folder, "command": "python train.py --x 1",
                               "args": [AWKWARD]}},
        "requirements": {"source": {"source_dir": folder, "entry_script": "train.py",
                                    "requirements": "requirements.txt"}},
        "remote": {"source": {"entry_script": "train.py", "requirements": "requirements.txt"},
                   "upload": folder},
        "archive": {"source": {"source_dir": str(archive), "entry_script": "train.py"}},
    })
    seen = {key: json.loads(_model(server, each)["seen.json"]) for key, each in results.items()}
    arguments = seen["python"]["argv"]
    passed = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert passed.pop("--text") == AWKWARD
    assert json.loads(passed.pop("--options")) == HYPERPARAMETERS["options"]
    assert passed == {
        "--epochs": "3", "--lr": "0.1", "--flag": "true", "--nothing": "null",
        "--layers": "[1, 2]", "--number": "001", "--batch-size": "32",
    }
    assert seen["python"]["cwd"] == "/opt/ml/input/data/code"
    variables = seen["python"]["variables"]
    assert json.loads(variables.pop("SM_HPS")) == HYPERPARAMETERS
    assert set(json.loads(variables.pop("SM_CHANNELS"))) == {"train", "code", "sm_drivers"}
    assert variables == {
        "SM_HP_BATCH_SIZE": "32", "SM_MASTER_ADDR": "algo-1", "SM_MASTER_PORT": "7777",
        "SM_HOST_COUNT": "1", "SM_CURRENT_HOST_RANK": "0", "SM_ENTRY_SCRIPT": "train.py",
        "SM_SOURCE_DIR": "/opt/ml/input/data/code", "SM_OUTPUT_FAILURE": "/opt/ml/output/failure",
        "SM_INPUT_DATA_DIR": "/opt/ml/input/data",
    }
    assert seen["shell"]["argv"] == ["--epochs", "3", "--text", "two words"]
    assert seen["archive"]["argv"] == []
    assert seen["command"]["argv"] == ["--x", "1", AWKWARD]
    for key in ("requirements", "remote"):
        assert "numpy" in _log(server, results[key]["job"]), "pip told of it"


@pytest.mark.both_runners
def test_a_model_trainer_s_failure_is_the_driver_s_word_and_the_log_has_the_rest(
    server: Any, train: Any, source: Path
) -> None:
    """DRV-07"""
    result = train({"fail": {"source": {"source_dir": str(source), "entry_script": "fail.py"}}})
    failed = result["fail"]
    assert failed["status"] == "Failed"
    assert failed["reason"].startswith("AlgorithmError: ")
    assert failed["reason"].endswith(", exit code: 1")
    assert "fail.py" in failed["reason"]
    assert "FailedStatusError" in failed["raised"]
    assert "ValueError: no good" in _log(server, failed["job"])


def test_a_model_trainer_s_torchrun_runs_several_processes_on_one_host(
    server: Any, train: Any, source: Path
) -> None:
    """DRV-03, as far as one host goes."""
    result = train({"torch": {
        "source": {"source_dir": str(source), "entry_script": "ranks.py"}, "torchrun": True,
    }})
    assert _model(server, result["torch"]) == {"rank-0": b"2", "rank-1": b"2"}
