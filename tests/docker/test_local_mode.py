"""The SageMaker Python SDK's own local mode runs the image unmodified, as a peer's test of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Local mode has one host port for endpoints, 8080, and one network: this is its only test.
SCRIPT = '''
import sys
from pathlib import Path

from sagemaker.deserializers import JSONDeserializer
from sagemaker.estimator import Estimator
from sagemaker.local import LocalSession
from sagemaker.serializers import CSVSerializer

image, folder = sys.argv[1], Path(sys.argv[2])
session = LocalSession()
session.config = {"local": {"local_code": True, "container_root": str(folder / "root")}}
estimator = Estimator(
    image, "arn:aws:iam::123456789012:role/tests", 1, "local", sagemaker_session=session,
    output_path=f"file://{folder / 'output'}", hyperparameters={"metric": "cosine"},
    environment={"BYOA_ALGORITHM": "nearest-centroid"},
)
estimator.fit({"train": f"file://{folder / 'train'}"})
print("MODEL", estimator.model_data)
predictor = estimator.deploy(
    1, "local", serializer=CSVSerializer(), deserializer=JSONDeserializer()
)
answer = predictor.predict((folder / "records.csv").read_text())
truth = [int(line) for line in (folder / "labels.csv").read_text().split()]
right = sum(int(a) == b for a, b in zip(answer["predictions"], truth))
print("ACCURACY", right / len(truth))
predictor.delete_endpoint()
print("DONE")
'''


@pytest.mark.skipif(
    not shutil.which("docker-compose"), reason="local mode runs docker-compose, which is not here"
)
def test_the_sdk_s_local_mode_trains_and_serves_with_the_image(
    torch_free_image: str, clean_environment: dict[str, str], digits: dict[str, bytes],
    tmp_path: Path,
) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "train" / "train.csv").write_bytes(digits["train"])
    (tmp_path / "records.csv").write_bytes(digits["test-records"])
    (tmp_path / "labels.csv").write_bytes(digits["test-labels"])
    script = tmp_path / "local_mode.py"
    script.write_text(SCRIPT)
    ran = subprocess.run(
        [sys.executable, str(script), torch_free_image, str(tmp_path)],
        env=clean_environment | {
            "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests",
        },
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=400,
    )
    assert ran.returncode == 0 and "DONE" in ran.stdout, ran.stdout[-6000:]
    accuracy = float(ran.stdout.split("ACCURACY ")[1].split()[0])
    assert accuracy > 0.8
