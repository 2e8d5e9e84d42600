"""The control plane on a socket, called by unmodified boto3."""

from __future__ import annotations

import threading

import pytest
import requests
from botocore.exceptions import ClientError

from byoa.container.errors import UnsupportedError
from byoa.local.errors import ResourceInUse, ValidationException


def _model(name="m", **members):
    return {"ModelName": name, "ExecutionRoleArn": "arn:aws:iam::123456789012:role/r",
            "PrimaryContainer": {"Image": "byoa:latest"}, **members}


def _error(call, *args, **kwargs):
    with pytest.raises(ClientError) as caught:
        call(*args, **kwargs)
    return caught.value.response


def test_an_operation_gets_the_caller_and_its_answer_reaches_boto(serve_wire):
    """WIRE-01, WIRE-02, WIRE-08."""
    seen = []

    def create(caller, request):
        seen.append((caller, request))
        return {"ModelArn": caller.arn("model", request["ModelName"])}

    wire = serve_wire({"CreateModel": create})
    answer = wire.client("sagemaker", "ap-south-1").create_model(**_model())
    assert answer["ModelArn"] == "arn:aws:sagemaker:ap-south-1:123456789012:model/m"
    assert answer["ResponseMetadata"]["RequestId"]
    caller, request = seen[0]
    assert (caller.account, caller.region) == ("123456789012", "ap-south-1")
    assert request == _model()


def test_a_delete_answers_an_empty_body(serve_wire):
    """WIRE-02."""
    wire = serve_wire({"DeleteModel": lambda caller, request: {}})
    answer = wire.client("sagemaker").delete_model(ModelName="m")
    assert answer["ResponseMetadata"]["HTTPHeaders"]["content-length"] == "0"


@pytest.mark.parametrize(("error", "code", "status"), [
    (ValidationException('Could not find model "arn:x".'), "ValidationException", 400),
    (ResourceInUse("Job name must be unique"), "ResourceInUse", 400),
    (UnsupportedError("SPOT", "no spot here", remedy="leave it out"), "ValidationException", 400),
    (ZeroDivisionError("oops"), "InternalFailure", 500),
])
def test_an_operation_s_error_is_boto_s_error(serve_wire, error, code, status):
    """WIRE-04, WIRE-05."""
    def fail(caller, request):
        raise error

    response = _error(serve_wire({"CreateModel": fail}).client("sagemaker").create_model,
                      **_model())
    assert response["Error"]["Code"] == code
    assert response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert getattr(error, "message", str(error)) in response["Error"]["Message"]


def test_a_modeled_error_is_raised_as_its_own_exception(serve_wire):
    """WIRE-04."""
    def fail(caller, request):
        raise ResourceInUse("Job name must be unique")

    client = serve_wire({"StopTrainingJob": fail, "CreateTrainingJob": fail}).client("sagemaker")
    with pytest.raises(client.exceptions.ResourceInUse) as caught:
        client.create_training_job(
            TrainingJobName="j", RoleArn="arn:aws:iam::123456789012:role/r",
            OutputDataConfig={"S3OutputPath": "s3://b/o"})
    assert caught.value.response["Message"] == "Job name must be unique"


def test_constraints_that_boto_leaves_to_the_service_are_checked(serve_wire):
    """WIRE-06: the operation is not run."""
    ran = []
    client = serve_wire({"CreateModel": lambda *a: ran.append(a) or {}}).client("sagemaker")
    response = _error(client.create_model, **_model("no_underscore"))
    assert response["Error"]["Code"] == "ValidationException"
    assert "'no_underscore' at 'modelName'" in response["Error"]["Message"]
    assert not ran


_RUN = ("CreateTrainingJob", "ListTrainingJobs", "DescribeTrainingJob", "StopTrainingJob",
        "CreateModel", "DescribeModel", "CreateEndpoint", "UpdateEndpoint", "DeleteEndpoint",
        "DescribeEndpoint")


