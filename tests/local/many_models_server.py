"""A server of many models, for tests: what the platform asks of it, and what it finds on its disk.

A model's text is `model.txt` in its archive. The body of an invocation says what the container does
besides: `forget` unloads the model by itself, `full` answers 507 as long as another one is loaded,
`absent` answers 404 as a model's own word. It answers with all that it was asked and has seen.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ML = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
PORT = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
MODELS = {}
ASKED = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def answer(self, status, document=None):
        body = json.dumps({} if document is None else document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def parts(self):
        if self.path != "/ping":
            ASKED.append(f"{self.command} {self.path}")
        return self.path.strip("/").split("/")

    def do_GET(self):
        parts = self.parts()
        known = parts == ["ping"] or parts[-1] in MODELS
        self.answer(200 if known else 404)

    def do_DELETE(self):
        self.answer(200 if MODELS.pop(self.parts()[1], None) is not None else 404)

    def do_POST(self):
        parts = self.parts()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if parts == ["models"]:
            self.load(body)
        elif parts[1] not in MODELS or body.get("absent"):
            self.answer(404)
        elif body.get("full") and len(MODELS) > 1:
            self.answer(507)
        else:
            seen = self.seen(parts[1])
            if body.get("forget"):
                del MODELS[parts[1]]
            self.answer(200, seen)

    def load(self, body):
        # A container says 409 where it has the model already, however it came to it.
        known = body["model_name"] in MODELS or "STUB_LOADED" in os.environ
        MODELS[body["model_name"]] = body["url"]
        self.answer(409 if known else 200)

    def seen(self, name):
        place = ML / Path(MODELS[name]).relative_to("/opt/ml")
        return {
            "asked": ASKED, "name": name, "url": MODELS[name],
            "text": (place / "model.txt").read_text(),
            "target": self.headers["X-Amzn-SageMaker-Target-Model"],
            "variable": os.environ.get("SAGEMAKER_MULTI_MODEL"),
            "model": sorted(path.name for path in (ML / "model").glob("*")),
        }


def main():
    assert sys.argv[1:] == ["serve"], sys.argv
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer(("0.0.0.0", PORT), Handler).serve_forever(poll_interval=0.05)


main()
