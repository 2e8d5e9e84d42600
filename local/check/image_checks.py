"""Checks of an image's configuration, history and file list: nothing of it is run."""

from __future__ import annotations

import difflib
import posixpath
import re

from byoa.container.contract import BIDIRECTIONAL_PATH, DEFAULT_PORT, ROOT
from byoa.local.check import image_programs as image
from byoa.local.check.checks import NotApplicable, Verdict, check, failed, passed, skipped
from byoa.local.check.image_facts import ImageFacts
from byoa.local.check.trial import Trial

SERVERLESS_BYTES = 10 * 1000**3  # SLS-02
INITS = frozenset({"tini", "tini-static", "dumb-init", "docker-init", "catatonit", "yelp-init"})
LABEL_PREFIX = "com.amazonaws.sagemaker.capabilities."
BIND_LABEL = f"{LABEL_PREFIX}accept-bind-to-port"
MULTI_LABEL = f"{LABEL_PREFIX}multi-models"
BIDIRECTIONAL_LABEL = f"{LABEL_PREFIX}bidirectional-streaming"
LABELS = (BIND_LABEL, MULTI_LABEL, BIDIRECTIONAL_LABEL)
INDEXES = ("application/vnd.oci.image.index.v1+json",
           "application/vnd.docker.distribution.manifest.list.v2+json")
# The whole of a secret is never shown: its first characters tell which one it is.
SECRETS = (
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"\b(?:ghp|gho|ghs)_[A-Za-z0-9]{36}\b|\bgithub_pat_\w{22,}"),
    re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
    re.compile(r"\bsk-[A-Za-z0-9_-]{32,}\b"),
    re.compile(r"(?i)\baws_(?:secret_access_key|session_token)[= ]+['\"]?([A-Za-z0-9/+=]{16,})"),
    re.compile(r"(?i)\b\w*(?:password|passwd|api_key|secret_key)=['\"]?([^\s'\"$]{8,})"),
    re.compile(r"://[^/\s:@]+:([^/\s:@$]{4,})@"),
)
SECRET_FILES = re.compile(
    r"(?:/\.aws/credentials|/\.netrc|/\.pypirc|/\.docker/config\.json|/\.ssh/id_[a-z0-9]+"
    r"|/\.git-credentials|/huggingface/token)$"
)


def facts_of(trial: Trial) -> ImageFacts:
    """The image's facts; a process has none."""
    if trial.facts is None:
        raise NotApplicable("a process has no image")
    return trial.facts


@check(
    "image-linux-amd64",
    clause="TRAIN-13, TRAP-04, CHK-15",
    group="image",
    title="The image is for linux/amd64",
    cure="build it with `docker build --platform linux/amd64`; keep another platform only for"
    " instance types of that kind, such as arm64 for Graviton",
)
def platform(trial: Trial) -> Verdict:
    facts = facts_of(trial)
    found = f"{facts.os}/{facts.architecture}"
    if found != "linux/amd64":
        return failed(f"the image is for {found}: an x86 instance says `exec format error`")
    return passed(found)


@check(
    "image-single-platform",
    clause="TRAIN-13, TRAP-03",
    group="image",
    title="The registry has one image under this name, not an index of several",
    cure="build with `--provenance=false --sbom=false` for one `--platform`, and push again",
)
def single_platform(trial: Trial) -> Verdict:
    media_type = facts_of(trial).media_type
    if media_type is None:
        return skipped("the image is in no registry that can be asked")
    if media_type in INDEXES:
        return failed(
            f"its manifest is {media_type}: CreateModel and CreateTrainingJob refuse it as"
            " `Unsupported manifest media type`"
        )
    return passed(media_type)


@check(
    "entrypoint-exec-form",
    clause="TRAIN-05, HOST-02, TRAP-05, CHK-15",
    group="image",
    title="ENTRYPOINT is in exec form",
    cure='write it as a JSON array, such as ENTRYPOINT ["python", "main.py"]; a shell would get'
    " SIGTERM and `train` or `serve`, and pass neither on",
)
def exec_form(trial: Trial) -> Verdict:
    entrypoint = facts_of(trial).entrypoint
    if len(entrypoint) < 3 or not image.is_shell(entrypoint[0]) or entrypoint[1] != "-c":
        return passed(str(list(entrypoint)))
    script = entrypoint[2]
    if script.lstrip().startswith("exec ") and re.search(r"\$[@*1{0]", script):
        return passed("a shell that passes its arguments on and gives way by exec")
    return failed(f"ENTRYPOINT is a line for {entrypoint[0]}: {script}")


