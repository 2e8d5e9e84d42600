"""gunicorn as a library: the plan of workers, the settings, and what happens around a fork.

The master is this process, so SIGTERM reaches it. It opens the port and never loads a model;
each worker loads its own, in the background.
"""

from __future__ import annotations

import mmap
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from byoa.container import account, contract, hardware
from byoa.container.errors import ByoaError, ContractError
from byoa.serve.access_log import AccessLog
from byoa.serve.meter import Meters
from byoa.serve.settings import MEGABYTE, USER, Settings
from byoa.serve.visit import Watch, WatchedAsgi, WatchedWsgi

# Worker processes that may die before any of them has loaded the model.
_DEATHS_BEFORE_READY = 3
# A replaced worker accepts no connection before it has the model, up to this long.
_REPLACEMENT_SECONDS = 30.0
_DESCRIPTORS = 16_384
_CONNECTIONS = 10_000  # that a worker of the Flask door keeps open while nothing happens on them
_LOG_SECONDS = 1.0  # for what the access log has not written when a worker ends
MODELS_SHARE = 0.9  # of the memory, for the workers of a multi-model server
# gunicorn's own ASGI worker waits for idle connections when it stops; uvicorn's closes them.
_GUNICORN_ASGI_KEEPALIVE = 5


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
    program: str | None = None  # the inference script that SAGEMAKER_PROGRAM names …
    code: Path | None = None  # … and where its code is, None for the model's own code/
    models_bytes: int = 0  # a worker's share of the memory, in multi-model mode
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
            f" device {self.device}, {self._models(settings)},"
            f" workers as {self.user or account.own()}{self.user_note}"
        )


    def _models(self, settings: Settings) -> str:
        if not settings.multi_model:
            return f"model {self.model_dir}"
        return f"many models in {hardware.size(self.models_bytes)} of each worker"


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
    user, note = _user(settings.user, model_dir)
    return Plan(
        user=user, user_note=note,
        workers=workers, cpus=cpus, pin=pin and bool(cpus), device=found.device, gpus=gpus,
        threads=environ.get("OMP_NUM_THREADS", "1"),
        model_dir=model_dir,
        algorithm=environ.get(contract.ALGORITHM_VARIABLE) or None,
        program=environ.get(contract.PROGRAM_VARIABLE) or None,
        code=code,
        models_bytes=settings.models_memory * MEGABYTE if settings.models_memory
        else int(MODELS_SHARE * found.memory_bytes / workers),
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


class Board:
    """What all workers share: which of them have had the model, and whether a failure is told."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        # Anonymous and shared, so that it outlives the fork: one byte a worker, one for telling.
        self._memory = mmap.mmap(-1, workers + 1)

    @property
    def ready(self) -> int:
        """How many workers of the plan have loaded the model, now or before they were replaced."""
        return sum(self._memory[: self._workers])

    @property
    def complete(self) -> bool:
        return self.ready == self._workers

    def set_ready(self, slot: int) -> None:
        if slot < self._workers:
            self._memory[slot] = 1

    def first_to_tell(self) -> bool:
        first = self._memory[self._workers] == 0
        self._memory[self._workers] = 1
        return first


class Master(Arbiter):  # type: ignore[misc]
    """gunicorn's master, which stops in order when several workers fail."""

    def reap_workers(self) -> None:
        # gunicorn stops at the first worker that failed, and the second one's failure would break
        # that off with a traceback, after the sentence that tells the reason.
        while True:
            try:
                super().reap_workers()
            except HaltServer:
                if self.LISTENERS:
                    raise
                continue  # stopping already; one worker fewer is left
            return


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn with our settings; `run` returns only through SystemExit."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self.settings = settings
        self.plan = plan
        self.descriptors = _descriptors()
        self.board = Board(plan.workers)
        self.meters = Meters(plan.workers)
        self.watch = Watch(self.meters.of(0))  # each worker's own after its fork
        self.catalogue = Path()  # of a multi-model server: a directory that all workers see
        self._worker: Any = None  # in a worker process, gunicorn's object for it
        self._slot = 0
        self._slots: dict[int, int] = {}  # worker's age → which CPU or GPU is its own
        self._deaths = 0
        super().__init__()

    def run(self) -> NoReturn:
        if not self.settings.multi_model:
            self._run()
        master = os.getpid()
        self.catalogue = Path(tempfile.mkdtemp(prefix="byoa-models-"))
        try:
            if self.plan.user is not None:
                os.chown(self.catalogue, self.plan.user.uid, self.plan.user.gid)
            self._run()
        finally:  # a worker comes this way, too, when it ends
            if os.getpid() == master:
                shutil.rmtree(self.catalogue, ignore_errors=True)

    def _run(self) -> NoReturn:
        try:
            Master(self).run()
        except RuntimeError as error:
            raise ByoaError(
                "SERVER_START", f"gunicorn did not start: {error}",
                expected="a machine and settings that gunicorn can work with",
            ) from error
        raise SystemExit(0)

    def load_config(self) -> None:
        for name, value in self._gunicorn().items():
            self.cfg.set(name, value)

    def _gunicorn(self) -> dict[str, Any]:
        settings = self.settings
        shared_memory = "/dev/shm"  # noqa: S108 - heartbeats without a disk
        values: dict[str, Any] = {
            "bind": f"{settings.host}:{settings.port}",
            "backlog": settings.backlog,
            "workers": self.plan.workers,
            # A worker that sends no heartbeat is hung, however long requests may take.
            "timeout": int(settings.timeout) + 30,
            "graceful_timeout": settings.graceful_timeout,
            "keepalive": settings.keepalive,
            "proc_name": "byoa",
            "loglevel": settings.log_level,
            "accesslog": None,  # ours is serve/access_log.py
            "worker_tmp_dir": shared_memory if os.access(shared_memory, os.W_OK) else None,
            "control_socket_disable": True,
            # The C parser that `auto` may find broke connections on large bodies.
            "http_parser": "python",
            "asgi_lifespan": "off",
            "pre_fork": self._pre_fork,
            "post_fork": self._post_fork,
            "child_exit": self._child_exit,
            "worker_exit": self._worker_exit,
        }
        if self.plan.user is not None:  # to whom gunicorn gives the workers' heartbeat files
            values |= {"user": self.plan.user.uid, "group": self.plan.user.gid}
        if settings.door == "flask":
            # A thread for every request that may wait, and some that answer /ping meanwhile.
            # Threads are made when they are needed.
            threads = settings.queue + 16
            values |= {
                "worker_class": "byoa.serve.gthread_worker.FlaskWorker",
                "threads": threads,
                "worker_connections": threads + min(_CONNECTIONS, self.descriptors // 2),
            }
        elif settings.asgi_worker == "uvicorn":
            values["worker_class"] = "byoa.serve.uvicorn_worker.UvicornWorker"
        else:
            values |= {
                "worker_class": "byoa.serve.asgi_worker.AsgiWorker",
                "keepalive": min(settings.keepalive, _GUNICORN_ASGI_KEEPALIVE),
            }
        return values

    # --- around the fork ---------------------------------------------------------------------

    def _pre_fork(self, arbiter: Any, worker: Any) -> None:
        taken = set(self._slots.values())
        slot = self._slots[worker.age] = next(i for i in range(len(taken) + 1) if i not in taken)
        self.meters.forks(slot)

    def _post_fork(self, arbiter: Any, worker: Any) -> None:
        slot = self._slots[worker.age]
        self._worker, self._slot = worker, slot
        self.watch = Watch(self.meters.of(slot))
        self.watch.meter.begin()
        if self.plan.pin:
            os.sched_setaffinity(0, {self.plan.cpus[slot % len(self.plan.cpus)]})
        if self.plan.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.plan.gpus[slot % len(self.plan.gpus)]
        if self.plan.user is None:
            account.settle()
        else:
            account.become(self.plan.user)

    def _child_exit(self, arbiter: Any, worker: Any) -> None:
        slot = self._slots.pop(worker.age, None)
        if slot is not None:
            self.meters.of(slot).end()
        if self.board.complete or not arbiter.LISTENERS:  # no listeners: we are stopping
            return
        self._deaths += 1
        if self._deaths >= _DEATHS_BEFORE_READY:
            raise HaltServer(f"{self._deaths} workers died while they loaded the model", 1)

    def _worker_exit(self, arbiter: Any, worker: Any) -> None:
        if self.watch.log is not None:
            self.watch.log.close(_LOG_SECONDS)

    # --- in a worker -------------------------------------------------------------------------

    def load(self) -> Any:
        """The application of a worker's door, with the model on its way."""
        if self.settings.access_log:
            self.watch.log = AccessLog(on_drop=self.watch.meter.line_dropped)
        core = self._core()
        if self.settings.door == "flask":
            return WatchedWsgi(_flask(core), self.watch)
        from byoa.serve.express import Express

        return WatchedAsgi(Express(core, partial(_flask, core)), self.watch, core.broken)

    def _core(self) -> Any:
        if self.settings.multi_model:
            return self._many()
        from byoa.serve.core import Core
        from byoa.serve.metrics import Metrics

        return Core(
            self._host(), self.settings, Metrics(self.meters), workers=self.plan.workers,
            plan=self._told(),
        )

    def _told(self) -> dict[str, Any]:
        """What /ping tells of the plan."""
        plan = self.plan
        return {
            "workers": plan.workers,
            "threads": int(plan.threads) if plan.threads.isdecimal() else plan.threads,
            "device": plan.device,
            "max_batch": self.settings.max_batch,
        }

    def _many(self) -> Any:
        from byoa.serve.metrics import Metrics
        from byoa.serve.models import Catalogue, Models
        from byoa.serve.multi_model import MultiModelCore

        plan, settings = self.plan, self.settings
        self.board.set_ready(self._slot)
        models = Models(
            Catalogue(self.catalogue),
            partial(self._loader(), alone=False),
            self._compute,
            contract.Layout.from_environment().inside,
            budget_bytes=plan.models_bytes,
            startup_timeout=settings.startup_timeout,
            on_change=self.watch.meter.set_models,
        )
        metrics = Metrics(self.meters, lambda: len(models.catalogue.names()))
        return MultiModelCore(
            models, settings, metrics, workers=plan.workers, plan=self._told()
        )

    def _loader(self) -> Any:
        """What loads a model's directory in this worker."""
        from byoa.serve.loading import load

        plan = self.plan
        return partial(
            load, algorithm=plan.algorithm, program=plan.program, code=plan.code,
            device=plan.device, sessions=self.settings.sessions,
        )

    def _compute(self) -> Any:
        from byoa.serve.compute import Compute

        settings = self.settings
        return Compute(
            limit=settings.queue, inline=settings.inline, max_batch=settings.max_batch,
            meter=self.watch.meter,
        )

    def _host(self) -> Any:
        from byoa.serve.host import LOADING, Host

        host = Host(
            partial(self._loader(), self.plan.model_dir),
            self._compute(),
            startup_timeout=self.settings.startup_timeout,
            on_ready=self._ready,
            on_failed=self._failed,
            others=partial(_others, self.board, self.plan.workers),
        )
        host.start()
        if self.board.complete and self.plan.workers > 1:
            # A replacement: the others answer meanwhile, and better than a 503 from here.
            end = time.monotonic() + _REPLACEMENT_SECONDS
            while host.state == LOADING and time.monotonic() < end:
                host.wait(1.0)
                self._worker.notify()
        return host

    def _ready(self) -> None:
        self.watch.meter.set_models(1)
        self.board.set_ready(self._slot)

    def _failed(self, error: BaseException) -> None:
        """Tell why, once for all workers; end the server when /ping has had time to tell too."""
        from byoa.serve.host import trace

        seconds = self.settings.failure_exit
        if self.board.first_to_tell():
            text = str(error) if isinstance(error, ByoaError) and not error.__cause__ else (
                trace(error).rstrip()
            )
            print(
                f"byoa serve: the model did not load: {text}\n"
                f"byoa serve: /ping answers 503 with this reason; exit in {seconds:g} s"
                " (BYOA_LOAD_FAILURE_SECONDS)",
                file=sys.stderr, flush=True,
            )
        timer = threading.Timer(seconds, self._give_up)
        timer.daemon = True
        timer.start()

    def _give_up(self) -> None:
        # A server that was complete loses this worker only, which is replaced.
        os._exit(1 if self.board.complete else Arbiter.WORKER_BOOT_ERROR)


def _descriptors() -> int:
    """How many files and sockets a process may have open; as many as a shell's limit lets it.

    Shells give few, such as 1,024, and a connection that is idle takes one.
    """
    soft, hard = (
        _DESCRIPTORS if limit == resource.RLIM_INFINITY else limit
        for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    if soft < min(hard, _DESCRIPTORS):
        soft = min(hard, _DESCRIPTORS)
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        )
    return soft


def _others(board: Board, workers: int) -> str | None:
    """What this worker waits for besides itself, None when every worker has had the model."""
    ready = board.ready
    return None if ready == workers else f"{ready} of {workers} workers have loaded the model"


def _flask(core: Any) -> Any:
    from byoa.serve.application import create_app

    return create_app(core)
