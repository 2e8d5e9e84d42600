"""Endpoints from Creating to gone, by unmodified boto3, with real containers."""

import json
import threading
import time

import pytest
from botocore.exceptions import ClientError
from hosting_harness import BUCKET, CALLER, archive, wait_until

from byoa.local.control.health import _own_words
from byoa.local.control.model_data import ModelData

ARN = "arn:aws:sagemaker:us-west-2:123456789012:endpoint/ep"


def invoke(hosting, name="ep", **order):
    answer = hosting.runtime.invoke_endpoint(EndpointName=name, Body=json.dumps(order).encode())
    return json.loads(answer["Body"].read())


def message_of(call, **members) -> str:
    with pytest.raises(ClientError) as raised:
        call(**members)
    error = raised.value.response["Error"]
    assert error["Code"] == "ValidationException"
    return error["Message"]


def fail(hosting, *, data=None, seconds=20.0, variant=None, **environment) -> str:
    """FailureReason of an endpoint that cannot be created."""
    hosting.create_model("m", data=data, **environment)
    hosting.create_config("c", AllTraffic=("m", variant or {}))
    hosting.sm.create_endpoint(EndpointName="ep", EndpointConfigName="c")
    described = hosting.settled(seconds=seconds)
    assert described["EndpointStatus"] == "Failed"
    return described["FailureReason"]


def files(hosting) -> list:
    return list((hosting.home / "endpoints" / "123456789012" / "us-west-2").glob("ep*/*"))


# --- create, describe, list, delete ---


@pytest.mark.both_runners
def test_an_endpoint_comes_into_service_and_goes_without_a_trace(hosting):
    """ALG-03, HOST-09, VAR-04, VAR-07, VAR-08, WIRE-09: a container for each instance."""
    hosting.create_model("m", data=hosting.put("m.tar.gz", archive(model__txt="one")))
    hosting.create_config("c", AllTraffic=("m", {"InitialInstanceCount": 2}))
    answer = hosting.sm.create_endpoint(EndpointName="ep", EndpointConfigName="c")
    assert answer["EndpointArn"] == ARN
    first = hosting.sm.describe_endpoint(EndpointName="ep")
    assert first["EndpointStatus"] == "Creating"
    assert first["ProductionVariants"][0]["VariantStatus"][0]["Status"] == "Creating"
    described = hosting.settled()
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", "c")
    (variant,) = described["ProductionVariants"]
    assert variant["DeployedImages"][0]["SpecifiedImage"] == hosting.image
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (2, 2)
    assert (variant["CurrentWeight"], variant["DesiredWeight"]) == (1.0, 1.0)
    assert "VariantStatus" not in variant and "FailureReason" not in described
    processes = {invoke(hosting)["process"] for _ in range(30)}
    assert invoke(hosting)["model"] == "one"
    hosting.sm.delete_endpoint(EndpointName="ep")
    assert hosting.gone() == f'Could not find endpoint "{ARN}".'
    assert hosting.sm.describe_endpoint_config(EndpointConfigName="c")  # TRAP-38
    assert files(hosting) == []
    assert len(processes) == 2 and hosting.onlooker.left() == []


def test_the_waiters_of_boto3_end_as_they_should(hosting):
    """WIRE-20, CHK-30."""
    quick = {"Delay": 1, "MaxAttempts": 20}
    hosting.create_model("m")
    hosting.create_config("c", AllTraffic="m")
    hosting.sm.create_endpoint(EndpointName="ep", EndpointConfigName="c")
    hosting.sm.get_waiter("endpoint_in_service").wait(EndpointName="ep", WaiterConfig=quick)
    hosting.sm.delete_endpoint(EndpointName="ep")
    hosting.sm.get_waiter("endpoint_deleted").wait(EndpointName="ep", WaiterConfig=quick)


