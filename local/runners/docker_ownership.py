"""Files that a container's root left on this machine, given to the user who runs the server.

Where the server is root nothing is to do. Else only the engine can: a short container of an image
that has `chown` or Python changes the owner.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import docker.errors

from byoa.local.runners.docker_errors import explanation
from byoa.local.runners.docker_machine import Machine

_TARGET = "/opt/ml"
_IMAGES_TRIED = 8
_PYTHON = (
    "import os, sys\n"
    "uid, gid = map(int, sys.argv[1:3])\n"
    "for folder, _, files in os.walk(sys.argv[3], topdown=False):\n"
    "    for path in [os.path.join(folder, name) for name in files] + [folder]:\n"
    "        os.lchown(path, uid, gid)\n"
    "    for name in os.listdir(folder):\n"
    "        os.lchown(os.path.join(folder, name), uid, gid)\n"
)

log = logging.getLogger("byoa.docker")


def give_back(
    api: Any, machine: Machine, directory: Path, image: str, labels: dict[str, str]
) -> None:
    """Make everything under `directory` readable and removable by this process's user."""
    user = os.geteuid()
    if user != 0 and _has_foreign(directory, user):
        _change_owner(api, machine, directory, image, labels)
    if user != 0:
        _open_up(directory, user)


def _has_foreign(directory: Path, user: int) -> bool:
    """Whether anything below belongs to somebody else; what cannot be listed does."""
    refused: list[OSError] = []
    for folder, folders, files in os.walk(directory, onerror=refused.append):
        for name in (*folders, *files):
            if os.lstat(os.path.join(folder, name)).st_uid != user:
                return True
    return bool(refused) or directory.lstat().st_uid != user


def _open_up(directory: Path, user: int) -> None:
    """What the owner may not read or enter, as a program's umask may leave it, is opened."""
    for folder, folders, files in os.walk(directory):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode) or status.st_uid != user:
                continue
            needed = stat.S_IRWXU if stat.S_ISDIR(status.st_mode) else stat.S_IRUSR
            if status.st_mode & needed != needed:
                os.chmod(path, stat.S_IMODE(status.st_mode) | needed)


def _change_owner(
    api: Any, machine: Machine, directory: Path, image: str, labels: dict[str, str]
) -> None:
    # Inside a rootless engine its user is root.
    uid, gid = (0, 0) if machine.rootless else (os.geteuid(), os.getegid())
    said = "no image of the engine has chown or Python"
    for each in _candidates(api, image):
        for command in (
            ["chown", "-R", "-h", f"{uid}:{gid}", _TARGET],
            ["python3", "-c", _PYTHON, str(uid), str(gid), _TARGET],
            ["python", "-c", _PYTHON, str(uid), str(gid), _TARGET],
        ):
            try:
                code = _run(api, machine, directory, each, command, labels)
            except docker.errors.APIError as error:  # the image has no such program
                said = explanation(error)
                continue
            if code == 0:
                return
            said = f"{command[0]} in {each} exits with {code}"
    log.warning(
        "%s has files of another user, which cannot be given to this one: %s;"
        " to do: sudo chown -R %d:%d %s", directory, said, os.geteuid(), os.getegid(), directory,
    )


def _candidates(api: Any, image: str) -> Iterator[str]:
    """The container's own image, then others that are here: Python's first, small ones first."""
    yield image
    others = sorted(
        (each["Size"], tag)
        for each in api.images()
        for tag in (each.get("RepoTags") or ())[:1]
        if tag not in (image, "<none>:<none>")
    )
    yield from _preferred(tag for _, tag in others)


def _preferred(tags: Iterable[str]) -> list[str]:
    known = list(tags)
    first = [tag for tag in known if "byoa" in tag or "python" in tag or "busybox" in tag]
    return [*first, *(tag for tag in known if tag not in first)][:_IMAGES_TRIED]


def _run(
    api: Any, machine: Machine, directory: Path, image: str, command: list[str],
    labels: dict[str, str],
) -> int:
    host = api.create_host_config(
        mounts=[docker.types.Mount(_TARGET, str(directory), type="bind")],
        network_mode="none",
        userns_mode="host" if machine.remapped else None,
        security_opt=["label=disable"] if machine.selinux else None,
    )
    made = api.create_container(
        image, command[1:], entrypoint=command[:1], user="0:0", host_config=host, labels=labels,
        healthcheck={"test": ["NONE"]}, use_config_proxy=False,
    )
    try:
        api.start(made["Id"])
        return int(api.wait(made["Id"])["StatusCode"])
    finally:
        with contextlib.suppress(docker.errors.APIError):
            api.remove_container(made["Id"], v=True, force=True)
