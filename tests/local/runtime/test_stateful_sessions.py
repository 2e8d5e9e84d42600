"""SessionId of InvokeEndpoint by unmodified boto3, to containers that keep sessions."""

import json

import pytest
from botocore.exceptions import ClientError
from hosting_harness import CALLER, STREAMING_IMAGE, Hosting, wait_until

COUNT = 3


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server with one endpoint, `ep`, of three instances."""
    hosting = Hosting(tmp_path_factory.mktemp("sessions"), startup_window=20.0)
    hosting.image = STREAMING_IMAGE
    try:
        hosting.deploy(count=COUNT)
        yield hosting
    finally:
        hosting.close()


def invoke(hosting, session, name="ep", members=(), **order):
    answer = hosting.runtime.invoke_endpoint(
        EndpointName=name, Body=json.dumps(order).encode(), SessionId=session, **dict(members)
    )
    return {**answer, "Body": json.loads(answer["Body"].read())}


def opened(hosting, name="ep", **order):
    """A new session: its id and the process that keeps it."""
    answer = invoke(hosting, "NEW_SESSION", name, requestType="NEW_SESSION", **order)
    session, _, expires = answer["NewSessionId"].partition("; ")
    assert expires.startswith("Expires=")
    return session, answer["Body"]["process"]


def refusal(hosting, session, name="ep", **order):
    with pytest.raises(ClientError) as raised:
        invoke(hosting, session, name, **order)
    return raised.value.response


def test_a_session_s_calls_go_to_the_instance_that_opened_it(served):
    """SESS-01, HOST-34: of three, each time."""
    for _ in range(4):
        session, process = opened(served)
        for turn in range(1, 9):
            body = invoke(served, session)["Body"]
            assert (body["process"], body["turn"]) == (process, turn)


def test_a_streamed_call_goes_to_the_session_s_instance_too(served):
    """SESS-01, STRM-03: another instance knows no such session, and would refuse it."""
    session, _ = opened(served)
    for _ in range(8):
        answer = served.runtime.invoke_endpoint_with_response_stream(
            EndpointName="ep", Body=b'{"parts": ["kept"]}', SessionId=session
        )
        assert [each["PayloadPart"]["Bytes"] for each in answer["Body"]] == [b"kept"]


def test_a_session_that_its_container_closes_is_told_and_forgotten(served):
    """SESS-02."""
    session, _ = opened(served)
    assert invoke(served, session, requestType="CLOSE")["ClosedSessionId"] == session
    error = refusal(served, session)
    assert error["Error"]["Code"] == "ValidationError"
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert error["Error"]["Message"].startswith(f"Session {session} of endpoint ep not found")


@pytest.mark.parametrize("order", [{}, {"requestType": "CLOSE"}])
def test_a_session_that_nobody_opened_is_refused(served, order):
    """SESS-01: and no container asked."""
    assert "NEW_SESSION" in refusal(served, "abc-1", **order)["Error"]["Message"]
    with pytest.raises(ClientError, match="Session abc-1 of endpoint ep not found"):
        served.runtime.invoke_endpoint_with_response_stream(
            EndpointName="ep", Body=b"{}", SessionId="abc-1"
        )


def test_an_expired_session_is_refused(served):
    """SESS-01."""
    session, _ = opened(served, expires="2020-01-01T00:00:00Z")
    assert "expired" in refusal(served, session)["Error"]["Message"]


@pytest.mark.parametrize("said", ["just-an-id", "id; Expires=tomorrow", "a b; Expires="
                                  "2099-01-01T00:00:00Z", "x; Expires=2099-13-01T00:00:00Z"])
def test_a_container_that_opens_a_session_badly_is_told(served, said):
    """SESS-01: the call could not be routed later."""
    error = refusal(served, "NEW_SESSION", requestType="NEW_SESSION", opened=said)
    assert error["Error"]["Code"] == "ModelError"
    assert said in error["OriginalMessage"]
    assert "Expires=yyyy-mm-ddThh:mm:ssZ" in error["OriginalMessage"]


def test_a_session_belongs_to_one_variant_and_another_cannot_be_asked_for(served):
    """SESS-01, VAR-01."""
    served.create_config("ab", A="ep", B="ep")
    served.sm.create_endpoint(EndpointName="two", EndpointConfigName="ab")
    assert served.settled("two")["EndpointStatus"] == "InService"
    answer = invoke(served, "NEW_SESSION", "two", {"TargetVariant": "B"},
                    requestType="NEW_SESSION")
    session = answer["NewSessionId"].partition(";")[0]
    for _ in range(8):
        assert invoke(served, session, "two")["InvokedProductionVariant"] == "B"
    assert invoke(served, session, "two", {"TargetVariant": "B"})["Body"]["turn"] == 9
    with pytest.raises(ClientError, match="kept by variant B"):
        invoke(served, session, "two", {"TargetVariant": "A"})
    assert "not found" in refusal(served, session, "ep")["Error"]["Message"]


def test_a_session_ends_with_its_container(served):
    """SESS-01: the one that is started in its place knows nothing of it."""
    served.deploy("mortal")
    session, process = opened(served, "mortal")
    with pytest.raises(ClientError, match="before an answer"):
        served.runtime.invoke_endpoint(EndpointName="mortal", Body=b'{"exit": 3}')

    def come_back():
        try:
            return served.runtime.invoke_endpoint(EndpointName="mortal", Body=b"{}")["Body"].read()
        except ClientError:
            return None

    assert json.loads(wait_until(come_back))["process"] != process
    assert "container has ended" in refusal(served, session, "mortal")["Error"]["Message"]


def test_a_session_whose_instance_is_not_ready_is_no_other_instance_s(served):
    """SESS-01, ERR-03."""
    session, _ = opened(served)
    keeper = served.router.sessions(CALLER, "ep").find(session)
    keeper.ready, keeper.reason = False, "it is ill"
    try:
        error = refusal(served, session)
    finally:
        keeper.ready = True
    assert (error["Error"]["Code"], error["OriginalStatusCode"]) == ("ModelError", 0)
    assert "it is ill" in error["OriginalMessage"]
    assert invoke(served, session)["Body"]["turn"] == 1


def test_an_update_to_other_instances_ends_the_sessions(served):
    """SESS-01, ALG-04."""
    served.deploy("turned")
    session, _ = opened(served, "turned")
    served.create_config("turned-next", AllTraffic="ep")
    served.sm.update_endpoint(EndpointName="turned", EndpointConfigName="turned-next")
    assert served.settled("turned")["EndpointStatus"] == "InService"
    assert "not found" in refusal(served, session, "turned")["Error"]["Message"]


def test_a_change_of_weight_keeps_the_sessions(served):
    """SESS-01, VAR-04."""
    served.deploy("weighed")
    session, process = opened(served, "weighed")
    served.sm.update_endpoint_weights_and_capacities(
        EndpointName="weighed",
        DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 2}],
    )
    assert served.settled("weighed")["EndpointStatus"] == "InService"
    for _ in range(8):
        assert invoke(served, session, "weighed")["Body"]["process"] == process
