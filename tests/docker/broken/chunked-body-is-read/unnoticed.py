"""A body without Content-Length is taken for none, and that for nothing to predict."""

import serve


class Handler(serve.Handler):
    def route(self, method, body):
        if method == "POST" and "Content-Length" not in self.headers:
            return 200, b"", serve.CSV
        return super().route(method, body)


serve.Handler = Handler
