"""The real image by `docker run`, with nothing but the contract's files mounted on /opt/ml."""

from __future__ import annotations

import base64
import http.client
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from byoa.container.contract import (
    ChannelConfig,
    InputDataConfig,
    Layout,
    ResourceConfig,
    write_hyperparameters,
)

GOLDEN = Path(__file__).parents[2] / "container" / "fixtures" / "config"
LIMIT = 120.0  # seconds that a container of these tests may take for anything
# How a container is started; what works for root must work in each of them.
WAYS: dict[str, dict[str, Any]] = {
    "root": {},
    "user": {"user": "1000:1000"},
    "nameless": {"user": "4711:4711"},  # no entry in /etc/passwd
    "read-only": {"read_only": True, "tmpfs": {"/tmp": ""}},
    "no-network": {"network_mode": "none"},
    "all-at-once": {"user": "4711:4711", "read_only": True, "tmpfs": {"/tmp": ""},
                    "network_mode": "none"},
}
# An author's image: one file. The first number of a record says what predict does.
PROBE = '''
import json, os, tempfile, time
from pathlib import Path
from byoa.algorithms import Algorithm, param

class Probe(Algorithm):
    distributed = True

    class Hyperparameters(Algorithm.Hyperparameters):
        epochs: int = param(1, doc="passes")
        lr: float = param(0.5, doc="a rate")

    def train(self, run):
        records, labels = run.channel("train").load()
        run.metrics.log("train:records", len(records))
        model = {"epochs": run.hyperparameters.epochs, "lr": run.hyperparameters.lr}
        (run.model_dir / "probe.json").write_text(json.dumps(model))

    def load(self, model_dir, device):
        for directory in (os.environ["HOME"], tempfile.gettempdir()):
            tempfile.TemporaryFile(dir=directory).close()  # as a library's cache would
        return json.loads((model_dir / "probe.json").read_text())

    def predict(self, model, records):
        what = records[0, 0]
        if what == 901:
            print("predicting", flush=True)
            time.sleep(3)
        elif what == 902:
            raise ValueError("the eigenvalues have left")
        elif what == 903:
            return [os.getuid()] * len(records)
        elif what == 904:
            time.sleep(0.1)
        return records.sum(axis=1)
'''
# Calls the server from inside, where no network leads to it.
INSIDE = """
import base64, http.client, json, sys
method, path, body, headers, port, timeout = json.loads(sys.argv[1])
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
connection.request(method, path, base64.b64decode(body), headers)
answer = connection.getresponse()
body = base64.b64encode(answer.read()).decode()
print(json.dumps([answer.status, dict(answer.getheaders()), body]))
"""


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Tree:
    """An /opt/ml as the platform leaves it: of root, or of whoever runs the tests."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        self.layout.create()
        self.share()

    def share(self) -> None:
        """Let any uid of a container write what a job may write."""
        for directory in (self.layout.model, self.layout.output, self.layout.processing):
            for path in (directory, *directory.rglob("*")):
                if path.is_dir():
                    path.chmod(0o777)

    def golden(self, *names: str) -> None:
        """Files of the contract's own, byte for byte."""
        for name in names:
            (source,) = GOLDEN.glob(f"{name}-*.json")
            (self.layout.config / source.name.removeprefix(f"{name}-")).write_bytes(
                source.read_bytes()
            )

    def job(self, train: bytes, **hyperparameters: str) -> None:
        """A job on one host with a CSV channel."""
        write_hyperparameters(self.layout, hyperparameters)
        InputDataConfig({"train": ChannelConfig(content_type="text/csv")}).write(self.layout)
        ResourceConfig().write(self.layout)
        self.channel("train", train)

    def channel(self, name: str, content: bytes) -> Path:
        path = self.layout.channel(name) / "part-0.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    @property
    def model(self) -> set[str]:
        return {
            path.relative_to(self.layout.model).as_posix()
            for path in self.layout.model.rglob("*") if path.is_file()
        }

    @property
    def manifest(self) -> Any:
        return json.loads((self.layout.model / "byoa.json").read_text())

    @property
    def failure(self) -> str:
        """What the service shows of the failure file: the first 1,024 bytes here."""
        return self.layout.failure.read_bytes()[:1024].decode()


