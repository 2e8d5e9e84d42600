"""The routes that load and unload LoRA adapters (SESS-04), over the core."""

from __future__ import annotations

from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from typing import TYPE_CHECKING

from byoa.container.errors import ByoaError
from byoa.serve import adapters
from byoa.serve.adapters import Adapters
from byoa.serve.inference_script import InferenceScript
from byoa.serve.messages import Answer, Request, as_json

if TYPE_CHECKING:
    from byoa.serve.core import Core


def has(path: str) -> bool:
    return path == adapters.PATH or path.startswith(adapters.PREFIX)


def answer(core: Core, kept: Adapters | None, request: Request) -> Answer:
    """200, 400, 404 or 409; waits for the model's thread, as long as loading a model may take."""
    wanted = "POST" if request.path == adapters.PATH else "DELETE"
    if request.method != wanted:
        refused = core.refuse(request, 405, ByoaError(
            "METHOD_NOT_ALLOWED", f"{request.method} {request.path[:200]} is not answered here",
            expected=wanted,
        ).to_json())
        return refused._replace(headers=(*refused.headers, ("Allow", wanted)))
    target = core.target(request)
    if isinstance(target, Answer):
        return target
    script = target.loaded
    if kept is None or not isinstance(script, InferenceScript) or not script.adapts:
        return core.refuse(request, 400, adapters.unsupported(None).to_json())
    try:
        if wanted == "POST":
            entry, at_once = adapters.entry_of(request.body)
            name, done = entry.name, "registered"
            work = partial(kept.load, script, entry, at_once=at_once)
        else:
            name, done = adapters.named(request.path), "unregistered"
            work = partial(kept.unload, script, name)
        waiting = target.compute.submit(work, measured=False)
        try:
            waiting.result(core.settings.startup_timeout)
        except FutureTimeout:
            if waiting.done():  # the author's function raised it
                raise
            waiting.cancel()
            return core.refuse(request, 504, _too_late(name, core.settings.startup_timeout))
    except Exception as error:
        return core.failed(request, error)
    return as_json(200, {"status": f"Adapter {name} {done}"})


def _too_late(name: str, seconds: float) -> dict[str, str]:
    return ByoaError(
        "ADAPTER_TIMEOUT", f"adapter {name} is not ready after {seconds:g} s",
        expected="load_adapter and unload_adapter return within SAGEMAKER_STARTUP_TIMEOUT",
    ).to_json()
