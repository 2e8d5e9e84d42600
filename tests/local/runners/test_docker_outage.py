"""An engine that stops in the middle: through a socket of ours that can be cut."""

from __future__ import annotations

import contextlib
import gc
import selectors
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from byoa.container.errors import ByoaError
from byoa.local.runners import docker_container, engine
from byoa.local.runners.engine import EngineUnavailable

pytestmark = [
    pytest.mark.docker,
    # The SDK leaves a socket open that it cannot connect.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

READY = "print('ready', flush=True)\n"


class Cuttable:
    """Passes what comes to `path` on to the engine, until it is cut."""

    def __init__(self, path: Path, target: str) -> None:
        self.path, self._target = path, target
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._server: socket.socket | None = None
        self.mend()

    def mend(self) -> None:
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(self.path))
        self._server.listen()
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def cut(self) -> None:
        with self._lock:
            assert self._server is not None
            self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
            self.path.unlink()
            for pair in self._pairs:
                for each in pair:
                    with contextlib.suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                near, _ = server.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            far.connect(self._target)
            with self._lock:
                self._pairs.append((near, far))
            threading.Thread(target=_carry, args=(near, far), daemon=True).start()


def _carry(near: socket.socket, far: socket.socket) -> None:
    with near, far, selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
        selector.register(near, selectors.EVENT_READ, far)
        selector.register(far, selectors.EVENT_READ, near)
        while True:
            for key, _ in selector.select(60):
                data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                if not data:
                    return
                key.data.sendall(data)


@pytest.fixture
def wire(engine: Any) -> Iterator[Cuttable]:
    from byoa.local.runners.engine import find

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        passing = Cuttable(Path(folder) / "engine.sock", find()[0].removeprefix("unix://"))
        yield passing
        with contextlib.suppress(OSError):
            passing.cut()
        gc.collect()  # of the sockets that the SDK left open


@pytest.fixture
def wired(wire: Cuttable, make_docker_runner: Callable[..., Any]) -> Any:
    return make_docker_runner(
        connect=lambda: engine.connect({"DOCKER_HOST": f"unix://{wire.path}"})
    )


def test_an_engine_that_comes_back_costs_no_line_and_no_exit(
    wire: Cuttable, wired: Any, spec: Any, start_ready: Any, until: Any
) -> None:
    box = spec(READY + (
        "for number in range(300):\n    print(number, flush=True); time.sleep(0.01)\n"
        "sys.exit(7)"
    ))
    container = start_ready(wired, box)
    until(lambda: "20\n" in box.log.read_text())
    wire.cut()
    container.terminate()  # is lost, and raises nothing
    assert container.wait(1.0) is None
    wire.mend()

    assert container.wait(30).code == 7
    assert box.log.read_text().splitlines() == ["ready", *map(str, range(300))]
    container.remove()


def test_an_engine_that_stays_away_is_the_reason(
    wire: Cuttable, wired: Any, spec: Any, start_ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_container, "LOST_SECONDS", 1.0)
    container = start_ready(wired, spec(READY + "time.sleep(30)"))
    wire.cut()

    for _ in range(2):  # whoever asks again is told again
        with pytest.raises(EngineUnavailable, match="has not answered for 1 s while container box"):
            container.wait(20)
    container.kill()
    container.remove()
    for call in (lambda: wired.check("any"), lambda: wired.start(spec("", "other")),
                 lambda: wired.adopt({"name": "other"}), wired.running):
        with pytest.raises(ByoaError) as caught:
            call()
        assert caught.value.code == "DOCKER_UNAVAILABLE"
    wire.mend()
    assert [each for each in wired.running() if each == "box"] == ["box"]
