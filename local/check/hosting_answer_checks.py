"""Checks of /invocations: the sample request's answer, and how what is wrong is refused."""

from __future__ import annotations

from dataclasses import dataclass

from byoa.container.contract import PAYLOAD_LIMIT_BYTES
from byoa.container.supervisor import Exit
from byoa.local.check.checks import Verdict, check, failed, passed, skipped
from byoa.local.check.hosting_http import CLOSED, LATE, NoReply, Reply
from byoa.local.check.hosting_server import (
    UNKNOWN_TYPE,
    Outcome,
    first_start,
    plain,
    sample,
    shared,
)
from byoa.local.check.trial import Trial

_NO_SAMPLE = "there is no sample request (--request FILE --content-type TYPE)"
_GARBAGE = b'\x00\xff\xfe{"not": a record,\n\x80'
# A server that a request ends is told so while it is known which request it was.
_END_SECONDS = 0.2
_JSON_TYPES = ("json", "jsonlines", "x-jsonlines", "jsonl", "x-ndjson")


# --- the sample request ---------------------------------------------------------------------------


@check(
    "sample-request-is-answered",
    clause="HOST-30, HOST-31, HOST-33, CHK-06, TRAP-09",
    group="hosting",
    title="POST /invocations answers the sample request with a 2xx status within 60 s",
    cure="answer POST /invocations with status 200; read the log's end for what failed",
    needs=("ping-answers-200",),
)
def sample_is_answered(trial: Trial) -> Verdict:
    server = first_start(trial)
    outcome = server.sample
    if outcome is None:
        return skipped(_NO_SAMPLE)
    if isinstance(outcome, Reply) and 200 <= outcome.status < 300:
        return passed(f"{outcome} in {outcome.seconds * 1000:.0f} ms")
    cause, cure = _why_not_answered(outcome, trial)
    return failed(cause, cure=cure, evidence=server.box.tail())


def _why_not_answered(outcome: Outcome, trial: Trial) -> tuple[str, str]:
    if isinstance(outcome, NoReply):
        if outcome.kind == LATE:
            return (
                f"the sample request is not answered within {trial.limits.invocation_seconds:g} s",
                "answer sooner, or use asynchronous inference or batch transform",
            )
        ended = first_start(trial).box.wait(1.0) if outcome.kind == CLOSED else None
        how = f", and the server ended with exit code {ended.code}" if ended else ""
        return f"the sample request is not answered: {outcome}{how}", ""
    said = f"the sample request is answered with {outcome}"
    if outcome.status == 404:
        return f"{said}: it has no route /invocations", "serve POST /invocations"
    if outcome.status == 405:
        return f"{said}: /invocations takes no POST", "serve POST /invocations"
    if outcome.status == 415:
        given = trial.samples.content_type
        return (
            f"{said}: it does not read {given or 'a request without a Content-Type'}",
            "give the sample's type by --content-type, or decode that type in the server",
        )
    if outcome.status == 406:
        return f"{said}: it does not write {trial.samples.accept}", ""
    if outcome.status < 500:
        return f"{said}: it refuses the sample", "give --request a body that the model takes"
    return f"{said}: the server failed", ""


@check(
    "answer-has-a-content-type",
    clause="HOST-33, CHK-06",
    group="hosting",
    level="warning",
    title="The answer names its Content-Type",
    cure="set the header Content-Type of the answer: the caller, and the next container of a"
    " pipeline, decode by it",
    needs=("sample-request-is-answered",),
)
def has_content_type(trial: Trial) -> Verdict:
    _, _, reply = plain(trial)
    found = reply.header("content-type")
    if found and "/" in found:
        return passed(found)
    return failed(
        f"the answer's Content-Type is {found!r}" if found else "the answer has no Content-Type",
        evidence=reply.excerpt(),
    )


@check(
    "answer-honours-accept",
    clause="HOST-30, CHK-06",
    group="hosting",
    level="warning",
    title="The answer has the type that the request's Accept asks for",
    cure="read the header Accept and encode the answer in that type, or refuse it with 406",
    needs=("answer-has-a-content-type",),
)
def honours_accept(trial: Trial) -> Verdict:
    accept = trial.samples.accept
    if not accept:
        return skipped("the sample request asks for no type (--accept TYPE)")
    _, _, reply = plain(trial)
    found = reply.header("content-type") or ""
    asked = [_essence(each) for each in accept.split(",")]
    if any(_matches(_essence(found), each) for each in asked):
        return passed(f"{accept} → {found}")
    return failed(f"Accept is {accept}, the answer is {found}", evidence=reply.excerpt())