@check(
    "entrypoint-not-an-init",
    clause="TRAIN-06, HOST-02",
    group="image",
    title="ENTRYPOINT is no init such as tini",
    cure="let your own program be the first one: it must pass SIGTERM on and reap its children;"
    " the service documents that tini takes `train` and `serve` for its own arguments",
)
def not_an_init(trial: Trial) -> Verdict:
    entrypoint = facts_of(trial).entrypoint
    if entrypoint and posixpath.basename(entrypoint[0]) in INITS:
        return failed(f"ENTRYPOINT begins with {entrypoint[0]}")
    return passed(str(list(entrypoint)))


@check(
    "nothing-below-opt-ml",
    clause="TRAIN-07, TRAP-11",
    group="image",
    title="The image has no files below /opt/ml",
    cure="put them elsewhere, such as /opt/program; the service mounts over /opt/ml",
)
def nothing_hidden(trial: Trial) -> Verdict:
    hidden = [each.path for each in facts_of(trial).files.below(str(ROOT))
              if not each.is_directory]
    if hidden and image.hidden(facts_of(trial)) is not None:
        return skipped("a program that the service starts is among them: train-or-serve-found")
    if hidden:
        more = f" and {len(hidden) - 3} more" if len(hidden) > 3 else ""
        return failed(f"hidden at run time: {', '.join(hidden[:3])}{more}{_and_workdir(trial)}",
                      evidence="\n".join(hidden[:20]))
    return passed()


def _and_workdir(trial: Trial) -> str:
    folder = facts_of(trial).workdir or "/"
    inside = folder == str(ROOT) or folder.startswith(f"{ROOT}/")
    return f"; WORKDIR is {folder}" if inside else ""


@check(
    "workdir-outside-opt-ml",
    clause="TRAIN-07, TRAIN-14, TRAP-11",
    group="image",
    title="WORKDIR is a folder that is there at run time",
    cure="set WORKDIR to where the program is, such as /opt/program",
)
def workdir(trial: Trial) -> Verdict:
    facts = facts_of(trial)
    folder = facts.workdir or "/"
    if folder == str(ROOT) or folder.startswith(f"{ROOT}/"):
        if any(not each.is_directory for each in facts.files.below(folder)):
            return skipped(f"WORKDIR is {folder}, whose files the service hides, of which"
                           " nothing-below-opt-ml or train-or-serve-found tells")
        return failed(f"WORKDIR is {folder}, which the service mounts over")
    found = facts.files.resolve(folder)
    if found is not None and not found.is_directory:
        return failed(f"WORKDIR {folder} is no folder: no program starts in it")
    return passed(folder)


@check(
    "runs-as-root",
    clause="TRAIN-08, HOST-02",
    group="image",
    level="warning",
    title="The image starts as root",
    cure="remove the last USER line, and give up root's rights inside the program, once it has read"
    " what belongs to root below /opt/ml",
)
def as_root(trial: Trial) -> Verdict:
    user = facts_of(trial).user
    if user.partition(":")[0] not in ("", "root", "0"):
        return failed(
            f"USER is {user}: it cannot write to /opt/ml/model and /opt/ml/output, which belong to"
            " root with mode 0755"
        )
    return passed(user or "root")


@check(
    "labels-well-formed",
    clause="PIPE-02, MME-01, BIDI-01",
    group="image",
    title="SageMaker's labels are known ones and say true",
    cure=f"write them as LABEL {'=true, LABEL '.join(LABELS)}=true",
)
def labels(trial: Trial) -> Verdict:
    given = {name: value for name, value in facts_of(trial).labels.items()
             if name.lower().startswith("com.amazonaws.sagemaker.")}
    for name, value in given.items():
        if name not in LABELS:
            near = difflib.get_close_matches(name, LABELS, 1, 0.7)
            meant = f"; did you mean {near[0]}?" if near else ""
            return failed(f"the service reads no label {name}{meant}")
        if value not in ("true", "false"):
            return failed(f"{name} is {value!r}, and the service looks for `true`")
    return passed(", ".join(f"{name}={value}" for name, value in given.items()))


@check(
    "bind-to-port-labelled",
    clause="PIPE-02, PIPE-03, TRAP-31",
    group="image",
    title="An image that listens on SAGEMAKER_BIND_TO_PORT says so in a label",
    cure=f"add LABEL {BIND_LABEL}=true; without it a pipeline of containers refuses the image",
)
def bind_labelled(trial: Trial) -> Verdict:
    return _labelled(trial, BIND_LABEL, re.compile(r"SAGEMAKER_BIND_TO_PORT"))


