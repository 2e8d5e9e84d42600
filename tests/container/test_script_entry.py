"""What an entry point is, in the toolkit's order (TK-04)."""

import os

import pytest

from byoa.container.errors import AlgorithmError
from byoa.container.script_entry import find

PROJECT = '[project]\nname = "pkg"\nversion = "1"\n'


@pytest.fixture
def code(tmp_path):
    """Write files into a source directory; the directory."""
    directory = tmp_path / "code"
    directory.mkdir()

    def write(files):
        for name, text in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        return directory

    return write


@pytest.mark.parametrize(("files", "name", "kind", "argv"), [
    ({"train.py": ""}, "train.py", "script", ["PY", "train.py", "-b", "1"]),
    ({"src/train.py": ""}, "src/train.py", "script", ["PY", "src/train.py", "-b", "1"]),
    ({"run.sh": "echo"}, "run.sh", "command", ["/bin/sh", "./run.sh", "-b", "1"]),
    ({"run.sh": "#!/bin/bash\n"}, "run.sh", "command", ["./run.sh", "-b", "1"]),
    ({"bin/go.sh": "#!/bin/sh\n", "setup.py": ""}, "bin/go.sh", "command",
     ["./bin/go.sh", "-b", "1"]),
    ({"program": "#!/usr/bin/env python3\n"}, "program", "command", ["./program", "-b", "1"]),
    ({"setup.py": "", "train.py": ""}, "train.py", "package", ["PY", "-m", "train", "-b", "1"]),
    ({"setup.py": ""}, "pkg.main", "package", ["PY", "-m", "pkg.main", "-b", "1"]),
    ({"setup.py": ""}, "pkg/main.py", "package", ["PY", "-m", "pkg.main", "-b", "1"]),
    ({"pyproject.toml": PROJECT}, "pkg", "package", ["PY", "-m", "pkg", "-b", "1"]),
    # A pyproject.toml beside a script does not make it a package: it may be a linter's.
    ({"pyproject.toml": PROJECT, "train.py": ""}, "train.py", "script",
     ["PY", "train.py", "-b", "1"]),
    ({"pyproject.toml": "[tool.ruff]\n", "pkg/fit.py": ""}, "pkg.fit", "module",
     ["PY", "-m", "pkg.fit", "-b", "1"]),
    ({"pkg/__main__.py": ""}, "pkg", "module", ["PY", "-m", "pkg", "-b", "1"]),
])
def test_the_kind_of_an_entry_point_and_its_command(code, files, name, kind, argv):
    """TK-04: an argv, never a shell's text."""
    found = find(name, code(files))
    assert found.kind == kind
    assert found.argv("PY", ["-b", "1"]) == argv
    assert found.python == (kind != "command")


def test_a_command_is_made_executable(code):
    """TK-04: S3 keeps no modes. Others may not write it."""
    path = code({"run.sh": "#!/bin/sh\n"}) / "run.sh"
    path.chmod(0o644)
    find("run.sh", path.parent)
    assert os.access(path, os.X_OK)
    assert path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(("name", "error"), [
    ("../train.py", "ENTRY_POINT_OUTSIDE"), ("/etc/passwd", "ENTRY_POINT_OUTSIDE"),
    ("trian.py", "ENTRY_POINT_MISSING"), ("run.sh", "ENTRY_POINT_MISSING"),
    ("nothing", "ENTRY_POINT_MISSING"), ("", "ENTRY_POINT_INVALID"),
    ("-c.py", "ENTRY_POINT_INVALID"),
])
def test_an_entry_point_that_cannot_run_is_named(code, name, error):
    with pytest.raises(AlgorithmError) as caught:
        find(name, code({"train.py": ""}))
    assert caught.value.code == error


def test_a_mistyped_entry_point_is_corrected(code):
    with pytest.raises(AlgorithmError, match="did you mean 'train.py'"):
        find("trian.py", code({"train.py": ""}))


def test_a_script_written_on_windows_is_named_before_the_kernel_misreads_it(code):
    directory = code({"run.sh": "#!/bin/bash\r\necho\r\n"})
    with pytest.raises(AlgorithmError, match="ENTRY_POINT_LINE_ENDS") as caught:
        find("run.sh", directory)
    assert caught.value.where == "run.sh:1"
