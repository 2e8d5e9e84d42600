"""What a container of many models is asked, by unmodified boto3, and what of it the caller sees."""

import json
import re

import pytest
from botocore.exceptions import ClientError
from hosting_harness import BUCKET, MANY_IMAGE, Hosting, archive


@pytest.fixture
def many(tmp_path):
    """Starts a server with `ep`, whose container has many models: a, b and sub/c."""
    started = []

    def start(**environment):
        hosting = Hosting(tmp_path / "home", invocation_timeout=30.0, startup_window=20.0)
        started.append(hosting)
        for name in ("a", "b", "sub/c"):
            hosting.put(f"many/{name}.tar.gz", archive(model__txt=f"text of {name}"))
        hosting.sm.create_model(ModelName="m", PrimaryContainer={
            "Image": MANY_IMAGE, "Mode": "MultiModel", "ModelDataUrl": f"s3://{BUCKET}/many/",
            "Environment": environment,
        })
        hosting.create_config("c", AllTraffic="m")
        hosting.sm.create_endpoint(EndpointName="ep", EndpointConfigName="c")
        described = hosting.settled()
        assert described["EndpointStatus"] == "InService", described
        return hosting

    yield start
    for hosting in started:
        hosting.close()


def invoke(hosting, target, **order):
    answer = hosting.runtime.invoke_endpoint(
        EndpointName="ep", TargetModel=target, Body=json.dumps(order).encode()
    )
    return json.loads(answer["Body"].read())


def test_a_model_is_loaded_from_its_own_place_by_a_name_that_tells_nothing(many):
    """MME-01, MME-02, MME-03, MME-06: and nothing is in /opt/ml/model."""
    hosting = many()
    first, second = invoke(hosting, "a.tar.gz"), invoke(hosting, "sub/c.tar.gz")
    assert (first["variable"], first["model"]) == ("true", [])
    for seen, target in ((first, "a"), (second, "sub/c")):
        assert seen["text"] == f"text of {target}"
        assert seen["target"] == f"{target}.tar.gz"
        assert seen["url"] == f"/opt/ml/models/{seen['name']}/model"
        assert re.fullmatch("[0-9a-f]{32}", seen["name"])
    assert first["asked"] == ["POST /models", f"POST /models/{first['name']}/invoke"]
    again = invoke(hosting, "a.tar.gz")["asked"]
    assert again.count("POST /models") == 2


def test_a_model_that_is_loaded_already_is_asked(many):
    """MME-03: 409."""
    assert invoke(many(STUB_LOADED="1"), "a.tar.gz")["text"] == "text of a"


def test_a_model_that_its_container_has_unloaded_is_loaded_again(many):
    """MME-06: 404 of an invocation."""
    hosting = many()
    name = invoke(hosting, "a.tar.gz", forget=1)["name"]
    seen = invoke(hosting, "a.tar.gz")
    assert seen["text"] == "text of a"
    assert seen["asked"][2:] == [
        f"POST /models/{name}/invoke", f"GET /models/{name}", "POST /models",
        f"POST /models/{name}/invoke",
    ]


def test_a_404_of_a_model_that_is_loaded_is_the_caller_s(many):
    """MME-05, MME-06: the container is asked whether it has the model, and it has."""
    hosting = many()
    with pytest.raises(ClientError) as raised:
        invoke(hosting, "a.tar.gz", absent=1)
    assert raised.value.response["OriginalStatusCode"] == 404
    assert invoke(hosting, "a.tar.gz")["asked"].count("POST /models") == 1


def test_a_prediction_without_memory_unloads_another_model_and_is_made_again(many):
    """MME-06, MME-03: 507 of an invocation; the one unloaded is the least recently used."""
    hosting = many()
    oldest = invoke(hosting, "a.tar.gz")["name"]
    name = invoke(hosting, "b.tar.gz", full=1)["name"]
    asked = invoke(hosting, "b.tar.gz")["asked"]
    assert asked[3:6] == [
        f"POST /models/{name}/invoke", f"DELETE /models/{oldest}", f"POST /models/{name}/invoke",
    ]
    assert invoke(hosting, "a.tar.gz")["text"] == "text of a"


def test_an_object_that_changes_under_its_name_is_not_fetched_again(many):
    """MME-08: though the model is unloaded and loaded again; under another name it is."""
    hosting = many()
    invoke(hosting, "a.tar.gz", forget=1)
    hosting.put("many/a.tar.gz", archive(model__txt="another text"))
    hosting.put("many/a2.tar.gz", archive(model__txt="another text"))
    assert invoke(hosting, "a.tar.gz")["text"] == "text of a"
    assert invoke(hosting, "a2.tar.gz")["text"] == "another text"
