"""Whom the workers run as, and what they may not read (HOST-40, TRAIN-08)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from byoa.container import account
from byoa.container.account import Account
from byoa.container.errors import AlgorithmError, ContractError
from byoa.container.hardware import Hardware
from byoa.serve.loading import load
from byoa.serve.plan import make_plan
from byoa.serve.settings import read

FOUND = Hardware(2.0, "affinity", 8 << 30, "machine")
ROOT = Account("root", 0, 0, "/root")
BYOA = Account("byoa", 1000, 1000, "/home/byoa")


@pytest.fixture
def plan(monkeypatch):
    """The plan of a server that runs as `own`, in an image with these users."""

    def make(own, *users, obstacle=None, **variables):
        accounts = {each.name: each for each in users}
        monkeypatch.setattr(account, "own", lambda: own)
        monkeypatch.setattr(account, "find", accounts.get)
        only_root = None if own.uid == 0 else "only root may change users"
        monkeypatch.setattr(account, "obstacle", lambda wanted: obstacle or only_root)
        settings = read(variables)
        found = make_plan(settings, FOUND, variables)
        return found, found.describe(settings, FOUND)

    return make


def test_workers_of_a_root_server_give_root_up_for_the_image_s_user(plan):
    found, line = plan(ROOT, ROOT, BYOA)
    assert found.user == BYOA
    assert line.endswith("workers as byoa (uid 1000)")


def test_an_image_without_that_user_is_served_as_it_was_started(plan):
    found, line = plan(ROOT, ROOT)
    assert found.user is None
    assert line.endswith("workers as root (uid 0)")


def test_root_keeps_root(plan):
    found, line = plan(ROOT, ROOT, BYOA, BYOA_USER="root")
    assert found.user is None and line.endswith("workers as root (uid 0)")


@pytest.mark.parametrize("own", [BYOA, Account("4711", 4711, 4711, "")])
def test_a_server_that_is_not_root_stays_who_it_is(plan, own):
    """docker run --user"""
    found, line = plan(own, ROOT, BYOA)
    assert found.user is None and line.endswith(f"workers as {own}")


def test_a_root_that_cannot_change_users_says_why_and_serves(plan):
    """docker run --cap-drop ALL"""
    found, line = plan(ROOT, ROOT, BYOA, obstacle="this root has no capability to change users")
    assert found.user is None
    assert line.endswith(
        "workers as root (uid 0), not byoa: this root has no capability to change users"
    )


@pytest.mark.parametrize(("own", "users", "why"), [
    (ROOT, (ROOT, BYOA), "there is no such user here"),
    (BYOA, (ROOT, BYOA, Account("alice", 7, 7, "")), "only root may change users"),
])
def test_another_user_that_was_asked_for_has_to_be_had(plan, own, users, why):
    with pytest.raises(ContractError, match="SETTING_INVALID") as caught:
        plan(own, *users, BYOA_USER="alice")
    assert f"BYOA_USER='alice': {why}" in str(caught.value)


def test_a_model_file_that_may_not_be_read_is_named_with_the_cure(
    model_directory, scripted, monkeypatch
):
    """safetensors calls a file missing that it may not open: the look at the files decides."""
    directory = model_directory()
    weights = directory / "weights.npy"
    weights.rename(directory / "away.npy")
    monkeypatch.setattr(account, "unreadable", lambda path: directory / "away.npy")
    with pytest.raises(AlgorithmError, match="MODEL_FILE_UNREADABLE") as caught:
        load(directory)
    assert f"{directory / 'away.npy'} is of uid " in str(caught.value)
    assert "chmod -R a+rX" in str(caught.value) and "as root" in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone reads what is closed to its owner")
@pytest.mark.parametrize("closed", ["parent", "directory", "file"])
def test_a_model_that_the_image_s_user_may_not_read_is_served_as_root_and_the_plan_says_why(
    plan, tmp_path, closed
):
    """A folder of the user's own, mounted as /opt/ml/model, is often of mode 0700."""
    # pytest's own directories are closed, too: take one from the root of all.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as top:
        Path(top).chmod(0o755)
        model = Path(top) / "ml" / "model"
        model.mkdir(parents=True)
        (model / "weights.npy").write_bytes(b"")
        variables = {"SAGEMAKER_BASE_DIR": str(model.parent)}
        assert plan(ROOT, ROOT, BYOA, **variables)[0].user == BYOA
        path, mode = {"parent": (model.parent, 0o700), "directory": (model, 0o700),
                      "file": (model / "weights.npy", 0o600)}[closed]
        path.chmod(mode)
        found, line = plan(ROOT, ROOT, BYOA, **variables)
        assert found.user is None
        assert line.endswith(
            f"workers as root (uid 0), not byoa: {path} is of uid 0, mode {mode:04o}"
        )


def test_a_model_directory_that_is_missing_is_not_called_unreadable(tmp_path):
    """`docker run IMAGE serve` without a mount."""
    with pytest.raises(AlgorithmError, match="MODEL_MISSING"):
        load(tmp_path / "model")
