"""Options that several verbs share."""

from __future__ import annotations

import argparse
from typing import Any

from byoa.local.settings import Settings


def command(
    commands: Any, name: str, run: Any, *, help: str, example: str, **more: Any
) -> argparse.ArgumentParser:
    """Declare a verb with its help, an example and the function that does it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=help[0].upper() + help[1:] + ".", **more,
        epilog=f"example:\n  {example}", formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_home(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", metavar="DIR", help="state directory (BYOA_HOME, ~/.byoa)")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def settings(args: argparse.Namespace) -> Settings:
    """Defaults, BYOA_… variables, then the flags that the verb has."""
    names = ("home", "host", "port", "region", "runner")
    given: dict[str, Any] = {name: getattr(args, name, None) for name in names}
    return Settings.from_environment(**given)
