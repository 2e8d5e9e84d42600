"""What a script needs besides its code: pip, a wheelhouse, an index that isn't there (TK-12)."""

import base64
import json
import os
import socket
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from byoa.container.contract import failure_reason
from byoa.container.errors import AlgorithmError
from byoa.container.script_index import codeartifact, look

QUOTED = {"sagemaker_program": '"train.py"'}
# A loopback port with nobody behind it, as an index: no test asks a real one.
NOBODY = "http://127.0.0.1:9/simple"
ALONE = {"PIP_INDEX_URL": NOBODY, "PIP_CONFIG_FILE": os.devnull}  # nor one of this machine's own
USES = """
import json, os, sys
from pathlib import Path
import tiny
Path(os.environ["SM_OUTPUT_DATA_DIR"], "seen.json").write_text(json.dumps(
    {"value": tiny.VALUE, "file": tiny.__file__, "python": sys.executable,
     "path": os.environ["PATH"], "index": os.environ.get("PIP_INDEX_URL")}))
"""


def wheel(directory, version="1.0", value=7):
    """A wheel of the package `tiny`, made by hand: nothing is downloaded."""
    directory.mkdir(parents=True, exist_ok=True)
    info = f"tiny-{version}.dist-info"
    path = directory / f"tiny-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny.py", f"VALUE = {value}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny\n"
                                             f"Version: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: by hand\n"
                                          "Root-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"tiny.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n"
                                           f"{info}/RECORD,,\n")
    return path


@pytest.fixture
def source(tree):
    """Write files into the code directory, and name train.py."""
    def write(**files):
        for name, text in files.items():
            (tree.layout.code / name.replace("_DOT_", ".")).write_text(text)
        tree.hyperparameters(QUOTED)

    return write


def seen(tree):
    return json.loads((tree.layout.output_data / "seen.json").read_text())


def test_a_wheelhouse_in_the_source_is_all_that_is_asked(tree, source):
    """Pain 30: no network, no index."""
    wheel(tree.layout.code / "wheelhouse")
    source(train_DOT_py=USES, requirements_DOT_txt="tiny==1.0\n")
    code, output = tree.run(**ALONE)
    assert code == 0, output
    assert seen(tree)["value"] == 7
    assert "installing requirements.txt from the source's wheelhouse alone" in output
    assert "requirements.txt installed in " in output
    assert NOBODY not in output


def test_what_is_installed_leaves_this_python_as_it_was_and_goes_with_the_job(tree, source):
    """A job that is a process of this machine must not change the machine's packages."""
    wheel(tree.layout.code / "wheelhouse")
    source(train_DOT_py=USES, requirements_DOT_txt="tiny\n")
    code, output = tree.run()
    assert code == 0, output
    found = seen(tree)
    assert not Path(found["file"]).is_relative_to(sys.prefix)
    assert found["path"].split(os.pathsep)[0] == str(Path(found["python"]).parent)
    assert not Path(found["python"]).exists(), "it goes with the job"


def test_console_scripts_of_the_image_see_what_was_installed(tree, source):
    """As torchrun would, whose first line names the image's Python."""
    wheel(tree.layout.code / "wheelhouse")
    source(requirements_DOT_txt="tiny\n", train_DOT_py="""
import shutil
first = open(shutil.which("pip")).readline()
import sys
assert first.strip() == f"#!{sys.executable}", first
import numpy, byoa.container  # and the image's own packages are there
""")
    code, output = tree.run()
    assert code == 0, output


def test_a_wheelhouse_that_lacks_something_is_named_with_the_command_that_fills_it(tree, source):
    wheel(tree.layout.code / "wheelhouse")
    source(train_DOT_py=USES, requirements_DOT_txt="tiny==2.0\n")
    assert tree.run()[0] == 1
    assert tree.failure.startswith("requirements.txt: pip ended with code 1: ERROR:")
    assert "tiny==2.0" in tree.failure
    assert "pip download --dest wheelhouse -r requirements.txt" in tree.failure
    assert "[REQUIREMENTS_FAILED]" in tree.failure


