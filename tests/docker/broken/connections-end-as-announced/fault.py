"""Every connection ends after one answer, and nothing says so."""

import serve


class Handler(serve.Handler):
    def answer(self, method):
        super().answer(method)
        self.close_connection = True


serve.Handler = Handler
