"""Which program an image reference stands for where there is no Docker.

    byoa, …/byoa:1        byoa's own image: this Python runs byoa's container entrypoint
    a registered name     the same with the author's folder and algorithm (`byoa image add`)

A name with a tag stands for that tag. One without stands for `:latest`, and for every tag while no
tag of it is registered on its own: a mistyped tag must not run another algorithm.

The algorithm of a folder is found by reading its source, never by importing it.
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from byoa.container.contract import ALGORITHM_VARIABLE
from byoa.container.errors import ByoaError, UnsupportedError
from byoa.local.settings import Caller
from byoa.local.storage.state import AlreadyExists, Row, State

OWN_REPOSITORY = "byoa"
ENTRYPOINT = (sys.executable, "-m", "byoa.container")
# Images belong to this machine, as those of a Docker engine do, and not to an account.
THIS_MACHINE = Caller(account="", region="")

_KIND = "image"
_LATEST = "latest"  # what a reference without a tag means
_MODULE = "byoa.algorithms"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*(?::[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}})?")
_ALGORITHM = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_SKIPPED_FOLDERS = frozenset({"tests", "test", "build", "dist", "node_modules", "site-packages"})


@dataclass(frozen=True)
class Reference:
    """`[registry/]repository[:tag][@digest]`, taken apart."""

    repository: str
    registry: str | None = None
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """The reference without tag and digest."""
        return f"{self.registry}/{self.repository}" if self.registry else self.repository

    @classmethod
    def parse(cls, text: str) -> Reference:
        rest, _, digest = text.partition("@")
        head, slash, tail = rest.rpartition("/")
        tail, _, tag = tail.partition(":")
        rest = f"{head}{slash}{tail}"
        registry, slash, path = rest.partition("/")
        # Docker's rule: a first part with a dot or a port is a host.
        if slash and ("." in registry or ":" in registry or registry == "localhost"):
            return cls(path, registry, tag or None, digest or None)
        return cls(rest, None, tag or None, digest or None)


@dataclass(frozen=True)
class Image:
    """What a process runner runs: `entrypoint` + command, in `folder` where there is one."""

    name: str
    entrypoint: tuple[str, ...]
    folder: Path | None = None
    algorithm: str | None = None
    environment: dict[str, str] = field(default_factory=dict)


class Images:
    """The images that run on this machine as processes."""

    def __init__(self, state: State) -> None:
        self._state = state

    def add(self, name: str, path: Path, algorithm: str | None = None) -> Image:
        """Register `path`, a folder with an algorithm class, as image `name`; again replaces it.

        `algorithm` is `module:Class`; without it, the folder must hold exactly one class that
        derives from byoa's Algorithm.
        """
        _check_name(name)
        folder = Path(path).expanduser().absolute()
        if not folder.is_dir():
            raise ByoaError(
                "IMAGE_FOLDER",
                f"{folder} is no folder",
                expected="the folder that holds the algorithm's Python file",
            )
        algorithm = choose_algorithm(folder, algorithm)
        document = {"path": str(folder), "algorithm": algorithm}
        try:
            row = self._state.create(
                _KIND, THIS_MACHINE, name, arn=f"image/{name}", status="Registered",
                document=document,
            )
        except AlreadyExists:
            row = self._state.mutate(
                _KIND, THIS_MACHINE, name, lambda row: row.document.update(document)
            )
        return _image(row)

    def remove(self, name: str) -> bool:
        """Forget a registered image; False where there is none of that name."""
        return self._state.delete(_KIND, THIS_MACHINE, name)

    def list(self) -> builtins.list[Image]:
        """The registered images by name."""
        rows = self._state.list(_KIND, THIS_MACHINE)
        return sorted((_image(row) for row in rows), key=lambda image: image.name)

    def resolve(self, reference: str) -> Image:
        """What to run for an image reference; raises UnsupportedError naming what there is."""
        parsed = Reference.parse(reference)
        images = self.list()
        for name in (parsed.name, parsed.repository):  # a registry may be part of a registered name
            tags = {
                each.tag: image
                for image in images
                if (each := Reference.parse(image.name)).name == name
            }
            if tags:
                return _existing(_tagged(name, parsed.tag, tags))
        if parsed.repository.rpartition("/")[2] == OWN_REPOSITORY:
            return Image(reference, ENTRYPOINT)
        registered = [image.name for image in images]
        raise UnsupportedError(
            "IMAGE_UNKNOWN",
            f"image {reference!r} does not run as a process on this machine",
            expected="an image whose repository is byoa, or one that is registered: "
            + (", ".join(registered) or "none is so far"),
            remedy=f"byoa image add {parsed.repository} FOLDER",
        )


def _tagged(name: str, tag: str | None, tags: Mapping[str | None, Image]) -> Image:
    """The image that `tag` means among those registered as `name`, by their tags."""
    same = (tag, None, _LATEST) if tag in (None, _LATEST) else (tag,)
    found = next((tags[each] for each in same if each in tags), None)
    if found is None and set(tags) == {None}:
        found = tags[None]
    if found is not None:
        return found
    raise UnsupportedError(
        "IMAGE_TAG_UNKNOWN",
        f"image {name!r} is not registered with tag {tag or _LATEST!r}",
        expected="one of " + ", ".join(sorted(image.name for image in tags.values())),
        remedy=f"byoa image add {name}{f':{tag}' if tag else ''} FOLDER",
    )


def algorithms_in(folder: Path) -> builtins.list[str]:
    """The algorithm classes below `folder` as `module:Class`, found by parsing, not importing."""
    return _search(folder)[0]


def _search(
    folder: Path,
) -> tuple[builtins.list[str], builtins.list[tuple[Path, SyntaxError | ValueError]]]:
    """The algorithm classes below `folder`, and the files that do not parse, with why."""
    found: builtins.list[str] = []
    broken: builtins.list[tuple[Path, SyntaxError | ValueError]] = []
    for module, source in _modules(folder):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an odd escape in an author's string is theirs
                tree = ast.parse(source.read_bytes())
        except (SyntaxError, ValueError) as error:
            broken.append((source, error))
            continue
        found += [f"{module}:{name}" for name in _algorithm_classes(tree)]
    return found, broken


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ByoaError(
            "IMAGE_NAME",
            f"{name!r} is no image name",
            expected="lower-case letters, digits, '.', '_', '-' and '/', and a tag after ':'",
        )
    if Reference.parse(name).repository == OWN_REPOSITORY:
        raise ByoaError(
            "IMAGE_NAME",
            f"{name!r} is byoa's own image",
            remedy="choose another name",
        )


def choose_algorithm(folder: Path, algorithm: str | None) -> str:
    """`algorithm`, which the folder must have, or the only one that it has, as `module:Class`."""
    found, broken = _search(folder)
    if algorithm is not None:
        if not _ALGORITHM.fullmatch(algorithm):
            raise ByoaError(
                "IMAGE_ALGORITHM",
                f"{algorithm!r} names no algorithm",
                expected="module:Class, such as " + (found[0] if found else "mine:MyAlgorithm"),
            )
        base = folder.joinpath(*algorithm.partition(":")[0].split("."))
        if not (base.with_suffix(".py").is_file() or base.joinpath("__init__.py").is_file()):
            raise ByoaError(
                "IMAGE_ALGORITHM",
                f"{folder} has no module {algorithm.partition(':')[0]!r}",
                expected="a module of the folder; it has these algorithms: "
                + (", ".join(found) or "none"),
            )
        return algorithm
    if len(found) == 1:
        return found[0]
    if found:
        raise ByoaError(
            "IMAGE_ALGORITHM",
            f"{folder} has {len(found)} algorithms: {', '.join(found)}",
            expected="one algorithm for an image",
            remedy=f"choose one: --algorithm {found[0]}",
        )
    if broken:
        raise _unreadable(folder, *broken[0])
    raise ByoaError(
        "IMAGE_ALGORITHM",
        f"{folder} has no class that derives from {_MODULE}.Algorithm",
        expected=f"a Python file with `from {_MODULE} import Algorithm` and a class of it",
        remedy="name the class: --algorithm module:Class",
    )


def _unreadable(folder: Path, source: Path, error: SyntaxError | ValueError) -> ByoaError:
    """The error of a folder without an algorithm that parses, and `source`, which does not."""
    where, message = source.relative_to(folder).as_posix(), str(error)
    if isinstance(error, SyntaxError):
        where += f":{error.lineno}" if error.lineno else ""
        message = str(error.msg)
        if isinstance(error.text, str) and error.text.strip():
            message += f": {error.text.strip()[:100]}"
    return ByoaError(
        "IMAGE_SYNTAX",
        message,
        where=where,
        expected=f"a file that Python reads; {folder} has no algorithm in any other",
        remedy="mend the line and add the image again",
    )


def _image(row: Row) -> Image:
    folder, algorithm = row.document["path"], row.document["algorithm"]
    return Image(
        row.name,
        ENTRYPOINT,
        Path(folder),
        algorithm,
        {"PYTHONPATH": folder, ALGORITHM_VARIABLE: algorithm},
    )


def _existing(image: Image) -> Image:
    if image.folder is None or image.folder.is_dir():
        return image
    raise UnsupportedError(
        "IMAGE_FOLDER",
        f"the folder of image {image.name!r} is gone: {image.folder}",
        remedy=f"byoa image add {image.name} FOLDER",
    )


def _modules(folder: Path, package: str = "") -> Iterator[tuple[str, Path]]:
    """Importable modules below `folder`, in order of their names."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            hidden = entry.name in _SKIPPED_FOLDERS or entry.joinpath("pyvenv.cfg").exists()
            if entry.name.isidentifier() and not hidden:
                yield from _modules(entry, f"{package}{entry.name}.")
        elif entry.suffix == ".py" and entry.stem.isidentifier():
            if entry.stem == "__init__" and package:
                yield package.rstrip("."), entry
            elif entry.stem != "__init__" and not entry.stem.startswith("test_"):
                yield f"{package}{entry.stem}", entry


def _algorithm_classes(tree: ast.Module) -> builtins.list[str]:
    """Classes of a module that derive from byoa's Algorithm and that no other one derives from."""
    names, prefixes = _imported(tree)
    bases_of: dict[str, set[str]] = {}
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        bases = {ast.unparse(base) for base in node.bases}
        if any(
            base in names or base in bases_of
            or (base.rpartition(".")[0] in prefixes and base.endswith("Algorithm"))
            for base in bases
        ):
            bases_of[node.name] = bases
    inherited = set().union(*bases_of.values()) if bases_of else set()
    return [name for name in bases_of if name not in inherited]


def _imported(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Names that stand for Algorithm classes, and names that stand for the module itself."""
    names: set[str] = set()
    prefixes: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            for alias in node.names:
                if node.module == _MODULE or node.module.startswith(f"{_MODULE}."):
                    if alias.name.endswith("Algorithm"):
                        names.add(alias.asname or alias.name)
                    else:
                        prefixes.add(alias.asname or alias.name)
                elif f"{node.module}.{alias.name}" == _MODULE:
                    prefixes.add(alias.asname or alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == _MODULE or alias.name.startswith(f"{_MODULE}."):
                    prefixes.add(alias.asname or alias.name)
    return names, prefixes
