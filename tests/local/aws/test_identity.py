"""The identity facade: without these answers no SageMaker client starts."""

from __future__ import annotations

import uuid

import pytest
from botocore.exceptions import ClientError

TRUST = "sagemaker.amazonaws.com"


def _name():
    return f"role-{uuid.uuid4().hex[:12]}"


def test_any_credentials_are_an_assumed_role_and_no_user(wire):
    """clients: get_execution_role() refuses a user's ARN."""
    identity = wire.client("sts").get_caller_identity()
    assert identity["Arn"] == "arn:aws:sts::123456789012:assumed-role/byoa-execution-role/byoa"
    assert identity["Account"] == "123456789012"
    assert identity["UserId"]


def test_the_account_is_the_setting_s(serve_wire):
    wire = serve_wire(account="111122223333")
    assert wire.client("sts").get_caller_identity()["Account"] == "111122223333"
    role = wire.client("iam").get_role(RoleName=_name())["Role"]
    assert ":111122223333:role/" in role["Arn"]
    queue = wire.client("sqs").create_queue(QueueName=_name())
    assert "/111122223333/" in queue["QueueUrl"]


def test_every_role_name_is_known_and_trusts_sagemaker(wire):
    name = _name()
    role = wire.client("iam").get_role(RoleName=name)["Role"]
    assert role["Arn"] == f"arn:aws:iam::123456789012:role/{name}"
    statement = role["AssumeRolePolicyDocument"]["Statement"][0]
    assert TRUST in statement["Principal"]["Service"]
    assert wire.client("iam").get_role(RoleName=name)["Role"]["RoleId"] == role["RoleId"]


def test_a_role_of_the_console_has_its_path(wire):
    name = f"AmazonSageMaker-ExecutionRole-{uuid.uuid4().hex[:12]}"
    role = wire.client("iam").get_role(RoleName=name)["Role"]
    assert role["Arn"].endswith(f":role/service-role/{name}")


def test_a_policy_can_be_attached_to_a_role_seen_once(wire):
    client, name = wire.client("iam"), _name()
    client.get_role(RoleName=name)
    document = ('{"Version": "2012-10-17", "Statement": '
                '[{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}')
    client.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document)
    assert client.list_role_policies(RoleName=name)["PolicyNames"] == ["p"]


def test_a_role_that_was_really_made_wins(wire):
    client, name = wire.client("iam"), _name()
    client.create_role(RoleName=name, Path="/team/",
                       AssumeRolePolicyDocument='{"Version": "2012-10-17", "Statement": []}')
    role = client.get_role(RoleName=name)["Role"]
    assert role["Arn"].endswith(f":role/team/{name}")
    assert role["AssumeRolePolicyDocument"]["Statement"] == []


def test_a_deleted_role_stays_deleted(wire):
    client, name = wire.client("iam"), _name()
    client.get_role(RoleName=name)
    client.delete_role(RoleName=name)
    with pytest.raises(ClientError, match="NoSuchEntity"):
        client.get_role(RoleName=name)


def test_every_action_is_allowed_on_every_resource(wire):
    answer = wire.client("iam").simulate_principal_policy(
        PolicySourceArn="arn:aws:iam::123456789012:role/r",
        ActionNames=["sagemaker:CreateTrainingJob", "s3:PutObject"],
        ResourceArns=["arn:aws:s3:::a&b", "*"])
    found = [(each["EvalActionName"], each["EvalResourceName"], each["EvalDecision"])
             for each in answer["EvaluationResults"]]
    assert found == [
        ("sagemaker:CreateTrainingJob", "arn:aws:s3:::a&b", "allowed"),
        ("sagemaker:CreateTrainingJob", "*", "allowed"),
        ("s3:PutObject", "arn:aws:s3:::a&b", "allowed"), ("s3:PutObject", "*", "allowed")]
    assert answer["IsTruncated"] is False


def test_an_assumed_role_is_the_identity_of_its_credentials(wire):
    import boto3

    credentials = wire.client("sts").assume_role(
        RoleArn="arn:aws:iam::123456789012:role/other", RoleSessionName="me")["Credentials"]
    client = boto3.session.Session().client(
        "sts", endpoint_url=wire.url, region_name="eu-west-3",
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"])
    arn = client.get_caller_identity()["Arn"]
    client.close()
    assert arn == "arn:aws:sts::123456789012:assumed-role/other/me"
