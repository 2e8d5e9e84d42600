"""The plan of workers: how many processes of which user on which device, decided from the settings
and from what the machine has.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from byoa.container import account, contract, hardware
from byoa.container.errors import ContractError
from byoa.serve.settings import MEGABYTE, USER, Settings

# Decoding holds Python's lock most of the time: more threads than CPUs only keep the others of the
# process waiting for it, among them the one that answers /ping.
_MOST_CODECS = 4
# Long enough for what asks again at once and was written in C, and sometimes in Python.
_BUSY_POLL_SECONDS = 0.0002
MEMORY_SHARE = 0.9  # of the container's, for the workers
# What a worker may take, for a first look: a framework, and a model's files read and unpacked.
_FRAMEWORK_BYTES, _TIMES_FILES = 500 << 20, 2


@dataclass(frozen=True)
class Plan:
    """What is started, decided from the settings and what the machine has."""

    workers: int
    cpus: tuple[int, ...]  # the usable ones, for pinning
    pin: bool
    device: str
    gpus: tuple[str, ...]  # CUDA's names of the devices that workers take in turn
    threads: str
    model_dir: Path
    algorithm: str | None
    busy_poll: float = 0.0  # seconds that a worker looks for the next request, see busy_poll.py
    codecs: int = 1  # threads of a worker that decode large bodies
    program: str | None = None  # the inference script that SAGEMAKER_PROGRAM names …
    code: Path | None = None  # … and where its code is, None for the model's own code/
    models_bytes: int = 0  # a worker's share of the memory, in multi-model mode
    memory: int = 0  # bytes for all workers
    measure: bool = False  # start one worker, and as many more as then are seen to fit
    user: account.Account | None = None  # whom the workers become; None: as the server is
    user_note: str = ""

    def describe(self, settings: Settings, found: hardware.Hardware) -> str:
        """The plan as one line."""
        lane = "Flask on gthread" if settings.door == "flask" else (
            f"express lane on {settings.asgi_worker}"
        )
        plural = "worker" if self.workers == 1 else "workers"
        where = f"{len(self.gpus)} GPUs" if self.gpus else f"{found.cpus:g} CPUs"
        pinned = ", one CPU each" if self.pin else ""
        return (
            f"byoa serve: {lane}, port {settings.port}, {self.workers} {plural} on {where}"
            f" ({found.cpu_source}){pinned}, {self.threads} compute thread(s) each,"
            f" device {self.device}, {self._models(settings)}{_loaded(settings)},"
            f" workers as {self.user or account.own()}{self.user_note}"
        )

    def _models(self, settings: Settings) -> str:
        if not settings.multi_model:
            return f"model {self.model_dir}"
        return f"many models in {hardware.size(self.models_bytes)} of each worker"


def _loaded(settings: Settings) -> str:
    return " loaded once for all" if settings.preload else ""


def make_plan(
    settings: Settings, found: hardware.Hardware, environ: Mapping[str, str] = os.environ, *,
    code: Path | None = None,
) -> Plan:
    """One worker a usable CPU, or a GPU; pinned where the container has the CPUs to itself."""
    cpus = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()
    gpus: tuple[str, ...] = ()
    if found.device == "cuda":
        visible = environ.get("CUDA_VISIBLE_DEVICES", "")
        names = [name.strip() for name in visible.split(",") if name.strip()]
        gpus = tuple(names[: len(found.gpus)]) or tuple(str(i) for i in range(len(found.gpus)))
    workers = settings.workers or (len(gpus) or found.threads)
    pin = settings.pin
    if pin is None:
        # Beside other processes on a laptop, binding would hold a worker on a busy CPU.
        pin = contract.BASE_DIR_VARIABLE not in environ and 1 < workers == len(cpus)
    model_dir = contract.Layout.from_environment(environ).model
    memory = int(MEMORY_SHARE * found.memory_bytes)
    user, note = _user(settings.user, model_dir)
    busy_poll = settings.busy_poll
    if busy_poll is None:
        has_quota = found.cpus < len(cpus)  # which looking must not use up: the rest is throttled
        has_room = workers < found.cpus if has_quota else workers <= found.cpus
        busy_poll = _BUSY_POLL_SECONDS if has_room else 0.0
    return Plan(
        user=user, user_note=note, busy_poll=busy_poll,
        workers=workers, cpus=cpus, pin=pin and bool(cpus), device=found.device, gpus=gpus,
        threads=environ.get("OMP_NUM_THREADS", "1"),
        codecs=max(1, min(_MOST_CODECS, found.threads // workers)),
        model_dir=model_dir,
        algorithm=environ.get(contract.ALGORITHM_VARIABLE) or None,
        program=environ.get(contract.PROGRAM_VARIABLE) or None,
        code=code,
        models_bytes=settings.models_memory * MEGABYTE if settings.models_memory
        else memory // workers,
        memory=memory,
        measure=settings.workers is None and not settings.multi_model
        and workers * _estimate(model_dir) > memory,
    )


def _user(name: str, model_dir: Path) -> tuple[account.Account | None, str]:
    """Whom the workers become, None for nobody else; and what there is to say about it.

    The default asks for nothing where it cannot be had, nor where it could not read the model (a
    folder of the user's own is often mounted with mode 0700); a user that was named has to be
    there.
    """
    own, wanted = account.own(), account.find(name)
    if name in (own.name, account.ROOT_NAME):  # a server that is not root is not made so
        return None, ""
    obstacle = account.obstacle(wanted) if wanted else "there is no such user here"
    if obstacle is None and wanted is not None and name == USER:
        closed = account.closed_to(wanted, model_dir)
        if closed is not None:
            obstacle = f"{closed} is {account.describe(closed)}"
    if obstacle is None:
        return wanted, ""
    if name == USER:
        return None, f", not {USER}: {obstacle}" if wanted and own.uid == 0 else ""
    raise ContractError(
        "SETTING_INVALID", f"BYOA_USER={name!r}: {obstacle}",
        expected="the name of a user in the image's /etc/passwd, and a server that starts as root",
        remedy=f"add the user to the image, or remove BYOA_USER: the default is {USER} where the"
        " image has it",
    )


def _estimate(model_dir: Path) -> int:
    files = sum(path.stat().st_size for path in model_dir.rglob("*") if path.is_file())
    return _FRAMEWORK_BYTES + _TIMES_FILES * files
