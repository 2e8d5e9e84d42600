"""UpdateEndpoint and UpdateEndpointWeightsAndCapacities under traffic."""

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError
from hosting_harness import CALLER, STREAMING_IMAGE, archive, wait_until


def invoke(hosting, **order):
    answer = hosting.runtime.invoke_endpoint(EndpointName="ep", Body=json.dumps(order).encode())
    return {**json.loads(answer["Body"].read()), "variant": answer["InvokedProductionVariant"]}


def model(hosting, name, **environment):
    hosting.create_model(
        name, data=hosting.put(f"{name}.tar.gz", archive(model__txt=name)), **environment
    )


def variants(described) -> dict:
    return {each["VariantName"]: each for each in described["ProductionVariants"]}


@pytest.fixture
def blue(hosting):
    """`ep` serves the model `blue`."""
    model(hosting, "blue")
    hosting.create_config("blue", AllTraffic="blue")
    hosting.sm.create_endpoint(EndpointName="ep", EndpointConfigName="blue")
    assert hosting.settled()["EndpointStatus"] == "InService"
    return hosting


def update(hosting, config="green", **members):
    hosting.sm.update_endpoint(EndpointName="ep", EndpointConfigName=config, **members)
    return hosting.settled()


@pytest.mark.both_runners
def test_an_update_switches_to_the_new_model_without_losing_a_request(blue):
    """ALG-04, VAR-04, HOST-03."""
    model(blue, "green", STUB_READY_AFTER="0.5")
    blue.create_config("green", AllTraffic="green")
    stop = threading.Event()
    seen: list[str] = []

    def call():
        client = blue.client("sagemaker-runtime")
        while not stop.is_set():
            body = json.dumps({"sleep": 0.02}).encode()
            answer = client.invoke_endpoint(EndpointName="ep", Body=body)
            seen.append(json.loads(answer["Body"].read())["model"])

    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(call) for _ in range(3)]
        wait_until(lambda: len(seen) > 5)
        blue.sm.update_endpoint(EndpointName="ep", EndpointConfigName="green")
        during = blue.sm.describe_endpoint(EndpointName="ep")
        described = blue.settled()
        after = len(seen)
        wait_until(lambda: len(seen) > after + 20)
        stop.set()
        for each in calls:
            each.result(10)  # raises what an invocation raised
    assert during["EndpointStatus"] == "Updating"
    assert during["EndpointConfigName"] == "blue"
    pending = during["PendingDeploymentSummary"]
    assert pending["EndpointConfigName"] == "green"
    assert pending["ProductionVariants"][0]["DesiredInstanceCount"] == 1
    assert described["EndpointConfigName"] == "green"
    assert "PendingDeploymentSummary" not in described
    assert set(seen) == {"blue", "green"}
    assert seen[-1] == "green"


@pytest.mark.both_runners
def test_the_old_containers_end_after_the_request_in_flight(blue):
    """HOST-03, ALG-04."""
    model(blue, "green")
    blue.create_config("green", AllTraffic="green")
    answers = []
    thread = threading.Thread(target=lambda: answers.append(invoke(blue, sleep=1.2)))
    thread.start()
    update(blue)
    assert invoke(blue)["model"] == "green"
    thread.join(10)
    assert answers[0]["model"] == "blue"
    wait_until(lambda: len(list(blue.home.glob("endpoints/*/*/ep/*"))) == 1)


@pytest.mark.both_runners
def test_a_failed_update_leaves_the_old_model_serving_with_the_reason(blue):
    """VAR-05, ALG-04."""
    model(blue, "green", STUB_EXIT="5")
    blue.create_config("green", AllTraffic="green")
    described = update(blue)
    assert described["EndpointStatus"] == "InService"
    assert described["EndpointConfigName"] == "blue"
    assert "exited with code 5" in described["FailureReason"]
    assert "PendingDeploymentSummary" not in described
    assert invoke(blue)["model"] == "blue"
    wait_until(lambda: len(list(blue.home.glob("endpoints/*/*/ep/*"))) == 1)
    model(blue, "better")
    blue.create_config("better", AllTraffic="better")
    assert "FailureReason" not in update(blue, "better")
    assert invoke(blue)["model"] == "better"


def scale(hosting, **changes):
    hosting.sm.update_endpoint_weights_and_capacities(
        EndpointName="ep",
        DesiredWeightsAndCapacities=[{"VariantName": name, **each}
                                     for name, each in changes.items()],
    )
    return hosting.settled()


@pytest.mark.both_runners
def test_weights_change_without_a_restart(hosting):
    """VAR-10."""
    for name in ("a", "b"):
        model(hosting, name)
    hosting.create_config("c", A="a", B=("b", {"InitialVariantWeight": 0.0}))
    hosting.sm.create_endpoint(EndpointName="ep", EndpointConfigName="c")
    hosting.settled()
    before = {invoke(hosting)["process"] for _ in range(10)}
    described = scale(hosting, A={"DesiredWeight": 0.0}, B={"DesiredWeight": 5.0})
    assert variants(described)["A"]["CurrentWeight"] == 0.0
    assert variants(described)["B"]["DesiredWeight"] == 5.0
    assert {invoke(hosting)["variant"] for _ in range(20)} == {"B"}
    answer = hosting.runtime.invoke_endpoint(EndpointName="ep", Body=b"", TargetVariant="A")
    assert {json.loads(answer["Body"].read())["process"]} == before


