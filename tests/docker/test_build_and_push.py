"""build_and_push.sh with real engines, a real registry on loopback, and ECR's API by moto.

Podman and Buildah run the same tests where they are installed, each with a store of its own.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "build_and_push.sh"
ACCOUNT = "123456789012"
ECR = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
# bcrypt of the password that moto gives: 123456789012-auth-token
HTPASSWD = "AWS:$2b$05$t2mIrYApMPbJawb4XzcvCeglgrBLg78UQd5h.kfmHbzwUAMKFxA1m\n"
# A shell and cat on a few libraries: some MB, so that every engine can have its own copy.
TINY = """\
ARG BASE
FROM $BASE AS whole
RUN mkdir /tiny && cp --parents /bin/sh /bin/cat \
    $(ldd /bin/sh /bin/cat | grep -o '/lib[^ ]*' | sort -u) /tiny
FROM scratch
COPY --from=whole /tiny /
LABEL byoa.test=push
"""


@dataclass
class Registry:
    """A registry process; `address` is host:port."""

    directory: Path
    address: str
    http: str = ""  # more settings of its server
    more: str = ""  # more settings
    process: subprocess.Popen[bytes] | None = None

    def start(self, url: str, context: Any = None) -> Registry:
        self.directory.mkdir(parents=True)
        config = self.directory / "config.yml"
        config.write_text(
            "version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: '{self.directory / 'images'}'}}}}\n"
            f"http: {{addr: '{self.address}'{self.http}}}\n{self.more}"
        )
        program = shutil.which("docker-registry") or shutil.which("registry")
        assert program, "no registry here: apt-get install docker-registry"
        with (self.directory / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [program, "serve", str(config)], stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + 20
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"{url}/v2/", timeout=2, context=context).close()
                return self
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == 401:
                    return self
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise AssertionError((self.directory / "log").read_text())

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(10)

    def repositories(self) -> list[str]:
        with urllib.request.urlopen(f"http://{self.address}/v2/_catalog", timeout=5) as answer:
            return list(json.load(answer)["repositories"])

    def manifest(self, repository: str, reference: str) -> tuple[str, str]:
        """Media type and digest of what is there, whatever type it is."""
        request = urllib.request.Request(
            f"http://{self.address}/v2/{repository}/manifests/{reference}", method="HEAD",
            headers={"Accept": f"{MANIFEST}, application/vnd.oci.image.manifest.v1+json, "
                     "application/vnd.oci.image.index.v1+json"},
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.headers["Content-Type"], answer.headers["Docker-Content-Digest"]


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def start_registry(tmp_path: Path) -> Iterator[Callable[..., Registry]]:
    started: list[Registry] = []

    def start(more: str = "") -> Registry:
        address = f"127.0.0.1:{_free_port()}"
        registry = Registry(tmp_path / f"registry-{len(started)}", address, more=more)
        started.append(registry.start(f"http://{address}"))
        return registry

    yield start
    for registry in started:
        registry.stop()


@pytest.fixture
def registry(start_registry: Callable[..., Registry]) -> Registry:
    return start_registry()


def _docker(*argv: str, **more: Any) -> str:
    return subprocess.run(
        ["docker", *argv], check=True, capture_output=True, text=True, timeout=120, **more
    ).stdout.strip()


@pytest.fixture(scope="session")
def tiny(base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("tiny")
    folder.joinpath("Dockerfile").write_text(TINY)
    name = f"byoa-push-tiny:{uuid.uuid4().hex[:8]}"
    _docker("build", "--build-arg", f"BASE={base_image}", "--tag", name, str(folder))
    yield name
    _docker("rmi", "--force", name)


@dataclass
class Engine:
    """One of the engines, in a home and with a store of its own; all that it makes is removed."""

    name: str
    home: Path
    environment: dict[str, str]

    def push(
        self, *argv: str | Path, script: tuple[str, ...] = ("bash", str(SCRIPT)), **more: str
    ) -> subprocess.CompletedProcess[str]:
        environment = self.environment | more
        return subprocess.run(
            [*script, *map(str, argv)], env={k: v for k, v in environment.items() if v},
            cwd=self.home, capture_output=True, text=True, timeout=240,
        )


@pytest.fixture
def on_engine(
    tmp_path: Path, clean_environment: dict[str, str], sagemaker: Any, tiny: str, name: str
) -> Iterator[Callable[[str], Engine]]:
    made: list[str] = []

    def choose(program: str) -> Engine:
        if program != "docker" and not shutil.which(program):
            pytest.skip(f"{program} is not installed")
        home = tmp_path / "home"
        home.mkdir()
        (home / "auth.json").write_text("{}")
        storage = tmp_path / "storage.conf"
        storage.write_text(
            f'[storage]\ndriver = "vfs"\nrunroot = "{tmp_path}/run"\n'
            f'graphroot = "{tmp_path}/graph"\n'
        )
        environment = clean_environment | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home), "DOCKER_CONFIG": str(home / ".docker"), "ENGINE": program,
            "CONTAINERS_STORAGE_CONF": str(storage), "REGISTRY_AUTH_FILE": str(home / "auth.json"),
            "AWS_ENDPOINT_URL": sagemaker.url, "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        made.append(program)
        if program != "docker":
            archive = tmp_path / "tiny.tar"
            _docker("save", "--output", str(archive), tiny)
            subprocess.run(
                [program, "pull", "--quiet", f"docker-archive:{archive}"], check=True,
                env=environment, capture_output=True, timeout=120,
            )
        return Engine(program, home, environment)

    yield choose
    if "docker" in made:
        listed = _docker("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
        if own := [each for each in listed if name in each]:
            _docker("rmi", "--force", *own)


@pytest.fixture(params=["docker", "podman", "buildah"])
def pusher(request: pytest.FixtureRequest, on_engine: Callable[[str], Engine]) -> Engine:
    return on_engine(request.param)


@pytest.fixture
def docker_pusher(on_engine: Callable[[str], Engine]) -> Engine:
    return on_engine("docker")


@pytest.fixture
def name() -> str:
    """A repository that no other test has."""
    return f"test-push-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def folder(tmp_path: Path, tiny: str, name: str) -> Path:
    """A user's own build context on a base that the engine has."""
    made = tmp_path / "my-algorithm"
    made.mkdir()
    made.joinpath("greeting").write_text(f"pushed as {name}\n")
    made.joinpath("Dockerfile").write_text(
        f'FROM {tiny}\nLABEL byoa.test=push\nCOPY greeting /greeting\nCMD ["cat", "/greeting"]\n'
    )
    return made


