"""One Pipe channel of one host: a FIFO an epoch, each written by a thread while it is read.

    <channel>_0       is there when the container starts (TRAIN-94)
    <channel>_<n+1>   is made when <channel>_<n> is opened (TRAIN-96); <channel>_<n-1> then goes

A reader that closes early ends its epoch. What goes wrong while it reads is kept in `failure`, and
the reader is not told: it would take the end of the FIFO for that of the epoch. It waits until the
job, which fails, ends it.

Which epoch is read is written down, for the next server: one that was being read when the server
died has ended too early for its reader, and the job fails; between two epochs it goes on.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from byoa.container.contract import dump
from byoa.container.errors import ByoaError
from byoa.local.control.channel_epochs import ChannelEpochs
from byoa.local.control.channel_sources import DownloadError, Source
from byoa.local.control.pipe_end import Ended, PipeEnd, ReaderGone
from byoa.local.control.pipe_fifos import Fifos, NoFifo
from byoa.local.control.record_wrapping import (
    RECORD_LIMIT_BYTES,
    NotGzip,
    gunzip,
    header,
    padding,
)
from byoa.local.storage.buckets import Buckets

# Between two looks whether there is a reader: soon after an epoch, seldom later.
LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.0005, 0.05
JOIN_SECONDS = 10.0

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """An epoch was being read when an earlier server ended: its reader has lost the rest."""


class PipeFeed:
    """`prepare` or `resume`, then `start`; `end` and `close` at the job's end.

    `epochs` raises DownloadError where the channel has no data; `record` is the file in which the
    epoch is written down.
    """

    def __init__(
        self,
        buckets: Buckets,
        channel: Mapping[str, Any],
        epochs: Callable[[], ChannelEpochs],
        fifos: Fifos,
        record: Path,
    ) -> None:
        self.failure: DownloadError | Interrupted | None = None
        self.name: str = channel["ChannelName"]
        self._buckets = buckets
        self._gunzips = channel["CompressionType"] == "Gzip"
        self._wraps = channel["RecordWrapperType"] == "RecordIO"
        self._make_epochs = epochs
        self._epochs: ChannelEpochs | None = None
        self._fifos = fifos
        self._record = record
        self._epoch = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._main, name=f"pipe-{self.name}", daemon=True
        )

    def prepare(self) -> ChannelEpochs:
        """Make the first epoch's FIFO. Raises DownloadError, ByoaError or OSError."""
        self._epochs = self._make_epochs()
        self._fifos.make(self._fifo(0))
        self._note(reading=False)
        return self._epochs

    def resume(self) -> None:
        """Go on for a container that an earlier server started; `failure` tells why not."""
        try:
            known = json.loads(self._record.read_text(encoding="utf-8"))
            self._epoch = known["epoch"]
            if known["reading"]:
                raise Interrupted(
                    f"The local service ended while epoch {self._epoch} of the Pipe channel"
                    f" {self.name!r} was being read, and the rest of it is lost to its reader."
                    " Submit the job again, or use FastFile, which a restart does not interrupt."
                )
            self._epochs = self._make_epochs()
        except Interrupted as error:
            self.failure = error
        except (DownloadError, ByoaError, OSError) as error:
            self.failure = DownloadError(f"{error} (channel {self.name!r})")

    def start(self) -> None:
        if self.failure is None:
            self._thread.start()

    def end(self) -> None:
        """Write nothing more, and return at once."""
        self._ended.set()

    def close(self) -> None:
        """End the thread, and let go of the channel's data."""
        self.end()
        if self._thread.is_alive():
            self._thread.join(JOIN_SECONDS)
        if self._epochs is not None:
            self._epochs.close()

    # --- the thread ---

    def _main(self) -> None:
        try:
            while True:
                self._serve(self._await_reader())
                self._epoch += 1
        except Ended:
            return
        except Exception as error:  # a thread's exception has no other reader
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if isinstance(error, NoFifo):
            error = DownloadError(
                f"the container has put something else in the place of the FIFO {error}"
            )
        elif not isinstance(error, DownloadError):
            log.exception("Pipe channel %s", self.name)
            error = DownloadError(f"{error} (channel {self.name!r})")
        self.failure = error

    def _await_reader(self) -> int:
        pause = LOOK_SECONDS
        while not self._ended.wait(pause):
            opened = self._fifos.open(self._fifo(self._epoch))
            if opened is not None:
                return opened
            pause = min(pause * 2, LONGEST_LOOK_SECONDS)
        raise Ended

    def _serve(self, opened: int) -> None:
        """Write one epoch, to its end or the reader's."""
        try:
            end = PipeEnd(opened, self._ended)
            self._note(reading=True)
            self._fifos.make(self._fifo(self._epoch + 1))
            if self._epoch:
                self._fifos.remove(self._fifo(self._epoch - 1))
            try:
                self._deliver_all(end)
            except ReaderGone:
                pass
            except Ended:
                raise
            except Exception as error:
                if not end.is_abandoned():
                    self._fail(error)
                    self._ended.wait()  # comes: whoever sees the failure ends the job
                    raise Ended from None
            # Before the reader sees the end: a server that dies in between has lost nothing.
            self._note(reading=False, epoch=self._epoch + 1)
        finally:
            os.close(opened)

    def _deliver_all(self, end: PipeEnd) -> None:
        if self._epochs is None:
            raise RuntimeError("neither prepared nor resumed")
        for part in self._epochs.parts(self._epoch):
            if isinstance(part, Source):
                self._deliver(part, end)
            elif self._wraps:
                where = f"a value of epoch {self._epoch} (channel {self.name!r})"
                end.write(_header(len(part), where) + part + padding(len(part)))
            else:
                end.write(part)
        end.flush()

    def _deliver(self, source: Source, end: PipeEnd) -> None:
        where = f"{source} (channel {self.name!r}, epoch {self._epoch})"
        try:
            found = self._buckets.open(source.bucket, source.key)
            if found is None:
                raise DownloadError(f"{where} is not there any more")
            info, file = found
            try:
                length = info.size
                if self._gunzips and self._wraps:
                    length = self._decompressed_length(file)
                if self._wraps:
                    end.write(_header(length, where))
                if self._gunzips:
                    for block in gunzip(file):
                        end.write(block)
                else:
                    end.copy(file, length)
                if self._wraps:
                    end.write(padding(length))
            finally:
                os.close(file)
        except NotGzip as error:
            raise DownloadError(
                f"{where} is no whole gzip file, as CompressionType says: {error}"
            ) from None
        except OSError as error:
            raise DownloadError(f"{where} cannot be read: {error.strerror}") from None

    def _decompressed_length(self, file: int) -> int:
        length = 0
        for block in gunzip(file):
            length += len(block)
            if self._ended.is_set():
                raise Ended
        return length

    # --- within ---

    def _fifo(self, epoch: int) -> str:
        return self._fifos.name(self.name, epoch)

    def _note(self, *, reading: bool, epoch: int | None = None) -> None:
        self._record.parent.mkdir(parents=True, exist_ok=True)
        part = self._record.with_suffix(".part")
        entry = {"epoch": self._epoch if epoch is None else epoch, "reading": reading}
        part.write_text(dump(entry), encoding="utf-8")
        os.replace(part, self._record)


def _header(length: int, where: str) -> bytes:
    if length >= RECORD_LIMIT_BYTES:
        raise DownloadError(
            f"{where} has {length} bytes, and a RecordIO record fewer than {RECORD_LIMIT_BYTES};"
            " use RecordWrapperType None, or smaller objects"
        )
    return header(length)
