"""Jobs and endpoints here beside the SageMaker Python SDK's own local mode, with the same image.

    python tests/bench/engine.py [--rounds N] [--image IMAGE]

Needs a Docker engine, the image (`make image`) and docker-compose, which local mode runs.
job       a training job of a container that writes one file, from submit until it is Completed
endpoint  from create until the first invocation is answered 200, a nearest-centroid model
sdk       `instance_type="local"`: Estimator.fit, Model.deploy and predict
docker    the local SageMaker with `--runner docker`, by boto3
process   the same with `--runner process`
floor     `docker run` of the same container, alone
Prints medians, and each as a part of the SDK's. Goals: job 0.8 (docker) and 0.5 (process),
endpoint 0.06.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

PROGRAM = ["python", "-c", "open('/opt/ml/model/done', 'w').write('1')"]
ROLE = "arn:aws:iam::123456789012:role/bench"
GOALS = {("job", "docker"): 0.8, ("job", "process"): 0.5,
         ("endpoint", "docker"): 0.06, ("endpoint", "process"): 0.06}
REQUEST = "1.0,2.0"


class Local:
    """`byoa up` with a runner, and the calls of a user of boto3."""

    def __init__(self, home: Path, runner: str, image: str) -> None:
        self.image = image
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "BYOA_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "byoa.local.cli", "up", "--home", str(home), "--port", "0",
             "--runner", runner],
            env=environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 30
        url = ""
        while not url and time.monotonic() < end:
            with contextlib.suppress(FileNotFoundError, ValueError):
                url = json.loads((home / "server.json").read_text())["url"]
            time.sleep(0.02)
        if not url:
            raise SystemExit(f"the server with --runner {runner} does not start")
        access = {"endpoint_url": url, "region_name": "us-east-1", "aws_access_key_id": "x",
                  "aws_secret_access_key": "x"}
        self.sagemaker = boto3.client("sagemaker", **access)
        self.s3 = boto3.client("s3", **access)
        self.runtime = boto3.client(
            "sagemaker-runtime", config=Config(retries={"max_attempts": 0}), **access
        )
        self.s3.create_bucket(Bucket="bench")

    def job(self, number: int) -> float:
        name = f"job-{number}"
        began = time.monotonic()
        self.sagemaker.create_training_job(
            TrainingJobName=name,
            RoleArn=ROLE,
            AlgorithmSpecification={
                "TrainingImage": self.image, "TrainingInputMode": "File",
                "ContainerEntrypoint": PROGRAM,
            },
            OutputDataConfig={"S3OutputPath": "s3://bench/output"},
            ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1,
                            "VolumeSizeInGB": 1},
            StoppingCondition={"MaxRuntimeInSeconds": 60},
        )
        waiter = self.sagemaker.get_waiter("training_job_completed_or_stopped")
        waiter.wait(TrainingJobName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        return time.monotonic() - began

    def endpoint(self, number: int, model: Path) -> float:
        name = f"endpoint-{number}"
        self.s3.upload_file(str(model), "bench", "model.tar.gz")
        began = time.monotonic()
        self.sagemaker.create_model(
            ModelName=name, ExecutionRoleArn=ROLE,
            PrimaryContainer={"Image": self.image, "ModelDataUrl": "s3://bench/model.tar.gz"},
        )
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[{"VariantName": "AllTraffic", "ModelName": name,
                                 "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}],
        )
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        waiter = self.sagemaker.get_waiter("endpoint_in_service")
        waiter.wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        answer = self.runtime.invoke_endpoint(
            EndpointName=name, ContentType="text/csv", Body=REQUEST
        )
        answer["Body"].read()
        spent = time.monotonic() - began
        self.sagemaker.delete_endpoint(EndpointName=name)
        gone = self.sagemaker.get_waiter("endpoint_deleted")
        gone.wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        return spent

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)


class LocalMode:
    """The SDK's local mode, as its documentation has it used."""

    def __init__(self, directory: Path, image: str) -> None:
        os.environ.update(AWS_DEFAULT_REGION="us-east-1", AWS_ACCESS_KEY_ID="x",
                          AWS_SECRET_ACCESS_KEY="x")
        from sagemaker.local import LocalSession

        self._image, self._directory = image, directory
        self._session = LocalSession()
        self._session.config = {"local": {"local_code": True, "container_root": str(directory)}}

    def job(self, number: int) -> float:
        from sagemaker.estimator import Estimator

        began = time.monotonic()
        Estimator(
            self._image, ROLE, 1, "local", sagemaker_session=self._session,
            output_path=f"file://{self._directory / 'output'}",
            container_entry_point=PROGRAM, base_job_name=f"job-{number}",
        ).fit(logs=False)
        return time.monotonic() - began

    def endpoint(self, number: int, model: Path) -> float:
        from sagemaker.deserializers import StringDeserializer
        from sagemaker.model import Model
        from sagemaker.predictor import Predictor
        from sagemaker.serializers import CSVSerializer

        began = time.monotonic()
        predictor = Model(
            self._image, model.as_uri(), ROLE, sagemaker_session=self._session,
            predictor_cls=Predictor,
        ).deploy(1, "local", serializer=CSVSerializer(), deserializer=StringDeserializer())
        predictor.predict(REQUEST)
        spent = time.monotonic() - began
        predictor.delete_endpoint()
        return spent


