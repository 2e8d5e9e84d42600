"""A record that does not decode ends the server, after its answer."""

import os
import threading

import serve

ending = threading.Event()


class Handler(serve.Handler):
    def answer(self, method):
        if ending.is_set():
            threading.Event().wait()  # a later request finds it as it ends, in any order of threads
        super().answer(method)
        if ending.is_set():
            os._exit(3)

    def send_response(self, status, *more):
        if status == 400:
            ending.set()
        super().send_response(status, *more)


serve.Handler = Handler