@pytest.mark.both_runners
def test_capacity_goes_out_and_in_again(blue):
    """VAR-10: unspecified fields stay."""
    first = invoke(blue)["process"]
    described = scale(blue, AllTraffic={"DesiredInstanceCount": 3})
    variant = variants(described)["AllTraffic"]
    assert (variant["CurrentInstanceCount"], variant["CurrentWeight"]) == (3, 1.0)
    processes = Counter(invoke(blue)["process"] for _ in range(60))
    assert len(processes) == 3 and first in processes
    described = scale(blue, AllTraffic={"DesiredInstanceCount": 1})
    assert variants(described)["AllTraffic"]["DesiredInstanceCount"] == 1
    assert {invoke(blue)["process"] for _ in range(10)} == {first}
    wait_until(lambda: len(list(blue.home.glob("endpoints/*/*/ep/*"))) == 1)


@pytest.mark.both_runners
def test_capacity_that_cannot_be_had_leaves_what_there_was(blue):
    """VAR-05."""
    blue.buckets.put_bytes("models", "blue.tar.gz", b"broken")
    described = scale(blue, AllTraffic={"DesiredInstanceCount": 2})
    assert described["EndpointStatus"] == "InService"
    assert "Failed to download model data" in described["FailureReason"]
    assert variants(described)["AllTraffic"]["DesiredInstanceCount"] == 1
    assert invoke(blue)["model"] == "blue"


@pytest.mark.parametrize(
    ("excluded", "expected"),
    [([], (2, 7.0)), (["DesiredWeight"], (2, 1.0)), (["DesiredInstanceCount"], (1, 7.0))],
)
def test_an_update_may_keep_counts_and_weights(blue, excluded, expected):
    """DEP-01; `update_endpoint` of the SDK sends RetainAllVariantProperties."""
    scale(blue, AllTraffic={"DesiredInstanceCount": 2, "DesiredWeight": 7.0})
    model(blue, "green")
    blue.create_config("green", AllTraffic="green", New=("green", {"InitialVariantWeight": 2.0}))
    described = update(
        blue, RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[{"VariantPropertyType": each} for each in excluded],
    )
    variant = variants(described)["AllTraffic"]
    assert (variant["CurrentInstanceCount"], variant["CurrentWeight"]) == expected
    assert variants(described)["New"]["CurrentWeight"] == 2.0


def policy(kind: str, **more) -> dict:
    return {"BlueGreenUpdatePolicy": {
        "TrafficRoutingConfiguration": {"Type": kind, "WaitIntervalInSeconds": 0, **more}}}


def test_all_at_once_is_taken_described_and_may_be_kept(blue):
    """DEP-01."""
    model(blue, "green")
    blue.create_config("green", AllTraffic="green")
    config = policy("ALL_AT_ONCE")
    assert update(blue, DeploymentConfig=config)["LastDeploymentConfig"] == config
    kept = update(blue, "blue", RetainDeploymentConfig=True)
    assert kept["LastDeploymentConfig"] == config
    assert "LastDeploymentConfig" not in update(blue)


SIZE = {"Type": "CAPACITY_PERCENT", "Value": 10}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (policy("CANARY", CanarySize=SIZE), ("CANARY", "ALL_AT_ONCE")),
        (policy("LINEAR", LinearStepSize=SIZE), ("LINEAR", "ALL_AT_ONCE")),
        ({"RollingUpdatePolicy": {"MaximumBatchSize": SIZE, "WaitIntervalInSeconds": 0}},
         ("RollingUpdatePolicy", "ALL_AT_ONCE")),
        ({**policy("ALL_AT_ONCE"), "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "a"}]}},
         ("Alarms",)),
    ],
)
def test_other_deployments_are_refused_at_once_with_the_nearest(blue, config, words):
    """DEP-02 … DEP-04."""
    with pytest.raises(ClientError) as raised:
        update(blue, "blue", DeploymentConfig=config)
    assert raised.value.response["Error"]["Code"] == "ValidationException"
    assert all(word in str(raised.value) for word in words)
    assert blue.settled()["EndpointStatus"] == "InService"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"VariantName": "None", "DesiredWeight": 1.0}, "it has AllTraffic"),
        ({"VariantName": "AllTraffic", "DesiredWeight": 0.0}, "above 0"),
        ({"VariantName": "AllTraffic", "DesiredInstanceCount": 0}, "at least 1"),
        ({"VariantName": "AllTraffic", "ServerlessUpdateConfig": {"MaxConcurrency": 1}},
         "DesiredInstanceCount"),
    ],
)
def test_impossible_weights_and_capacities_are_refused(blue, change, words):
    with pytest.raises(ClientError, match=words):
        blue.sm.update_endpoint_weights_and_capacities(
            EndpointName="ep", DesiredWeightsAndCapacities=[change]
        )
    assert blue.settled()["EndpointStatus"] == "InService"


def test_closing_ends_an_instance_that_scaling_in_left_with_a_stream(
    start_hosting, onlooker, tmp_path
):
    """HOST-03: its stream may go on for minutes; the server waits for none of them."""
    hosting = start_hosting(stream_timeout=300.0)
    hosting.image = STREAMING_IMAGE
    hosting.deploy(count=2)
    gate = tmp_path / "gate"
    gate.mkdir()
    gate.joinpath("head").touch()
    surplus = hosting.router.find(CALLER, "ep").variants[0].backends[1]
    order = json.dumps({"parts": ["one"], "gate": str(gate)}).encode()
    streams = []
    while not surplus.outstanding:
        answer = hosting.runtime.invoke_endpoint_with_response_stream(EndpointName="ep", Body=order)
        streams.append(answer["Body"])
    hosting.sm.update_endpoint_weights_and_capacities(
        EndpointName="ep",
        DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 1}],
    )
    assert hosting.settled()["EndpointStatus"] == "InService"
    assert len(onlooker(hosting.home).running()) == 2
    hosting.endpoints.close(20.0)
    assert onlooker(hosting.home).running() == []
    for each in streams:
        each.close()
