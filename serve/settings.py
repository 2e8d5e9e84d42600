"""Every setting of the inference server in one table: name, variables, default, meaning.

`read` turns the environment into `Settings`; all bad values are reported at once, by variable.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from byoa.container import contract
from byoa.container.errors import ContractError
from byoa.container.formats.limits import Limits

MEGABYTE = 1 << 20
# The platform sends SIGKILL 30 s after SIGTERM (HOST-03): stop with time to spare.
GRACE_LIMIT_SECONDS = int(contract.HOSTING_STOP_GRACE_SECONDS) - 2
USER = "byoa"  # the image has it
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError
        return value

    parse.__doc__ = f"a whole number from {low} to {high}"
    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise ValueError
        return value

    parse.__doc__ = f"seconds from {low:g} to {high:g}"
    return parse


def _microseconds(text: str) -> float:
    """a whole number of microseconds from 0 to 10000"""
    return _integer(0, 10_000)(text) / 1e6


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError
        return text.lower()

    parse.__doc__ = " or ".join(allowed)
    return parse


def _flag(text: str) -> bool:
    """1, true, yes, on or 0, false, no, off"""
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError


def _payload(text: str) -> int:
    """a whole number of megabytes from 0 (no limit) to 1024"""
    return _integer(0, 1024)(text) * MEGABYTE


def _level(text: str) -> str:
    """debug, info, warning, error, critical, or 10, 20, 30, 40, 50"""
    if text in ("10", "20", "30", "40", "50"):
        return LOG_LEVELS[int(text) // 10 - 1]
    return _choice(*LOG_LEVELS)(text)


def _text(text: str) -> str:
    """a text"""
    return text


@dataclass(frozen=True)
class Setting:
    """One line of the table. The first variable that is set to a non-empty value counts."""

    name: str
    variables: tuple[str, ...]
    parse: Callable[[str], Any]
    default: Any
    doc: str


SETTINGS: tuple[Setting, ...] = (
    Setting("door", ("BYOA_SERVER",), _choice("express", "flask"), "express",
            "express: /ping and /invocations on ASGI, the rest on Flask; flask: all on Flask"),
    Setting("asgi", ("BYOA_ASGI_WORKER",), _choice("auto", "uvicorn", "gunicorn"), "auto",
            "the express lane's worker; auto takes uvicorn's where the extra `fast` is installed"),
    Setting("port", (contract.PORT_VARIABLE,), _integer(1, 65535), contract.DEFAULT_PORT,
            "the port of every route, /ping too (PIPE-03)"),
    Setting("host", (contract.BIND_VARIABLE,), _text, "0.0.0.0",  # noqa: S104 - HOST-10
            "address to listen on; in a container all, for the platform calls from outside"),
    Setting("workers", ("BYOA_WORKERS", "SAGEMAKER_MODEL_SERVER_WORKERS"), _integer(1, 1024), None,
            "worker processes; default one a usable CPU"),
    Setting("timeout",
            ("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", "SAGEMAKER_MODEL_SERVER_TIMEOUT"),
            _seconds(1, 3600), contract.INVOCATION_TIMEOUT_SECONDS,
            "seconds of an invocation; just before, the server answers 504 itself"),
    Setting("stream_seconds", ("BYOA_STREAM_SECONDS",), _seconds(1, 86400), 480.0,
            "seconds of an answer that is sent while it is made; beyond them it is cut (HOST-31)"),
    Setting("conversation_seconds", ("BYOA_CONVERSATION_SECONDS",), _seconds(1, 86400),
            contract.BIDIRECTIONAL_SECONDS,
            "seconds of a stream in both directions; beyond them it is closed (BIDI-06)"),
    Setting("startup_timeout", ("SAGEMAKER_STARTUP_TIMEOUT",), _seconds(1, 3600), 600.0,
            "seconds to load the model; beyond them loading counts as failed"),
    Setting("graceful_timeout", ("BYOA_GRACEFUL_TIMEOUT",), _integer(1, GRACE_LIMIT_SECONDS), 25,
            "seconds that running requests have to finish after SIGTERM (HOST-03)"),
    Setting("keepalive", ("BYOA_KEEPALIVE",), _integer(1, 3600), 75,
            "seconds that an idle connection stays open (HOST-11)"),
    Setting("read_timeout", ("BYOA_READ_TIMEOUT",), _seconds(1, 3600), 60.0,
            "seconds that a request may take to arrive; then it is answered 408 and its connection"
            " ends"),
    Setting("backlog", ("BYOA_BACKLOG",), _integer(1, 65535), 2048,
            "connections that may wait to be accepted"),
    Setting("queue", ("BYOA_QUEUE_LIMIT",), _integer(1, 100_000), 256,
            "requests that may wait for the model in a worker; one more is answered 503 (HOST-36)"),
    Setting("max_batch", ("BYOA_MAX_BATCH",), _integer(1, 1_000_000), 256,
            "records of waiting requests that share a call of predict, at most; 1: never"),
    Setting("payload_limit", ("SAGEMAKER_MAX_PAYLOAD_IN_MB",), _payload,
            contract.PAYLOAD_LIMIT_BYTES, "the largest request body (HOST-32, BT-04)"),
    Setting("records_limit", ("BYOA_MAX_RECORDS",), _integer(1, 1 << 40), 10_000_000,
            "records of a request; more are answered 413"),
    Setting("columns_limit", ("BYOA_MAX_COLUMNS",), _integer(1, 1 << 40), 1 << 26,
            "columns of a record, or values of an image; more are answered 413"),
    Setting("values_limit", ("BYOA_MAX_VALUES",), _integer(1, 1 << 40), 1 << 27,
            "records × columns of a request, 4 bytes each; more are answered 413"),
    Setting("head_limit", ("BYOA_MAX_HEAD_BYTES",), _integer(1024, MEGABYTE), 65_536,
            "bytes of a request's line and headers, on gunicorn's own workers of each header;"
            " more are answered 431"),
    Setting("multi_model", contract.MULTI_MODEL_VARIABLES, _flag, False,
            "serve many models, loaded by POST /models (MME-01, CONTRA-20)"),
    Setting("models_memory", ("BYOA_MODELS_MEMORY_MB",), _integer(1, 1 << 24), None,
            "megabytes that a worker may take with its models in multi-model mode; default its"
            " share of 90 % of the container's"),
    Setting("sessions", ("SAGEMAKER_ENABLE_STATEFUL_SESSIONS",), _flag, False,
            "stateful sessions, for inference scripts (SESS-03)"),
    Setting("session_seconds", ("SAGEMAKER_SESSIONS_EXPIRATION",), _seconds(1, 604800), 1200.0,
            "seconds that a session lives"),
    Setting("sessions_path", ("SAGEMAKER_SESSIONS_PATH",), _text, "",
            "where sessions are kept; default a directory in shared memory that ends with the"
            " server"),
    Setting("default_accept", ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT",), _text, "application/json",
            "the answer's type where a request has no Accept, or */* (ITK-04)"),
    Setting("preload", ("BYOA_PRELOAD",), _flag, False,
            "load the model once, before the workers are forked, which then share its memory; for a"
            " model on the CPU whose load leaves no thread behind"),
    Setting("inline", ("BYOA_INLINE",), _flag, True,
            "run a model that proves quick, under a millisecond, without a change of thread"),
    Setting("busy_poll", ("BYOA_BUSY_POLL",), _microseconds, None,
            "microseconds that a worker looks for the next request before it sleeps, while requests"
            " follow one another so closely; 0: never; default 200 where each worker has a CPU, and"
            " a quota has more than that"),
    Setting("pin", ("BYOA_PIN_WORKERS",), _flag, None,
            "bind each worker to one CPU; default where a real /opt/ml is served with a worker"
            " a CPU"),
    Setting("user", ("BYOA_USER",), _text, USER,
            "the workers' user where the server starts as root and has such a user; root: root"),
    Setting("failure_exit", ("BYOA_LOAD_FAILURE_SECONDS",), _seconds(0, 3600), 10.0,
            "seconds that /ping tells why the model did not load before the server exits"),
    Setting("debug", ("BYOA_DEBUG",), _flag, False, "put tracebacks into error answers"),
    Setting("access_log", ("BYOA_ACCESS_LOG",), _flag, False,
            "print a line of JSON for each request"),
    Setting("log_level", ("BYOA_LOG_LEVEL", "SAGEMAKER_CONTAINER_LOG_LEVEL"), _level, "warning",
            "the least level that the server's own log shows"),
)

# Variables of other servers that would change what is served. They are refused, never ignored;
# the values "", "false" and "0" ask for nothing.
REFUSED: Mapping[str, str] = {
    "SAGEMAKER_HANDLER": "handler services are not loaded; set BYOA_ALGORITHM to a class",
    "SAGEMAKER_MODEL_SERVER_VMARGS": "no JVM runs here; remove the variable",
}


@dataclass(frozen=True)
class Settings:
    """The table's values, typed; the plan resolves `busy_poll`, `pin` and `workers`."""

    door: str
    asgi: str
    port: int
    host: str
    workers: int | None
    timeout: float
    stream_seconds: float
    conversation_seconds: float
    startup_timeout: float
    graceful_timeout: int
    keepalive: int
    read_timeout: float
    backlog: int
    queue: int
    max_batch: int
    payload_limit: int  # bytes; 0 for no limit
    records_limit: int
    columns_limit: int
    values_limit: int
    head_limit: int  # bytes
    multi_model: bool
    models_memory: int | None  # megabytes; None is resolved by the plan
    sessions: bool
    session_seconds: float
    sessions_path: str
    default_accept: str
    preload: bool
    inline: bool
    busy_poll: float | None  # seconds
    pin: bool | None
    user: str
    failure_exit: float
    debug: bool
    access_log: bool
    log_level: str

    @property
    def deadline(self) -> float:
        """Seconds after which the server answers 504, a little before the platform gives up."""
        return self.timeout - min(1.0, self.timeout / 10)

    @property
    def limits(self) -> Limits:
        """What a body may hold."""
        return Limits(self.records_limit, self.columns_limit, self.values_limit)

    @property
    def asgi_worker(self) -> str:
        """`uvicorn` or `gunicorn`, by choice or by what is installed."""
        if self.asgi == "auto":
            return "uvicorn" if uvicorn_installed() else "gunicorn"
        return self.asgi


