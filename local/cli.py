"""The command `byoa`: one verb a task, an example in each help, `--json` where a script reads.

Command modules are imported here and must stay with the standard library at import, so that the
command starts in well under 0.3 s; what a command needs, it imports when it runs.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from byoa.container.errors import ByoaError
from byoa.local.commands import (
    box,
    build,
    check,
    demo,
    image,
    interrupt,
    metrics,
    prune,
    records,
    server,
)

MODULES = (server, box, build, check, records, metrics, interrupt, image, prune, demo)


class Parser(argparse.ArgumentParser):
    """argparse that answers a mistyped command or option with the right one."""

    def error(self, message: str) -> NoReturn:
        wrong, known = "", list(self._option_string_actions)
        if match := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            wrong = match[1]
            known = [each.strip(" '\"") for each in match[2].split(",")]
            message = f"{wrong!r} is not one of: {', '.join(known)}"
        elif match := re.search(r"unrecognized arguments: (\S+)", message):
            wrong = match[1].split("=")[0]
            message = f"{wrong!r} is not an option or argument of `{self.prog}`"
        near = difflib.get_close_matches(wrong, known, 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        self.exit(2, f"byoa: {message}{hint}\nsee `{self.prog} --help`\n")


def parse(parser: Parser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse, and let the verb's own parser answer for options that nobody knows."""
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        # It knows the options that a mistyped one can be meant for.
        getattr(args, "parser", parser).error(f"unrecognized arguments: {' '.join(unknown)}")
    return args


def build_parser() -> Parser:
    parser = Parser(
        prog="byoa",
        description="Write the algorithm once: the box it runs in and the SageMaker that runs it.",
        epilog="example: byoa up --detach && eval \"$(byoa env)\" && aws sagemaker list-models",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", parser_class=Parser, required=False
    )
    for module in MODULES:
        module.add(commands)
    for sub in commands.choices.values():
        sub.set_defaults(parser=sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; exit code 0, 1 for an error of the task, 2 for a mistyped command line."""
    parser = build_parser()
    args = parse(parser, argv)
    if args.version:
        from importlib.metadata import version

        print(f"byoa {version('byoa')}")
        return 0
    if args.command is None:
        parser.print_help()
        return 2
    try:
        code: int = args.run(args)
    except ByoaError as error:
        print(f"byoa: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `byoa logs | head` closes our output; say nothing and leave quietly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        print(f"byoa: {error.strerror}: {error.filename or args.command} [OS_ERROR]",
              file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
