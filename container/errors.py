"""Errors as data: a stable code, what happened, where, what was expected, what to do.

    ByoaError                  the base; carries the five fields
    ├── ContractError          a file or variable of the platform is missing or malformed
    ├── HyperparameterError    a hyperparameter is unknown, ill-typed or out of range
    ├── DataError              a channel, record or column that does not decode or fit
    ├── AlgorithmError         the algorithm or model cannot be found, loaded or saved
    └── UnsupportedError       asked for something that byoa does not run

`failure_report` renders any exception for /opt/ml/output/failure: cause and the user's line first,
at most 1,024 characters, so that what the service shows is what the author needs (TRAIN-141).
"""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path

FAILURE_LIMIT_CHARACTERS = 1024


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


class UnsupportedError(ByoaError):
    """A request for something that is not run here; `remedy` names the nearest that is."""


def user_frame(error: BaseException) -> traceback.FrameSummary | None:
    """The innermost frame in the author's own code: neither byoa's, a library's nor Python's."""
    return _pick(traceback.extract_tb(error.__traceback__))


def _pick(frames: Sequence[traceback.FrameSummary]) -> traceback.FrameSummary | None:
    own = os.path.dirname(os.path.abspath(__file__))
    roots = [os.path.dirname(own)] if Path(own).name == "container" else [own]
    foreign = (
        *(os.path.join(root, name) for root in roots for name in ("container", "serve", "local")),
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("purelib"),
        sysconfig.get_path("platlib"),
        "<frozen",
    )
    theirs = [frame for frame in frames if not frame.filename.startswith(foreign)]
    built_in = os.path.join(roots[0], "algorithms")
    return next(
        iter([f for f in reversed(theirs) if not f.filename.startswith(built_in)]
             or [f for f in reversed(frames) if f.filename.startswith(built_in)]
             or []),
        None,
    )


def failure_report(error: BaseException, *, note: str = "") -> str:
    """What goes into the failure file: `ValueError: … at train.py:42 in fit: <source line>`, the
    chain of causes, then as much of the traceback's end as fits in 1,024 characters."""
    lines = [_headline(error)]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        lines.append(f"caused by {_headline(cause)}")
    if note:
        lines.append(note)
    head = "\n".join(lines)
    if isinstance(error, ByoaError):
        return head[:FAILURE_LIMIT_CHARACTERS]
    trace = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    room = FAILURE_LIMIT_CHARACTERS - len(head) - len("\n\nTraceback (end):\n")
    if room < 80:
        return head[:FAILURE_LIMIT_CHARACTERS]
    if len(trace) > room:
        trace = trace[-room:]
        trace = trace[trace.find("\n") + 1:]
    return f"{head}\n\nTraceback (end):\n{trace}"


def _headline(error: BaseException) -> str:
    text = str(error).strip()
    name = type(error).__name__
    head = f"{name}: {text}" if text else name
    frame = user_frame(error)
    if frame is None:
        return head[:700]
    place = f"{os.path.basename(frame.filename)}:{frame.lineno} in {frame.name}"
    return f"{head[:600]} at {place}: {(frame.line or '').strip()[:100]}"
