"""Script-mode inference through the SageMaker Python SDK v2, unmodified (ITK-01, HOST-08)."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path
from typing import Any

import pytest

INFERENCE = '''\
import json, os
from words import shout

def model_fn(model_dir):
    with open(os.path.join(model_dir, "greeting.txt")) as file:
        return file.read()

def input_fn(data, content_type):
    return json.loads(data)

def predict_fn(data, model):
    return [shout(f"{model} {name}") for name in data]
'''
RUN = """\
import json, sys
import boto3, sagemaker
from sagemaker.deserializers import JSONDeserializer
from sagemaker.model import Model
from sagemaker.predictor import Predictor
from sagemaker.pytorch import PyTorchModel
from sagemaker.serializers import JSONSerializer

kind, archive, source, image, name = sys.argv[1:]
session = sagemaker.Session()
arguments = {
    "image_uri": image, "role": sagemaker.get_execution_role(), "name": name,
    "model_data": session.upload_data(archive, key_prefix=name),
    "entry_point": "inference.py", "source_dir": source, "sagemaker_session": session,
}
if kind == "PyTorchModel":
    model = PyTorchModel(framework_version="2.1", py_version="py310", **arguments)
else:
    model = Model(**arguments)
model.deploy(  # without the 30 s that the SDK sleeps before it first looks
    initial_instance_count=1, instance_type="ml.m5.large", endpoint_name=name, wait=False,
)
boto3.client("sagemaker").get_waiter("endpoint_in_service").wait(
    EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 90}
)
predictor = Predictor(name, session, JSONSerializer(), JSONDeserializer())
described = boto3.client("sagemaker").describe_model(ModelName=name)["PrimaryContainer"]
print("RESULT", json.dumps([predictor.predict(["ada", "grace"]), described["Environment"]]))
predictor.delete_endpoint()
"""


@pytest.mark.both_runners
@pytest.mark.parametrize("kind", ["Model", "PyTorchModel"])
def test_a_model_with_an_entry_point_answers_by_its_functions(
    server: Any, clean_environment: dict[str, str], tmp_path: Path, image: str, kind: str
) -> None:
    """ITK-01, ITK-02: the SDK packs the script into the model's code/, or names it in S3."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "inference.py").write_text(INFERENCE)
    (source / "words.py").write_text("def shout(text):\n    return text.upper()\n")
    (tmp_path / "greeting.txt").write_text("hello")
    archive = tmp_path / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "greeting.txt", "greeting.txt")
    environment = clean_environment | json.loads(server.byoa("env", "--json").stdout) | {
        "HOME": str(tmp_path)
    }
    name = f"inference-{uuid.uuid4().hex[:6]}"
    ran = subprocess.run(
        [sys.executable, "-c", RUN, kind, str(archive), str(source), image, name],
        env=environment, text=True, timeout=240, cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    lines = [line for line in ran.stdout.splitlines() if line.startswith("RESULT ")]
    assert ran.returncode == 0 and lines, ran.stdout
    answer, variables = json.loads(lines[-1].removeprefix("RESULT "))
    assert answer == ["HELLO ADA", "HELLO GRACE"]
    assert variables["SAGEMAKER_PROGRAM"] == "inference.py"
