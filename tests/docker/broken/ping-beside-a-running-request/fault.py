"""One thread for all requests; connections end after each answer."""

import socketserver

import serve


class Server(socketserver.TCPServer):
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request, address):
        pass


class Handler(serve.Handler):
    def end_headers(self):
        self.send_header("Connection", "close")
        self.close_connection = True
        super().end_headers()


serve.Server, serve.Handler = Server, Handler