@pytest.mark.parametrize(("name", "body", "hint"), [
    ("DescribeProcessingJob", {"ProcessingJobName": "j"},
     "nearest that is: DescribeTrainingJob"),
    ("StopTransformJob", {"TransformJobName": "j"}, "nearest that is: StopTrainingJob"),
    ("ListTransformJobs", {}, "nearest that is: ListTrainingJobs"),
    # Alike by their verbs only: nothing is named.
    ("DescribePipeline", {"PipelineName": "p"}, None),
    ("DescribeImage", {"ImageName": "i"}, None),
    ("ListClusters", {}, None),
])
def test_an_operation_that_is_not_run_is_refused_with_what_resembles_it(
        serve_wire, name, body, hint):
    wire = serve_wire(dict.fromkeys(_RUN, lambda *a: {}))
    answer = requests.post(wire.url, json=body, timeout=10,
                           headers={"X-Amz-Target": f"SageMaker.{name}"}).json()
    assert answer["__type"] == "UnknownOperationException"
    table = 'see the table "What runs, and what is refused" in byoa\'s README'
    assert answer["message"] == f"{name} is not run by this server; {hint or table}"


def test_at_most_three_operations_are_named(serve_wire):
    wire = serve_wire(dict.fromkeys(_RUN, lambda *a: {}))
    answer = requests.post(
        wire.url, timeout=10, json={"ModelPackageGroupName": "g"},
        headers={"X-Amz-Target": "SageMaker.DeleteModelPackageGroup"}).json()
    assert answer["message"].endswith(
        "nearest that is: CreateModelPackageGroup, DescribeModelPackageGroup, "
        "ListModelPackageGroups")


@pytest.mark.parametrize(("target", "word"), [
    ("SageMaker.CreateTrainingJobs", "did you mean CreateTrainingJob"),
    ("SageMaker.", "''"), ("SageMaker.FlyToTheMoon", "FlyToTheMoon")])
def test_an_operation_that_no_model_has_is_unknown(wire, target, word):
    answer = requests.post(wire.url, data=b"{}", timeout=10, headers={"X-Amz-Target": target})
    assert answer.status_code == 400
    assert answer.json()["__type"] == "UnknownOperationException"
    assert word in answer.json()["message"]


@pytest.mark.parametrize("body", [b'{"ModelName": NaN}', b"{", b"[" * 100_000, b'"text"', b"\xff"])
def test_a_body_that_is_no_json_object_is_a_serialization_exception(serve_wire, body):
    wire = serve_wire({"DescribeModel": lambda *a: {}})
    answer = requests.post(wire.url, data=body, timeout=10,
                           headers={"X-Amz-Target": "SageMaker.DescribeModel"})
    assert (answer.status_code, answer.json()["__type"]) == (400, "SerializationException")


def test_a_body_that_is_too_large_is_refused(serve_wire):
    wire = serve_wire({"DescribeModel": lambda *a: {}})
    answer = requests.post(wire.url, data=b" " * (16 * 2**20 + 1), timeout=30,
                           headers={"X-Amz-Target": "SageMaker.DescribeModel"})
    assert answer.status_code == 413


def test_members_of_a_newer_client_are_ignored(serve_wire):
    seen = []
    wire = serve_wire({"DescribeModel": lambda caller, request: seen.append(request) or {}})
    answer = requests.post(wire.url, json={"ModelName": "m", "Nova": 1}, timeout=10,
                           headers={"X-Amz-Target": "SageMaker.DescribeModel"})
    assert answer.status_code == 200
    assert seen == [{"ModelName": "m"}]


class _Job:
    """A training job in the state store, and the Describe that reads it."""

    def __init__(self, wire_of):
        self.wire_of = wire_of

    def describe(self, caller, request):
        row = self.wire_of().state.get("training-job", caller, request["TrainingJobName"])
        if row is None:
            raise ValidationException("Requested resource not found.")
        return {"TrainingJobName": row.name, "TrainingJobStatus": row.status}


def _with_job(serve_wire, status="InProgress"):
    from byoa.local.settings import Caller

    holder = []
    wire = serve_wire({"DescribeTrainingJob": _Job(lambda: holder[0]).describe})
    holder.append(wire)
    caller = Caller("123456789012", "eu-west-3")
    wire.state.create("training-job", caller, "j", arn=caller.arn("training-job", "j"),
                      status=status, document={})

    def end():
        def change(row):
            row.status = "Completed"
        wire.state.mutate("training-job", caller, "j", change)

    return wire, end


def test_a_boto3_waiter_is_held_until_the_job_ends_and_looks_once(serve_wire):
    """WIRE-20, CHK-30: its own next look would come after 120 s."""
    wire, end = _with_job(serve_wire)
    timer = threading.Timer(0.5, end)
    timer.start()
    waiter = wire.client("sagemaker").get_waiter("training_job_completed_or_stopped")
    waiter.wait(TrainingJobName="j", WaiterConfig={"Delay": 100, "MaxAttempts": 1})
    timer.join()


