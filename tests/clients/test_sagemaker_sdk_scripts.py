"""Script mode through the SageMaker Python SDK v2, unmodified (TRAIN-42, TK-05)."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TRAIN = '''\
import argparse, json, os, sys
from pathlib import Path
from lib.words import greeting

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--model-dir", default=os.environ["SM_MODEL_DIR"])
arguments, _ = parser.parse_known_args()
if os.environ.get("SM_HP_FAIL") == "true":
    raise ValueError(f"no good after {arguments.epochs} epochs")  # the line to be named
print(greeting, flush=True)
for epoch in range(arguments.epochs):
    print(f"epoch {epoch} loss={1 / (epoch + 1):.3f}")
seen = {"argv": sys.argv[1:], "hps": json.loads(os.environ["SM_HPS"]),
        "channels": os.environ["SM_CHANNELS"], "data": os.listdir(os.environ["SM_CHANNEL_TRAIN"]),
        "job": os.environ["SAGEMAKER_JOB_NAME"], "region": os.environ["SAGEMAKER_REGION"]}
Path(arguments.model_dir, "seen.json").write_text(json.dumps(seen))
'''
RUN = """\
import json, sys
import sagemaker
from sagemaker.estimator import Estimator
from sagemaker.pytorch import PyTorch
from sagemaker.sklearn import SKLearn

source, train, image, name = sys.argv[1:5]
asked = json.loads(sys.argv[5])
session = sagemaker.Session()
data = session.upload_data(train, key_prefix=name)
kinds = {"Estimator": Estimator, "PyTorch": PyTorch, "SKLearn": SKLearn}
arguments = dict(asked["arguments"])
if asked.get("source", True):
    arguments["source_dir"] = source
estimator = kinds[asked["kind"]](
    image_uri=image, role=sagemaker.get_execution_role(), instance_count=1,
    instance_type="ml.m5.large", base_job_name=name, **arguments,
)
try:
    estimator.fit({"train": data}, logs=True)
except Exception as error:
    print("RAISED", type(error).__name__, error)
