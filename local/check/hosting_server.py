"""The image serving, as the platform sees it: how it came up, and requests to it.

Most checks share one server. Where a check has ended it the next one gets a new one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byoa.container.contract import (
    DEFAULT_PORT,
    INVOCATIONS_PATH,
    PING_PATH,
    STARTUP_WINDOW_SECONDS,
)
from byoa.container.supervisor import Exit
from byoa.local.check import training_runs
from byoa.local.check.box import Box
from byoa.local.check.checks import NotApplicable
from byoa.local.check.hosting_http import Address, Headers, NoReply, Reply, exchange
from byoa.local.check.trial import Trial
from byoa.local.runners.listeners import ENGINE_DNS, is_loopback

Outcome = Reply | NoReply

POLL_SECONDS = 0.1
# A /ping that is slow is told apart from one that never answers.
SLOW_PING_SECONDS = 10.0
# A share of the start-up window: what is wrong for so long while the server is up stays wrong.
PATIENCE = 1 / 16
# A server that has nothing to load is ready soon, or waits for a model that never comes.
NO_MODEL_SECONDS = 20.0
UNKNOWN_TYPE = "application/x-byoa-unknown"


@dataclass
class Serving:
    """One `docker run IMAGE serve`, and what was seen until it was ready or given up."""

    trial: Trial
    box: Box
    address: Address
    port: int  # that it must listen on, seen from inside
    ended: Exit | None = None  # before it was ready
    ready: bool = False
    seconds: float = 0.0  # until it was ready, or given up
    ping: Outcome | None = None  # the last one while it came up
    answered: Reply | None = None  # the last of them that was an answer
    listeners: list[tuple[str, int]] = field(default_factory=list)
    first: Outcome | None = None  # to the sample request, sent with the first 200 of /ping
    sample: Outcome | None = None  # to the sample request, tried again where `first` failed

    @property
    def without_model(self) -> bool:
        return not any(
            path.is_file()
            for name in ("model", "models") for path in (self.box.ml / name).rglob("*")
        )

    @property
    def startup_seconds(self) -> float:
        """How long it may take to be ready; shorter without a model, unless the user set it."""
        limit = self.trial.limits.startup_seconds
        if limit == STARTUP_WINDOW_SECONDS and self.without_model:
            return NO_MODEL_SECONDS
        return limit

    def request(
        self, method: str, path: str, *, headers: Headers = (), body: bytes | None = None,
        timeout: float | None = None, discard: bool = False,
    ) -> Outcome:
        """The answer, or in which way there was none; with `discard` the answer has no body."""
        limit = self.trial.limits.invocation_seconds if timeout is None else timeout
        try:
            return exchange(
                self.address, method, path, headers=headers, body=body, timeout=limit,
                discard=discard,
            )
        except NoReply as error:
            return error

    def get_ping(self, timeout: float | None = None) -> Outcome:
        limit = self.trial.limits.ping_seconds if timeout is None else timeout
        return self.request("GET", PING_PATH, timeout=limit)

    def invoke(self, body: bytes, headers: Headers) -> Outcome:
        return self.request("POST", INVOCATIONS_PATH, headers=headers, body=body)

    def look(self) -> list[tuple[str, int]]:
        """Where it listens now."""
        return [each for each in self.box.listeners() if each[0] != ENGINE_DNS]


def serve(
    trial: Trial, *, ml: Path | None = None, environment: Mapping[str, str] | None = None,
    port: int = DEFAULT_PORT, ask_first: bool = True, **options: Any,
) -> Serving:
    """Start the image and wait until /ping is 200, it ends, or it is clear that it stays wrong.

    With `ask_first` the sample request follows the first 200 at once. `options` are those of
    `Trial.box`.
    """
    box = trial.serve(
        ml or trial.hosting_ml(model_of(trial)), environment=environment, port=port, **options
    )
    address = box.address or ("127.0.0.1", 0)
    inner = port if trial.engine is not None else address[1]  # a process gets a free port
    serving = Serving(trial, box, address, inner)
    _come_up(serving)
    serving.listeners = serving.look()
    if serving.ready and ask_first:
        _ask_first(serving)
    return serving


def _come_up(serving: Serving) -> None:
    limits = serving.trial.limits
    window = serving.startup_seconds
    began = time.monotonic()
    patience = window * PATIENCE
    wrong_since: float | None = None
    while True:
        serving.seconds = time.monotonic() - began
        serving.ended = serving.box.wait(0.0)
        if serving.ended is not None:
            return
        serving.ping = outcome = serving.get_ping(
            min(SLOW_PING_SECONDS, max(window, limits.ping_seconds))
        )
        now = time.monotonic()
        serving.seconds = now - began
        if isinstance(outcome, Reply):
            serving.answered = outcome
            if outcome.status == 200:
                serving.ready = True
                return
        if _stays(serving, outcome):
            wrong_since = wrong_since or now
            if now - wrong_since >= patience:
                return
        else:
            wrong_since = None
        if serving.seconds > window:
            serving.ended = serving.box.wait(0.0)
            return
        time.sleep(POLL_SECONDS)


def _stays(serving: Serving, outcome: Outcome) -> bool:
    """Whether time alone is not likely to change it: 5xx, or nothing at all, may be loading."""
    if isinstance(outcome, Reply):
        return outcome.status < 500
    listeners = serving.look()
    return bool(listeners) and not any(
        port == serving.port and not is_loopback(host) for host, port in listeners
    )


def _ask_first(serving: Serving) -> None:
    patience = serving.trial.limits.startup_seconds * PATIENCE
    request = sample(serving.trial)
    if request is None:
        return
    body, headers = request
    began = time.monotonic()
    serving.first = serving.sample = serving.invoke(body, headers)
    while not answers(serving.sample) and time.monotonic() - began < patience:
        if serving.box.wait(POLL_SECONDS) is not None:
            return
        serving.sample = serving.invoke(body, headers)


def answers(outcome: Outcome | None) -> bool:
    """Whether there was an answer that is not the server's own failure."""
    return isinstance(outcome, Reply) and outcome.status < 500


