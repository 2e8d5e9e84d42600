"""A model that is loaded once, in the master, whose workers are forked with it in their memory
(BYOA_PRELOAD): what none of them writes to is there once.

A fork takes along the memory and the thread that forks, and no other: a lock that another thread
held is held for ever. So a load that leaves a thread behind is refused, as is a GPU, whose driver
does not survive a fork. What Python counts references to, or the model writes to, is copied after
all, page by page: arrays and tensors are shared, dicts of floats are not.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from byoa.container.errors import AlgorithmError, ContractError

Model = TypeVar("Model")

_ENDING_SECONDS = 1.0
_TASKS = Path("/proc/self/task")


def preload(load: Callable[[], Model], device: str, seconds: float) -> Model:
    """What `load` returns, in a process that may be forked. Ends the process where loading takes
    longer than `seconds`.

    Raises ContractError for a GPU, AlgorithmError PRELOAD_THREADS where threads are left behind,
    and what `load` raises.
    """
    if device != "cpu":
        raise ContractError(
            "SETTING_INVALID", f"BYOA_PRELOAD is set, and the device is {device}",
            expected="a model on the CPU: what a GPU's driver holds does not survive a fork",
            remedy="remove BYOA_PRELOAD: each worker then loads the model on a GPU",
        )
    limit = threading.Timer(seconds, _too_late, (seconds,))
    limit.daemon = True
    limit.start()
    try:
        model = load()
    finally:
        limit.cancel()
        limit.join()
    others = _left_threads()
    if others:
        raise AlgorithmError(
            "PRELOAD_THREADS",
            f"load has left {len(others)} thread{'' if len(others) == 1 else 's'} behind:"
            f" {', '.join(others[:10])}",
            expected="a process of one thread, which alone can be forked",
            remedy="start threads in the first predict and leave OMP_NUM_THREADS at 1, or remove"
            " BYOA_PRELOAD",
        )
    # The collector writes to each object that it looks at, and so would copy its page.
    gc.collect()
    gc.freeze()
    return model


def _left_threads() -> list[str]:
    """The threads that stay: one that has ended, as Python sees it, is there a moment longer."""
    until = time.monotonic() + _ENDING_SECONDS
    while (others := _other_threads()) and time.monotonic() < until:
        time.sleep(0.01)
    return others


def _other_threads() -> list[str]:
    """The names of the threads besides this one, those of libraries included."""
    own = str(threading.get_native_id())
    try:
        found = [each for each in _TASKS.iterdir() if each.name != own]
        return sorted((each / "comm").read_text().strip() for each in found)
    except OSError:  # no /proc: macOS
        return [each.name for each in threading.enumerate() if each is not threading.main_thread()]


def _too_late(seconds: float) -> None:
    print(
        f"byoa serve: the model is not loaded after {seconds:g} s; to do: raise"
        " SAGEMAKER_STARTUP_TIMEOUT, or load less [MODEL_LOAD_TIMEOUT]",
        file=sys.stderr, flush=True,
    )
    os._exit(1)
