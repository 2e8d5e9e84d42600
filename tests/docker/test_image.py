"""The image: its size, its configuration, what is in it and what is not, and how it is built."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SECRET_INDEX = "http://index.invalid/simple"


@pytest.fixture(params=["byoa_image", "torch_free_image"])
def image(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


@pytest.fixture
def config(engine: Any, image: str) -> dict[str, Any]:
    return engine.images.get(image).attrs["Config"]


@pytest.fixture
def python(engine: Any) -> Callable[[str, str], Any]:
    """Runs a Python program in an image and reads the JSON that it prints."""

    def run(image: str, program: str) -> Any:
        output = engine.containers.run(
            image, ["-c", textwrap.dedent(program)], entrypoint="python", remove=True,
            network_mode="none", labels={"byoa.test": "1"},
        )
        return json.loads(output)

    return run


@pytest.fixture(scope="module")
def sizes() -> ModuleType:
    program = ROOT / "container" / "image" / "size.py"
    spec = importlib.util.spec_from_file_location("image_size", program)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- size -----------------------------------------------------------------------------------------


def _base(config: dict[str, Any]) -> str:
    return config["Labels"]["org.opencontainers.image.base.name"]


def test_an_image_is_within_its_budget(
    sizes: ModuleType, config: dict[str, Any], image: str
) -> None:
    within, text = sizes.report("docker", _base(config), image)
    assert within, text


def test_an_image_over_its_budget_shows_its_ten_largest_directories(
    sizes: ModuleType, engine: Any, torch_free_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sizes.BUDGET_BYTES, "none", 1_000_000)
    base = _base(engine.images.get(torch_free_image).attrs["Config"])
    within, text = sizes.report("docker", base, torch_free_image)
    assert not within
    assert len(text.splitlines()) == 11
    assert "site-packages/scipy" in text


# --- configuration --------------------------------------------------------------------------------


def test_the_entrypoint_is_an_argv_that_takes_train_or_serve(config: dict[str, Any]) -> None:
    """TRAIN-01, HOST-02, CHK-15: exec form, and no init before it."""
    assert config["Entrypoint"] == ["python", "-m", "byoa.container"]
    assert not config["Cmd"]


def test_the_labels_say_what_the_image_can_do(config: dict[str, Any]) -> None:
    """MME-01, PIPE-02, BIDI-01; the version is the project's."""
    labels = config["Labels"]
    multi = labels["com.amazonaws.sagemaker.capabilities.multi-models"]
    assert multi == "true"
    assert labels["com.amazonaws.sagemaker.capabilities.accept-bind-to-port"] == "true"
    assert labels["com.amazonaws.sagemaker.capabilities.bidirectional-streaming"] == "true"
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version and labels["org.opencontainers.image.version"] == version[1]


