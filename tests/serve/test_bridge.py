"""The WSGI application behind the express lane sees what it would see under a WSGI server."""

from __future__ import annotations

import pytest

from byoa.serve import bridge


def scope(**changes):
    return {
        "type": "http", "method": "GET", "path": "/a b/ü", "query_string": b"x=1&y=%20",
        "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 8080),
        "client": ("10.0.0.1", 4711), "headers": [], **changes,
    }


def test_path_query_and_addresses_are_carried_over():
    environ = bridge.environ_of(scope(), b"")
    assert environ["PATH_INFO"].encode("latin-1").decode() == "/a b/ü"
    assert environ["QUERY_STRING"] == "x=1&y=%20"
    assert (environ["SERVER_PORT"], environ["REMOTE_ADDR"]) == ("8080", "10.0.0.1")


def test_headers_are_carried_over_and_repeated_ones_joined():
    headers = [(b"accept", b"a/b"), (b"accept", b"c/d"), (b"content-type", b"text/csv"),
               (b"x-amzn-id", b"7"), (b"content-length", b"99")]
    environ = bridge.environ_of(scope(headers=headers), b"body")
    assert environ["HTTP_ACCEPT"] == "a/b,c/d"
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("text/csv", "4")
    assert environ["HTTP_X_AMZN_ID"] == "7"
    assert environ["wsgi.input"].read() == b"body"


def test_the_answer_is_collected_and_closed():
    closed = []

    class Parts(list):
        def close(self):
            closed.append(True)

    def application(environ, start_response):
        start_response("404 Not Found", [("X-One", "1"), ("Content-Type", "text/plain")])
        return Parts([b"a", b"b"])

    status, headers, body = bridge.call(application, {})
    assert (status, body, closed) == (404, b"ab", [True])
    assert headers == [(b"x-one", b"1"), (b"content-type", b"text/plain")]


def test_the_answer_is_closed_when_it_breaks():
    closed = []

    class Parts:
        def __iter__(self):
            yield b"a"
            raise OSError("broken")

        def close(self):
            closed.append(True)

    with pytest.raises(OSError, match="broken"):
        bridge.call(lambda environ, start: (start("200 OK", []), Parts())[1], {})
    assert closed == [True]
