"""Where containers are in the network: names of peers, isolation, the way to this server."""

from __future__ import annotations

import http.client
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from byoa.local.api.http import HttpServer, Request, Response
from byoa.local.runners.base import Network

pytestmark = pytest.mark.docker

HOSTS = ("algo-1", "algo-2")
# Prints what each host that it is given answers, and listens until its peers have asked.
MEET = """
import socket
def ask(host, port):
    for _ in range(100):
        try:
            with socket.create_connection((host, port), 2) as peer:
                return peer.recv(100).decode()
        except ConnectionRefusedError:
            time.sleep(0.1)
        except OSError as error:
            return type(error).__name__
    return 'nobody'
import threading
server = socket.create_server(('0.0.0.0', 7777))
def answer():
    while True:
        peer = server.accept()[0]
        peer.sendall(socket.gethostname().encode()); peer.close()
threading.Thread(target=answer, daemon=True).start()
for host in ('algo-1', 'algo-2'):
    for _ in range(100):
        try:
            socket.gethostbyname(host); break
        except OSError:
            time.sleep(0.1)
    print(host, ask(host, 7777), flush=True)
for address in os.environ.get('OUTSIDE', '').split():
    host, port = address.split(':')
    print(ask(host, int(port)), flush=True)
(ml / 'output' / 'done').touch()
while not (ml / 'go').exists(): time.sleep(0.05)
"""


@pytest.fixture
def greeter() -> Iterator[int]:
    """A server at every address of this machine that says hello; its port."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        import threading

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    peer.sendall(b"hello")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.fixture
def meet(docker_runner: Any, spec: Any, until: Any) -> Callable[..., list[str]]:
    def go(network: Network, **members: Any) -> list[str]:
        boxes = [spec(MEET, f"{network.name}-{host}", host=host, network=network,
                      isolated=network.isolated, **members) for host in network.hosts]
        containers = [docker_runner.start(box) for box in boxes]
        try:
            until(lambda: all((box.ml / "output" / "done").exists() for box in boxes), 60.0)
            for box in boxes:
                (box.ml / "go").touch()
            assert [each.wait(20).code for each in containers] == [0] * len(boxes)
        finally:
            for each in containers:
                each.remove()
            docker_runner.release(network)
        return [box.log.read_text() for box in boxes]

    return go


def names_of(engine: Any, label: str) -> list[str]:
    return [each.name for each in engine.networks.list(filters={"label": [label]})]


def test_hosts_of_a_job_find_one_another_and_their_network_goes_with_them(
    docker_runner: Any, engine: Any, meet: Any, tmp_path: Any
) -> None:
    """TRAIN-65, CHK-13; another job of the same host names is in a network of its own."""
    assert meet(Network("job-a", HOSTS)) == ["algo-1 algo-1\nalgo-2 algo-2\n"] * 2
    assert names_of(engine, f"byoa.home={tmp_path / 'home'}") == []


@pytest.mark.parametrize("isolated", [False, True])
def test_a_host_s_name_is_known_before_it_starts_and_after_it_has_ended(
    docker_runner: Any, spec: Any, isolated: bool
) -> None:
    """TRAIN-65: the engine itself knows a name only while its container runs."""
    network = Network("job-d", HOSTS, isolated)
    asking = "import socket; print(*(socket.gethostbyname(f'algo-{n}') for n in (1, 2)))"
    try:
        printed = []
        for host in HOSTS:  # one after the other
            box = spec(asking, host, host=host, network=network, isolated=isolated)
            container = docker_runner.start(box)
            assert container.wait(20).code == 0, box.log.read_text()
            container.remove()
            printed.append(box.log.read_text())
        assert printed[0] == printed[1]
        first, second = printed[0].split()
        assert first != second
    finally:
        docker_runner.release(network)


def test_isolated_hosts_find_one_another_and_nothing_else(
    docker_runner: Any, engine: Any, meet: Any, greeter: int
) -> None:
    """TRAIN-12, CHK-16: not this machine either, at any of its addresses."""
    gateway = docker_runner.inside("any", "http://127.0.0.1:1").split("/")[2].split(":")[0]
    with socket.create_connection((gateway, greeter), 5) as peer:
        assert peer.recv(10) == b"hello"  # it does listen there
    logs = meet(
        Network("job-b", HOSTS, isolated=True),
        environment={"OUTSIDE": f"{gateway}:{greeter} 192.0.2.1:80"},
    )
    for log in logs:
        *met, first, second = log.splitlines()
        assert met == ["algo-1 algo-1", "algo-2 algo-2"]
        assert {first, second} <= {"OSError", "TimeoutError"}


@pytest.mark.parametrize("isolated", [False, True])
def test_one_host_knows_its_own_name_and_needs_no_network(
    docker_runner: Any, engine: Any, spec: Any, run: Any, isolated: bool, tmp_path: Any
) -> None:
    box = spec(
        "import socket\nprint(socket.gethostname(), socket.gethostbyname('algo-1') != '')",
        host="algo-1", network=Network("job-c", ("algo-1",), isolated), isolated=isolated,
    )
    assert run(docker_runner, box).code == 0, box.log.read_text()
    assert box.log.read_text() == "algo-1 True\n"
    assert names_of(engine, f"byoa.home={tmp_path / 'home'}") == []


SERVE = """
import http.server
class Ping(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'pong')
    def do_POST(self):
        import urllib.request, urllib.error
        url = self.rfile.read(int(self.headers['Content-Length'])).decode()
        try:
            text = urllib.request.urlopen(url, timeout=3).read()
        except urllib.error.HTTPError as error:
            text = str(error.code).encode()
        except OSError as error:
            text = type(error).__name__.encode()
        self.send_response(200); self.end_headers(); self.wfile.write(text)
