"""Logs of ended jobs, from their files into the log service: it keeps them in memory, and a new
server's is empty."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from byoa.local.control.log_follower import LogService
from byoa.local.settings import Caller

TOTAL_BYTES = 64 << 20  # of the newest logs; older ones are read from their files
BATCH_BYTES = 1 << 20
JOIN_SECONDS = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ended:
    """One stream of an ended job: its file, and the time that its lines get."""

    caller: Caller
    group: str
    stream: str
    path: Path
    moment: float


class LogReplay:
    """Feeds streams in a thread of its own, in the order given, as far as the limit goes."""

    def __init__(self, logs: LogService, streams: Iterable[Ended]) -> None:
        self._logs = logs
        self._streams = list(streams)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._replay, name="log-replay", daemon=True)

    def start(self) -> None:
        if self._streams:
            self._thread.start()

    def close(self) -> None:
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_SECONDS)

    def _replay(self) -> None:
        left = TOTAL_BYTES
        for each in self._streams:
            try:
                left -= each.path.stat().st_size
                if left < 0:
                    break
                for lines in self._batches(each.path):
                    events = [(each.moment, line) for line in lines]
                    self._logs.append(each.caller, each.group, each.stream, events)
            except FileNotFoundError:
                continue  # pruned
            except Exception:
                log.exception("the log %s is not replayed", each.path)

    def _batches(self, path: Path) -> Iterator[list[str]]:
        with path.open("r", encoding="utf-8", errors="replace", newline="\n") as file:
            while not self._closed.is_set():
                lines = file.readlines(BATCH_BYTES)
                if not lines:
                    return
                yield [line.rstrip("\n") for line in lines]
