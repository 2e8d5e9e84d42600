"""The image's health check: a server is asked, a job is left alone."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from byoa.container import health


@pytest.fixture
def serve_ping() -> Iterator[Callable[[int, str], int]]:
    """Serves /ping with a status and a body on a free port, which it gives."""
    started: list[tuple[http.server.ThreadingHTTPServer, threading.Thread]] = []

    def start(status: int, body: str) -> int:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status if self.path == "/ping" else 404)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        started.append((server, thread))
        return server.server_port

    yield start
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ([["python", "-m", "byoa.container", "serve"]], True),
        ([["/sbin/docker-init", "--", "python", "-m", "byoa.container", "serve"]], True),
        ([["sh", "run.sh"], ["/opt/byoa/bin/python", "-m", "byoa.serve"]], True),
        ([["python", "-m", "byoa.container", "train"]], False),
        ([["python", "serve"], ["python", "-m", "byoa.container"]], False),
        ([], False),
    ],
)
def test_a_server_is_told_by_its_command(commands: list[list[str]], expected: bool) -> None:
    assert health.serves(commands) is expected


def test_the_commands_of_processes_are_read_and_one_without_any_is_passed_over(
    tmp_path: Path,
) -> None:
    for pid, text in (("1", b"python\0-m\0byoa.serve\0"), ("7", b""), ("self", b"x\0")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_bytes(text)
    (tmp_path / "9").mkdir()
    assert sorted(health.commands(tmp_path)) == [[""], ["python", "-m", "byoa.serve"]]


def test_a_server_that_answers_200_on_the_bound_port_is_healthy(
    serve_ping: Callable[[int, str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """HOST-20, PIPE-03."""
    monkeypatch.setattr(health, "commands", lambda: [["python", "-m", "byoa.serve"]])
    assert health.main({"SAGEMAKER_BIND_TO_PORT": str(serve_ping(200, ""))}) == 0


def test_a_server_that_answers_otherwise_is_unhealthy_and_says_why(
    serve_ping: Callable[[int, str], int], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(health, "commands", lambda: [["python", "-m", "byoa.serve"]])
    port = serve_ping(503, "the model is loading")
    assert health.main({"SAGEMAKER_BIND_TO_PORT": str(port)}) == 1
    assert capsys.readouterr().out == f"/ping on port {port}: 503 the model is loading\n"


def test_a_job_is_healthy_without_being_asked(
    serve_ping: Callable[[int, str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "commands", lambda: [["python", "-m", "byoa.container", "train"]])
    assert health.main({"SAGEMAKER_BIND_TO_PORT": str(serve_ping(500, "not ours"))}) == 0
