"""InvokeEndpoint by unmodified boto3, through the server, to a real model server."""

import hashlib
import http.client
import json
import math
import socket
import threading
from collections import Counter
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
from hosting_harness import CALLER, Hosting, archive, wait_until

from byoa.local.runtime.routing import Backend, Route, VariantRoute


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server with one endpoint, `ep`, InService."""
    home = tmp_path_factory.mktemp("invocations")
    hosting = Hosting(home, invocation_timeout=1.5, startup_window=20.0)
    try:
        hosting.deploy(data=hosting.put("model.tar.gz", archive(model__txt="forty-two")))
        yield hosting
    finally:
        hosting.close()


def invoke(served, body=b"1,2", **members):
    answer = served.runtime.invoke_endpoint(EndpointName="ep", Body=body, **members)
    answer["Body"] = answer["Body"].read()
    return answer


def fails(served, body=b"1,2", **members):
    with pytest.raises(ClientError) as raised:
        invoke(served, body, **members)
    return raised.value.response


def order(**order) -> bytes:
    return json.dumps(order).encode()


def test_the_body_and_its_type_pass_both_ways(served):
    """HOST-30, HOST-33, WIRE-33."""
    body = bytes(range(256)) + b"\r\n1,2"
    answer = invoke(served, body, ContentType="text/csv", Accept="application/json")
    assert answer["ContentType"] == "application/json"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"]
    seen = json.loads(answer["Body"])
    assert (seen["size"], seen["digest"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert seen["model"] == "forty-two"
    assert seen["headers"]["content-type"] == "text/csv"
    assert seen["headers"]["accept"] == "application/json"


def test_listed_headers_reach_the_container_and_no_others(served):
    """HOST-13, HOST-34, HOST-35: names in any case."""
    _, _, body = raw(served, "ep", b"x", **{
        "x-amzn-sagemaker-CUSTOM-attributes": "trace=7",
        "X-Amzn-SageMaker-Inference-Id": "id-1",
        "x-amzn-sagemaker-session-id": "NEW_SESSION",
        "X-Amzn-SageMaker-Target-Variant": "AllTraffic",
        "Cookie": "secret=1",
        "X-Own": "1",
    })
    seen = json.loads(body)["headers"]
    passed = {name: value for name, value in seen.items() if name.startswith("x-")}
    assert passed == {
        "x-amzn-sagemaker-custom-attributes": "trace=7",
        "x-amzn-sagemaker-inference-id": "id-1",
        "x-amzn-sagemaker-session-id": "NEW_SESSION",
        "x-amzn-sagemaker-target-variant": "AllTraffic",
    }
    assert not {"cookie", "authorization"} & set(seen)


@pytest.mark.parametrize(
    ("member", "longest", "wrong"),
    [
        ("ContentType", "t" * 1024, "t" * 1025),
        ("Accept", "t" * 1024, "t" * 1025),
        ("CustomAttributes", "a" * 1024, "a" * 1025),
        ("InferenceId", "i" * 64, "i" * 65),
        ("PrefixAwareId", "p" * 64, "p" * 65),
        ("TargetVariant", "AllTraffic", "v" * 64),
        ("TargetVariant", "AllTraffic", "-v"),
        ("SessionId", "NEW_SESSION", "s" * 257),
        ("SessionId", "NEW_SESSION", "a session"),
    ],
)
def test_a_header_has_the_limits_of_the_api(served, member, longest, wrong):
    """HOST-34, ERR-05."""
    assert invoke(served, **{member: longest})["Body"]
    error = fails(served, **{member: wrong})
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert error["Error"]["Code"] == "ValidationError"
    assert f" at '{member[0].lower()}{member[1:]}' failed" in error["Error"]["Message"]


@pytest.mark.parametrize("status", [200, 201, 204])
def test_any_success_of_the_container_s_is_the_answer(served, status):
    """HOST-33: and 200 to the caller."""
    answer = invoke(served, order(status=status, body="" if status == 204 else "made"))
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert answer["Body"] == (b"" if status == 204 else b"made")


def test_the_container_may_answer_with_custom_attributes_and_a_session(served):
    """HOST-34."""
    session = "abc; Expires=2030-01-01T00:00:00Z"
    answer = invoke(served, order(headers={
        "X-Amzn-SageMaker-Custom-Attributes": "took=3",
        "X-Amzn-SageMaker-New-Session-Id": session,
        "X-Secret": "no",
    }))
    assert answer["CustomAttributes"] == "took=3"
    assert answer["NewSessionId"] == session
    assert "x-secret" not in answer["ResponseMetadata"]["HTTPHeaders"]


def test_attributes_that_the_container_does_not_return_are_not_returned(served):
    """HOST-34."""
    assert "CustomAttributes" not in invoke(served, CustomAttributes="only=in")


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "client error (400)"), (500, "server error (500)")]
)
def test_a_container_error_is_a_model_error_in_the_services_words(served, status, kind):
    """CHK-37, HOST-33, ERR-01, ERR-02, FIX-16."""
    error = fails(served, order(status=status, body="bad"))
    arn = "arn:aws:logs:us-west-2:123456789012:log-group:/aws/sagemaker/Endpoints/ep"
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert error["Error"]["Code"] == "ModelError"
    assert error["OriginalStatusCode"] == status
    assert error["OriginalMessage"] == "bad"
    assert error["LogStreamArn"] == arn
    assert error["Error"]["Message"] == (
        f'Received {kind} from primary with message "bad". See https://us-west-2.console.aws.amazon'
        ".com/cloudwatch/home?region=us-west-2#logEventViewer:group=/aws/sagemaker/Endpoints/ep in"
        " account 123456789012 for more information."
    )


def raw(served, endpoint, body, **headers):
    """Status, headers and text, as they are on the wire."""
    parts = urlsplit(served.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    scope = "Credential=a/20260101/us-west-2/sagemaker/aws4_request"
    signed = {"Authorization": f"AWS4-HMAC-SHA256 {scope}, Signature=0", **headers}
    try:
        connection.request("POST", f"/endpoints/{endpoint}/invocations", body, signed)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def test_the_body_of_a_model_error_is_the_golden_one_byte_for_byte(served):
    """FIX-16."""
    _, headers, body = raw(served, "ep", order(status=400, body="bad"))
    assert headers["x-amzn-ErrorType"] == "ModelError"
    assert body == (
        '{"ErrorCode":"CLIENT_ERROR_FROM_MODEL","LogStreamArn":"arn:aws:logs:us-west-2:'
        '123456789012:log-group:/aws/sagemaker/Endpoints/ep","Message":"Received client error'
        ' (400) from primary with message \\"bad\\". See https://us-west-2.console.aws.amazon.com'
        "/cloudwatch/home?region=us-west-2#logEventViewer:group=/aws/sagemaker/Endpoints/ep in"
        ' account 123456789012 for more information.","OriginalMessage":"bad",'
        '"OriginalStatusCode":400}'
    )
    assert '"ErrorCode":"SERVER_ERROR_FROM_MODEL"' in raw(
        served, "ep", order(status=503, body="busy")
    )[2]


def test_a_long_error_body_is_cut_to_what_the_api_allows(served):
    """ERR-01."""
    error = fails(served, order(status=500, body="é" * 5000))
    assert error["OriginalMessage"] == "é" * 2048


def test_a_late_answer_is_the_services_timeout_error(served):
    """HOST-31, ERR-04, CHK-37. The limit is 1.5 s here."""
    error = fails(served, order(sleep=2))
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert error["OriginalStatusCode"] == 0
    assert error["Error"]["Message"].startswith(
        'Received server error (0) from primary with message "Your invocation timed out while'
        " waiting for a response from container primary. Review the latency metrics for each"
        ' container in Amazon CloudWatch, resolve the issue, and try again."'
    )


def test_a_container_that_drops_the_connection_is_a_server_error_with_status_zero(served):
    """ERR-03."""
    error = fails(served, order(drop=1))
    assert (error["OriginalStatusCode"], error["Error"]["Code"]) == (0, "ModelError")
    assert "closed before an answer began" in error["OriginalMessage"]


def test_a_container_that_died_says_why_until_it_is_back(served):
    """ERR-03, HOST-09, HOST-24."""
    before = json.loads(invoke(served)["Body"])["process"]
    fails(served, order(exit=3))

    def answered():
        try:
            return json.loads(invoke(served)["Body"])["process"]
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ModelError"
            words.append(error.response["OriginalMessage"])
            return None

    words = []
    assert wait_until(answered) != before
    described = served.sm.describe_endpoint(EndpointName="ep")
    assert described["EndpointStatus"] == "InService"
    assert all("refused" in each or "exited with code 3" in each or "before an answer" in each
               for each in words), words


@contextmanager
def routed(served, *addresses):
    """The live instance of `ep` with others at `addresses` beside it, the live one last."""
    usual = served.router.find(CALLER, "ep")
    others = []
    for number, address in enumerate(addresses):
        others.append(Backend(f"i-{number}"))
        others[-1].connect(address)
        others[-1].ready = True
    backends = [*others, *usual.variants[0].backends]
    served.router.set(CALLER, "ep", Route([VariantRoute("AllTraffic", 1.0, backends)]))
    try:
        yield backends
    finally:
        served.router.set(CALLER, "ep", usual)
        for backend in others:
            backend.close()


def dead_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()


def test_a_call_that_a_dead_instance_refuses_is_answered_by_its_sibling(served):
    """HOST-24: whether its death has been noticed or not."""
    with routed(served, dead_address()) as backends:
        for _ in range(30):
            assert json.loads(invoke(served)["Body"])["model"] == "forty-two"
    assert [backend.outstanding for backend in backends] == [0, 0]


def test_a_call_that_two_dead_instances_refuse_is_a_model_error(served):
    """ERR-03: one more try, and no hunt through all of them."""
    with routed(served, dead_address(), dead_address()) as backends:
        backends[-1].ready = False
        try:
            error = fails(served)
        finally:
            backends[-1].ready = True
    assert error["OriginalStatusCode"] == 0
    assert "refused" in error["OriginalMessage"]
    assert [backend.outstanding for backend in backends] == [0, 0, 0]


def test_a_call_that_an_instance_took_is_never_sent_to_its_sibling(served):
    """ERR-03: it may have run."""
    taken = []

    def take(listener):
        for _ in range(6):
            connection, _ = listener.accept()
            with connection:
                taken.append(connection.recv(65536))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=take, args=(listener,), daemon=True)
        thread.start()
        with routed(served, listener.getsockname(), listener.getsockname()) as backends:
            backends[-1].ready = False
            try:
                for _ in range(6):
                    assert "before an answer" in fails(served)["OriginalMessage"]
            finally:
                backends[-1].ready = True
        thread.join(5)
    assert len(taken) == 6


def test_an_unknown_endpoint_is_a_validation_error(hosting):
    """ERR-06."""
    with pytest.raises(hosting.runtime.exceptions.ValidationError) as raised:
        hosting.runtime.invoke_endpoint(EndpointName="nobody", Body=b"x")
    error = raised.value.response
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert error["Error"]["Message"] == "Endpoint nobody of account 123456789012 not found."
    assert raw(hosting, "nobody", b"x")[2] == (
        '{"ErrorCode":"NO_SUCH_ENDPOINT",'
        '"Message":"Endpoint nobody of account 123456789012 not found."}'
    )


def test_an_endpoint_of_another_region_is_unknown(served):
    other = served.client("sagemaker-runtime")
    other.meta.events.register(
        "before-sign", lambda request, **_: request.context.update(signing={"region": "eu-west-1"})
    )
    with pytest.raises(ClientError, match="not found"):
        other.invoke_endpoint(EndpointName="ep", Body=b"x")


def test_an_endpoint_that_is_being_created_takes_no_invocations(hosting):
    """ERR-07."""
    hosting.create_model("slow", STUB_READY_AFTER="600")
    hosting.create_config("slow", AllTraffic="slow")
    hosting.sm.create_endpoint(EndpointName="ep", EndpointConfigName="slow")
    error = fails(hosting)
    assert error["Error"]["Code"] == "ValidationError"
    assert "Creating" in error["Error"]["Message"]


def test_the_target_variant_is_honoured_and_an_unknown_one_refused(hosting):
    """CHK-38, VAR-01."""
    for name in ("a", "b"):
        data = hosting.put(f"{name}.tar.gz", archive(model__txt=name))
        hosting.create_model(name, data=data)
    hosting.create_config("ab", A=("a", {"InitialVariantWeight": 1.0}),
                          B=("b", {"InitialVariantWeight": 0.0}))
    hosting.sm.create_endpoint(EndpointName="ep", EndpointConfigName="ab")
    assert hosting.settled()["EndpointStatus"] == "InService"
    assert {json.loads(invoke(hosting)["Body"])["model"] for _ in range(20)} == {"a"}
    answer = invoke(hosting, TargetVariant="B")
    assert json.loads(answer["Body"])["model"] == "b"
    assert answer["InvokedProductionVariant"] == "B"
    error = fails(hosting, TargetVariant="C")
    assert error["Error"]["Code"] == "ValidationError"
    assert "C" in error["Error"]["Message"] and "A, B" in error["Error"]["Message"]


def test_traffic_is_shared_by_weight(hosting):
    """CHK-38, with five standard deviations: chance alone goes beyond three once in 370 runs."""
    for name in ("a", "b"):
        hosting.create_model(name)
    hosting.create_config("ab", A=("a", {"InitialVariantWeight": 3.0}),
                          B=("b", {"InitialVariantWeight": 1.0}))
    hosting.sm.create_endpoint(EndpointName="ep", EndpointConfigName="ab")
    assert hosting.settled()["EndpointStatus"] == "InService"
    counted = Counter(invoke(hosting)["InvokedProductionVariant"] for _ in range(200))
    assert abs(counted["B"] - 50) < 5 * math.sqrt(200 * 0.25 * 0.75)


@pytest.mark.parametrize(
    ("members", "word"),
    [({"TargetModel": "m.tar.gz"}, "multi-model"),
     ({"TargetContainerHostname": "c"}, "one endpoint for each container"),
     ({"InferenceComponentName": "ic"}, "production variant"),
     ({"EnableExplanations": "`true`"}, "ExplainerConfig")],
)
def test_what_the_endpoint_does_not_have_is_refused_with_the_nearest(served, members, word):
    """HOST-34."""
    error = fails(served, **members)
    assert error["Error"]["Code"] == "ValidationError"
    assert word in error["Error"]["Message"]


def test_asynchronous_calls_are_refused_by_name(served):
    with pytest.raises(ClientError, match="InvokeEndpointAsync is not run .* InvokeEndpoint"):
        served.runtime.invoke_endpoint_async(EndpointName="ep", InputLocation="s3://a/b")


def test_a_request_over_the_limit_is_refused_before_it_is_read(start_hosting):
    """HOST-32, TRAP-10: HTTP 413, and boto's error code is 413."""
    served = start_hosting(payload_limit=4000)
    served.deploy()
    assert json.loads(invoke(served, b"x" * 4000)["Body"])["size"] == 4000
    error = fails(served, b"x" * 4001)
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert error["Error"]["Code"] == "413"
    assert error["Error"]["Message"].startswith(
        "HTTP content length exceeded 4000 bytes. The request has 4001 bytes."
    )
    assert fails(served, b"x" * 3_000_000)["Error"]["Code"] == "413"


