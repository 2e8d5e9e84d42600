"""From a name to an algorithm, and an error that helps for every way it can go wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from byoa.algorithms import Algorithm
from byoa.algorithms.registry import find, names
from byoa.container.errors import AlgorithmError

GOOD = """
from byoa.algorithms import Algorithm

class Mine(Algorithm):
    def train(self, run): ...
    def load(self, model_dir, device): ...
    def predict(self, model, records): ...

class Half(Algorithm):
    def train(self, run): ...

class Other: ...

def function(): ...
"""


def refused(name: str) -> AlgorithmError:
    with pytest.raises(AlgorithmError) as caught:
        find(name)
    return caught.value


@pytest.mark.parametrize("name", names())
def test_every_built_in_algorithm_is_found_and_documents_its_hyperparameters(name: str) -> None:
    found = find(name)
    assert issubclass(found, Algorithm)
    assert found.Hyperparameters.markdown().count("\n") > 2
    if not any(field.required for field in found.Hyperparameters.fields().values()):
        assert found(found.Hyperparameters()).hyperparameters == found.Hyperparameters.parse({})


def test_an_authors_class_is_found_by_module_and_name(module: Callable[[str, str], str]) -> None:
    name = module("my_algorithm", GOOD)
    assert find(f"{name}:Mine").__name__ == "Mine"


def test_a_class_in_a_package_is_found(module: Callable[[str, str], str], tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    module("package/__init__", "")
    module("package/part", GOOD)
    assert find("package.part:Mine").__name__ == "Mine"


def test_an_unknown_name_suggests_the_nearest() -> None:
    error = refused("mpl-clasifier")
    assert error.code == "ALGORITHM_UNKNOWN"
    assert "did you mean 'mlp-classifier'?" in error.message
    assert error.expected == (
        "one of linear-learner, mlp-classifier, nearest-centroid, or module:Class of your own"
    )
    assert "did you mean" not in refused("xyz").message


def test_a_missing_module_says_where_it_was_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    error = refused("absent.part:Mine")
    assert error.code == "ALGORITHM_MODULE_NOT_FOUND"
    assert error.message == "there is no module 'absent' for the algorithm 'absent.part:Mine'"
    assert str(tmp_path) in str(error.expected)
    assert "site-packages" not in str(error.expected)


def test_a_missing_class_lists_the_algorithms_of_the_module(
    module: Callable[[str, str], str],
) -> None:
    error = refused(f"{module('misspelt', GOOD)}:Mien")
    assert error.code == "ALGORITHM_CLASS_NOT_FOUND"
    assert error.expected == (
        "a class that derives from byoa.algorithms.Algorithm; misspelt has Mine"
    )


@pytest.mark.parametrize(
    ("attribute", "what"),
    [("Other", "a class that does not derive"), ("function", "no class but a function")],
)
def test_what_is_no_algorithm_is_named(
    module: Callable[[str, str], str], attribute: str, what: str
) -> None:
    error = refused(f"{module('mixed', GOOD)}:{attribute}")
    assert error.code == "ALGORITHM_INVALID"
    assert what in error.message


def test_an_algorithm_without_all_methods_names_those_missing(
    module: Callable[[str, str], str],
) -> None:
    error = refused(f"{module('partial', GOOD)}:Half")
    assert error.code == "ALGORITHM_INCOMPLETE"
    assert error.message == "Half does not define load, predict"
    assert str(error.where).endswith("partial.py:9")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("algo.py:Mine", "write algo:Mine"),
        ("/code/algo.py:Mine", "write algo:Mine with /code on PYTHONPATH"),
        ("algo:", None),
        (":Mine", None),
        ("a-b:Mine", None),
        (".relative:Mine", None),
    ],
)
def test_a_malformed_name_is_refused(name: str, remedy: str | None) -> None:
    error = refused(name)
    assert error.code == "ALGORITHM_NAME_INVALID"
    assert error.remedy == remedy


def test_an_error_inside_the_authors_module_comes_through(
    module: Callable[[str, str], str],
) -> None:
    with pytest.raises(SyntaxError) as caught:
        find(f"{module('broken', 'def train(:')}:Mine")
    assert str(caught.value.filename).endswith("broken.py")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        find(f"{module('needy', 'import no_such_library')}:Mine")


def test_a_built_in_without_its_library_says_what_to_install() -> None:
    program = """
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
from byoa.algorithms.registry import find
try:
    find("mlp-classifier")
except Exception as error:
    print(error.code, error.remedy)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "ALGORITHM_DEPENDENCY_MISSING pip install 'byoa[torch]'\n"
