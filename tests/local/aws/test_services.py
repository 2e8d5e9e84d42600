"""moto behind the one port: real answers, AWS's errors, nothing patched."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import uuid

import pytest
import requests
from botocore.exceptions import ClientError


def test_state_is_kept_between_clients_and_apart_by_region(wire):
    name = f"q-{uuid.uuid4().hex[:8]}"
    wire.client("sqs", "us-east-2").create_queue(QueueName=name)
    urls = wire.client("sqs", "us-east-2").list_queues(QueueNamePrefix=name)["QueueUrls"]
    assert len(urls) == 1
    assert "QueueUrls" not in wire.client("sqs", "eu-west-1").list_queues(QueueNamePrefix=name)


def test_a_message_travels_through_a_queue_and_a_long_poll_blocks_nobody(wire):
    client = wire.client("sqs")
    url = client.create_queue(QueueName=f"q-{uuid.uuid4().hex[:8]}")["QueueUrl"]
    received = []
    poll = threading.Thread(target=lambda: received.append(
        wire.client("sqs").receive_message(QueueUrl=url, WaitTimeSeconds=20)))
    poll.start()
    client.send_message(QueueUrl=url, MessageBody="hello")
    poll.join(20)
    assert received[0]["Messages"][0]["Body"] == "hello"


@pytest.mark.parametrize(("service", "call", "word"), [
    ("ecr", lambda c: c.start_lifecycle_policy_preview(repositoryName="r" * 3),
     "StartLifecyclePolicyPreview"),
    ("iam", lambda c: c.simulate_custom_policy(PolicyInputList=["{}"], ActionNames=["s3:GetO"]),
     "simulate_custom_policy"),
    ("cloudwatch", lambda c: c.list_managed_insight_rules(ResourceARN="arn:aws:x"),
     "list_managed_insight_rules"),
])
def test_what_moto_lacks_is_an_aws_error_that_names_the_operation(wire, service, call, word):
    """JSON, query XML and CBOR clients all parse it."""
    with pytest.raises(ClientError) as caught:
        call(wire.client(service))
    response = caught.value.response
    assert response["Error"]["Code"] == "NotImplemented"
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 501
    squeezed = response["Error"]["Message"].replace("_", "").lower()
    assert word.replace("_", "").lower() in squeezed


def test_a_crash_within_moto_is_an_internal_failure(wire, monkeypatch, caplog):
    from moto.ecr.responses import ECRResponse

    def crash(self):
        raise KeyError("inside")

    monkeypatch.setattr(ECRResponse, "describe_repositories", crash)
    with caplog.at_level(logging.ERROR), pytest.raises(ClientError) as caught:
        wire.client("ecr").describe_repositories()
    assert caught.value.response["Error"]["Code"] == "InternalFailure"
    assert "inside" in caplog.text


def test_no_web_page_may_read_from_another_origin(wire):
    answer = requests.post(wire.url, data="Action=GetCallerIdentity", timeout=20, headers={
        "Origin": "https://a.example",
        "Content-Type": "application/x-www-form-urlencoded",
        "Authorization": "AWS4-HMAC-SHA256 Credential=K/20260101/us-east-1/sqs/aws4_request,"
                         " SignedHeaders=host, Signature=0"})
    assert "access-control-allow-origin" not in {name.lower() for name in answer.headers}


def test_a_region_that_no_list_has_works(wire):
    wire.client("sqs", "us-fictional-9").create_queue(QueueName="q")


def test_many_callers_of_one_service_at_once_all_get_their_answers(wire):
    failures = []

    def work(index):
        try:
            client = wire.client("logs")
            for step in range(5):
                client.create_log_group(logGroupName=f"{prefix}/{index}/{step}")
                client.describe_log_groups(logGroupNamePrefix=prefix)
        except ClientError as error:
            failures.append(error)

    prefix = f"/crowd/{uuid.uuid4().hex}"
    threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    pages = wire.client("logs").get_paginator("describe_log_groups").paginate(
        logGroupNamePrefix=prefix)
    assert sum(len(page["logGroups"]) for page in pages) == 30


def test_importing_the_wire_loads_neither_botocore_nor_moto():
    """The command line starts quickly."""
    program = (
        "import sys, json\n"
        "import byoa.local.api.dispatch, byoa.local.api.proxy, byoa.local.aws.services\n"
        "import byoa.local.aws.logs, byoa.local.aws.metrics, byoa.local.environment\n"
        "heavy = ('moto', 'botocore', 'boto3', 'cryptography', 'flask', 'regex')\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          timeout=60, check=True)
    assert json.loads(done.stdout) == []


def test_warming_loads_moto_in_the_background(wire):
    wire.aws.warm()
    thread = next((t for t in threading.enumerate() if t.name == "moto-warm"), None)
    if thread is not None:
        thread.join(30)
    assert "moto.logs.models" in sys.modules
