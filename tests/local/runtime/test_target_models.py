"""Multi-model endpoints: unmodified boto3, byoa's own server in the container."""

import io
import json
import tarfile
import threading

import pytest
from botocore.exceptions import ClientError
from hosting_harness import BUCKET

PREFIX = f"s3://{BUCKET}/many/"
ALGORITHM = '''
import os, time
import numpy as np
from byoa.algorithms import Algorithm, param

class Own(Algorithm):
    class Hyperparameters(Algorithm.Hyperparameters):
        ballast_mb: int = param(0, doc="memory that the model takes")
        load_seconds: float = param(0.0, doc="how long load takes")
        fails: str = param("", doc="what load raises")
    def train(self, run): raise AssertionError
    def load(self, model_dir, device):
        time.sleep(self.hyperparameters.load_seconds)
        if self.hyperparameters.fails:
            raise RuntimeError(self.hyperparameters.fails)
        return np.ones(self.hyperparameters.ballast_mb << 20, dtype=np.uint8)
    def predict(self, model, records):
        if records[0, 0] == 902:
            raise ValueError("not this one")
        if records[0, 0] == 909:
            os._exit(1)
        return [NAME for _ in records]
'''


def put(hosting, name, **hyperparameters):
    """A model's archive under the prefix; its TargetModel."""
    manifest = {"byoa": 1, "algorithm": "own:Own", "hyperparameters": hyperparameters,
                "input": {"features": 2, "sample": [[1.0, 2.0]]}}
    files = {"byoa.json": json.dumps(manifest), "code/own.py": f"NAME = {name!r}\n{ALGORITHM}"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path, text in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(text.encode())
            member.mode = 0o644
            tar.addfile(member, io.BytesIO(text.encode()))
    hosting.put(f"many/{name}.tar.gz", buffer.getvalue())
    return f"{name}.tar.gz"


@pytest.fixture
def own_image_name(runner_kind, request):
    """byoa's own image, of either runner."""
    return "byoa:latest" if runner_kind == "process" else request.getfixturevalue(
        "torch_free_image"
    )


@pytest.fixture
def deploy(start_hosting, own_image_name):
    def start(*, count=1, setting=None, settings=None, **environment):
        hosting = start_hosting(**{"invocation_timeout": 60.0, **(settings or {})})
        container = {"Image": own_image_name, "Mode": "MultiModel", "ModelDataUrl": PREFIX,
                     "Environment": {"BYOA_WORKERS": "1", **environment}}
        if setting:
            container["MultiModelConfig"] = {"ModelCacheSetting": setting}
        hosting.sm.create_model(ModelName="m", PrimaryContainer=container)
        hosting.create_config("c", AllTraffic=("m", {"InitialInstanceCount": count}))
        hosting.sm.create_endpoint(EndpointName="ep", EndpointConfigName="c")
        described = hosting.settled(seconds=60.0)
        assert described["EndpointStatus"] == "InService", described.get("FailureReason")
        return hosting

    return start


def invoke(hosting, target, body=b"1,2\n"):
    answer = hosting.runtime.invoke_endpoint(
        EndpointName="ep", TargetModel=target, Body=body, ContentType="text/csv"
    )
    return json.loads(answer["Body"].read())["predictions"][0]


def refusal(hosting, target, body=b"1,2\n"):
    with pytest.raises(ClientError) as raised:
        if target is None:
            hosting.runtime.invoke_endpoint(EndpointName="ep", Body=body)
        else:
            invoke(hosting, target, body)
    return raised.value.response


@pytest.mark.both_runners
def test_models_are_fetched_when_first_asked_for_and_answer_side_by_side(deploy):
    """MME-01, MME-02, MME-03, MME-06, MME-09."""
    hosting = deploy()
    first = put(hosting, "first")
    assert invoke(hosting, first) == "first"
    second = put(hosting, "deep/second")  # after the endpoint came into service
    assert [invoke(hosting, each) for each in (second, first)] == ["deep/second", "first"]
    missing = refusal(hosting, "third.tar.gz")
    assert missing["Error"]["Code"] == "ValidationError"
    assert "third.tar.gz" in missing["Error"]["Message"]
    assert refusal(hosting, None)["Error"]["Code"] == "ValidationError"
    assert "TargetModel" in refusal(hosting, None)["Error"]["Message"]
    with pytest.raises(ClientError, match="ValidationError.* has no TargetModel"):  # STRM-03
        hosting.runtime.invoke_endpoint_with_response_stream(EndpointName="ep", Body=b"1,2\n")


def test_a_path_that_leaves_the_prefix_is_refused(deploy):
    hosting = deploy()
    for target in ("../model.tar.gz", "a//b.tar.gz", "/x.tar.gz"):
        assert refusal(hosting, target)["Error"]["Code"] == "ValidationError"


@pytest.mark.both_runners
def test_the_least_recently_used_makes_room_for_another(deploy):
    """MME-03, TRAP-33: 507, unload, load again; nothing of it reaches the caller."""
    hosting = deploy(BYOA_MODELS_MEMORY_MB="200")
    targets = [put(hosting, name, ballast_mb=60) for name in ("a", "b", "c", "d")]
    for target in (*targets, targets[0]):
        assert invoke(hosting, target) == target.removesuffix(".tar.gz")
    too_large = put(hosting, "whale", ballast_mb=360)
    error = refusal(hosting, too_large)
    assert error["Error"]["Code"] == "ModelError"
    assert error["OriginalStatusCode"] == 507
    assert "MODEL_MEMORY" in error["OriginalMessage"]
    assert invoke(hosting, targets[1]) == "b"


def test_what_the_model_does_wrong_is_its_own_error(deploy):
    hosting = deploy()
    good, broken = put(hosting, "good"), put(hosting, "broken", fails="no such weights")
    error = refusal(hosting, broken)
    assert error["Error"]["Code"] == "ModelError"
    assert error["OriginalStatusCode"] == 500
    assert "no such weights" in error["OriginalMessage"]
    error = refusal(hosting, good, b"902,0\n")
    assert "not this one" in error["OriginalMessage"]
    assert invoke(hosting, good) == "good"


def test_a_model_that_is_still_being_loaded_is_said_to_be_so_and_comes(deploy):
    """MME-07: the load goes on behind the caller's back."""
    hosting = deploy(settings={"invocation_timeout": 1.0})
    slow, quick = put(hosting, "slow", load_seconds=2.5), put(hosting, "quick")
    assert invoke(hosting, quick) == "quick"
    error = refusal(hosting, slow)
    assert error["Error"]["Code"] == "ModelNotReadyException"
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert invoke(hosting, quick) == "quick"
    for _ in range(10):
        try:
            assert invoke(hosting, slow) == "slow"
            break
        except ClientError as again:
            assert again.response["Error"]["Code"] == "ModelNotReadyException"
    else:
        raise AssertionError("it never came")


def test_many_callers_of_a_new_model_load_it_once(deploy):
    hosting = deploy()
    target = put(hosting, "popular", load_seconds=0.5)
    said = []
    threads = [threading.Thread(target=lambda: said.append(invoke(hosting, target)))
               for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(20)
    assert said == ["popular"] * 8


def test_a_container_that_was_replaced_gets_its_models_again(deploy):
    hosting = deploy()
    target = put(hosting, "phoenix")
    assert invoke(hosting, target) == "phoenix"
    assert refusal(hosting, target, b"909,0\n")["Error"]["Code"] == "ModelError"
    for _ in range(100):
        try:
            assert invoke(hosting, target) == "phoenix"
            break
        except ClientError as gone:
            assert gone.response["Error"]["Code"] == "ModelError"
    else:
        raise AssertionError("the model did not come back")


def test_without_a_cache_a_model_is_unloaded_when_nobody_uses_it(deploy):
    """MME-08: ModelCacheSetting Disabled."""
    hosting = deploy(setting="Disabled")
    target = put(hosting, "passing")
    for _ in range(2):
        assert invoke(hosting, target) == "passing"
    (instance,) = [each for each in hosting.router.find(*_place()).variants[0].backends]
    assert not instance.models.holds(target)


def test_a_model_goes_to_the_instance_that_has_it(deploy):
    hosting = deploy(count=2)
    target = put(hosting, "homing")
    for _ in range(6):
        assert invoke(hosting, target) == "homing"
    backends = hosting.router.find(*_place()).variants[0].backends
    assert sum(each.models.holds(target) for each in backends) == 1


def _place():
    from hosting_harness import CALLER

    return CALLER, "ep"