@pytest.mark.both_runners
def test_two_endpoints_serve_side_by_side_and_are_listed(hosting):
    """pains 24: every container has a port of its own."""
    for name in ("one", "two"):
        hosting.deploy(name, data=hosting.put(f"{name}.tar.gz", archive(model__txt=name)))
    assert [invoke(hosting, name)["model"] for name in ("one", "two")] == ["one", "two"]
    listed = hosting.sm.list_endpoints(StatusEquals="InService")["Endpoints"]
    assert [each["EndpointName"] for each in listed] == ["two", "one"]
    assert set(listed[0]) == {"EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime",
                              "EndpointStatus"}


@pytest.mark.both_runners
def test_the_container_has_its_environment_and_the_way_back_to_this_service(hosting):
    """HOST-05, HOST-08."""
    hosting.deploy(MY_SETTING="7", AWS_REGION="mars")
    environment = invoke(hosting)["environment"]
    assert environment["MY_SETTING"] == "7"
    assert environment["AWS_REGION"] == environment["AWS_DEFAULT_REGION"] == "us-west-2"
    assert environment["AWS_ENDPOINT_URL"] == hosting.url


def test_missing_parts_are_told_in_the_services_words(hosting):
    """WIRE-06."""
    sm = hosting.sm
    config = "arn:aws:sagemaker:us-west-2:123456789012:endpoint-config/c"
    assert message_of(sm.create_endpoint, EndpointName="ep", EndpointConfigName="c") == (
        f'Could not find endpoint configuration "{config}".'
    )
    for call in (sm.describe_endpoint, sm.delete_endpoint):
        assert message_of(call, EndpointName="ep") == f'Could not find endpoint "{ARN}".'
    hosting.create_model("m")
    hosting.create_config("c", AllTraffic="m")
    sm.delete_model(ModelName="m")
    assert "Could not find model" in message_of(
        sm.create_endpoint, EndpointName="ep", EndpointConfigName="c"
    )


def test_an_endpoint_in_progress_is_neither_updated_nor_deleted_nor_created_again(hosting):
    """VAR-06, TRAP-38, CHK-36."""
    hosting.create_model("m", STUB_READY_AFTER="600")
    hosting.create_config("c", AllTraffic="m")
    hosting.sm.create_endpoint(EndpointName="ep", EndpointConfigName="c")
    busy = f'Cannot update in-progress endpoint "{ARN}".'
    weights = [{"VariantName": "AllTraffic", "DesiredWeight": 2.0}]
    sm = hosting.sm
    assert message_of(sm.delete_endpoint, EndpointName="ep") == busy
    assert message_of(sm.update_endpoint, EndpointName="ep", EndpointConfigName="c") == busy
    assert busy == message_of(sm.update_endpoint_weights_and_capacities, EndpointName="ep",
                              DesiredWeightsAndCapacities=weights)
    assert message_of(sm.create_endpoint, EndpointName="ep", EndpointConfigName="c") == (
        f'Cannot create already existing endpoint "{ARN}".'
    )


@pytest.mark.both_runners
def test_deleting_lets_the_container_drain(hosting):
    """HOST-03: SIGTERM first; a request in flight is answered."""
    hosting.deploy()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(invoke(hosting, sleep=0.7)))
    thread.start()
    time.sleep(0.3)
    hosting.sm.delete_endpoint(EndpointName="ep")
    thread.join(10)
    assert answers
    hosting.gone()
    assert "draining" in logs(hosting)


def logs(hosting) -> str:
    (path,) = (hosting.home / "logs").rglob("Endpoints/ep/*/*")
    return path.read_text()