def test_what_to_do_comes_before_the_end_of_what_pip_says_at_length(tree, source):
    """TRAIN-141: pip lists every version that there is."""
    for number in range(100):
        wheel(tree.layout.code / "wheelhouse", version=f"1.{number}.20260101")
    source(train_DOT_py=USES, requirements_DOT_txt="tiny==2.0\n")
    code, output = tree.run()
    assert code == 1
    assert "1.50.20260101, 1.51.20260101" in output, "all of it is in the log"
    first, last = tree.failure.splitlines()
    assert first.startswith(
        "requirements.txt: pip ended with code 1: ERROR: Could not find a version that satisfies"
        " the requirement tiny==2.0 (from versions: "
    )
    assert " …; expected: " in first
    assert "to do: fill it by `pip download --dest wheelhouse -r requirements.txt`" in first
    assert first.endswith(" [REQUIREMENTS_FAILED]")
    assert last.startswith("caused by PipError: … ")
    assert last.endswith("1.99.20260101) ERROR: No matching distribution found for tiny==2.0")
    assert failure_reason(1, tree.failure) == f"AlgorithmError: {tree.failure}, exit code: 1"


def test_without_a_network_the_reason_comes_before_pip_s_own_time_outs(tree, source):
    """TRAP-52: what pip would find out in minutes."""
    source(train_DOT_py=USES, requirements_DOT_txt="tiny==1.0\n")
    code, output = tree.run(**ALONE)
    assert code == 1
    assert tree.failure.startswith(
        "requirements.txt: no package index can be reached from here (127.0.0.1:9: "
    )
    for part in ("EnableNetworkIsolation", "wheelhouse", "[REQUIREMENTS_UNREACHABLE]"):
        assert part in tree.failure
    assert "Retrying" not in output, "pip is not let to try"


def test_requirements_that_the_image_meets_need_no_network(tree, source):
    source(train_DOT_py="import numpy", requirements_DOT_txt="numpy\n")
    code, output = tree.run(**ALONE)
    assert code == 0, output
    assert "must be met by what the image has" in output


def test_a_mistake_in_the_requirements_is_pip_s_own_word(tree, source):
    source(train_DOT_py=USES, requirements_DOT_txt="./dependency\n")
    code, _ = tree.run(PIP_NO_INDEX="1")
    assert code == 1
    assert tree.failure.startswith("requirements.txt: pip ended with code ")
    assert "dependency" in tree.failure


@pytest.mark.parametrize("file", ["setup.py", "pyproject.toml"])
def test_a_package_is_installed_with_its_requirements_and_run_as_a_module(tree, file):
    """TK-04, TK-12: pip install . -r requirements.txt, then python -m."""
    code = tree.layout.code
    wheel(code / "wheelhouse")
    (code / "requirements.txt").write_text("tiny\n")
    if file == "setup.py":
        text = ("from setuptools import setup\n"
                "setup(name='trainer', version='1', package_dir={'': 'src'}, packages=['trainer'])")
    else:
        text = ("[build-system]\nrequires = ['setuptools']\n"
                "build-backend = 'setuptools.build_meta'\n"
                "[project]\nname = 'trainer'\nversion = '1'\n")
    (code / file).write_text(text)
    package = code / "src" / "trainer"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(USES + "\nprint('args', sys.argv[1:])\n")
    tree.hyperparameters({"sagemaker_program": '"trainer"', "text": '"a b"'})
    exit_code, output = tree.run()
    assert exit_code == 0, output
    assert seen(tree)["value"] == 7
    assert "args ['--text', 'a b']" in output
    (package / "__main__.py").write_text("def fit():\n    raise ValueError('no good')\nfit()\n")
    assert tree.run()[0] == 1
    assert tree.failure.startswith(
        "ValueError: no good at trainer/__main__.py:2 in fit: raise ValueError('no good')"
    )


def test_sigterm_while_pip_installs_ends_the_job_without_a_failure(tree, source):
    """TRAIN-150"""
    import signal

    source(train_DOT_py=USES, requirements_DOT_txt="tiny\n")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # an index that never answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        with tree.start(**ALONE | {"PIP_INDEX_URL": address}) as process:
            for line in process.stdout:
                if line.startswith("Looking in indexes"):
                    break
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert "stopped before train.py was started" in output
    assert tree.failure is None


# --- which index ---


