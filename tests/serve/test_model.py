"""Loading a model directory: what can be wrong with it, said with what it holds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from byoa.container.errors import AlgorithmError, HyperparameterError
from byoa.serve.loading import load
from byoa.serve.model import check_predictions, try_out


def test_a_model_is_loaded_by_its_manifest_and_tried_out(model_directory, scripted):
    loaded = load(model_directory())
    assert (loaded.name, loaded.features) == (scripted, 4)
    try_out(loaded)
    assert loaded.predict(np.ones((2, 4), dtype=np.float32)).tolist() == [10, 10]


def test_an_empty_model_directory_is_told(tmp_path):
    """HOST-41, pain 1."""
    with pytest.raises(AlgorithmError, match="is empty") as caught:
        load(tmp_path)
    assert caught.value.code == "MODEL_MISSING"


def test_a_model_directory_that_is_not_there_is_told(tmp_path):
    with pytest.raises(AlgorithmError, match="does not exist"):
        load(tmp_path / "model")


def test_a_directory_without_a_manifest_is_listed(tmp_path):
    """Pain 16: what was found, and what was expected."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "helper.py").write_text("pass")
    (tmp_path / "weights.bin").write_bytes(b"123")
    with pytest.raises(AlgorithmError) as caught:
        load(tmp_path)
    assert "code/helper.py (4 bytes), weights.bin (3 bytes)" in caught.value.message
    assert "byoa.json" in caught.value.expected


def test_a_long_listing_is_cut(tmp_path):
    for number in range(100):
        (tmp_path / f"part-{number:03}").touch()
    with pytest.raises(AlgorithmError) as caught:
        load(tmp_path)
    assert "part-029" in caught.value.message and "part-030" not in caught.value.message
    assert caught.value.message.endswith("…")


def test_a_wrapper_directory_is_recognised_even_where_the_algorithm_is_given(
    model_directory, tmp_path, scripted
):
    """HOST-42, TRAP-21."""
    model_directory("outer/model")
    with pytest.raises(AlgorithmError, match="holds model/byoa.json") as caught:
        load(tmp_path / "outer", algorithm=scripted)
    assert caught.value.code == "MODEL_WRAPPED"


def test_an_algorithm_without_artifacts_needs_no_manifest(tmp_path, scripted):
    np.save(tmp_path / "weights.npy", np.ones(3))
    loaded = load(tmp_path, algorithm=scripted)
    assert (loaded.features, loaded.sample) == (None, None)
    try_out(loaded)


def test_a_missing_file_of_the_model_is_told_with_the_listing(model_directory, scripted):
    model = model_directory()
    (model / "weights.npy").rename(model / "weights.npz")
    with pytest.raises(AlgorithmError) as caught:
        load(model)
    assert caught.value.code == "MODEL_FILE_MISSING"
    assert "did not find" in caught.value.message and "weights.npz" in caught.value.message


def test_hyperparameters_that_do_not_fit_the_algorithm_are_told(model_directory, scripted):
    with pytest.raises(HyperparameterError, match="depth"):
        load(model_directory(depth=3))


def test_an_unknown_algorithm_is_told(model_directory):
    model = model_directory()
    manifest = json.loads((model / "byoa.json").read_text())
    (model / "byoa.json").write_text(json.dumps({**manifest, "algorithm": "nearest-centroit"}))
    with pytest.raises(AlgorithmError, match="nearest-centroid"):
        load(model)


def test_a_model_that_does_not_predict_its_sample_is_not_ready(model_directory, scripted):
    """HOST-25."""
    model = model_directory()
    manifest = json.loads((model / "byoa.json").read_text())
    manifest["input"]["sample"] = [[903, 0, 0, 0]]
    (model / "byoa.json").write_text(json.dumps(manifest))
    with pytest.raises(AlgorithmError, match="2 predictions for 1 record"):
        try_out(load(model))


@pytest.mark.parametrize(
    "predictions",
    [np.zeros(3), np.zeros((3, 2)), [1, "two", None], {"a": np.zeros(3), "b": [1, 2, 3]}],
)
def test_one_prediction_a_record_is_right(predictions):
    check_predictions(predictions, 3)


@pytest.mark.parametrize(
    "predictions",
    [np.zeros(4), np.zeros(()), [1], None, 3.0, "abc", {}, {"a": [1, 2, 3], "b": [1]}],
)
def test_anything_else_is_told(predictions):
    with pytest.raises(AlgorithmError):
        check_predictions(predictions, 3)
