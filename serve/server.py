"""gunicorn as a library: its settings, and what happens around a fork.

The master is this process, so SIGTERM reaches it. It opens the port; each worker loads its own
model, in the background, unless BYOA_PRELOAD has the master do so first (serve/preloading.py).
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from byoa.container import account, contract, heap
from byoa.container.errors import ByoaError
from byoa.container.hardware import resident_bytes, shared_bytes
from byoa.serve.access_log import AccessLog
from byoa.serve.master import Board, Crew, Master
from byoa.serve.meter import Meters
from byoa.serve.plan import Plan
from byoa.serve.settings import Settings
from byoa.serve.shared_directories import SharedDirectories
from byoa.serve.visit import Watch, WatchedAsgi, WatchedWsgi

# A replaced worker accepts no connection before it has the model, up to this long.
_REPLACEMENT_SECONDS = 30.0
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - heartbeats without a disk
_DESCRIPTORS = 16_384
_CONNECTIONS = 10_000  # that a worker of the Flask door keeps open while nothing happens on them
_LOG_SECONDS = 1.0  # for what the access log has not written when a worker ends
_REQUEST_LINE_BYTES = 8190  # gunicorn's most
# gunicorn's own ASGI worker waits for idle connections when it stops; uvicorn's closes them.
_GUNICORN_ASGI_KEEPALIVE = 5


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn with our settings; `run` returns only through SystemExit."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self.settings = settings
        self.plan = plan
        self.descriptors = _descriptors()
        self.board = Board(plan.workers)
        self.meters = Meters(plan.workers)
        self.watch = Watch(self.meters.of(0))  # each worker's own after its fork
        self.direct: Any = None  # in a worker of the express lane, what needs no ASGI
        self.adapters: Path | None = None  # of an inference script: such a directory, too
        self.catalogue = Path()  # of a multi-model server: a directory that all workers see
        self.openings: Any = None  # in a worker process of the express lane
        self._preloaded: Any = None
        self._worker: Any = None  # in a worker process, gunicorn's object for it
        self._slot = 0
        self._slots: dict[int, int] = {}  # worker's age → which CPU or GPU is its own
        self._crew = Crew(plan, self.board, _say)
        super().__init__()

    def run(self) -> NoReturn:
        if self.settings.preload:
            self._preload()
        master = os.getpid()
        directories = SharedDirectories(self.plan.user)
        try:
            if self.settings.multi_model:
                self.catalogue = directories.make("byoa-models-")
            elif self._by_script():
                self.adapters = directories.make("byoa-adapters-", in_memory=True)
            if self.settings.sessions:
                own = self.settings.sessions_path
                place = directories.of_the_author(own) if own else str(
                    directories.make("byoa-sessions-", in_memory=True)
                )
                self.settings = replace(self.settings, sessions_path=place)
            self._run()
        finally:  # a worker comes this way, too, when it ends
            if os.getpid() == master:
                directories.remove()

    def _preload(self) -> None:
        """Load the model before anything is opened or forked, as the user that is to serve it."""
        from byoa.serve.preloading import preload

        if self.plan.user is not None:
            account.become(self.plan.user)
            self.plan = replace(self.plan, user=None)
        load = partial(self._loader(), self.plan.model_dir)
        try:
            self._preloaded = preload(load, self.plan.device, self.settings.startup_timeout)
        except BaseException as error:
            _say(f"the model did not load: {_reason(error)}")
            raise SystemExit(1) from None

    def _by_script(self) -> bool:
        """Whether a script is to answer; where that cannot be said, a worker says why."""
        from byoa.serve import script_place

        plan = self.plan
        try:
            return script_place.find(
                plan.model_dir, algorithm=plan.algorithm, program=plan.program, code=plan.code
            ) is not None
        except (ByoaError, OSError):
            return False

    def _run(self) -> NoReturn:
        try:
            Master(self, self._crew).run()
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
        values: dict[str, Any] = {
            "bind": f"{settings.host}:{settings.port}",
            "backlog": settings.backlog,
            "workers": self._crew.wanted(),
            # A worker that sends no heartbeat is hung, however long requests may take.
            "timeout": int(settings.timeout) + 30,
            "graceful_timeout": settings.graceful_timeout,
            "keepalive": settings.keepalive,
            "proc_name": "byoa",
            "loglevel": settings.log_level,
            "accesslog": None,  # ours is serve/access_log.py
            "worker_tmp_dir": _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None,
            "control_socket_disable": True,
            "limit_request_line": min(settings.head_limit, _REQUEST_LINE_BYTES),
            "limit_request_field_size": settings.head_limit,
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
        gc.freeze()  # a collection writes to each object, and so would part what is shared

    def _post_fork(self, arbiter: Any, worker: Any) -> None:
        slot = self._slots[worker.age]
        self._worker, self._slot = worker, slot
        self.watch = Watch(self.meters.of(slot))
        self.watch.meter.begin()
        heap.keep_freed(heap.SERVING_BYTES)
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
        if arbiter.LISTENERS:  # else we are stopping
            self._crew.ended(worker.pid)

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
        from byoa.serve.aside import Aside
        from byoa.serve.busy_poll import BusyPoll
        from byoa.serve.direct import Direct
        from byoa.serve.express import Express
        from byoa.serve.moments import Moments
        from byoa.serve.opening import Openings

        self.openings = Openings(core, self.watch)
        moments, aside = Moments(), Aside(self.settings.queue, self.plan.codecs)
        poll = BusyPoll(self.plan.busy_poll)
        self.direct = Direct(core, self.watch, moments, aside, poll)
        express = Express(core, partial(_flask, core), moments, aside)
        return WatchedAsgi(express, self.watch, core.broken)

    def _core(self) -> Any:
        if self.settings.multi_model:
            return self._many()
        from byoa.serve.adapters import Adapters
        from byoa.serve.core import Core
        from byoa.serve.metrics import Metrics

        adapters = None if self.adapters is None else (
            Adapters(self.adapters, contract.Layout.from_environment())
        )
        return Core(
            self._host(), self.settings, Metrics(self.meters), workers=self.plan.workers,
            plan=self._told, crashes=self._crashes, adapters=adapters,
        )

    def _told(self) -> dict[str, Any]:
        """What /ping tells of the plan."""
        plan = self.plan
        return {
            "workers": self.board.wanted,
            "threads": int(plan.threads) if plan.threads.isdecimal() else plan.threads,
            "device": plan.device,
            "max_batch": self.settings.max_batch,
        }

    def _crashes(self) -> int:
        return self.board.crashes

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
            models, settings, metrics, workers=plan.workers, plan=self._told, crashes=self._crashes,
        )

    def _loader(self) -> Any:
        """What loads a model's directory in this worker."""
        from byoa.serve.loading import load

        plan = self.plan
        return partial(
            load, algorithm=plan.algorithm, program=plan.program, code=plan.code,
            device=plan.device, sessions=self.settings.sessions,
        )

    def _model(self) -> Any:
        if self._preloaded is not None:
            return self._preloaded
        return self._loader()(self.plan.model_dir)

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
            self._model,
            self._compute(),
            startup_timeout=self.settings.startup_timeout,
            on_ready=self._ready,
            on_failed=self._failed,
            others=self._others,
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
        self.board.set_ready(self._slot, resident_bytes(), shared_bytes())

    def _others(self) -> str | None:
        """What this worker waits for besides itself, None when every worker has had the model."""
        board = self.board
        if board.complete:
            return None
        return f"{board.ready} of {board.wanted} workers have loaded the model"

    def _failed(self, error: BaseException) -> None:
        """Tell why, once for all workers; end the server when /ping has had time to tell too."""
        seconds = self.settings.failure_exit
        if self.board.first_to_tell():
            print(
                f"byoa serve: the model did not load: {_reason(error)}\n"
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
        more = min(hard, _DESCRIPTORS)
        try:
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (more, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
            )
        except (ValueError, OSError):  # another limit of the system's is lower
            return soft
        return more
    return soft


def _flask(core: Any) -> Any:
    from byoa.serve.application import create_app

    return create_app(core)


def _reason(error: BaseException) -> str:
    from byoa.serve.host import trace

    plain = isinstance(error, ByoaError) and not error.__cause__
    return str(error) if plain else trace(error).rstrip()


def _say(text: str) -> None:
    print(f"byoa serve: {text}", file=sys.stderr, flush=True)