def test_a_chunked_request_over_the_limit_is_refused_too(start_hosting):
    """HOST-32."""
    served = start_hosting(payload_limit=4000)
    served.deploy()
    parts = urlsplit(served.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    try:
        for body, status in (([b"x" * 2000] * 2, 200), ([b"x" * 2000] * 3, 413)):
            connection.request("POST", "/endpoints/ep/invocations", iter(body),
                               encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status
    finally:
        connection.close()


def test_an_answer_over_the_limit_is_a_model_error(start_hosting):
    """HOST-32."""
    served = start_hosting(payload_limit=1000)
    served.deploy()
    assert len(invoke(served, order(large=1000))["Body"]) == 1000
    error = fails(served, order(large=1001))
    assert error["Error"]["Code"] == "ModelError"
    assert "1001 bytes exceeded 1000 bytes" in error["OriginalMessage"]


def test_the_largest_payload_of_the_api_passes_both_ways(served):
    """HOST-32: 6,291,456 bytes."""
    limit = 6_291_456
    assert json.loads(invoke(served, b"x" * limit)["Body"])["size"] == limit
    assert len(invoke(served, order(large=limit))["Body"]) == limit


def test_a_chunked_answer_is_passed_on_whole(served):
    assert invoke(served, order(chunks=["a" * 10, "b" * 10]))["Body"] == b"a" * 10 + b"b" * 10


def test_invocations_run_in_parallel(served):
    """HOST-36: eight that each take 0.5 s all end within one limit of 1.5 s."""
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(invoke(served, order(sleep=0.5))))
               for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(answers) == 8


def test_metrics_count_invocations_errors_and_latencies(served):
    """CWM-01, ERR-08."""
    served.deploy("measured")
    for body in (b"1", b"2", b"3"):
        served.runtime.invoke_endpoint(EndpointName="measured", Body=body)
    for status in (400, 500):
        with pytest.raises(ClientError):
            served.runtime.invoke_endpoint(
                EndpointName="measured", Body=order(status=status, body="bad")
            )
    served.metrics.flush()
    cloudwatch = served.client("cloudwatch")

    def total(name, statistic="Sum"):
        now = datetime.now(timezone.utc)
        points = cloudwatch.get_metric_statistics(
            Namespace="AWS/SageMaker", MetricName=name, StartTime=now - timedelta(minutes=10),
            EndTime=now + timedelta(minutes=1), Period=3600, Statistics=[statistic],
            Dimensions=[{"Name": "EndpointName", "Value": "measured"},
                        {"Name": "VariantName", "Value": "AllTraffic"}],
        )["Datapoints"]
        return sum(point[statistic] for point in points)

    assert total("Invocations") == 5
    assert total("Invocations", "SampleCount") == 5
    assert total("Invocation4XXErrors") == 1
    assert total("Invocation5XXErrors") == 1
    assert total("InvocationModelErrors") == 2
    assert total("ModelLatency") > 0 and total("OverheadLatency") > 0
