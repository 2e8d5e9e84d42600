"""build_and_push.sh and `byoa build` without an engine: arguments, refusals and dry runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "build_and_push.sh"
KNOWN = ("--account", "123456789012", "--region", "eu-west-1")
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
TOOLS = ("bash", "awk", "cat", "cut", "dirname", "du", "grep", "mktemp", "rm", "sed", "sort",
         "tail", "tee", "tr")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path: Path, clean_environment: dict[str, str]) -> dict[str, str]:
    """Docker's engine, or none; the AWS CLI of this environment; nothing of this machine's."""
    kept = {name: value for name, value in clean_environment.items()
            if not name.startswith(("PIP_", "TORCH_", "BASE_", "EXTRAS", "CONTEXT_", "DOCKER_"))}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path), "ENGINE": "docker", "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }


@pytest.fixture
def script(tmp_path: Path, environment: dict[str, str]) -> Run:
    def run(*argv: Any, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [shutil.which("bash") or "bash", str(SCRIPT), *map(str, argv)],
            env={name: value for name, value in (environment | more).items() if value},
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )

    return run


@pytest.fixture
def context(tmp_path: Path) -> Callable[[str], Path]:
    def make(dockerfile: str) -> Path:
        folder = tmp_path / "context"
        folder.mkdir()
        folder.joinpath("Dockerfile").write_text(dockerfile)
        return folder

    return make


def test_a_dry_run_prints_every_command_in_order_and_leaves_nothing(
    script: Run, context: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = context("FROM scratch\n")
    before = sorted(tmp_path.rglob("*"))
    said = script("--dry-run", *KNOWN, "--tag", "1.0", "team/mine", folder)
    assert said.returncode == 0, said.stderr
    aws = "+ aws --region eu-west-1 ecr"
    lines = said.stdout.splitlines()
    assert lines[0] == (
        f"{aws} describe-repositories --registry-id 123456789012 --repository-names team/mine"
    )
    assert lines[1].startswith(
        f"{aws} create-repository --registry-id 123456789012 --repository-name team/mine "
        "--image-scanning-configuration scanOnPush=true"
    )
    assert lines[2] == (
        f"{aws} get-login-password | docker login --username AWS --password-stdin {ECR}"
    )
    assert lines[3].startswith("+ docker build ")
    assert lines[3].endswith(
        f" --platform linux/amd64 --tag team/mine:1.0 --file {folder}/Dockerfile {folder}"
    )
    assert lines[4:] == [
        f"+ docker tag team/mine:1.0 {ECR}/team/mine:1.0", f"+ docker push {ECR}/team/mine:1.0",
    ]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_of_the_project_itself_builds_its_folder_as_byoa(script: Run) -> None:
    said = script("--dry-run", *KNOWN)
    assert said.returncode == 0, said.stderr
    assert f"--tag byoa:latest --file {SCRIPT.parent}/Dockerfile {SCRIPT.parent}\n" in said.stdout
    assert f"+ docker push {ECR}/byoa:latest\n" in said.stdout


@pytest.mark.parametrize("engine", ["podman", "buildah"])
def test_engines_without_a_daemon_make_dockers_manifest(
    script: Run, context: Callable[[str], Path], engine: str
) -> None:
    """TRAP-03: they would make an OCI manifest."""
    said = script("--dry-run", *KNOWN, "mine", context("FROM scratch\n"), ENGINE=engine)
    assert said.returncode == 0, said.stderr
    assert "--format docker" in said.stdout
    assert f"+ {engine} push --format v2s2 --digestfile " in said.stdout
    assert f" mine:latest docker://{ECR}/mine:latest\n" in said.stdout


def test_the_build_logs_in_once_to_each_ecr_registry_that_a_from_line_names(
    script: Run, context: Callable[[str], Path]
) -> None:
    folder = context(
        "# FROM 000000000000.dkr.ecr.us-east-1.amazonaws.com/comment:1\r\n"
        "ARG REGION=us-west-2 ACCOUNT\r\n"
        "ARG DEEP=763104351884.dkr.ecr.${REGION}.amazonaws.com/pytorch-training:2\n"
        'ARG BASE_IMAGE="python:3.11-slim"\n'
        "from --platform=linux/amd64 \\\n  $DEEP AS deep\n"
        "ARG DEEP=111111111111.dkr.ecr.us-east-1.amazonaws.com/not-this:1\n"
        "FROM ${BASE_IMAGE} AS base\n"
        "FROM ${MISSING:-222222222222.dkr.ecr-fips.us-gov-west-1.amazonaws.com/f:1}\n"
        "COPY --from=333333333333.dkr.ecr.cn-north-1.amazonaws.com.cn/c:1 /a /b\n"
        "FROM base\n"
        f"FROM {ECR}/own:1\n"
    )
    base = "444444444444.dkr-ecr.ap-south-1.on.aws/b:1"
    said = script("--dry-run", *KNOWN, "mine", folder, BASE_IMAGE=base)
    assert said.returncode == 0, said.stderr
    logins = sorted(
        (line.split()[3], line.split()[-1]) for line in said.stdout.splitlines()
        if "get-login-password" in line
    )
    assert logins == sorted([
        ("us-west-2", "763104351884.dkr.ecr.us-west-2.amazonaws.com"),
        ("us-gov-west-1", "222222222222.dkr.ecr-fips.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", "333333333333.dkr.ecr.cn-north-1.amazonaws.com.cn"),
        ("ap-south-1", "444444444444.dkr-ecr.ap-south-1.on.aws"),
        ("eu-west-1", ECR),
    ])
    assert f"--build-arg BASE_IMAGE={base}" in said.stdout


@pytest.mark.parametrize(
    "lines",
    ["FROM --platform=linux/amd64 scratch\n",
     "FROM --platform=linux/amd64 scratch AS one\nFROM one AS two\nFROM two\n",
     "ARG P=linux/amd64\nFROM scratch AS one\nFROM --platform=$P scratch\n"],
)
def test_a_platform_that_a_from_line_fixes_is_found_out(
    script: Run, context: Callable[[str], Path], lines: str
) -> None:
    """TRAP-04: BuildKit writes the platform that is asked for on an image of the other's."""
    folder = context(lines)
    said = script("--dry-run", *KNOWN, "--platform", "linux/arm64", "mine", folder)
    assert (said.returncode, said.stdout) == (1, "")
    assert "an image for linux/amd64, not linux/arm64" in said.stderr
    assert script("--dry-run", *KNOWN, "mine", folder).returncode == 0
    folder.joinpath("Dockerfile").write_text(
        "FROM --platform=$BUILDPLATFORM scratch AS one\nFROM --platform=linux/amd64 scratch\n"
        "FROM scratch\nCOPY --from=one /a /b\n"
    )
    said = script("--dry-run", *KNOWN, "--platform", "linux/arm64", "mine", folder)
    assert said.returncode == 0, said.stderr