@pytest.mark.both_runners
def test_logs_are_in_the_endpoints_group_and_in_a_file(hosting):
    """WIRE-40, WIRE-42, CHK-45."""
    hosting.deploy("logged")
    client = hosting.client("logs")
    group = "/aws/sagemaker/Endpoints/logged"

    def streams():
        return client.describe_log_streams(logGroupName=group)["logStreams"]

    stream = wait_until(lambda: streams_or_none(client, streams))[0]  # a restart has its own
    variant, _, instance = stream["logStreamName"].partition("/")
    assert variant == "AllTraffic" and instance.startswith("i-") and len(instance) == 19
    name = stream["logStreamName"]
    events = wait_until(
        lambda: client.get_log_events(logGroupName=group, logStreamName=name)["events"]
    )
    assert [event["message"] for event in events] == ["starting"]
    assert list((hosting.home / "logs").rglob(f"Endpoints/logged/AllTraffic/{instance}"))


def streams_or_none(client, streams):
    try:
        return streams()
    except client.exceptions.ResourceNotFoundException:
        return None


# --- failures ---


@pytest.mark.both_runners
def test_a_container_that_exits_fails_the_endpoint_with_its_code_and_last_lines(hosting):
    """HOST-23, HOST-09, pains 1."""
    reason = fail(hosting, STUB_EXIT="3")
    assert reason.startswith(
        "The primary container for production variant AllTraffic did not pass the ping health"
        " check. Please check CloudWatch logs for this endpoint."
    )
    assert "exited with code 3" in reason
    assert "no module named sklearn" in reason
    assert logs(hosting).count("starting") == 2
    assert wait_until(lambda: not files(hosting))


def test_a_failed_endpoint_can_only_be_deleted(hosting):
    """VAR-05, TRAP-38: it blocks its name until then."""
    fail(hosting, STUB_EXIT="1")
    sm = hosting.sm
    message = message_of(sm.update_endpoint, EndpointName="ep", EndpointConfigName="c")
    assert "only be deleted" in message
    assert "already existing" in message_of(
        sm.create_endpoint, EndpointName="ep", EndpointConfigName="c"
    )
    with pytest.raises(ClientError) as raised:
        hosting.runtime.invoke_endpoint(EndpointName="ep", Body=b"x")
    assert raised.value.response["Error"]["Code"] == "ValidationError"
    sm.delete_endpoint(EndpointName="ep")
    hosting.gone()


@pytest.mark.both_runners
def test_a_ping_that_stays_unhealthy_fails_the_endpoint_with_the_reason_it_gave(start_hosting):
    """HOST-21, HOST-22, HOST-23, pains 1 and 23."""
    hosting = start_hosting(startup_window=3.0)
    reason = fail(hosting, STUB_READY_AFTER="600", STUB_REASON="tokenizer.json is missing")
    assert '/ping answered 503: {"reason": "tokenizer.json is missing"}' in reason


@pytest.mark.both_runners
def test_a_server_that_never_listens_fails_the_endpoint_with_that(start_hosting):
    """HOST-10, TRAP-06."""
    reason = fail(start_hosting(startup_window=3.0), STUB_SILENT="1")
    assert "port 8080" in reason or "/ping" in reason
    assert "Log: starting" in reason


@pytest.mark.docker
@pytest.mark.parametrize("runner_kind", ["docker"])
@pytest.mark.parametrize(("behaviour", "seen"), [
    ({"STUB_ADDRESS": "127.0.0.1"}, "127.0.0.1:8080"), ({"STUB_PORT": "5000"}, "0.0.0.0:5000"),
])
def test_a_server_that_listens_elsewhere_fails_the_endpoint_with_the_place(
    start_hosting, behaviour, seen
):
    """HOST-10, TRAP-06, pains 1: named first, before what the ping saw of it."""
    reason = fail(start_hosting(startup_window=3.0), **behaviour)
    assert f"Seen: the server listens on {seen}, must be 0.0.0.0:8080; " in reason


FAILED = {"state": "failed", "code": "WEIGHTS_LOST", "message": "no weights", "where": "a.py:3"}


