"""Checks of the programs that an image starts, and of what they need: nothing of it is run."""

from __future__ import annotations

import posixpath
import re

from byoa.container.contract import ROOT
from byoa.local.check import image_programs as image
from byoa.local.check.checks import Verdict, check, failed, passed, skipped
from byoa.local.check.image_checks import facts_of
from byoa.local.check.image_facts import ImageFacts
from byoa.local.check.trial import Trial

DRIVERS = re.compile(r"/lib(cuda|nvidia-ml)\.so\.\d+\.\d+")
GPU_VARIABLES = ("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES")
UNBUFFERED = re.compile(
    r"flush\s*=\s*True|\.flush\(\)|line_buffering|write_through|PYTHONUNBUFFERED|import logging"
)


@check(
    "train-or-serve-found",
    clause="TRAIN-01, TRAIN-07, HOST-01, TRAP-01, TRAP-11",
    group="image",
    title="What the service starts is in the image, outside /opt/ml",
    cure="give the image an ENTRYPOINT in exec form that takes `train` and `serve`, or put"
    " executables of these names on PATH",
)
def found(trial: Trial) -> Verdict:
    facts = facts_of(trial)
    missing = image.missing(facts)
    hidden = image.hidden(facts)
    if hidden is not None:
        return failed(
            f"{hidden.path} is what the image starts, and the service mounts over {ROOT}: at run"
            " time it is not there",
            cure="put the programs, PATH and WORKDIR elsewhere, such as /opt/program; only data,"
            " configuration and the model are below /opt/ml",
        )
    path = facts.environment.get("PATH") or image.DEFAULT_PATH
    if facts.entrypoint and missing:
        where = "" if "/" in missing[0] else f" on PATH ({path})"
        return failed(f"ENTRYPOINT {list(facts.entrypoint)}: there is no {missing[0]}{where}")
    if len(missing) == len(image.COMMANDS):
        return failed(
            "there is no ENTRYPOINT, and neither `train` nor `serve` is on PATH: the container"
            " ends with 127", evidence=f"PATH={path}",
        )
    if missing:
        return passed(f"no ENTRYPOINT and no `{missing[0]}`: the image does only the other")
    return passed()


@check(
    "programs-executable",
    clause="TRAP-02",
    group="image",
    title="The programs that are started may be executed",
    cure="RUN chmod +x on them, or keep the bit in git: git update-index --chmod=+x FILE",
    needs=("train-or-serve-found",),
)
def executable(trial: Trial) -> Verdict:
    facts = facts_of(trial)
    for each in image.programs(facts):
        if each.direct and not each.entry.mode & 0o111:
            return failed(f"{each.entry.path} has mode {each.entry.permissions}: starting it says"
                          " `permission denied`, exit code 126")
    return passed(_names(facts))


@check(
    "programs-have-unix-lines",
    clause="TRAP-02",
    group="image",
    title="Scripts that are started end their lines in LF",
    cure="save them with LF, and keep git from changing it: `* text eol=lf` in .gitattributes",
    needs=("train-or-serve-found",),
)
def unix_lines(trial: Trial) -> Verdict:
    facts = facts_of(trial)
    for each in image.programs(facts):
        text = facts.files.read(each.entry.path)
        lines = text.split(b"\n")
        if text.startswith(b"#!") and each.direct and lines[0].endswith(b"\r"):
            return failed(f"{each.entry.path}: the first line ends in CRLF, so that the kernel"
                          f" looks for {lines[0][2:].decode('utf-8', 'replace')!r}")
        by_shell = each.shell or _run_by_shell(facts, each)
        if by_shell:
            for number, line in enumerate(lines, 1):
                if line.endswith(b"\r"):
                    return failed(f"{each.entry.path}:{number} ends in CRLF, which a shell takes"
                                  " for a part of the command")
    return passed(_names(facts))


def _run_by_shell(facts: ImageFacts, program: image.Program) -> bool:
    words = image.shebang(facts, program)
    return bool(words) and image.is_shell(image.interpreter(words or [""]))