print("RESULT", json.dumps({
    "job": estimator.latest_training_job.name, "model": estimator.model_data,
}))
"""
AWKWARD = 'two words "quoted" \'single\' ünï😀 $(touch x) `id` \\ ; & | <'
EVERY_TYPE = {
    "epochs": 3, "lr": 0.1, "flag": True, "off": False, "nothing": None, "layers": [1, 2],
    "names": ["a", "b c"], "options": {"b": 1, "a": "x"}, "text": AWKWARD, "number": "001",
    "empty": "", "batch-size": 32, "dashes": "--flag",
}
ARGUMENTS = [
    "--batch-size", "32", "--dashes", "--flag", "--empty", "", "--epochs", "3", "--flag", "True",
    "--layers", "[1, 2]", "--lr", "0.1", "--names", "['a', 'b c']", "--nothing", "", "--number",
    "001", "--off", "False", "--options", "a=x,b=1", "--text", AWKWARD,
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "lib").mkdir(parents=True)
    (folder / "train.py").write_text(TRAIN)
    (folder / "lib" / "words.py").write_text('greeting = "hello from the source"\n')
    return folder


@pytest.fixture
def fit(
    server: Any, clean_environment: dict[str, str], tmp_path: Path, source: Path, image: str
) -> Callable[..., tuple[str, dict[str, Any]]]:
    """What `fit` printed, and the job and the model that it left."""
    environment = clean_environment | json.loads(server.byoa("env", "--json").stdout) | {
        "HOME": str(tmp_path)
    }
    data = tmp_path / "train.csv"
    data.write_text("1,2\n")

    def run(**asked: Any) -> tuple[str, dict[str, Any]]:
        ran = subprocess.run(
            [sys.executable, "-c", RUN, str(source), str(data), image,
             f"script-{uuid.uuid4().hex[:6]}", json.dumps(asked)],
            env=environment, text=True, timeout=240, cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        lines = [line for line in ran.stdout.splitlines() if line.startswith("RESULT ")]
        assert ran.returncode == 0 and lines, ran.stdout
        return ran.stdout, json.loads(lines[-1].removeprefix("RESULT "))

    return run


def _seen(server: Any, uri: str) -> dict[str, Any]:
    bucket, key = uri.removeprefix("s3://").split("/", 1)
    body = server.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        member = tar.extractfile("seen.json")
        assert member is not None
        found: dict[str, Any] = json.load(member)
        return found


FRAMEWORK = {"py_version": "py311"}


@pytest.mark.both_runners
def test_a_pytorch_estimator_s_script_gets_its_hyperparameters_as_they_were(
    server: Any, fit: Any
) -> None:
    """TRAIN-42, TRAIN-43, TK-05, CHK-31: every type, as JSON on the wire; the log to its end."""
    printed, result = fit(kind="PyTorch", arguments=FRAMEWORK | {
        "entry_point": "train.py", "framework_version": "2.13", "hyperparameters": EVERY_TYPE,
        "metric_definitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}],
    })
    assert "RAISED" not in printed
    assert "hello from the source" in printed and "epoch 2 loss=0.333" in printed
    assert result["model"].endswith(f"/{result['job']}/output/model.tar.gz")
    seen = _seen(server, result["model"])
    assert seen["argv"] == ARGUMENTS
    assert seen["hps"] == EVERY_TYPE
    assert (seen["channels"], seen["data"]) == ('["train"]', ["train.csv"])
    assert seen["job"] == result["job"] and seen["region"]
    described = server.client("sagemaker").describe_training_job(TrainingJobName=result["job"])
    assert described["FinalMetricDataList"][0]["Value"] == pytest.approx(0.333)


def test_a_scikit_learn_estimator_s_script_runs(server: Any, fit: Any) -> None:
    printed, result = fit(kind="SKLearn", arguments={
        "entry_point": "train.py", "framework_version": "1.2-1", "py_version": "py3",
        "hyperparameters": {"epochs": 2},
    })
    assert "RAISED" not in printed
    assert _seen(server, result["model"])["argv"] == ["--epochs", "2"]


@pytest.mark.both_runners
def test_a_generic_estimator_runs_a_script_and_tells_why_it_failed(
    server: Any, fit: Any
) -> None:
    """TRAIN-42, TRAIN-142, TK-09: the cause and the author's line, in what `fit` raises."""
    printed, result = fit(kind="Estimator", arguments={
        "entry_point": "train.py", "hyperparameters": {"epochs": 4, "fail": True},
    })
    line = TRAIN.splitlines().index(next(x for x in TRAIN.splitlines() if "# the line" in x)) + 1
    reason = server.client("sagemaker").describe_training_job(
        TrainingJobName=result["job"]
    )["FailureReason"]
    assert reason.startswith(
        f"AlgorithmError: ValueError: no good after 4 epochs at train.py:{line} in <module>: "
    )
    assert reason.endswith(", exit code: 1")
    assert "RAISED UnexpectedStatusException" in printed
    assert "ValueError: no good after 4 epochs" in printed.partition("RAISED")[2]


@pytest.mark.both_runners
def test_a_shell_script_is_an_entry_point(server: Any, fit: Any, source: Path) -> None:
    """TK-04"""
    (source / "run.sh").write_text('#!/bin/bash\nset -e\npython train.py "$@"\n')
    printed, result = fit(kind="Estimator", arguments={
        "entry_point": "run.sh", "hyperparameters": {"epochs": 2, "text": AWKWARD},
    })
    assert "RAISED" not in printed
    assert _seen(server, result["model"])["argv"] == ["--epochs", "2", "--text", AWKWARD]


@pytest.mark.both_runners
def test_under_network_isolation_the_code_is_a_channel_and_pip_is_not_waited_for(
    server: Any, fit: Any, source: Path
) -> None:
    """TRAIN-12, TRAP-52: the SDK sends the code as a channel; without wheels the reason is told."""
    isolated = FRAMEWORK | {
        "entry_point": "train.py", "framework_version": "2.13",
        "hyperparameters": {"epochs": 2}, "enable_network_isolation": True,
    }
    printed, result = fit(kind="PyTorch", arguments=isolated)
    assert "RAISED" not in printed
    assert "/opt/ml/input/data/code/sourcedir.tar.gz" in printed
    assert _seen(server, result["model"])["data"] == ["train.csv"]
    (source / "requirements.txt").write_text("no-such-package-anywhere==1.0\n")
    printed, _ = fit(kind="PyTorch", arguments=isolated)
    reason = printed.partition("RAISED")[2]
    assert "no package index can be reached from here" in reason
    assert "EnableNetworkIsolation" in reason and "wheelhouse" in reason
