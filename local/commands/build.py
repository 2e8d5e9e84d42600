"""`byoa build` and `byoa push`: an image of a folder, and its way to Amazon ECR.

Both run build_and_push.sh, which people also copy into projects of their own and run without byoa:
the work is written there once. What is added here is a Dockerfile for a folder that has none.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from byoa.container.contract import ALGORITHM_VARIABLE
from byoa.container.errors import ByoaError
from byoa.local.commands.options import command

SCRIPT = Path(__file__).with_name("build_and_push.sh")
BASE = "byoa:latest"
PROGRAM_FOLDER = "/opt/program"  # the image's working directory, where Python looks first


def add(commands: Any) -> None:
    build = command(
        commands, "build", run_build, help="build an image of a folder, in the engine's own store",
        example="byoa build ./my-algorithm --tag 1.0",
    )
    build.add_argument("context", type=Path, nargs="?", default=Path(),
                       help="a folder with a Dockerfile, or with an algorithm's file (.)")
    build.add_argument("--name", help="the image's name (the folder's)")
    build.add_argument("--tag", help="its tag (latest)")
    build.add_argument("--algorithm", metavar="MODULE:CLASS",
                       help="of a folder without a Dockerfile that has several")
    build.add_argument("--base", help=f"what an image without a Dockerfile is built on ({BASE})")
    build.add_argument("--dockerfile", type=Path, help="another than CONTEXT/Dockerfile")
    build.add_argument("--variant", choices=("cpu", "gpu"),
                       help="of torch, where the Dockerfile has the argument TORCH_VARIANT")
    push = command(
        commands, "push", run_push, help="push an image of the engine to Amazon ECR",
        example="byoa push my-algorithm:1.0 --region eu-west-1",
    )
    push.add_argument("image", nargs="?", default=BASE, help=f"an image of the engine ({BASE})")
    push.add_argument("--name", help="the repository, created where it is missing (the image's)")
    push.add_argument("--tag", help="the tag to push it under (the image's)")
    push.add_argument("--region", help="region (AWS_REGION, then the AWS CLI's)")
    push.add_argument("--account", help="the registry's account (that of the credentials)")
    push.add_argument("--output", help="where the URI is written (image-uri.json)")
    for parser in (build, push):
        parser.add_argument(
            "--platform", choices=("linux/amd64", "linux/arm64"),
            help="the instances' (linux/amd64; arm64 for Graviton)",
        )
        parser.add_argument("--dry-run", action="store_true",
                            help="print the commands; change nothing")


def run_build(args: argparse.Namespace) -> int:
    context: Path = args.context
    if not context.is_dir():
        raise ByoaError(
            "CONTEXT_MISSING", f"{context} is no folder",
            expected="a folder with a Dockerfile, or with an algorithm's file",
        )
    name = args.name or _image_name(context)
    with tempfile.TemporaryDirectory(prefix="byoa-build-") as scratch:
        dockerfile = args.dockerfile
        if dockerfile is None and not (context / "Dockerfile").is_file():
            text = dockerfile_of(context, args.algorithm, args.base or BASE)
            _check_own_name(name, args.tag, args.base or BASE)
            dockerfile = Path(scratch) / "Dockerfile"
            dockerfile.write_text(text, encoding="utf-8")
            print(f"{context} has no Dockerfile; it is built from this one:\n", file=sys.stderr)
            print("".join(f"    {line}\n" for line in text.splitlines()), file=sys.stderr)
        elif args.algorithm or args.base:
            raise ByoaError(
                "OPTION_UNUSED",
                "--algorithm and --base are for a folder without a Dockerfile; this one has one",
                remedy=f"say it there: FROM … and ENV {ALGORITHM_VARIABLE}=module:Class",
            )
        return _run_script(args, "--no-push", name, str(context), dockerfile=dockerfile)


def run_push(args: argparse.Namespace) -> int:
    return _run_script(args, "--image", args.image, *([args.name] if args.name else []))


def dockerfile_of(folder: Path, algorithm: str | None, base: str) -> str:
    """The Dockerfile that makes an image of `base` and of an algorithm's folder."""
    from byoa.local.runners.images import choose_algorithm

    lines = [f"FROM {base}"]
    if (folder / "requirements.txt").is_file():
        lines += [
            "COPY requirements.txt .",
            "RUN python -m pip install --no-cache-dir --requirement requirements.txt",
        ]
    chosen = choose_algorithm(folder, algorithm)
    lines += [f"COPY . {PROGRAM_FOLDER}", f"ENV {ALGORITHM_VARIABLE}={chosen}"]
    return "\n".join(lines) + "\n"


def _image_name(context: Path) -> str:
    """The folder's name in an image's letters."""
    name = re.sub(r"[^a-z0-9]+", "-", context.resolve().name.lower()).strip("-")
    if len(name) < 2:
        raise ByoaError(
            "IMAGE_NAME", f"the name of {context.resolve()} makes no image's name",
            remedy="give one: --name my-algorithm",
        )
    return name


def _check_own_name(name: str, tag: str | None, base: str) -> None:
    if f"{name}:{tag or 'latest'}" == (base if ":" in base else f"{base}:latest"):
        raise ByoaError(
            "IMAGE_NAME", f"the image would replace {base}, which it is built on",
            remedy="give it a name of its own: --name my-algorithm",
        )


def _run_script(
    args: argparse.Namespace, *arguments: str, dockerfile: Path | None = None
) -> int:
    """build_and_push.sh with the options that were given; its exit code."""
    bash = shutil.which("bash")
    if bash is None:
        raise ByoaError(
            "BASH_MISSING", "build_and_push.sh runs in bash, which is not installed",
            remedy="install bash 3.2 or newer",
        )
    if not SCRIPT.is_file():
        raise ByoaError(
            "SCRIPT_MISSING", "this installation of byoa has no build_and_push.sh",
            expected="byoa installed from its wheel or its folder, outside the image",
            remedy="run build_and_push.sh of byoa's folder",
        )
    argv = [bash, str(SCRIPT)]
    for option in ("variant", "platform", "region", "account", "tag", "output"):
        if value := getattr(args, option, None):
            argv += [f"--{option}", value]
    if dockerfile:
        argv += ["--dockerfile", str(dockerfile)]
    if args.dry_run:
        argv.append("--dry-run")
    # The script has the terminal: its progress is to be seen, and Ctrl-C reaches it and the engine.
    ended = subprocess.run([*argv, *arguments], check=False)  # noqa: S603
    return ended.returncode if ended.returncode >= 0 else 128 - ended.returncode
