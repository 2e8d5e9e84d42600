"""Answers in the form that unmodified botocore parses."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone

import pytest
from botocore.parsers import create_parser
from requests.structures import CaseInsensitiveDict

from byoa.local.api import service_model
from byoa.local.api.serialization import (
    json_error,
    json_response,
    rest_error,
    serialise,
)
from byoa.local.errors import AwsError, ResourceInUse, ValidationException


def _operation(name):
    return service_model.operation(service_model.CONTROL, name)


def _parsed(response, protocol, shape):
    raw = {"headers": CaseInsensitiveDict(response.headers), "body": response.body,
           "status_code": response.status}
    return create_parser(protocol).parse(raw, shape)


def test_times_are_epoch_numbers_of_millisecond_resolution():
    """WIRE-03."""
    moment = datetime(2025, 1, 1, tzinfo=timezone.utc)
    body = serialise(_operation("DescribeEndpoint").output_shape, {
        "CreationTime": 1735689600.1239, "LastModifiedTime": moment})
    assert body == {"CreationTime": 1735689600.124, "LastModifiedTime": 1735689600.0}


def test_only_modeled_members_are_sent_and_the_others_are_logged(caplog):
    with caplog.at_level(logging.WARNING):
        body = serialise(_operation("DescribeEndpoint").output_shape, {
            "EndpointName": "e", "FailureReason": None, "Pid": 7,
            "ProductionVariants": [{"VariantName": "v", "Socket": "x"}]})
    assert body == {"EndpointName": "e", "ProductionVariants": [{"VariantName": "v"}]}
    assert "Pid" in caplog.text
    assert "Socket" in caplog.text


def test_an_operation_without_output_answers_200_with_an_empty_body():
    """WIRE-02."""
    response = json_response(_operation("StopTrainingJob"), {})
    assert (response.status, response.body) == (200, b"")
    assert dict(response.headers)["x-amzn-RequestId"]


def test_every_answer_has_a_request_id_of_its_own():
    """WIRE-02."""
    first, second = (json_response(_operation("DeleteModel"), None) for _ in range(2))
    assert dict(first.headers)["x-amzn-RequestId"] != dict(second.headers)["x-amzn-RequestId"]


def test_an_answer_round_trips_through_botocore_s_parser():
    shape = _operation("DescribeTrainingJob").output_shape
    response = json_response(_operation("DescribeTrainingJob"), {
        "TrainingJobName": "j", "HyperParameters": {"lr": "0.1"}, "CreationTime": 1735689600.5,
        "FinalMetricDataList": [{"MetricName": "loss", "Value": 0.25, "Timestamp": 1735689601}]})
    parsed = _parsed(response, "json", shape)
    assert parsed["HyperParameters"] == {"lr": "0.1"}
    assert parsed["CreationTime"].timestamp() == 1735689600.5
    assert parsed["FinalMetricDataList"][0]["Value"] == 0.25


@pytest.mark.parametrize("error", [
    ValidationException("Requested resource not found."), ResourceInUse("taken"),
    AwsError("ThrottlingException", "slow down")])
def test_boto_sees_code_and_message_of_modeled_and_other_errors(error):
    """WIRE-04."""
    response = json_error(error)
    assert response.status == 400
    assert json.loads(response.body)["__type"] == error.code
    parsed = _parsed(response, "json", None)
    assert parsed["Error"]["Code"] == error.code
    assert parsed["Error"]["Message"] == error.message


def test_a_runtime_error_has_its_type_in_a_header_and_its_members_in_the_body():
    """WIRE-32."""
    error = AwsError("ModelError", "Received server error", status=424, members={
        "OriginalStatusCode": 500, "OriginalMessage": "boom"})
    response = rest_error(error)
    assert response.status == 424
    shape = service_model.service(service_model.RUNTIME).shape_for("ModelError")
    parsed = _parsed(response, "rest-json", None)
    assert parsed["Error"] == {"Code": "ModelError", "Message": "Received server error"}
    assert _parsed(response, "rest-json", shape) is not None
    assert json.loads(response.body)["OriginalStatusCode"] == 500
