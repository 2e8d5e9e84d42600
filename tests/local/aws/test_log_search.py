"""FilterLogEvents, as boto3's logs client and the SageMaker SDK call it."""

from __future__ import annotations

import json
import uuid

import pytest
import requests
from botocore.exceptions import ClientError

from byoa.local.aws.logs import Logs
from byoa.local.settings import Caller

CALLER = Caller("123456789012", "eu-west-3")
NOW = 1_900_000_000.0  # seconds


@pytest.fixture
def group(wire):
    """An endpoint's log: two instances of a variant, and one of another."""
    name = f"/aws/sagemaker/Endpoints/{uuid.uuid4().hex[:12]}"
    logs = Logs(wire.aws.moto)
    logs.append(CALLER, name, "AllTraffic/i-1", [
        (NOW, "loading 199999 weights"), (NOW + 3, "ERROR: no")])
    logs.append(CALLER, name, "AllTraffic/i-2", [(NOW + 1, "all well"), (NOW + 3, "ERROR")])
    logs.append(CALLER, name, "Canary/i-1", [(NOW + 2, "ERROR of the canary")])
    return name


@pytest.fixture
def found(wire, group):
    def find(**asked):
        answer = wire.client("logs").filter_log_events(**{"logGroupName": group, **asked})
        return [event["message"] for event in answer["events"]]

    return find


def _error(call, **asked):
    with pytest.raises(ClientError) as caught:
        call(**asked)
    return caught.value.response["Error"]


def test_events_of_all_streams_are_in_the_order_of_their_times(found):
    assert found() == ["loading 199999 weights", "all well", "ERROR of the canary", "ERROR: no",
                       "ERROR"]


def test_an_event_names_its_stream_and_has_an_id(wire, group):
    event = wire.client("logs").filter_log_events(logGroupName=group)["events"][1]
    assert event["logStreamName"] == "AllTraffic/i-2"
    assert event["timestamp"] == int((NOW + 1) * 1000)
    assert event["eventId"]


def test_a_stream_prefix_leaves_the_other_streams_out(found):
    """clients: v3's ModelBuilder asks for the prefix AllTraffic/."""
    assert found(logStreamNamePrefix="AllTraffic/", filterPattern="ERROR") == [
        "ERROR: no", "ERROR"]
    assert found(logStreamNamePrefix="Canary/") == ["ERROR of the canary"]
    assert found(logStreamNamePrefix="Nobody/") == []


def test_streams_and_times_are_filters(found):
    start, end = int((NOW + 1) * 1000), int((NOW + 2) * 1000)
    assert found(logStreamNames=["Canary/i-1", "absent"]) == ["ERROR of the canary"]
    assert found(startTime=start, endTime=end) == ["all well", "ERROR of the canary"]


def test_a_number_is_a_term_like_any_other(found):
    assert found(filterPattern="199999") == ["loading 199999 weights"]
    assert found(filterPattern="12345") == []


def test_the_latest_come_first_when_asked_for(wire, found):
    if "startFromHead" not in wire.client("logs").meta.service_model.operation_model(
            "FilterLogEvents").input_shape.members:
        pytest.skip("this botocore's model has no startFromHead")
    assert found(startFromHead=False, limit=2) == ["ERROR", "ERROR: no"]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_pages_have_every_event_once(wire, group, size):
    pages = list(wire.client("logs").get_paginator("filter_log_events").paginate(
        logGroupName=group, PaginationConfig={"PageSize": size}))
    messages = [event["message"] for page in pages for event in page["events"]]
    assert len(messages) == len(set(messages)) == 5
    assert len(pages) == -(-5 // size)


def test_a_page_is_no_larger_than_a_mebibyte(wire):
    group = f"/large/{uuid.uuid4().hex[:12]}"
    line = "x" * 250_000
    Logs(wire.aws.moto).append(CALLER, group, "s", [(NOW + i, line) for i in range(9)])
    pages = list(wire.client("logs").get_paginator("filter_log_events").paginate(
        logGroupName=group))
    assert [len(page["events"]) for page in pages] == [4, 4, 1]


def test_a_token_of_other_filters_is_refused(wire, group):
    client = wire.client("logs")
    token = client.filter_log_events(logGroupName=group, limit=1)["nextToken"]
    for asked in ({"nextToken": "nonsense"}, {"nextToken": token, "filterPattern": "ERROR"}):
        error = _error(client.filter_log_events, logGroupName=group, **asked)
        assert error["Code"] == "InvalidParameterException"
        assert "nextToken is invalid" in error["Message"]


def test_a_group_may_be_named_by_its_arn(wire, group, found):
    arn = f"arn:aws:logs:eu-west-3:123456789012:log-group:{group}"
    answer = wire.client("logs").filter_log_events(
        logGroupIdentifier=arn, logStreamNamePrefix="Canary/")
    assert [event["message"] for event in answer["events"]] == ["ERROR of the canary"]


def test_a_group_that_is_not_there_is_the_service_s_error(wire):
    error = _error(wire.client("logs").filter_log_events, logGroupName="/absent",
                   logStreamNamePrefix="a")
    assert error == {"Code": "ResourceNotFoundException",
                     "Message": "The specified log group does not exist."}


def test_a_group_of_another_region_is_not_seen(wire, group):
    error = _error(wire.client("logs", "us-east-2").filter_log_events, logGroupName=group)
    assert error["Code"] == "ResourceNotFoundException"


@pytest.mark.parametrize(("asked", "word"), [
    ({"filterPattern": "{ $.a = 1 }"}, "JSON patterns are not supported"),
    ({"filterPattern": "[a, b]"}, "column patterns are not supported"),
    ({"logStreamNames": ["a"], "logStreamNamePrefix": "a"}, "not both"),
    ({"limit": 10_001}, "less than or equal to 10000"),
    ({"logGroupIdentifier": "g"}, "exactly one"),
    ({"colour": "red"}, "no parameter colour"),
])
def test_what_cannot_be_done_is_an_invalid_parameter(wire, group, asked, word):
    """As raw JSON: a client's own checks are not what is tested."""
    answer = requests.post(
        wire.url, data=json.dumps({"logGroupName": group, **asked}), timeout=20,
        headers={"X-Amz-Target": "Logs_20140328.FilterLogEvents",
                 "Content-Type": "application/x-amz-json-1.1"})
    assert (answer.status_code, answer.json()["__type"]) == (400, "InvalidParameterException")
    assert word in answer.json()["message"]
