"""Checks of ends: a worker's, and the server's own after SIGTERM. They come last."""

from __future__ import annotations

import time

from byoa.container.contract import INVOCATIONS_PATH
from byoa.container.supervisor import Exit
from byoa.local.check.box import Process
from byoa.local.check.checks import NotApplicable, Verdict, check, failed, passed, skipped
from byoa.local.check.hosting_http import Connection, NoReply, Reply, head
from byoa.local.check.hosting_server import Outcome, Serving, plain, shared
from byoa.local.check.trial import Trial

_ROUNDS = 3  # processes that are killed, one after the other
_RECOVER_SECONDS = 15.0
_LOOK_SECONDS = 0.25
_TAKE_UP_SECONDS = 0.5  # a server has then begun to read a request
_TOLD_SECONDS = 0.5  # between SIGTERM and the rest of the body
_SHELLS = ("sh", "bash", "dash", "ash", "busybox")
_INITS = ("tini", "dumb-init", "catatonit", "docker-init")
_GOOD_EXITS = (0, 143)


@check(
    "dead-worker-is-noticed",
    clause="TRAP-07, HOST-09, HOST-24",
    group="hosting",
    title="When a worker process is killed, it is replaced or the container ends",
    cure="let the first process watch the others: start a dead one again, or end with it, so that"
    " the platform replaces the container; nginx and the application server must end together",
    needs=("ping-answers-in-two-seconds",),
)
def dead_worker(trial: Trial) -> Verdict:
    told: list[str] = []
    for _ in range(_ROUNDS):
        server = shared(trial)
        victim = _next_victim(server.box.processes(), told)
        if victim is None:
            break
        name = _name(victim)
        if not server.box.kill_process(victim):
            raise NotApplicable(f"process {name} cannot be killed from here")
        told.append(name)
        wrong = _recovers(trial, server)
        if wrong:
            server.box.kill()  # it serves no other check
            server.box.wait(_RECOVER_SECONDS)
            return failed(
                f"{_RECOVER_SECONDS:g} s after process {name} was killed {wrong}, and the"
                " container still runs",
                evidence=server.box.tail(),
            )
    if not told:
        return skipped("the server is a single process")
    return passed(f"killed: {', '.join(told)}")


def _next_victim(processes: list[Process], told: list[str]) -> Process | None:
    """First the youngest process, then those which the first process started."""
    if len(processes) < 2:
        return None
    if not told:
        parents = {each.ppid for each in processes}
        leaves = [each for each in processes[1:] if each.pid not in parents]
        return max(leaves, key=lambda each: each.pid)
    direct = [each for each in processes[1:] if each.ppid == processes[0].pid]
    return next((each for each in direct if _name(each) not in told), None)


def _name(process: Process) -> str:
    words = [word.rsplit("/", 1)[-1] for word in process.argv]
    return " ".join(words)[:60].strip() or "(no name)"


def _recovers(trial: Trial, server: Serving) -> str:
    """What is still wrong when the time is over; empty where it answers as before, or has ended."""
    body, headers, expected = plain(trial)
    until = time.monotonic() + _RECOVER_SECONDS
    wrong = ""
    good = 0
    while time.monotonic() < until:
        if server.box.wait(_LOOK_SECONDS) is not None:
            return ""
        ping = server.get_ping()
        if not isinstance(ping, Reply) or ping.status != 200:
            wrong, good = f"GET /ping is {_told(ping)}", 0
            continue
        outcome = server.request(
            "POST", INVOCATIONS_PATH, headers=headers, body=body, timeout=_RECOVER_SECONDS / 2
        )
        if not isinstance(outcome, Reply) or outcome.status != expected.status:
            wrong, good = f"GET /ping is 200 and POST /invocations is {_told(outcome)}", 0
            continue
        good += 1
        if good == 3:
            return ""
    return wrong


def _told(outcome: Outcome) -> str:
    return str(outcome) if isinstance(outcome, Reply) else f"not answered ({outcome})"


# --- SIGTERM --------------------------------------------------------------------------------------


class _Stop:
    """SIGTERM while a request is being sent: what came of the request and of the server."""

    def __init__(self, trial: Trial) -> None:
        body, headers, self.expected = plain(trial)
        server = shared(trial)
        self.first = next(iter(server.box.processes()), None)
        begin = head(
            "POST", INVOCATIONS_PATH, server.address,
            [*headers, ("Content-Length", str(len(body)))],
        )
        middle = len(body) // 2
        self.outcome: Outcome
        limit = trial.limits.hosting_stop_seconds
        try:
            with Connection(server.address) as connection:
                connection.send(begin + body[:middle])
                early = connection.awaits(_TAKE_UP_SECONDS)
                server.box.terminate()
                began = time.monotonic()
                if not early:
                    server.box.wait(_TOLD_SECONDS)
                connection.send(body[middle:])
                self.outcome = connection.reply("POST", timeout=limit)
        except NoReply as error:
            self.outcome = error
        left = max(0.0, limit - (time.monotonic() - began))
        self.ended: Exit | None = server.box.wait(left)
        self.seconds = time.monotonic() - began
        self.log = server.box.tail()
        if self.ended is None:
            server.box.kill()
            server.box.wait(10.0)


def _stop(trial: Trial) -> _Stop:
    return trial.memo("hosting: stop", lambda: _Stop(trial))


@check(
    "sigterm-ends-it",
    clause="CHK-08, HOST-02, HOST-03, TRAP-05",
    group="hosting",
    title="After SIGTERM the server ends by itself within 30 s",
    cure="handle SIGTERM in the first process: exec-form ENTRYPOINT, and `exec` as the last line of"
    " a shell script; a process with number 1 that handles no SIGTERM never gets it",
    needs=("ping-answers-200", "entrypoint-exec-form"),
)
def sigterm_ends_it(trial: Trial) -> Verdict:
    stop = _stop(trial)
    if stop.ended is None:
        return failed(
            f"{stop.seconds:.0f} s after SIGTERM it still runs{_first(stop.first)}",
            evidence=stop.log,
        )
    if stop.ended.code not in _GOOD_EXITS:
        return failed(
            f"after SIGTERM it ends with exit code {stop.ended.code}, must be 0 (or 143)",
            cure="end with sys.exit(0) when a handled SIGTERM has been seen to",
            evidence=stop.log,
        )
    return passed(f"exit code {stop.ended.code} after {stop.seconds:.1f} s")


def _first(process: Process | None) -> str:
    if process is None:
        return ""
    name = process.argv[0].rsplit("/", 1)[-1] if process.argv else ""
    if name in _SHELLS:
        return f": its first process is the shell {name!r}, which passes no signal on"
    if name in _INITS:
        return f": its first process is {name!r}, which passes it to a program that ignores it"
    return f": its first process, {_name(process)!r}, does not handle it"


@check(
    "sigterm-finishes-requests",
    clause="CHK-08, HOST-03",
    group="hosting",
    title="A request that is running at SIGTERM is answered",
    cure="after SIGTERM accept no new connection, finish what runs, then exit: gunicorn does so on"
    " SIGTERM, nginx on SIGQUIT",
    needs=("sigterm-ends-it",),
)
def sigterm_finishes_requests(trial: Trial) -> Verdict:
    stop = _stop(trial)
    if isinstance(stop.outcome, Reply) and stop.outcome.status == stop.expected.status:
        return passed(str(stop.outcome))
    return failed(
        f"a request that had begun before SIGTERM is {_told(stop.outcome)}, without SIGTERM"
        f" {stop.expected.status}",
        evidence=stop.log,
    )
