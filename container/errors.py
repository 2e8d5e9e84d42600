"""Errors as data: a stable code, what happened, where, what was expected, what to do.

    ByoaError                  the base; carries the five fields
    ├── ContractError          a file or variable of the platform is missing or malformed
    ├── HyperparameterError    a hyperparameter is unknown, ill-typed or out of range
    ├── DataError              a channel, record or column that does not decode or fit
    ├── AlgorithmError         the algorithm or model cannot be found, loaded or saved
    ├── PeerError              another host of the job has ended, or does not come
    └── UnsupportedError       asked for something that byoa does not run

`failure_report` renders any exception for /opt/ml/output/failure: cause and the user's line first,
short enough that the service shows it whole, so that it is what the author needs (TRAIN-141).
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence

FAILURE_LIMIT_CHARACTERS = 1024
# The service's own words around the text count towards its limit (TRAIN-142).
REPORT_LIMIT_CHARACTERS = FAILURE_LIMIT_CHARACTERS - len("AlgorithmError: , exit code: 255")


class ByoaError(Exception):
    """An error for a human, carried whole to the log, the failure file and the HTTP answer.

    `code` is stable and documented; `where` names file, line, record or column; `expected` and
    `remedy` are sentences without a full stop.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.where = where
        self.expected = expected
        self.remedy = remedy

    def __str__(self) -> str:
        parts = [f"{self.where}: {self.message}" if self.where else self.message]
        if self.expected:
            parts.append(f"expected: {self.expected}")
        if self.remedy:
            parts.append(f"to do: {self.remedy}")
        return "; ".join(parts) + f" [{self.code}]"

    def to_json(self) -> dict[str, str]:
        """The fields that are set, for an HTTP body or a structured log line."""
        fields = {
            "code": self.code,
            "message": self.message,
            "where": self.where,
            "expected": self.expected,
            "remedy": self.remedy,
        }
        return {name: value for name, value in fields.items() if value is not None}


class ContractError(ByoaError):
    """The platform's side of the contract is not as written."""


class HyperparameterError(ByoaError):
    """One or several hyperparameters are wrong; the message lists them all."""


class DataError(ByoaError):
    """Input that does not decode, or does not fit the model."""


class AlgorithmError(ByoaError):
    """The algorithm or its model cannot be found, loaded or saved."""


class PeerError(ByoaError):
    """Another host of the job has ended, or does not come: this one cannot go on alone."""


class UnsupportedError(ByoaError):
    """A request for something that is not run here; `remedy` names the nearest that is."""


def text_of(error: BaseException) -> str:
    """What str(error) says, or that it cannot: a broken __str__ must not hide the failure, nor end
    the thread that tells of it."""
    try:
        return str(error).strip()
    except Exception as unprintable:
        return _unprintable(unprintable)


def _unprintable(error: Exception) -> str:
    return f"(its message cannot be printed: {type(error).__name__})"


# --- the failure report ---------------------------------------------------------------------------


def user_frame(error: BaseException) -> traceback.FrameSummary | None:
    """The innermost frame in the author's own code: neither byoa's, a library's nor Python's."""
    return _pick(traceback.extract_tb(error.__traceback__), built_in=True)


def _pick(
    frames: Sequence[traceback.FrameSummary], *, built_in: bool
) -> traceback.FrameSummary | None:
    """The author's innermost frame; else, where `built_in` frames are asked for, a built-in
    algorithm's; else, for an author whose code is installed, the outermost library frame, which is
    the one that byoa called."""
    theirs = [frame for frame in frames if not _is_foreign(frame.filename)]
    if theirs:
        return theirs[-1]
    ours = [frame for frame in frames if frame.filename.startswith(_BUILT_IN)]
    if ours:
        return ours[-1] if built_in else None
    return next((f for f in frames if not f.filename.startswith((*_OWN, *_PYTHON))), None)


_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_BUILT_IN = os.path.join(_ROOT, "algorithms", "")
_OWN = tuple(os.path.join(_ROOT, name, "") for name in ("container", "serve", "local"))
_LIBRARIES = ("site-packages", "dist-packages")
_STANDARD = os.path.dirname(os.__file__)
_PYTHON = ("<frozen", os.path.join(_STANDARD, ""))
# How byoa and Python come to the author's code says nothing about a mistake in it.
_PLUMBING = (
    *_OWN,
    os.path.join(_BUILT_IN, "registry.py"),
    "<frozen importlib",
    "<frozen runpy",
    os.path.join(_STANDARD, "importlib", ""),
    os.path.join(_STANDARD, "runpy.py"),
)


