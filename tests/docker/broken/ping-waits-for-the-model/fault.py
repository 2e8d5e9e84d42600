"""/ping is 200 while the model is loading."""

import threading
import time

import serve

load_model, invoke = serve.load_model, serve.invoke


def load_later():
    time.sleep(1.0)
    load_model()


def invoke_loaded(headers, body):
    if serve.loaded is None:
        raise serve.Refused(503, "the model is loading")
    return invoke(headers, body)


serve.load_model = lambda: threading.Thread(target=load_later, daemon=True).start()
serve.invoke = invoke_loaded
serve.ping = lambda: (200, b"", serve.JSON)
