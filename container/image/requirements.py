"""What the image installs, read from pyproject.toml: `requirements.py EXTRAS DIRECTORY`.

Writes dependencies.txt (the project's own and the extras') and torch.txt (the extra `torch`), so
that a layer is built again only when a requirement changes, and torch is a layer of its own.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10; pip carries it
    from pip._vendor import tomli as tomllib  # type: ignore[no-redef]

TORCH = "torch"


def of_extra(project: dict[str, Any], extra: str) -> list[str]:
    """The requirements of one extra, with the extras of the project that it names resolved."""
    extras: dict[str, list[str]] = project["optional-dependencies"]
    if extra not in extras:
        sys.exit(f"EXTRAS: byoa has no extra {extra!r}; it has {', '.join(sorted(extras))}")
    found: list[str] = []
    for requirement in extras[extra]:
        own = re.fullmatch(rf"{project['name']}\[(.*)\]", requirement)
        if own is None:
            found.append(requirement)
        else:
            for name in own[1].split(","):
                found += of_extra(project, name.strip())
    return found


def main(extras: str, directory: str) -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    names = [name.strip() for name in extras.split(",") if name.strip()]
    torch = of_extra(project, TORCH)
    wanted = [*project["dependencies"], *(r for name in names for r in of_extra(project, name))]
    if set(wanted) & set(torch):
        sys.exit(f"EXTRAS={extras} brings torch; choose it with TORCH_VARIANT=cpu|cu…|none")
    for name, lines in (("dependencies", wanted), (TORCH, torch)):
        text = "\n".join(dict.fromkeys(lines))
        (Path(directory) / f"{name}.txt").write_text(text + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
