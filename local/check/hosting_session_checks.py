"""Stateful sessions of a server that keeps them: opened, used, closed (SESS-01 … SESS-03)."""

from __future__ import annotations

import json
import time

from byoa.container.contract import REQUEST_HEADERS, RESPONSE_HEADERS
from byoa.local.check.checks import Verdict, check, failed, passed, skipped
from byoa.local.check.hosting_http import Reply
from byoa.local.check.hosting_server import Outcome, Serving, plain, shared
from byoa.local.check.trial import Trial
from byoa.local.runtime.sessions import BadSession, parse

_SESSION = next(each for each in REQUEST_HEADERS if each.endswith("-Session-Id"))
_OPENED = next(each for each in RESPONSE_HEADERS if each.endswith("-New-Session-Id"))
_CLOSED = next(each for each in RESPONSE_HEADERS if each.endswith("-Closed-Session-Id"))


@check(
    "sessions-open-and-close",
    clause="SESS-01, SESS-02, SESS-03, HOST-34",
    group="hosting",
    title="A session is opened with its id and end, takes a request, and is closed",
    cure=f"answer SessionId NEW_SESSION with the header {_OPENED}: <id>;"
    " Expires=yyyy-mm-ddThh:mm:ssZ, and requestType CLOSE with the header"
    f" {_CLOSED}: <id>",
    needs=("ping-answers-200",),
)
def sessions(trial: Trial) -> Verdict:
    body, headers, expected = plain(trial)
    server = shared(trial)
    answer = _ask(server, "NEW_SESSION", "NEW_SESSION")
    told = answer.header(_OPENED) if isinstance(answer, Reply) else None
    if told is None:
        return skipped(
            "NEW_SESSION opens no session: the image keeps none, or needs a variable for it"
            " (--environment SAGEMAKER_ENABLE_STATEFUL_SESSIONS=true)"
        )
    try:
        session, expires = parse(told)
    except BadSession:
        return failed(
            f"NEW_SESSION is answered with {_OPENED}: {told[:300]}, must be"
            " <id>; Expires=yyyy-mm-ddThh:mm:ssZ, an id of letters, digits and hyphens"
        )
    if expires <= time.time():
        return failed(f"the session that NEW_SESSION opens has expired: {told}")
    used = server.invoke(body, [*headers, (_SESSION, session)])
    if not isinstance(used, Reply) or used.status != expected.status:
        return failed(
            f"a request of the session is answered with {used}; without it it is"
            f" {expected.status}",
            evidence=server.box.tail(),
        )
    closed = _ask(server, session, "CLOSE")
    said = closed.header(_CLOSED) if isinstance(closed, Reply) else None
    if said != session:
        found = str(closed) if said is None else f"{_CLOSED}: {said}"
        return failed(f"requestType CLOSE of the session {session} is answered with {found}",
                      evidence=server.box.tail())
    return passed(told)


def _ask(server: Serving, session: str, kind: str) -> Outcome:
    """The answer to a request that opens or closes a session."""
    return server.invoke(
        json.dumps({"requestType": kind}).encode(),
        [("Content-Type", "application/json"), (_SESSION, session)],
    )
