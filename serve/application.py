"""The Flask application: the reference door to the core, for any WSGI server.

Every route is here. The express lane answers two of them faster and hands the others over.
"""

from __future__ import annotations

from flask import Flask, Response
from flask import request as flask_request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from byoa.container import contract
from byoa.serve.core import Answer, Core, Request


def create_app(core: Core) -> Flask:
    """A Flask application over `core`."""
    app = Flask("byoa.serve", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = core.settings.payload_limit or None

    @app.get(contract.PING_PATH)
    def ping() -> Response:
        return _response(core.ping())

    @app.get(contract.EXECUTION_PARAMETERS_PATH)
    def execution_parameters() -> Response:
        return _response(core.execution_parameters())

    @app.post(contract.INVOCATIONS_PATH)
    def invocations() -> Response:
        body = flask_request.get_data(cache=False)
        return _response(core.answer(_request(body)))

    @app.errorhandler(RequestEntityTooLarge)
    def too_large(error: RequestEntityTooLarge) -> Response:
        # A body in chunks has no length; it was read until it passed the limit.
        length = flask_request.content_length or core.settings.payload_limit + 1
        answer = core.too_large(_request(b""), length)
        assert answer is not None  # noqa: S101 - Flask and the core hold the same limit
        return _response(answer)

    @app.errorhandler(404)
    @app.errorhandler(405)
    def unknown(error: HTTPException) -> Response:
        return _response(core.answer(_request(b"")))

    return app


def _request(body: bytes) -> Request:
    headers = {name.lower(): value for name, value in flask_request.headers.items()}
    return Request(flask_request.method, flask_request.path, headers, body)


def _response(answer: Answer) -> Response:
    response = Response(answer.body, answer.status, answer.headers)
    response.content_type = answer.content_type  # as negotiated, without an added charset
    return response
