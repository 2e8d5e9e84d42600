"""Which image of the engine a reference names; a local registry stands for ECR's data plane.

Nothing is ever pulled from the internet: what is not here is refused, with the command to get it.
"""

from __future__ import annotations

import difflib
import logging
import re
from dataclasses import dataclass
from typing import Any

import docker.errors

from byoa.container.errors import ByoaError, UnsupportedError
from byoa.local.runners.docker_errors import answers, explanation, status
from byoa.local.runners.docker_machine import Machine
from byoa.local.runners.images import OWN_REPOSITORY, Reference

_NEAREST = 5
_OURS = "amd64"  # what the service's instances are, but for the Arm types (TRAIN-13)

ECR = re.compile(r"\d{12}\.dkr\.ecr[.a-z0-9-]*\.amazonaws\.com(\.cn)?")

log = logging.getLogger("byoa.docker")


@dataclass(frozen=True)
class Found:
    """An image of the engine under a name that the engine knows."""

    name: str
    id: str
    architecture: str


class DockerImages:
    """The engine's images, and those of `registry` ("host:port", or "" for none)."""

    def __init__(self, api: Any, machine: Machine, registry: str = "") -> None:
        self._api = api
        self._machine = machine
        self._registry = registry
        self._warned: set[str] = set()

    def check(self, reference: str) -> None:
        """Raise UnsupportedError for an image that is neither here nor in the registry, or of
        another architecture than can run here (TRAIN-10, TRAIN-13, TRAP-04)."""
        found = self._local(reference)
        if found is not None:
            self._check_architecture(reference, found.architecture)
            return
        platforms = self._remote(reference)
        if platforms is None:
            raise self._unknown(reference)
        for architecture in platforms[:1]:
            self._check_architecture(reference, architecture)

    def fetch(self, reference: str) -> Found:
        """The image to run, pulled from the registry where that has it, or a newer one."""
        found = self._local(reference)
        if found is None or self._is_stale(reference, found):
            found = self._pull(reference) or found
        if found is None:
            raise self._unknown(reference)
        self._check_architecture(reference, found.architecture)
        return found

    # --- here ---

    def _local(self, reference: str) -> Found | None:
        found = self._inspect(reference)
        if found is None and self._registry:
            # A digest cannot be a tag: an image pulled by digest keeps the registry's name.
            found = self._inspect(self._at_registry(reference)) if "@" in reference else None
        return found

    def _inspect(self, name: str) -> Found | None:
        with answers(f"to look up image {name}"):
            try:
                image = self._api.inspect_image(name)
            except docker.errors.APIError as error:
                if status(error) in (400, 404):
                    return None  # 400: what is no reference names no image
                raise
        return Found(name, image["Id"], str(image.get("Architecture") or _OURS))

    def _check_architecture(self, reference: str, architecture: str) -> None:
        here = self._machine.architecture
        if architecture != here and not self._machine.emulates(architecture):
            raise UnsupportedError(
                "IMAGE_ARCHITECTURE",
                f"image {reference!r} is for linux/{architecture}, and this machine is"
                f" linux/{here} without an emulator (`exec format error`)",
                expected=f"an image for linux/{here}",
                remedy=f"build it with --platform linux/{here}",
            )
        told = None
        if architecture != here:
            told = f"is for linux/{architecture} and is emulated on linux/{here}: it runs slowly"
        elif architecture != _OURS:
            told = (
                f"is for linux/{architecture}: on SageMaker it runs on Arm instance types alone;"
                f" build it with --platform linux/{_OURS} for the others"
            )
        if told is not None and reference not in self._warned:
            self._warned.add(reference)
            log.warning("image %s %s", reference, told)

    # --- in the registry ---

    def _at_registry(self, reference: str) -> str:
        parsed = Reference.parse(reference)
        end = f"@{parsed.digest}" if parsed.digest else f":{parsed.tag or 'latest'}"
        return f"{self._registry}/{parsed.repository}{end}"

    def _remote(self, reference: str) -> list[str] | None:
        """The architectures of the registry's image; None where it has none."""
        if not self._registry:
            return None
        document = self._distribution(reference)
        if document is None:
            return None
        return [each.get("architecture", _OURS) for each in document.get("Platforms") or ()]

    def _distribution(self, reference: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._api.inspect_distribution(self._at_registry(reference))
        except docker.errors.APIError as error:
            said = explanation(error).lower()
            if "unknown" in said or "not found" in said or "denied" in said:
                return None
            raise ByoaError(
                "REGISTRY_UNREACHABLE",
                f"the registry {self._registry} does not answer: {explanation(error)}",
                remedy="start it, or correct BYOA_REGISTRY; the engine must reach it, and without"
                " TLS it must be on a loopback address",
            ) from None
        return found

    def _is_stale(self, reference: str, found: Found) -> bool:
        """Whether it was pulled from the registry, which now has another image of the name."""
        if not self._registry or "@" in reference:
            return False
        own = f"{self._registry}/{Reference.parse(reference).repository}@"
        image = self._api.inspect_image(found.name)
        digests = [each for each in image.get("RepoDigests") or () if each.startswith(own)]
        if not digests:
            return False
        try:
            document = self._distribution(reference)
        except ByoaError as error:
            log.warning("image %s is taken as it was pulled before: %s", reference, error)
            return False
        return document is not None and f"{own}{document['Descriptor']['digest']}" not in digests

    def _pull(self, reference: str) -> Found | None:
        if self._remote(reference) is None:
            return None
        source, parsed = self._at_registry(reference), Reference.parse(reference)
        repository, _, end = source.rpartition("@" if parsed.digest else ":")
        log.info("image %s: pulled from %s", reference, source)
        with answers(f"to pull {source}"):
            for event in self._api.pull(repository, tag=end, stream=True, decode=True):
                if "error" in event:
                    raise ByoaError("IMAGE_PULL", f"{source} is not pulled: {event['error']}")
            if parsed.digest:
                return self._inspect(source)
            self._api.tag(source, parsed.name, parsed.tag or "latest")
        return self._inspect(reference)

    # --- neither ---

    def _unknown(self, reference: str) -> UnsupportedError:
        near = self._nearest(reference)
        own = Reference.parse(reference).repository.rpartition("/")[2] == OWN_REPOSITORY
        where = f"the engine and the registry {self._registry} have" if self._registry else (
            "the engine has"
        )
        return UnsupportedError(
            "IMAGE_UNKNOWN",
            f"{where} no image {reference!r}",
            expected="an image that is here"
            + (f"; the nearest: {', '.join(near)}" if near else ""),
            remedy="byoa build" if own else _remedy(reference, near, self._registry),
        )

    def _nearest(self, reference: str) -> list[str]:
        with answers("to list images"):
            names = sorted({
                tag for image in self._api.images() for tag in image.get("RepoTags") or ()
                if tag != "<none>:<none>"
            })
        last = Reference.parse(reference).repository.rpartition("/")[2]
        same = [n for n in names if Reference.parse(n).repository.rpartition("/")[2] == last]
        close = difflib.get_close_matches(reference, names, _NEAREST, 0.6)
        return list(dict.fromkeys([*same, *close]))[:_NEAREST]


def _remedy(reference: str, near: list[str], registry: str) -> str:
    """How the engine comes to have the image: what is here gets the name, or it is brought."""
    wanted = Reference.parse(reference)
    if near and wanted.digest is None:
        return f"docker tag {near[0]} {reference}, if that is the one you mean"
    if registry:
        return f"byoa push it to {registry} first"
    if wanted.registry is None or ECR.fullmatch(wanted.registry) is None:
        return f"docker pull {reference}"
    return (
        f"docker pull {reference} after a login to your own account's registry, or name one that"
        " stands for it in BYOA_REGISTRY"
    )
