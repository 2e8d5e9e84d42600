"""The body of a streamed answer: events of what the container sends, each as soon as it is there.

What goes wrong on the way is an event, too: the HTTP status has been sent (STRM-02, STRM-06).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from byoa.local.api.http import Disconnected
from byoa.local.runtime import event_stream
from byoa.local.runtime.answer_stream import AnswerStream
from byoa.local.runtime.connection import CallerLeft, ConnectionFailed
from byoa.local.runtime.routing import Backend

TIMED_OUT, BROKEN = "ModelInvocationTimeExceeded", "StreamBroken"

_log = logging.getLogger("byoa.runtime")


class PayloadParts:
    """Owns the answer of `backend`, which the request is counted into, to its end or to `close`.

    `done` is told once with which status it ended: the container's, or 0 where it failed.
    """

    def __init__(
        self,
        stream: AnswerStream,
        backend: Backend,
        deadline: float,
        done: Callable[[int], None],
    ) -> None:
        self._stream = stream
        self._backend = backend
        self._deadline = deadline
        self._done = done
        self._ended = False

    def __iter__(self) -> PayloadParts:
        return self

    def __next__(self) -> bytes:
        if self._ended:
            raise StopIteration
        try:
            piece = self._stream.read(self._deadline)
        except CallerLeft:
            self.close()
            raise Disconnected("the client left within a streamed answer") from None
        except TimeoutError:
            return self._broken(TIMED_OUT, "The model did not end its response in time.")
        except (ConnectionFailed, OSError) as error:
            return self._broken(BROKEN, f"The connection to the model broke: {error}.")
        except Exception as error:
            _log.exception("a streamed answer failed")
            self._end(0)
            text = f"{type(error).__name__}: {error}; the server's log has the traceback"
            return event_stream.exception("InternalStreamFailure", {"Message": text})
        if not piece:
            self._end(self._stream.status)
            raise StopIteration
        self._backend.heard()
        return event_stream.payload_part(piece)

    def _broken(self, code: str, message: str) -> bytes:
        self._end(0)
        return event_stream.exception("ModelStreamError", {"Message": message, "ErrorCode": code})

    def close(self) -> None:
        """Leave off: the container learns that nobody reads on. No failure of its own."""
        self._end(self._stream.status)

    def _end(self, status: int) -> None:
        if self._ended:
            return
        self._ended = True
        self._stream.close()
        self._backend.leave(answered=status != 0)
        self._done(status)
