"""What the container of an endpoint is given, and how it is asked: unmodified boto3 and real
containers."""

import json

import pytest
from botocore.exceptions import ClientError
from hosting_harness import BUCKET, archive


def invoke(hosting, name="ep", **order):
    answer = hosting.runtime.invoke_endpoint(EndpointName=name, Body=json.dumps(order).encode())
    return json.loads(answer["Body"].read())


def create(hosting, container=None, variant=None):
    """The description of `ep`, once it has come into service or failed."""
    hosting.sm.create_model(
        ModelName="m", PrimaryContainer={"Image": hosting.image, **(container or {})}
    )
    hosting.create_config("c", AllTraffic=("m", variant or {}))
    hosting.sm.create_endpoint(EndpointName="ep", EndpointConfigName="c")
    return hosting.settled()


def source(uri, kind="S3Prefix", compression="None"):
    return {"ModelDataSource": {"S3DataSource": {
        "S3Uri": uri, "S3DataType": kind, "CompressionType": compression}}}


@pytest.mark.both_runners
def test_a_container_is_asked_for_its_health_and_for_answers_and_for_nothing_else(hosting):
    """HOST-01, HOST-12, HOST-14, HOST-20, HOST-26: HTTP/1.1, GET for its health, and `serve`."""
    hosting.deploy(STUB_READY_AFTER="0.5")
    seen = invoke(hosting)
    assert seen["arguments"] == ["serve"]
    assert seen["lines"] == [
        "AHC/2.0: GET /ping HTTP/1.1", "AHC/2.0: POST /invocations HTTP/1.1",
    ]


@pytest.mark.both_runners
def test_a_container_has_the_host_name_that_its_definition_gives(hosting):
    """HOST-04: and it resolves."""
    if hosting.runner.name == "process" and hosting.runner.no_sandbox is not None:
        pytest.skip(f"no namespaces here: {hosting.runner.no_sandbox}")
    assert create(hosting, {"ContainerHostname": "front-door"})["EndpointStatus"] == "InService"
    seen = invoke(hosting, resolve="front-door")
    assert seen["hostname"] == seen["environment"]["HOSTNAME"] == "front-door"
    assert seen["resolved"]


@pytest.mark.docker
@pytest.mark.parametrize("runner_kind", ["docker"])
def test_an_isolated_container_is_given_no_credentials_and_no_address(hosting):
    """HOST-08."""
    hosting.sm.create_model(
        ModelName="m", PrimaryContainer={"Image": hosting.image}, EnableNetworkIsolation=True
    )
    hosting.create_config("c", AllTraffic="m")
    hosting.sm.create_endpoint(EndpointName="ep", EndpointConfigName="c")
    assert hosting.settled()["EndpointStatus"] == "InService"
    environment = invoke(hosting)["environment"]
    assert environment["AWS_REGION"] == environment["AWS_DEFAULT_REGION"] == "us-west-2"
    assert [name for name in environment if name.startswith("AWS_")] == [
        "AWS_REGION", "AWS_DEFAULT_REGION",
    ]


@pytest.mark.both_runners
def test_without_model_data_the_model_directory_is_there_and_empty(hosting):
    """HOST-41."""
    hosting.deploy()
    assert invoke(hosting)["files"] == []


@pytest.mark.both_runners
def test_a_model_s_files_are_where_its_source_says(hosting):
    """HOST-40, HOST-43: an archive unpacked, an object by its name, a prefix as it is."""
    for key in ("m/model.txt", "m/weights/part1", "m2/other"):
        hosting.put(key, key.encode())
    packed = hosting.put("m.tar.gz", archive(model__txt="packed", code__py="x"))
    expected = {
        "archive": (source(packed, "S3Object", "Gzip"), ["code.py", "model.txt"], "packed"),
        "object": (source(f"s3://{BUCKET}/m/model.txt", "S3Object"), ["model.txt"], "m/model.txt"),
        "prefix": (source(f"s3://{BUCKET}/m/"), ["model.txt", "weights/part1"], "m/model.txt"),
    }
    for name, (container, _, _) in expected.items():
        hosting.sm.create_model(
            ModelName=name, PrimaryContainer={"Image": hosting.image, **container}
        )
        hosting.create_config(name, AllTraffic=name)
        hosting.sm.create_endpoint(EndpointName=name, EndpointConfigName=name)
    for name, (_, files, model) in expected.items():
        assert hosting.settled(name)["EndpointStatus"] == "InService"
        seen = invoke(hosting, name)
        assert (seen["files"], seen["model"]) == (files, model)


def test_a_prefix_that_has_come_to_hold_no_paths_fails_the_endpoint(hosting):
    """HOST-44, TRAP-40: what the console leaves when a folder is made in it."""
    hosting.put("m/weights/part1", b"x")
    hosting.sm.create_model(
        ModelName="m", PrimaryContainer={"Image": hosting.image, **source(f"s3://{BUCKET}/m/")}
    )
    hosting.create_config("c", AllTraffic="m")
    hosting.put("m/folder/", b"")
    hosting.sm.create_endpoint(EndpointName="ep", EndpointConfigName="c")
    described = hosting.settled()
    assert described["EndpointStatus"] == "Failed"
    assert "'folder/' below the prefix is a folder placeholder" in described["FailureReason"]


@pytest.mark.parametrize(("behaviour", "words"), [
    ({"STUB_PING_SECONDS": "3"}, "/ping did not answer within 2 s"),
    ({"STUB_PING_STATUS": "204"}, "/ping answered 204"),
])
def test_a_ping_that_is_late_or_another_success_than_200_is_not_healthy(
    start_hosting, behaviour, words
):
    """HOST-20, HOST-21, TRAP-06."""
    hosting = start_hosting(startup_window=2.5)
    described = create(hosting, {"Environment": behaviour})
    assert described["EndpointStatus"] == "Failed"
    assert f"Seen: {words}" in described["FailureReason"]


def test_members_that_choose_the_cloud_s_machine_are_kept_and_said_to_be_without_effect(hosting):
    """HOST-47, HOST-48."""
    chosen = {"VolumeSizeInGB": 512,
              "InferenceAmiVersion": "al2-ami-sagemaker-inference-gpu-2"}
    assert create(hosting, variant=chosen)["EndpointStatus"] == "InService"
    described = hosting.sm.describe_endpoint_config(EndpointConfigName="c")
    assert chosen.items() <= described["ProductionVariants"][0].items()
    (log,) = (hosting.home / "logs").rglob("Endpoints/ep/*/*")
    assert log.read_text().startswith(
        "byoa: without effect on this machine, only kept and described: VolumeSizeInGB,"
        " InferenceAmiVersion\n"
    )


@pytest.mark.parametrize("variant", [
    {"VolumeSizeInGB": 513}, {"InferenceAmiVersion": "al2-ami-of-my-own"},
    {"ContainerStartupHealthCheckTimeoutInSeconds": 3601},
    {"ModelDataDownloadTimeoutInSeconds": 3601},
])
def test_a_variant_has_the_limits_of_the_api(hosting, variant):
    """HOST-22, HOST-47, HOST-48."""
    hosting.create_model("m")
    (name,) = variant
    with pytest.raises(ClientError, match="ValidationException") as raised:
        hosting.create_config("c", AllTraffic=("m", variant))
    assert name[0].lower() + name[1:] in raised.value.response["Error"]["Message"]
