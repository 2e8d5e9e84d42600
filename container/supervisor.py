"""The one way to run a child process: own group, every line of output, signals, a truthful exit.

Used by script mode, distributed launch, the process runner and the server. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from byoa.container.hardware import oom_kills

LINE_LIMIT_BYTES = 256 * 1024  # a longer line is delivered in pieces
READ_BYTES = 64 * 1024
DRAIN_SECONDS = 5.0  # for processes that the child left behind to finish writing
LAST_LINES_SECONDS = 30.0  # for a slow `on_line` to take what is already in the pipe
REST_BYTES = 1 << 20  # at most the largest pipe's content, after everybody has been killed
POLL_SECONDS = 0.05  # only where the kernel has no pidfd
# At most, for whoever handles signals while it waits: one that comes just before the wait begins
# does not interrupt it.
SIGNAL_SECONDS = 0.5
EXIT_LOST = 255


@dataclass(frozen=True)
class Exit:
    """How a process ended. `code` follows the shell: 0…255, 128 + n for signal n (TRAIN-144)."""

    code: int
    signal: int | None = None
    out_of_memory: bool = False  # the kernel's counter rose, and SIGKILL did not come from us
    seconds: float = 0.0
    peak_rss_bytes: int = 0  # of the child or its largest reaped child; at least our size at fork
    moment: float = 0.0  # epoch seconds of the end; 0 where nobody saw it
    stopped: bool = False  # it had been asked to end before

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Exit:
        known = cls.__dataclass_fields__
        return cls(**{name: value for name, value in document.items() if name in known})


class Supervisor:
    """A child in its own session and process group, its stdout and stderr drained line by line.

    `on_line` is called in one thread, in order, with text without its newline, and before it `tee`
    with the bytes as they come; an exception of either stops the calls, not the draining, and is
    raised by `wait`. When the child has ended, what is left of its group is killed: as in a
    container, nothing outlives the first process. With `group` a signal is for the whole group, of
    which a shell would keep it from those that it waits for; all of them get the grace.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        on_line: Callable[[str], None],
        stop_grace: float = 120.0,
        drain: float = DRAIN_SECONDS,
        tee: Callable[[bytes], None] | None = None,
        group: bool = False,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        self.argv = list(argv)
        self.env = dict(env)
        self.cwd = cwd
        self.stop_grace = stop_grace
        self.drain = drain
        self._stdin = stdin
        self.exit: Exit | None = None
        self._on_line = on_line
        self._tee = tee
        self._group = group
        self._line_error: BaseException | None = None
        self._child: subprocess.Popen[bytes] | None = None
        # Reentrant, because a signal handler may come in while its own thread holds it.
        self._lock = threading.RLock()
        self._reaped = False
        self._killed = False
        self._kill_at: float | None = None
        self._status: tuple[int, Any] | None = None
        self._drained = threading.Event()
        self._done = threading.Event()

    @property
    def pid(self) -> int:
        if self._child is None:
            raise RuntimeError("the child has not been started")
        return self._child.pid

    def start(self) -> None:
        """Start the child; raises OSError when the program cannot be run."""
        if self._child is not None:
            raise RuntimeError("a supervisor runs one child once")
        oom_before = oom_kills()  # of our own memory cgroup, which the child shares
        self._wake_read, self._wake_write = os.pipe()
        self._halt_read, self._halt_write = os.pipe()
        output, child_output = os.pipe()
        try:
            self._started = time.monotonic()
            self._child = subprocess.Popen(  # noqa: S603 - an argv, never a shell
                self.argv, env=self.env, cwd=self.cwd, stdin=self._stdin,
                stdout=child_output, stderr=child_output, start_new_session=True,
            )
        except BaseException:
            for each in (self._wake_read, self._wake_write, self._halt_read, self._halt_write,
                         output):
                os.close(each)
            raise
        finally:
            os.close(child_output)
        name = f"child-{self.pid}"
        self._reader = threading.Thread(
            target=self._drain_output, args=(output,), name=f"{name}-output", daemon=True
        )
        self._reader.start()
        threading.Thread(target=self._watch, args=(oom_before,), name=name, daemon=True).start()

    def wait(self, timeout: float | None = None) -> Exit | None:
        """The exit once output is drained and the child reaped; None after `timeout` seconds."""
        if not self._done.wait(timeout):
            return None
        if self._line_error is not None:
            error, self._line_error = self._line_error, None
            raise error
        return self.exit

    def send(self, number: int) -> None:
        """Send a signal to the child alone; nothing happens once it has been reaped."""
        with self._lock:
            if not self._reaped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM to the child; SIGKILL to its group `stop_grace` seconds after the first call."""
        self._stop(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the child's whole group; returns at once."""
        with self._lock:
            if not self._reaped:
                self._killed = True
                self._kill_group()

    def _stop(self, number: int) -> None:
        with self._lock:
            if self._reaped:
                return
            if self._group:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, number)
            else:
                self.send(number)
            if self._kill_at is None:
                self._kill_at = time.monotonic() + self.stop_grace
                os.write(self._wake_write, b"!")

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    # --- the watching thread: the grace clock, the exit, the rest of the group ---

    def _watch(self, oom_before: int | None) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            with _pidfd(self.pid) as pidfd:
                if pidfd is not None:
                    selector.register(pidfd, selectors.EVENT_READ)
                while not self._exited():
                    kill_at = None if self._killed else self._kill_at
                    wait = None if pidfd is not None else POLL_SECONDS
                    if kill_at is not None:
                        left = max(0.0, kill_at - time.monotonic())
                        wait = left if wait is None else min(wait, left)
                    if any(key.fd == self._wake_read for key, _ in selector.select(wait)):
                        os.read(self._wake_read, 64)
                    if kill_at is not None and time.monotonic() >= kill_at:
                        self.kill()
        seconds, moment = time.monotonic() - self._started, time.time()
        self._drained.wait(max(self.drain, self._grace_left()))
        with self._lock:
            self._kill_group()  # the zombie still holds the group's number: nobody else is hit
        os.close(self._halt_write)
        self._reader.join(LAST_LINES_SECONDS)
        with self._lock:
            status, usage = self._reap()
            self._reaped = True
            os.close(self._wake_read)
            os.close(self._wake_write)
        self.exit = self._classify(status, usage, oom_before, seconds, moment)
        self._done.set()

    def _grace_left(self) -> float:
        """Seconds that the rest of a group which was asked to end may still take."""
        if not self._group or self._killed or self._kill_at is None:
            return 0.0
        return self._kill_at - time.monotonic()

    def _exited(self) -> bool:
        """Whether the child has ended, without reaping it where the system can tell."""
        try:
            if hasattr(os, "waitid"):
                flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
                return os.waitid(os.P_PID, self.pid, flags) is not None
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self._status = status, usage
            return pid != 0
        except ChildProcessError:  # somebody else in this process has reaped it
            return True

    def _reap(self) -> tuple[int | None, Any]:
        if self._status is None:
            try:
                _, status, usage = os.wait4(self.pid, 0)
                self._status = status, usage
            except ChildProcessError:
                self._set_return_code(EXIT_LOST)
                return None, None
        status, usage = self._status
        self._set_return_code(os.waitstatus_to_exitcode(status))
        return status, usage

    def _set_return_code(self, code: int) -> None:
        """So that Popen neither waits for nor complains about a process that is gone."""
        if self._child is not None:
            self._child.returncode = code

    def _classify(
        self, status: int | None, usage: Any, oom_before: int | None, seconds: float, moment: float
    ) -> Exit:
        if status is None:
            return Exit(EXIT_LOST, seconds=seconds, moment=moment, stopped=self._stopped)
        code = os.waitstatus_to_exitcode(status)
        number = -code if code < 0 else None
        shell_code = 128 + number if number is not None else code
        out_of_memory = False
        if shell_code == 128 + signal.SIGKILL and not self._killed and oom_before is not None:
            after = oom_kills()
            out_of_memory = after is not None and after > oom_before
        unit = 1 if sys.platform == "darwin" else 1024
        size = int(usage.ru_maxrss) * unit
        return Exit(shell_code, number, out_of_memory, seconds, size, moment, self._stopped)

    @property
    def _stopped(self) -> bool:
        return self._kill_at is not None

    # --- the draining thread ---

    def _drain_output(self, output: int) -> None:
        rest = REST_BYTES
        halted = False
        buffer = b""
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(output, selectors.EVENT_READ)
                selector.register(self._halt_read, selectors.EVENT_READ)
                while rest > 0:
                    ready = {key.fd for key, _ in selector.select(0 if halted else None)}
                    if self._halt_read in ready and not halted:
                        halted = True
                        selector.unregister(self._halt_read)
                        continue
                    if output not in ready:
                        break  # halted, and a process outside the group keeps an empty pipe open
                    data = os.read(output, READ_BYTES)
                    if not data:
                        break
                    if halted:
                        rest -= len(data)
                    if self._tee is not None:
                        self._guard(self._tee, data)
                    buffer = self._lines(buffer + data)
            for piece in _pieces(buffer, last=True):
                self._deliver(piece)
        finally:
            self._drained.set()
            os.close(self._halt_read)
            os.close(output)

    def _lines(self, data: bytes) -> bytes:
        """Deliver the whole lines of `data`; what is left over."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            for piece in _pieces(line, last=True, whole=True):
                self._deliver(piece)
        pieces = list(_pieces(rest, last=False))
        for piece in pieces:
            self._deliver(piece)
        return rest[sum(map(len, pieces)) :]

    def _deliver(self, line: bytes) -> None:
        self._guard(self._on_line, line.removesuffix(b"\r").decode("utf-8", errors="replace"))

    def _guard(self, call: Callable[[Any], None], value: str | bytes) -> None:
        if self._line_error is None:
            try:
                call(value)
            except BaseException as error:  # the child must not block on a full pipe
                self._line_error = error


def _pieces(line: bytes, *, last: bool, whole: bool = False) -> Iterator[bytes]:
    """Split at LINE_LIMIT_BYTES, never inside a UTF-8 character; a short rest only when `last`.

    An empty `whole` line is one empty piece.
    """
    start = 0
    while len(line) - start > LINE_LIMIT_BYTES:
        end = start + LINE_LIMIT_BYTES
        for back in range(4):
            if line[end - back] & 0xC0 != 0x80:  # the first byte of a character
                end -= back
                break
        yield line[start:end]
        start = end
    if last and (start < len(line) or (whole and not line)):
        yield line[start:]


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int | None]:
    """A descriptor that becomes readable when the process ends; None where there are none."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    on_line: Callable[[str], None],
    stop_grace: float = 120.0,
    forward: Sequence[int] = (signal.SIGTERM, signal.SIGINT),
    tee: Callable[[bytes], None] | None = None,
    group: bool = False,
) -> Exit:
    """Run a child to its end and forward signals to it: the first starts the clock of `stop_grace`
    seconds, after which its group is killed. Call it in the main thread, or with `forward=()`.
    """
    supervisor = Supervisor(
        argv, env=env, cwd=cwd, on_line=on_line, stop_grace=stop_grace, tee=tee, group=group
    )
    early: list[int] = []
    started = False

    def pass_on(number: int, frame: FrameType | None) -> None:
        if started:
            supervisor._stop(number)
        else:
            early.append(number)

    previous = {}
    try:
        for number in forward:
            previous[number] = signal.signal(number, pass_on)
        supervisor.start()
        started = True
        for number in early:
            supervisor._stop(number)
        while (ended := supervisor.wait(SIGNAL_SECONDS)) is None:
            pass
        return ended
    except BaseException:
        if started:
            supervisor.kill()
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
