"""What `byoa env` prints: the variables with which unmodified clients find the local services.

Beside them it writes an AWS config file, a CA bundle and the SageMaker SDK's settings, all under
`$BYOA_HOME`, for clients that read files only. No real credentials are used or touched.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import ssl
from collections.abc import Mapping
from pathlib import Path

from byoa.container.errors import UnsupportedError
from byoa.local.api.certificates import Authority
from byoa.local.settings import Settings

SHELLS = ("sh", "bash", "fish", "json")
# They would win over the variables below, or name a profile that the written config lacks.
UNSET = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_STS",
    "AWS_ENDPOINT_URL_IAM",
    "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS",
    "AWS_ENDPOINT_URL_CLOUDWATCH",
    "AWS_ENDPOINT_URL_SAGEMAKER",
    "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME",
)
# What `write` returns, for taking it back; a test holds the two together.
VARIABLES = (
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_EC2_METADATA_DISABLED",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
    "AWS_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "SAGEMAKER_USER_CONFIG_OVERRIDE",
)
# Names of the variables whose earlier values the shell keeps as `BYOA_SAVED_<NAME>`; that it is set
# at all, if to nothing, tells that what the others hold is ours.
SAVED = "BYOA_SAVED"
_ACCESS_KEY = "byoalocalaccesskey"  # dummies: any are accepted, and none leave the machine
_SECRET_KEY = "byoalocalsecretkey"  # noqa: S105
_NO_PROXY = "127.0.0.1,localhost,::1"
_NAME = re.compile(r"\w+", re.ASCII)
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

__all__ = [
    "SAVED",
    "SHELLS",
    "UNSET",
    "VARIABLES",
    "ca_directory",
    "shell_exports",
    "shell_restore",
    "users",
    "write",
]


def ca_directory(settings: Settings) -> Path:
    """Where the proxy's certificate authority lives."""
    return settings.home / "ca"


def write(
    settings: Settings,
    port: int,
    region: str,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """Write the files under `$BYOA_HOME` and return the variables that name them.

    `environ` is the user's: a CA bundle that it names, or named before, is kept in ours.
    """
    # An address to listen on is not always one to connect to.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    authority = Authority(ca_directory(settings))
    bundle = ca_directory(settings) / "bundle.pem"
    _write(bundle, _bundle(authority.certificate, bundle, users(environ)))
    directory = settings.home / "aws"
    config, credentials = directory / "config", directory / "credentials"
    # `aws configure get region` reads this file only, never the variable.
    _write(config, f"[default]\nregion = {region}\nendpoint_url = {url}\n")
    _write(
        credentials,
        f"[default]\naws_access_key_id = {_ACCESS_KEY}\naws_secret_access_key = {_SECRET_KEY}\n",
    )
    sdk = directory / "sagemaker-sdk.yaml"
    # The SDK's usage reports have no time limit and would hang where the network drops packets.
    _write(
        sdk,
        "SchemaVersion: '1.0'\n"
        "SageMaker:\n  PythonSDK:\n    Modules:\n      TelemetryOptOut: true\n",
    )
    no_proxy = _NO_PROXY if host in _NO_PROXY.split(",") else f"{_NO_PROXY},{host}"
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": _ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": _SECRET_KEY,
        "AWS_DEFAULT_REGION": region,
        "AWS_REGION": region,
        "AWS_CONFIG_FILE": str(config),
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "AWS_EC2_METADATA_DISABLED": "true",
        # Some clients read one case first, some the other.
        "HTTPS_PROXY": url,
        "https_proxy": url,
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "AWS_CA_BUNDLE": str(bundle),
        "REQUESTS_CA_BUNDLE": str(bundle),
        "SSL_CERT_FILE": str(bundle),
        "CURL_CA_BUNDLE": str(bundle),
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(sdk),
    }


