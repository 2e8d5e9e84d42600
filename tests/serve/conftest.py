"""Real inference servers for tests: `python -m byoa.serve` with a small algorithm, each door."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# The first column of a record says what predict does.
ALGORITHM = '''
import sys, time
from pathlib import Path
import numpy as np
from byoa.algorithms import Algorithm, param
from byoa.container.errors import DataError

class Unspeakable(Exception):
    def __str__(self):
        raise TypeError("there is no text")

class Unreadable(list):
    def __len__(self):
        sys.exit(5)

class Scripted(Algorithm):
    class Hyperparameters(Algorithm.Hyperparameters):
        load_seconds: float = param(0.0, doc="how long load takes")
        load_error: str = param("", doc="what load raises")

    def train(self, run):
        raise AssertionError("not called when serving")

    def load(self, model_dir, device):
        time.sleep(self.hyperparameters.load_seconds)
        if self.hyperparameters.load_error == "exit":
            sys.exit(7)
        if self.hyperparameters.load_error == "killed":
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
        if self.hyperparameters.load_error:
            raise RuntimeError(self.hyperparameters.load_error)
        return np.load(model_dir / "weights.npy")

    def predict(self, model, records):
        what = records[0, 0]
        if what == 901:
            time.sleep(1.5)
        elif what == 902:
            raise ValueError("the eigenvalues have left")
        elif what == 903:
            return np.zeros(len(records) + 1)
        elif what == 904:
            sys.exit(3)
        elif what == 905:
            raise DataError("AGE_NEGATIVE", "an age is negative", where="record 1, column 2")
        elif what == 906:
            time.sleep(0.05)
        elif what == 907:
            return [object() for _ in records]
        elif what == 908:
            return None
        elif what == 909:
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == 910:
            return {"predicted_label": records[:, 1].astype(int), "score": records @ model}
        elif what == 911:
            return ["grüße"] * len(records)
        elif what == 912:
            time.sleep(60)
        elif what == 913:
            time.sleep(0.4)
        elif what == 914:
            time.sleep(3)
        elif what == 915:
            raise Unspeakable
        elif what == 916:
            return Unreadable()
        return records @ model
'''
DOORS: dict[str, dict[str, str]] = {
    "flask": {"BYOA_SERVER": "flask"},
    "express": {"BYOA_SERVER": "express", "BYOA_ASGI_WORKER": "uvicorn"},
    "express-gunicorn": {"BYOA_SERVER": "express", "BYOA_ASGI_WORKER": "gunicorn"},
}
FEATURES = 4


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class InferenceServer:
    """One `python -m byoa.serve` and what it printed."""

    base: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    port: int = 0

    @property
    def log(self) -> str:
        return (self.base / "server.log").read_text(errors="replace")

    def start(self) -> InferenceServer:
        self.base.mkdir(parents=True, exist_ok=True)
        with (self.base / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "byoa.serve"], env=self.environment, stdout=log,
                stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )
        return self

    def ready(self, seconds: float = 30.0) -> InferenceServer:
        """Wait for the first 200 of /ping."""
        self.wait_for(lambda: self.ping() == 200, seconds)
        return self

    def wait_for(self, condition: Callable[[], Any], seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return
            time.sleep(0.02)
        raise AssertionError(f"not within {seconds} s; the server said:\n{self.log}")

    def ping(self) -> int | None:
        """The status of /ping, None where nobody answers."""
        try:
            return self.call("GET", "/ping", timeout=2).status
        except OSError:
            return None

    def call(
        self, method: str, path: str, body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None, timeout: float = 20,
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, found, answer.read())
        finally:
            connection.close()

    def invoke(
        self, body: bytes | str | None = "1,2,3,4\n", content_type: str | None = "text/csv",
        accept: str | None = None, timeout: float = 20, **headers: str,
    ) -> Reply:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if content_type is not None:
            given["Content-Type"] = content_type
        if accept is not None:
            given["Accept"] = accept
        return self.call("POST", "/invocations", body, given, timeout)

    def raw(self, timeout: float = 20) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def workers(self) -> list[int]:
        assert self.process is not None
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in task.read_text().split()]

    def terminate(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        assert self.process is not None
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # the master and every worker
        except ProcessLookupError:
            pass
        self.process.wait(10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_model(directory: Path, **hyperparameters: Any) -> None:
    """A model directory of the scripted algorithm: each feature times 1, 2, 3, 4, summed."""
    import numpy as np

    directory.mkdir(parents=True, exist_ok=True)
    np.save(directory / "weights.npy", np.arange(1, FEATURES + 1, dtype=np.float32))
    (directory / "byoa.json").write_text(json.dumps({
        "byoa": 1,
        "algorithm": "scripted:Scripted",
        "hyperparameters": hyperparameters,
        "input": {"features": FEATURES, "sample": [[1.0, 2.0, 3.0, 4.0]]},
    }))


class Servers:
    """Starts servers, and stops them all in the end."""

    def __init__(self, base: Path, environment: Mapping[str, str]) -> None:
        self.base = base
        self.environment = environment
        self.started: list[InferenceServer] = []
        (base / "authors").mkdir(parents=True)
        (base / "authors" / "scripted.py").write_text(ALGORITHM)

    def __call__(
        self, door: str = "express", *, wait: bool = True, model: Mapping[str, Any] | None = None,
        prepare: Callable[[Path], None] | None = None, **variables: str,
    ) -> InferenceServer:
        """`model`: hyperparameters; `prepare` changes the model directory before the start."""
        base = self.base / f"server-{len(self.started)}"
        root = base / "ml"
        write_model(root / "model", **(model or {}))
        if prepare is not None:
            prepare(root / "model")
        port = free_port()
        environment = {
            **self.environment, **DOORS[door],
            "PYTHONPATH": os.pathsep.join(
                [str(self.base / "authors"), *filter(None, [self.environment.get("PYTHONPATH")])]
            ),
            "SAGEMAKER_BASE_DIR": str(root),
            "SAGEMAKER_BIND_TO_PORT": str(port),
            "BYOA_WORKERS": "1",
            **variables,
        }
        server = InferenceServer(base, environment, port=port)
        self.started.append(server)
        server.start()
        return server.ready() if wait else server

    def stop(self) -> None:
        """Kill what still runs; how a server stops by itself is a test's matter."""
        for server in self.started:
            server.kill()


