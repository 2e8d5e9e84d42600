"""From a name to an algorithm class: a built-in name, or "module:Class" of the author's own.

Nothing of an algorithm is imported before it is asked for by name.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from types import ModuleType

from byoa.algorithms.base import Algorithm
from byoa.container.errors import AlgorithmError

_BUILT_IN = {
    "linear-learner": "byoa.algorithms.linear_learner:LinearLearner",
    "mlp-classifier": "byoa.algorithms.mlp_classifier:MLPClassifier",
    "nearest-centroid": "byoa.algorithms.nearest_centroid:NearestCentroid",
}
_EXTRAS = {"torch": "torch", "safetensors": "torch"}  # missing module → extra that brings it


def names() -> list[str]:
    """The built-in algorithms."""
    return sorted(_BUILT_IN)


def find(name: str) -> type[Algorithm]:
    """The class that `name` stands for.

    Raises AlgorithmError when there is none. An error inside the author's module (SyntaxError,
    an import of its own that fails) comes through as it is, with its file and line.
    """
    target = _BUILT_IN.get(name, name)
    module_name, colon, class_name = target.partition(":")
    if not colon:
        raise _unknown(name)
    parts = [class_name, *module_name.split(".")]
    if module_name.endswith(".py") or not all(part.isidentifier() for part in parts):
        raise AlgorithmError(
            "ALGORITHM_NAME_INVALID",
            f"{name!r} does not name a class in a module",
            expected="module:Class, the module as in an import statement",
            remedy=_as_import(module_name, class_name),
        )
    return _class(_import(module_name, name), class_name, name)


def _unknown(name: str) -> AlgorithmError:
    near = difflib.get_close_matches(name, _BUILT_IN, n=1)
    return AlgorithmError(
        "ALGORITHM_UNKNOWN",
        f"there is no algorithm {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
        expected=f"one of {', '.join(names())}, or module:Class of your own",
    )


def _as_import(module_name: str, class_name: str) -> str | None:
    """What to write in place of a file's path."""
    if not module_name.endswith(".py"):
        return None
    directory, file = os.path.split(module_name)
    where = f" with {directory} on PYTHONPATH" if directory else ""
    return f"write {file[:-3]}:{class_name}{where}"


def _import(module_name: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise AlgorithmError(
                "ALGORITHM_MODULE_NOT_FOUND",
                f"there is no module {missing!r} for the algorithm {name!r}",
                expected=f"{missing.replace('.', '/')}.py in one of {_search_path()}",
                remedy="put the file there, or its directory on PYTHONPATH",
            ) from None
        if name in _BUILT_IN and missing.partition(".")[0] in _EXTRAS:
            raise AlgorithmError(
                "ALGORITHM_DEPENDENCY_MISSING",
                f"the algorithm {name!r} needs {missing}, which is not installed",
                remedy=f"pip install 'byoa[{_EXTRAS[missing.partition('.')[0]]}]'",
            ) from error
        raise


def _search_path() -> str:
    """The author's own places on the path: neither Python's nor where packages are installed."""
    places = [
        entry or os.getcwd()
        for entry in sys.path
        if not entry.startswith(sys.base_prefix) and "site-packages" not in entry
    ]
    return ", ".join(dict.fromkeys(filter(os.path.isdir, places)))


def _class(module: ModuleType, class_name: str, name: str) -> type[Algorithm]:
    found = getattr(module, class_name, None)
    if isinstance(found, type) and issubclass(found, Algorithm):
        missing = sorted(getattr(found, "__abstractmethods__", ()))
        if not missing:
            return found
        raise AlgorithmError(
            "ALGORITHM_INCOMPLETE",
            f"{class_name} does not define {', '.join(missing)}",
            where=_place(found),
            expected="an algorithm defines train, load and predict",
        )
    have = sorted(
        key
        for key, each in vars(module).items()
        if isinstance(each, type) and issubclass(each, Algorithm) and not inspect.isabstract(each)
    )
    there = f"{module.__name__} has {', '.join(have)}" if have else f"{module.__name__} has none"
    if found is None:
        raise AlgorithmError(
            "ALGORITHM_CLASS_NOT_FOUND",
            f"{name!r}: module {module.__name__} has no {class_name}",
            where=getattr(module, "__file__", None),
            expected=f"a class that derives from byoa.algorithms.Algorithm; {there}",
        )
    raise AlgorithmError(
        "ALGORITHM_INVALID",
        f"{name!r}: {class_name} is {_what(found)}",
        where=_place(found) if isinstance(found, type) else getattr(module, "__file__", None),
        expected=f"a class that derives from byoa.algorithms.Algorithm; {there}",
    )


def _what(found: object) -> str:
    if isinstance(found, type):
        return "a class that does not derive from byoa.algorithms.Algorithm"
    return f"no class but a {type(found).__name__}"


def _place(cls: type) -> str | None:
    try:
        return f"{inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]}"
    except (OSError, TypeError):
        return None
