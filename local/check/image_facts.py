"""What an image says of itself and holds, read without running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from byoa.container.errors import ByoaError


@dataclass(frozen=True)
class ImageFacts:
    """The image's configuration, history and files."""

    reference: str
    id: str
    architecture: str  # "amd64"
    os: str  # "linux"
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    user: str
    workdir: str
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    ports: tuple[str, ...]  # "8080/tcp"
    volumes: tuple[str, ...]
    size: int  # bytes, unpacked
    history: tuple[Mapping[str, Any], ...]  # newest first: CreatedBy, Size, Tags


def read_facts(engine: Any, image: str) -> ImageFacts:
    """The facts of `image`; raises ByoaError IMAGE_UNKNOWN where the engine has no such image."""
    from docker.errors import ImageNotFound

    try:
        document = engine.api.inspect_image(image)
    except ImageNotFound:
        raise ByoaError(
            "IMAGE_UNKNOWN", f"the engine has no image {image!r}",
            remedy=f"build it, or `docker pull {image}`; `docker images` lists what there is",
        ) from None
    config = document.get("Config") or {}
    return ImageFacts(
        reference=image,
        id=document["Id"],
        architecture=document.get("Architecture") or "",
        os=document.get("Os") or "",
        entrypoint=tuple(config.get("Entrypoint") or ()),
        cmd=tuple(config.get("Cmd") or ()),
        user=config.get("User") or "",
        workdir=config.get("WorkingDir") or "",
        environment=dict(each.partition("=")[::2] for each in config.get("Env") or ()),
        labels=dict(config.get("Labels") or {}),
        ports=tuple(config.get("ExposedPorts") or ()),
        volumes=tuple(config.get("Volumes") or ()),
        size=int(document.get("Size") or 0),
        history=tuple(engine.api.history(image)),
    )
