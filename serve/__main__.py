"""`python -m byoa.serve`: check the settings, print the plan, become gunicorn's master.

Exit code 0 after SIGTERM has drained every request, 1 for anything that went wrong.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from byoa.container.errors import ByoaError, ContractError


def main() -> int:
    # Until gunicorn takes over there is nothing to drain; as PID 1 the default would be deaf.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # Before any library that starts threads: one worker a core, one thread a worker.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        _serve()
    except ByoaError as error:
        print(f"byoa serve: {error}", file=sys.stderr, flush=True)
        return 1
    except SystemExit as error:
        return 0 if error.code in (0, None) else 1
    return 0


def _serve() -> None:
    from byoa.container import hardware
    from byoa.container.contract import Layout
    from byoa.serve import script_code, script_place
    from byoa.serve import settings as table

    settings = table.read()
    _check_accept(settings.default_accept)
    _check_port(settings.host, settings.port)
    found = hardware.measure()
    layout = Layout.from_environment()
    code = script_code.fetched(layout, os.environ)

    from byoa.serve.plan import make_plan
    from byoa.serve.server import Server

    plan = make_plan(settings, found, code=code)
    print(plan.describe(settings, found), flush=True)
    for notice in (found.notice, script_place.passed_over(plan.model_dir, plan.program)):
        if notice:
            print(f"byoa serve: {notice}", flush=True)
    own = code or plan.model_dir / script_place.CODE
    with script_code.requirements(own, os.environ) as installed:
        if installed:
            Server(settings, plan).run()


def _check_accept(default: str) -> None:
    from byoa.container.formats import registry

    try:
        registry.negotiate(None, default)
    except ByoaError as error:
        raise ContractError(
            "SETTING_INVALID",
            f"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT={default!r}: {error.message}",
            expected=error.expected,
        ) from None


def _check_port(host: str, port: int) -> None:
    """Say at once what gunicorn would try five times before it gives up."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ContractError(
                "PORT_UNAVAILABLE",
                f"port {port} of {host} cannot be opened: {error.strerror}",
                expected="a free port that this user may open",
                remedy="stop what listens there, or set SAGEMAKER_BIND_TO_PORT to another port",
            ) from None


if __name__ == "__main__":
    sys.exit(main())
