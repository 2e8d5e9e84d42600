"""What a warm pool saves: from CreateTrainingJob to the author's first line, of a torch algorithm.

    python tests/bench/warm_pool.py [ROUNDS]

Starts a server of its own and submits jobs in turn by boto3; each round is one of each:
cold      the first job of a pool: the interpreter starts, and imports torch
warm      the next job like it: the interpreter was kept ready
Prints each round, the medians, and their ratio.
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

ROUNDS = 5
READY_SECONDS = 20.0  # that a pool is left alone, so that its interpreter has imported torch

ALGORITHM = """
import time

import torch

from byoa.algorithms import Algorithm


class First(Algorithm):
    def train(self, run):
        print("first line at", time.time(), flush=True)
        (run.model_dir / "weights").write_bytes(bytes(8))

    def load(self, model_dir, device):
        return torch.zeros(1)

    def predict(self, model, records):
        return records.sum(axis=1)
"""


def start_server(home: Path) -> tuple[subprocess.Popen[bytes], str]:
    """`byoa up` on a free port; its process and address."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "BYOA_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "byoa.local.cli", "up", "--home", str(home), "--port", "0"],
        env=environment | {"BYOA_RUNNER": "process"}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            return process, str(json.loads((home / "server.json").read_text())["url"])
        except (FileNotFoundError, ValueError):
            time.sleep(0.02)
    process.kill()
    raise SystemExit("the server does not start")


def job(client: Any, home: Path, name: str, role: str) -> float:
    """Seconds from the request to the author's first line; pools are of jobs of one role."""
    began = time.time()
    client.create_training_job(
        TrainingJobName=name,
        RoleArn=f"arn:aws:iam::123456789012:role/{role}",
        AlgorithmSpecification={"TrainingImage": "bench-warm", "TrainingInputMode": "File"},
        OutputDataConfig={"S3OutputPath": "s3://bench/output"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1,
                        "KeepAlivePeriodInSeconds": 600},
        StoppingCondition={"MaxRuntimeInSeconds": 120},
    )
    end = time.monotonic() + 120
    while time.monotonic() < end:
        described = client.describe_training_job(TrainingJobName=name)
        if described["TrainingJobStatus"] != "InProgress":
            break
        time.sleep(0.1)
    if described["TrainingJobStatus"] != "Completed":
        raise SystemExit(described.get("FailureReason") or described["TrainingJobStatus"])
    (log,) = (home / "logs").rglob(f"{name}/*")
    line = next(each for each in log.read_text().splitlines() if each.startswith("first line at"))
    return float(line.split()[-1]) - began


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        home, folder = Path(temporary, "home"), Path(temporary, "algorithm")
        folder.mkdir()
        (folder / "first.py").write_text(ALGORITHM)
        process, url = start_server(home)
        try:
            subprocess.run(
                [sys.executable, "-m", "byoa.local.cli", "image", "add", "bench-warm", str(folder),
                 "--home", str(home)], check=True, stdout=subprocess.DEVNULL, timeout=60,
            )
            access = {"endpoint_url": url, "region_name": "us-east-1",
                      "aws_access_key_id": "bench", "aws_secret_access_key": "bench"}
            boto3.client("s3", **access).create_bucket(Bucket="bench")
            client = boto3.client("sagemaker", **access)
            found: dict[str, list[float]] = {"cold": [], "warm": []}
            for number in range(rounds):
                role = f"round-{number}"
                found["cold"].append(job(client, home, f"cold-{number}", role))
                time.sleep(READY_SECONDS)
                found["warm"].append(job(client, home, f"warm-{number}", role))
                client.update_training_job(TrainingJobName=f"warm-{number}",
                                           ResourceConfig={"KeepAlivePeriodInSeconds": 0})
                print(f"round {number + 1}: cold {found['cold'][-1]:.3f} s,"
                      f" warm {found['warm'][-1]:.3f} s", flush=True)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    cold, warm = (statistics.median(each) for each in found.values())
    print(f"from CreateTrainingJob to the first line, median of {rounds}: cold {cold:.3f} s,"
          f" warm {warm:.3f} s, {cold / warm:.1f} times sooner")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
