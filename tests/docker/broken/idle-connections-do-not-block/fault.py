"""One thread for all connections."""

import socketserver

import serve


class Server(socketserver.TCPServer):
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request, address):
        pass


serve.Server = Server
