"""`byoa up`, `down`, `status`, `env`: the local SageMaker's process."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from byoa.container.errors import ByoaError
from byoa.local import client
from byoa.local.commands.leftovers import count_running, end_left_running
from byoa.local.commands.options import add_home, add_json, command, settings
from byoa.local.runners import identity
from byoa.local.settings import RUNNERS

DETACH_SECONDS = 20.0
# The server stops its endpoints (30 s each at most, together) and jobs before it leaves.
DOWN_SECONDS = 60.0


def add(commands: Any) -> None:
    up = command(
        commands, "up", run_up, help="start the local SageMaker", example="byoa up --port 4566"
    )
    add_home(up)
    up.add_argument("--host", help="address to listen on (BYOA_HOST, 127.0.0.1)")
    up.add_argument("--port", type=int, help="port; 0 takes a free one (BYOA_PORT, 4566)")
    up.add_argument("--region", help="region of requests that name none (BYOA_REGION, us-east-1)")
    up.add_argument("--runner", choices=RUNNERS,
                    help="what runs containers (BYOA_RUNNER, auto: Docker where it has the image)")
    up.add_argument("--detach", action="store_true", help="leave it running in the background")
    down = command(
        commands, "down", run_down, help="stop the local SageMaker", example="byoa down"
    )
    add_home(down)
    status = command(
        commands, "status", run_status, help="tell whether it runs, and where",
        example="byoa status --json",
    )
    add_home(status)
    add_json(status)
    env = command(
        commands, "env", run_env,
        help="print the variables that point AWS clients at the local SageMaker",
        example='eval "$(byoa env)"',
    )
    add_home(env)
    env.add_argument("--region", help="region of the clients (BYOA_REGION, us-east-1)")
    env.add_argument("--shell", choices=("sh", "fish"), default="sh", help="whose syntax to print")
    env.add_argument("--unset", action="store_true", help="print what takes them back")
    add_json(env)


def run_up(args: argparse.Namespace) -> int:
    chosen = settings(args)
    running = client.read_record(chosen.home)
    if running:
        raise ByoaError(
            "SERVER_RUNNING",
            f"a local SageMaker already runs with {chosen.home}: {running['url']},"
            f" process {running['pid']}",
            remedy="use it, stop it with `byoa down`, or start another with its own --home",
        )
    if args.detach:
        return _detach(args, chosen)
    from byoa.local.service import serve

    return serve(chosen)


def _detach(args: argparse.Namespace, chosen: Any) -> int:
    chosen.home.mkdir(parents=True, exist_ok=True)
    log = chosen.home / "server.log"
    argv = [sys.executable, "-m", "byoa.local.cli", "up", "--home", str(chosen.home),
            "--host", chosen.host, "--port", str(chosen.port), "--region", chosen.region,
            "--runner", chosen.runner]
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    record = _await(
        lambda: client.read_record(chosen.home) if child.poll() is None else {}, DETACH_SECONDS
    )
    if not record:
        tail = log.read_text(errors="replace").splitlines()[-10:]
        print("\n".join(tail), file=sys.stderr)
        raise ByoaError(
            "SERVER_NOT_STARTED",
            f"the server did not start; it ended with exit code {child.poll()}",
            remedy=f"see the lines above, from {log}",
        )
    print(f"{record['url']}  process {record['pid']}  log {log}")
    return 0


def _await(look: Callable[[], Any], seconds: float) -> Any:
    """What `look` returns once it is not None, or None after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found is not None:
            return found
        time.sleep(0.05)
    return None


def run_down(args: argparse.Namespace) -> int:
    chosen = settings(args)
    home = chosen.home
    record = client.read_record(home)
    if record is None:
        print(f"no local SageMaker runs with {home}")
        number, jobs = end_left_running(chosen)
        if number:
            print(f"stopped what an earlier one left running: {number} container(s)")
        if jobs:
            print(f"the next `byoa up` ends as Stopped, with what they have saved:"
                  f" {', '.join(jobs)}")
        return 0
    pid = record["pid"]
    started = identity.start_time(pid)  # the number alone may be another's in a moment
    identity.send(pid, started, signal.SIGTERM)
    # Its record goes before it does, and its port with it.
    if not identity.wait_for_end(pid, started, DOWN_SECONDS) or _runs(home, pid):
        raise ByoaError(
            "SERVER_NOT_STOPPED",
            f"process {pid} has been told to stop, and still runs",
            remedy="it may be uploading what its jobs have made: see its log, and run `byoa down`"
            f" again; or end it with `kill -9 {pid}`: nothing stored is lost, and `byoa down` then"
            " ends what it left running",
        )
    print(f"stopped process {pid}")
    return 0


def _runs(home: Path, pid: int) -> bool:
    """Whether that process holds the state directory, even where it cannot be seen."""
    return (client.read_record(home) or {}).get("pid") == pid


def run_status(args: argparse.Namespace) -> int:
    chosen = settings(args)
    record = client.read_record(chosen.home)
    if record:
        status, body = client.Client(record["url"], chosen.region).request(
            "GET", client.STATUS_PATH
        )
        if status == 200:
            record |= json.loads(body)
    if args.json:
        print(json.dumps(record or {"running": False}))
    elif record:
        print(
            f"running  {record['url']}  process {record['pid']}  home {chosen.home}\n"
            f"jobs in progress: {record['jobs']}  endpoints: {record['endpoints']}\n"
            f"runner {record['runner']}: {record['containers']}"
        )
    else:
        print(f"not running (home {chosen.home}); start it with `byoa up`")
        if left := count_running(chosen):
            print(f"{left} container(s) of an earlier one still run: `byoa up` takes them over,"
                  " `byoa down` stops them")
    return 0 if record else 1


def run_env(args: argparse.Namespace) -> int:
    chosen = settings(args)
    from byoa.local import environment

    if args.unset:
        print(environment.shell_restore(args.shell), end="")
        return 0
    found = client.Client.find(chosen.home, chosen.region)
    port = int(found.url.rsplit(":", 1)[1])
    variables = environment.write(chosen, port, chosen.region)
    if args.json:
        print(json.dumps(variables, indent=1))
    else:
        print(environment.shell_exports(variables, args.shell))
    return 0
