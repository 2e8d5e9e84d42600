"""Who gets a request: by target, credential scope, path and host."""

from __future__ import annotations

import pytest
import requests
from botocore.exceptions import ClientError

from byoa.local.api.dispatch import is_aws_host, scope_of
from byoa.local.api.http import Headers, Request

SIGNED = ("AWS4-HMAC-SHA256 Credential=AKIA/20260101/{}/aws4_request, "
          "SignedHeaders=host, Signature=0")


def _request(method="GET", target="/", host="127.0.0.1:4566", **headers):
    path, _, query = target.partition("?")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, target, path, query, Headers(named.items()), None, host, False,
                   ("127.0.0.1", 1))


@pytest.mark.parametrize(("request_", "service", "region"), [
    (_request(authorization=SIGNED.format("us-west-2/sts")), "sts", "us-west-2"),
    (_request(authorization=SIGNED.format("eu-central-1/s3")), "s3", "eu-central-1"),
    (_request(authorization="AWS4-ECDSA-P256-SHA256 Credential=K/20260101/s3/aws4_request, "
              "Signature=0"), "s3", ""),
    (_request(authorization="AWS AKIA:c2ln"), "s3", ""),
    (_request(target="/b/k?X-Amz-Credential=K%2F20260101%2Fus-east-2%2Fs3%2Faws4_request"),
     "s3", "us-east-2"),
    (_request(target="/b/k?AWSAccessKeyId=K&Signature=x&Expires=1"), "s3", ""),
    (_request(host="sts.us-west-2.amazonaws.com"), "sts", "us-west-2"),
    (_request(host="iam.amazonaws.com:443"), "iam", ""),
    (_request(host="api.sagemaker.ap-south-1.amazonaws.com"), "sagemaker", "ap-south-1"),
    (_request(host="runtime.sagemaker.cn-north-1.amazonaws.com.cn"), "sagemaker", "cn-north-1"),
    (_request(host="bucket.s3.us-west-2.amazonaws.com"), "s3", "us-west-2"),
    (_request(host="my.dotted.bucket.s3.amazonaws.com"), "s3", ""),
    (_request(host="s3-eu-west-1.amazonaws.com"), "s3", "eu-west-1"),
    (_request(host="bucket.s3-us-gov-west-1.amazonaws.com"), "s3", "us-gov-west-1"),
    (_request(host="s3.dualstack.us-east-1.amazonaws.com"), "s3", "us-east-1"),
    (_request(authorization="Bearer x"), "", ""),
    (_request(authorization="AWS4-HMAC-SHA256 Credential=broken"), "", ""),
])
def test_the_scope_is_read_from_signature_query_and_host(request_, service, region):
    assert scope_of(request_) == (service, region)


@pytest.mark.parametrize(("host", "ours"), [
    ("sts.us-west-2.amazonaws.com", True), ("S3.AMAZONAWS.COM:443", True),
    ("b.s3.cn-north-1.amazonaws.com.cn", True), ("dsql.us-east-1.api.aws", True),
    ("pypi.example", False), ("amazonaws.com.example", False), ("notamazonaws.com", False),
    ("127.0.0.1", False), ("api.aws.example", False)])
def test_aws_hosts_are_told_from_others(host, ours):
    assert is_aws_host(host) is ours


def test_each_boto3_client_reaches_its_service_on_the_one_port(serve_wire):
    """WIRE-25: one AWS_ENDPOINT_URL for all."""
    wire = serve_wire({"ListModels": lambda caller, request: {"Models": []}})
    assert wire.client("sagemaker").list_models()["Models"] == []
    assert wire.client("s3").list_buckets()["Buckets"] == []
    assert wire.client("sts").get_caller_identity()["Account"] == "123456789012"
    assert wire.client("sqs").list_queues()["ResponseMetadata"]["HTTPStatusCode"] == 200
    runtime = wire.client("sagemaker-runtime", "ap-south-1")
    answer = runtime.invoke_endpoint(EndpointName="e-1", Body=b"1,2", ContentType="text/csv")
    assert answer["Body"].read() == b"1,2"
    path, caller, body = wire.invocations[0]
    assert (path, caller.region, body) == ("/endpoints/e-1/invocations", "ap-south-1", b"1,2")
    assert len(wire.s3_requests) == 1


def test_an_endpoint_can_be_invoked_without_a_signature(wire):
    answer = requests.post(f"{wire.url}/endpoints/e/invocations", data=b"1", timeout=10)
    assert answer.content == b"1"
    assert wire.invocations[0][1].region == "us-east-1"  # Settings.region


@pytest.mark.parametrize(("method", "path"), [
    ("PUT", "/endpoints/e/invocations"), ("GET", "/bucket/key"), ("GET", "/"),
    ("POST", "/bucket?delete"), ("HEAD", "/bucket")])
