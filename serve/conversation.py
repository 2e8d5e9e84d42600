"""A client and the author's `converse`, which talk for as long as both want (BIDI-01).

The author's code runs on a thread of its own, and in turn with all else that the model does. What
has come for it and what it has said wait here, a little of each: beyond that it waits itself, or
its client is not read.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from byoa.algorithms import Messages, MessagesEnded
from byoa.container.errors import AlgorithmError, ByoaError, DataError, text_of
from byoa.serve.compute import Compute
from byoa.serve.host import describe
from byoa.serve.turn import Turn

log = logging.getLogger("byoa.serve")

Message = str | bytes
Converse = Callable[[Messages], Iterable[Any]]
Waiting = TypeVar("Waiting")

BUFFER_MESSAGES = 64
BUFFER_BYTES = 1 << 20
# Codes of a close frame (RFC 6455, 7.4.1).
NORMAL, GOING_AWAY, INVALID, POLICY, MODEL_FAILED = 1000, 1001, 1007, 1008, 1011


class Part(NamedTuple):
    """What the model has said in one go: a frame."""

    data: bytes
    is_text: bool


class Ending(NamedTuple):
    """How a conversation ended: code and reason for its client, and the status that is counted."""

    code: int
    reason: str
    status: int


COMPLETE = Ending(NORMAL, "", 101)


class Conversation:
    """`start`, then `hear` and `take` on the door's thread until there is an `ending`.

    `on_change` is called on any thread when there is something to take, when there is room to hear
    more, and at the end. `prepare` is called first, on the model's thread.
    """

    def __init__(
        self, converse: Converse, compute: Compute, headers: Mapping[str, str],
        query: Mapping[str, str], on_change: Callable[[], None], identity: str,
        prepare: Callable[[], object] | None = None,
    ) -> None:
        self.turn = Turn(compute)
        self.ending: Ending | None = None
        self._converse = converse
        self._compute = compute
        self._on_change = on_change
        self._identity = identity
        self._prepare = prepare
        self._changed = threading.Condition()
        self._heard: _Buffer[Message] = _Buffer(len)
        self._said: _Buffer[Part] = _Buffer(lambda part: len(part.data))
        self._ended = False  # no message comes any more
        self._dropped = False  # nobody listens any more
        self._thread = threading.Thread(target=self._run, name="conversation", daemon=True)
        self._messages = _Heard(self, headers, query)

    # --- the door's side ---

    def start(self) -> bool:
        """Whether there was room for one more: else nothing has begun."""
        if not self._compute.open_stream():
            return False
        try:
            self._thread.start()
        except RuntimeError:  # the system has no thread left
            self._compute.close_stream()
            return False
        return True

    def hear(self, message: Message) -> None:
        with self._changed:
            if not self._ended:
                self._heard.put(message)
                self._changed.notify_all()

    @property
    def has_heard_enough(self) -> bool:
        return self._heard.is_full

    def take(self) -> Part | None:
        """What the model has said next, None where it has said nothing."""
        with self._changed:
            if not self._said:
                return None
            was_full = self._said.is_full
            part = self._said.pop()
            if was_full and not self._said.is_full:
                self._changed.notify_all()
            return part

    def end(self) -> None:
        """No message comes any more; what the model still says is wanted."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def drop(self, *, in_order: bool = False) -> None:
        """Nobody listens any more: the author's generator is closed where it yields next. What a
        client has said before it left `in_order` is still heard."""
        with self._changed:
            self._ended = self._dropped = True
            if not in_order:
                self._heard.clear()
            self._said.clear()
            self._changed.notify_all()

    # --- the conversation's thread ---

    def wait_for_message(self, seconds: float | None) -> Message | None:
        """The next message; None where none comes in time, or ever again. The author's code may
        also wait on a thread that it has started: that has no turn to give."""
        until = None if seconds is None else time.monotonic() + seconds
        with self._changed:
            while not self._heard:
                left = None if until is None else until - time.monotonic()
                if self._ended or (left is not None and left <= 0):
                    return None
                self._wait(lambda: bool(self._heard) or self._ended, left)
            was_full = self._heard.is_full
            message = self._heard.pop()
            has_room = was_full and not self._heard.is_full
        if has_room:
            self._on_change()
        return message

    @property
    def is_over(self) -> bool:
        return self._ended and not self._heard

    def _wait(self, condition: Callable[[], bool], seconds: float | None = None) -> None:
        """Wait without the model, `_changed` being held."""
        own = threading.current_thread() is self._thread
        if own:
            self.turn.give()
        self._changed.wait_for(condition, seconds)
        if own:
            self._changed.release()  # whoever has the model may wait for it
            try:
                self.turn.take()
            finally:
                self._changed.acquire()

    def _run(self) -> None:
        try:
            if self._prepare is not None:
                self._compute.resume(self._prepare).result()
            self.turn.take()
            self._talk()
            ending = COMPLETE
        except MessagesEnded:
            ending = COMPLETE
        except BaseException as error:  # an author's sys.exit ends the conversation alone
            ending = self._failed(error)
        finally:
            self.turn.give()
            self._compute.close_stream()
        self.ending = ending
        self._on_change()

    def _talk(self) -> None:
        said = self._converse(self._messages)
        if not isinstance(said, Iterable) or isinstance(said, (str, bytes, bytearray, Mapping)):
            raise AlgorithmError(
                "CONVERSE_INVALID", f"the author's function returned {type(said).__name__}",
                expected="a generator, or what can be iterated: of text or bytes",
                remedy="yield each message",
            )
        pieces = iter(said)
        try:
            for piece in pieces:
                if not self._say(_part(piece)):
                    return
                self.turn.share()
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()

    def _say(self, part: Part) -> bool:
        """Whether anybody listens."""
        with self._changed:
            if self._said.is_full and not self._dropped:
                self._wait(lambda: self._dropped or not self._said.is_full)
            if self._dropped:
                return False
            self._said.put(part)
        self._on_change()
        return True

    def _failed(self, error: BaseException) -> Ending:
        if self._dropped and isinstance(error, Exception):
            log.warning(
                "request %s: converse failed when its client had left: %s", self._identity,
                text_of(error),
                exc_info=None if isinstance(error, ByoaError) else error,
            )
            return COMPLETE
        if not isinstance(error, Exception):
            # They mean something to the server: the end of the worker, a task or a loop.
            error = AlgorithmError(
                "PREDICT_ENDED", f"converse raised {type(error).__name__}({text_of(error)})",
                expected="a function that returns, yields, or raises an exception that tells what"
                " went wrong",
            )
        fields = describe(error, "CONVERSE_FAILED")
        log.error(
            "request %s: the conversation broke off: %s", self._identity, fields["message"],
            exc_info=None if isinstance(error, ByoaError) and not error.__cause__ else error,
        )
        reason = f"{fields['code']}: {fields['message']}"
        if isinstance(error, DataError):
            return Ending(INVALID, reason, 400)
        return Ending(MODEL_FAILED, reason, 500)