def _essence(media_type: str) -> str:
    return media_type.split(";", 1)[0].strip().lower()


def _matches(found: str, asked: str) -> bool:
    kind, _, sub = asked.partition("/")
    return asked in ("*/*", found) or (sub == "*" and found.startswith(f"{kind}/"))


@check(
    "answer-fits-the-limit",
    clause="HOST-32, TRAP-10",
    group="hosting",
    title="The answer is at most 6,291,456 bytes",
    cure="send fewer records in one request, or a denser type than JSON; use asynchronous"
    " inference or batch transform for larger answers",
    needs=("sample-request-is-answered",),
)
def fits_the_limit(trial: Trial) -> Verdict:
    body, _, reply = plain(trial)
    size = len(reply.body)
    if size <= PAYLOAD_LIMIT_BYTES:
        return passed(f"{size:,} bytes")
    return failed(f"{len(body):,} bytes are answered with {size:,} bytes, which is over the limit")


# --- refusals -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Refusal:
    """What came of a request that is wrong, and of the server after it."""

    outcome: Outcome
    ping: Outcome
    ended: Exit | None
    log: str


def _refusal(
    trial: Trial, name: str, body: bytes, headers: list[tuple[str, str]]
) -> _Refusal:
    def ask() -> _Refusal:
        server = shared(trial)
        outcome = server.invoke(body, headers)
        ping = server.get_ping()
        gone = isinstance(ping, NoReply) and ping.kind != LATE
        ended = server.box.wait(2.0 if gone else _END_SECONDS)
        return _Refusal(outcome, ping, ended, server.box.tail())

    return trial.memo(f"hosting: refusal: {name}", ask)


def _unknown_type(trial: Trial) -> _Refusal:
    body = trial.samples.request or b"1,2,3\n"
    return _refusal(trial, "content type", body, [("Content-Type", UNKNOWN_TYPE)])


def _unknown_accept(trial: Trial) -> _Refusal | None:
    request = sample(trial)
    if request is None:
        return None
    body, headers = request
    kept = [each for each in headers if each[0] != "Accept"]
    return _refusal(trial, "accept", body, [*kept, ("Accept", UNKNOWN_TYPE)])


def _malformed(trial: Trial) -> _Refusal | None:
    if not trial.samples.content_type:
        return None
    headers = [("Content-Type", trial.samples.content_type)]
    return _refusal(trial, "malformed", _GARBAGE, headers)


def _empty(trial: Trial) -> _Refusal:
    headers = [("Content-Type", trial.samples.content_type or "application/json")]
    return _refusal(trial, "empty", b"", headers)


def _refusals(trial: Trial) -> dict[str, _Refusal]:
    """All of them that can be made with what the user gave."""
    found = {
        "an unknown Content-Type": _unknown_type(trial),
        "an unknown Accept": _unknown_accept(trial),
        "a malformed body": _malformed(trial),
        "no body": _empty(trial),
    }
    return {what: refusal for what, refusal in found.items() if refusal is not None}


def _answer(what: str, refusal: _Refusal) -> Reply | Verdict:
    """The answer, or the verdict where there was none, or one of the server's own failure."""
    outcome = refusal.outcome
    if isinstance(outcome, NoReply):
        end = f", and the server ended with exit code {refusal.ended.code}" if refusal.ended else ""
        return failed(f"{what} is not answered: {outcome}{end}", evidence=refusal.log)
    if outcome.status >= 500:
        return failed(
            f"{what} is answered with {outcome}: the caller's mistake counts as the server's"
            " failure",
            evidence=refusal.log,
        )
    return outcome


