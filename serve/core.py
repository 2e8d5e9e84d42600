"""From a request to an answer: /ping, /invocations, /execution-parameters, and every refusal.

The core knows neither Flask nor gunicorn. A door hands it a Request and writes the Answer:

    answer     the whole way, blocking until the model has answered
    prepare    checks, negotiation and decoding: an Answer, or a Job for the model
    start      the Job's predictions, or a Future for them
    finish     the predictions of a Job, encoded
    failed     what was raised on the way, as an answer

`answer` is the steps in one; the express lane takes them one by one, so that its event loop
never waits. Decoding comes before the model's queue and encoding after it, each on the request's
own side.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any, NamedTuple

from byoa.container import contract
from byoa.container.errors import ByoaError, DataError, text_of
from byoa.container.formats import registry
from byoa.container.formats.base import Format
from byoa.container.media_types import MediaType, parse_media_type
from byoa.serve import adapter_routes, adapters, opening, records
from byoa.serve.adapters import Adapters
from byoa.serve.batching import Work
from byoa.serve.calls import Call
from byoa.serve.compute import Compute
from byoa.serve.failures import Failures, log
from byoa.serve.host import FAILED, READY, Host
from byoa.serve.inference_script import InferenceScript
from byoa.serve.messages import Answer, Request, as_json
from byoa.serve.metrics import CONTENT_TYPE as METRICS_TYPE
from byoa.serve.metrics import Metrics
from byoa.serve.model import Loaded
from byoa.serve.pieces import Pieces, negotiate
from byoa.serve.sessions import SessionLost, Sessions
from byoa.serve.settings import MEGABYTE, Settings
from byoa.serve.streaming import Stream
from byoa.serve.visit import request_id

ROUTES = {
    contract.PING_PATH: "GET",
    contract.INVOCATIONS_PATH: "POST",
    contract.EXECUTION_PARAMETERS_PATH: "GET",
    contract.METRICS_PATH: "GET",
    contract.ADAPTERS_PATH: "POST",
    f"{contract.ADAPTERS_PATH}/<name>": "DELETE",
}
# Decoding a body of this size takes about a millisecond. What is larger never runs on the event
# loop, nor counts as a measure of how quick the model is.
LARGE_BYTES = 64 * 1024
# How much of a refused body is read and thrown away, so that the answer reaches its client.
DRAIN_BYTES = 64 * MEGABYTE
# MaxPayloadInMB × MaxConcurrentTransforms may not exceed this (BT-05).
_TRANSFORM_MEGABYTES = 100


class Target(NamedTuple):
    """The model that answers a request, and what runs it."""

    loaded: Loaded | InferenceScript
    compute: Compute


class Job(NamedTuple):
    """A decoded request that waits for its predictions."""

    request: Request
    work: Work
    compute: Compute
    format: Format
    media: MediaType


class Responder(Failures, ABC):
    """What answers requests with a model, whichever it is, and refuses those that it cannot."""

    def __init__(
        self, settings: Settings, metrics: Metrics, *, workers: int = 1,
        plan: Callable[[], Mapping[str, Any]] = dict, crashes: Callable[[], int] = int,
    ) -> None:
        """`plan`: what /ping tells of the server, besides its state; `crashes`: how many workers
        have ended lately, where those are too many."""
        super().__init__(settings)
        self._metrics = metrics
        self._limits = settings.limits
        self._adapters: Adapters | None = None  # where a model may have some
        self._workers = workers
        self._sessions = (
            Sessions(Path(settings.sessions_path), settings.session_seconds)
            if settings.sessions else None
        )
        self._plan = plan
        self._crashes = crashes

    def answer(self, request: Request) -> Answer:
        """The answer to any request; waits for the model where it must."""
        if self.routes.get(request.path) != request.method:
            if request.path == contract.BIDIRECTIONAL_PATH:
                return opening.refused(self, request)
            return self.unknown(request)
        if request.path == contract.PING_PATH:
            return self.ping()
        if request.path == contract.EXECUTION_PARAMETERS_PATH:
            return self.execution_parameters()
        if request.path == contract.METRICS_PATH:
            return self.metrics()
        return self.invoke(request)

    def invoke(self, request: Request) -> Answer:
        """The model's answer, waited for."""
        job = self.prepare(request)
        if isinstance(job, Answer):
            return job
        outcome: Any = None
        try:
            outcome = self.start(job)
            if isinstance(outcome, Future):
                outcome = outcome.result(self.settings.deadline)
        except Exception as error:
            if isinstance(outcome, Future) and isinstance(error, FutureTimeout) and not (
                outcome.done() and outcome.exception() is error  # predict's own
            ):
                outcome.add_done_callback(close_stream)
                outcome.cancel()
                return self.too_late(request)
            return self.failed(request, error)
        return self.finish(job, outcome)

    # --- the routes --------------------------------------------------------------------------

    @abstractmethod
    def ping(self) -> Answer:
        """200 where requests are taken, else 503 with the reason (HOST-21)."""

    def ready(self, **more: Any) -> Answer:
        """200 with the plan of workers; 503 where they end again and again."""
        crashes = self._crashes()
        if not crashes:
            return as_json(200, {"state": "ready", **more, **self._plan()})
        return as_json(503, {
            "state": "failing",
            "code": "WORKERS_CRASHING",
            "message": f"{crashes} worker processes have ended within a minute",
            "expected": "workers that go on, whatever they are asked",
            "remedy": "see the log for what ended them, a request or a lack of memory",
        })

    @abstractmethod
    def target(self, request: Request) -> Target | Answer:
        """The model that a request is for."""

    def backlog_seconds(self) -> float:
        """How long the model, where there is one alone, has something to do already; else 0."""
        return 0.0

    def invokes(self, path: str) -> bool:
        """Whether a POST to this path, besides /invocations, goes to a model."""
        return False

    def may_load(self, request: Request) -> bool:
        """Whether to prepare a request may take as long as loading a model does."""
        return False

    def must_wait(self, request: Request) -> bool:
        """Whether to prepare a request takes long enough that a loop should not do it."""
        return self.is_large(request.body) or "content-encoding" in request.headers

    def execution_parameters(self) -> Answer:
        """What a batch transform job asks before its first request (BT-02, CONTRA-31)."""
        megabytes = self.settings.payload_limit // MEGABYTE
        together = max(1, _TRANSFORM_MEGABYTES // megabytes) if megabytes else 1
        return as_json(200, {
            "MaxConcurrentTransforms": min(self._workers, together),
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": min(megabytes, _TRANSFORM_MEGABYTES),
        })

    def metrics(self) -> Answer:
        """What all workers have counted."""
        return Answer(200, self._metrics.text(), METRICS_TYPE)

    def prepare(self, request: Request) -> Answer | Job | Call:
        """Everything before the model; an Answer where the request goes no further."""
        headers = request.headers
        target = self.target(request)
        if isinstance(target, Answer):
            return target
        loaded = target.loaded
        if contract.ADAPTER_HEADER in headers:
            refused = self.adapter_refused(request, loaded)
            if refused is not None:
                return refused
        if len(request.body) > self.settings.payload_limit:
            refused = self.too_large(request, len(request.body))
            if refused is not None:
                return refused
        if not isinstance(loaded, InferenceScript):  # whose sessions need no model
            if (busy := target.compute.refusal()) is not None:
                return self.failed(request, busy)
        if "content-encoding" in headers:
            plain = self.inflated(request)
            if isinstance(plain, Answer):
                return plain
            request = plain
        if isinstance(loaded, InferenceScript):
            return self._scripted(request, target.compute, loaded)
        if not request.body:
            first = registry.all()[0]
            return self.refuse(request, 400, DataError(
                "BODY_EMPTY", "the request has no body", expected="at least one record",
                remedy=f"send, for example, {first.sample!r} as {first.media_types[0]}",
            ).to_json())
        try:
            content_type = headers.get("content-type", "")
            decoder = registry.find(content_type)
            media = parse_media_type(content_type)
        except DataError as error:
            return self.media_refused(request, 415, error, registry.all())
        if loaded.streams:
            return self._stream(request, target.compute, loaded, decoder, media)
        try:
            accept = headers.get("accept")
            encoder, answer_media = registry.negotiate(accept, self.settings.default_accept)
        except DataError as error:
            return self.media_refused(request, 406, error, registry.answers())
        try:
            features = records.decode(decoder, request.body, media, loaded.features, self._limits)
        except Exception as error:
            return self.failed(request, error)
        work = Work(loaded, features, request.visit)
        return Job(request, work, target.compute, encoder, answer_media)

    def _scripted(
        self, request: Request, compute: Compute, script: InferenceScript
    ) -> Answer | Call:
        """A call of an inference script, with its session where it has one."""
        try:
            session = None if self._sessions is None else self._sessions.of(request)
        except SessionLost as error:
            return self.refuse(request, 424, error.to_json())
        except Exception as error:
            return self.failed(request, error)
        if isinstance(session, Answer):
            return session
        if (busy := compute.refusal()) is not None:
            return self.failed(request, busy)
        default = self.settings.default_accept

        def respond() -> Answer | Pieces:
            self.adapt(script, request)
            return script.respond(
                request, default, request_id(request.headers), session, self._limits
            )

        return self._call(request, compute, respond)

    def adapter_refused(
        self, request: Request, loaded: Loaded | InferenceScript, *, known: bool = False
    ) -> Answer | None:
        """Why the adapter that the request names cannot be asked for, None where it can."""
        try:
            adapters.check(self._adapters, loaded, request.headers, known=known)
        except DataError as error:
            return self.failed(request, error)
        return None

    def adapt(self, script: InferenceScript, request: Request) -> None:
        """Have the script's adapters as the server has them, the one that the request names loaded.
        On the model's thread. Raises as Adapters.ready does."""
        if self._adapters is not None and script.adapts:
            self._adapters.ready(script, adapters.asked(request.headers))

    def _stream(
        self, request: Request, compute: Compute, loaded: Loaded, decoder: Format, media: MediaType
    ) -> Answer | Call:
        """A call of a predict that yields."""
        try:
            content_type = negotiate(request.headers.get("accept"))
            features = records.decode(decoder, request.body, media, loaded.features, self._limits)
        except Exception as error:
            return self.failed(request, error)
        return self._call(
            request, compute, lambda: Pieces(loaded.predict(features), content_type), measured=False
        )

    def _call(
        self, request: Request, compute: Compute, respond: Callable[[], Answer | Pieces], *,
        measured: bool = True,
    ) -> Call:
        def on_failed(error: Exception) -> None:
            log.error(
                "request %s: the stream broke off: %s", request_id(request.headers),
                text_of(error),
                exc_info=None if isinstance(error, ByoaError) else error,
            )

        return Call(
            request, compute, respond, measured and not self.is_large(request.body),
            self.settings.stream_seconds, on_failed, time.perf_counter(),
        )

    @staticmethod
    def is_large(body: bytes) -> bool:
        """Whether a body takes long enough to decode that a loop should not do it."""
        return len(body) > LARGE_BYTES

    def start(self, job: Job | Call) -> Any:
        """The predictions of a job where they come at once, else a Future for them; raises what
        predict raised. For a call, its answer in their place."""
        if isinstance(job, Call):
            return job.start()
        if self.is_large(job.request.body):
            return job.compute.submit(job.work, measured=False)
        (outcome,) = job.compute.attempt((job.work,))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def finish(self, job: Job | Call, predictions: Any) -> Answer:
        """The predictions as an answer in the type that was negotiated."""
        if isinstance(job, Call):
            answer: Answer = predictions
            return answer
        try:
            body = job.format.encode(predictions, job.media)
        except Exception as error:
            return self.failed(job.request, error)
        return Answer(200, body, str(job.media))


class Core(Responder):
    """The answers of one worker process with one model. Thread-safe."""

    routes = ROUTES

    def __init__(
        self, host: Host, settings: Settings, metrics: Metrics, *, workers: int = 1,
        plan: Callable[[], Mapping[str, Any]] = dict, crashes: Callable[[], int] = int,
        adapters: Adapters | None = None,
    ) -> None:
        super().__init__(settings, metrics, workers=workers, plan=plan, crashes=crashes)
        self._host = host
        self._adapters = adapters

    def answer(self, request: Request) -> Answer:
        if adapter_routes.has(request.path):
            return adapter_routes.answer(self, self._adapters, request)
        return super().answer(request)

    def ping(self) -> Answer:
        """200 once the model is loaded and tried out, else 503 with the reason (HOST-21, 25)."""
        host = self._host
        if host.state != READY:
            return as_json(503, self._not_ready())
        missing = host.waits_for
        if missing is not None:
            return as_json(503, {
                "state": "loading", "code": "WORKERS_LOADING", "message": missing,
            })
        running = host.compute.busy_seconds
        if running <= 2 * self.settings.timeout:
            return self.ready()
        return as_json(503, {
            "state": "stuck",
            "code": "MODEL_STUCK",
            "message": f"a call of predict has been running for {running:.0f} s",
            "expected": f"predict returns within {self.settings.timeout:g} s",
        })

    def backlog_seconds(self) -> float:
        return self._host.compute.backlog_seconds

    def target(self, request: Request) -> Target | Answer:
        loaded = self._host.loaded
        if loaded is None:
            return self.refuse(request, 503, self._not_ready(), retry=True)
        return Target(loaded, self._host.compute)

    def _not_ready(self) -> dict[str, Any]:
        host = self._host
        if host.state == FAILED:
            return {"state": FAILED, **(host.error or {})}
        return {
            "state": host.state,
            "code": "MODEL_LOADING",
            "message": f"the model has been loading for {host.seconds:.1f} s",
        }


def close_stream(outcome: Future[Any]) -> None:
    """Close a stream that nobody has waited for."""
    answer = None if outcome.cancelled() or outcome.exception() else outcome.result()
    if isinstance(answer, Answer) and isinstance(answer.body, Stream):
        answer.body.close()
