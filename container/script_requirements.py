"""What a script needs besides its own code: requirements.txt, or the package that the source is.

pip installs it before the start (TK-12) into an environment of the job's own. A directory
`wheelhouse` in the source is where it takes everything from, without a network; where no index can
be reached, only what is there already will do, and the error says so in seconds (TRAP-52).
"""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from byoa.container.errors import AlgorithmError
from byoa.container.overlay import Overlay
from byoa.container.script_entry import Entry
from byoa.container.script_index import CODEARTIFACT_VARIABLE, Index, codeartifact, look
from byoa.container.supervisor import Exit, run

FILE = "requirements.txt"
WHEELHOUSE = "wheelhouse"
WHEELS = f"`pip download --dest {WHEELHOUSE} -r {FILE}` in its directory"
TAIL_LINES = 400  # of pip's output, for the error
# Of what pip says is wrong, before and after the cure, so that FailureReason has room for all.
FIRST_CHARACTERS, REST_CHARACTERS = 200, 220
OFFLINE_OPTIONS = ("--no-index", "--retries", "0", "--timeout", "5")


@dataclass(frozen=True)
class Installed:
    """What runs the script: a Python, and variables by which its programs are found; `stopped`
    where SIGTERM came first."""

    python: str
    variables: dict[str, str]
    stopped: bool = False


def install(
    entry: Entry, code: Path, environ: Mapping[str, str], directory: Path,
    say: Callable[[str], None],
) -> Installed:
    """Install what `entry` needs into `directory`; raises AlgorithmError where that fails."""
    what = ["."] if entry.kind == "package" else []
    names = ["the package in the source"] if what else []
    if (code / FILE).is_file():
        what += ["-r", FILE]
        names.append(FILE)
    name = " and ".join(names)
    overlay = Overlay(directory)
    env = {
        **environ, **overlay.variables(environ),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore", "PIP_NO_INPUT": "1",
    }
    house = code / WHEELHOUSE
    index = Index(offline=True)
    options: tuple[str, ...] = ()
    if house.is_dir():
        options = ("--no-index", "--find-links", str(house))
        say(f"installing {name} from the source's {WHEELHOUSE} alone")
    else:
        env |= codeartifact(env) if env.get(CODEARTIFACT_VARIABLE) else {}
        index = look(overlay.python, code / FILE, env)
        if index.unreachable is not None:
            options = OFFLINE_OPTIONS
            say(f"no package index can be reached ({index.unreachable}): {name} must be met by what"
                " the image has")
        else:
            say(f"installing {name}")
    without = index.offline or index.unreachable is not None
    if entry.kind == "package" and without and _builds_here(house):
        options += ("--no-build-isolation",)  # with the image's own setuptools
    tail: deque[str] = deque(maxlen=TAIL_LINES)

    def on_line(line: str) -> None:
        tail.append(line)
        say(line)

    ended = run(
        [overlay.python, "-m", "pip", "install", *options, *what],
        env=env, cwd=code, on_line=on_line,
    )
    if ended.code != 0 and not ended.stopped:
        words = _Words.of(list(tail))
        raise _failed(ended, words, name, index.unreachable, house.is_dir()) from words.rest
    if not ended.stopped:
        say(f"{name} installed in {ended.seconds:.1f} s")
    return Installed(overlay.python, overlay.variables(environ), ended.stopped)


def _builds_here(house: Path) -> bool:
    """Whether a package is to be built by the image's setuptools, the wheelhouse having none."""
    return importlib.util.find_spec("setuptools") is not None and not any(
        house.glob("setuptools-*")
    )


class PipError(Exception):
    """The end of pip's own words: in a report it comes after what to do."""


@dataclass(frozen=True)
class _Words:
    """What pip says of its failure: its first error, shortened, and the end of all of them."""

    first: str
    rest: PipError | None  # None where `first` is all

    @classmethod
    def of(cls, lines: list[str]) -> _Words:
        wrong = [line for line in lines if line.startswith("ERROR:")] or lines[-3:] or ["no word"]
        first, whole = wrong[0], " ".join(wrong)
        if len(first) > FIRST_CHARACTERS:
            first = f"{first[:FIRST_CHARACTERS].rstrip()} …"
        left = whole[len(first) :].strip()
        if len(left) > REST_CHARACTERS:
            left = f"… {left[-REST_CHARACTERS:].lstrip()}"
        return cls(first, PipError(left) if left else None)


def _failed(
    ended: Exit, words: _Words, name: str, unreachable: str | None, house: bool
) -> AlgorithmError:
    message = f"pip ended with code {ended.code}: {words.first}"
    if unreachable is not None:
        return AlgorithmError(
            "REQUIREMENTS_UNREACHABLE", f"no package index can be reached from here"
            f" ({unreachable[:120]}), and the image does not meet them: {words.first}",
            where=name,
            expected="what the image has, or a network: with EnableNetworkIsolation, or in a VPC"
            " without a NAT gateway, there is none",
            remedy=f"put them into the image, or their wheels into the source: {WHEELS}",
        )
    if house:
        return AlgorithmError(
            "REQUIREMENTS_FAILED", message, where=name,
            expected=f"all that is needed as wheels in the source's {WHEELHOUSE}, for the"
            " container's Python and platform",
            remedy=f"fill it by {WHEELS}, in this image or with --platform and --python-version",
        )
    return AlgorithmError(
        "REQUIREMENTS_FAILED", message, where=name,
        expected="requirements that can be installed from where the container runs",
        remedy=f"correct them, or put them into the image or a {WHEELHOUSE}: {WHEELS}",
    )
