"""The one thread of a worker process that runs the model, what it joins, and when work may skip
the hop to it.

A model is never called twice at the same time. Requests wait their turn on the model's thread, so
that whoever answers /ping stays free (TRAP-08); what waits when the thread is free becomes one
call, as far as the model's measured cost makes that worth while. A model that has proved to be
quick on the first requests runs on the caller's thread while nothing else runs, until it proves
otherwise.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from byoa.container.errors import AlgorithmError, text_of
from byoa.serve.batching import RecordFailed, Work, predict
from byoa.serve.busy import ServerBusy
from byoa.serve.cost import Cost
from byoa.serve.meter import Meter
from byoa.serve.visit import Timing

Result = TypeVar("Result")

QUICK_SECONDS = 0.001  # a hop to another thread and back costs about a tenth of it
PROOFS = 20  # requests that must have been quick on the model's thread first
# A call that the system interrupted seems slow, too: up to this, two among NEAR_CALLS count.
LONG_SECONDS = 0.02
NEAR_CALLS = 8
STRIKE_SECONDS = 0.5  # a call this long on the caller's thread holds up /ping …
STRIKES = 3  # … and after this many the model's times are not to be trusted
# Collecting the requests of a moment costs each about 15 µs: a call must cost more than that.
GATHER_SECONDS = 0.00006
# What the requests of a moment take together on the caller's thread, at most: else they are joined
# on the model's, and /ping is answered meanwhile.
MOMENT_SECONDS = 0.004
# After a joint call the requests that it answered come back one by one: how long to wait for them.
WINDOW_SECONDS = 0.002
_DECAY = 0.9
# Of the calls for one request each, the cost learns from the first ones and from every eighth.
_ALL_SEEN, _SEEN = 256, 8
# While all calls have the size that was best, nothing would tell that what was learned of others
# came of a bad moment. So one call of so many tries a half of it, or so many records where it is
# less; of those one of so many its double, which costs the most where it is worse.
_TRIAL, _TRIAL_RECORDS, _TRIAL_DOUBLE = 64, 8, 4
_LOOK_AHEAD = 64  # requests of other models that are passed over in search of one's own


class _Item(NamedTuple):
    work: Work | Callable[[], Any]
    future: Future[Any]
    measured: bool
    since: float = 0.0  # when it was queued
    step: bool = False  # of a stream, no request


class Compute:
    """The model's thread. `submit` and `attempt` may be called from any thread."""

    def __init__(
        self, *, limit: int, inline: bool = True, max_batch: int = 256,
        meter: Meter | None = None,
    ) -> None:
        self.cost = Cost()
        self._meter = meter or Meter()
        self._limit = limit
        self._max_batch = max_batch
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._aside: deque[_Item | None] = deque()  # taken from the queue for a later call
        self._running = threading.Lock()
        self._inline = inline
        self._estimate = 0.0  # seconds of a request on the model
        self._observed = 0
        self._slow_at = -NEAR_CALLS  # which of those observed was the last slow one
        self._learnt = 0
        self._strikes = 0
        self._joined = 1  # requests of the last call
        self._since: float | None = None
        self._streams = self._steps = 0
        self._counting = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end after the work that is queued, and the streams that are open."""
        self._queue.put(None)

    @property
    def quick(self) -> bool:
        """Whether the model is measured to be quick enough to run on the caller's thread."""
        return (
            self._inline
            and self._observed >= PROOFS
            and self._estimate < QUICK_SECONDS
            and self._strikes < STRIKES
        )

    @property
    def gathers(self) -> bool:
        """Whether requests that come at the same moment should be given to `attempt` together."""
        return self.quick and self._max_batch > 1 and (
            self.cost.fixed > GATHER_SECONDS
            or not (self._learnt + 1) % _TRIAL  # else one bad call could end all joining
        )

    @property
    def busy_seconds(self) -> float:
        """How long the work on the model's thread has been running, 0 when idle."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def backlog_seconds(self) -> float:
        """About how long what waits will keep the model's thread; 0 where nobody knows."""
        waiting = self.waiting
        return self.cost.of(waiting) or waiting * self._estimate

    @property
    def queued(self) -> int:
        """Pieces of work that wait, steps of streams included."""
        return self._queue.qsize() + len(self._aside)

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return self.queued - self._steps

    def refusal(self) -> ServerBusy | None:
        """Why a request is not taken now: better known before it is decoded."""
        if self.waiting < self._limit or self.quick:
            return None
        return ServerBusy.beyond(self._limit)

    def submit(
        self, work: Work | Callable[[], Result], *, measured: bool = True
    ) -> Future[Result]:
        """Queue `work` for the model's thread; raises ServerBusy beyond the limit.

        `measured` is False for work that says nothing about a request's time, such as loading.
        """
        if self.waiting >= self._limit:
            raise ServerBusy.beyond(self._limit)
        future: Future[Result] = Future()
        self._meter.queued(1)
        self._queue.put(_Item(work, future, measured, time.perf_counter()))
        return future

    def resume(self, step: Callable[[], object]) -> Future[Any]:
        """Queue the next step of what was begun already, whatever else waits; done when it is."""
        with self._counting:
            self._steps += 1
        self._meter.queued(1)
        done: Future[Any] = Future()
        self._queue.put(_Item(step, done, False, step=True))
        return done

    def open_stream(self) -> bool:
        """Count one more stream of answers; False where there are as many as the limit."""
        with self._counting:
            if self._streams >= self._limit:
                return False
            self._streams += 1
            return True

    @property
    def is_full_of_streams(self) -> bool:
        return self._streams >= self._limit

    def close_stream(self) -> None:
        with self._counting:
            self._streams -= 1

    def attempt(self, works: Sequence[Work]) -> list[Any]:
        """For each work its predictions or RecordFailed, where the model is quick and not held,
        and they are not too many; else a future, or the ServerBusy to raise."""
        calls = self._calls(works) if len(works) > 1 else [works]
        if not (
            self.quick and (len(works) == 1 or self._brief(calls))
            and self._running.acquire(timeout=QUICK_SECONDS)
        ):
            return [self._submitted(work) for work in works]
        outcomes: list[Any] = []
        try:
            for together in calls:
                started = time.perf_counter()
                outcomes += _outcomes(together)
                seconds = time.perf_counter() - started
                self._learn(together, seconds)
                if seconds > LONG_SECONDS and len(together) > 1:
                    self.observe(seconds)  # it was to be brief
                if seconds > STRIKE_SECONDS:
                    self._strikes += 1
        finally:
            self._running.release()
        return outcomes

    def observe(self, seconds: float) -> None:
        """Take a request's time on the model into account."""
        count = self._observed = self._observed + 1
        if seconds > QUICK_SECONDS:
            alone = count - self._slow_at > NEAR_CALLS
            self._slow_at = count
            if alone and seconds <= LONG_SECONDS:
                return
        # A peak that decays: what is slow sends the next dozens to the thread.
        self._estimate = max(seconds, _DECAY * self._estimate + (1 - _DECAY) * seconds)

    def _submitted(self, work: Work) -> Future[Any] | ServerBusy:
        try:
            return self.submit(work)
        except ServerBusy as error:
            return error

    def _brief(self, calls: Sequence[Sequence[Work]]) -> bool:
        records = sum(len(work.features) for works in calls for work in works)
        return len(calls) * self.cost.fixed + records * self.cost.each <= MOMENT_SECONDS

    def _calls(self, works: Sequence[Work]) -> Sequence[Sequence[Work]]:
        """The works in order, joined as far as it is worth while."""
        calls: list[list[Work]] = []
        records = 0
        for work in works:
            size = len(work.features)
            most = self._worth(work)
            if calls and calls[-1][0].joins(work) and records + size <= most:
                calls[-1].append(work)
                records += size
            else:
                calls.append([work])
                records = size
        return calls

    def _most(self, work: Work) -> int:
        """Records that may share a call with this work's."""
        own = work.model.max_batch
        return self._max_batch if own is None else min(own, self._max_batch)

    def _worth(self, work: Work) -> int:
        """As many of them as should."""
        most = self._most(work)
        worth = self.cost.worth(most)
        trial, turn = divmod(self._learnt + 1, _TRIAL)
        if turn:
            return worth
        if not trial % _TRIAL_DOUBLE:
            return min(most, 2 * worth)
        if worth < _TRIAL_RECORDS and trial % 2:
            return min(most, _TRIAL_RECORDS)
        return max(1, worth // 2)

    def _learn(
        self, works: Sequence[Work], seconds: float, waits: Sequence[float] = (), *,
        measured: bool = True,
    ) -> None:
        """`waits`: how long each had been queued; empty where none was."""
        count = len(works)
        records = len(works[0].features) if count == 1 else sum(len(w.features) for w in works)
        self._learnt += 1
        if count > 1 or self._learnt < _ALL_SEEN or not self._learnt % _SEEN:
            self.cost.observe(records, seconds)
        self._meter.call(records, seconds, count, waits)
        if works[0].visit is not None and works[0].visit.logged:
            for i, work in enumerate(works):
                if work.visit is not None:
                    wait = waits[i] if waits else 0.0
                    work.visit.timing = Timing(len(work.features), records, wait, seconds)
        # A joint call that was quick shows that each of its requests is; else nothing would tell,
        # while all calls are joint, that the model is quick again after a slow moment.
        if measured and (count == 1 or seconds < QUICK_SECONDS):
            self.observe(seconds)

    # --- the model's thread ---

    def _loop(self) -> None:
        stopping = False
        while not (stopping and self._is_idle()):
            item = self._next()
            if item is None:
                stopping = True
                continue
            self._meter.queued(-1)
            if item.step:
                with self._counting:
                    self._steps -= 1
            if not item.future.set_running_or_notify_cancel():
                continue  # its request gave up while it waited
            if isinstance(item.work, Work):
                self._predict(item, item.work)
            else:
                self._run(item, item.work)
            del item  # a waiting thread must not keep a batch alive

    def _is_idle(self) -> bool:
        """Whether nothing waits, nor will: a stream that is under way queues its next step."""
        return not (self._streams or self._aside or self._queue.qsize())

    def _next(self) -> _Item | None:
        return self._aside.popleft() if self._aside else self._queue.get()

    def _run(self, item: _Item, work: Callable[[], Any]) -> None:
        result: Any = None
        failure: BaseException | None = None
        with self._running:
            self._since = time.monotonic()
            started = time.perf_counter()
            try:
                result = work()
            except BaseException as error:
                failure = error
            seconds = time.perf_counter() - started
            self._since = None
        if item.measured:
            self.observe(seconds)
            self._meter.call(0, seconds, 1, [started - item.since])
        # Only now: whoever waits may run the next request itself.
        if failure is None:
            item.future.set_result(result)
        else:
            item.future.set_exception(failure)

    def _predict(self, first: _Item, work: Work) -> None:
        items = [first]
        works = [work]
        self._gather(items, works)
        with self._running:
            self._since = time.monotonic()
            started = time.perf_counter()
            outcomes = _outcomes(works)
            seconds = time.perf_counter() - started
            self._since = None
        self._joined = len(items)
        waits = [started - item.since for item in items]
        self._learn(works, seconds, waits, measured=first.measured)
        for item, outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, RecordFailed):
                item.future.set_exception(outcome)
            else:
                item.future.set_result(outcome)

    def _gather(self, items: list[_Item], works: list[Work]) -> None:
        """Add what waits and may share the call, as far as it is worth while.

        An idle server waits for nobody. After a joint call as many are expected again: for them
        there is a short wait, never longer than the part of a call that joining them saves.
        """
        records = len(works[0].features)
        most = self._worth(works[0])
        until = time.monotonic() + min(WINDOW_SECONDS, self.cost.fixed)
        passed: list[_Item | None] = []
        while records < most and len(passed) < _LOOK_AHEAD:
            item = self._waiting(until if len(items) < self._joined else None)
            if item is None:
                break
            if item is _STOP:
                passed.append(None)
                break
            work = item.work
            if (
                isinstance(work, Work) and work.joins(works[0])
                and records + len(work.features) <= most
            ):
                self._meter.queued(-1)
                if item.future.set_running_or_notify_cancel():
                    items.append(item)
                    works.append(work)
                    records += len(work.features)
            else:
                passed.append(item)
        self._aside.extendleft(reversed(passed))

    def _waiting(self, until: float | None) -> _Item | None:
        """The next item, `_STOP` for the end, None where none comes in time."""
        if self._aside:
            item = self._aside.popleft()
        else:
            try:
                wait = 0.0 if until is None else until - time.monotonic()
                item = self._queue.get(timeout=wait) if wait > 0 else self._queue.get_nowait()
            except queue.Empty:
                return None
        return _STOP if item is None else item


def _outcomes(works: Sequence[Work]) -> list[Any]:
    """As `predict` gives them. The model's thread outlives what the author's objects raise while
    their predictions are looked at."""
    try:
        return predict(works)
    except BaseException as error:
        failure = error if isinstance(error, Exception) else AlgorithmError(
            "PREDICT_ENDED",
            f"what predict returned raised {type(error).__name__}({text_of(error)})",
            expected="predictions that can be read, one for each record",
        )
        return [RecordFailed(failure, None) for _ in works]


_STOP = _Item(lambda: None, Future(), False)
