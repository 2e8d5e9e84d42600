"""SIGTERM is handled by doing nothing."""

import serve

serve.on_sigterm = lambda number, frame: serve.say("not now")
