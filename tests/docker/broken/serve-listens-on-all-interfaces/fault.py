"""Bound to the loopback interface, as development servers are."""

import serve

serve.make_server = lambda: serve.Server(("127.0.0.1", serve.port()), serve.Handler)