# --- the model and the requests -------------------------------------------------------------------


def model_of(trial: Trial) -> Path | None:
    """The model to serve: the samples' own, else what the trial's training run left."""
    samples = trial.samples
    if samples.model is not None:
        return samples.model
    if not samples.channels and not samples.hyperparameters:
        return None
    run = training_runs.plain(trial)
    return run.layout.model if run.succeeded and run.model_files() else None


def sample(trial: Trial) -> tuple[bytes, list[tuple[str, str]]] | None:
    """Body and headers of the user's sample request."""
    samples = trial.samples
    if samples.request is None:
        return None
    headers = []
    if samples.content_type:
        headers.append(("Content-Type", samples.content_type))
    if samples.accept:
        headers.append(("Accept", samples.accept))
    return samples.request, headers


def plain(trial: Trial) -> tuple[bytes, list[tuple[str, str]], Reply]:
    """A request of which it is known how the server answers it, and that answer: the sample, or,
    where there is none that it answers, a request that any server can refuse.

    Raises NotApplicable where that is not answered either.
    """
    server = shared(trial)
    request = sample(trial)
    outcome = first_start(trial).sample
    if request is not None and isinstance(outcome, Reply) and 200 <= outcome.status < 300:
        return (*request, outcome)
    body, headers = b"1,2,3\n", [("Content-Type", UNKNOWN_TYPE)]
    reply = trial.memo("hosting: a request without a sample", lambda: server.invoke(body, headers))
    if not isinstance(reply, Reply) or reply.status >= 500:
        raise NotApplicable(
            f"no sample request is answered (--request), and one of type {UNKNOWN_TYPE} is not"
            " refused either"
        )
    return body, headers, reply


# --- the server that checks share -----------------------------------------------------------------


class _Shared:
    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._lock = threading.Lock()
        self.first = self.current = serve(trial)

    def living(self) -> Serving:
        with self._lock:
            if self.first.ready and self.current.box.wait(0.0) is not None:
                self.current.box.remove()
                self.current = serve(self._trial)
                if not self.current.ready:
                    raise NotApplicable("the server did not come up a second time")
            return self.current


def first_start(trial: Trial) -> Serving:
    """How the shared server came up, whether it is still there or not."""
    return trial.memo("hosting: server", lambda: _Shared(trial)).first


def shared(trial: Trial) -> Serving:
    """The shared server, started again where it has ended; raises NotApplicable where it never
    was ready."""
    server = trial.memo("hosting: server", lambda: _Shared(trial)).living()
    if not server.ready:
        raise NotApplicable("the server is not ready: /ping has not answered 200")
    return server