class _Heard(Messages):
    """The messages, as the author's code has them."""

    def __init__(
        self, conversation: Conversation, headers: Mapping[str, str], query: Mapping[str, str]
    ) -> None:
        self.headers = headers
        self.query = query
        self._conversation = conversation

    def __next__(self) -> Message:
        message = self._conversation.wait_for_message(None)
        if message is None:
            raise StopIteration
        return message

    def get(self, seconds: float = 0.0) -> Message | None:
        message = self._conversation.wait_for_message(max(0.0, seconds))
        if message is None and self.ended:  # else a loop around it would never end
            raise MessagesEnded
        return message

    @property
    def ended(self) -> bool:
        return self._conversation.is_over


class _Buffer(Generic[Waiting]):
    """What waits, a limited number and size; one is always taken."""

    def __init__(self, size: Callable[[Waiting], int]) -> None:
        self._all: deque[Waiting] = deque()
        self._size = size
        self._bytes = 0  # a text's characters count as one each

    def __bool__(self) -> bool:
        return bool(self._all)

    @property
    def is_full(self) -> bool:
        return len(self._all) >= BUFFER_MESSAGES or self._bytes >= BUFFER_BYTES

    def put(self, each: Waiting) -> None:
        self._all.append(each)
        self._bytes += self._size(each)

    def pop(self) -> Waiting:
        each = self._all.popleft()
        self._bytes -= self._size(each)
        return each

    def clear(self) -> None:
        self._all.clear()
        self._bytes = 0


def _part(piece: Any) -> Part:
    if isinstance(piece, str):
        return Part(piece.encode(), True)
    if isinstance(piece, (bytes, bytearray, memoryview)):
        return Part(bytes(piece), False)
    raise AlgorithmError(
        "PREDICTION_NOT_ENCODABLE", f"converse yielded {type(piece).__name__}",
        expected="text or bytes, a message each",
        remedy="yield json.dumps(...) for what is neither",
    )