@pytest.mark.both_runners
def test_a_container_that_says_it_has_failed_fails_the_endpoint_at_once(hosting, monkeypatch):
    """HOST-23: its words come first; it is not restarted, nor is its end waited for."""
    monkeypatch.setattr("byoa.local.control.endpoint_instances.HOSTING_STOP_GRACE_SECONDS", 2.0)
    reason = fail(hosting, STUB_PING=json.dumps(FAILED), STUB_IGNORE_TERM="1")
    assert reason == (
        "The primary container for production variant AllTraffic did not pass the ping health"
        " check. Please check CloudWatch logs for this endpoint. Seen: /ping answered 503: no"
        " weights (a.py:3) [WEIGHTS_LOST]. Log: starting"
    )
    assert [path for path in files(hosting) if (path / "container.json").exists()]
    wait_until(lambda: not files(hosting))
    assert logs(hosting).count("starting") == 1


@pytest.mark.both_runners
def test_what_ping_said_last_comes_before_the_exit_and_the_log(hosting):
    """HOST-23, pains 1: within the limit, however long it is."""
    words = {"state": "loading", "code": "MODEL_LOADING", "message": "reading weights " * 55}
    reason = fail(hosting, STUB_PING=json.dumps(words), STUB_LEAVE="5")
    assert "Seen: /ping answered 503: reading weights reading weights" in reason
    assert "… [MODEL_LOADING]; then the container exited with code 5. Log: " in reason
    assert len(reason) <= 1024
    assert logs(hosting).count("starting") == 2


@pytest.mark.parametrize(
    "body", ['{"state": "failed"}', '["failed"]', '{"state": "failed", "code": 7, "message": "x"}',
             "[" * 60_000, "\x00"]
)
def test_the_ping_bodies_of_other_images_say_nothing_about_their_state(body):
    """HOST-21: the body is ignored."""
    assert _own_words(body.encode()) is None


def test_an_image_whose_ping_says_failed_in_its_own_way_is_waited_for(start_hosting):
    """HOST-21, HOST-22."""
    reason = fail(start_hosting(startup_window=3.0), STUB_PING='{"state": "failed"}')
    assert 'Seen: /ping answered 503: {"state": "failed"}.' in reason


@pytest.mark.both_runners
def test_a_slow_start_within_its_window_is_waited_for(hosting):
    """HOST-22."""
    began = time.monotonic()
    hosting.deploy(STUB_READY_AFTER="1.0")
    assert time.monotonic() - began >= 1.0


def test_a_variants_own_window_beats_the_services(start_hosting):
    """HOST-22, TRAP-54: ContainerStartupHealthCheckTimeoutInSeconds."""
    hosting = start_hosting(startup_window=0.2)
    hosting.create_model("m", STUB_READY_AFTER="1.0")
    hosting.create_config(
        "c", AllTraffic=("m", {"ContainerStartupHealthCheckTimeoutInSeconds": 60})
    )
    hosting.sm.create_endpoint(EndpointName="ep", EndpointConfigName="c")
    assert hosting.settled()["EndpointStatus"] == "InService"


def test_model_data_that_is_gone_or_broken_fails_the_endpoint_with_its_address(hosting):
    """HOST-40."""
    url = hosting.put("m.tar.gz", b"no archive at all")
    reason = fail(hosting, data=url)
    assert reason.startswith(
        f'Failed to download model data for container "primary" from URL: "{url}". Please ensure'
        " that there is an object located at the URL"
    )
    assert "no tar archive" in reason
    hosting.sm.delete_endpoint(EndpointName="ep")
    hosting.gone()
    hosting.buckets.delete(BUCKET, "m.tar.gz")
    hosting.sm.create_endpoint(EndpointName="ep", EndpointConfigName="c")
    assert "there is no object" in hosting.settled()["FailureReason"]


