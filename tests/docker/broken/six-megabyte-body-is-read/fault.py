"""A proxy's usual limit of one megabyte."""

import serve


class Handler(serve.Handler):
    def route(self, method, body):
        if len(body) > 1_000_000:
            raise serve.Refused(413, "Request Entity Too Large")
        return super().route(method, body)


serve.Handler = Handler