@check(
    "interpreters-exist",
    clause="TRAP-02, TRAP-04",
    group="image",
    title="The programs that are started have an interpreter or loader in the image",
    cure="begin a script with `#!` and a program that the image has; build a binary for the C"
    " library and the processor of the image",
    needs=("train-or-serve-found",),
)
def interpreters(trial: Trial) -> Verdict:
    facts = facts_of(trial)
    for each in image.programs(facts):
        path = each.entry.path
        if not each.direct or not each.entry.size:
            continue
        words = image.shebang(facts, each)
        if words:
            needed = [words[0], image.interpreter(words)]
            for name in needed:
                if image.find(facts, name) is None:
                    return failed(f"{path} begins with `#!{' '.join(words)}`, and the image has no"
                                  f" {name}")
            continue
        binary = image.elf(facts.files.read(path, image.HEAD_BYTES))
        if binary is None:
            return failed(f"{path} is no binary and its first line is no `#!`: starting it says"
                          " `exec format error`")
        if binary.architecture != facts.architecture:
            return failed(f"{path} is a binary for {binary.architecture} in an image for"
                          f" {facts.architecture}")
        if binary.loader and facts.files.resolve(binary.loader) is None:
            return failed(f"{path} needs the loader {binary.loader}, and the image has none:"
                          " starting it says `no such file or directory`")
    return passed(_names(facts))


@check(
    "readable-by-everyone",
    clause="SLS-04, TRAP-41",
    group="image",
    level="warning",
    title="Everyone may read the programs and what is beside them",
    cure="RUN chmod -R o+rX on the program's folder: a serverless endpoint does not run with root's"
    " rights",
    needs=("train-or-serve-found",),
)
def readable(trial: Trial) -> Verdict:
    facts = facts_of(trial)
    paths = {each.entry.path for each in image.programs(facts)}
    paths |= {path for path, _ in image.sources(facts)}
    for path in sorted(paths):
        for each in (*_parents(path), path):
            entry = facts.files.resolve(each)
            needed = 0o005 if entry is not None and entry.is_directory else 0o004
            if entry is not None and entry.mode & needed != needed:
                return failed(f"{each} has mode {entry.permissions}: only its owner may read it")
    return passed(_names(facts))


def _parents(path: str) -> list[str]:
    found = []
    while (path := posixpath.dirname(path)) != "/":
        found.append(path)
    return found[::-1]


@check(
    "python-unbuffered",
    clause="TRAP-27, TRAIN-190",
    group="image",
    level="warning",
    title="Python's output comes line by line",
    cure="ENV PYTHONUNBUFFERED=1: metrics and logs else come late, and are lost when the container"
    " is killed",
    needs=("train-or-serve-found",),
)
def unbuffered(trial: Trial) -> Verdict:
    facts = facts_of(trial)
    if not image.uses_python(facts):
        return skipped("what the image starts is no Python program")
    if facts.environment.get("PYTHONUNBUFFERED"):
        return passed("PYTHONUNBUFFERED is set")
    if "-u" in facts.entrypoint:
        return passed("python -u")
    for path, text in image.sources(facts):
        match = UNBUFFERED.search(text)
        if match:
            return passed(f"{path}: {match[0]}")
    return failed("PYTHONUNBUFFERED is not set, and nothing in the code writes its lines at once")


def _names(facts: ImageFacts) -> str:
    return ", ".join(each.entry.path for each in image.programs(facts))


# --- GPUs ---------------------------------------------------------------------------------------


@check(
    "no-gpu-driver",
    clause="HW-01",
    group="image",
    title="The image brings no GPU driver of its own",
    cure="remove the driver's packages: the host puts its own driver into the container",
)
def no_driver(trial: Trial) -> Verdict:
    facts = facts_of(trial)
    drivers = [each.path for each in facts.files
               if DRIVERS.search(each.path) and "/stubs/" not in each.path
               and "/compat/" not in each.path]
    if drivers:
        return failed(f"{drivers[0]} is a part of a driver, and hides the host's",
                      evidence="\n".join(drivers[:10]))
    return passed()


@check(
    "gpu-variables-set",
    clause="HW-01, HW-03, CHK-17",
    group="image",
    level="warning",
    title="An image with CUDA asks for the host's GPUs",
    cure="ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility",
)
def gpu_variables(trial: Trial) -> Verdict:
    facts = facts_of(trial)
    runtime = facts.cuda_runtime
    if runtime is None:
        return skipped("the image has no CUDA")
    for name in GPU_VARIABLES:
        if not facts.environment.get(name):
            return failed(f"{name} is not set, and {runtime} is CUDA's runtime: the container sees"
                          " no GPU")
    capabilities = facts.environment[GPU_VARIABLES[1]].split(",")
    if "all" not in capabilities and not {"compute", "utility"} <= set(capabilities):
        return failed(f"NVIDIA_DRIVER_CAPABILITIES is {','.join(capabilities)}, without compute or"
                      " utility")
    return passed(runtime)