def test_it_starts_as_root_in_the_authors_directory_without_buffers(
    config: dict[str, Any], python: Callable[[str, str], Any], image: str
) -> None:
    """HOST-02: the platform starts a container as root; byoa's number is there for the workers."""
    assert config["User"] in ("", "root", "0")
    assert config["WorkingDir"] == "/opt/program"
    environment = dict(each.split("=", 1) for each in config["Env"])
    assert environment["PATH"].split(":")[0] == "/opt/byoa/bin"
    assert environment["PYTHONPATH"] == "/opt/program"
    assert environment["PYTHONUNBUFFERED"] == environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert environment["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert config["Healthcheck"]["Test"][-3:] == ["python", "-m", "byoa.container.health"]
    assert python(image, """
        import json, pwd
        print(json.dumps(pwd.getpwnam("byoa").pw_uid))
    """) == 1000


# --- content --------------------------------------------------------------------------------------


def test_nothing_is_below_opt_ml(python: Callable[[str, str], Any], image: str) -> None:
    """The platform's mounts would hide it."""
    assert python(image, "import json, os; print(json.dumps(os.listdir('/opt/ml')))") == []


def test_there_is_no_compiler_no_test_no_source_and_no_cache(
    python: Callable[[str, str], Any], image: str
) -> None:
    found = python(image, """
        import json, os, re, shutil
        compilers = [shutil.which(name) for name in ("cc", "gcc", "g++", "clang", "ld", "make")]
        left, uncompiled = [], []
        for folder, folders, files in os.walk("/opt/byoa"):
            left += [f"{folder}/{name}" for name in folders if name == "tests"]
            left += [f"{folder}/{name}" for name in files if re.search(r"[.](a|h|cpp|pyx)$", name)]
            compiled = os.path.isdir(f"{folder}/__pycache__")
            uncompiled += [f"{folder}/{name}" for name in files
                           if name == "__init__.py" and not compiled]
        caches = [path for path in ("/root/.cache", "/build", "/dist") if os.path.exists(path)]
        print(json.dumps([[c for c in compilers if c], left, uncompiled, caches]))
    """)
    assert found == [[], [], [], []]


def test_what_runs_inside_has_nothing_of_the_local_sagemaker(
    python: Callable[[str, str], Any], image: str
) -> None:
    assert python(image, """
        import importlib.util, json, os
        print(json.dumps([importlib.util.find_spec("byoa.local") is None,
                          os.path.exists("/opt/byoa/bin/byoa")]))
    """) == [True, False]


def test_every_module_that_is_installed_for_a_job_imports(
    python: Callable[[str, str], Any], image: str
) -> None:
    """Tests, headers and the like were taken out of the packages: what is left is whole."""
    names = [
        "boto3", "flask", "gunicorn.app.base", "httptools", "numpy.testing", "numpy.random",
        "orjson", "paramiko", "psutil", "sagemaker_training.entry_point", "gethostname",
        "scipy.linalg", "scipy.optimize", "scipy.signal", "scipy.sparse.csgraph", "scipy.special",
        "scipy.stats", "uvicorn", "uvloop",
    ]
    failed = python(image, f"""
        import importlib, importlib.util, json
        names, failed = {names!r}, {{}}
        if importlib.util.find_spec("torch"):
            names += ["torch.nn", "torch.optim", "torch.utils.data", "torch.distributed",
                      "torch.export", "torch.fx", "torch.jit", "torch.multiprocessing",
                      "safetensors.torch", "sympy"]
        for name in names:
            try:
                importlib.import_module(name)
            except Exception as error:
                failed[name] = repr(error)
        print(json.dumps(failed))
    """)
    assert failed == {}


def test_the_cpu_image_has_torch_for_the_cpu_and_the_other_has_none(
    python: Callable[[str, str], Any], byoa_image: str, torch_free_image: str
) -> None:
    assert python(byoa_image, """
        import json, torch
        print(json.dumps([torch.version.cuda, float((torch.ones(3, 3) @ torch.ones(3)).sum())]))
    """) == [None, 9.0]
    assert python(torch_free_image, """
        import importlib.util, json
        print(json.dumps(importlib.util.find_spec("torch")))
    """) is None


def test_the_bill_of_materials_lists_what_is_installed(
    python: Callable[[str, str], Any], image: str
) -> None:
    bill, installed = python(image, """
        import importlib.metadata, json
        installed = [(d.metadata["Name"], d.version) for d in importlib.metadata.distributions()
                     if str(d.locate_file("")).startswith("/opt/byoa")]
        print(json.dumps([json.load(open("/opt/byoa/sbom.cdx.json")), installed]))
    """)
    assert bill["bomFormat"] == "CycloneDX"
    listed = {(_normal(each["name"]), each["version"]) for each in bill["components"]}
    assert listed == {(_normal(name), version) for name, version in installed}
    locked = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    versions = {name: version.partition("+")[0] for name, version in listed if name != "byoa"}
    assert versions.items() <= locked.items()
    assert {each["name"] for each in bill["components"] if "purl" not in each} <= {"byoa"}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# --- the health check -----------------------------------------------------------------------------


def test_a_job_is_healthy_and_a_server_without_a_model_is_not(
    engine: Any, torch_free_image: str
) -> None:
    for arguments, code, said in (
        ({"entrypoint": "sleep", "command": ["60"]}, 0, ""),
        ({"command": ["serve"]}, 1, "/ping on port 8080"),
    ):
        container = engine.containers.run(
            torch_free_image, detach=True, labels={"byoa.test": "1"}, network_mode="none",
            **arguments,
        )
        try:
            ended = container.exec_run(["python", "-m", "byoa.container.health"])
            assert ended.exit_code == code, ended.output
            assert said in ended.output.decode()
        finally:
            container.remove(force=True)


# --- building -------------------------------------------------------------------------------------


def _builds(cli: str, buildkit: str, folder: Path) -> bool:
    """Whether this CLI drives this builder: one of 23 or newer needs a plug-in for BuildKit."""
    folder.joinpath("Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    tried = subprocess.run(
        [cli, "build", "--quiet", str(folder)], env={**os.environ, "DOCKER_BUILDKIT": buildkit},
        capture_output=True, timeout=120,
    )
    return tried.returncode == 0


@pytest.fixture(scope="module", params=["BuildKit", "the classic builder"])
def offline_image(
    request: pytest.FixtureRequest, engine: Any, base_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The project's Dockerfile built without a network, and with an index that must not show."""
    if not any(ROOT.joinpath("wheels").glob("*.whl")):
        pytest.fail("wheels/ is empty: `make wheels` fills it", pytrace=False)
    buildkit = "1" if request.param == "BuildKit" else "0"
    folder = tmp_path_factory.mktemp("builder")
    clis = dict.fromkeys([shutil.which("docker") or "docker", "/usr/bin/docker"])
    cli = next((each for each in clis if _builds(each, buildkit, folder)), None)
    if cli is None:
        pytest.fail(f"no docker command drives {request.param}; install buildx", pytrace=False)
    tag = f"byoa-test-offline:{uuid.uuid4().hex[:8]}"
    built = subprocess.run(
        [cli, "build", "--network", "none", "--tag", tag, "--label", "byoa.test=1",
         "--build-arg", f"BASE_IMAGE={base_image}", "--build-arg", "TORCH_VARIANT=none",
         "--build-arg", "EXTRAS=fast", "--build-arg", f"PIP_INDEX_URL={SECRET_INDEX}", str(ROOT)],
        env={**os.environ, "DOCKER_BUILDKIT": buildkit}, text=True, timeout=600,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    assert built.returncode == 0, built.stdout[-5000:]
    yield tag
    engine.images.remove(tag, force=True)


def test_it_builds_without_a_network_with_either_builder(
    engine: Any, offline_image: str
) -> None:
    output = engine.containers.run(
        offline_image, ["contract"], remove=True, network_mode="none", labels={"byoa.test": "1"}
    )
    assert b"/opt/ml/model" in output or b"model" in output


def test_nothing_of_the_builders_index_is_left_in_the_image(
    engine: Any, offline_image: str, python: Callable[[str, str], Any]
) -> None:
    attributes = json.dumps(engine.images.get(offline_image).attrs)
    history = json.dumps(engine.images.get(offline_image).history())
    for text in (attributes, history):
        assert SECRET_INDEX not in text
        assert "PIP_" not in text
    assert python(offline_image, f"""
        import json, os
        from pathlib import Path
        found = [str(p) for top in ("/etc", "/root", "/opt", "/home")
                 for p in Path(top).rglob("*")
                 if p.name == "pip.conf" or (p.is_file() and p.suffix in (".json", ".txt", ".cfg")
                    and b"{SECRET_INDEX}" in p.read_bytes())]
        print(json.dumps([found, [name for name in os.environ if name.startswith("PIP_")]]))
    """) == [[], []]


def test_the_images_in_use_have_nothing_of_pips_settings(
    engine: Any, config: dict[str, Any], image: str
) -> None:
    assert not [each for each in config["Env"] if each.startswith(("PIP_", "SSL_", "CURL_"))]
    assert "PIP_" not in json.dumps(engine.images.get(image).history())


# --- an author's own image ------------------------------------------------------------------------

OWN_DOCKERFILE = """\
ARG BASE_IMAGE=byoa
FROM ${BASE_IMAGE}
COPY mean.py .
ENV BYOA_ALGORITHM=mean:Mean
"""
OWN_ALGORITHM = '''\
import json

from byoa.algorithms import Algorithm


class Mean(Algorithm):
    """Predict the mean label."""

    def train(self, run):
        labels = run.channel("train").load().labels
        run.model_dir.joinpath("mean.json").write_text(json.dumps(float(labels.mean())))

    def load(self, model_dir, device):
        return json.loads(model_dir.joinpath("mean.json").read_text())

    def predict(self, model, records):
        return [model] * len(records)
'''
INPUTS = {
    "input/config/hyperparameters.json": "{}",
    "input/config/resourceconfig.json": '{"current_host": "algo-1", "hosts": ["algo-1"],'
                                        ' "network_interface_name": "eth0"}',
    "input/config/inputdataconfig.json": '{"train": {"ContentType": "text/csv",'
                                         ' "TrainingInputMode": "File"}}',
    "input/data/train/part-0.csv": "1,0,0\n2,0,0\n6,0,0\n",
    "model/.keep": "",
    "output/.keep": "",
}


def test_an_image_of_ones_own_is_a_from_line_and_a_copy_and_trains(
    engine: Any, build_image: Callable[..., str], torch_free_image: str, tmp_path: Path
) -> None:
    """TRAIN-01, TRAIN-30: the files of /opt/ml go in and the model comes out."""
    folder = tmp_path / "own"
    folder.mkdir()
    folder.joinpath("Dockerfile").write_text(OWN_DOCKERFILE)
    folder.joinpath("mean.py").write_text(OWN_ALGORITHM)
    image = build_image(folder, BASE_IMAGE=torch_free_image)
    container = engine.containers.create(
        image, ["train"], network_mode="none", labels={"byoa.test": "1"}
    )
    try:
        container.put_archive("/opt/ml", _archive(INPUTS))
        container.start()
        ended = container.wait(timeout=60)
        assert ended["StatusCode"] == 0, container.logs().decode()
        chunks, _ = container.get_archive("/opt/ml/model")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as model:
            mean = model.extractfile("model/mean.json")
            assert mean is not None and json.loads(mean.read()) == 3.0
    finally:
        container.remove(force=True)


def _archive(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def test_an_unknown_extra_or_variant_fails_the_build_and_says_what_there_is(
    tmp_path: Path,
) -> None:
    for program, arguments, said in (
        ("requirements.py", ["fsat", str(tmp_path)], "no extra 'fsat'; it has bench, demo"),
        ("requirements.py", ["demo", str(tmp_path)], "choose it with TORCH_VARIANT"),
        ("install_torch.py", ["gpu"], "TORCH_VARIANT=gpu: it is one of cpu, none"),
    ):
        ended = subprocess.run(
            [sys.executable, str(ROOT / "container" / "image" / program), *arguments], cwd=ROOT,
            capture_output=True, text=True, timeout=60,
        )
        assert ended.returncode == 1
        assert said in ended.stderr