def _run_by_digest(address: str, name: str, digest: str) -> str:
    reference = f"{address}/{name}@{digest}"
    try:
        return _docker("run", "--rm", "--label", "byoa.test", "--network", "none", reference)
    finally:
        subprocess.run(["docker", "rmi", "--force", reference], capture_output=True, timeout=60)


def test_an_image_is_built_pushed_and_runs_by_its_digest_and_a_second_push_says_the_same(
    pusher: Engine, registry: Registry, sagemaker: Any, folder: Path, name: str
) -> None:
    """TRAIN-13, TRAP-03: one platform, and Docker's manifest, which SageMaker takes."""
    first = pusher.push("--tag", "1.0", name, folder, BYOA_REGISTRY=registry.address)
    assert first.returncode == 0, first.stderr
    uri, by_digest = first.stdout.split()
    assert uri == f"{ECR}/{name}:1.0"
    media_type, digest = registry.manifest(name, "1.0")
    assert (media_type, by_digest) == (MANIFEST, f"{ECR}/{name}@{digest}")
    assert json.loads((pusher.home / "image-uri.json").read_text()) == {
        "uri": uri, "uri_with_digest": by_digest, "digest": digest, "registry": ECR,
        "repository": name, "tag": "1.0", "account": ACCOUNT, "region": "us-east-1",
        "platform": "linux/amd64",
    }
    repository = sagemaker.client("ecr").describe_repositories(repositoryNames=[name])
    scanning = repository["repositories"][0]["imageScanningConfiguration"]
    assert scanning == {"scanOnPush": True}
    assert "creating repository" in first.stderr
    assert _run_by_digest(registry.address, name, digest) == f"pushed as {name}"

    second = pusher.push("--tag", "1.0", name, folder, BYOA_REGISTRY=registry.address)
    assert second.returncode == 0, second.stderr
    assert second.stdout == first.stdout
    assert "creating repository" not in second.stderr
    assert "auth-token" not in first.stderr + second.stderr


