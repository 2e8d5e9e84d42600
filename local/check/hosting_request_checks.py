"""Checks of HTTP itself: headers, bodies and connections as the platform's client sends them.

Each sends a request whose answer is known in another form, and expects the same status and, where
the server answers alike each time, the same body.
"""

from __future__ import annotations

from byoa.container.contract import (
    HOSTING_USER_AGENT,
    INVOCATIONS_PATH,
    PAYLOAD_LIMIT_BYTES,
    PING_PATH,
)
from byoa.local.check.checks import NotApplicable, Verdict, check, failed, passed, skipped
from byoa.local.check.hosting_http import (
    GARBLED,
    Connection,
    NoReply,
    Reply,
    chunked,
    head,
)
from byoa.local.check.hosting_server import Outcome, plain, shared
from byoa.local.check.trial import Trial

# What the runtime passes on, and what it may add (HOST-13, HOST-34).
_MORE_HEADERS = (
    ("X-Amzn-SageMaker-Custom-Attributes", "trace=1;tenant=a b"),
    ("X-Amzn-SageMaker-Target-Variant", "AllTraffic"),
    ("X-Amzn-SageMaker-Inference-Id", "order-7"),
    ("X-Amzn-SageMaker-Enable-Explanations", "`false`"),
    ("X-Amzn-RequestId", "11111111-2222-3333-4444-555555555555"),
    ("X-Forwarded-For", "169.254.255.130"),
    ("User-Agent", HOSTING_USER_AGENT),
)
_CONTINUE_SECONDS = 1.0
_CLOSE_SECONDS = 0.3
_FEW_BLANKS = 64


def _same(
    trial: Trial, what: str, expected: Reply, outcome: Outcome, *, exact: bool = True
) -> Verdict:
    """Pass where status and body are those of the ordinary request.

    Without `exact`, or where the server does not answer alike each time, a body is only to be there
    or not.
    """
    server = shared(trial)
    if not isinstance(outcome, Reply):
        return failed(f"{what} is not answered: {outcome}", evidence=server.box.tail())
    if outcome.status != expected.status:
        return failed(
            f"{what} is answered with {outcome}; without that it is {expected.status}",
            evidence=server.box.tail(),
        )
    if not 200 <= expected.status < 300 or outcome.body == expected.body:
        return passed(str(outcome))
    if bool(outcome.body) == bool(expected.body) and not (exact and _answers_alike(trial)):
        return passed(str(outcome))
    return failed(
        f"{what} is answered with {outcome}; without that it is {expected}: the server took it for"
        " another request",
        evidence=server.box.tail(),
    )


def _answers_alike(trial: Trial) -> bool:
    """Whether the ordinary request, sent twice more, gets the same answer."""
    body, headers, expected = plain(trial)

    def ask() -> bool:
        replies = [shared(trial).invoke(body, headers) for _ in range(2)]
        return all(isinstance(each, Reply) and each.body == expected.body for each in replies)

    return trial.memo("hosting: the same request twice", ask)


@check(
    "header-names-in-any-case",
    clause="HOST-35",
    group="hosting",
    title="Header names are read in any case",
    cure="look headers up without regard to case: `content-type` is `Content-Type`",
    needs=("ping-answers-200",),
)
def headers_in_any_case(trial: Trial) -> Verdict:
    body, headers, expected = plain(trial)
    server = shared(trial)
    for change in (str.lower, str.upper):
        changed = [(change(name), value) for name, value in headers]
        example = change("Content-Type")
        outcome = server.invoke(body, changed)
        verdict = _same(trial, f"a request with the header {example}", expected, outcome)
        if verdict.outcome != "pass":
            return verdict
    return passed()


@check(
    "unknown-headers-are-ignored",
    clause="HOST-13, HOST-34",
    group="hosting",
    title="Headers that the platform adds do no harm",
    cure="ignore headers that the server does not know",
    needs=("ping-answers-200",),
)
def unknown_headers(trial: Trial) -> Verdict:
    body, headers, expected = plain(trial)
    server = shared(trial)
    outcome = server.invoke(body, [*headers, *_MORE_HEADERS])
    # A program may well read them, such as the custom attributes, and answer otherwise.
    return _same(trial, "a request with the platform's headers", expected, outcome, exact=False)


@check(
    "chunked-body-is-read",
    clause="HOST-12, BT-05",
    group="hosting",
    level="warning",
    title="A body in the chunked coding is read",
    cure="read Transfer-Encoding: chunked; behind gunicorn read `wsgi.input` to its end and set"
    " wsgi.input_terminated, rather than CONTENT_LENGTH bytes",
    needs=("ping-answers-200",),
)
def chunked_body(trial: Trial) -> Verdict:
    body, headers, expected = plain(trial)
    server = shared(trial)
    first = head("POST", INVOCATIONS_PATH, server.address,
                 [*headers, ("Transfer-Encoding", "chunked"), ("Connection", "close")])
    outcome: Outcome
    try:
        with Connection(server.address) as connection:
            connection.send(first + chunked(body))
            outcome = connection.reply("POST", timeout=trial.limits.invocation_seconds)
    except NoReply as error:
        outcome = error
    return _same(trial, "a chunked body", expected, outcome)


