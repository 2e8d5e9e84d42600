"""The tour itself, in the calls that a user makes: plain boto3 with an `endpoint_url`.

Five steps: generate data, train, deploy, evaluate, clean up. Nothing here knows byoa except the
image's name and the algorithm that it is told to run.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byoa.local.demo import digits, report

BUCKET = "byoa-demo"
ROLE = "arn:aws:iam::123456789012:role/byoa-demo"
IMAGE = "byoa:latest"
LOG_GROUP = "/aws/sagemaker/TrainingJobs"
RECORDS_PER_REQUEST = 50


@dataclass
class Tour:
    """One run of the tour against the SageMaker at `url`; `names` suffixes what it makes."""

    url: str
    output: Path
    suffix: str
    interrupted: threading.Event
    seed: int = 0
    image: str = IMAGE
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import boto3

        self.s3 = boto3.client("s3", endpoint_url=self.url)
        self.sagemaker = boto3.client("sagemaker", endpoint_url=self.url)
        self.runtime = boto3.client("sagemaker-runtime", endpoint_url=self.url)
        self.logs = boto3.client("logs", endpoint_url=self.url)
        self.job = f"digits-{self.suffix}"
        self.model = self.config = self.endpoint = f"digits-{self.suffix}"

    def run(self) -> float:
        """All five steps; returns the accuracy on the test set."""
        try:
            with self.step("1 Generate example data"):
                splits = self.generate()
            with self.step("2 Train"):
                self.train()
            with self.step("3 Deploy"):
                self.deploy()
            with self.step("4 Evaluate"):
                accuracy = self.evaluate(splits["test"])
        finally:
            with self.step("5 Delete what was made", last=True):
                self.delete()
        return accuracy

    @contextmanager
    def step(self, title: str, *, last: bool = False) -> Iterator[None]:
        if self.interrupted.is_set() and not last:
            raise KeyboardInterrupt
        print(f"\n== {title}", flush=True)
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[title] = time.monotonic() - started

    def generate(self) -> dict[str, digits.Split]:
        splits = digits.load(self.seed)
        self.s3.create_bucket(Bucket=BUCKET)
        for name in ("train", "validation"):
            key = f"digits/{name}/{name}.csv"
            body = splits[name].csv(with_labels=True)
            self.s3.put_object(Bucket=BUCKET, Key=key, Body=body, ContentType="text/csv")
            print(f"   {len(splits[name]):5} digits  s3://{BUCKET}/{key}  {len(body):,} bytes")
        print(f"   {len(splits['test']):5} digits  kept for the test")
        return splits

    def train(self) -> None:
        self.sagemaker.create_training_job(
            TrainingJobName=self.job,
            RoleArn=ROLE,
            AlgorithmSpecification={
                "TrainingImage": self.image,
                "TrainingInputMode": "File",
                "MetricDefinitions": [
                    {"Name": name, "Regex": f"{name}=([0-9.eE+-]+)"}
                    for name in ("train:loss", "validation:loss", "validation:accuracy")
                ],
            },
            Environment={"BYOA_ALGORITHM": "mlp-classifier"},
            HyperParameters={"epochs": "40", "hidden_units": "[256]", "seed": str(self.seed)},
            InputDataConfig=[_channel("train"), _channel("validation")],
            OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/output"},
            ResourceConfig={
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 5,
            },
            StoppingCondition={"MaxRuntimeInSeconds": 600},
        )
        waiter = self.sagemaker.get_waiter("training_job_completed_or_stopped")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(
                waiter.wait,
                TrainingJobName=self.job,
                WaiterConfig={"Delay": 1, "MaxAttempts": 600},
            )
            self.follow(waiting)
        described = self.sagemaker.describe_training_job(TrainingJobName=self.job)
        if waiting.exception() is not None or described["TrainingJobStatus"] != "Completed":
            raise SystemExit(
                f"training ended as {described['TrainingJobStatus']}:"
                f" {described.get('FailureReason', waiting.exception())}"
            )
        print("   metrics:")
        for metric in described["FinalMetricDataList"]:
            print(f"     {metric['MetricName']:<20} {metric['Value']:.4f}")
        print(f"   model: {described['ModelArtifacts']['S3ModelArtifacts']}")

    def follow(self, waiting: Future[Any]) -> None:
        """Print the job's log as it is written, and its status, until the waiter is done."""
        started, status, token, terminal = time.monotonic(), "", None, sys.stdout.isatty()
        while True:
            done = waiting.done()
            summaries = self.sagemaker.list_training_jobs(NameContains=self.job)
            summary = summaries["TrainingJobSummaries"][0]
            events, token = self.read_log(token)
            if terminal:
                print("\r\033[K", end="")
            for event in events:
                print(f"   | {event}")
            now = f"{summary['TrainingJobStatus']}/{summary.get('SecondaryStatus', '')}"
            line = f"   {now}, {time.monotonic() - started:.1f} s"
            if terminal and not done:
                print(line, end="", flush=True)
            elif now != status:
                print(line, flush=True)
            status = now
            if done and not events:
                return
            time.sleep(0.0 if done else 0.25)

    def read_log(self, token: str | None) -> tuple[list[str], str | None]:
        """The next lines of the job's log stream, and where to go on."""
        try:
            streams = self.logs.describe_log_streams(
                logGroupName=LOG_GROUP, logStreamNamePrefix=f"{self.job}/"
            )["logStreams"]
        except self.logs.exceptions.ResourceNotFoundException:
            return [], token
        if not streams:
            return [], token
        more = {"nextToken": token} if token else {}
        page = self.logs.get_log_events(
            logGroupName=LOG_GROUP,
            logStreamName=streams[0]["logStreamName"],
            startFromHead=True,
            **more,
        )
        return [event["message"] for event in page["events"]], page["nextForwardToken"]

    def deploy(self) -> None:
        described = self.sagemaker.describe_training_job(TrainingJobName=self.job)
        self.sagemaker.create_model(
            ModelName=self.model,
            ExecutionRoleArn=ROLE,
            PrimaryContainer={
                "Image": self.image,
                "ModelDataUrl": described["ModelArtifacts"]["S3ModelArtifacts"],
            },
        )
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=self.config,
            ProductionVariants=[
                {
                    "VariantName": "AllTraffic",
                    "ModelName": self.model,
                    "InstanceType": "ml.m5.large",
                    "InitialInstanceCount": 1,
                }
            ],
        )
        self.sagemaker.create_endpoint(
            EndpointName=self.endpoint, EndpointConfigName=self.config
        )
        waiter = self.sagemaker.get_waiter("endpoint_in_service")
        waiter.wait(EndpointName=self.endpoint, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
        print(f"   endpoint {self.endpoint} is InService")

    def evaluate(self, test: digits.Split) -> float:
        import numpy as np

        by_csv = np.array(list(self.read_digits(test, "text/csv")))
        by_json = np.array(list(self.read_digits(test, "application/json")))
        if not np.array_equal(by_csv, by_json):
            raise SystemExit("the answers in CSV and in JSON differ")
        accuracy = float((by_csv == test.labels).mean())
        matrix = report.confusion(test.labels, by_csv)
        picture = self.output / "digits.png"
        report.draw(picture, matrix, test, by_csv, accuracy)
        print(f"   {len(test)} digits in CSV and in JSON, the same answers\n")
        print(report.as_text(matrix))
        print(f"\n   picture: {picture}")
        return accuracy

    def read_digits(self, test: digits.Split, content_type: str) -> Iterator[int]:
        """The endpoint's answer for each test digit."""
        for start in range(0, len(test), RECORDS_PER_REQUEST):
            part = digits.Split(
                test.pixels[start : start + RECORDS_PER_REQUEST],
                test.labels[start : start + RECORDS_PER_REQUEST],
            )
            if content_type == "text/csv":
                body = part.csv(with_labels=False)
            else:
                body = json.dumps({"instances": part.pixels.tolist()}).encode()
            answer = self.runtime.invoke_endpoint(
                EndpointName=self.endpoint, ContentType=content_type, Accept=content_type, Body=body
            )["Body"].read()
            if content_type == "text/csv":
                yield from (int(line.split(",")[0]) for line in answer.decode().splitlines())
            else:
                yield from (each["predicted_label"] for each in json.loads(answer)["predictions"])

    def delete(self) -> None:
        """Delete what exists; a tour that was interrupted has made only a part."""
        from botocore.exceptions import ClientError

        for title, call in (
            ("job", lambda: self.sagemaker.stop_training_job(TrainingJobName=self.job)),
            ("endpoint", lambda: self.sagemaker.delete_endpoint(EndpointName=self.endpoint)),
            (
                "endpoint config",
                lambda: self.sagemaker.delete_endpoint_config(EndpointConfigName=self.config),
            ),
            ("model", lambda: self.sagemaker.delete_model(ModelName=self.model)),
            ("bucket", self.delete_bucket),
        ):
            try:
                call()
                print(f"   {title}")
            except ClientError as error:
                if not _is_gone(error):
                    print(f"   {title}: {error}")

    def delete_bucket(self) -> None:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        keys = [{"Key": each["Key"]} for page in pages for each in page.get("Contents", ())]
        if keys:
            self.s3.delete_objects(Bucket=BUCKET, Delete={"Objects": keys})
        self.s3.delete_bucket(Bucket=BUCKET)


def _channel(name: str) -> dict[str, Any]:
    return {
        "ChannelName": name,
        "ContentType": "text/csv",
        "DataSource": {
            "S3DataSource": {
                "S3DataType": "S3Prefix",
                "S3Uri": f"s3://{BUCKET}/digits/{name}/",
                "S3DataDistributionType": "FullyReplicated",
            }
        },
    }


def _is_gone(error: Any) -> bool:
    body = error.response["Error"]
    expected = ("Could not find", "Requested resource not found", "because the training job is in")
    return body["Code"] == "NoSuchBucket" or any(
        text in body.get("Message", "") for text in expected
    )
