"""The programs that build the image: what is locked, which torch is taken, what is removed."""

from __future__ import annotations

import importlib
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a program of image/ as the builder does, with the folder on the path."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(ROOT / "container" / "image"))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in {"install", "install_torch", "requirements", "strip"} - before:
        sys.modules.pop(name, None)


def test_everything_that_the_image_requires_is_locked(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    monkeypatch.chdir(ROOT)
    program("requirements").main("fast", str(tmp_path))
    locked = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    lines = [line for name in ("dependencies", "torch")
             for line in (tmp_path / f"{name}.txt").read_text().splitlines()]
    assert any(line.startswith("uvicorn") for line in lines)
    for line in lines:
        requirement = Requirement(line)
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), line


@pytest.mark.parametrize(
    ("variant", "version", "cuda", "said"),
    [
        ("cpu", "2.13.0+cpu", None, ""),
        ("cpu", "2.13.0", None, ""),
        ("cpu", "2.13.0+cu126", "12.6", "TORCH_VARIANT=cpu, but torch 2.13.0+cu126 is a build for"
                                        " CUDA 12.6: give TORCH_INDEX="),
        ("cu126", "2.13.0+cu126", "12.6", ""),
        ("cu", "2.13.0+cu126", "12.6", ""),
        ("cu12", "2.13.0+cu126", "12.6", "TORCH_VARIANT=cu12, but"),
        ("cu130", "2.13.0+cpu", None, "is a build for the CPU only: give TORCH_INDEX="),
    ],
)
def test_a_torch_of_another_build_is_refused(
    program: Any, variant: str, version: str, cuda: str | None, said: str
) -> None:
    wrong = program("install_torch").mismatch(variant, version, cuda)
    assert said in wrong
    assert bool(wrong) is bool(said)


def _wheel(folder: Path, name: str, requires: str = "") -> None:
    info = f"{name}-2.13.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-2.13.0-py3-none-any.whl", "w") as wheel:
        more = f"Requires-Dist: {requires}\n" if requires else ""
        wheel.writestr(f"{info}/METADATA",
                       f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.13.0\n{more}")
        wheel.writestr(f"{info}/WHEEL",
                       "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_cudas_libraries_are_refused_for_the_cpu_before_they_are_fetched(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _wheel(tmp_path, "torchlike", "nvidia-cublas")
    _wheel(tmp_path, "nvidia_cublas")
    torch = program("install_torch")
    monkeypatch.setattr(program("install"), "WHEELS", tmp_path)
    monkeypatch.setattr(torch, "PYTHON", sys.executable)
    with pytest.raises(SystemExit, match="brings 1 packages such as nvidia-cublas: give TORCH"):
        torch.check_plan(["torchlike"])


def test_an_incomplete_wheels_folder_says_how_to_make_it_again(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _wheel(tmp_path, "torchlike")
    install = program("install")
    monkeypatch.setattr(install, "WHEELS", tmp_path)
    with pytest.raises(SystemExit, match="wheels/ lacks something .* `make wheels`"):
        install.pip_install(sys.executable, "--dry-run", "--quiet", "notthere")


def test_tests_and_headers_go_and_what_a_package_imports_stays(
    program: Any, tmp_path: Path
) -> None:
    site = tmp_path / "opt" / "byoa" / "lib" / "python3.11" / "site-packages"
    kept = ("numpy/testing/__init__.py", "torch/__init__.py", "torch/bin/torch_shm_manager",
            "torch/testing/a.py", "byoa/container/__init__.py", "torch/lib/libtorch.so")
    gone = ("numpy/tests/test_a.py", "torch/include/a.h", "torch/bin/protoc", "scipy/a/tests/b.py",
            "torch/test/x", "byoa/local/cli.py", "numpy/core/lib/libnpymath.a", "a/b.pyi")
    for name in (*kept, *gone):
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    scripts = tmp_path / "opt" / "byoa" / "bin"
    scripts.mkdir()
    (scripts / "byoa").write_text("")
    (scripts / "gunicorn").write_text("")
    program("strip").main(str(tmp_path))
    left = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert {name for name in left if "__pycache__" not in name} == set(kept)
    assert any(re.match(r"torch/__pycache__/__init__\..*\.pyc", name) for name in left)
    assert [path.name for path in scripts.iterdir()] == ["gunicorn"]
