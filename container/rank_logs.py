"""The output of torchrun's processes: files that grow, handed on in whole lines."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from byoa.container.supervisor import LINE_LIMIT_BYTES

LOOK_SECONDS = 0.05
TAIL_LINES = 400  # of each process, for the failure report
_READ_BYTES = 1 << 20
_RANK = re.compile(r"^\[rank\d+\]: ?")  # torch.distributed puts it before a traceback's lines


class RankLogs:
    """Lines of <directory>/*/attempt_*/<local rank>/{stdout,stderr}.log, while it is entered."""

    def __init__(self, directory: Path, on_line: Callable[[str], None]) -> None:
        self._directory = directory
        self._on_line = on_line
        self._read: dict[Path, int] = {}
        self._rest: dict[Path, bytes] = {}
        self._tails: dict[int, deque[str]] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="rank-logs", daemon=True)

    def __enter__(self) -> RankLogs:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Hand on what is left, the last lines without their end too."""
        self._end.set()
        self._thread.join()
        self._look()
        for path, rest in self._rest.items():
            if rest:
                self._deliver(path, rest)

    @property
    def ranks(self) -> list[int]:
        """The local ranks that have written something."""
        return sorted(self._tails)

    def tail(self, local_rank: int) -> Sequence[str]:
        """The last lines of a process; of those on stderr the order is kept."""
        return self._tails.get(local_rank, deque())

    def _follow(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        for path in sorted(self._directory.glob("*/attempt_*/*/std*.log")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                while data := file.read(_READ_BYTES):
                    self._read[path] = file.tell()
                    *lines, rest = (self._rest.get(path, b"") + data).split(b"\n")
                    for line in lines:
                        self._deliver(path, line)
                    if len(rest) > LINE_LIMIT_BYTES:
                        self._deliver(path, rest)
                        rest = b""
                    self._rest[path] = rest

    def _deliver(self, path: Path, line: bytes) -> None:
        text = line.removesuffix(b"\r").decode("utf-8", errors="replace")
        tail = self._tails.setdefault(int(path.parent.name), deque(maxlen=TAIL_LINES))
        tail.append(_RANK.sub("", text))
        self._on_line(text)
