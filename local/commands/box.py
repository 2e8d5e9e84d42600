"""`byoa train` and `byoa serve`: the box alone, without a server: one process on this machine."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from byoa.container.contract import (
    ALGORITHM_VARIABLE,
    BASE_DIR_VARIABLE,
    BIND_VARIABLE,
    HOMOGENEOUS_GROUP,
    MODEL_MANIFEST,
    PORT_VARIABLE,
    ChannelConfig,
    InputDataConfig,
    InstanceGroup,
    Layout,
    ResourceConfig,
    write_hyperparameters,
)
from byoa.container.errors import ByoaError
from byoa.local.commands.options import add_home, command, settings


def add(commands: Any) -> None:
    train = command(
        commands, "train", run_train, help="train an algorithm here and now, without a server",
        example="byoa train nearest_centroid.py --channel train=digits.csv"
        " --hyperparameter metric=cosine --model model",
    )
    train.add_argument(
        "algorithm", help="a file with an Algorithm class, module:Class, or a built-in's name"
    )
    train.add_argument(
        "--channel", action="append", default=[], metavar="NAME=PATH",
        help="a file or folder as an input channel; repeat for more",
    )
    train.add_argument(
        "--content-type", action="append", default=[], metavar="[NAME=]TYPE",
        help="media type of a channel, or of all; else by the files' suffix",
    )
    train.add_argument(
        "--hyperparameter", "-p", action="append", default=[], metavar="NAME=VALUE",
        help="a hyperparameter; repeat for more",
    )
    train.add_argument("--model", type=Path, default=Path("model"), help="model folder (model)")
    serve = command(
        commands, "serve", run_serve, help="serve a model folder or model.tar.gz over HTTP",
        example="byoa serve model --port 8080\n"
        "  curl -H 'Content-Type: text/csv' --data-binary @digit.csv localhost:8080/invocations",
    )
    serve.add_argument("model", type=Path, nargs="?", default=Path("model"),
                       help="what training saved: a folder or a model.tar.gz (model)")
    add_home(serve)
    serve.add_argument("--port", type=int, default=8080, help="port to listen on (8080)")
    serve.add_argument(
        "--algorithm", help="a file or module:Class, where the model names one that is not here"
    )


def run_train(args: argparse.Namespace) -> int:
    channels = _pairs(args.channel, "--channel", "train=digits.csv")
    hyperparameters = _pairs(args.hyperparameter, "--hyperparameter", "epochs=10")
    types = dict(each.split("=", 1) if "=" in each.split("/")[0] else ("", each)
                 for each in args.content_type)
    if unknown := set(types) - {"", *channels}:
        raise ByoaError(
            "CHANNEL_UNKNOWN", f"--content-type names channels that are not given: {unknown}",
            expected=f"one of {sorted(channels)}",
        )
    environment = algorithm_environment(args.algorithm)
    with tempfile.TemporaryDirectory(prefix="byoa-train-") as base:
        layout = Layout(Path(base))
        layout.create()
        for name, path in channels.items():
            _link_channel(layout, name, Path(path))
        _check_replaceable(args.model)
        write_hyperparameters(layout, hyperparameters)
        InputDataConfig(
            {name: ChannelConfig(content_type=types.get(name, types.get(""))) for name in channels}
        ).write(layout)
        group = InstanceGroup(HOMOGENEOUS_GROUP, "local", ("algo-1",))
        ResourceConfig.for_host("algo-1", [group]).write(layout)
        code = _train_in(layout, environment)
        if code == 0:
            _replace(args.model, layout.model)
            print(f"model: {args.model}", flush=True)
    return code


def _train_in(layout: Layout, extra: Mapping[str, str]) -> int:
    """The container's entrypoint as a supervised child with this terminal's output."""
    from byoa.container.supervisor import run

    ended = run(
        [sys.executable, "-m", "byoa.container", "train"],
        env=_environment(layout, extra),
        on_line=lambda line: print(line, flush=True),
    )
    return ended.code


def _check_replaceable(model: Path) -> None:
    """An earlier model gives way to a new one; anything else in its place is the user's."""
    if not model.exists() or (model.is_dir() and not any(model.iterdir())):
        return
    if not (model / MODEL_MANIFEST).is_file():
        raise ByoaError(
            "MODEL_EXISTS", f"{model} is there and is no model that byoa saved",
            expected=f"a folder that does not exist, is empty, or has a {MODEL_MANIFEST}",
            remedy="choose another folder with --model",
        )