def test_model_data_that_takes_too_long_fails_the_endpoint(hosting, monkeypatch):
    """HOST-22, TRAP-54: ModelDataDownloadTimeoutInSeconds; the API's least is a minute."""
    download = ModelData.download
    monkeypatch.setattr("byoa.local.control.deployments.DOWNLOAD_SECONDS", 0.2)
    monkeypatch.setattr(
        ModelData, "download", lambda *given: (time.sleep(1.5), download(*given))
    )
    reason = fail(hosting, data=hosting.put("m.tar.gz", archive(model__txt="x")))
    assert reason.startswith("Failed to download model data")
    assert "longer than 0.2 seconds" in reason
    assert not list((hosting.home / "logs").rglob("i-*"))


def test_an_archive_that_leaves_its_directory_fails_the_endpoint(hosting):
    """HOST-42."""
    reason = fail(hosting, data=hosting.put("m.tar.gz", archive(**{"/../evil": "x"})))
    assert "evil" in reason
    wait_until(lambda: not files(hosting))
    assert not list(hosting.home.rglob("evil"))


@pytest.mark.both_runners
def test_one_bad_variant_fails_the_whole_endpoint(hosting):
    """ALG-03."""
    hosting.create_model("good")
    hosting.create_model("bad", STUB_EXIT="4")
    hosting.create_config("c", A="good", B="bad")
    hosting.sm.create_endpoint(EndpointName="ep", EndpointConfigName="c")
    described = hosting.settled()
    assert described["EndpointStatus"] == "Failed"
    assert "variant B" in described["FailureReason"]
    assert wait_until(lambda: not files(hosting))


# --- health after InService ---


@pytest.mark.both_runners
def test_an_instance_that_turns_unhealthy_is_replaced(hosting, monkeypatch):
    """HOST-24."""
    monkeypatch.setattr("byoa.local.control.endpoint_instances.PING_INTERVAL_SECONDS", 0.1)
    hosting.deploy()
    sick = invoke(hosting, sick=1)["process"]

    def process():
        try:
            return invoke(hosting)["process"]
        except ClientError:
            return sick

    assert wait_until(lambda: process() != sick)
    assert hosting.settled()["EndpointStatus"] == "InService"


@pytest.mark.both_runners
def test_what_is_without_effect_on_an_endpoint_begins_its_log(hosting):
    """The model's, the configuration's and the variant's."""
    hosting.sm.create_model(
        ModelName="m", PrimaryContainer={"Image": hosting.image},
        VpcConfig={"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]},
    )
    hosting.sm.create_endpoint_config(
        EndpointConfigName="c", KmsKeyId="key", ProductionVariants=[{
            "VariantName": "AllTraffic", "ModelName": "m", "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1, "VolumeSizeInGB": 10,
        }],
    )
    hosting.sm.create_endpoint(EndpointName="ep", EndpointConfigName="c")
    hosting.settled()
    lines = logs(hosting).splitlines()
    assert lines[0] == (
        "byoa: without effect on this machine, only kept and described: KmsKeyId, VolumeSizeInGB,"
        " VpcConfig"
    )
    assert "starting" in lines[1]


def test_a_container_that_exits_is_restarted_and_its_log_goes_on(hosting):
    """HOST-09."""
    hosting.deploy()
    with pytest.raises(ClientError):
        invoke(hosting, exit=9)
    wait_until(lambda: logs(hosting).count("starting") == 2)
    wait_until(lambda: answers(hosting))
    assert "leaving on demand" in logs(hosting)


def answers(hosting):
    try:
        return invoke(hosting)
    except ClientError:
        return None


@pytest.mark.both_runners
def test_while_one_instance_restarts_the_other_answers(hosting):
    """HOST-24: an instance that is not ready gets no request."""
    hosting.deploy(count=2)
    (variant,) = hosting.router.find(CALLER, "ep").variants
    with pytest.raises(ClientError):
        invoke(hosting, exit=9)
    wait_until(lambda: sum(each.ready for each in variant.backends) == 1, every=0.005)
    (left,) = {invoke(hosting)["process"] for _ in range(5)}
    assert left
    wait_until(lambda: sum(each.ready for each in variant.backends) == 2)
    assert len({invoke(hosting)["process"] for _ in range(40)}) == 2
