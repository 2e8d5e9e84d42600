"""A model server that streams, for tests: it goes on when a test says so, never after a time.

A body is a JSON object. `parts` are sent one by one; where `gate` names a directory the server
waits for a file `<n>` in it before it sends part n, and leaves a file `left` there when its client
is gone; another call makes the files that `open` names, and is told all there are. `framing` is
chunked, length or close; `end` says how it ends. It opens, keeps and closes sessions.
"""

import json
import os
import select
import signal
import socket
import struct
import sys
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
PROCESS = os.urandom(8).hex()
WAIT_SECONDS = 60.0
SESSIONS = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def answer(self, body, status=200, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.gate = Path(order["gate"]) if "gate" in order else None
        if "requestType" in order or self.headers.get("X-Amzn-SageMaker-Session-Id"):
            self.in_session(order)
        elif "exit" in order:
            os._exit(order["exit"])
        elif "open" in order:
            self.gate.mkdir(exist_ok=True)
            for name in order["open"]:
                self.gate.joinpath(name).touch()
            self.answer(json.dumps(sorted(path.name for path in self.gate.iterdir())).encode())
        elif "status" in order:
            self.answer(order["body"].encode(), order["status"])
        elif "parts" in order or "bytes" in order:
            self.stream(order)
        else:
            seen = {name.lower(): value for name, value in self.headers.items()}
            self.answer(json.dumps({"headers": seen, **self.who()}).encode())

    def who(self):
        return {"process": PROCESS, "connection": self.client_address[1]}

    def in_session(self, order):
        name = self.headers.get("X-Amzn-SageMaker-Session-Id")
        if order.get("requestType") == "NEW_SESSION":
            name = str(uuid.uuid4())
            SESSIONS[name] = 0
            expires = order.get("expires", "2099-01-01T00:00:00Z")
            opened = order.get("opened", f"{name}; Expires={expires}")
            self.answer(json.dumps(self.who()).encode(), **{
                "X-Amzn-SageMaker-New-Session-Id": opened})
        elif name not in SESSIONS:
            self.answer(f"no session {name}".encode(), 400)
        elif order.get("requestType") == "CLOSE":
            del SESSIONS[name]
            self.answer(b"{}", **{"X-Amzn-SageMaker-Closed-Session-Id": name})
        elif "parts" in order:
            self.stream(order)
        else:
            SESSIONS[name] += 1
            self.answer(json.dumps({"turn": SESSIONS[name], **self.who()}).encode())

    def stream(self, order):
        parts = [part.encode() for part in order.get("parts", ())]
        if "bytes" in order:
            parts = [bytes(range(256)) * (order["bytes"] // 256)]
        framing, end = order.get("framing", "chunked"), order.get("end", "well")
        if not self.wait_for("head"):
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/jsonlines")
        self.send_header("X-Amzn-SageMaker-Custom-Attributes", "took=3")
        self.send_header("X-Secret", "no")
        if framing == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        elif framing == "length":
            missing = 5 if end == "early" else 0
            self.send_header("Content-Length", str(sum(map(len, parts)) + missing))
        else:
            self.close_connection = True
        self.end_headers()
        for number, part in enumerate(parts):
            if not self.wait_for(str(number)):
                return
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if framing == "chunked" else part)
        if not self.wait_for("end"):
            return
        if end == "well" and framing == "chunked":
            self.wfile.write(b"0\r\n\r\n")
        elif end == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                       struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        elif end == "garbled":
            self.wfile.write(b"no chunk\r\n")
        self.close_connection = self.close_connection or end != "well"

    def wait_for(self, name):
        """Whether the test has opened this gate and the client is still there."""
        end = time.monotonic() + WAIT_SECONDS
        while self.gate is not None and not self.gate.joinpath(name).exists():
            readable, _, _ = select.select([self.connection], [], [], 0.01)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                self.gate.joinpath("left").touch()
                self.close_connection = True
                return False
            if time.monotonic() > end:
                self.close_connection = True
                return False
        return True


def main():
    assert sys.argv[1:] == ["serve"], sys.argv
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # a first process has no default
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer(("0.0.0.0", PORT), Handler).serve_forever(poll_interval=0.05)


main()
