"""The entrypoint of the image: `python -m byoa.container train|serve|contract`.

SageMaker runs `docker run IMAGE train` or `serve` (TRAIN-01, HOST-01).
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence

from byoa.container.contract import EXIT_FAILURE, EXIT_SUCCESS, Layout, write_failure
from byoa.container.errors import ContractError

COMMANDS = {
    "train": "train the algorithm that BYOA_ALGORITHM or script mode names",
    "serve": "serve the model in /opt/ml/model over HTTP",
    "contract": "print the files and variables of the container contract as Markdown",
}


def main(arguments: Sequence[str]) -> int:
    try:
        command = _command(arguments)
    except ContractError as error:
        print(error, file=sys.stderr, flush=True)
        layout = Layout.from_environment()
        if layout.output.is_dir():  # on the platform the reason is also shown there
            write_failure(layout, str(error))
        return EXIT_FAILURE
    if command == "train":
        from byoa.container import train

        return train.main()
    if command == "serve":
        # In place of this process, so that signals reach the server (TRAIN-05, HOST-03).
        os.execv(sys.executable, [sys.executable, "-m", "byoa.serve"])  # noqa: S606
    from byoa.container.contract_tables import markdown

    print(markdown(), end="")
    return EXIT_SUCCESS


def _command(arguments: Sequence[str]) -> str:
    usage = "; ".join(f"{name}: {text}" for name, text in COMMANDS.items())
    if not arguments:
        raise ContractError(
            "COMMAND_MISSING", "no command was given", expected=usage,
            remedy="run the image as `docker run IMAGE train`, or `serve`",
        )
    command = arguments[0]
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        raise ContractError(
            "COMMAND_UNKNOWN",
            f"there is no command {command!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
            expected=usage,
        )
    if arguments[1:]:
        raise ContractError(
            "ARGUMENTS_UNSUPPORTED", f"{command} takes no arguments, given {list(arguments[1:])}",
            expected="hyperparameters in hyperparameters.json, the rest in the environment",
        )
    return command


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
