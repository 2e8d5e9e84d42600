"""Predictions are sent without their type."""

import serve


class Handler(serve.Handler):
    def send_header(self, name, value):
        if name != "Content-Type" or self.path != "/invocations" or self.refused:
            super().send_header(name, value)

    def write(self, status, body, content_type):
        self.refused = status >= 400
        super().write(status, body, content_type)


serve.Handler = Handler