@check(
    "expect-continue-is-answered",
    clause="HOST-12, HOST-30",
    group="hosting",
    title="A request with Expect: 100-continue is answered",
    cure="say 100 Continue, or read the body all the same; do not refuse the header with 417",
    needs=("ping-answers-200",),
)
def expect_continue(trial: Trial) -> Verdict:
    body, headers, expected = plain(trial)
    server = shared(trial)
    first = head(
        "POST", INVOCATIONS_PATH, server.address,
        [*headers, ("Content-Length", str(len(body))), ("Expect", "100-continue"),
         ("Connection", "close")],
    )
    outcome: Outcome
    try:
        with Connection(server.address) as connection:
            connection.send(first)
            connection.awaits(_CONTINUE_SECONDS)  # the body follows anyway, as RFC 9110 lets it
            connection.send(body)
            outcome = connection.reply("POST", timeout=trial.limits.invocation_seconds)
    except NoReply as error:
        outcome = error
    return _same(trial, "a request with Expect: 100-continue", expected, outcome)


@check(
    "six-megabyte-body-is-read",
    clause="HOST-32, BT-10, TRAP-10",
    group="hosting",
    title="A body of 6,291,456 bytes is read",
    cure="raise the server's own limit: nginx client_max_body_size, Flask MAX_CONTENT_LENGTH,"
    " TorchServe max_request_size; read a body to its end before a refusal",
    needs=("ping-answers-200",),
)
def six_megabytes(trial: Trial) -> Verdict:
    body, headers, _ = plain(trial)
    server = shared(trial)
    # Blank lines are quick to read past: this shows whether the body is taken, not what a model
    # does. Whether they are allowed in this content type a few of them tell.
    large = body.ljust(PAYLOAD_LIMIT_BYTES, b"\n")
    small = server.invoke(body + b"\n" * _FEW_BLANKS, headers)
    outcome = server.invoke(large, headers)
    what = f"a body of {len(large):,} bytes"
    if not isinstance(outcome, Reply):
        return failed(f"{what} is not answered: {outcome}", evidence=server.box.tail())
    if outcome.status == 413:
        return failed(f"{what} is refused: {outcome}")
    if isinstance(small, Reply) and 200 <= small.status < 300:
        return _same(trial, f"the sample request and blank lines, {what},", small, outcome)
    if outcome.status >= 500 and isinstance(small, Reply) and small.status < 500:
        return failed(f"{what} is answered with {outcome}; a short one is {small.status}",
                      evidence=server.box.tail())
    return passed(str(outcome))


@check(
    "answers-are-whole",
    clause="HOST-12",
    group="hosting",
    title="Each answer is as long as it says",
    cure="let Content-Length be the number of bytes, not of characters, of the body that is sent",
    needs=("ping-answers-200",),
)
def answers_are_whole(trial: Trial) -> Verdict:
    body, headers, _ = plain(trial)
    server = shared(trial)
    limit = trial.limits.invocation_seconds
    request = head("POST", INVOCATIONS_PATH, server.address,
                   [*headers, ("Content-Length", str(len(body)))]) + body
    try:
        with Connection(server.address) as connection:
            connection.send(request)
            reply = connection.reply("POST", timeout=limit)
            if not reply.stays_open:
                more = connection.awaits(_CLOSE_SECONDS) and connection.left_over
                if more and reply.framing != "close":
                    return failed(_left_over(reply, connection.left_over))
                return passed(f"{len(reply.body)} bytes by {reply.framing}")
            connection.send(head("GET", PING_PATH, server.address, []))
            connection.reply("GET", timeout=limit)
    except NoReply as error:
        if error.kind == GARBLED:
            return failed(f"after the answer of {INVOCATIONS_PATH}: {error}")
        return passed("the connection takes one request")  # the next check's business
    return passed(f"{len(reply.body)} bytes by {reply.framing}, then /ping on the same connection")


def _left_over(reply: Reply, more: bytes) -> str:
    return (
        f"Content-Length says {len(reply.body)} bytes, and {len(more)} more came: {more[:40]!r}"
    )


@check(
    "connections-end-as-announced",
    clause="HOST-11, HOST-12",
    group="hosting",
    title="A connection that is not said to close takes another request",
    cure="keep the connection open after an HTTP/1.1 answer, or send Connection: close with it",
    needs=("ping-answers-in-two-seconds",),
)
def connections_end_as_announced(trial: Trial) -> Verdict:
    server = shared(trial)
    limit = trial.limits.ping_seconds
    request = head("GET", PING_PATH, server.address, [])
    try:
        with Connection(server.address) as connection:
            connection.send(request, timeout=limit)
            reply = connection.reply(timeout=limit)
            if not reply.stays_open:
                return passed(f"{reply.version}, and the answer says that the connection ends")
            if connection.is_closed(_CLOSE_SECONDS):
                return failed(
                    "the answer to /ping leaves the connection open and the server ends it:"
                    " a request that is on its way then fails"
                )
            connection.send(request, timeout=limit)
            connection.reply(timeout=limit)
    except NoReply as error:
        return failed(f"a second /ping on the same connection is not answered: {error}")
    return passed(f"{reply.version}, two answers on one connection")


@check(
    "stream-begins-before-it-ends",
    clause="STRM-01, CHK-12",
    group="hosting",
    title="A streamed answer begins before it is complete",
    cure="flush each part as it is made; switch off buffering of a proxy in front (nginx:"
    " proxy_buffering off)",
    needs=("sample-request-is-answered",),
)
def stream_begins_early(trial: Trial) -> Verdict:
    _, _, reply = plain(trial)
    if reply.framing != "chunked":
        return skipped("the sample request's answer is not streamed: it is not chunked")
    if reply.seconds < 1.0:
        raise NotApplicable("the streamed answer takes under 1 s, too short to tell")
    if reply.first_byte > 0.9 * reply.seconds:
        return failed(
            f"the answer is chunked and took {reply.seconds:.1f} s, and its first byte came after"
            f" {reply.first_byte:.1f} s"
        )
    return passed(f"first byte after {reply.first_byte:.2f} s of {reply.seconds:.2f} s")
