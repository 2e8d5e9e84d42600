"""Images that the checker is tested with: a good one, and broken ones made from it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from byoa.local.check.catalogue import all_checks
from byoa.local.check.checks import CHECKS
from byoa.local.check.runs import Result, run_checks
from byoa.local.check.trial import Samples, Trial, Waits

BROKEN = Path(__file__).parent / "broken"
QUICK = Waits(training_seconds=60, training_stop_seconds=15, hosting_stop_seconds=15,
              startup_seconds=30, invocation_seconds=30)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs an engine."""
    for item in items:
        if Path(item.fspath).is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.docker)


@pytest.fixture(scope="session")
def build_image(build_image: Callable[..., str], engine: Any) -> Callable[..., str]:
    """As for all tests; what config.json beside a Dockerfile says replaces members of the image's
    configuration."""

    def build(folder: Path, dockerfile: str = "Dockerfile", **arguments: str) -> str:
        tag = build_image(folder, dockerfile, **arguments)
        if folder.joinpath("config.json").exists():
            _configure(engine, tag, json.loads(folder.joinpath("config.json").read_text()))
        return tag

    return build


def _configure(engine: Any, tag: str, members: dict[str, Any]) -> None:
    """Save the image, change its configuration, and load it again under the same name."""
    saved, changed = io.BytesIO(b"".join(engine.api.get_image(tag))), io.BytesIO()
    with tarfile.open(fileobj=saved) as before, tarfile.open(fileobj=changed, mode="w") as now:
        manifest = json.load(before.extractfile("manifest.json"))
        for member in before:
            content = before.extractfile(member) if member.isreg() else None
            if member.name == manifest[0]["Config"]:
                data = json.dumps(json.load(content) | members).encode()
                member.size, content = len(data), io.BytesIO(data)
            now.addfile(member, content)
    engine.api.remove_image(tag, force=True)
    engine.api.load_image(changed.getvalue())


@pytest.fixture(scope="session")
def good_image(build_image: Callable[..., str]) -> str:
    return build_image(BROKEN / "good")


@pytest.fixture
def check_samples(tmp_path: Path) -> Samples:
    """What the good image trains on and answers: records of three numbers."""
    train = tmp_path / "samples" / "train"
    train.mkdir(parents=True)
    train.joinpath("part-0.csv").write_text("1,2,3\n4,5,6\n")
    return Samples(
        channels={"train": train}, hyperparameters={"epochs": "3"},
        request=b"1,2,3\n4,5,6\n", content_type="text/csv", accept="text/csv",
    )


@pytest.fixture
def check_image(check_samples: Samples) -> Callable[..., list[Result]]:
    """Checks an image, by default with the whole catalogue and quick waits."""

    def run(
        image: str, *, samples: Samples | None = None, waits: Waits = QUICK,
        only: Sequence[str] = (), **more: Any,
    ) -> list[Result]:
        with Trial.of_image(image, samples or check_samples, waits) as trial:
            return run_checks(trial, all_checks(), only=only, **more)

    return run


@pytest.fixture
def check_broken(
    build_image: Callable[..., str], good_image: str, check_image: Callable[..., list[Result]]
) -> Callable[..., Result]:
    """Builds broken/<id>/Dockerfile (its build argument GOOD is the good image), runs the checks of
    the fault's group and those of the image, asserts that the planted fault is the one failure, and
    gives its result."""

    def run(id: str, *, only: Sequence[str] = (), **options: Any) -> Result:
        all_checks()
        image = build_image(BROKEN / id, GOOD=good_image)
        results = check_image(image, only=only or ("image", CHECKS[id].group), **options)
        failures = {each.check.id: each.verdict for each in results
                    if each.verdict.outcome == "fail"}
        assert set(failures) == {id}, failures
        return next(each for each in results if each.check.id == id)

    return run
