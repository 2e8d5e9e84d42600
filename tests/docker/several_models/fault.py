"""No fault: the routes of a multi-model server, beside those of the good one."""

import json
import os
from pathlib import Path

import serve

ENABLED = os.environ.get("SAGEMAKER_MULTI_MODEL") == "true"
models = {}
load_model, ping = serve.load_model, serve.ping


def answer(status, document=None):
    return status, json.dumps(document or {}).encode(), serve.JSON


def known(name):
    if name not in models:
        raise serve.Refused(404, f"no model {name} is loaded")
    return models[name]


def shown(name):
    return {"modelName": name, "modelUrl": known(name)[0]}


def load(body):
    asked = json.loads(body)
    name, url = asked["model_name"], asked["url"]
    if name in models:
        raise serve.Refused(409, f"model {name} is loaded already")
    models[name] = url, serve.load(Path(url))
    return answer(200)


def unload(name):
    known(name)
    del models[name]
    return answer(200)


def invoke(name, headers, body):
    model = known(name)[1]
    content_type, accept = serve.find_type(headers), serve.choose_type(headers)
    predictions = serve.predict(model, serve.decode(content_type, body))
    return 200, serve.encode(accept, predictions), accept


class Handler(serve.Handler):
    def do_DELETE(self):
        self.answer("DELETE")

    def route(self, method, body):
        parts = self.path.strip("/").split("/")
        if not ENABLED or parts[0] != "models":
            return super().route(method, body)
        if len(parts) == 1:
            if method == "POST":
                return load(body)
            return answer(200, {"models": [shown(name) for name in models]})
        if len(parts) == 3:
            return invoke(parts[1], self.headers, body)
        return unload(parts[1]) if method == "DELETE" else answer(200, shown(parts[1]))


serve.Handler = Handler
if ENABLED:
    serve.load_model = lambda: None
    serve.ping = lambda: (200, b"", serve.JSON)