@pytest.fixture
def servers(tmp_path: Path, clean_environment: dict[str, str]) -> Iterator[Servers]:
    """Starts servers of a test's own."""
    starter = Servers(tmp_path / "serve", clean_environment)
    yield starter
    starter.stop()


@pytest.fixture(params=list(DOORS))
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def shared_servers(
    tmp_path_factory: pytest.TempPathFactory, clean_environment: dict[str, str]
) -> Iterator[Callable[[str], InferenceServer]]:
    starter = Servers(tmp_path_factory.mktemp("serve") / "shared", clean_environment)
    running: dict[str, InferenceServer] = {}

    def get(door: str) -> InferenceServer:
        if door not in running:
            running[door] = starter(door, SAGEMAKER_MAX_PAYLOAD_IN_MB="1", BYOA_WORKERS="2")
        return running[door]

    yield get
    starter.stop()


@pytest.fixture
def server(door: str, shared_servers: Callable[[str], InferenceServer]) -> InferenceServer:
    """A running server for each door in turn, shared by tests that leave it as it is."""
    return shared_servers(door)


@pytest.fixture
def model_directory(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str = "model", **hyperparameters: Any) -> Path:
        write_model(tmp_path / name, **hyperparameters)
        return tmp_path / name

    return write


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The scripted algorithm, importable in this process."""
    (tmp_path / "authors").mkdir()
    (tmp_path / "authors" / "scripted.py").write_text(ALGORITHM)
    monkeypatch.syspath_prepend(str(tmp_path / "authors"))
    monkeypatch.delitem(sys.modules, "scripted", raising=False)
    yield "scripted:Scripted"
    sys.modules.pop("scripted", None)
