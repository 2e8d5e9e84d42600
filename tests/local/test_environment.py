"""What `byoa env` prints and writes."""

from __future__ import annotations

import configparser
import json
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import certifi
import pytest

from byoa.container.errors import UnsupportedError
from byoa.local.api.certificates import Authority
from byoa.local.environment import (
    SAVED,
    UNSET,
    VARIABLES,
    shell_exports,
    shell_restore,
    users,
    write,
)
from byoa.local.settings import Settings


@pytest.fixture
def variables(tmp_path):
    return write(Settings(home=tmp_path / "home"), 4567, "eu-west-2", environ={})


def test_the_variables_name_the_server_and_the_region(variables):
    assert variables["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4567"
    assert variables["HTTPS_PROXY"] == variables["https_proxy"] == "http://127.0.0.1:4567"
    assert variables["AWS_REGION"] == variables["AWS_DEFAULT_REGION"] == "eu-west-2"
    assert variables["AWS_EC2_METADATA_DISABLED"] == "true"
    assert "127.0.0.1" in variables["NO_PROXY"].split(",")


def test_the_config_file_has_the_region_and_the_endpoint(variables):
    """clients: `aws configure get region` reads this file only."""
    config = configparser.ConfigParser()
    config.read(variables["AWS_CONFIG_FILE"])
    assert dict(config["default"]) == {
        "region": "eu-west-2", "endpoint_url": "http://127.0.0.1:4567"}


def test_boto3_takes_region_endpoint_and_credentials_from_the_files_alone(variables, tmp_path):
    program = ("import boto3; s = boto3.Session(); c = s.client('sagemaker'); "
               "print(c.meta.endpoint_url, c.meta.region_name, s.get_credentials().method)")
    files = {name: variables[name] for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")}
    done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True,
                          timeout=60, env={"HOME": str(tmp_path), **files})
    assert done.stdout.split() == ["http://127.0.0.1:4567", "eu-west-2",
                                   "shared-credentials-file"], done.stderr


def test_the_bundle_has_our_authority_and_the_roots_that_were_trusted_before(tmp_path):
    company = Authority(tmp_path / "company").certificate
    home = tmp_path / "home"
    for _ in range(2):  # the second time its own bundle is what the user's variables name
        variables = write(Settings(home=home), 1, "us-east-1", environ={
            "REQUESTS_CA_BUNDLE": str(company), "SSL_CERT_FILE": str(home / "ca/bundle.pem")})
    context = ssl.create_default_context(cafile=variables["AWS_CA_BUNDLE"])
    trusted = context.get_ca_certs(binary_form=True)
    ours = ssl.PEM_cert_to_DER_cert((home / "ca" / "ca.pem").read_text())
    theirs = ssl.PEM_cert_to_DER_cert(company.read_text())
    public = ssl.create_default_context(cafile=certifi.where()).get_ca_certs(binary_form=True)
    assert ours in trusted
    assert theirs in trusted
    assert set(public) <= set(trusted)
    assert len(trusted) == len(set(trusted))


def test_no_private_key_leaves_the_authority(variables):
    for name in ("AWS_CA_BUNDLE", "AWS_CONFIG_FILE"):
        assert "PRIVATE" not in Path(variables[name]).read_text()


def test_the_sagemaker_sdk_is_told_to_send_no_telemetry(variables):
    text = Path(variables["SAGEMAKER_USER_CONFIG_OVERRIDE"]).read_text()
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(text) == {
        "SchemaVersion": "1.0",
        "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}


@pytest.mark.parametrize(("host", "url"), [
    ("0.0.0.0", "http://127.0.0.1:80"), ("::", "http://[::1]:80"),
    ("10.1.2.3", "http://10.1.2.3:80")])
def test_an_address_to_listen_on_becomes_one_to_connect_to(tmp_path, host, url):
    variables = write(Settings(home=tmp_path, host=host), 80, "us-east-1", environ={})
    assert variables["AWS_ENDPOINT_URL"] == url
    connect = url.removeprefix("http://").rpartition(":")[0].strip("[]")
    assert connect in variables["NO_PROXY"].split(",")


@pytest.mark.parametrize("shell", ["bash", "sh", "dash", "zsh", "fish"])
def test_a_shell_evaluates_the_exports_to_exactly_the_variables(tmp_path, shell):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    home = tmp_path / "it's $HOME \\ \"here\""
    variables = write(Settings(home=home), 4567, "eu-west-2", environ={})
    exports = shell_exports(variables, "fish" if shell == "fish" else "sh")
    (tmp_path / "exports").write_text(exports)
    read = f"cat {tmp_path / 'exports'}"
    script = f"eval ({read}); env -0" if shell == "fish" else f'eval "$({read})"; env -0'
    done = subprocess.run([program, "-c", script], capture_output=True, timeout=30, env={
        "PATH": os.environ["PATH"], "AWS_PROFILE": "work", "AWS_ENDPOINT_URL_S3": "https://x",
        "AWS_SESSION_TOKEN": "real"})
    seen = dict(item.split("=", 1) for item in done.stdout.decode().split("\0") if item)
    assert done.stderr == b""
    assert {name: seen.get(name) for name in variables} == variables
    assert not set(UNSET) & set(seen)


def test_an_eval_without_quotes_is_right_too(variables):
    exports = shell_exports(variables, "sh").replace("\n", " ")
    done = subprocess.run(["sh", "-c", exports + "env -0"], capture_output=True, timeout=30,
                          env={"PATH": os.environ["PATH"]})
    seen = dict(item.split("=", 1) for item in done.stdout.decode().split("\0") if item)
    assert {name: seen.get(name) for name in variables} == variables


def test_the_variables_to_take_back_are_those_that_are_set(variables):
    assert set(VARIABLES) == set(variables)


def test_json_is_the_variables(variables):
    assert json.loads(shell_exports(variables, "json")) == variables


def test_an_unknown_shell_is_refused_with_the_nearest(variables):
    with pytest.raises(UnsupportedError, match="sh for any POSIX shell"):
        shell_exports(variables, "tcsh")


USERS = {"AWS_PROFILE": "work", "AWS_SESSION_TOKEN": "it's \"secret\" $HOME `x`  \\",
         "HTTPS_PROXY": "http://me:pw@proxy.example:3128", "AWS_REGION": "", "EDITOR": "vi"}


def _round(program, script, environ, tmp_path):
    """The environment that `script` leaves, where `byoa` stands for the real printing program."""
    printer = tmp_path / "printer.py"
    printer.write_text(
        "import pathlib, sys\n"
        "from byoa.local.environment import shell_exports, shell_restore, write\n"
        "from byoa.local.settings import Settings\n"
        "what, shell, region = sys.argv[1:]\n"
        f"home = pathlib.Path({str(tmp_path / 'home')!r})\n"
        "print(shell_restore(shell) if what == 'restore' else\n"
        "      shell_exports(write(Settings(home=home), 4567, region), shell))\n")
    fish = Path(program).name == "fish"
    for what, region in (("exports", "eu-west-2"), ("exports", "eu-west-3"), ("restore", "-")):
        call = f"{sys.executable} {printer} {what} {'fish' if fish else 'sh'} {region}"
        script = script.replace(
            f"<{what} {region}>", f"eval ({call})" if fish else f'eval "$({call})"')
    done = subprocess.run([program, "-c", script + "\nenv -0"], capture_output=True, timeout=60,
                          env={"PATH": os.environ["PATH"], **environ})
    assert done.stderr == b""
    seen = dict(item.split("=", 1) for item in done.stdout.decode().split("\0") if item)
    return {name: value for name, value in seen.items()
            if name not in ("PATH", "PWD", "SHLVL", "_", "OLDPWD", "HOME", "USER", "LC_CTYPE")}


@pytest.fixture(params=["sh", "bash", "zsh", "fish"])
def shell(request):
    program = shutil.which(request.param)
    if program is None:
        pytest.skip(f"{request.param} is not installed")
    return program


def test_what_was_overwritten_is_restored_and_the_rest_unset(shell, tmp_path):
    assert _round(shell, "<exports eu-west-2>\n<restore ->", USERS, tmp_path) == USERS


def test_evaluating_twice_saves_the_user_s_values_not_ours(shell, tmp_path):
    script = "<exports eu-west-2>\n<exports eu-west-3>"
    twice = _round(shell, script, USERS, tmp_path)
    assert twice["AWS_REGION"] == "eu-west-3"
    assert twice["BYOA_SAVED_HTTPS_PROXY"] == USERS["HTTPS_PROXY"]
    assert "AWS_PROFILE" not in twice
    assert _round(shell, f"{script}\n<restore ->", USERS, tmp_path) == USERS


def test_evaluating_twice_over_nothing_restores_nothing(shell, tmp_path):
    script = "<exports eu-west-2>\n<exports eu-west-3>\n<restore ->"
    assert _round(shell, script, {"EDITOR": "vi"}, tmp_path) == {"EDITOR": "vi"}


def test_what_the_user_sets_after_the_first_evaluation_is_saved_by_the_second(tmp_path):
    script = "<exports eu-west-2>\nexport AWS_PROFILE=later\n<exports eu-west-3>\n<restore ->"
    assert _round(shutil.which("sh"), script, {}, tmp_path) == {"AWS_PROFILE": "later"}


def test_taking_back_what_was_never_set_leaves_the_user_s_variables_alone(shell, tmp_path):
    assert _round(shell, "<restore ->", USERS, tmp_path) == USERS


@pytest.mark.parametrize("shell_name", ["sh", "fish"])
def test_no_value_of_the_user_s_is_printed(variables, shell_name):
    environ = {**USERS, "AWS_SECRET_ACCESS_KEY": "wJalrX"}
    text = shell_exports(variables, shell_name, environ)
    restore = shell_restore(shell_name, {**environ, SAVED: "AWS_SECRET_ACCESS_KEY",
                                         f"{SAVED}_AWS_SECRET_ACCESS_KEY": "wJalrX"})
    assert "wJalrX" not in text + restore
    assert "me:pw" not in text + restore


def test_fish_restores_with_its_own_syntax():
    environ = {SAVED: "AWS_PROFILE HTTPS_PROXY", f"{SAVED}_AWS_PROFILE": "work",
               f"{SAVED}_HTTPS_PROXY": "http://proxy"}
    lines = shell_restore("fish", environ).split(";\n")
    assert 'set -gx AWS_PROFILE "$BYOA_SAVED_AWS_PROFILE"' in lines
    assert {"set -e AWS_REGION", "set -e BYOA_SAVED", "set -e BYOA_SAVED_AWS_PROFILE"} <= set(lines)
    assert "set -e HTTPS_PROXY" not in lines


def test_the_user_s_environment_is_that_of_before(variables):
    saved = {SAVED: "HTTPS_PROXY", f"{SAVED}_HTTPS_PROXY": USERS["HTTPS_PROXY"]}
    assert users({**variables, **saved, "EDITOR": "vi"}) == {
        "EDITOR": "vi", "HTTPS_PROXY": USERS["HTTPS_PROXY"]}
    assert users(USERS) == USERS


def test_a_company_s_authorities_stay_in_the_bundle_when_it_is_written_again(tmp_path):
    company = Authority(tmp_path / "company").certificate
    variables = write(Settings(home=tmp_path / "home"), 1, "us-east-1", environ={
        "REQUESTS_CA_BUNDLE": str(tmp_path / "home/ca/bundle.pem"),
        SAVED: "REQUESTS_CA_BUNDLE", f"{SAVED}_REQUESTS_CA_BUNDLE": str(company)})
    context = ssl.create_default_context(cafile=variables["AWS_CA_BUNDLE"])
    theirs = ssl.PEM_cert_to_DER_cert(company.read_text())
    assert theirs in context.get_ca_certs(binary_form=True)