def _is_foreign(filename: str) -> bool:
    return filename.startswith((*_OWN, _BUILT_IN, *_PYTHON)) or any(
        part in _LIBRARIES for part in filename.split(os.sep)
    )


def failure_report(error: BaseException, *, note: str = "") -> str:
    """What goes into the failure file: `ValueError: … at train.py:42 in fit: <source line>`, the
    chain of causes, `note`, then as many of the traceback's last frames as fit, in whole lines.

    One of byoa's own errors is its message; its class is the code's business.
    """
    # One of byoa's own has no traceback to leave room for.
    lines = [_headline(error, 700 if isinstance(error, ByoaError) else 500)]
    lines += [f"caused by {_headline(cause, 250)}" for cause in _causes(error)]
    if note:
        lines.insert(1, note[:250])
    head = _whole_lines("\n".join(lines), REPORT_LIMIT_CHARACTERS)
    if not isinstance(error, ByoaError):
        head = _with_traceback(head, error)
    return head.encode("utf-8", "replace").decode("utf-8")


def _whole_lines(text: str, limit: int) -> str:
    """The first lines of `text`, in `limit` characters; a first line that is longer is cut."""
    if len(text) <= limit:
        return text
    whole, end, _ = text[: limit + 1].rpartition("\n")
    return whole if end else text[:limit]


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    seen = {id(error)}
    while len(found) < 3:
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is None or id(cause) in seen:
            break
        seen.add(id(cause))
        found.append(cause)
        error = cause
    return found


def _with_traceback(head: str, error: BaseException) -> str:
    title = "\n\nTraceback (end):\n"
    room = REPORT_LIMIT_CHARACTERS - len(head) - len(title)
    trace = ""
    for text in reversed(_telling(traceback.extract_tb(error.__traceback__)).format()):
        if len(text) + len(trace) > room:
            break
        trace = text + trace
    return f"{head}{title}{trace.rstrip()}" if trace else head


def _telling(frames: traceback.StackSummary) -> traceback.StackSummary:
    """The frames of the author, of libraries, and of a built-in algorithm that the author runs."""
    authored = any(not _is_foreign(frame.filename) for frame in frames)
    hidden = (*_PLUMBING, _BUILT_IN) if authored else _PLUMBING
    return traceback.StackSummary.from_list(
        [frame for frame in frames if not frame.filename.startswith(hidden)]
    )


def _headline(error: BaseException, limit: int) -> str:
    """Class, message and place in about `limit` characters; the place is never cut away. The
    service puts `AlgorithmError: ` before it, so that byoa's class of that name would show twice.
    """
    place = _place(error)
    text = _message(error)
    if len(text) > limit:
        text = _shorten(error, text, limit)
    name = type(error).__name__
    if isinstance(error, ByoaError) and text:
        head = text + place
    else:
        head = (f"{name}: {text}" if text else name) + place
    members: Sequence[BaseException] = getattr(error, "exceptions", ())
    for member in [each for each in members if isinstance(each, BaseException)][:3]:
        head += f"\n- {_headline(member, limit // 3)}"
    return head


def _shorten(error: BaseException, text: str, limit: int) -> str:
    """About `limit` characters of `text`, from its front; of byoa's own errors the message alone is
    cut, so that what to do stays."""
    if isinstance(error, ByoaError):
        room = len(error.message) - (len(text) - limit)
        if room >= 80:
            return text.replace(error.message, f"{error.message[:room].rstrip()} …", 1)
    return f"{text[:limit].rstrip()} …"


def _message(error: BaseException) -> str:
    try:
        text = str(error.msg).strip() if isinstance(error, SyntaxError) else text_of(error)
        notes = getattr(error, "__notes__", None) or ()
        return "\n".join([text, *map(str, notes)]).strip()
    except Exception as unprintable:
        return _unprintable(unprintable)


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        source = f": {error.text.strip()[:100]}" if isinstance(error.text, str) else ""
        return f" at {os.path.basename(str(error.filename))}:{error.lineno}{source}"
    # A line of byoa's that raises byoa's own error tells nobody anything.
    frames = traceback.extract_tb(error.__traceback__)
    frame = _pick(frames, built_in=not isinstance(error, ByoaError))
    if frame is None:
        return ""
    source = f": {frame.line.strip()[:100]}" if frame.line else ""
    return f" at {os.path.basename(frame.filename)}:{frame.lineno} in {frame.name}{source}"