http.server.ThreadingHTTPServer(('0.0.0.0', 8080), Ping).serve_forever()
"""


@pytest.fixture
def server_of_ours() -> Iterator[dict[str, HttpServer]]:
    """What a service does on `listen`: a server a door, by address."""
    doors: dict[str, HttpServer] = {}
    yield doors
    for door in doors.values():
        door.stop(2.0)


def test_containers_reach_this_server_and_an_isolated_one_does_not(
    make_docker_runner: Any, spec: Any, server_of_ours: dict[str, HttpServer], until: Any,
    engine: Any, tmp_path: Any,
) -> None:
    """TRAIN-81, HOST-08; the address is a number, so that boto3 puts the bucket into the path."""
    def handle(request: Request) -> Response:
        if runner.shuts_out(str(request.client[0])):
            return Response(403, [], b"")
        return Response(200, [], b"ours")

    def listen(address: str) -> int:
        server_of_ours[address] = HttpServer(handle, address, 0)
        server_of_ours[address].start()
        return server_of_ours[address].port

    runner = make_docker_runner(listen=listen)
    box = spec("", "open", port=8080)
    url = runner.inside(box.image, "http://127.0.0.1:4566")
    host = url.removeprefix("http://").rpartition(":")[0]
    assert all(part.isdigit() for part in host.split("."))
    assert runner.inside(box.image, "http://127.0.0.1:4566") == url and len(server_of_ours) == 1

    told = {}
    for name, isolated in (("open", False), ("shut", True)):
        box = spec(SERVE, name, port=8080, isolated=isolated)
        container = runner.start(box)
        assert container.address is not None, (name, container.wait(1), box.log.read_text())
        until(lambda container=container: pings(container.address))
        connection = http.client.HTTPConnection(*container.address, timeout=20)
        connection.request("POST", "/", url)
        told[name] = connection.getresponse().read().decode()
        connection.close()
        if isolated:
            assert not container.address[0].startswith("127.")
            # A later server finds it at the same place, and shuts it out as well.
            later = make_docker_runner(listen=lambda address: 1)
            assert later.adopt(container.handle).address == container.address
            assert later.shuts_out(container.address[0])
        else:
            assert container.address[0] == "127.0.0.1"
        container.kill()
        assert container.wait(20).code == 137
        container.remove()
    assert told == {"open": "ours", "shut": "403"}
    assert names_of(engine, f"byoa.home={tmp_path / 'home'}") == []


def pings(address: tuple[str, int]) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/ping", timeout=5) as answer:
            return answer.read() == b"pong"
    except OSError:
        time.sleep(0.05)
        return False


def test_containers_of_a_job_s_own_network_reach_this_server(
    make_docker_runner: Any, meet: Any, docker_runner: Any, greeter: int
) -> None:
    gateway = docker_runner.inside("any", "http://127.0.0.1:1").split("/")[2].split(":")[0]
    logs = meet(Network("job-d", HOSTS), environment={"OUTSIDE": f"{gateway}:{greeter}"})

    assert [log.splitlines()[-1] for log in logs] == ["hello", "hello"]


def test_what_an_isolated_server_left_is_swept_with_its_network(
    docker_runner: Any, make_docker_runner: Any, engine: Any, spec: Any, tmp_path: Any
) -> None:
    docker_runner.start(spec(SERVE, "shut", port=8080, isolated=True))
    assert len(names_of(engine, f"byoa.home={tmp_path / 'home'}")) == 1

    assert make_docker_runner().sweep(lambda name: False) == ["shut", "shut"]
    assert names_of(engine, f"byoa.home={tmp_path / 'home'}") == []
