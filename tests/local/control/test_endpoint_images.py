"""Endpoints of byoa's own images: what their containers say is what the endpoint says."""

import subprocess
import sys

import pytest
from hosting_harness import wait_until

SENTENCE = (
    "The primary container for production variant AllTraffic did not pass the ping health check."
    " Please check CloudWatch logs for this endpoint. Seen: /ping answered 503: "
)
ALGORITHM = '''
import sys
from byoa.algorithms import Algorithm

class Mine(Algorithm):
    def train(self, run):
        raise AssertionError("not called when serving")

    def load(self, model_dir, device):
        {load}

    def predict(self, model, records):
        return records[:, 0]
'''


@pytest.fixture
def folder(tmp_path):
    def write(load):
        folder = tmp_path / "mine"
        folder.mkdir(exist_ok=True)
        (folder / "mine.py").write_text(ALGORITHM.format(load=load))
        return folder

    return write


def create(hosting, image):
    container = {"Image": image, "Environment": {"BYOA_WORKERS": "2"}}
    hosting.sm.create_model(ModelName="m", PrimaryContainer=container)
    hosting.create_config("c", AllTraffic="m")
    hosting.sm.create_endpoint(EndpointName="ep", EndpointConfigName="c")
    return hosting.settled()


def image_command(hosting, environment, *argv):
    return subprocess.run(
        [sys.executable, "-m", "byoa.local.cli", "image", *argv, "--home", str(hosting.home)],
        env=environment, text=True, capture_output=True, timeout=60,
    )


@pytest.fixture
def image_of(runner_kind, hosting, request):
    """A folder with the algorithm as an image of the runner."""
    def make(folder):
        if runner_kind == "docker":
            return request.getfixturevalue("build_own_image")(folder, "mine:Mine")
        hosting.runner._images.add("mine", folder)
        return "mine:latest"

    return make


@pytest.mark.parametrize(
    ("load", "words"),
    [('raise ValueError("cannot load this")', "ValueError: cannot load this"),
     ("sys.exit(9)", "SystemExit: 9")],
)
@pytest.mark.both_runners
def test_a_load_that_fails_is_the_first_thing_that_the_endpoint_tells(
    hosting, image_of, folder, load, words
):
    """HOST-23, pains 1: with the line, and no server's traceback."""
    described = create(hosting, image_of(folder(load)))
    assert described["EndpointStatus"] == "Failed"
    reason = described["FailureReason"]
    assert reason.startswith(f"{SENTENCE}{words} (")
    assert "mine.py:10 in load) [MODEL_LOAD_FAILED]. Log: " in reason
    assert "gunicorn" not in reason
    assert len(reason) <= 1024
    (log,) = (hosting.home / "logs").rglob("Endpoints/ep/*/*")
    wait_until(lambda: not list(hosting.home.glob("endpoints/*/*/ep/*")))
    text = log.read_text()
    assert text.count("the model did not load") == 1  # one start
    assert "HaltServer" not in text


@pytest.mark.both_runners
def test_an_endpoint_without_model_data_says_that_its_model_is_missing(
    hosting, runner_kind, request
):
    """HOST-23, HOST-41."""
    described = create(
        hosting, request.getfixturevalue("torch_free_image") if runner_kind == "docker"
        else "byoa:latest",
    )
    assert described["EndpointStatus"] == "Failed"
    assert described["FailureReason"].startswith(f"{SENTENCE}no model to serve: ")
    assert "to do: set ModelDataUrl" in described["FailureReason"]
    assert "[MODEL_MISSING]. Log: " in described["FailureReason"]


# Folders that are registered as images are of processes alone.


def test_an_image_that_an_endpoint_uses_is_removed_only_by_force(
    start_hosting, folder, clean_environment
):
    """And the endpoint, once it has to start again, says what it lacks."""
    hosting = start_hosting()
    hosting.runner._images.add("mine", folder("return None"))
    assert create(hosting, "mine:latest")["EndpointStatus"] == "InService"
    refused = image_command(hosting, clean_environment, "remove", "mine")
    assert refused.returncode == 1
    assert "used by endpoint ep (us-west-2)" in refused.stderr
    assert "[IMAGE_IN_USE]" in refused.stderr
    assert [each.name for each in hosting.runner._images.list()] == ["mine"]
    forced = image_command(hosting, clean_environment, "remove", "mine", "--force")
    assert forced.returncode == 0, forced.stderr
    assert "ep (us-west-2)" in forced.stdout
    assert hosting.runner._images.list() == []
    hosting.close()
    again = start_hosting(hosting.home)
    described = again.settled()
    assert described["EndpointStatus"] == "Failed"
    assert described["FailureReason"].startswith(
        "Production variant AllTraffic could not be started: image 'mine:latest' does not run as a"
        " process on this machine"
    )
    assert "byoa image add mine FOLDER [IMAGE_UNKNOWN]" in described["FailureReason"]


def test_an_image_that_only_ended_endpoints_used_is_removed(hosting, folder, clean_environment):
    hosting.runner._images.add("mine", folder("sys.exit(9)"))
    assert create(hosting, "mine")["EndpointStatus"] == "Failed"
    removed = image_command(hosting, clean_environment, "remove", "mine")
    assert removed.returncode == 0, removed.stderr
    unknown = image_command(hosting, clean_environment, "remove", "mine")
    assert unknown.returncode == 1
    assert "[NAME_UNKNOWN]" in unknown.stderr