def test_an_image_of_another_architecture_is_not_pushed(
    pusher: Engine, registry: Registry, folder: Path, tiny: str, name: str
) -> None:
    """TRAP-04: it would end in `exec format error`."""
    here = _docker("image", "inspect", "--format", "{{.Architecture}}", tiny)
    other = {"amd64": "arm64", "arm64": "amd64"}[here]
    built = pusher.push("--platform", f"linux/{here}", "--no-push", name, folder)
    assert built.returncode == 0, built.stderr
    assert built.stdout == f"{name}:latest\n"
    said = pusher.push("--platform", f"linux/{other}", "--image", f"{name}:latest",
                       BYOA_REGISTRY=registry.address)
    assert said.returncode == 1
    assert f"{name}:latest is linux/{here}, not linux/{other}" in said.stderr
    assert "exec format error" in said.stderr
    assert registry.repositories() == []


def test_a_base_image_that_is_missing_for_the_platform_is_said(
    docker_pusher: Engine, folder: Path, tiny: str, name: str
) -> None:
    """TRAP-04."""
    here = _docker("image", "inspect", "--format", "{{.Architecture}}", tiny)
    other = {"amd64": "arm64", "arm64": "amd64"}[here]
    said = docker_pusher.push("--platform", f"linux/{other}", "--no-push", name, folder)
    assert said.returncode == 1
    assert "FROM line" in said.stderr, said.stderr


def test_a_private_registry_is_logged_in_to_for_the_base_and_for_the_push(
    pusher: Engine, start_registry: Callable[..., Registry], folder: Path, tiny: str, name: str,
    tmp_path: Path,
) -> None:
    """A registry that wants ECR's token, at the build's FROM as at the push."""
    users = tmp_path / "htpasswd"
    users.write_text(HTPASSWD)
    private = start_registry(f"auth: {{htpasswd: {{realm: ecr, path: '{users}'}}}}\n")
    pushed = pusher.push("--tag", "1", "--image", tiny, f"{name}-base",
                         BYOA_REGISTRY=private.address)
    assert pushed.returncode == 0, pushed.stderr
    base = f"{private.address}/{name}-base:1"
    folder.joinpath("Dockerfile").write_text(
        f"ARG BASE_IMAGE={base}\nFROM ${{BASE_IMAGE}} AS base\nFROM base\nLABEL byoa.test=push\n"
    )
    shutil.rmtree(pusher.home / ".docker", ignore_errors=True)
    (pusher.home / "auth.json").write_text("{}")
    said = pusher.push(name, folder, BYOA_REGISTRY=private.address)
    assert said.returncode == 0, said.stderr
    assert said.stderr.count("--password-stdin") == 1
    if pusher.name == "docker":
        _docker("rmi", "--force", base)

    users.write_text(HTPASSWD.replace("AWS:", "SOMEBODY:"))
    os.utime(users, (time.time() + 10, time.time() + 10))
    refused = pusher.push("--image", tiny, name, BYOA_REGISTRY=private.address)
    assert refused.returncode == 1
    assert f"logging in to {private.address} failed" in refused.stderr
    assert not (pusher.home / "image-uri.json").exists()


