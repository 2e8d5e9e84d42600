"""Which image a reference names: the engine's own, a registry's in ECR's stead, or none."""

from __future__ import annotations

import contextlib
import io
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from byoa.container.errors import ByoaError, UnsupportedError
from byoa.local.demo.registry import Registry, push
from byoa.local.runners.docker_images import DockerImages
from byoa.local.runners.docker_machine import Machine

pytestmark = pytest.mark.docker

ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com"


@pytest.fixture
def names(engine: Any) -> Iterator[str]:
    """A repository of the test's own; all that has its name in the engine goes at the end."""
    name = f"byoa-test-{uuid.uuid4().hex[:8]}"
    yield name
    for each in engine.images.list():
        for tag in (*each.tags, *(each.attrs.get("RepoDigests") or ())):
            if name in tag:
                with contextlib.suppress(docker.errors.ImageNotFound):  # it went with another name
                    engine.api.remove_image(tag)


@pytest.fixture
def image(engine: Any, base_image: str, names: str) -> str:
    """A name of the test's own for the base image."""
    engine.images.get(base_image).tag(names, "1")
    return f"{names}:1"


@pytest.fixture
def small(engine: Any, names: str) -> Callable[[], str]:
    """Makes an image of one small file under the same name each time; its id."""

    def make() -> str:
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            entry = tarfile.TarInfo(uuid.uuid4().hex)
            archive.addfile(entry)
        engine.api.import_image_from_data(data.getvalue(), repository=names, tag="1")
        return str(engine.images.get(f"{names}:1").id)

    return make


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with Registry(tmp_path / "registry") as running:
        yield running.address


def machine(engine: Any) -> Machine:
    return Machine.of(engine.info(), engine.version())


def test_an_image_is_found_by_tag_id_digest_and_ecr_name(
    docker_runner: Any, engine: Any, image: str, spec: Any, run: Any
) -> None:
    """TRAIN-10."""
    repository, _, tag = image.partition(":")
    engine.images.get(image).tag(f"{ECR}/team/{repository}", tag)
    for reference in (image, f"{ECR}/team/{image}", engine.images.get(image).id):
        docker_runner.check(reference)
        assert run(docker_runner, spec("print('ran')", image=reference)).code == 0
    with pytest.raises(UnsupportedError):
        docker_runner.check(f"{repository}:2")
    with pytest.raises(UnsupportedError):
        docker_runner.check(f"{ECR}/{image}")


def test_an_unknown_image_is_refused_with_the_nearest_and_the_command(
    docker_runner: Any, image: str
) -> None:
    """Nothing is pulled from the internet without being asked for."""
    with pytest.raises(UnsupportedError) as caught:
        docker_runner.check(f"registry.example.com:5000/{image.replace(':1', ':9')}")
    assert caught.value.code == "IMAGE_UNKNOWN"
    assert f"the nearest: {image}" in str(caught.value.expected)
    wanted = "registry.example.com:5000/" + image.replace(":1", ":9")
    assert caught.value.remedy == f"docker tag {image} {wanted}, if that is the one you mean"
    for name, cure in (
        ("registry.example.com:5000/qqq/zzz:1", "docker pull registry.example.com:5000/qqq/zzz:1"),
        (f"{ECR}/qqq/zzz:1", "after a login to your own account's registry"),
    ):
        with pytest.raises(UnsupportedError) as caught:
            docker_runner.check(name)
        assert cure in str(caught.value.remedy)
        assert "nearest" not in str(caught.value.expected)
    with pytest.raises(UnsupportedError) as caught:
        docker_runner.check(f"{ECR}/byoa:no-such-tag")
    assert caught.value.remedy == "byoa build"
    for broken in ("UPPER CASE", "a:b:c", "@", "x" * 300):
        with pytest.raises(UnsupportedError):
            docker_runner.check(broken)


def test_an_image_of_the_registry_is_pulled_under_the_name_that_was_asked_for(
    engine: Any, names: str, small: Callable[[], str], registry: str
) -> None:
    identity = small()
    digest = push(engine, f"{names}:1", registry)
    images = DockerImages(engine.api, machine(engine), registry)
    uri = f"{ECR}/{names}:1"
    engine.api.remove_image(f"{names}:1")

    images.check(uri)  # looked at, and not pulled: an answer does not wait for gigabytes
    assert not engine.images.list(uri)
    assert images.fetch(uri).id == identity
    assert engine.images.get(uri).id == identity
    engine.api.remove_image(uri)
    by_digest = f"{ECR}/{names}@{digest}"
    for _ in range(2):
        images.check(by_digest)
        assert images.fetch(by_digest).id == identity

    with pytest.raises(UnsupportedError, match=f"the registry {registry} have no image"):
        images.check(f"{ECR}/{names}:2")
    with pytest.raises(UnsupportedError):
        images.fetch(f"{ECR}/nothing/of/this:1")


def test_a_name_that_was_pushed_again_is_pulled_again(
    engine: Any, names: str, small: Callable[[], str], registry: str
) -> None:
    images = DockerImages(engine.api, machine(engine), registry)
    uri = f"{ECR}/{names}:1"
    for _ in range(2):
        identity = small()
        push(engine, f"{names}:1", registry)
        assert images.fetch(uri).id == identity
        assert engine.images.get(uri).id == identity


def test_a_registry_that_does_not_answer_is_named(
    make_docker_runner: Any, image: str
) -> None:
    runner = make_docker_runner(registry="127.0.0.1:9")
    runner.check(image)  # the engine's own need none
    with pytest.raises(ByoaError) as caught:
        runner.check(f"{ECR}/{image}")
    assert caught.value.code == "REGISTRY_UNREACHABLE"
    assert "BYOA_REGISTRY" in str(caught.value.remedy)


def test_what_was_pulled_runs_on_while_its_registry_is_down(
    engine: Any, names: str, small: Callable[[], str], tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    uri = f"{ECR}/{names}:1"
    with Registry(tmp_path / "registry") as registry:
        images = DockerImages(engine.api, machine(engine), registry.address)
        identity = small()
        push(engine, f"{names}:1", registry.address)
        assert images.fetch(uri).id == identity
    assert images.fetch(uri).id == identity
    assert "is taken as it was pulled before" in caplog.text


class Foreign(Machine):
    """This machine, were it of another architecture."""

    emulating = False

    def emulates(self, architecture: str) -> bool:
        return self.emulating


def test_an_image_of_another_architecture_is_told_at_submit(
    engine: Any, image: str, caplog: pytest.LogCaptureFixture
) -> None:
    """TRAIN-13, TRAP-04: refused where it cannot run, and a warning where it is emulated."""
    own = machine(engine)
    other = "arm64" if own.architecture == "amd64" else "amd64"
    foreign = Foreign(**{**vars(own), "architecture": other})
    with pytest.raises(UnsupportedError) as caught:
        DockerImages(engine.api, foreign).check(image)
    assert caught.value.code == "IMAGE_ARCHITECTURE"
    assert f"--platform linux/{other}" in str(caught.value.remedy)

    Foreign.emulating = True
    try:
        images = DockerImages(engine.api, foreign)
        for _ in range(2):
            images.check(image)
    finally:
        Foreign.emulating = False
    assert caplog.text.count("is emulated") == 1
