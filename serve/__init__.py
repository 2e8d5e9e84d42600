"""The inference server: one core, two doors (Flask, and an express lane on ASGI), gunicorn.

    settings          every setting in one table
    plan              how many workers, of whom, on which device
    server, master    gunicorn; `python -m byoa.serve` starts it
    application       the Flask application: every route
    express           the ASGI application: /ping and /invocations; the rest to Flask by bridge
    messages, core    from a request to an answer; failures: what is said instead
    compute           the thread that runs the model; batching and cost: what shares a call
    loading           from a model directory to what answers:
        model             an algorithm with its model
        inference_script  an author's inference.py; script_place, script_code, handlers and others
    adapters          LoRA adapters of a script; adapter_routes: loaded while the server runs
    preloading        a model that is loaded before the fork
    host              a model's life in a worker; models and multi_model: many of them
    calls, streaming  what answers whole requests, and answers that are sent while they are made
    opening           a request to talk in both directions: who answers, or why nobody does
        websocket     the connection; conversation: the author's side of it; turn: of the model
    visit             what is counted and logged of a request; both doors are wrapped by it
    meter, metrics    counts in memory that all workers share, and /metrics
    access_log        a line of JSON for each request
"""

from __future__ import annotations

__all__ = [
    "access_log", "adapters", "application", "bridge", "calls", "compute", "conversation", "core",
    "express", "failures", "host", "inference_script", "loading", "master", "messages", "meter",
    "metrics", "model", "opening", "plan", "preloading", "server", "settings", "streaming", "turn",
    "visit", "websocket",
]
