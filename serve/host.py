"""The life of one model in one worker process: loading, ready or failed, and what to say about it.

Loading happens on the model's thread, after the listener is up, so that /ping tells the reason
from the first second on.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from byoa.container.errors import ByoaError, text_of, user_frame
from byoa.serve.compute import Compute
from byoa.serve.inference_script import InferenceScript
from byoa.serve.model import Loaded, try_out

LOADING, READY, FAILED = "loading", "ready", "failed"


class Host:
    """Loads a model in the background and holds it. `state` only moves forward."""

    def __init__(
        self,
        load: Callable[[], Loaded | InferenceScript],
        compute: Compute,
        *,
        startup_timeout: float,
        on_ready: Callable[[], None] = lambda: None,
        on_failed: Callable[[BaseException], None] = lambda error: None,
        others: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.compute = compute
        self.state = LOADING
        self.loaded: Loaded | InferenceScript | None = None
        self.error: dict[str, Any] | None = None
        self._load = load
        self._on_ready = on_ready
        self._on_failed = on_failed
        self._others = others
        self._open = False
        self._started = time.monotonic()
        self._settled = threading.Lock()
        self._done = threading.Event()
        self._limit = threading.Timer(startup_timeout, self._too_late, (startup_timeout,))
        self._limit.daemon = True

    def start(self) -> None:
        self._started = time.monotonic()
        self._limit.start()
        self.compute.start()
        self.compute.submit(self._run, measured=False)

    def wait(self, seconds: float) -> None:
        """Return when loading has ended, or after `seconds`."""
        self._done.wait(seconds)

    @property
    def waits_for(self) -> str | None:
        """Which other workers /ping waits for; once they have all loaded, none ever again.

        The platform sends requests after one 200, to whichever worker accepts them.
        """
        if self._open:
            return None
        missing = self._others()
        self._open = missing is None
        return missing

    def stop(self) -> None:
        """Let go of the threads, after the work that is queued."""
        self._limit.cancel()
        self.compute.stop()

    @property
    def seconds(self) -> float:
        """Since loading began."""
        return time.monotonic() - self._started

    def _run(self) -> None:
        try:
            loaded = self._load()
            if isinstance(loaded, Loaded):  # a script has a function for it
                try_out(loaded)
        except BaseException as error:  # a model that calls sys.exit has failed as well
            self._fail(error)
            return
        self._limit.cancel()
        with self._settled:
            if self.state == LOADING:
                self.loaded = loaded
                self.state = READY
        if self.state == READY:
            self._on_ready()
        self._done.set()

    def _too_late(self, limit: float) -> None:
        self._fail(
            ByoaError(
                "MODEL_LOAD_TIMEOUT",
                f"the model is not loaded after {limit:g} s",
                expected="loading ends within SAGEMAKER_STARTUP_TIMEOUT",
                remedy="raise SAGEMAKER_STARTUP_TIMEOUT and the variant's"
                " ContainerStartupHealthCheckTimeoutInSeconds, or load less",
            )
        )

    def _fail(self, error: BaseException) -> None:
        self._limit.cancel()
        with self._settled:
            if self.state != LOADING:
                return
            self.error = describe(error, "MODEL_LOAD_FAILED")
            self.state = FAILED
        self._done.set()
        self._on_failed(error)


def describe(error: BaseException, code: str) -> dict[str, Any]:
    """The fields of an error for a JSON body; `code` where it is none of ours."""
    if isinstance(error, ByoaError):
        return dict(error.to_json())
    fields = {"code": code, "message": f"{type(error).__name__}: {text_of(error)}".rstrip(": ")}
    frame = user_frame(error)
    if frame is not None:
        fields["where"] = f"{frame.filename}:{frame.lineno} in {frame.name}"
    return fields


def trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))