def floor(image: str) -> float:
    """The engine's own time for the job's container."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as ml:
        subprocess.run(
            ["docker", "run", "--rm", "-v", f"{ml}:/opt/ml/model", "--entrypoint", PROGRAM[0],
             image, *PROGRAM[1:]],
            check=True, timeout=60,
        )
    return time.monotonic() - began


def make_model(directory: Path) -> Path:
    """The artifact of a nearest-centroid of two classes."""
    data = directory / "train"
    data.mkdir()
    data.joinpath("train.csv").write_text("0,0.0,0.1\n0,0.1,0.0\n1,5.0,5.1\n1,5.2,5.0\n")
    model = directory / "model"
    subprocess.run(
        [sys.executable, "-m", "byoa.local.cli", "train", "nearest-centroid",
         "--channel", f"train={data}", "--model", str(model)],
        check=True, timeout=120, stdout=subprocess.DEVNULL,
    )
    archive = directory / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for each in sorted(model.iterdir()):
            tar.add(each, each.name)
    return archive


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The SDK and compose write much to the terminal."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image", default="byoa:no-torch")
    args = parser.parse_args()
    times: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="byoa-bench-", ignore_cleanup_errors=True) as folder:
        directory = Path(folder)
        model = make_model(directory)
        runners: dict[str, Any] = {
            runner: Local(directory / runner, runner, args.image)
            for runner in ("docker", "process")
        }
        try:
            runners["sdk"] = LocalMode(directory, args.image)
            for number in range(args.rounds):  # interleaved: what slows one slows all
                times.setdefault(("job", "floor"), []).append(floor(args.image))
                for name, runner in runners.items():
                    with quiet():
                        job, endpoint = runner.job(number), runner.endpoint(number, model)
                    times.setdefault(("job", name), []).append(job)
                    times.setdefault(("endpoint", name), []).append(endpoint)
                print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
        finally:
            for name in ("docker", "process"):
                runners[name].stop()
    report(times)


def report(times: dict[tuple[str, str], list[float]]) -> None:
    for what in ("job", "endpoint"):
        base = statistics.median(times[what, "sdk"])
        for (each, name), values in times.items():
            if each != what:
                continue
            median, goal = statistics.median(values), GOALS.get((what, name))
            share = median / base
            verdict = "" if goal is None else (
                f"  goal {goal}: {'met' if share <= goal else 'MISSED'}"
            )
            print(f"{what:<9} {name:<8} {median:7.3f} s  {share:6.3f} of the SDK's{verdict}")


if __name__ == "__main__":
    main()