def test_a_base_of_another_accounts_ecr_comes_from_the_registry_that_stands_for_it(
    pusher: Engine, registry: Registry, folder: Path, tiny: str, name: str
) -> None:
    pushed = pusher.push("--tag", "1", "--image", tiny, f"{name}-base",
                         BYOA_REGISTRY=registry.address)
    assert pushed.returncode == 0, pushed.stderr
    base = f"999999999999.dkr.ecr.eu-west-3.amazonaws.com/{name}-base:1"
    folder.joinpath("Dockerfile").write_text(
        f"FROM {base}\nLABEL byoa.test=push\nCOPY greeting /greeting\n"
    )
    try:
        said = pusher.push(name, folder, BYOA_REGISTRY=registry.address)
        assert said.returncode == 0, said.stderr
    finally:
        for each in (base, f"{registry.address}/{name}-base:1"):
            subprocess.run(["docker", "rmi", "--force", each], capture_output=True, timeout=60)
    assert registry.manifest(name, "latest")[0] == MANIFEST


@pytest.mark.parametrize("program", ["podman", "buildah"])
def test_ecrs_own_host_name_is_pushed_to_over_tls(
    program: str, on_engine: Callable[[str], Engine], folder: Path, name: str, tmp_path: Path
) -> None:
    """The host's name leads to a registry on loopback in a private mount namespace; Docker's
    daemon is outside of it, so the engines without a daemon are tried."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root and unshare: port 443, and an /etc/hosts of its own")
    pusher = on_engine(program)
    certificate = tmp_path / "ecr.pem"
    _certificate(ECR, certificate)
    host = ".".join(["127", *(str(1 + byte % 250) for byte in uuid.uuid4().bytes[:3])])
    registry = Registry(
        tmp_path / "ecr", f"{host}:443",
        f", tls: {{certificate: '{certificate}', key: '{certificate}'}}",
    )
    unchecked = ssl.create_default_context()
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    registry.start(f"https://{host}", unchecked)
    with contextlib.ExitStack() as stack:
        stack.callback(registry.stop)
        hosts = tmp_path / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{host} {ECR}\n")
        inside = ("unshare", "--mount", "--propagation", "private", "bash", "-c",
                  'mount --bind "$1" /etc/hosts && shift && exec "$@"', "bash", str(hosts),
                  "bash", str(SCRIPT))
        said = pusher.push(name, folder, script=inside,
                           SSL_CERT_FILE=str(certificate))
        assert said.returncode == 0, said.stderr
        assert said.stdout.split()[0] == f"{ECR}/{name}:latest"
        assert f"docker://{ECR}/{name}:latest" in said.stderr
        assert (tmp_path / "ecr/images/docker/registry/v2/repositories" / name).is_dir()


def test_byoa_builds_a_folder_without_a_dockerfile_and_pushes_the_image(
    docker_pusher: Engine, registry: Registry, tiny: str, name: str, tmp_path: Path
) -> None:
    made = tmp_path / name
    made.mkdir()
    made.joinpath("nearest.py").write_text(
        "from byoa.algorithms import Algorithm\n\n\nclass Nearest(Algorithm):\n    pass\n"
    )
    byoa = (sys.executable, "-m", "byoa.local.cli")
    built = docker_pusher.push("build", made, "--base", tiny, script=byoa)
    assert built.returncode == 0, built.stderr
    assert built.stdout == f"{name}:latest\n"
    for line in (f"FROM {tiny}", "COPY . /opt/program", "ENV BYOA_ALGORITHM=nearest:Nearest"):
        assert f"    {line}\n" in built.stderr
    source = _docker("run", "--rm", "--label", "byoa.test", f"{name}:latest", "cat",
                     "/opt/program/nearest.py")
    assert "class Nearest" in source

    pushed = docker_pusher.push("push", f"{name}:latest", "--tag", "2", "--output", "there.json",
                         script=byoa, BYOA_REGISTRY=registry.address)
    assert pushed.returncode == 0, pushed.stderr
    digest = registry.manifest(name, "2")[1]
    assert pushed.stdout.splitlines() == [f"{ECR}/{name}:2", f"{ECR}/{name}@{digest}"]
    assert json.loads((docker_pusher.home / "there.json").read_text())["digest"] == digest


def test_an_image_that_the_engine_does_not_have_is_said(docker_pusher: Engine, name: str) -> None:
    said = docker_pusher.push("--image", f"{name}:gone", BYOA_REGISTRY="127.0.0.1:1")
    assert said.returncode == 1
    assert f"docker has no image {name}:gone" in said.stderr


def test_a_base_image_that_nobody_has_is_named(
    docker_pusher: Engine, folder: Path, name: str
) -> None:
    folder.joinpath("Dockerfile").write_text("FROM 127.0.0.1:1/nobody/has-it:1\n")
    said = docker_pusher.push("--no-push", name, folder)
    assert said.returncode == 1
    assert "  do: " in said.stderr
    assert "network" in said.stderr or "127.0.0.1:1/nobody/has-it:1" in said.stderr


def test_a_registry_that_is_not_there_is_said_before_the_build(
    docker_pusher: Engine, folder: Path, name: str
) -> None:
    said = docker_pusher.push(name, folder, BYOA_REGISTRY=f"127.0.0.1:{_free_port()}")
    assert said.returncode == 1
    assert "logging in to 127.0.0.1:" in said.stderr
    assert "  do: " in said.stderr
    assert "docker build" not in said.stderr


@pytest.fixture
def refusing() -> Iterator[Callable[[int, str, str], str]]:
    """A registry that knows no layer and refuses each one in the words of Amazon ECR."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int, code: str, message: str) -> str:
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()

        class Refusal(BaseHTTPRequestHandler):
            def answer(self, status: int, body: bytes = b"{}") -> None:
                self.send_response(status)
                self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(b"" if self.command == "HEAD" else body)

            def do_GET(self) -> None:
                self.answer(200 if self.path == "/v2/" else 404)

            def do_HEAD(self) -> None:
                self.answer(404)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.answer(status, body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("status", "code", "message", "cause", "cure"), [
    (403, "DENIED", "User is not authorized to perform: ecr:InitiateLayerUpload on resource: r",
     "was denied", "ecr:InitiateLayerUpload"),
    (403, "DENIED", "Your authorization token has expired. Reauthenticate and try again.",
     "was denied", "a login lasts 12 hours"),
    (404, "NAME_UNKNOWN", "The repository with name 'r' does not exist in the registry",
     "has no repository", "--account and --region"),
    (500, "UNKNOWN", "unknown error", "the registry failed", "a full disk"),
], ids=["denied", "expired", "no-repository", "registry-full"])
def test_a_push_that_the_registry_refuses_is_said_with_what_to_do(
    docker_pusher: Engine, refusing: Callable[[int, str, str], str], folder: Path, name: str,
    status: int, code: str, message: str, cause: str, cure: str,
) -> None:
    said = docker_pusher.push(name, folder, BYOA_REGISTRY=refusing(status, code, message))
    assert said.returncode == 1
    problem, _, remedy = said.stderr.rpartition("  do: ")
    assert cause in problem.splitlines()[-1], said.stderr
    assert cure in remedy
    assert not (docker_pusher.home / "image-uri.json").exists()


def test_missing_credentials_are_said_with_what_to_do(
    docker_pusher: Engine, folder: Path, name: str
) -> None:
    said = docker_pusher.push(name, folder, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert said.returncode == 1
    assert "has no credentials" in said.stderr
    assert "aws configure" in said.stderr


def test_a_dry_run_of_the_project_creates_nothing(
    docker_pusher: Engine, registry: Registry, sagemaker: Any, name: str
) -> None:
    said = docker_pusher.push("--dry-run", "--variant", "gpu", name, BYOA_REGISTRY=registry.address)
    assert said.returncode == 0, said.stderr
    assert f"docker push {registry.address}/{name}:latest" in said.stdout
    assert "TORCH_VARIANT=cu" in said.stdout
    ecr = sagemaker.client("ecr")
    assert name not in [each["repositoryName"]
                        for each in ecr.describe_repositories()["repositories"]]
    assert registry.repositories() == []


def _certificate(host: str, path: Path) -> None:
    """Write a key and a certificate of `host`, signed by itself, as one PEM file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject)
        .public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - day).not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
