"""uvicorn's HTTP protocol (httptools on uvloop) in a worker process of gunicorn.

gunicorn opens the port, starts and replaces workers; this worker accepts, answers and drains.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import uvicorn
import uvloop
from gunicorn.workers.base import Worker

from byoa.serve.backlog import Backlog
from byoa.serve.uvicorn_protocol import Protocol

_NOTIFY_SECONDS = 1


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, listeners: list[socket.socket], workers: int
    ) -> None:
        super().__init__(config)
        self.backlog = Backlog(listeners, workers, self._protocol)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, without breaking off who is connected already and not yet accepted."""
        await self.backlog.close(self.servers)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        """A connection, made as uvicorn makes it."""
        make: Any = self.config.http_protocol_class
        made: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state,
        )
        return made

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the worker's, which must not raise them again after a clean drain."""
        yield


class UvicornWorker(Worker):  # type: ignore[misc]
    """gunicorn's worker class for the express lane where the extra `fast` is installed."""

    def init_signals(self) -> None:
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, self.handle_usr1)
        signal.signal(signal.SIGABRT, self.handle_abort)
        signal.siginterrupt(signal.SIGUSR1, False)

    def run(self) -> None:
        loop = uvloop.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._serve(loop))
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        listeners = [each.sock for each in self.sockets]
        # A connection that is made takes the others along that wait.
        config = self._config(on_accepted=lambda: server.backlog.take())
        server = _Server(config, listeners, self.app.plan.workers)

        def drain() -> None:
            server.should_exit = True

        def quit_now() -> None:
            server.should_exit = server.force_exit = True

        loop.add_signal_handler(signal.SIGTERM, drain)
        loop.add_signal_handler(signal.SIGINT, quit_now)
        loop.add_signal_handler(signal.SIGQUIT, quit_now)

        async def notify() -> None:
            self.notify()
            now = loop.time()
            for connection in list(server.server_state.connections):
                if isinstance(connection, Protocol):
                    connection.sweep(now, self.cfg.keepalive)
                elif hasattr(connection, "sweep"):  # a WebSocket
                    connection.sweep(now)
            if self.ppid != os.getppid():  # the master is gone, and nobody else would stop us
                drain()

        server.config.callback_notify = notify
        self.notify()
        await server.serve(sockets=listeners)

    def _config(self, on_accepted: Callable[[], None]) -> uvicorn.Config:
        logger = logging.getLogger("uvicorn.error")
        logger.handlers, logger.propagate = self.log.error_log.handlers, False
        logger.setLevel(self.log.error_log.level)
        server = self.app  # gunicorn's word for what serve/server.py makes
        settings: dict[str, Any] = {
            "http": partial(
                Protocol, direct=server.direct, openings=server.openings,
                settings=server.settings, on_accepted=on_accepted,
            ),
            "ws": "none",  # ours is serve/websocket.py
            "lifespan": "off",
            "interface": "asgi3",
            "log_config": None,
            "access_log": False,
            "proxy_headers": False,
            "server_header": False,
            "backlog": self.cfg.backlog,
            "timeout_keep_alive": self.cfg.keepalive,
            "timeout_notify": _NOTIFY_SECONDS,
            # A little less than the master waits, so that this end closes what is left.
            "timeout_graceful_shutdown": max(1, self.cfg.graceful_timeout - 1),
        }
        return uvicorn.Config(self.wsgi, **settings)
