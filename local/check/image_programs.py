"""The programs with which an image starts: found as the kernel and `docker run` find them."""

from __future__ import annotations

import posixpath
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from byoa.container.contract import ROOT
from byoa.local.check.image_facts import ImageFacts
from byoa.local.check.image_files import Entry

SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh"})
COMMANDS = ("train", "serve")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HEAD_BYTES = 64 << 10  # of a binary: its header and the name of its loader
PROGRAM_FILES = 400  # of the folder in which the programs are: more is no author's code
SOURCE_BYTES = 1 << 20
FOLDER_BYTES = 64 << 20  # of a folder that is read for its sources

_PYTHON = re.compile(r"python(\d+(\.\d+)*)?")
_MACHINES = {62: "amd64", 183: "arm64", 3: "386", 40: "arm"}


@dataclass(frozen=True)
class Program:
    """One program that is run: by the kernel, or by the interpreter before it."""

    name: str  # as ENTRYPOINT, a shebang or the service names it
    entry: Entry  # the file that it is, links followed
    direct: bool  # run by the kernel: needs the executable bit
    shell: bool  # run by a shell: its lines must not end in CR


def is_python(name: str) -> bool:
    return _PYTHON.fullmatch(posixpath.basename(name)) is not None


def is_shell(name: str) -> bool:
    return posixpath.basename(name) in SHELLS


def find(facts: ImageFacts, name: str, *, hidden: bool = False) -> Entry | None:
    """The file that `name` stands for: a path from WORKDIR, or the first of that name on PATH.

    One that may not be executed is found as well, but after all that may. What the service's mount
    hides is found with `hidden` alone.
    """
    files = facts.files
    if "/" in name:
        found = files.resolve(posixpath.join(facts.workdir or "/", name))
        return found if _is_there(found, hidden) else None
    path = facts.environment.get("PATH") or DEFAULT_PATH
    matches = [
        found
        for folder in path.split(":")
        if (found := files.resolve(posixpath.join(folder or "/", name)))
        and _is_there(found, hidden)
    ]
    return next((each for each in matches if each.mode & 0o111), matches[0] if matches else None)


def _is_there(entry: Entry | None, hidden: bool) -> bool:
    if entry is None or not entry.is_file:
        return False
    return hidden or not entry.path.startswith(f"{ROOT}/")


def hidden(facts: ImageFacts) -> Entry | None:
    """The program that would be started if the service did not mount over it (TRAIN-07)."""
    found = (find(facts, name, hidden=True) for name in missing(facts))
    return next((each for each in found if each is not None), None)


def missing(facts: ImageFacts) -> list[str]:
    """What the service would start and the container does not have."""
    if facts.entrypoint:
        names = [facts.entrypoint[0]]
        script = script_of(facts.entrypoint)
        if script is not None:
            names.append(posixpath.join(facts.workdir or "/", script))
    else:
        names = list(COMMANDS)
    return [name for name in names if find(facts, name) is None]


def script_of(argv: tuple[str, ...]) -> str | None:
    """The script that an interpreter at the start of `argv` is given; None for none."""
    if not (is_python(argv[0]) or is_shell(argv[0])):
        return None
    python = is_python(argv[0])
    parts = iter(argv[1:])
    for part in parts:
        if part == "-c" or (python and part == "-m"):
            return None
        if part in (("-W", "-X") if python else ("-o", "-O", "+O")):
            next(parts, None)  # its value
        elif not part.startswith("-"):
            return part
    return None


def programs(facts: ImageFacts) -> list[Program]:
    """The programs that `docker run IMAGE train` and `… serve` start, without interpreters."""
    found: dict[str, Program] = {}

    def add(name: str, *, direct: bool, shell: bool = False) -> None:
        entry = find(facts, name)
        if entry is not None:
            found.setdefault(entry.path, Program(name, entry, direct, shell))

    if facts.entrypoint:
        add(facts.entrypoint[0], direct=True)
        script = script_of(facts.entrypoint)
        if script is not None:
            path = posixpath.join(facts.workdir or "/", script)
            add(path, direct=False, shell=is_shell(facts.entrypoint[0]))
    # An entry script often ends in `exec "$@"`, so that these two are run beside an ENTRYPOINT too.
    for name in COMMANDS:
        add(name, direct=True)
    return list(found.values())


