"""What Metrics writes, as boto3's cloudwatch client and the SageMaker SDK read it."""

from __future__ import annotations

import datetime
import math
import time
import uuid

import pytest

from byoa.local.aws.metrics import Metrics
from byoa.local.settings import Caller

CALLER = Caller("123456789012", "eu-west-3")
NAMESPACE = "/aws/sagemaker/TrainingJobs"


@pytest.fixture
def metrics(wire):
    return Metrics(wire.aws.moto)


def _statistics(client, job, name, start, **more):
    return client.get_metric_statistics(
        Namespace=NAMESPACE, MetricName=name, Statistics=["Average", "SampleCount"], Period=60,
        Dimensions=[{"Name": "TrainingJobName", "Value": job}],
        StartTime=datetime.datetime.fromtimestamp(start - 120, datetime.timezone.utc),
        EndTime=datetime.datetime.fromtimestamp(start + 600, datetime.timezone.utc), **more,
    )["Datapoints"]


@pytest.mark.parametrize("region", ["eu-west-3", "us-east-1"])
def test_values_are_read_back_as_statistics_with_their_time(wire, metrics, region):
    """clients: TrainingJobAnalytics asks exactly this."""
    job, now = f"job-{uuid.uuid4().hex[:12]}", time.time()
    caller = Caller("123456789012", region)
    for value in (1.0, 2.0):
        assert metrics.put(caller, NAMESPACE, "validation:loss", value, timestamp=now,
                           dimensions={"TrainingJobName": job})
    metrics.put(caller, NAMESPACE, "validation:loss", 9.0, timestamp=now,
                dimensions={"TrainingJobName": "another"})
    points = _statistics(wire.client("cloudwatch", region), job, "validation:loss", now)
    assert sum(point["SampleCount"] for point in points) == 2
    assert points[0]["Average"] == 1.5
    assert abs(points[0]["Timestamp"].timestamp() - now) <= 120


def test_metrics_are_listed_with_their_dimensions(wire, metrics):
    name = f"m-{uuid.uuid4().hex[:8]}"
    metrics.put(CALLER, "AWS/SageMaker", name, 3.0, timestamp=time.time(), unit="Microseconds",
                dimensions={"EndpointName": "e", "VariantName": "v"})
    found = wire.client("cloudwatch").list_metrics(MetricName=name)["Metrics"]
    assert found[0]["Namespace"] == "AWS/SageMaker"
    assert {d["Name"]: d["Value"] for d in found[0]["Dimensions"]} == {
        "EndpointName": "e", "VariantName": "v"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_the_service_does_not_know_are_not_recorded(wire, metrics, value):
    name = f"m-{uuid.uuid4().hex[:8]}"
    assert not metrics.put(CALLER, NAMESPACE, name, value, timestamp=time.time(), dimensions={})
    assert wire.client("cloudwatch").list_metrics(MetricName=name)["Metrics"] == []


def test_what_a_client_puts_and_what_byoa_puts_are_one_series(wire, metrics):
    job, now = f"job-{uuid.uuid4().hex[:12]}", time.time()
    metrics.put(CALLER, NAMESPACE, "loss", 1.0, timestamp=now,
                dimensions={"TrainingJobName": job})
    client = wire.client("cloudwatch")
    client.put_metric_data(Namespace=NAMESPACE, MetricData=[{
        "MetricName": "loss", "Value": 3.0,
        "Timestamp": datetime.datetime.fromtimestamp(now, datetime.timezone.utc),
        "Dimensions": [{"Name": "TrainingJobName", "Value": job}]}])
    points = _statistics(client, job, "loss", now)
    assert [(point["Average"], point["SampleCount"]) for point in points] == [(2.0, 2.0)]
