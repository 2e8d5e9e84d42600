"""A server that keeps SageMaker's contract, of the standard library alone.

A broken image replaces one of its functions: its `fault.py` is imported before `main` runs.
"""

import csv
import io
import json
import os
import signal
import socketserver
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler
from pathlib import Path

ML = Path(os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml")
DRAIN_SECONDS = 20.0
JSON, CSV = "application/json", "text/csv"
SESSION = "X-Amzn-SageMaker-Session-Id"
OPENED, CLOSED = "X-Amzn-SageMaker-New-Session-Id", "X-Amzn-SageMaker-Closed-Session-Id"
loaded = None
running = 0
changed = threading.Condition()


class Refused(Exception):
    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


def say(text):
    print(text, flush=True)


# --- the model ---------------------------------------------------------------------------


def load(directory):
    return json.loads((directory / "model.json").read_text(encoding="utf-8"))


def model_directory():
    return ML / "model"


def predict(model, records):
    return [sum(record) for record in records]


# --- requests and answers ----------------------------------------------------------------


def ping():
    return (200, b"", JSON) if loaded is not None else (503, b"the model is loading", JSON)


def essence(value, default):
    return (value or default).split(";")[0].strip().lower()


def decode(content_type, body):
    try:
        text = body.decode("utf-8")
        if content_type == JSON:
            return [[float(v) for v in record] for record in json.loads(text)["instances"]]
        return [[float(v) for v in row] for row in csv.reader(io.StringIO(text)) if row]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(400, f"the body is not {content_type}: {error}") from error


def encode(accept, predictions):
    if accept == CSV:
        return "".join(f"{value}\n" for value in predictions).encode()
    return json.dumps({"predictions": predictions}).encode()


def find_type(headers):
    content_type = essence(headers.get("Content-Type"), "application/octet-stream")
    if content_type not in (JSON, CSV):
        raise Refused(415, f"{content_type} is not read here: send {JSON} or {CSV}")
    return content_type


def choose_type(headers):
    accept = essence(headers.get("Accept"), "*/*")
    if accept == "*/*":
        return JSON
    if accept not in (JSON, CSV):
        raise Refused(406, f"{accept} is not written here: ask for {JSON} or {CSV}")
    return accept


def invoke(headers, body):
    """Status, body and content type of the answer."""
    content_type, accept = find_type(headers), choose_type(headers)
    if not body:
        raise Refused(400, "the request has no body")
    return 200, encode(accept, predict(loaded, decode(content_type, body))), accept


# --- sessions ----------------------------------------------------------------------------

sessions = set()


def opened(session):
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1200))
    return f"{session}; Expires={until}"


def closed(session):
    return session


def in_session(headers, body):
    """The header of an answer that opens or closes a session; None for any other request."""
    name = headers.get(SESSION)
    if name == "NEW_SESSION":
        sessions.add(session := str(uuid.uuid4()))
        return OPENED, opened(session)
    if name is None:
        return None
    if name not in sessions:
        raise Refused(424, f"there is no session {name}")
    if b'"CLOSE"' not in body:
        return None
    sessions.remove(name)
    return CLOSED, closed(name)


def invoke_or_session(handler, body):
    header = in_session(handler.headers, body)
    if header is None:
        return invoke(handler.headers, body)
    handler.more = (header,)
    return 200, b"{}", JSON


def execution_parameters():
    answer = {"MaxConcurrentTransforms": 4, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6}
    return 200, json.dumps(answer).encode(), JSON


def refuse(error):
    return error.status, str(error).encode(), "text/plain"


# --- the server --------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 75
    wbufsize = -1  # an answer leaves in one piece
    more = ()  # headers of the answer

    def log_message(self, text, *values):
        pass

    def handle_expect_100(self):
        found = super().handle_expect_100()
        self.wfile.flush()
        return found

    def read_body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self):
        self.answer("GET")

    def do_POST(self):
        self.answer("POST")

    def answer(self, method):
        with counted():
            body = self.read_body()
            try:
                self.write(*self.route(method, body))
            except Refused as error:
                self.write(*refuse(error))
            except Exception as error:
                say(f"{method} {self.path} failed: {type(error).__name__}: {error}")
                self.write(500, f"{type(error).__name__}: {error}".encode(), "text/plain")
            self.wfile.flush()

    def route(self, method, body):
        found = ROUTES.get((method, self.path))
        return found(self, body) if found else (404, b"there is nothing here", "text/plain")

    def end_headers(self):
        for name, value in self.more:
            self.send_header(name, value)
        self.more = ()
        super().end_headers()

    def write(self, status, body, content_type):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if stopping.is_set():
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)


# Looked up at the time of the request, so that a fault's functions are found.
ROUTES = {
    ("GET", "/ping"): lambda handler, body: ping(),
    ("POST", "/invocations"): invoke_or_session,
    ("GET", "/execution-parameters"): lambda handler, body: execution_parameters(),
}


class counted:
    """How many requests are running, so that a stop can wait for them."""

    def __enter__(self):
        global running
        with changed:
            running += 1

    def __exit__(self, *ended):
        global running
        with changed:
            running -= 1
            changed.notify_all()


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, address):
        pass  # a client that leaves


stopping = threading.Event()


def drain():
    with changed:
        changed.wait_for(lambda: running == 0, DRAIN_SECONDS)


def on_sigterm(number, frame):
    stopping.set()


def port():
    return int(os.environ.get("SAGEMAKER_BIND_TO_PORT") or 8080)


def make_server():
    return Server(("0.0.0.0", port()), Handler)


def load_model():
    global loaded
    loaded = load(model_directory())


def begin():
    """What happens before the server is there."""


def main():
    signal.signal(signal.SIGTERM, on_sigterm)
    begin()
    load_model()
    server = make_server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
    say(f"listening on {server.server_address}")
    stopping.wait()
    server.shutdown()
    server.server_close()
    drain()
    say("stopped")
    return 0


if __name__ == "__main__":
    sys.modules["serve"] = sys.modules["__main__"]
    if Path(__file__).with_name("fault.py").exists():
        import fault  # noqa: F401 - it replaces functions of this module
    sys.exit(main())