def _replace(model: Path, trained: Path) -> None:
    """Copy beside the old model first, so that there is a whole one at any moment but one."""
    part = model.with_name(f".{model.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(trained, part)
    if model.exists():
        shutil.rmtree(model)
    part.rename(model)


def run_serve(args: argparse.Namespace) -> int:
    """Becomes the inference server: signals and the terminal are its own."""
    if not args.model.exists():
        raise ByoaError(
            "MODEL_MISSING", f"{args.model} does not exist",
            remedy="train one with `byoa train`, or name a model folder or model.tar.gz",
        )
    extra = algorithm_environment(args.algorithm) if args.algorithm else _search_path(Path.cwd())
    source = args.model.resolve()
    # A place that the next `byoa serve` of the same model takes again: nobody is left to clear up.
    name = hashlib.sha256(f"{source}:{args.port}".encode()).hexdigest()[:16]
    base = settings(args).home / "serve" / name
    layout = Layout(base)
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir(parents=True)
    if source.is_dir():
        layout.model.symlink_to(source)
    else:
        from byoa.local.storage.archives import extract

        extract(source, layout.model)
    # Where it is set it is the user's wish to be reached from other machines.
    bind = os.environ.get(BIND_VARIABLE) or "127.0.0.1"
    own = {PORT_VARIABLE: str(args.port), BIND_VARIABLE: bind}
    environment = _environment(layout, extra | own)
    sys.stdout.flush()
    os.execve(  # noqa: S606 - an argv of our own, never a shell
        sys.executable, [sys.executable, "-m", "byoa.container", "serve"], environment
    )


def _environment(layout: Layout, extra: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, **extra, BASE_DIR_VARIABLE: str(layout.root), "PYTHONUNBUFFERED": "1"}


def algorithm_environment(spec: str) -> dict[str, str]:
    """Variables that choose an algorithm: a file's own folder goes on the module search path."""
    file, _, name = spec.partition(":")
    if not file.endswith(".py"):
        return {ALGORITHM_VARIABLE: spec, **_search_path(Path.cwd())}
    path = Path(file).resolve()
    if not path.is_file():
        raise ByoaError(
            "ALGORITHM_MISSING", f"{file} does not exist",
            remedy="name a file with an Algorithm class, module:Class, or a built-in algorithm",
        )
    return {
        ALGORITHM_VARIABLE: f"{path.stem}:{name or _only_class(path)}",
        **_search_path(path.parent),
    }


def _only_class(path: Path) -> str:
    """The algorithm class of a file, found by parsing it."""
    from byoa.local.runners.images import algorithms_in

    found = [each for each in algorithms_in(path.parent) if each.startswith(f"{path.stem}:")]
    if len(found) == 1:
        return found[0].partition(":")[2]
    if found:
        raise ByoaError(
            "ALGORITHM_AMBIGUOUS", f"{path.name} has {len(found)} algorithms: {', '.join(found)}",
            remedy=f"name one: {path.name}:{found[0].partition(':')[2]}",
        )
    try:
        compile(path.read_bytes(), str(path), "exec")
    except SyntaxError as error:
        raise ByoaError(
            "ALGORITHM_SYNTAX", str(error.msg), where=f"{path.name}:{error.lineno}",
            remedy="mend the line; nothing was run",
        ) from None
    raise ByoaError(
        "ALGORITHM_MISSING", f"{path.name} has no class that derives from Algorithm",
        expected="`from byoa.algorithms import Algorithm` and a class of it",
    )


def _search_path(folder: Path) -> dict[str, str]:
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{before}" if before else str(folder)}


def _link_channel(layout: Layout, name: str, path: Path) -> None:
    if not path.exists():
        raise ByoaError("CHANNEL_MISSING", f"channel {name!r}: {path} does not exist")
    directory = layout.channel(name)
    if path.is_dir():
        directory.symlink_to(path.resolve())
    else:
        directory.mkdir(parents=True)
        (directory / path.name).symlink_to(path.resolve())


def _pairs(values: list[str], option: str, example: str) -> dict[str, str]:
    for each in values:
        if "=" not in each:
            raise ByoaError(
                "OPTION_INVALID", f"{option} {each!r} has no '='", expected=f"{option} {example}"
            )
    return dict(each.split("=", 1) for each in values)