@check(
    "unknown-content-type-is-refused",
    clause="CHK-06",
    group="hosting",
    level="warning",
    title="A request of an unknown Content-Type is refused with 415",
    cure="answer 415 with the types that are read, before the body is decoded",
    needs=("ping-answers-200",),
)
def unknown_content_type(trial: Trial) -> Verdict:
    refusal = _unknown_type(trial)
    what = f"a request of type {UNKNOWN_TYPE}"
    reply = _answer(what, refusal)
    if isinstance(reply, Verdict):
        return reply
    if reply.status < 400:
        return failed(
            f"{what} is answered with {reply}: it decodes a body without knowing what it is"
        )
    return passed(str(reply))


@check(
    "unacceptable-accept-is-refused",
    clause="CHK-06",
    group="hosting",
    level="warning",
    title="A request that accepts only an unknown type is refused with 406",
    cure="answer 406 with the types that are written",
    needs=("sample-request-is-answered",),
)
def unacceptable_accept(trial: Trial) -> Verdict:
    refusal = _unknown_accept(trial)
    if refusal is None:
        return skipped(_NO_SAMPLE)
    what = f"a request with Accept: {UNKNOWN_TYPE}"
    reply = _answer(what, refusal)
    if isinstance(reply, Verdict):
        return reply
    if reply.status < 400:
        return failed(
            f"{what} is answered with {reply.status} and {reply.header('content-type')}: the"
            " caller gets what it cannot read",
        )
    return passed(str(reply))


@check(
    "malformed-body-is-refused",
    clause="CHK-06, HOST-33, ERR-01",
    group="hosting",
    level="warning",
    title="A body that does not decode is refused with 400",
    cure="catch what decoding raises and answer 400 with what was expected; 500 is for failures of"
    " the server's own and raises its alarms",
    needs=("ping-answers-200",),
)
def malformed_body(trial: Trial) -> Verdict:
    refusal = _malformed(trial)
    if refusal is None:
        return skipped("no content type is known that the server reads (--content-type TYPE)")
    given = trial.samples.content_type or ""
    what = f"a body that is not {given}"
    reply = _answer(what, refusal)
    if isinstance(reply, Verdict):
        return reply
    sub = _essence(given).partition("/")[2]
    if reply.status < 400 and (sub in _JSON_TYPES or sub.endswith("+json")):
        return failed(f"{what} is answered with {reply}, as though it were one")
    return passed(str(reply))


@check(
    "empty-body-is-refused",
    clause="CHK-06",
    group="hosting",
    level="warning",
    title="A request without a body is no failure of the server",
    cure="answer 400 where there is no body",
    needs=("ping-answers-200",),
)
def empty_body(trial: Trial) -> Verdict:
    refusal = _empty(trial)
    reply = _answer("a request without a body", refusal)
    return reply if isinstance(reply, Verdict) else passed(str(reply))


@check(
    "refusals-say-why",
    clause="ERR-01, ERR-02, CHK-06",
    group="hosting",
    level="warning",
    title="A refusal has a body that says why",
    cure="put the reason into the body of the answer: the caller gets its first 2,048 bytes as"
    " OriginalMessage, and nothing else",
    needs=("ping-answers-200",),
)
def refusals_say_why(trial: Trial) -> Verdict:
    replies = {
        what: refusal.outcome for what, refusal in _refusals(trial).items()
        if isinstance(refusal.outcome, Reply) and refusal.outcome.status >= 400
    }
    if not replies:
        return skipped("none of the requests that are wrong was refused")
    silent = [f"{reply.status} for {what}" for what, reply in replies.items() if not reply.body]
    if silent:
        return failed(f"there is no body in the answer {', '.join(silent)}")
    return passed("; ".join(f"{what}: {reply.status}" for what, reply in replies.items()))


@check(
    "bad-requests-do-not-end-it",
    clause="HOST-24, TRAP-07, CHK-06",
    group="hosting",
    title="The server is healthy after requests that are wrong",
    cure="catch what a request raises, around the request and not around the server",
    needs=("ping-answers-in-two-seconds",),
)
def bad_requests_do_not_end_it(trial: Trial) -> Verdict:
    for what, refusal in _refusals(trial).items():
        if refusal.ended is not None:
            return failed(
                f"after {what} the server ended with exit code {refusal.ended.code}",
                evidence=refusal.log,
            )
        if not isinstance(refusal.ping, Reply) or refusal.ping.status != 200:
            return failed(f"after {what} GET /ping is {refusal.ping}", evidence=refusal.log)
    return passed()
