"""The answer is chunked, and kept back until it is complete."""

import time

import serve


class Handler(serve.Handler):
    def write(self, status, body, content_type):
        if self.path != "/invocations" or status != 200:
            super().write(status, body, content_type)
            return
        time.sleep(1.1)
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in (body[:4], body[4:]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")


serve.Handler = Handler