def test_a_single_describe_of_a_running_job_is_answered_at_once(serve_wire):
    wire, _ = _with_job(serve_wire)
    client = wire.client("sagemaker", read_timeout=5)
    assert client.describe_training_job(TrainingJobName="j")["TrainingJobStatus"] == "InProgress"


def test_a_waiter_on_a_missing_job_ends_with_the_service_s_words(serve_wire):
    """WIRE-06, CHK-30."""
    from botocore.exceptions import WaiterError

    wire, _ = _with_job(serve_wire)
    waiter = wire.client("sagemaker").get_waiter("training_job_completed_or_stopped")
    with pytest.raises(WaiterError) as caught:
        waiter.wait(TrainingJobName="nobody")
    assert caught.value.last_response["Error"]["Message"] == "Requested resource not found."


def test_tags_of_a_resource_are_added_replaced_listed_and_deleted(serve_wire):
    """WIRE-13."""
    wire, _ = _with_job(serve_wire)
    client = wire.client("sagemaker")
    arn = "arn:aws:sagemaker:eu-west-3:123456789012:training-job/j"
    client.add_tags(ResourceArn=arn, Tags=[{"Key": "team", "Value": "a"},
                                           {"Key": "cost", "Value": ""}])
    answer = client.add_tags(ResourceArn=arn, Tags=[{"Key": "team", "Value": "b"}])
    expected = [{"Key": "cost", "Value": ""}, {"Key": "team", "Value": "b"}]
    assert answer["Tags"] == expected
    pages = client.get_paginator("list_tags").paginate(ResourceArn=arn)
    assert [tag for page in pages for tag in page["Tags"]] == expected
    client.delete_tags(ResourceArn=arn, TagKeys=["cost", "never-there"])
    assert client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "b"}]


@pytest.mark.parametrize(("arn", "tags", "code", "words"), [
    ("training-job/j", [{"Key": "aws:x", "Value": "1"}], "ValidationException", "aws:"),
    ("training-job/j", [{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}],
     "ValidationException", "unique"),
    ("training-job/no", [{"Key": "k", "Value": "1"}], "ValidationException",
     "Could not find training job"),
    ("pipeline/p", [{"Key": "k", "Value": "1"}], "ValidationException", "taggable: training-job"),
])
def test_tags_that_cannot_be_kept_are_refused(serve_wire, arn, tags, code, words):
    """WIRE-13."""
    wire, _ = _with_job(serve_wire)
    response = _error(wire.client("sagemaker").add_tags, Tags=tags,
                      ResourceArn=f"arn:aws:sagemaker:eu-west-3:123456789012:{arn}")
    assert response["Error"]["Code"] == code
    assert words in response["Error"]["Message"]


def test_a_51st_tag_is_refused(serve_wire):
    """WIRE-13."""
    wire, _ = _with_job(serve_wire)
    client = wire.client("sagemaker")
    arn = "arn:aws:sagemaker:eu-west-3:123456789012:training-job/j"
    client.add_tags(ResourceArn=arn, Tags=[{"Key": str(i), "Value": ""} for i in range(50)])
    response = _error(client.add_tags, ResourceArn=arn, Tags=[{"Key": "50", "Value": ""}])
    assert response["Error"]["Code"] == "ResourceLimitExceeded"
    assert len(client.list_tags(ResourceArn=arn)["Tags"]) == 50


def test_pure_records_are_kept_by_moto_tags_included(wire):
    client = wire.client("sagemaker")
    arn = client.create_experiment(ExperimentName="exp")["ExperimentArn"]
    assert client.describe_experiment(ExperimentName="exp")["ExperimentArn"] == arn
    client.add_tags(ResourceArn=arn, Tags=[{"Key": "k", "Value": "v"}])
    assert client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "k", "Value": "v"}]


def test_records_are_validated_like_everything_else(wire):
    response = _error(wire.client("sagemaker").create_experiment, ExperimentName="bad_name")
    assert response["Error"]["Code"] == "ValidationException"


def test_every_record_operation_is_one_that_botocore_and_moto_know():
    from byoa.local.api import service_model
    from byoa.local.api.sagemaker import RECORDS

    assert set(RECORDS) <= set(service_model.service(service_model.CONTROL).operation_names)
    from moto.core.utils import camelcase_to_underscores
    from moto.sagemaker.responses import SageMakerResponse

    missing = [n for n in RECORDS if not hasattr(SageMakerResponse, camelcase_to_underscores(n))]
    assert not missing