def shebang(facts: ImageFacts, program: Program) -> list[str] | None:
    """The words of a `#!` line, without a carriage return at its end; None where there is none."""
    head = facts.files.read(program.entry.path, 512)
    if not head.startswith(b"#!"):
        return None
    return head[2:].split(b"\n")[0].decode("utf-8", "replace").strip().split()


def interpreter(words: list[str]) -> str:
    """The program that a `#!` line means: with `env` the one that it looks for on PATH."""
    if posixpath.basename(words[0]) == "env":
        return next((each for each in words[1:] if not each.startswith("-") and "=" not in each),
                    words[0])
    return words[0]


@dataclass(frozen=True)
class Elf:
    """What the header of a binary says."""

    architecture: str
    loader: str | None  # the dynamic loader; None for a static binary


def elf(head: bytes) -> Elf | None:
    """The header of an ELF binary; None for anything else."""
    if head[:4] != b"\x7fELF" or len(head) < 64:
        return None
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    machine = struct.unpack_from(f"{order}H", head, 18)[0]
    if wide:
        start, = struct.unpack_from(f"{order}Q", head, 32)
        size, count = struct.unpack_from(f"{order}HH", head, 54)
    else:
        start, = struct.unpack_from(f"{order}I", head, 28)
        size, count = struct.unpack_from(f"{order}HH", head, 42)
    loader = None
    for number in range(count):
        at = start + number * size
        if at + size > len(head):
            break
        if struct.unpack_from(f"{order}I", head, at)[0] != 3:  # PT_INTERP
            continue
        if wide:
            offset, length = (struct.unpack_from(f"{order}Q", head, at + 8)[0],
                              struct.unpack_from(f"{order}Q", head, at + 32)[0])
        else:
            offset, length = (struct.unpack_from(f"{order}I", head, at + 4)[0],
                              struct.unpack_from(f"{order}I", head, at + 16)[0])
        loader = head[offset:offset + length].rstrip(b"\0").decode("utf-8", "replace")
    return Elf(_MACHINES.get(machine, f"machine {machine}"), loader)


def uses_python(facts: ImageFacts) -> bool:
    """Whether a Python program is what the image starts."""
    if facts.entrypoint and is_python(facts.entrypoint[0]):
        return True
    return any(
        (words := shebang(facts, each)) and is_python(interpreter(words))
        for each in programs(facts)
    )


def sources(facts: ImageFacts) -> Iterator[tuple[str, str]]:
    """Path and text of the author's code: the files beside the programs, or of the module that
    `python -m` runs. System folders and large trees are left out."""
    folders = {posixpath.dirname(each.entry.path) for each in programs(facts)}
    folders = {each for each in folders if not _is_system(each)}
    if facts.workdir not in ("", "/"):
        folders.add(facts.workdir)
    module = _module(facts)
    if module is not None:
        folders.add(module)
    seen: set[str] = set()
    for folder in sorted(folders):
        below = facts.files.below(folder)
        wanted = {each.path for each in below
                  if each.is_file and each.size <= SOURCE_BYTES and _is_source(each.path)} - seen
        if len(wanted) <= PROGRAM_FILES and sum(each.size for each in below) <= FOLDER_BYTES:
            seen |= wanted
            yield from facts.files.texts(folder, wanted)


def _is_system(folder: str) -> bool:
    """A folder of the base image or of an environment, which holds nobody's own code."""
    return folder in ("", "/") or folder.endswith("/bin") or folder.startswith(
        ("/usr/", "/bin/", "/sbin", "/lib", "/etc", "/opt/conda/"))


def _is_source(path: str) -> bool:
    name = posixpath.basename(path)
    return name.endswith((".py", ".sh", ".conf", ".toml", ".ini", ".cfg")) or "." not in name


def _module(facts: ImageFacts) -> str | None:
    """The folder of the package that `python -m package` of ENTRYPOINT runs."""
    argv = facts.entrypoint
    if not argv or not is_python(argv[0]) or "-m" not in argv[:-1]:
        return None
    name = argv[argv.index("-m") + 1].replace(".", "/")
    ends = (f"/{name}/__main__.py", f"/{name}.py")
    found = sorted(each.path for each in facts.files if each.path.endswith(ends))
    return posixpath.dirname(found[0]) if found else None
