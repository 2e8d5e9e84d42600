"""A record that does not decode ends the server, after its answer."""

import os

import serve


class Handler(serve.Handler):
    def answer(self, method):
        self.status = 0
        super().answer(method)
        if self.status == 400:
            os._exit(3)

    def send_response(self, status, *more):
        self.status = status
        super().send_response(status, *more)


serve.Handler = Handler