def variables(name: str) -> tuple[str, ...]:
    """The environment's variables for the setting of that name."""
    return next(setting.variables for setting in SETTINGS if setting.name == name)


def uvicorn_installed() -> bool:
    return all(importlib.util.find_spec(name) for name in ("uvicorn", "uvloop", "httptools"))


def _has_direct_answers(door: str, asgi: str) -> bool:
    return door == "express" and (asgi == "uvicorn" or asgi == "auto" and uvicorn_installed())


def read(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of `environ`; raises one ContractError that names every bad variable."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for setting in SETTINGS:
        values[setting.name] = setting.default
        for variable in setting.variables:
            text = environ.get(variable, "").strip()
            if not text:
                continue
            try:
                values[setting.name] = setting.parse(text)
            except ValueError:
                problems.append(f"{variable}={text!r} is not {setting.parse.__doc__}")
            break
    for variable, reason in REFUSED.items():
        if environ.get(variable, "").strip().lower() not in ("", "0", "false"):
            problems.append(f"{variable}={environ[variable]!r}: {reason}")
    if values["preload"] and values["multi_model"]:
        problems.append("BYOA_PRELOAD: models come and go while many are served; remove it")
    if values["asgi"] == "uvicorn" and not uvicorn_installed():
        problems.append("BYOA_ASGI_WORKER='uvicorn', but the extra is missing: install byoa[fast]")
    if values["busy_poll"] and not _has_direct_answers(values["door"], values["asgi"]):
        problems.append(
            "BYOA_BUSY_POLL: only the express lane on uvicorn's worker looks for requests; remove"
            " the variable, or install byoa[fast] and leave BYOA_SERVER and BYOA_ASGI_WORKER out"
        )
    if problems:
        raise ContractError(
            "SETTING_INVALID",
            "; ".join(problems),
            remedy="correct or remove the variable in the model's Environment",
        )
    return Settings(**values)

