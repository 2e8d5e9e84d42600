"""`byoa image`: names under which a folder with an algorithm runs as an image, without Docker."""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from byoa.container.errors import ByoaError, UnsupportedError
from byoa.local.commands.options import add_home, add_json, command, settings


def add(commands: Any) -> None:
    image = command(
        commands, "image", run_list, help="add, list or remove algorithms that run as images",
        example="byoa image add my-algorithm ./my-algorithm",
    )
    actions = image.add_subparsers(dest="action", metavar="ACTION", parser_class=type(image))
    add_ = actions.add_parser("add", help="register a folder under an image name")
    add_.add_argument("name", help="image name without tag, as TrainingImage names it")
    add_.add_argument("path", type=Path, help="folder that holds the algorithm's module")
    add_.add_argument("--algorithm", metavar="MODULE:CLASS", help="where it is not the only one")
    add_.set_defaults(run=run_add)
    remove = actions.add_parser("remove", help="forget a name; the folder stays")
    remove.add_argument("name")
    remove.add_argument("--force", action="store_true", help="even while endpoints run it")
    remove.set_defaults(run=run_remove)
    list_ = actions.add_parser("list", help="list the names")
    list_.set_defaults(run=run_list)
    for parser in (image, add_, remove, list_):
        add_home(parser)
        add_json(parser)


@contextmanager
def _registry(args: argparse.Namespace) -> Iterator[tuple[Any, Any]]:
    """The images and the state they are in; a running server sees a change at once."""
    from byoa.local.runners.images import Images
    from byoa.local.storage.state import State

    home = settings(args).home
    home.mkdir(parents=True, exist_ok=True)
    state = State(home / "state.sqlite")
    try:
        yield Images(state), state
    finally:
        state.close()


def run_add(args: argparse.Namespace) -> int:
    with _registry(args) as (images, _):
        image = images.add(args.name, args.path, algorithm=args.algorithm)
    print(f"{image.name} runs {image.algorithm} from {image.folder}")
    return 0


def run_remove(args: argparse.Namespace) -> int:
    with _registry(args) as (images, state):
        known = [each.name for each in images.list()]
        if args.name not in known:
            near = difflib.get_close_matches(args.name, known, 1, 0.4)
            raise ByoaError(
                "NAME_UNKNOWN",
                f"no image {args.name!r} is registered",
                remedy=f"did you mean {near[0]!r}?" if near else "see `byoa image list`",
            )
        endpoints = _endpoints_of(args.name, images, state)
        if endpoints and not args.force:
            raise ByoaError(
                "IMAGE_IN_USE",
                f"image {args.name!r} is used by endpoint {', '.join(endpoints)}",
                expected="an image that no endpoint needs to start its containers from",
                remedy="delete them first, or add --force",
            )
        images.remove(args.name)
    print(f"forgot {args.name}; its folder is as it was")
    if endpoints:
        print(f"missing from now on to endpoint {', '.join(endpoints)}")
    return 0


def _endpoints_of(name: str, images: Any, state: Any) -> list[str]:
    """The endpoints that run the image, or are to, with their regions."""
    found = []
    for row in state.list("endpoint"):
        if row.status in ("Failed", "Deleting"):  # neither ever starts a container again
            continue
        target = row.document["target"]
        deployments = [row.document["current"], *([target["deployment"]] if target else [])]
        references = {each["image"] for one in deployments for each in one["variants"]}
        if any(_means(images, reference, name) for reference in references):
            found.append(f"{row.name} ({row.region})")
    return sorted(found)


def _means(images: Any, reference: str, name: str) -> bool:
    try:
        return bool(images.resolve(reference).name == name)
    except UnsupportedError:  # its container cannot be started again as it is
        return False


def run_list(args: argparse.Namespace) -> int:
    with _registry(args) as (images, _):
        found = images.list()
    if args.json:
        print(json.dumps([{"name": each.name, "algorithm": each.algorithm,
                           "folder": str(each.folder)} for each in found], indent=1))
        return 0
    for each in found:
        print(f"{each.name:<24} {each.algorithm:<40} {each.folder}")
    print(f"{'byoa':<24} {'built-in, chosen by BYOA_ALGORITHM':<40}")
    return 0