@check(
    "multi-model-labelled",
    clause="MME-01",
    group="image",
    title="An image that serves many models says so in a label",
    cure=f"add LABEL {MULTI_LABEL}=true; without it a multi-model endpoint refuses the image",
)
def multi_labelled(trial: Trial) -> Verdict:
    if facts_of(trial).labels.get(MULTI_LABEL) == "false":  # its code may well refuse the variable
        return passed(f"{MULTI_LABEL}=false")
    return _labelled(
        trial, MULTI_LABEL, re.compile(r"SAGEMAKER_MULTI_MODEL|/models/\{?<?\w*>?\}?/invoke")
    )


@check(
    "bidirectional-labelled",
    clause="BIDI-01",
    group="image",
    title="An image that serves streams in both directions says so in a label",
    cure=f"add LABEL {BIDIRECTIONAL_LABEL}=true; without it the service opens no such stream",
)
def bidirectional_labelled(trial: Trial) -> Verdict:
    return _labelled(trial, BIDIRECTIONAL_LABEL, re.compile(re.escape(BIDIRECTIONAL_PATH)))


def _labelled(trial: Trial, label: str, evidence: re.Pattern[str]) -> Verdict:
    facts = facts_of(trial)
    if facts.labels.get(label) == "true":
        return passed(f"{label}=true")
    for path, text in image.sources(facts):
        for number, line in enumerate(text.splitlines(), 1):
            if evidence.search(line) and not line.lstrip().startswith("#"):
                return failed(f"{path}:{number} does it, and the label {label} is missing",
                              evidence=line.strip())
    return skipped("nothing in the image's own code speaks of it")


@check(
    "exposes-8080",
    clause="HOST-10, TRAP-06",
    group="image",
    level="warning",
    title=f"EXPOSE names no port in place of {DEFAULT_PORT}",
    cure=f"listen on 0.0.0.0:{DEFAULT_PORT}, and write EXPOSE {DEFAULT_PORT} or none",
)
def exposed(trial: Trial) -> Verdict:
    ports = facts_of(trial).ports
    if ports and f"{DEFAULT_PORT}/tcp" not in ports:
        return failed(
            f"EXPOSE names {', '.join(ports)}: a server that listens there is never asked, since"
            f" the service calls port {DEFAULT_PORT}"
        )
    return passed(", ".join(ports))


@check(
    "fits-serverless",
    clause="SLS-02, TRAP-54",
    group="image",
    level="warning",
    title="The image is small enough for serverless endpoints, 10 GB",
    cure="build in stages, install without caches, and take the CPU build of a framework",
)
def size(trial: Trial) -> Verdict:
    facts = facts_of(trial)
    layers = sorted(facts.history, key=lambda each: each.get("Size") or 0, reverse=True)[:5]
    evidence = "\n".join(
        f"{_gigabytes(each['Size'])}  {_instruction(each.get('CreatedBy') or '')}"
        for each in layers if each.get("Size")
    )
    if facts.size > SERVERLESS_BYTES:
        return failed(f"the image is {_gigabytes(facts.size)}", evidence=evidence)
    return passed(_gigabytes(facts.size))


def _gigabytes(count: int) -> str:
    return f"{count / 1000**3:.2f} GB"


def _instruction(text: str) -> str:
    text = text.replace("/bin/sh -c #(nop)", "").replace("/bin/sh -c", "RUN")
    return " ".join(text.split())[:100]


@check(
    "no-secrets",
    clause="TRAIN-81, TRAP-51",
    group="image",
    title="Neither environment, history nor files of the image hold a secret",
    cure="revoke it: whoever pulls the image has it. In SageMaker the role gives credentials; a"
    " build takes secrets by `RUN --mount=type=secret`, never by ENV or ARG",
)
def no_secrets(trial: Trial) -> Verdict:
    facts = facts_of(trial)
    places = [("ENV", f"{name}={value}") for name, value in facts.environment.items()]
    places += [("the history", each.get("CreatedBy") or "") for each in facts.history]
    for place, text in places:
        for pattern in SECRETS:
            match = pattern.search(text)
            if match:
                secret = next((each for each in match.groups() if each), match[0])
                name = text[:match.start(1)].split()[-1].rstrip("=") if match.groups() else ""
                return failed(f"{place} holds a secret{f' as {name}' if name else ''}:"
                              f" {secret[:4]}…")
    files = [each.path for each in facts.files
             if each.is_file and each.size and SECRET_FILES.search(each.path)]
    if files:
        return failed(f"{files[0]} is where a tool keeps credentials", evidence="\n".join(files))
    return passed()
