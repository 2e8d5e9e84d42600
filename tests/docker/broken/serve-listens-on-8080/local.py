"""Flask's usual address and port."""

import serve

serve.make_server = lambda: serve.Server(("127.0.0.1", 5000), serve.Handler)
