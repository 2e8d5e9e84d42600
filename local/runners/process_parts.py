"""What a container that is a process is started with: argv, environment, working directory.

Its environment is its own: nothing of the server's but what a machine has.
"""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path

from byoa.container.contract import (
    BASE_DIR_VARIABLE,
    BIND_VARIABLE,
    PORT_VARIABLE,
    ROOT,
    Layout,
)
from byoa.local.runners.base import ContainerSpec
from byoa.local.runners.images import Image

# Variables that describe the machine rather than the person who started the server.
_MACHINE_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "SSL_CERT_FILE")
_OVERLAY = "byoa.container.overlay"


def argv(spec: ContainerSpec, image: Image, scratch: Path, *, boxed: bool) -> list[str]:
    whole = [*(spec.entrypoint or image.entrypoint), *spec.command]
    if not boxed:
        whole = [_inside(spec, part) for part in whole]
    if spec.entrypoint is None:
        return whole
    # What it installs with `pip`, as the SDK's drivers do, must not go to this machine's Python.
    return [sys.executable, "-m", _OVERLAY, str(scratch / "python"), *whole]


def names_within(part: str) -> bool:
    """Whether a word of a command names /opt/ml inside a text, where no other path can stand."""
    return f"{ROOT}/" in part and not part.startswith(f"{ROOT}/")


def environment(
    spec: ContainerSpec, image: Image, scratch: Path, port: int | None, *, boxed: bool
) -> dict[str, str]:
    """The whole environment of the container; what the platform says wins (TRAIN-83)."""
    values = {
        **machine(),
        "HOME": str(scratch / "home"),
        "TMPDIR": str(scratch / "tmp"),
        "LANG": "C.UTF-8",
        "BYOA_USER": "root",  # of the server; a process keeps the user that it was started by
        **image.environment,
        **spec.environment,
    }
    own_path, given = image.environment.get("PYTHONPATH"), spec.environment.get("PYTHONPATH")
    if own_path and given:
        values["PYTHONPATH"] = f"{own_path}{os.pathsep}{given}"
    values.pop(BASE_DIR_VARIABLE, None)
    values.pop(PORT_VARIABLE, None)
    if not boxed:
        values = {name: _inside(spec, value) for name, value in values.items()}
        values[BASE_DIR_VARIABLE] = str(spec.ml)
    if port is not None:
        values[PORT_VARIABLE] = str(port)
        values.setdefault(BIND_VARIABLE, "127.0.0.1")  # a laptop's neighbours are not the platform
    return values


def terms(spec: ContainerSpec, image: Image, scratch: Path) -> tuple[list[str], dict[str, str]]:
    """Argv and environment in terms of /opt/ml, wherever that is."""
    return (
        argv(spec, image, scratch, boxed=True),
        environment(spec, image, scratch, None, boxed=True),
    )


def machine() -> dict[str, str]:
    values = {name: os.environ[name] for name in _MACHINE_VARIABLES if name in os.environ}
    # `python` and the console scripts of this environment come first, as in an image of it.
    own = os.path.dirname(sys.executable)
    values["PATH"] = f"{own}{os.pathsep}{values.get('PATH') or os.defpath}"
    if site.ENABLE_USER_SITE:
        values["PYTHONUSERBASE"] = site.getuserbase()  # found even with another HOME
    return values


def working_directory(
    spec: ContainerSpec, image: Image, scratch: Path, *, boxed: bool
) -> Path:
    if image.folder is not None:
        return image.folder
    code = Layout(spec.ml).code
    if not code.is_dir():
        return scratch
    return Path(ROOT / code.name) if boxed else code


def _inside(spec: ContainerSpec, value: str) -> str:
    """A value that is a path under /opt/ml, as a path of this machine; others as they are."""
    if value == str(ROOT) or value.startswith(f"{ROOT}/"):
        return str(Layout(spec.ml).inside(value))
    return value