def shell_exports(
    variables: Mapping[str, str], shell: str, environ: Mapping[str, str] = os.environ
) -> str:
    """The variables as text for `eval` in "sh", "bash" (any POSIX shell) or "fish", or as "json".

    The shells' forms also unset what would win over them (`UNSET`), and first keep what `environ`
    has of both for `shell_restore`. The shell copies it: no value, such as a key, is in the text.
    """
    if shell == "json":
        return json.dumps(dict(variables), indent=2) + "\n"
    saved = _saved(environ)
    # On top of our own variables, only what we unset can be the user's.
    theirs = UNSET if SAVED in environ else (*UNSET, *VARIABLES)
    save = [name for name in theirs if name in environ]
    names = " ".join(dict.fromkeys([*saved, *save]))
    if _syntax(shell) == "fish":
        lines = [f'set -gx {SAVED}_{name} "${name}"' for name in save]
        lines += [f"set -gx {SAVED} {_fish_quote(names)}"]
        lines += [f"set -e {name}" for name in UNSET]
        lines += [f"set -gx {name} {_fish_quote(value)}" for name, value in variables.items()]
    else:
        lines = [f'export {SAVED}_{name}="${name}"' for name in save]
        lines += [f"export {SAVED}={shlex.quote(names)}", f"unset {' '.join(UNSET)}"]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return _text(lines)


def shell_restore(shell: str, environ: Mapping[str, str] = os.environ) -> str:
    """What takes `shell_exports` back in "sh", "bash" or "fish": earlier values, the rest unset.

    Nothing where `environ` does not have them: its variables are the user's.
    """
    fish = _syntax(shell) == "fish"
    if SAVED not in environ:
        return ""
    saved = _saved(environ)
    gone = [name for name in VARIABLES if name not in saved]
    kept = [name for name in environ if name.startswith(f"{SAVED}_") and _NAME.fullmatch(name)]
    if fish:
        lines = [f'set -gx {name} "${SAVED}_{name}"' for name in saved]
        lines += [f"set -e {name}" for name in (*gone, *kept, SAVED)]
    else:
        lines = [f'export {name}="${SAVED}_{name}"' for name in saved]
        lines += [f"unset {' '.join([*gone, *kept, SAVED])}"]
    return _text(lines)


def users(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` as it was before `shell_exports` was evaluated in it, if it was."""
    if SAVED not in environ:
        return dict(environ)
    before = {
        name: value
        for name, value in environ.items()
        if name not in VARIABLES and name != SAVED and not name.startswith(f"{SAVED}_")
    }
    return before | {name: environ[f"{SAVED}_{name}"] for name in _saved(environ)}


def _saved(environ: Mapping[str, str]) -> list[str]:
    """The variables of which `environ` keeps an earlier value."""
    names = environ.get(SAVED, "").split()
    return [name for name in (*UNSET, *VARIABLES) if name in names and f"{SAVED}_{name}" in environ]


def _syntax(shell: str) -> str:
    if shell not in ("sh", "bash", "fish"):
        raise UnsupportedError(
            "SHELL_UNKNOWN",
            f"no exports for shell {shell!r}",
            expected=f"one of {', '.join(SHELLS)}",
            remedy="take sh for any POSIX shell such as zsh or dash",
        )
    return "fish" if shell == "fish" else "sh"


def _text(lines: list[str]) -> str:
    # The semicolons keep an eval without quotes right, which joins the lines.
    return ";\n".join(lines) + ";\n"


def _fish_quote(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _bundle(authority: Path, own: Path, environ: Mapping[str, str]) -> str:
    """Our CA and everything that is trusted already, so that tunnelled hosts still verify."""
    sources = [authority]
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"):
        if environ.get(name):
            sources.append(Path(environ[name]))
    import certifi  # with requests, which moto needs

    sources.append(Path(certifi.where()))
    # Its cafile follows SSL_CERT_FILE, which may be ours by now; openssl_cafile does not.
    sources.append(Path(ssl.get_default_verify_paths().openssl_cafile))
    certificates: dict[str, None] = {}
    for source in sources:
        if source == own or not source.is_file():
            continue
        text = source.read_text("utf-8", errors="replace")
        certificates.update(dict.fromkeys(_PEM.findall(text)))
    return "\n".join(certificates) + "\n"


def _write(path: Path, text: str) -> None:
    """Replace the file whole: other clients may be reading it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
