"""The inference server: one core, two doors (Flask, and an express lane on ASGI), gunicorn.

    settings        every setting in one table
    core            from a request to an answer
    model, host     loading a model, and its life in a worker
    compute         the thread that runs the model
    application     the Flask application: every route
    express         the ASGI application: /ping and /invocations; the rest to Flask by bridge
    server          gunicorn's master, the plan of workers; `python -m byoa.serve` starts it
"""

from __future__ import annotations

__all__ = [
    "application", "bridge", "compute", "core", "express", "host", "model", "server", "settings",
]
