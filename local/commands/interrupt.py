"""`byoa interrupt`: take a training job's instances away, as the owner of spot capacity does."""

from __future__ import annotations

import argparse
import json
from typing import Any

from byoa.local.client import INTERRUPT_PATH, JSON, Client, ServerError
from byoa.local.commands.options import add_home, add_json, command, settings
from byoa.local.commands.records import describe_job


def add(commands: Any) -> None:
    interrupt = command(
        commands, "interrupt", run_interrupt,
        help="interrupt a spot training job, which then goes on from its checkpoints",
        example="byoa interrupt digits-1 --after 30",
    )
    interrupt.add_argument("job", help="a training job with EnableManagedSpotTraining")
    interrupt.add_argument("--after", type=float, default=0.0, metavar="SECONDS",
                           help="when it has trained for so long (0: now)")
    interrupt.add_argument("--notice", type=float, metavar="SECONDS",
                           help="from SIGTERM to SIGKILL (BYOA_STOP_GRACE, 120)")
    interrupt.add_argument("--away", type=float, default=0.0, metavar="SECONDS",
                           help="until there is capacity again (0)")
    interrupt.add_argument("--fault", action="store_true",
                           help="let its instance fail instead, at once: what RetryStrategy is for;"
                           " of any job")
    add_home(interrupt)
    interrupt.add_argument("--region", help="region to look in (BYOA_REGION, us-east-1)")
    add_json(interrupt)


def run_interrupt(args: argparse.Namespace) -> int:
    chosen = settings(args)
    server = Client.find(chosen.home, chosen.region)
    describe_job(server, args.job)  # says which there are, where there is none of the name
    asked = {"region": chosen.region, "job": args.job, "after": args.after, "away": args.away,
             "fault": args.fault}
    if args.notice is not None:
        asked["notice"] = args.notice
    status, body = server.request(
        "POST", INTERRUPT_PATH, json.dumps(asked).encode(), {"Content-Type": JSON}
    )
    answer = json.loads(body)
    if status != 200:
        raise ServerError(answer.get("__type", "ServerError"), answer["message"])
    if args.json:
        print(json.dumps(answer))
        return 0
    what = "its instance fails" if args.fault else "it is interrupted"
    when = f"when it has trained for {args.after:g} s" if args.after else "now"
    print(f"{args.job} is {answer['SecondaryStatus']}: {what} {when}")
    return 0
