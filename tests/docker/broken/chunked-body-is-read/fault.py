"""Only Content-Length bytes count as the body."""

import serve


class Handler(serve.Handler):
    def read_body(self):
        body = super().read_body()
        return body if "Content-Length" in self.headers else b""


serve.Handler = Handler