def test_china_has_a_suffix_of_its_own(script: Run, context: Callable[[str], Path]) -> None:
    said = script("--dry-run", "--account", "123456789012", "--region", "cn-north-1", "mine",
                  context("FROM scratch\n"))
    assert "docker push 123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/mine:latest" in said.stdout


def test_a_variant_is_a_build_argument_that_the_dockerfile_must_have(
    script: Run, context: Callable[[str], Path]
) -> None:
    gpu = script("--dry-run", *KNOWN, "--variant", "gpu")
    assert "--build-arg TORCH_VARIANT=cu126" in gpu.stdout
    other = script("--dry-run", *KNOWN, "--variant=gpu", TORCH_VARIANT="cu130")
    assert "--build-arg TORCH_VARIANT=cu130" in other.stdout
    against = script("--dry-run", *KNOWN, "--variant", "gpu", TORCH_VARIANT="none")
    assert (against.returncode, against.stdout) == (2, "")
    assert "--variant gpu and TORCH_VARIANT=none" in against.stderr
    without = script("--dry-run", *KNOWN, "--variant", "cpu", "mine", context("FROM scratch\n"))
    assert without.returncode == 1
    assert "has no build argument TORCH_VARIANT" in without.stderr


def test_an_index_with_a_password_is_no_argument(script: Run) -> None:
    secret = "https://me:secret@index.invalid/simple"
    said = script("--dry-run", *KNOWN, PIP_INDEX_URL=secret, TORCH_INDEX=secret)
    assert "--build-arg PIP_INDEX_URL " in said.stdout
    assert "--build-arg TORCH_INDEX " in said.stdout
    assert "secret" not in said.stdout + said.stderr


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("My_Algorithm",), "'My_Algorithm' is no name of an ECR repository"),
        (("mine:1.0",), "the tag is --tag"),
        (("a__b",), "is no name of an ECR repository"),
        (("x",), "is no name of an ECR repository"),
        (("--tag", ".1"), "'.1' is no tag"),
        (("--tag", "a" * 129), "is no tag"),
        (("--tag",), "--tag has no value"),
        (("--account", "12345"), "'12345' is no account"),
        (("--region", "Europe"), "'Europe' is no region"),
        (("--platform", "linux/amd64,linux/arm64"), "one platform an image"),
        (("--variant", "tpu"), "choose cpu or gpu"),
        (("--tags", "1"), "--tags is no option"),
        (("one", ".", "three"), "three is one argument too many"),
        (("mine", "nowhere"), "nowhere is no folder"),
        (("--output", "nowhere/uri.json"), "the folder of --output nowhere/uri.json"),
        (("--image", "mine:1", "--variant", "cpu"), "--image builds nothing"),
        (("--image", "mine:1", "--no-push"), "--image with --no-push does nothing"),
        (("--image", "mine@sha256:0"), "has no tag"),
    ],
)
def test_a_mistaken_argument_is_refused_before_anything_runs(
    script: Run, argv: tuple[str, ...], message: str
) -> None:
    said = script(*argv, PATH=os.environ["PATH"], DOCKER_HOST="unix:///nowhere")
    assert (said.returncode, said.stdout) == (2, "")
    assert message in said.stderr
    assert "\n  do: " in said.stderr


