"""Who may import whom: the table of the architecture, and the standard-library start path."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STANDARD = set(sys.stdlib_module_names)

# For each folder: byoa's own modules and the third-party packages that its files may import.
ALLOWED: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "container": (("byoa.container",), set()),
    "algorithms": (("byoa.container", "byoa.algorithms"), {"numpy", "torch", "safetensors"}),
    "serve": (
        ("byoa.container", "byoa.algorithms", "byoa.serve"),
        {
            "flask", "werkzeug", "gunicorn", "numpy", "orjson", "uvicorn", "uvloop", "httptools",
            "websockets",
        },
    ),
    "local": (
        (
            "byoa.container.contract",
            "byoa.container.errors",
            "byoa.container.supervisor",
            "byoa.local",
        ),
        {
            "boto3", "botocore", "moto", "flask", "werkzeug", "cryptography", "regex", "certifi",
            "docker",
        },
    ),
}
# Narrower than the folder's rule, and the reason.
EXTRA: dict[str, set[str]] = {
    "container/formats": {"numpy"},  # records are arrays
    "container/formats/json_text.py": {"orjson"},
    "container/formats/number_text.py": {"simdjson"},
    "container/formats/parquet.py": {"pyarrow"},
    "container/formats/image.py": {"PIL"},
    "container/batching.py": {"numpy"},
    "container/channels.py": {"numpy"},
    "container/script_source.py": {"boto3", "botocore"},  # code that is in S3
    "container/script_intermediate.py": {"boto3", "botocore"},  # copies to S3
    # CodeArtifact's index
    "container/script_index.py": {"boto3", "botocore"},
    "container/labels.py": {"numpy"},
    "serve/handler_defaults.py": {"torch"},  # a TorchScript file
    "container/labelled_images.py": {"numpy"},
    "container/records.py": {"numpy"},
    "local/storage/checksums.py": {"numpy"},  # CRCs of gigabytes in bounded time
    "local/runners/docker_errors.py": {"urllib3"},  # the SDK lets its errors through
    "local/demo": {"numpy", "sklearn", "matplotlib"},  # the tour's own data and pictures
}


# Programs of the image's build, which the package does not carry: they import one another.
BUILD = ROOT / "container" / "image"


def _modules() -> Iterator[Path]:
    for folder in ALLOWED:
        yield from sorted(
            path for path in (ROOT / folder).rglob("*.py") if path.parent != BUILD
        )


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of each imported module, at the top or inside a function."""
    package = "byoa." + ".".join(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(package.split(".")[: 1 - node.level or None] + [base]).strip(".")
            # `from byoa.container import contract` imports byoa.container.contract.
            yield from (
                (node.lineno, f"{base}.{alias.name}" if base.startswith("byoa") else base)
                for alias in node.names
            )


@pytest.mark.parametrize("path", list(_modules()), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_folder_may(path: Path) -> None:
    own, third = ALLOWED[path.relative_to(ROOT).parts[0]]
    relative = path.relative_to(ROOT).as_posix()
    third = third.union(*(names for place, names in EXTRA.items() if relative.startswith(place)))
    wrong = []
    for line, name in _imports(path):
        if name == "byoa" or name.startswith("byoa."):
            allowed = any(name == each or name.startswith(each + ".") for each in own)
        else:
            top = name.split(".")[0]
            allowed = top in STANDARD or top in third
        if not allowed:
            wrong.append(f"{relative}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


OPTIONAL = {"numpy", "orjson", "simdjson", "pyarrow", "PIL"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "container" / "formats").glob("*.py")), ids=lambda path: path.name
)
def test_a_format_imports_its_library_when_it_is_used(path: Path) -> None:
    """The registry names every format, and costs the standard library only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {
        name.split(".")[0]
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom)
                     else [alias.name for alias in node.names])
    }
    assert not top & OPTIONAL


def test_every_folder_with_modules_is_a_listed_package() -> None:
    """A folder that pyproject does not list would be missing from the installed copy."""
    listed = (ROOT / "pyproject.toml").read_text()
    folders = {path.parent.relative_to(ROOT) for path in _modules()}
    missing = [
        name for name in (f"byoa.{'.'.join(folder.parts)}" for folder in sorted(folders))
        if f'"{name}"' not in listed
    ]
    assert not missing, f"add to [tool.setuptools] packages: {missing}"


def test_no_module_has_grown_past_its_noun() -> None:
    """House style: a module is one noun; past 500 lines it has become two."""
    long = {
        str(path.relative_to(ROOT)): count
        for path in _modules()
        if (count := len(path.read_text().splitlines())) > 500
    }
    assert not long
