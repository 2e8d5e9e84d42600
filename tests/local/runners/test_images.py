"""Image references and registered folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from byoa.container.errors import ByoaError, UnsupportedError
from byoa.local.runners.images import Reference, algorithms_in

ALGORITHM = "from byoa.algorithms import Algorithm\n\nclass {}(Algorithm):\n    pass\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("byoa", Reference("byoa")),
        ("byoa:latest", Reference("byoa", tag="latest")),
        ("team/byoa:1", Reference("team/byoa", tag="1")),
        ("localhost/byoa", Reference("byoa", registry="localhost")),
        ("registry:5000/a/b", Reference("a/b", registry="registry:5000")),
        (
            "111122223333.dkr.ecr.us-west-2.amazonaws.com/byoa@sha256:00",
            Reference(
                "byoa", registry="111122223333.dkr.ecr.us-west-2.amazonaws.com", digest="sha256:00"
            ),
        ),
        (
            "r.io/x:1@sha256:ab",
            Reference("x", registry="r.io", tag="1", digest="sha256:ab"),
        ),
    ],
)
def test_a_reference_is_taken_apart(text: str, expected: Reference) -> None:
    """TRAIN-10."""
    assert Reference.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["byoa", "byoa:1", "x.dkr.ecr.eu-west-1.amazonaws.com/byoa:cpu", "ghcr.io/acme/byoa@sha256:0"],
)
def test_a_repository_called_byoa_is_byoas_own_image(images: Any, text: str) -> None:
    image = images.resolve(text)

    assert image.entrypoint[1:] == ("-m", "byoa.container")
    assert image.folder is None and image.environment == {}


@pytest.mark.parametrize("text", ["byoax", "notbyoa:1", "byoa/other", "python:3.12", ""])
def test_other_names_are_refused(images: Any, text: str) -> None:
    with pytest.raises(UnsupportedError, match="none is so far"):
        images.resolve(text)


def test_the_one_algorithm_of_a_folder_is_found_without_importing_it(
    images: Any, tmp_path: Path
) -> None:
    (tmp_path / "model.py").write_text("raise SystemExit('imported')\n" + ALGORITHM.format("Mine"))
    (tmp_path / "broken.py").write_text("def (")
    image = images.add("mine", tmp_path)

    assert image.algorithm == "model:Mine"
    assert image.environment == {"PYTHONPATH": str(tmp_path), "BYOA_ALGORITHM": "model:Mine"}
    for reference in ("mine", "mine:1", "x.amazonaws.com/mine:2", "r:5000/mine@sha256:0"):
        assert images.resolve(reference) == image


def test_a_name_with_a_tag_stands_for_that_tag_alone(images: Any, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(ALGORITHM.format("A"))
    images.add("team/mine:2", tmp_path)

    assert images.resolve("r.io/team/mine:2").name == "team/mine:2"
    with pytest.raises(UnsupportedError):
        images.resolve("team/mine:3")


@pytest.mark.parametrize(
    ("registered", "reference", "found"),
    [
        (["ridge", "ridge:v2"], "ridge:v2", "ridge:v2"),
        (["ridge", "ridge:v2"], "ridge", "ridge"),
        (["ridge", "ridge:v2"], "r.io/ridge:latest", "ridge"),
        (["ridge", "ridge:v2"], "r.io/ridge:v9", None),
        (["ridge"], "ridge:v9", "ridge"),
        (["ridge:v2"], "ridge", None),
        (["ridge", "ridge:latest"], "ridge:latest", "ridge:latest"),
        (["ridge", "ridge:latest"], "ridge", "ridge"),
        (["ridge:latest"], "ridge", "ridge:latest"),
        (["r.io/ridge:v2", "ridge"], "r.io/ridge:v9", None),
        (["r.io/ridge:v2", "ridge"], "other.io/ridge:v9", "ridge"),
        (["team/byoa:v2"], "team/byoa:v9", None),
    ],
)
def test_a_tag_never_runs_another_tag_s_algorithm(
    images: Any, tmp_path: Path, registered: list[str], reference: str, found: str | None
) -> None:
    """TRAIN-10."""
    (tmp_path / "a.py").write_text(ALGORITHM.format("A"))
    for name in registered:
        images.add(name, tmp_path)

    if found is not None:
        assert images.resolve(reference).name == found
        return
    with pytest.raises(UnsupportedError) as caught:
        images.resolve(reference)
    assert caught.value.code == "IMAGE_TAG_UNKNOWN"
    there = [name for name in registered if Reference.parse(name).tag == "v2" or name == "ridge"]
    assert any(name in str(caught.value.expected) for name in there)


def test_an_unknown_tag_is_answered_with_those_there_are(images: Any, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(ALGORITHM.format("A"))
    for name in ("ridge", "ridge:v2"):
        images.add(name, tmp_path)

    with pytest.raises(UnsupportedError) as caught:
        images.resolve("ridge:v9")
    assert str(caught.value) == (
        "image 'ridge' is not registered with tag 'v9'; expected: one of ridge, ridge:v2;"
        " to do: byoa image add ridge:v9 FOLDER [IMAGE_TAG_UNKNOWN]"
    )


def test_adding_again_replaces_and_removing_forgets(images: Any, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text(ALGORITHM.format(name.title()))
    images.add("mine", tmp_path / "one")
    images.add("mine", tmp_path / "two")

    assert [image.algorithm for image in images.list()] == ["a:Two"]
    assert images.remove("mine") is True
    assert images.remove("mine") is False
    assert images.list() == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from byoa.algorithms import Algorithm as Base\nclass A(Base): ...", ["m:A"]),
        ("from byoa.algorithms import StreamingAlgorithm\nclass A(StreamingAlgorithm): ...",
         ["m:A"]),
        ("from byoa.algorithms.base import Algorithm\nclass A(Algorithm): ...", ["m:A"]),
        ("from byoa import algorithms\nclass A(algorithms.Algorithm): ...", ["m:A"]),
        ("import byoa.algorithms as ba\nclass A(ba.Algorithm): ...", ["m:A"]),
        ("import byoa.algorithms\nclass A(byoa.algorithms.Algorithm): ...", ["m:A"]),
        ("from byoa.algorithms import Algorithm\nclass A(Algorithm): ...\nclass B(A): ...",
         ["m:B"]),
        ("from byoa.algorithms import Algorithm\nclass A(Algorithm): ...\nclass B(Algorithm): ...",
         ["m:A", "m:B"]),
        ("from elsewhere import Algorithm\nclass A(Algorithm): ...", []),
        ("class Algorithm: ...\nclass A(Algorithm): ...", []),
        ("from byoa.algorithms import Hyperparameters\nclass H(Hyperparameters): ...", []),
        ("def f():\n    from byoa.algorithms import Algorithm\n    class A(Algorithm): ...", []),
    ],
)
def test_algorithm_classes_are_recognised(tmp_path: Path, source: str, found: list[str]) -> None:
    (tmp_path / "m.py").write_text(source)

    assert algorithms_in(tmp_path) == found


def test_packages_are_searched_and_tests_and_environments_are_not(tmp_path: Path) -> None:
    for name in ("pkg", "tests", "venv", "not-a-module"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "m.py").write_text(ALGORITHM.format("A"))
    (tmp_path / "pkg" / "__init__.py").write_text(ALGORITHM.format("Init"))
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    (tmp_path / "test_m.py").write_text(ALGORITHM.format("T"))

    assert algorithms_in(tmp_path) == ["pkg:Init", "pkg.m:A"]


def test_several_or_no_algorithms_need_the_flag(images: Any, tmp_path: Path) -> None:
    with pytest.raises(ByoaError, match="--algorithm module:Class"):
        images.add("mine", tmp_path)
    (tmp_path / "a.py").write_text(ALGORITHM.format("A"))
    (tmp_path / "b.py").write_text(ALGORITHM.format("B"))
    with pytest.raises(ByoaError, match="2 algorithms: a:A, b:B.*--algorithm a:A"):
        images.add("mine", tmp_path)

    assert images.add("mine", tmp_path, "b:B").algorithm == "b:B"


def test_an_error_of_syntax_in_the_only_file_is_named(images: Any, tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "mine.py").write_text(ALGORITHM.format("A") + "def train(:\n    pass\n")

    with pytest.raises(ByoaError) as caught:
        images.add("mine", tmp_path)
    assert (caught.value.code, caught.value.where) == ("IMAGE_SYNTAX", "pkg/mine.py:5")
    assert caught.value.message == "invalid syntax: def train(:"


def test_a_file_that_is_no_text_is_named(images: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_bytes(b"x = 1\0")

    with pytest.raises(ByoaError, match=r"^mine\.py.*null bytes") as caught:
        images.add("mine", tmp_path)
    assert caught.value.code == "IMAGE_SYNTAX"


@pytest.mark.parametrize("algorithm", ["b", "b:", ":B", "b:B:C", "b;x:B", "../b:B"])
def test_an_algorithm_is_module_colon_class(
    images: Any, tmp_path: Path, algorithm: str
) -> None:
    with pytest.raises(ByoaError, match="names no algorithm"):
        images.add("mine", tmp_path, algorithm)


def test_a_module_that_the_folder_lacks_is_refused(images: Any, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(ALGORITHM.format("A"))

    with pytest.raises(ByoaError, match="no module 'b'.*these algorithms: a:A"):
        images.add("mine", tmp_path, "b:B")


@pytest.mark.parametrize("name", ["", "Upper", "a b", "../x", "byoa", "byoa:2", "a:", "-a"])
def test_names_that_no_image_has_are_refused(images: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "a.py").write_text(ALGORITHM.format("A"))

    with pytest.raises(ByoaError) as caught:
        images.add(name, tmp_path)
    assert caught.value.code == "IMAGE_NAME"


def test_a_folder_must_exist_and_go_on_existing(images: Any, tmp_path: Path) -> None:
    with pytest.raises(ByoaError, match="is no folder"):
        images.add("mine", tmp_path / "absent")
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "a.py").write_text(ALGORITHM.format("A"))
    images.add("mine", folder)
    (folder / "a.py").unlink()
    folder.rmdir()

    with pytest.raises(UnsupportedError, match="is gone"):
        images.resolve("mine")
