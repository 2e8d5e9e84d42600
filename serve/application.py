"""The Flask application: the reference door to the core, for any WSGI server.

Every route is here. The express lane answers two of them faster and hands the others over.
"""

from __future__ import annotations

from pathlib import Path

from flask import Flask, Response
from flask import request as flask_request
from werkzeug.exceptions import HTTPException

from byoa.container import contract
from byoa.serve.core import DRAIN_BYTES, Responder
from byoa.serve.messages import Answer, Request
from byoa.serve.visit import KEY, wsgi_headers

_CHUNK_BYTES = 256 * 1024


def create_app(core: Responder) -> Flask:
    """A Flask application over `core`."""
    here = str(Path(__file__).parent)
    # Flask cannot find these by itself: `byoa` is a namespace, no package with a file.
    app = Flask("byoa.serve", static_folder=None, root_path=here, instance_path=here)

    @app.get(contract.PING_PATH)
    def ping() -> Response:
        return _response(core.ping())

    @app.get(contract.EXECUTION_PARAMETERS_PATH)
    def execution_parameters() -> Response:
        return _response(core.execution_parameters())

    @app.get(contract.METRICS_PATH)
    def metrics() -> Response:
        return _response(core.metrics())

    def with_body(**path: str) -> Response:
        request = _request()
        body = _read(core, request)
        if isinstance(body, Answer):
            return _response(body)
        return _response(core.answer(request._replace(body=body)))

    app.add_url_rule(contract.INVOCATIONS_PATH, view_func=with_body, methods=["POST"])

    if contract.MODELS_PATH in core.routes:
        for path in (contract.MODELS_PATH, f"{contract.MODELS_PATH}/<path:rest>"):
            app.add_url_rule(path, view_func=with_body, methods=["GET", "POST", "DELETE"])

    if contract.ADAPTERS_PATH in core.routes:
        for path in (contract.ADAPTERS_PATH, f"{contract.ADAPTERS_PATH}/<path:rest>"):
            app.add_url_rule(path, view_func=with_body, methods=["POST", "DELETE"])

    @app.errorhandler(404)
    @app.errorhandler(405)
    def unknown(error: HTTPException) -> Response:
        return _response(core.answer(_request()))

    @app.errorhandler(Exception)
    def broken(error: Exception) -> Response:
        request = _request()
        if isinstance(error, HTTPException):
            return _response(core.refuse(request, error.code or 500, {
                "code": "REQUEST_REFUSED", "message": error.description or error.name,
            }))
        return _response(core.broken(request.method, request.path, request.headers, error))

    return app


def _read(core: Responder, request: Request) -> bytes | Answer:
    """The body, or the answer 413 for one over the limit, declared or found to be."""
    declared = request.headers.get("content-length", "")
    stream = flask_request.stream  # werkzeug's: it knows where the body ends
    refused: Answer | None = None
    if declared.isdecimal():
        refused = core.too_large(request, int(declared))
        if refused is None:
            return stream.read()
        if "expect" in request.headers:
            return refused  # the client waits for a word before it sends the body
    chunks: list[bytes] = []
    length = 0
    while chunk := stream.read(_CHUNK_BYTES):
        length += len(chunk)
        refused = refused or core.too_large(request, length)
        if refused is None:
            chunks.append(chunk)
            continue
        # What is still on its way would break the connection under the answer.
        chunks.clear()
        if length > DRAIN_BYTES:
            break
    return refused or b"".join(chunks)


def _request() -> Request:
    """The request without its body; headers as WSGI gives them, not through Flask's views."""
    environ = flask_request.environ
    headers = wsgi_headers(environ)
    query = environ.get("QUERY_STRING", "")
    return Request(
        flask_request.method, flask_request.path, headers, b"", query, environ.get(KEY)
    )


def _response(answer: Answer) -> Response:
    # The type as negotiated; `mimetype` would add a charset. The server closes a stream.
    return Response(
        answer.body, answer.status, answer.headers, content_type=answer.content_type
    )