def test_what_is_unsigned_and_nothing_else_is_for_s3(wire, method, path):
    requests.request(method, wire.url + path, timeout=10)
    assert [request.path for request in wire.s3_requests] == [path.partition("?")[0]]


def test_a_presigned_url_goes_to_s3_although_it_has_no_authorization_header(wire):
    url = wire.client("s3").generate_presigned_url(
        "get_object", Params={"Bucket": "b", "Key": "endpoints/e/invocations"})
    requests.get(url, timeout=10)
    assert wire.s3_requests[0].path.endswith("endpoints/e/invocations")


def test_a_streamed_call_is_the_runtime_s_signed_or_not(wire):
    """WIRE-30."""
    path = "/endpoints/e/invocations-response-stream"
    client = wire.client("sagemaker-runtime")
    client.invoke_endpoint_with_response_stream(EndpointName="e", Body=b"1")["Body"].close()
    requests.post(wire.url + path, data=b"2", timeout=10)
    assert [each[::2] for each in wire.invocations] == [(path, b"1"), (path, b"2")]


def test_a_runtime_operation_that_is_not_run_is_refused_by_name(wire):
    client = wire.client("sagemaker-runtime")
    with pytest.raises(ClientError) as caught:
        client.invoke_endpoint_async(EndpointName="e", InputLocation="s3://b/k")
    error = caught.value.response["Error"]
    assert error["Code"] == "UnknownOperationException"
    assert error["Message"].startswith("InvokeEndpointAsync is not run")
    assert "InvokeEndpoint (POST" in error["Message"]


@pytest.mark.parametrize("headers", [
    {}, {"Authorization": SIGNED.format("us-west-2/sagemaker")},
    {"Host": "runtime.sagemaker.us-west-2.amazonaws.com:8443"}])
def test_a_bidirectional_stream_is_refused_with_the_response_stream_as_the_nearest(wire, headers):
    """BIDI-02: it needs HTTP/2, and is not in botocore's model."""
    answer = requests.post(f"{wire.url}/endpoints/e/invocations-bidirectional-stream", timeout=10,
                           headers=headers)
    assert answer.status_code == 400
    assert answer.headers["x-amzn-ErrorType"].startswith("UnknownOperationException")
    message = answer.json()["Message"]
    assert message.startswith("InvokeEndpointWithBidirectionalStream is not run by this server")
    assert "InvokeEndpointWithResponseStream (POST /endpoints/<EndpointName>/" in message
    assert "/invocations-bidirectional-stream of the container" in message
    assert not wire.s3_requests and not wire.invocations


def test_a_feature_store_request_is_refused_and_not_taken_for_s3(wire):
    client = wire.client("sagemaker-featurestore-runtime")
    with pytest.raises(ClientError, match="UnknownOperationException"):
        client.get_record(FeatureGroupName="g", RecordIdentifierValueAsString="1")
    assert not wire.s3_requests


def test_a_sagemaker_request_without_a_target_says_what_is_missing(wire):
    answer = requests.post(wire.url, timeout=10, headers={
        "Authorization": SIGNED.format("us-east-1/sagemaker"), "Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "X-Amz-Target" in answer.json()["message"]


def test_an_unsigned_request_to_another_service_does_not_end_in_moto_s_own_s3(wire):
    answer = requests.post(wire.url, timeout=10, data={"Action": "ListQueues"})
    assert answer.status_code == 400
    assert "not signed" in answer.text


def test_telemetry_is_answered_here(wire):
    for host in ("sm-pysdk-t-us-west-2.s3.us-west-2.amazonaws.com",
                 "dev-exp-t-eu-west-1.s3.eu-west-1.amazonaws.com"):
        answer = requests.get(f"{wire.url}/telemetry?x-accountId=1", headers={"Host": host},
                              timeout=10)
        assert (answer.status_code, answer.content) == (200, b"")
    assert not wire.s3_requests


def test_an_unforeseen_failure_is_an_internal_failure_in_the_client_s_protocol(
    wire, monkeypatch, caplog
):
    def fail(*_, **__):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(wire.aws, "handle", fail)
    for service, call in (("sts", "get_caller_identity"), ("logs", "describe_log_groups")):
        with pytest.raises(ClientError) as caught:
            getattr(wire.client(service), call)()
        assert caught.value.response["Error"]["Code"] == "InternalFailure"
        assert "ZeroDivisionError: oops" in caught.value.response["Error"]["Message"]
    assert "Traceback" in caplog.text


def test_a_client_that_leaves_within_its_body_leaves_no_error_behind(serve_wire, caplog):
    import socket

    wire = serve_wire({"DescribeModel": lambda *_: {}})
    with socket.create_connection(("127.0.0.1", wire.server.port), timeout=10) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: SageMaker.DescribeModel\r\n"
                     b"Content-Length: 100\r\n\r\n{")
    assert wire.client("sts").get_caller_identity()["Account"]
    assert "failed" not in caplog.text
