"""Checks of a server that starts: it stays up, listens where the platform calls, and is healthy.

Each names the cause by what was seen from outside: exit code, log, listening sockets, answers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

from byoa.container.contract import (
    DEFAULT_PORT,
    EXECUTION_PARAMETERS_PATH,
    EXIT_NOT_EXECUTABLE,
    EXIT_NOT_FOUND,
)
from byoa.container.supervisor import Exit
from byoa.local.check.checks import Verdict, check, failed, passed, skipped
from byoa.local.check.hosting_http import LATE, NoReply, Reply
from byoa.local.check.hosting_server import Serving, first_start, shared
from byoa.local.check.training_causes import hidden_in, is_foreign
from byoa.local.check.trial import Trial
from byoa.local.runners.listeners import described, is_everywhere, is_loopback

_NO_MODEL = (
    "there is no model to serve: give --model PATH, or --channel so that a training run makes one"
)
_PINGS = 5
_LOG_SECONDS = 2.0  # for the first line: a busy Docker hands it on late
_TRANSFORM_MEGABYTES = 100  # MaxPayloadInMB × MaxConcurrentTransforms (BT-05)


def _no_model(server: Serving) -> str:
    return (
        f"/ping was not 200 within {server.seconds:.0f} s, and {_NO_MODEL}; where the image has a"
        " model of its own, --startup-seconds says how long it loads"
    )


@check(
    "serve-starts",
    clause="HOST-01, TRAP-01, TRAP-02, TRAP-04, CHK-06",
    group="hosting",
    title="`docker run IMAGE serve` starts a server that stays up",
    cure="give the image an exec-form ENTRYPOINT that takes `serve`, or an executable `serve` on"
    " PATH; read the log's end for what the server says itself",
    needs=("train-or-serve-found", "programs-executable", "programs-have-unix-lines",
           "interpreters-exist"),
)
def serve_starts(trial: Trial) -> Verdict:
    server = first_start(trial)
    if server.ended is None:
        return passed(f"/ping was 200 after {server.seconds:.1f} s" if server.ready else "")
    if server.without_model and server.ended.code not in (EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND):
        return skipped(_NO_MODEL)
    if is_foreign(trial.facts):
        return skipped("the image is for another processor than this machine's")
    cause, cure = _why_ended(server.ended, server.box.log, server.seconds)
    hidden = hidden_in(trial.facts, server.box.log)
    if hidden is not None:
        cause, cure = f"{cause}; {hidden.cause}", hidden.cure
    return failed(cause, cure=cure, evidence=server.box.tail())


def _why_ended(ended: Exit, log: str, seconds: float) -> tuple[str, str]:
    """Cause and cure of an end before /ping was 200."""
    said = log.lower()
    last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "")
    if "exec format error" in said:
        return (
            "exec format error: the first program is built for another processor, or is a script"
            " without a #! line",
            "build with `docker build --platform linux/amd64`; begin a script with"
            " `#!/usr/bin/env python3`",
        )
    if ended.code == EXIT_NOT_FOUND:
        return (
            f"exit code 127: there is no program to start: {last}",
            "put an executable called `serve` on PATH, or set an exec-form ENTRYPOINT; a script"
            " saved with CRLF line ends names an interpreter that does not exist",
        )
    if ended.code == EXIT_NOT_EXECUTABLE:
        return (
            f"exit code 126: the first program may not be executed: {last}",
            "`RUN chmod +x` it in the Dockerfile",
        )
    if ended.out_of_memory:
        return (
            f"the kernel ended it after {seconds:.1f} s: out of memory",
            "load less, or use an instance type with more memory",
        )
    tail = f"; its last line: {last[:200]}" if last else "; it wrote nothing"
    return f"it ended after {seconds:.1f} s with exit code {ended.code}{tail}", ""


@check(
    "serve-listens-on-8080",
    clause="HOST-10, TRAP-06",
    group="hosting",
    title="The server listens on port 8080",
    cure=f"bind to 0.0.0.0:{DEFAULT_PORT}, or where SAGEMAKER_BIND_TO_PORT is set to that port"
    " of 0.0.0.0",
    needs=("serve-starts",),
)
def listens_on_the_port(trial: Trial) -> Verdict:
    server = first_start(trial)
    on_port = [each for each in server.listeners if each[1] == server.port]
    if on_port or server.answered is not None:
        return passed(described(on_port))
    if server.without_model:
        return skipped(_no_model(server))
    if server.listeners:
        wrong = f"not on port {server.port}"
        if all(is_loopback(host) for host, _ in server.listeners):  # both faults at once
            wrong = f"must be 0.0.0.0:{server.port}: neither the address nor the port is right"
        return failed(
            f"it listens on {described(server.listeners)}, {wrong}", evidence=server.box.tail()
        )
    return failed(
        f"nothing listens on any port after {server.seconds:.0f} s",
        cure="find what it waits for in the log's end; it must listen while the model loads, and"
        " be ready within the start-up window",
        evidence=server.box.tail(),
    )


@check(
    "serve-listens-on-all-interfaces",
    clause="HOST-10, TRAP-06",
    group="hosting",
    title="The server can be reached from outside its container",
    cure="bind to 0.0.0.0, not to localhost or 127.0.0.1",
    needs=("serve-listens-on-8080",),
)
def listens_on_all_interfaces(trial: Trial) -> Verdict:
    if trial.engine is None:
        return passed("as a process of this machine it is given the loopback address")
    server = first_start(trial)
    on_port = [each for each in server.listeners if each[1] == server.port]
    if on_port and all(is_loopback(host) for host, _ in on_port):
        return failed(f"it listens on {described(on_port)}, must be 0.0.0.0")
    if on_port and not any(is_everywhere(host) for host, _ in on_port) and not server.ready:
        return failed(f"it listens on {described(on_port)} only, must be 0.0.0.0")
    return passed(described(on_port))


@check(
    "ping-answers-200",
    clause="HOST-20, HOST-21, HOST-22, HOST-23, TRAP-06, CHK-06",
    group="hosting",
    title="GET /ping answers 200 within the start-up window",
    cure="answer GET /ping with status 200 and any body as soon as the model is loaded",
    needs=("serve-listens-on-all-interfaces",),
)
def ping_answers_200(trial: Trial) -> Verdict:
    server = first_start(trial)
    if server.ready:
        return passed(f"after {server.seconds:.1f} s")
    if server.without_model:
        return skipped(_no_model(server))
    reply = server.ping if isinstance(server.ping, Reply) else server.answered
    if reply is None:
        return failed(
            f"GET /ping is not answered after {server.seconds:.0f} s: {server.ping}",
            evidence=server.box.tail(),
        )
    return failed(f"GET /ping answers {reply}: {_why_status(reply)}", evidence=server.box.tail())


def _why_status(reply: Reply) -> str:
    if reply.status == 404:
        return "it has no such route"
    if reply.status == 405:
        return "the route takes no GET"
    if 200 <= reply.status < 300:
        return "only 200 counts as healthy"
    if 300 <= reply.status < 400:
        return f"a redirect to {reply.header('location')!r} is not followed"
    return "only 200 counts as healthy, and it did not come within the start-up window"


@check(
    "ping-answers-in-two-seconds",
    clause="HOST-20, HOST-24, HOST-25, TRAP-06",
    group="hosting",
    title="GET /ping answers within 2 s",
    cure="do no work in /ping: load the model before, and remember whether it is loaded",
    needs=("ping-answers-200",),
)
def ping_in_time(trial: Trial) -> Verdict:
    server = shared(trial)
    limit = trial.limits.ping_seconds
    took = []
    for _ in range(_PINGS):
        outcome = server.get_ping()
        if isinstance(outcome, NoReply) and outcome.kind == LATE:
            return failed(f"GET /ping is not answered within {limit:g} s")
        if not isinstance(outcome, Reply) or outcome.status != 200:
            return failed(
                f"GET /ping was 200 and is {_outcome(outcome)} later", evidence=server.box.tail()
            )
        took.append(outcome.seconds)
    return passed(f"the slowest of {_PINGS} took {max(took) * 1000:.0f} ms")


@check(
    "ping-waits-for-the-model",
    clause="HOST-25",
    group="hosting",
    level="warning",
    title="Once /ping is 200 the first request is answered",
    cure="answer /ping with 503 until the model is loaded",
    needs=("ping-answers-200",),
)
def ping_waits_for_the_model(trial: Trial) -> Verdict:
    server = first_start(trial)
    if server.first is None or server.sample is None:
        return skipped("there is no sample request (--request)")
    if isinstance(server.first, Reply) and server.first.status < 500:
        return passed(f"the first answer was {server.first.status}")
    if isinstance(server.sample, Reply) and server.sample.status < 500:
        return failed(
            f"/ping was 200, the first request after it failed: {_outcome(server.first)}; later"
            f" the same request was answered with {server.sample.status}"
        )
    return skipped("the sample request is not answered later either")


@check(
    "execution-parameters-are-valid",
    clause="BT-02, BT-03, BT-05",
    group="hosting",
    title="GET /execution-parameters is valid, or answers 404",
    cure='answer {"MaxConcurrentTransforms": 4, "BatchStrategy": "MULTI_RECORD",'
    ' "MaxPayloadInMB": 6}, or 404 to leave it to the platform',
    needs=("ping-answers-200",),
)
def execution_parameters(trial: Trial) -> Verdict:
    outcome = shared(trial).request("GET", EXECUTION_PARAMETERS_PATH)
    if not isinstance(outcome, Reply):
        return failed(f"GET /execution-parameters is not answered: {outcome}")
    if outcome.status != 200:
        return passed(f"{outcome.status}: the platform's defaults hold")
    wrong = list(_wrong_parameters(outcome.body))
    if wrong:
        return failed("; ".join(wrong), evidence=outcome.excerpt())
    return passed(outcome.excerpt())


def _wrong_parameters(body: bytes) -> Iterable[str]:
    try:
        document = json.loads(body)
    except ValueError as error:
        yield f"the body is not JSON: {error}"
        return
    if not isinstance(document, dict):
        yield f"the body is no JSON object but {type(document).__name__}"
        return
    numbers = {}
    for name, least in (("MaxConcurrentTransforms", 0), ("MaxPayloadInMB", 0)):
        value = document.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            yield f"{name} is {value!r}, must be a whole number"
        else:
            numbers[name] = value
    strategy = document.get("BatchStrategy")
    if strategy not in (None, "MULTI_RECORD", "SINGLE_RECORD"):
        yield f"BatchStrategy is {strategy!r}, must be MULTI_RECORD or SINGLE_RECORD"
    if len(numbers) == 2:
        product = numbers["MaxConcurrentTransforms"] * numbers["MaxPayloadInMB"]
        if product > _TRANSFORM_MEGABYTES:
            yield (
                f"MaxPayloadInMB × MaxConcurrentTransforms is {product}, may be at most"
                f" {_TRANSFORM_MEGABYTES}"
            )


@check(
    "serve-logs-to-stdout",
    clause="HOST-23, TRAP-07",
    group="hosting",
    level="warning",
    title="The server writes its log to stdout or stderr",
    cure="log to stdout or stderr, unbuffered (PYTHONUNBUFFERED=1); link nginx's access and error"
    " log to /dev/stdout and /dev/stderr: nothing else comes to the endpoint's log stream",
    needs=("ping-answers-200",),
)
def logs_to_stdout(trial: Trial) -> Verdict:
    server = first_start(trial)
    until = time.monotonic() + _LOG_SECONDS
    while not server.box.log.strip() and time.monotonic() < until:
        if server.box.wait(0.1) is not None:  # it has ended: there will be no more
            break
    if server.box.log.strip():
        return passed(f"{len(server.box.log.splitlines())} lines")
    return failed("it has started and answered, and not one line came to its stdout or stderr")


def _outcome(outcome: Reply | NoReply) -> str:
    return str(outcome) if isinstance(outcome, Reply) else f"not answered ({outcome})"


