"""Checks of an image that need not run it."""

from __future__ import annotations

from byoa.local.check.checks import NotApplicable, Verdict, check, failed, passed
from byoa.local.check.image_facts import ImageFacts
from byoa.local.check.trial import Trial


def _facts(trial: Trial) -> ImageFacts:
    if trial.facts is None:
        raise NotApplicable("a process has no image")
    return trial.facts


@check(
    "image-linux-amd64",
    clause="TRAIN-13, TRAP-04, CHK-15",
    group="image",
    title="The image is for linux/amd64",
    cure="build it with --platform linux/amd64; arm64 images run on Arm instance types alone",
)
def image_platform(trial: Trial) -> Verdict:
    facts = _facts(trial)
    platform = f"{facts.os}/{facts.architecture}"
    if platform != "linux/amd64":
        return failed(f"the image is for {platform}: instances answer `exec format error`")
    return passed(platform)
