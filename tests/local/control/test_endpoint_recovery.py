"""Endpoints over the end of the service: orderly, and by SIGKILL."""

import json

import pytest
from botocore.exceptions import ClientError
from hosting_harness import BUCKET, CALLER, archive, wait_until

pytestmark = pytest.mark.both_runners


def invoke(clients, name="ep"):
    try:
        answer = clients.runtime.invoke_endpoint(EndpointName=name, Body=b"{}")
    except ClientError as error:
        # While the endpoint starts again, callers are told to try again.
        assert error.response["Error"]["Code"] in ("ServiceUnavailable", "ModelError")
        return None
    return json.loads(answer["Body"].read())


def test_an_orderly_stop_ends_the_containers_and_the_next_start_brings_them_back(start_hosting):
    first = start_hosting()
    first.deploy(data=first.put("m.tar.gz", archive(model__txt="kept")))
    process = invoke(first)["process"]
    first.close()
    assert first.onlooker.left() == []
    second = start_hosting(first.home)
    answer = wait_until(lambda: invoke(second))
    assert (answer["model"], answer["process"] != process) == ("kept", True)
    assert second.settled()["EndpointStatus"] == "InService"


def test_an_endpoint_comes_back_though_its_model_config_and_data_were_deleted(start_hosting):
    """VAR-09."""
    first = start_hosting()
    first.deploy(data=first.put("m.tar.gz", archive(model__txt="kept")))
    first.sm.delete_model(ModelName="ep")
    first.sm.delete_endpoint_config(EndpointConfigName="ep")
    first.buckets.delete(BUCKET, "m.tar.gz")
    first.close()
    second = start_hosting(first.home)
    assert wait_until(lambda: invoke(second))["model"] == "kept"


def test_a_killed_service_finds_its_containers_serving_and_keeps_them(killable):
    clients = killable.start()
    clients.deploy(data=f"s3://{BUCKET}/model.tar.gz")
    process = invoke(clients)["process"]
    killable.kill()
    clients.close()
    clients = killable.start()
    assert wait_until(lambda: invoke(clients))["process"] == process
    assert clients.settled()["EndpointStatus"] == "InService"
    clients.sm.delete_endpoint(EndpointName="ep")
    clients.gone()
    assert killable.onlooker.running() == []
    clients.close()


def test_a_container_that_died_with_the_service_is_started_again(killable):
    clients = killable.start()
    clients.deploy(data=f"s3://{BUCKET}/model.tar.gz")
    process = invoke(clients)["process"]
    killable.kill()
    clients.close()
    killable.onlooker.kill()
    clients = killable.start()
    answer = wait_until(lambda: invoke(clients))
    assert answer["model"] == "stored" and answer["process"] != process
    clients.close()


def test_a_creation_that_was_cut_off_is_done_again(killable):
    clients = killable.start()
    clients.create_model("m", STUB_READY_AFTER="1.5")
    clients.create_config("m", AllTraffic="m")
    clients.sm.create_endpoint(EndpointName="ep", EndpointConfigName="m")
    wait_until(lambda: list(killable.home.glob("endpoints/*/*/ep/*/container.json")))
    killable.kill()
    clients.close()
    clients = killable.start()
    assert clients.settled()["EndpointStatus"] == "InService"
    assert len(list(killable.home.glob("endpoints/*/*/ep/*"))) == 1
    clients.close()


def test_an_update_that_was_cut_off_is_done_again(killable):
    """ALG-04: no container of either fleet is left over."""
    clients = killable.start()
    clients.deploy(data=f"s3://{BUCKET}/model.tar.gz")
    clients.create_model("green", STUB_READY_AFTER="1.5")
    clients.create_config("green", AllTraffic="green")
    clients.sm.update_endpoint(EndpointName="ep", EndpointConfigName="green")
    wait_until(lambda: len(list(killable.home.glob("endpoints/*/*/ep/*/container.json"))) == 2)
    killable.kill()
    clients.close()
    clients = killable.start()
    described = wait_until(
        lambda: (found := clients.settled())["EndpointConfigName"] == "green" and found
    )
    assert described["EndpointStatus"] == "InService"
    wait_until(lambda: len(list(killable.home.glob("endpoints/*/*/ep/*"))) == 1)
    assert invoke(clients)["model"] == ""
    clients.close()


def test_a_deletion_that_was_cut_off_is_finished(killable):
    clients = killable.start()
    clients.deploy(STUB_IGNORE_TERM="1")
    clients.sm.delete_endpoint(EndpointName="ep")
    killable.kill()
    clients.close()
    clients = killable.start()
    clients.gone()
    assert killable.onlooker.running() == []
    assert not list(killable.home.glob("endpoints/*/*/ep"))
    clients.close()


def test_the_files_of_an_endpoint_without_a_record_are_swept(start_hosting):
    first = start_hosting()
    first.deploy(count=2)
    first.state.delete("endpoint", CALLER, "ep")
    first.close()
    start_hosting(first.home)
    assert not list(first.home.glob("endpoints/*/*/ep"))