def test_the_index_is_pip_s_own_and_the_requirements_own_options_win(tmp_path):
    environ = {"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": os.devnull, "HOME": str(tmp_path)}
    requirements = tmp_path / "requirements.txt"
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = f"http://127.0.0.1:{server.getsockname()[1]}/simple"

        def unreachable(text="", **more):
            requirements.write_text(text)
            return look(sys.executable, requirements, environ | more).unreachable

        assert unreachable(PIP_INDEX_URL=there) is None
        assert "127.0.0.1:9" in unreachable(PIP_INDEX_URL=NOBODY)
        assert unreachable(PIP_INDEX_URL=NOBODY, PIP_EXTRA_INDEX_URL=there) is None
        assert unreachable(f"--index-url {there}\nx\n", PIP_INDEX_URL=NOBODY) is None
        assert unreachable(f"x\n--extra-index-url={there}\n", PIP_INDEX_URL=NOBODY) is None
        assert "127.0.0.1:9" in unreachable(f"-i {NOBODY}\n", PIP_INDEX_URL=there)
        # What is reached through a proxy stands and falls with it.
        proxy = there.removesuffix("/simple")
        assert unreachable(PIP_INDEX_URL=NOBODY, http_proxy=proxy) is None
        assert "127.0.0.1:9" in unreachable(
            PIP_INDEX_URL=NOBODY, http_proxy=proxy, no_proxy="127.0.0.1"
        )
        assert look(sys.executable, requirements, environ | {"PIP_NO_INDEX": "1"}).offline
        requirements.write_text("--no-index\n")
        assert look(sys.executable, requirements, environ).offline


def test_an_index_whose_name_does_not_resolve_is_named(tmp_path):
    """What network isolation looks like."""
    environ = {"PATH": os.environ["PATH"]} | ALONE | {
        "PIP_INDEX_URL": "https://index.invalid/simple"
    }
    reason = look(sys.executable, tmp_path / "none", environ).unreachable
    assert reason.startswith("index.invalid:443: ")


# --- CodeArtifact ---

ARN = "arn:aws:codeartifact:us-west-2:123456789012:repository/my-domain/my-repository"


@pytest.fixture
def artifacts(monkeypatch):
    """CodeArtifact's two operations; what was asked, and the address."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            url = urlsplit(self.path)
            asked.append((url.path, {k: v[0] for k, v in parse_qs(url.query).items()}))
            body = json.dumps({
                "authorizationToken": "secret",
                "repositoryEndpoint": "https://my-domain.example/pypi/my-repository/",
            }).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    for name, value in (("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"),
                        ("AWS_CONFIG_FILE", os.devnull), ("AWS_ENDPOINT_URL_CODEARTIFACT", url)):
        monkeypatch.setenv(name, value)
    yield asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_codeartifact_repository_is_pip_s_index(artifacts):
    """TK-12"""
    assert codeartifact({"CA_REPOSITORY_ARN": ARN}) == {
        "PIP_INDEX_URL": "https://aws:secret@my-domain.example/pypi/my-repository/simple/"
    }
    owner = {"domain": "my-domain", "domain-owner": "123456789012"}
    assert artifacts == [
        ("/v1/authorization-token", owner),
        ("/v1/repository/endpoint", owner | {"repository": "my-repository", "format": "pypi"}),
    ]


def test_an_arn_that_is_none_of_a_repository_is_named():
    with pytest.raises(AlgorithmError, match="CODEARTIFACT_UNAVAILABLE") as caught:
        codeartifact({"CA_REPOSITORY_ARN": "arn:aws:s3:::bucket"})
    assert caught.value.where == "CA_REPOSITORY_ARN"


def test_the_token_is_neither_printed_nor_the_script_s(tree, source, artifacts, tmp_path):
    source(train_DOT_py="import os; print('index', os.environ.get('PIP_INDEX_URL'))",
           requirements_DOT_txt="numpy\n")
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_CONFIG_FILE",
             "AWS_ENDPOINT_URL_CODEARTIFACT")
    code, output = tree.run(
        CA_REPOSITORY_ARN=ARN, PIP_CONFIG_FILE=os.devnull,
        **{name: os.environ[name] for name in names},
    )
    assert code == 0, output
    assert "my-domain.example:443" in output, "which no network of a test has"
    assert "secret" not in output and base64.b64encode(b"aws:secret").decode() not in output
    assert "index None" in output
