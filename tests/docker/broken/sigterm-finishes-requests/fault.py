"""SIGTERM ends the process at once."""

import os

import serve

serve.on_sigterm = lambda number, frame: os._exit(0)
