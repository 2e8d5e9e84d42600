"""Input validation: AWS's texts, all errors at once."""

from __future__ import annotations

import pytest

from byoa.local.api import service_model
from byoa.local.api.validation import validate
from byoa.local.errors import AwsError, ValidationException


def _check(operation, request):
    model = service_model.operation(service_model.CONTROL, operation)
    return validate(model.input_shape, request)


def _errors(operation, request):
    with pytest.raises(ValidationException) as caught:
        _check(operation, request)
    return caught.value.message


def test_all_errors_of_a_request_are_in_one_message_in_the_service_s_words(training_request):
    """WIRE-06, WIRE-07."""
    request = training_request("bad_name!")
    request["ResourceConfig"]["InstanceCount"] = -1
    del request["OutputDataConfig"]["S3OutputPath"]
    message = _errors("CreateTrainingJob", request)
    assert message.startswith("3 validation errors detected: Value 'bad_name!' at 'trainingJobName'"
                              " failed to satisfy constraint: Member must satisfy regular"
                              " expression pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}; ")
    assert ("Value null at 'outputDataConfig.s3OutputPath' failed to satisfy constraint: "
            "Member must not be null") in message
    assert ("Value '-1' at 'resourceConfig.instanceCount' failed to satisfy constraint: "
            "Member must have value greater than or equal to 0") in message


def test_one_error_is_announced_in_the_singular():
    """WIRE-06."""
    message = _errors("ListTrainingJobs", {"MaxResults": 101})
    assert message == (
        "1 validation error detected: Value '101' at 'maxResults' failed to satisfy constraint: "
        "Member must have value less than or equal to 100"
    )


def test_a_name_that_is_too_long_is_told_the_limit():
    """WIRE-06."""
    message = _errors("DescribeTrainingJob", {"TrainingJobName": "x" * 64})
    assert "Member must have length less than or equal to 63" in message


def test_members_of_a_list_are_counted_from_one(training_request, channel):
    """WIRE-07."""
    request = training_request("job", InputDataConfig=[
        channel("train", "s3://b/k"), channel("no spaces", "s3://b/k")])
    message = _errors("CreateTrainingJob", request)
    assert "Value 'no spaces' at 'inputDataConfig.2.member.channelName'" in message


def test_a_hyperparameter_of_2500_characters_passes_and_2501_name_their_key(training_request):
    """TRAIN-21."""
    fits = training_request("job", HyperParameters={"notes": "x" * 2500})
    assert len(_check("CreateTrainingJob", fits).request["HyperParameters"]["notes"]) == 2500
    message = _errors(
        "CreateTrainingJob", training_request("job", HyperParameters={"notes": "x" * 2501})
    )
    assert "at 'hyperParameters.notes.member'" in message
    assert "Map value must satisfy constraint: [Member must have length less than or equal to 2500"\
        in message
    assert len(message) < 1000  # the value is not repeated whole


def test_more_than_100_hyperparameters_are_refused(training_request):
    """TRAIN-21."""
    many = {f"p{index}": "1" for index in range(101)}
    message = _errors("CreateTrainingJob", training_request("job", HyperParameters=many))
    assert "at 'hyperParameters' failed to satisfy constraint: Member must have length less than " \
        "or equal to 100" in message


@pytest.mark.parametrize(("operation", "path", "accepted", "refused"), [
    ("CreateTrainingJob", "resourceConfig.instanceType", "ml.t3.medium", "ml.t2.medium"),
    ("CreateEndpointConfig", "productionVariants.1.member.instanceType",
     "ml.t2.medium", "ml.t3.medium"),
])
def test_an_instance_type_is_legal_per_api_and_the_refusal_names_a_near_one(
    training_request, operation, path, accepted, refused
):
    """HW-05, CHK-46, TRAP-56."""
    def request(instance_type):
        if operation == "CreateTrainingJob":
            made = training_request("job")
            made["ResourceConfig"]["InstanceType"] = instance_type
            return made
        return {"EndpointConfigName": "c", "ProductionVariants": [
            {"VariantName": "v", "ModelName": "m", "InstanceType": instance_type}]}

    _check(operation, request(accepted))
    message = _errors(operation, request(refused))
    assert f"Value '{refused}' at '{path}' failed to satisfy constraint: Member must satisfy " \
        "enum value set: [" in message
    assert f"(nearest: {accepted}" in message or accepted in message.rpartition("nearest")[2]


