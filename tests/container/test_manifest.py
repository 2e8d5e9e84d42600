"""byoa.json: what training leaves for serving."""

import json

import pytest

from byoa.container.errors import AlgorithmError
from byoa.container.manifest import Manifest, read_manifest, write_manifest


def test_a_manifest_survives_the_directory(tmp_path):
    manifest = Manifest("mlp-classifier", {"epochs": 3, "name": "é"}, 2, [[0.5, 1.0]])
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert [path.name for path in tmp_path.iterdir()] == ["byoa.json"]
    assert json.loads((tmp_path / "byoa.json").read_text()) == {
        "byoa": 1, "algorithm": "mlp-classifier", "hyperparameters": {"epochs": 3, "name": "é"},
        "input": {"features": 2, "sample": [[0.5, 1.0]]},
    }


def test_what_is_not_known_of_the_input_is_left_out(tmp_path):
    write_manifest(tmp_path, Manifest("a:B"))
    assert json.loads((tmp_path / "byoa.json").read_text())["input"] == {}
    assert read_manifest(tmp_path) == Manifest("a:B")


def test_an_absent_manifest_is_named(tmp_path):
    with pytest.raises(AlgorithmError, match="MODEL_MANIFEST_MISSING"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", [
    "{", "[]", "{}", '{"byoa": 1, "algorithm": 3}', '{"algorithm": "x"}',
    '{"byoa": 2, "algorithm": "x"}', '{"byoa": "1", "algorithm": "x"}',
])
def test_a_manifest_that_is_not_ours_is_refused(tmp_path, text):
    (tmp_path / "byoa.json").write_text(text)
    with pytest.raises(AlgorithmError, match="MODEL_MANIFEST_INVALID"):
        read_manifest(tmp_path)


def test_unknown_keys_are_passed_over(tmp_path):
    (tmp_path / "byoa.json").write_text(
        '{"byoa": 1, "algorithm": "x", "input": null, "later": {}}'
    )
    assert read_manifest(tmp_path) == Manifest("x")
