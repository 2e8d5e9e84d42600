"""A program of byoa's own image that is started ahead of its container (`byoa.container.warm`).

Its shim reads from a pipe of this process which container it becomes. The pipe's end is the
program's, too: however this process ends, none is left behind.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from byoa.container.errors import ByoaError
from byoa.local.runners import shim
from byoa.local.runners.base import Warm

WARM_VARIABLE = "BYOA_WARM"  # what `byoa.container.train` looks for
CLOSE_SECONDS = 10.0
# What may differ between a program's environment and its container's: libraries that were imported
# have read all else already.
_OF_THE_JOB = frozenset({"TRAINING_JOB_NAME", "TRAINING_JOB_ARN"})


class WarmProcess(Warm):
    """`terms` are argv and environment as they would be with a real /opt/ml, which no job's place
    on this machine tells apart; `scratch` will be the container's."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        terms: tuple[Sequence[str], Mapping[str, str]],
        cwd: Path,
        scratch: Path,
        boxed: bool,
        isolated: bool,
        machine: Mapping[str, str],
    ) -> None:
        self.scratch = scratch
        self._terms = _lasting(*terms)
        self._boxed, self._isolated = boxed, isolated
        self._lock = threading.Lock()
        self._taken = False
        with open(scratch / "shim.err", "wb") as errors:
            # Blocked until the shim has a child to pass them to, as of every other shim.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {shim.TERMINATE, shim.KILL})
            try:
                self._process = subprocess.Popen(  # noqa: S603 - an argv of our own
                    [sys.executable, "-m", shim.__name__], env=dict(machine), cwd=scratch,
                    stdin=subprocess.PIPE, stdout=errors, stderr=errors, start_new_session=True,
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._tell({
            "argv": list(argv), "environment": {**environment, WARM_VARIABLE: "1"},
            "cwd": str(cwd), "scratch": str(scratch), "sandbox": boxed, "isolated": isolated,
        })

    def fits(
        self, terms: tuple[Sequence[str], Mapping[str, str]], *, boxed: bool, isolated: bool
    ) -> bool:
        """Whether it still waits, and would be started in the same way."""
        return (
            self._process.poll() is None
            and (self._boxed, self._isolated) == (boxed, isolated)
            and self._terms == _lasting(*terms)
        )

    def become(self, directory: Path) -> subprocess.Popen[bytes] | None:
        """Let it be the container of `directory`; its shim, or None where it has ended before."""
        with self._lock:
            if self._taken:
                return None
            self._taken = True
        stream = self._process.stdin
        try:
            if stream is not None:
                stream.write(f"{directory}\n".encode())
                stream.close()
        except OSError:
            self._reap()
            return None
        return self._process

    def close(self) -> None:
        with self._lock:
            if self._taken:
                return
            self._taken = True
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        threading.Thread(target=self._reap, name="warm-close", daemon=True).start()

    def _tell(self, document: Mapping[str, object]) -> None:
        stream = self._process.stdin
        try:
            if stream is not None:
                stream.write(f"{json.dumps(document)}\n".encode())
                stream.flush()
        except OSError as error:
            self.close()
            raise ByoaError(
                "WARM_NOT_STARTED", f"a program cannot be started ahead of its container: {error}"
            ) from None

    def _reap(self) -> None:
        """Wait for its end, and remove what it had."""
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)


def _lasting(
    argv: Sequence[str], environment: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    kept = {name: value for name, value in environment.items() if name not in _OF_THE_JOB}
    return list(argv), kept
