"""A small model server that plays the container in hosting tests: real sockets, real signals.

Its model is the text of /opt/ml/model/model.txt. Environment variables say how it behaves at the
start, bodies that are JSON objects how it behaves in an invocation.
"""

import hashlib
import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ML = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
PORT = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
STARTED = time.monotonic()
PROCESS = os.urandom(8).hex()  # no PID: every container begins with 1
LINES = set()
busy = 0
sick = False
lock = threading.Lock()


def model():
    path = ML / "model" / "model.txt"
    return path.read_text() if path.exists() else ""


def files():
    """All below /opt/ml/model; None where there is no such directory."""
    root = ML / "model"
    found = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return found if root.is_dir() else None


def resolved(name):
    """The address of a host name; None where it has none."""
    try:
        return name and socket.gethostbyname(name)
    except OSError:
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def answer(self, status, body, content_type="application/json", **headers):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def line(self):
        return f"{self.headers['User-Agent']}: {self.requestline}"

    def do_GET(self):
        LINES.add(self.line())
        time.sleep(float(os.environ.get("STUB_PING_SECONDS", "0")))
        ready_after = float(os.environ.get("STUB_READY_AFTER", "0"))
        if "STUB_PING" in os.environ:
            self.answer(503, os.environ["STUB_PING"].encode())
            if "STUB_LEAVE" in os.environ:
                os._exit(int(os.environ["STUB_LEAVE"]))
        elif sick or time.monotonic() - STARTED < ready_after:
            body = json.dumps({"reason": os.environ.get("STUB_REASON", "loading")}).encode()
            self.answer(503, body)
        else:
            self.answer(int(os.environ.get("STUB_PING_STATUS", "200")), b"")

    def do_POST(self):
        global busy, sick
        LINES.add(self.line())
        with lock:
            busy += 1
        try:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                order = json.loads(body)
            except ValueError:
                order = {}
            if not isinstance(order, dict):
                order = {}
            sick = sick or bool(order.get("sick"))
            time.sleep(order.get("sleep", 0))
            if "exit" in order:
                print("leaving on demand", flush=True)
                os._exit(order["exit"])
            if "status" in order:
                self.answer(order["status"], order["body"].encode(), "text/plain")
            elif "large" in order:
                self.answer(200, b"x" * order["large"], "text/plain")
            elif "chunks" in order:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for part in order["chunks"]:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part.encode()))
                self.wfile.write(b"0\r\n\r\n")
            elif "drop" in order:
                self.close_connection = True
            else:
                seen = {name.lower(): value for name, value in self.headers.items()}
                document = {"model": model(), "size": len(body), "headers": seen,
                            "digest": hashlib.sha256(body).hexdigest(),
                            "process": PROCESS, "environment": dict(os.environ),
                            "files": files(), "hostname": socket.gethostname(),
                            "resolved": resolved(order.get("resolve")),
                            "lines": sorted(LINES), "arguments": sys.argv[1:]}
                self.answer(200, json.dumps(document).encode(), **order.get("headers", {}))
        finally:
            with lock:
                busy -= 1


def drain(*_):
    print("draining", flush=True)
    while busy:
        time.sleep(0.01)
    time.sleep(0.05)
    os._exit(0)


def main():
    assert sys.argv[1:] == ["serve"], sys.argv
    print("starting", flush=True)
    if "STUB_EXIT" in os.environ:
        print("Traceback: no module named sklearn", file=sys.stderr, flush=True)
        sys.exit(int(os.environ["STUB_EXIT"]))
    if "STUB_IGNORE_TERM" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        # A handler may not wait for the threads that it interrupts the main one of.
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=drain).start())
    if "STUB_SILENT" in os.environ:
        time.sleep(600)
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer.daemon_threads = True
    address = os.environ.get("STUB_ADDRESS", "0.0.0.0"), int(os.environ.get("STUB_PORT", PORT))
    server = ThreadingHTTPServer(address, Handler)
    server.serve_forever(poll_interval=0.05)


main()
