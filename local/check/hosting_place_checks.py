"""Checks of the surroundings in which the platform serves: its port, a read-only model, no network,
no rights of root, several models.

Each has a server of its own, since it is started in another way.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from byoa.container.contract import DEFAULT_PORT, PORT_VARIABLE, REQUEST_HEADERS
from byoa.local.check.checks import NotApplicable, Verdict, check, failed, passed, skipped
from byoa.local.check.hosting_http import Reply
from byoa.local.check.hosting_server import (
    Serving,
    first_start,
    model_of,
    plain,
    sample,
    serve,
    shared,
)
from byoa.local.check.trial import Trial
from byoa.local.runners.listeners import described

PIPELINE_LABEL = "com.amazonaws.sagemaker.capabilities.accept-bind-to-port"
MULTI_MODEL_LABEL = "com.amazonaws.sagemaker.capabilities.multi-models"
_PORT = 9000
_SAFE_PORTS = (9001, 9100)
_USER = "1000:1000"
_HASH = "a1b2c3"  # the platform's own id of a model, which tells nothing (MME-02)
_TARGET_MODEL = next(each for each in REQUEST_HEADERS if each.endswith("Target-Model"))


def _not_ready(server: Serving, where: str) -> Verdict:
    """The verdict of a server that serves in the ordinary way and does not serve here."""
    if server.ended is not None:
        cause = f"{where} it ends after {server.seconds:.1f} s with exit code {server.ended.code}"
    elif server.answered is None and server.listeners:
        at = described(server.listeners)
        cause = f"{where} it listens on {at}, and GET /ping is not answered"
    else:
        cause = f"{where} GET /ping is {server.ping} after {server.seconds:.0f} s"
    return failed(cause, evidence=server.box.tail())


def _judge(server: Serving, where: str) -> Verdict:
    """Pass where /ping is 200 and the sample request is answered as it is elsewhere."""
    try:
        if not server.ready:
            return _not_ready(server, where)
        usual = first_start(server.trial).sample
        if isinstance(usual, Reply) and usual.status < 500:
            here = server.sample
            if not isinstance(here, Reply) or here.status != usual.status:
                return failed(
                    f"{where} the sample request is {here}, elsewhere {usual.status}",
                    evidence=server.box.tail(),
                )
        return passed(f"/ping was 200 after {server.seconds:.1f} s")
    finally:
        server.box.remove()


@check(
    "serves-a-read-only-model",
    clause="CHK-07, HOST-40, TRAP-42",
    group="hosting",
    title="It serves where /opt/ml/model cannot be written",
    cure="write nothing under /opt/ml/model: unpack and cache under /tmp (HF_HOME, TORCH_HOME,"
    " PYTHONDONTWRITEBYTECODE=1)",
    needs=("ping-answers-in-two-seconds",),
)
def read_only_model(trial: Trial) -> Verdict:
    return _judge(serve(trial, read_only_model=True), "with /opt/ml/model read-only")


@check(
    "model-is-left-alone",
    clause="HOST-40, TRAP-42",
    group="hosting",
    title="Serving changes nothing under /opt/ml/model",
    cure="write nothing under /opt/ml/model, not even compiled Python (PYTHONDONTWRITEBYTECODE=1):"
    " the platform may mount it read-only",
    needs=("ping-answers-in-two-seconds",),
)
def model_is_left_alone(trial: Trial) -> Verdict:
    server = shared(trial)
    given = _digests(trial.hosting_ml(model_of(trial)) / "model")
    found = _digests(server.box.ml / "model")
    changed = sorted(
        name for name in given.keys() | found.keys() if given.get(name) != found.get(name)
    )
    if changed:
        names = ", ".join(changed[:8])
        return failed(f"under /opt/ml/model these are changed, new or gone: {names}")
    return passed(f"{len(found)} files as they were")


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*") if path.is_file()
    }


@check(
    "serves-without-a-network",
    clause="TRAP-51, TRAP-52, HOST-08, CHK-16",
    group="hosting",
    title="It serves with network isolation",
    cure="install packages and fetch models when the image is built; give calls of AWS a short"
    " timeout: with EnableNetworkIsolation none of them is answered",
    needs=("ping-answers-in-two-seconds",),
)
def without_a_network(trial: Trial) -> Verdict:
    if trial.engine is not None and sys.platform != "linux":
        raise NotApplicable("a container on an isolated network can be reached on Linux only")
    network = trial.network(isolated=True)
    return _judge(serve(trial, network=network), "without a way to the internet")


@check(
    "serves-without-root",
    clause="SLS-04, TRAP-41",
    group="hosting",
    level="warning",
    title="It serves without the rights of root, as on a serverless endpoint",
    cure="make the program's files readable for everybody (`chmod -R o+rX`) and write only"
    " under /tmp",
    needs=("ping-answers-in-two-seconds", "readable-by-everyone"),
)
def without_root(trial: Trial) -> Verdict:
    return _judge(serve(trial, user=_USER), f"as user {_USER}")


@check(
    "serves-on-the-given-port",
    clause="CHK-10, PIPE-02, PIPE-03, HOST-10, TRAP-31",
    group="hosting",
    title="It serves everything on SAGEMAKER_BIND_TO_PORT, other ports lie in the safe range",
    cure="read the port from SAGEMAKER_BIND_TO_PORT, else 8080, and open other ports only within"
    " SAGEMAKER_SAFE_PORT_RANGE; or remove the label and use the image outside pipelines",
    needs=("ping-answers-in-two-seconds",),
)
def on_the_given_port(trial: Trial) -> Verdict:
    if trial.facts is None:
        server = shared(trial)
        if server.port == DEFAULT_PORT:
            raise NotApplicable("the process was given the default port")
        return passed(f"{PORT_VARIABLE}={server.port}: {described(server.listeners)}")
    if trial.facts.labels.get(PIPELINE_LABEL) != "true":
        return skipped(f"the image is not meant for pipelines: it has no label {PIPELINE_LABEL}")
    low, high = _SAFE_PORTS
    server = serve(
        trial, port=_PORT,
        environment={PORT_VARIABLE: str(_PORT), "SAGEMAKER_SAFE_PORT_RANGE": f"{low}-{high}"},
    )
    others = [
        each for each in server.listeners if each[1] != _PORT and not low <= each[1] <= high
    ]
    ready = server.ready
    where = f"with {PORT_VARIABLE}={_PORT}"
    verdict = _judge(server, where)
    if ready and others:
        return failed(f"{where} it also listens on {described(others)}, outside {low}-{high}")
    return verdict


# --- several models -------------------------------------------------------------------------------


@check(
    "several-models-are-served",
    clause="CHK-11, MME-01, MME-03, MME-04, MME-05, MME-06, TRAP-32, FIX-15",
    group="hosting",
    title="With SAGEMAKER_MULTI_MODEL=true models are loaded, listed, asked and unloaded",
    cure="serve POST, GET and DELETE under /models; or remove the label multi-models",
    needs=("ping-answers-in-two-seconds",),
)
def several_models(trial: Trial) -> Verdict:
    if trial.facts is None:
        raise NotApplicable("a process has no label that says whether it serves several models")
    if trial.facts.labels.get(MULTI_MODEL_LABEL) != "true":
        return skipped(f"the image is not meant for it: it has no label {MULTI_MODEL_LABEL}")
    root = trial.hosting_ml(model_of(trial))
    models = root / "models" / _HASH
    models.mkdir(parents=True)
    shutil.move(root / "model", models / "model")
    server = serve(
        trial, ml=root, ask_first=False, environment={"SAGEMAKER_MULTI_MODEL": "true"}
    )
    try:
        if not server.ready:
            return _not_ready(server, "with SAGEMAKER_MULTI_MODEL=true")
        return _model_sequence(trial, server)
    finally:
        server.box.remove()


def _model_sequence(trial: Trial, server: Serving) -> Verdict:
    """FIX-15, with an invocation of the loaded model in it."""
    url = f"/opt/ml/models/{_HASH}/model"
    load = json.dumps({"model_name": _HASH, "url": url}).encode()
    kind = [("Content-Type", "application/json")]
    one = {"modelName": _HASH, "modelUrl": url}
    listed = {"models": [one]}
    body, headers, _ = plain(trial)
    asked = [*headers, (_TARGET_MODEL, "model.tar.gz")]
    has_sample = sample(trial) is not None
    steps: list[tuple[str, str, bytes | None, list[tuple[str, str]], int, object]] = [
        ("POST", "/models", load, kind, 200, None),
        ("POST", "/models", load, kind, 409, None),
        ("GET", "/models", None, [], 200, listed),
        ("GET", f"/models/{_HASH}", None, [], 200, one),
        ("DELETE", f"/models/{_HASH}", None, [], 200, None),
        ("DELETE", f"/models/{_HASH}", None, [], 404, None),
        ("POST", f"/models/{_HASH}/invoke", body, asked, 404, None),
    ]
    if has_sample:
        steps.insert(4, ("POST", f"/models/{_HASH}/invoke", body, asked, 200, None))
    for method, path, sent, fields, status, document in steps:
        outcome = server.request(method, path, headers=fields, body=sent)
        if not isinstance(outcome, Reply) or outcome.status != status:
            return failed(f"{method} {path} is {outcome}, must be {status}",
                          evidence=server.box.tail())
        if document is not None and (wrong := _lacks(outcome.body, document)):
            return failed(f"{method} {path}: {wrong}")
    return passed(f"{len(steps)} requests")


def _lacks(body: bytes, expected: object) -> str:
    """What an answer lacks of what it must hold; it may hold more."""
    try:
        found = json.loads(body)
    except ValueError as error:
        return f"the body is not JSON: {error}"
    return "" if _holds(found, expected) else f"{found!r} is not {expected!r}"


def _holds(found: object, expected: object) -> bool:
    if isinstance(expected, Mapping):
        if isinstance(found, list):  # MMS answers one model as a list (MME-05)
            return any(_holds(each, expected) for each in found)
        return isinstance(found, Mapping) and all(
            _holds(found.get(name), value) for name, value in expected.items()
        )
    if isinstance(expected, list):
        return isinstance(found, list) and len(found) == len(expected) and all(
            _holds(*pair) for pair in zip(found, expected, strict=True)
        )
    return found == expected
