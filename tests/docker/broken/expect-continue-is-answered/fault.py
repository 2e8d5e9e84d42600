"""Expectations are refused."""

import serve


class Handler(serve.Handler):
    def handle_expect_100(self):
        self.write(417, b"no expectations, please", "text/plain")
        self.wfile.flush()
        self.close_connection = True
        return False


serve.Handler = Handler
