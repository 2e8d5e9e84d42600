"""What an image says of itself and holds, read without running it."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from byoa.container.errors import ByoaError
from byoa.local.check import killed
from byoa.local.check.image_files import ImageFiles

LABEL = "byoa.check"  # on everything that the checker makes in an engine; its value is the trial


def labels(owner: str) -> dict[str, str]:
    """Of everything that a trial makes in an engine: whose it is, and which process makes it."""
    return {LABEL: owner, killed.LABEL: killed.mark()}


_files_lock = threading.Lock()
_CUDA_RUNTIME = re.compile(r"/libcudart[.-][^/]*so")


@dataclass(frozen=True)
class ImageFacts:
    """The image's configuration, history and files."""

    reference: str
    id: str
    architecture: str  # "amd64"
    os: str  # "linux"
    entrypoint: tuple[str, ...]
    user: str
    workdir: str
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    ports: tuple[str, ...]  # "8080/tcp"
    size: int  # bytes, unpacked
    history: tuple[Mapping[str, Any], ...]  # newest first: CreatedBy, Size, Tags
    media_type: str | None = None  # of the manifest that the reference stands for; None: not told
    read_files: Callable[[], ImageFiles] = field(repr=False, compare=False, kw_only=True)

    @cached_property
    def files(self) -> ImageFiles:
        """Every path of the image; the first look reads all of it once."""
        with _files_lock:
            return self.__dict__.get("files") or self.read_files()

    @property
    def cuda_runtime(self) -> str | None:
        """The path of CUDA's runtime library, which a framework built for GPUs brings along."""
        return next((each.path for each in self.files if _CUDA_RUNTIME.search(each.path)), None)


def read_facts(engine: Any, image: str, keep: contextlib.ExitStack, owner: str) -> ImageFacts:
    """The facts of `image`; raises ByoaError IMAGE_UNKNOWN where the engine has no such image.

    `keep` removes at its end the container through which the files are read: it never runs.
    """
    from docker.errors import ImageNotFound

    try:
        document = engine.api.inspect_image(image)
    except ImageNotFound:
        raise ByoaError(
            "IMAGE_UNKNOWN", f"the engine has no image {image!r}",
            remedy=f"build it, or `docker pull {image}`; `docker images` lists what there is",
        ) from None
    config = document.get("Config") or {}

    def read_files() -> ImageFiles:
        made = engine.api.create_container(image, command=["train"], labels=labels(owner))
        keep.callback(engine.api.remove_container, made["Id"], force=True, v=True)
        return ImageFiles(engine, made["Id"])

    return ImageFacts(
        reference=image,
        id=document["Id"],
        architecture=document.get("Architecture") or "",
        os=document.get("Os") or "",
        entrypoint=tuple(config.get("Entrypoint") or ()),
        user=config.get("User") or "",
        workdir=config.get("WorkingDir") or "",
        environment={
            name: value for name, _, value in (e.partition("=") for e in config.get("Env") or ())
        },
        labels=dict(config.get("Labels") or {}),
        ports=tuple(config.get("ExposedPorts") or ()),
        size=int(document.get("Size") or 0),
        history=tuple(engine.api.history(image)),
        media_type=_media_type(engine, image, document),
        read_files=read_files,
    )


def _media_type(engine: Any, image: str, document: Mapping[str, Any]) -> str | None:
    """Media type of what a registry or the engine's store has under this reference.

    An engine without containerd's store keeps single images alone: then only the registry that the
    image came from, or went to, can tell.
    """
    from docker.errors import DockerException

    descriptor = document.get("Descriptor") or {}
    if descriptor.get("mediaType"):
        return str(descriptor["mediaType"])
    if not document.get("RepoDigests"):
        return None
    try:
        found = engine.api.inspect_distribution(image)
    except DockerException:  # the registry is out of reach, or asks for a login
        return None
    return str(found["Descriptor"]["mediaType"])