@pytest.mark.parametrize("name", ["local", "local_gpu"])
def test_the_sdk_s_local_mode_names_are_no_instance_types(training_request, name):
    request = training_request("job")
    request["ResourceConfig"]["InstanceType"] = name
    message = _errors("CreateTrainingJob", request)
    assert "local mode" in message
    assert "ml.m5.large" in message


def test_unknown_members_are_left_out_and_reported(training_request):
    request = training_request("job", FromTheFuture=1)
    request["ResourceConfig"]["Nova"] = {}
    checked = _check("CreateTrainingJob", request)
    assert checked.unknown == ["resourceConfig.Nova", "FromTheFuture"]
    assert "FromTheFuture" not in checked.request
    assert checked.request["ResourceConfig"] == training_request("job")["ResourceConfig"]


def test_null_is_the_same_as_not_given(training_request):
    checked = _check("CreateTrainingJob", training_request("job", Environment=None))
    assert "Environment" not in checked.request


def test_values_of_a_wrong_json_type_are_a_serialization_exception(training_request):
    request = training_request("job", EnableNetworkIsolation="yes", Tags={})
    request["ResourceConfig"]["InstanceCount"] = "two"
    with pytest.raises(AwsError) as caught:
        _check("CreateTrainingJob", request)
    assert caught.value.code == "SerializationException"
    assert "STRING_VALUE can not be converted to an Integer at 'resourceConfig.instanceCount'" \
        in caught.value.message
    assert "'enableNetworkIsolation'" in caught.value.message
    assert "START_OBJECT can not be converted to a list at 'tags'" in caught.value.message


def test_a_union_with_only_a_member_of_the_future_is_refused():
    model = service_model.service(service_model.CONTROL).shape_for("ScalingPolicy")
    with pytest.raises(ValidationException, match="exactly one member set of"):
        validate(model, {"Quantum": {}})


@pytest.mark.parametrize("moment", [1735689600, 1735689600.0, "1735689600",
                                    "2025-01-01T00:00:00Z"])
def test_times_arrive_as_epoch_seconds_whatever_the_client_wrote(moment):
    """WIRE-03."""
    checked = _check("ListTrainingJobs", {"CreationTimeAfter": moment})
    assert checked.request["CreationTimeAfter"] == 1735689600.0


def test_tags_may_be_written_in_any_script_but_not_with_forbidden_signs(training_request):
    """WIRE-13: the pattern of a tag uses classes that Python's `re` does not know."""
    fits = training_request("job", Tags=[{"Key": "проект/数据", "Value": "für @home"}])
    _check("CreateTrainingJob", fits)
    wrong = training_request("job", Tags=[{"Key": "a;b", "Value": ""}])
    message = _errors("CreateTrainingJob", wrong)
    assert "Value 'a;b' at 'tags.1.member.key'" in message


def test_every_pattern_of_both_apis_compiles():
    from byoa.local.api.validation import _pattern

    count = 0
    for name in (service_model.CONTROL, service_model.RUNTIME):
        model = service_model.service(name)
        for shape in model.shape_names:
            pattern = model.shape_for(shape).metadata.get("pattern")
            if pattern:
                _pattern(pattern)
                count += 1
    assert count > 400


def test_a_pattern_must_match_the_whole_value_line_ends_included():
    message = _errors("DescribeTrainingJob", {"TrainingJobName": "job\n"})
    assert "Member must satisfy regular expression pattern" in message


@pytest.mark.parametrize("request_", [[], "text", 3, None])
def test_a_request_that_is_no_object_is_a_serialization_exception(request_):
    with pytest.raises(AwsError) as caught:
        _check("DescribeTrainingJob", request_)
    assert caught.value.code == "SerializationException"
