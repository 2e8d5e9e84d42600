"""The SageMaker Python SDK v2, unmodified, with the variables that `byoa env` prints."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

SCRIPT = '''
import sys, boto3, sagemaker
from sagemaker.estimator import Estimator
from sagemaker.serializers import CSVSerializer
from sagemaker.deserializers import JSONDeserializer

train, records, labels, image, name = sys.argv[1:]
session = sagemaker.Session()
data = session.upload_data(train, key_prefix=name)
print("DATA", data)
estimator = Estimator(
    image_uri=image, role=sagemaker.get_execution_role(), instance_count=1,
    instance_type="ml.m5.large", base_job_name=name,
    environment={"BYOA_ALGORITHM": "nearest-centroid"}, hyperparameters={"metric": "cosine"},
    metric_definitions=[{"Name": "train:accuracy", "Regex": "train:accuracy=([0-9.]+)"}],
)
estimator.fit({"train": sagemaker.inputs.TrainingInput(data, content_type="text/csv")}, logs=True)
print("MODEL", estimator.model_data)
print("METRICS", estimator.training_job_analytics.dataframe().to_dict("records"))
attached = Estimator.attach(estimator.latest_training_job.name)
print("ATTACHED", attached.hyperparameters())
predictor = estimator.deploy(
    initial_instance_count=1, instance_type="ml.m5.large",
    serializer=CSVSerializer(), deserializer=JSONDeserializer(),
)
answer = predictor.predict(open(records).read())
truth = [int(line) for line in open(labels)]
right = sum(int(a) == b for a, b in zip(answer["predictions"], truth))
print("ACCURACY", right / len(truth), len(answer["predictions"]) == len(truth))
predictor.delete_model()
predictor.delete_endpoint()
print("DONE")
'''


@pytest.mark.both_runners
def test_an_estimator_fits_with_logs_deploys_and_predicts(
    server: Any, clean_environment: dict[str, str], digits: dict[str, bytes], tmp_path: Path,
    image: str,
) -> None:
    """CHK-31: `fit(logs=True)` ends and prints every line; STS goes through the proxy door."""
    printed = server.byoa("env", "--json")
    environment = clean_environment | json.loads(printed.stdout) | {"HOME": str(tmp_path)}
    for name in ("train", "test-records", "test-labels"):
        (tmp_path / f"{name}.csv").write_bytes(digits[name])
    script = tmp_path / "estimator.py"
    script.write_text(SCRIPT)
    ran = subprocess.run(
        [sys.executable, str(script), *(str(tmp_path / f"{name}.csv") for name in
         ("train", "test-records", "test-labels")), image, f"sdk-{uuid.uuid4().hex[:6]}"],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240,
    )
    assert ran.returncode == 0, ran.stdout
    assert ran.stdout.rstrip().endswith("DONE")
    assert "train:accuracy=" in ran.stdout, "the job's own log line is printed by fit"
    assert "METRICS [{" in ran.stdout, "TrainingJobAnalytics reads them from CloudWatch"
    accuracy = next(line for line in ran.stdout.splitlines() if line.startswith("ACCURACY"))
    assert float(accuracy.split()[1]) > 0.8
    assert accuracy.endswith("True")
    assert "'metric': 'cosine'" in ran.stdout
