"""How fast a Pipe channel is read, beside `cat file > fifo` with the same reader.

    python tests/bench/pipe.py [--size-mib 1024] [--rounds 5] [--objects 4]

Starts a server of its own and one training job, a trivial reader (a loop of reads of 1 MiB), which
reads epochs of the channel by turns with FIFOs that `cat` fills. Prints the medians, their ratio,
and the server's peak memory. The objects are in the page cache for both.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import boto3

MIB = 1 << 20
GOAL = 0.8

READER = """
import os, sys, time
rounds, other = int(sys.argv[1]), sys.argv[2]
data = os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml") + "/input/data"
buffer = bytearray(1 << 20)
def measure(path):
    while not os.path.exists(path):
        time.sleep(0.001)
    began = time.monotonic()
    total = 0
    with open(path, "rb", buffering=0) as fifo:
        while count := fifo.readinto(buffer):
            total += count
    return total / (time.monotonic() - began)
for number in range(rounds):
    print("pipe", measure(f"{data}/train_{number}"), flush=True)
    print("cat", measure(f"{other}/{number}"), flush=True)
"""


class Server:
    """`byoa up` with processes on a free port, whose jobs are programs; use it in a `with`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "BYOA_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "byoa.local.cli", "up", "--home", str(home), "--port", "0"],
            env=environment | {"BYOA_RUNNER": "process"}, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 30
        self._url = ""
        while not self._url:
            if time.monotonic() > end:
                raise SystemExit("the server does not start")
            try:
                self._url = str(json.loads((home / "server.json").read_text())["url"])
            except (FileNotFoundError, ValueError):
                time.sleep(0.02)
        self.client("s3").create_bucket(Bucket="bench")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)

    def client(self, service: str) -> Any:
        return boto3.client(
            service, endpoint_url=self._url, region_name="us-east-1",
            aws_access_key_id="bench", aws_secret_access_key="bench",
        )

    def job(self, name: str, argv: list[str], mode: str) -> dict[str, Any]:
        """Run a program with the channel `train`, s3://bench/data/, to its end; Describe."""
        sagemaker = self.client("sagemaker")
        sagemaker.create_training_job(
            TrainingJobName=name,
            RoleArn="arn:aws:iam::123456789012:role/bench",
            AlgorithmSpecification={
                "TrainingImage": "byoa", "TrainingInputMode": mode, "ContainerEntrypoint": argv,
            },
            InputDataConfig=[{"ChannelName": "train", "DataSource": {"S3DataSource": {
                "S3DataType": "S3Prefix", "S3Uri": "s3://bench/data/"}}}],
            OutputDataConfig={"S3OutputPath": "s3://bench/output"},
            ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            StoppingCondition={"MaxRuntimeInSeconds": 3600},
        )
        while True:
            found: dict[str, Any] = sagemaker.describe_training_job(TrainingJobName=name)
            if found["TrainingJobStatus"] == "Completed":
                return found
            if found["TrainingJobStatus"] != "InProgress":
                raise SystemExit(found["FailureReason"])
            time.sleep(0.1)

    def lines(self, name: str) -> list[str]:
        """What an ended job has printed."""
        logs, group = self.client("logs"), "/aws/sagemaker/TrainingJobs"
        (stream,) = logs.describe_log_streams(
            logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
        events = logs.get_log_events(
            logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True)
        return [each["message"] for each in events["events"]]

    def peak_bytes(self) -> int:
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if "VmHWM" in line).split()[1]) * 1024


def feed_by_cat(folder: Path, files: list[Path], rounds: int) -> None:
    """One `cat` after the other, each waiting for its reader as the server does."""
    for number in range(rounds):
        with (folder / f"{number}").open("wb") as fifo:
            subprocess.run(["cat", *map(str, files)], stdout=fifo, check=True, timeout=600)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mib", type=int, default=1024, help="of an epoch")
    parser.add_argument("--objects", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="byoa-bench-") as directory:
        home, fifos = Path(directory, "home"), Path(directory, "fifos")
        fifos.mkdir()
        reader = Path(directory, "reader.py")
        reader.write_text(READER, encoding="utf-8")
        for number in range(options.rounds):
            os.mkfifo(fifos / f"{number}")
        with Server(home) as server:
            folder = home / "s3/bench/data"
            folder.mkdir()
            for number in range(options.objects):
                with (folder / f"{number}").open("wb") as file:
                    for _ in range(options.size_mib // options.objects):
                        file.write(os.urandom(MIB))
            files = sorted(folder.iterdir())
            server.client("s3").list_objects_v2(Bucket="bench")  # it learns of the files
            before = server.peak_bytes()
            cats = threading.Thread(
                target=feed_by_cat, args=(fifos, files, options.rounds), daemon=True
            )
            cats.start()
            argv = [sys.executable, str(reader), str(options.rounds), str(fifos)]
            server.job("pipe", argv, "Pipe")
            lines, peak = server.lines("pipe"), server.peak_bytes()
    found = {
        name: statistics.median(float(line.split()[1]) for line in lines if line.startswith(name))
        for name in ("pipe", "cat")
    }
    ratio = found["pipe"] / found["cat"]
    print(f"{options.rounds} epochs of {options.size_mib} MiB in {options.objects} objects,"
          f" {os.cpu_count()} CPUs")
    print(f"Pipe channel     {found['pipe'] / MIB:7.0f} MiB/s")
    print(f"cat file > fifo  {found['cat'] / MIB:7.0f} MiB/s   {ratio:.2f} times as fast"
          f" (goal {GOAL}: {'met' if ratio >= GOAL else 'missed'})")
    print(f"server's memory  {peak / MIB:7.0f} MiB at its peak, {before / MIB:.0f} MiB before")
    return 0


if __name__ == "__main__":
    sys.exit(main())