class Box:
    """One container, started."""

    def __init__(self, container: Any, port: int) -> None:
        self.container = container
        self.inside_port = port
        self._bindings: dict[str, Any] = {}

    @property
    def log(self) -> str:
        return str(self.container.logs().decode(errors="replace"))

    @property
    def running(self) -> bool:
        self.container.reload()
        return bool(self.container.status == "running")

    def wait(self, seconds: float = LIMIT) -> int:
        """The exit code."""
        return int(self.container.wait(timeout=seconds)["StatusCode"])

    def until(self, condition: Callable[[], Any], seconds: float = LIMIT) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return
            assert self.running, f"it has ended:\n{self.log}"
            time.sleep(0.05)
        raise AssertionError(f"not within {seconds:g} s:\n{self.log}")

    def ready(self) -> Box:
        """Wait for the first 200 of /ping."""
        self.until(lambda: self.ping() == 200)
        return self

    def ping(self) -> int | None:
        """The status of /ping, None where it is not answered within the contract's 2 s."""
        try:
            return self.call("GET", "/ping", timeout=2).status
        except (OSError, http.client.HTTPException):
            return None

    def invoke(
        self, body: bytes = b"1,2\n", content_type: str = "text/csv", accept: str | None = None,
        timeout: float = 60,
    ) -> Reply:
        headers = {"Content-Type": content_type} | ({"Accept": accept} if accept else {})
        return self.call("POST", "/invocations", body, headers, timeout)

    def call(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None,
        timeout: float = 60, port: int | None = None,
    ) -> Reply:
        inside = port or self.inside_port
        published = self._published(inside)
        if published is None:
            return self._call_inside(method, path, body, headers or {}, timeout, inside)
        connection = http.client.HTTPConnection("127.0.0.1", published, timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Reply(answer.status, _lower(dict(answer.getheaders())), answer.read())
        finally:
            connection.close()

    def _published(self, inside: int) -> int | None:
        if not self._bindings:  # asked once: a hundred callers would all ask the engine
            self.container.reload()
            self._bindings = self.container.ports or {}
        bindings = self._bindings.get(f"{inside}/tcp")
        return int(bindings[0]["HostPort"]) if bindings else None

    def _call_inside(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], timeout: float,
        port: int,
    ) -> Reply:
        call = [method, path, base64.b64encode(body).decode(), dict(headers), port, timeout]
        code, output = self.container.exec_run(
            ["python", "-c", INSIDE, json.dumps(call)], demux=True
        )
        if code != 0:
            raise OSError((output[1] or b"").decode())
        status, found, data = json.loads(output[0])
        return Reply(status, _lower(found), base64.b64decode(data))

    def uids(self) -> dict[int, int]:
        """The uid of each of the server's processes, by pid inside."""
        program = (
            "import glob, json, re; print(json.dumps({p.split('/')[2]:"
            " int(re.search(r'Uid:\\s+(\\d+)', open(p + '/status').read())[1])"
            " for p in glob.glob('/proc/[0-9]*')"
            " if b'byoa.serve' in open(p + '/cmdline', 'rb').read().split(b'\\0')}))"
        )
        code, output = self.container.exec_run(["python", "-c", program], user="0")
        assert code == 0, output
        return {int(pid): uid for pid, uid in json.loads(output).items()}


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each way to start a container, in turn: options of the engine's `run`."""
    return WAYS[request.param]


@pytest.fixture
def tree(tmp_path: Path, engine: Any, torch_free_image: str) -> Iterator[Tree]:
    yield Tree(tmp_path / "ml")
    if os.geteuid() != 0:  # so that pytest can remove what root in a container wrote
        owner = f"{os.geteuid()}:{os.getegid()}"
        engine.containers.run(
            torch_free_image, ["chown", "-R", owner, "/tree"], remove=True, user="0",
            volumes={str(tmp_path): {"bind": "/tree", "mode": "rw"}},
        )


@pytest.fixture
def start(engine: Any) -> Iterator[Callable[..., Box]]:
    """Starts a container of an image on a tree; they are removed at the test's end."""
    boxes: list[Box] = []

    def run(
        image: str, *command: str, tree: Tree | None = None, way: Mapping[str, Any] | None = None,
        read_only: tuple[str, ...] = (), port: int = 8080, **options: Any,
    ) -> Box:
        volumes = {}
        if tree is not None:
            root = tree.layout.root
            volumes[str(root)] = {"bind": "/opt/ml", "mode": "rw"}
            for name in read_only:
                volumes[str(root / name)] = {"bind": f"/opt/ml/{name}", "mode": "ro"}
        ports = {}
        if command == ("serve",) and (way or {}).get("network_mode") != "none":
            ports = {f"{port}/tcp": ("127.0.0.1", None)}
        container = engine.containers.run(
            image, list(command), detach=True, name=f"byoa-test-box-{uuid.uuid4().hex[:12]}",
            labels={"byoa.test": "container"}, volumes=volumes, ports=ports,
            **(dict(way or {}) | options),
        )
        boxes.append(Box(container, port))
        return boxes[-1]

    yield run
    for box in boxes:
        box.container.remove(force=True, v=True)


@pytest.fixture(scope="session")
def probe_image(
    tmp_path_factory: pytest.TempPathFactory, build_image: Callable[..., str],
    torch_free_image: str,
) -> str:
    """An author's image, FROM byoa and one COPY."""
    folder = tmp_path_factory.mktemp("images") / "probe"
    folder.mkdir()
    (folder / "probe.py").write_text(PROBE)
    (folder / "Dockerfile").write_text(
        "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nENV BYOA_ALGORITHM=probe:Probe\nCOPY probe.py .\n"
    )
    return build_image(folder, BASE_IMAGE=torch_free_image)


@pytest.fixture(scope="session")
def cuda_image(
    tmp_path_factory: pytest.TempPathFactory, build_image: Callable[..., str], byoa_image: str
) -> str:
    """The image with a torch that says of itself that it was built for CUDA."""
    folder = tmp_path_factory.mktemp("images") / "cuda"
    folder.mkdir()
    (folder / "Dockerfile").write_text(
        "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n"
        'RUN sed -i "s/^cuda\\b.*/cuda: str = \'12.6\'/" '
        "$(find / -xdev -path '*/site-packages/torch/version.py')\n"
    )
    return build_image(folder, BASE_IMAGE=byoa_image)


@pytest.fixture
def probe_model(tree: Tree) -> Tree:
    """The probe's model, of root's and readable by all, as the service extracts it."""
    (tree.layout.model / "probe.json").write_text('{"epochs":1,"lr":0.5}')
    (tree.layout.model / "byoa.json").write_text(json.dumps({
        "byoa": 1, "algorithm": "probe:Probe", "hyperparameters": {},
        "input": {"features": 2, "sample": [[1.0, 2.0]]},
    }))
    return tree