def test_the_repository_and_the_tag_are_those_of_the_image_that_is_pushed(script: Run) -> None:
    for image, pushed in (
        ("mine", "mine:latest"), ("mine:2", "mine:2"), ("localhost/mine:2", "mine:2"),
        ("host.example:5000/team/mine:2", "team/mine:2"), ("team/mine", "team/mine:latest"),
    ):
        said = script("--dry-run", *KNOWN, "--image", image)
        assert f"+ docker tag {image} {ECR}/{pushed}\n" in said.stdout, said.stderr
        assert "docker build" not in said.stdout
    renamed = script("--dry-run", *KNOWN, "--image", "mine:2", "--tag", "3", "yours")
    assert f"+ docker push {ECR}/yours:3\n" in renamed.stdout


def test_a_missing_region_is_said(script: Run, context: Callable[[str], Path]) -> None:
    said = script("--dry-run", "--account", "123456789012", "mine", context("FROM scratch\n"))
    assert said.returncode == 1
    assert "no region is set" in said.stderr
    assert "--region" in said.stderr


def test_the_region_is_the_options_then_the_variables_then_the_configurations(
    script: Run, context: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = context("FROM scratch\n")
    (tmp_path / "config").write_text("[default]\nregion = eu-west-3\n")
    given = ("--dry-run", "--account", "123456789012", "mine", folder)
    assert ".eu-west-3.amazonaws.com" in script(*given).stdout
    variables = {"AWS_DEFAULT_REGION": "eu-west-2"}
    assert ".eu-west-2.amazonaws.com" in script(*given, **variables).stdout
    variables["AWS_REGION"] = "eu-west-1"
    assert ".eu-west-1.amazonaws.com" in script(*given, **variables).stdout
    assert ".us-east-2.amazonaws.com" in script(
        "--region", "us-east-2", *given, **variables
    ).stdout


def test_missing_credentials_are_said(script: Run, context: Callable[[str], Path]) -> None:
    said = script("--dry-run", "--region", "eu-west-1", "mine", context("FROM scratch\n"))
    assert said.returncode == 1
    assert "the AWS CLI has no credentials" in said.stderr
    assert "aws configure" in said.stderr


def test_a_profile_that_is_not_there_is_said(
    script: Run, context: Callable[[str], Path]
) -> None:
    said = script("--dry-run", "mine", context("FROM scratch\n"), AWS_PROFILE="nobody")
    assert said.returncode == 1
    assert "AWS_PROFILE" in said.stderr


def test_an_endpoint_that_does_not_answer_is_said(
    script: Run, context: Callable[[str], Path]
) -> None:
    said = script("--dry-run", "--region", "eu-west-1", "mine", context("FROM scratch\n"),
                  AWS_ENDPOINT_URL="http://127.0.0.1:1", AWS_ACCESS_KEY_ID="a",
                  AWS_SECRET_ACCESS_KEY="b", AWS_MAX_ATTEMPTS="1")
    assert said.returncode == 1
    assert "AWS_ENDPOINT_URL=http://127.0.0.1:1" in said.stderr


def test_a_missing_dockerfile_is_said(script: Run, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    said = script("--dry-run", *KNOWN, "mine", folder)
    assert said.returncode == 1
    assert f"{folder}/Dockerfile does not exist" in said.stderr
    assert "FROM byoa:latest" in said.stderr


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A search path with what the script calls, and neither an engine nor the AWS CLI."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for each in TOOLS:
        found = shutil.which(each)
        assert found, each
        (folder / each).symlink_to(found)
    return folder


def test_no_engine_at_all_is_said(
    script: Run, context: Callable[[str], Path], tools: Path
) -> None:
    said = script("mine", context("FROM scratch\n"), PATH=str(tools), ENGINE="")
    assert said.returncode == 1
    assert "no docker, podman or buildah is installed" in said.stderr
    named = script("mine", tools.parent / "context", PATH=str(tools), ENGINE="podman")
    assert "podman is not installed" in named.stderr
    unknown = script("mine", tools.parent / "context", ENGINE="nerdctl")
    assert "choose docker, podman or buildah" in unknown.stderr


@pytest.mark.skipif(not shutil.which("docker"), reason="no docker client here")
def test_an_engine_that_does_not_run_is_said(
    script: Run, context: Callable[[str], Path], tmp_path: Path
) -> None:
    host = f"unix://{tmp_path}/dead.sock"
    said = script("mine", context("FROM scratch\n"), DOCKER_HOST=host)
    assert said.returncode == 1
    assert f"Docker does not answer at DOCKER_HOST={host}" in said.stderr
    assert "start Docker" in said.stderr


def test_a_missing_aws_cli_is_said(
    script: Run, context: Callable[[str], Path], tools: Path
) -> None:
    said = script("--dry-run", "--region", "eu-west-1", "mine", context("FROM scratch\n"),
                  PATH=str(tools))
    assert said.returncode == 1
    assert "the AWS CLI is not installed" in said.stderr


def test_a_huge_context_is_refused_naming_what_is_large(
    script: Run, context: Callable[[str], Path]
) -> None:
    folder = context("FROM scratch\n")
    data = folder / "data"
    data.mkdir()
    data.joinpath("records").write_bytes(os.urandom(4 << 20))
    said = script("--dry-run", *KNOWN, "mine", folder, CONTEXT_LIMIT_MB="2")
    assert said.returncode == 1
    assert "the build context is larger than 2 MB" in said.stderr
    assert f"4 MB  {data}" in said.stderr
    warned = script("--dry-run", *KNOWN, "mine", folder, CONTEXT_LIMIT_MB="20")
    assert warned.returncode == 0
    assert "the build context is 4 MB" in warned.stderr

    for patterns in ("# all\ndata\n", "*\n!Dockerfile\n", "/d*/\r\n", "**/data"):
        folder.joinpath(".dockerignore").write_text(patterns)
        said = script("--dry-run", *KNOWN, "mine", folder, CONTEXT_LIMIT_MB="2")
        assert said.returncode == 0, patterns
    folder.joinpath(".dockerignore").write_text("*\n!data/records\n")
    said = script("--dry-run", *KNOWN, "mine", folder, CONTEXT_LIMIT_MB="2")
    assert said.returncode == 1


def test_names_with_blanks_stay_one_argument(
    script: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "my algorithm; touch broken"
    folder.mkdir()
    folder.joinpath("Dockerfile").write_text("FROM scratch\n")
    said = script("--dry-run", *KNOWN, "mine", folder)
    assert said.returncode == 0, said.stderr
    assert "my\\ algorithm\\;\\ touch\\ broken" in said.stdout
    assert not (tmp_path / "broken").exists()


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_the_script_has_no_finding_of_shellcheck() -> None:
    found = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout) == (0, "")


def _byoa(
    environment: dict[str, str], *argv: Any, **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "byoa.local.cli", *map(str, argv)], env=environment | more,
        capture_output=True, text=True, timeout=60,
    )


def test_byoa_build_writes_the_dockerfile_of_a_folder_that_has_none(
    environment: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "My_Algorithm"
    folder.mkdir()
    folder.joinpath("requirements.txt").write_text("scipy\n")
    folder.joinpath("nearest.py").write_text(
        "from byoa.algorithms import Algorithm\n\n\nclass Nearest(Algorithm):\n    pass\n"
    )
    said = _byoa(environment, "build", folder, "--dry-run", "--tag", "2")
    assert said.returncode == 0, said.stderr
    assert "--tag my-algorithm:2 " in said.stdout
    shown = "".join(line[4:] + "\n" for line in said.stderr.splitlines() if line[:4] == "    ")
    assert shown == (
        "FROM byoa:latest\n"
        "COPY requirements.txt .\n"
        "RUN python -m pip install --no-cache-dir --requirement requirements.txt\n"
        "COPY . /opt/program\n"
        "ENV BYOA_ALGORITHM=nearest:Nearest\n"
    )
    assert sorted(each.name for each in folder.iterdir()) == ["nearest.py", "requirements.txt"]


def test_byoa_build_refuses_what_a_dockerfile_of_the_folder_would_not_heed(
    environment: dict[str, str], context: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = context("FROM scratch\n")
    said = _byoa(environment, "build", folder, "--algorithm", "a:B")
    assert said.returncode == 1
    assert "OPTION_UNUSED" in said.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    said = _byoa(environment, "build", empty)
    assert said.returncode == 1
    assert "no class that derives from" in said.stderr
    own = tmp_path / "byoa"
    own.mkdir()
    own.joinpath("mine.py").write_text(
        "from byoa.algorithms import Algorithm\n\n\nclass Mine(Algorithm):\n    pass\n"
    )
    said = _byoa(environment, "build", own, "--dry-run")
    assert said.returncode == 1
    assert "would replace byoa:latest" in said.stderr


def test_byoa_push_gives_its_options_on(environment: dict[str, str]) -> None:
    said = _byoa(environment, "push", "mine:3", "--dry-run", *KNOWN, "--name", "yours")
    assert said.returncode == 0, said.stderr
    assert f"+ docker push {ECR}/yours:3\n" in said.stdout
