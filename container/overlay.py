"""A Python environment of a job's own: what pip installs for it goes there, and with the job.

It sees every package of the Python that made it, and its own first. So a job that runs as a
process of this machine leaves that machine's packages alone, and a container that may not write to
its image installs all the same. `python -m byoa.container.overlay DIRECTORY PROGRAM [ARGUMENT]…`
makes one and lets a program that calls `python` and `pip` by name run in it.
"""

from __future__ import annotations

import errno
import os
import re
import site
import sys
import sysconfig
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from byoa.container import contract

_SCRIPT_LIMIT_BYTES = 64 * 1024  # a console script is a few lines; programs stay where they are


class Overlay:
    """The environment in `directory`, which is made."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        venv.EnvBuilder(symlinks=True, with_pip=False).create(directory)
        self.bin = directory / "bin"
        self.python = str(self.bin / "python")
        packages = directory / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
        packages.joinpath("byoa-below.pth").write_text(
            "".join(f"import site; site.addsitedir({path!r})\n" for path in _below()),
            encoding="utf-8",
        )
        self._copy_scripts()

    def variables(self, environ: Mapping[str, str]) -> dict[str, str]:
        """What to set beside `environ`, so that this environment's programs are found first."""
        path = environ.get("PATH") or os.defpath
        return {"PATH": f"{self.bin}{os.pathsep}{path}", "VIRTUAL_ENV": str(self.directory)}

    def _copy_scripts(self) -> None:
        """Console scripts, such as torchrun, name their Python in the first line: ours name this
        one, or they would not find what is installed here."""
        for path in Path(sys.executable).parent.iterdir():
            target = self.bin / path.name
            if target.exists() or not path.is_file() or path.stat().st_size > _SCRIPT_LIMIT_BYTES:
                continue
            first, newline, rest = path.read_bytes().partition(b"\n")
            program = os.fsdecode(first[2:].strip()) if first.startswith(b"#!") else ""
            if re.fullmatch(r"python[\d.]*", os.path.basename(program)) and os.path.isabs(program):
                target.write_bytes(b"#!" + os.fsencode(self.python) + newline + rest)
                target.chmod(0o755)


def main(arguments: Sequence[str]) -> int:
    """Let the program take this process's place; only an error comes back."""
    directory, *argv = arguments
    os.environ.update(Overlay(Path(directory)).variables(os.environ))
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - an argv, never a shell
    except OSError as error:  # as the shell's exit codes (TRAIN-144)
        sys.stderr.write(f"byoa: {argv[0]!r} cannot be run: {error.strerror}\n")
        found = error.errno != errno.ENOENT
        return contract.EXIT_NOT_EXECUTABLE if found else contract.EXIT_NOT_FOUND


def _below() -> list[str]:
    """Where the packages of this Python are."""
    places = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        places = [site.getusersitepackages(), *places]
    return [path for path in places if os.path.isdir(path)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
