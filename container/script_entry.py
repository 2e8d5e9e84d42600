"""What a script's entry point is: a Python file, a module, a package to install, or a command.

The kinds and the order in which they are tried are the training toolkit's (TK-04); what it would
run as a command that isn't there is looked for among the source's modules first.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from byoa.container.contract import PROGRAM_HYPERPARAMETER
from byoa.container.errors import AlgorithmError

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
# A pyproject.toml may hold a linter's settings and no more.
_PROJECT = re.compile(r"^\s*\[\s*(project|build-system)\s*\]", re.MULTILINE)
_SHOWN = 20  # of the source's files, in an error


@dataclass(frozen=True)
class Entry:
    """An entry point. `target` is what its interpreter is given, or the command itself."""

    name: str
    kind: Literal["script", "module", "package", "command"]
    target: tuple[str, ...]

    @property
    def python(self) -> bool:
        """Whether Python runs it, so that its requirements are installed (TK-12)."""
        return self.kind != "command"

    @property
    def module(self) -> str | None:
        return self.target[1] if self.kind in ("module", "package") else None

    def argv(self, python: str, arguments: Sequence[str]) -> list[str]:
        return [*((python,) if self.python else ()), *self.target, *arguments]


def find(name: str, code: Path) -> Entry:
    """The entry point `name` of the source in `code`; raises AlgorithmError where it is none."""
    _check(name, code)
    path = code / name
    if name.endswith(".sh"):
        return _command(name, path) if path.is_file() else _missing(name, code)
    module = name.removesuffix(".py").replace("/", ".")
    if (code / "setup.py").is_file():
        return Entry(name, "package", ("-m", module))
    if name.endswith(".py"):
        return Entry(name, "script", (name,)) if path.is_file() else _missing(name, code)
    if path.is_file():
        return _command(name, path)
    if _MODULE.fullmatch(module):
        if _is_project(code / "pyproject.toml"):
            return Entry(name, "package", ("-m", module))
        place = code.joinpath(*module.split("."))
        if place.with_suffix(".py").is_file() or (place / "__main__.py").is_file():
            return Entry(name, "module", ("-m", module))
    return _missing(name, code)


def _check(name: str, code: Path) -> None:
    if not name or name.startswith("-") or "\0" in name:
        raise AlgorithmError(
            "ENTRY_POINT_INVALID", f"the entry point {name!r} is no name of a file",
            where=PROGRAM_HYPERPARAMETER, expected="a name such as train.py, run.sh or a module",
        )
    path = (code / name).resolve()
    if code.resolve() not in path.parents:
        raise AlgorithmError(
            "ENTRY_POINT_OUTSIDE", f"the entry point {name!r} is outside the source directory",
            expected="a path inside it, such as train.py or src/train.py",
        )


def _is_project(path: Path) -> bool:
    try:
        return _PROJECT.search(path.read_text(encoding="utf-8", errors="replace")) is not None
    except OSError:
        return False


def _command(name: str, path: Path) -> Entry:
    """A file that the kernel can run by itself, or else one that /bin/sh reads."""
    with path.open("rb") as file:
        first = file.readline(256)
    if first.startswith(b"#!") and first.endswith(b"\r\n"):
        raise AlgorithmError(
            "ENTRY_POINT_LINE_ENDS", f"{name} has the line ends of Windows, and its first line"
            f" would name the program {first[2:].decode(errors='replace').strip()!r} with one more"
            " character", where=f"{name}:1", expected="lines that end in a newline alone",
            remedy=f"convert it, for example by `sed -i 's/\\r$//' {name}`",
        )
    if not first.startswith((b"#!", b"\x7fELF")):
        return Entry(name, "command", ("/bin/sh", f"./{name}"))
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o111 != 0o111:
        try:
            path.chmod(mode | 0o755)  # S3 keeps no modes
        except PermissionError:
            if not os.access(path, os.X_OK):
                raise AlgorithmError(
                    "ENTRY_POINT_NOT_EXECUTABLE", f"{name} may not be executed, and its mode"
                    " cannot be changed", expected="a file with the executable bit",
                    remedy=f"chmod +x {name} before it is packed",
                ) from None
    return Entry(name, "command", (f"./{name}",))


def _missing(name: str, code: Path) -> Entry:
    files = sorted(
        path.relative_to(code).as_posix() for suffix in ("*.py", "*.sh")
        for path in code.rglob(suffix)
    )
    near = difflib.get_close_matches(name, files, n=1)
    have = ", ".join(files[:_SHOWN]) or "its Python files, of which it has none"
    raise AlgorithmError(
        "ENTRY_POINT_MISSING",
        f"the source has no {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
        expected=f"one of {have}; a module or package of the source; or another file to run",
        remedy=f"name it in {PROGRAM_HYPERPARAMETER} (entry_point in the SDK)",
    )
