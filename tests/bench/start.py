"""How long from CreateTrainingJob to the author's first line, beside a bare `python -c`.

    python tests/bench/start.py [ROUNDS]

Starts a server of its own, submits jobs of a numpy algorithm by boto3, and prints the medians:
bare      `python -c "import numpy"` from start to its first line after the import
private   the same algorithm as a job, with a private /opt/ml where the kernel allows it
base-dir  as a job, with SAGEMAKER_BASE_DIR (BYOA_SANDBOX=off)
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import boto3

ROUNDS = 7
GOAL_SECONDS = 0.5

ALGORITHM = """
import time

import numpy as np

from byoa.algorithms import Algorithm


class First(Algorithm):
    def train(self, run):
        print("first line at", time.time(), flush=True)
        np.save(run.model_dir / "weights.npy", np.zeros(3))

    def load(self, model_dir, device):
        return np.load(model_dir / "weights.npy")

    def predict(self, model, records):
        return records.sum(axis=1)
"""


def bare() -> float:
    """Seconds from the start of Python to the line after `import numpy`."""
    began = time.time()
    found = subprocess.run(
        [sys.executable, "-c", "import time, numpy; print(time.time())"],
        capture_output=True, text=True, check=True, timeout=60,
    )
    return float(found.stdout) - began


class Server:
    """`byoa up` on a free port, with a home of its own."""

    def __init__(self, home: Path, sandbox: str) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "BYOA_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "byoa.local.cli", "up", "--home", str(home), "--port", "0"],
            env=environment | {"BYOA_RUNNER": "process", "BYOA_SANDBOX": sandbox},
            start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        self.url = self._wait_for(home / "server.json")

    def _wait_for(self, record: Path) -> str:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                return str(json.loads(record.read_text())["url"])
            except (FileNotFoundError, ValueError):
                time.sleep(0.02)
        raise SystemExit("the server does not start")

    def client(self, service: str) -> Any:
        return boto3.client(
            service, endpoint_url=self.url, region_name="us-east-1",
            aws_access_key_id="bench", aws_secret_access_key="bench",
        )

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)


def job(sagemaker: Any, logs: Any, name: str) -> float:
    """Seconds from the request to the author's first line."""
    began = time.time()
    sagemaker.create_training_job(
        TrainingJobName=name,
        RoleArn="arn:aws:iam::123456789012:role/bench",
        AlgorithmSpecification={"TrainingImage": "bench-start", "TrainingInputMode": "File"},
        OutputDataConfig={"S3OutputPath": "s3://bench/output"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
    )
    end = time.monotonic() + 60
    while time.monotonic() < end:
        described = sagemaker.describe_training_job(TrainingJobName=name)
        if described["TrainingJobStatus"] == "Completed":
            break
        if described["TrainingJobStatus"] == "Failed":
            raise SystemExit(described["FailureReason"])
        time.sleep(0.1)
    group = "/aws/sagemaker/TrainingJobs"
    stream = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")
    events = logs.get_log_events(
        logGroupName=group, logStreamName=stream["logStreams"][0]["logStreamName"],
        startFromHead=True,
    )["events"]
    line = next(e["message"] for e in events if e["message"].startswith("first line at"))
    return float(line.split()[-1]) - began


def jobs(rounds: int, sandbox: str) -> list[float]:
    with tempfile.TemporaryDirectory() as directory:
        home, folder = Path(directory, "home"), Path(directory, "algorithm")
        folder.mkdir()
        folder.joinpath("first.py").write_text(ALGORITHM, encoding="utf-8")
        server = Server(home, sandbox)
        try:
            subprocess.run(
                [sys.executable, "-m", "byoa.local.cli", "image", "add", "bench-start",
                 str(folder), "--home", str(home)],
                check=True, stdout=subprocess.DEVNULL, timeout=60,
            )
            server.client("s3").create_bucket(Bucket="bench")
            sagemaker, logs = server.client("sagemaker"), server.client("logs")
            job(sagemaker, logs, "warm-up")
            return [job(sagemaker, logs, f"round-{number}") for number in range(rounds)]
        finally:
            server.close()


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    base = statistics.median(bare() for _ in range(rounds))
    print(f"bare      {base:.3f} s")
    worst = 0.0
    for name, sandbox in (("private", "auto"), ("base-dir", "off")):
        measured = sorted(jobs(rounds, sandbox))
        median = statistics.median(measured)
        worst = max(worst, median)
        print(f"{name:9s} {median:.3f} s   {median / base:.1f} x bare   "
              f"({measured[0]:.3f} … {measured[-1]:.3f}, {rounds} rounds)")
    print(f"goal      {GOAL_SECONDS} s: {'met' if worst <= GOAL_SECONDS else 'missed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
