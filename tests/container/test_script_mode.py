"""Script mode: the user's train.py as the training toolkit would start it (TK-01 … TK-12)."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import textwrap

import pytest

from byoa.container import script_mode
from byoa.container.contract import Layout
from byoa.container.errors import AlgorithmError, UnsupportedError

QUOTED = {"sagemaker_program": '"train.py"'}


@pytest.fixture
def layout(tmp_path):
    made = Layout(tmp_path / "ml")
    made.create()
    return made


@pytest.fixture
def script(tree):
    """Write the user's source into the code directory."""
    pytest.importorskip("sagemaker_training")

    def write(source, name="train.py"):
        path = tree.layout.code / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))

    return write


RECORD = """
    import json, os, sys
    from pathlib import Path
    seen = {"argv": sys.argv, "cwd": os.getcwd(), "environ": dict(os.environ), "path": sys.path}
    Path(os.environ["SM_OUTPUT_DATA_DIR"], "seen.json").write_text(json.dumps(seen))
    Path(os.environ["SM_MODEL_DIR"], "model.txt").write_text("trained")
    print("loss=0.5")
"""


def seen(tree):
    return json.loads((tree.layout.output_data / "seen.json").read_text())


def test_the_script_runs_with_the_toolkit_s_arguments_and_variables(tree, script):
    """FIX-02, TK-03, TK-05, TK-07, TK-08"""
    script(RECORD)
    tree.channels(train="1\n", test="1\n")
    tree.hyperparameters({
        "epochs": "10", "lr": "0.1", "optimizer": '"adam"', "b": "7", "flag": "true",
        "layers": "[1, 2]", "sagemaker_container_log_level": "20",
        "sagemaker_job_name": '"job-1"', "sagemaker_region": '"us-west-2"', **QUOTED,
    })
    code, output = tree.run()
    assert code == 0, output
    assert "loss=0.5" in output.splitlines()
    found = seen(tree)
    root = str(tree.layout.root)
    assert found["argv"] == [
        "train.py", "-b", "7", "--epochs", "10", "--flag", "True", "--layers", "[1, 2]",
        "--lr", "0.1", "--optimizer", "adam",
    ]
    assert found["cwd"] == f"{root}/code"
    assert f"{root}/code" in found["path"]
    environ = found["environ"]
    assert json.loads(environ["SM_HPS"]) == {
        "epochs": 10, "lr": 0.1, "optimizer": "adam", "b": 7, "flag": True, "layers": [1, 2]
    }
    expected = {
        "SM_MODEL_DIR": f"{root}/model", "SM_INPUT_DIR": f"{root}/input",
        "SM_INPUT_CONFIG_DIR": f"{root}/input/config", "SM_OUTPUT_DIR": f"{root}/output",
        "SM_OUTPUT_DATA_DIR": f"{root}/output/data", "SM_CHANNELS": '["test","train"]',
        "SM_CHANNEL_TRAIN": f"{root}/input/data/train", "SM_HP_OPTIMIZER": "adam",
        "SM_CURRENT_HOST": "algo-1", "SM_HOSTS": '["algo-1"]', "SM_USER_ENTRY_POINT": "train.py",
        "SM_MODULE_NAME": "train", "SM_CURRENT_INSTANCE_TYPE": "ml.c5.xlarge",
        "SM_CURRENT_INSTANCE_GROUP": "homogeneousCluster", "SM_LOG_LEVEL": "20",
        "CURRENT_HOST": "algo-1", "SAGEMAKER_JOB_NAME": "job-1", "SAGEMAKER_REGION": "us-west-2",
        "SAGEMAKER_PROGRAM": "train.py", "PYTHONUNBUFFERED": "1",
    }
    assert {name: environ.get(name) for name in expected} == expected
    assert tree.model == {"model.txt"}
    assert tree.failure is None
    assert not (tree.layout.output / "intermediate").exists()  # TRAIN-33


@pytest.mark.parametrize("value", [
    "a b", "$(touch made)", "`touch made`; touch made", "it's \"quoted\"", "line\nbreak", "",
    "--flag", "*", "é",
])
def test_a_hyperparameter_arrives_unchanged(tree, script, value):
    """Pain 11: nothing between the file and the script's argv is a shell."""
    script(RECORD)
    tree.hyperparameters({"text": json.dumps(value), **QUOTED})
    code, output = tree.run()
    assert code == 0, output
    assert seen(tree)["argv"] == ["train.py", "--text", value]
    assert not (tree.layout.code / "made").exists()


def test_the_program_may_come_from_the_environment(tree, script):
    """TK-02"""
    script(RECORD, "src/run_it.py")
    code, output = tree.run(SAGEMAKER_PROGRAM="src/run_it.py")
    assert code == 0, output
    assert seen(tree)["argv"] == ["src/run_it.py"]


def test_the_home_directory_stays_as_it_was(tree, script, tmp_path):
    """The toolkit's import may make directories there."""
    script(RECORD)
    home = tmp_path / "home"
    home.mkdir()
    tree.hyperparameters(QUOTED)
    code, output = tree.run(HOME=str(home))
    assert code == 0, output
    assert list(home.iterdir()) == []


def test_a_script_s_failure_is_its_exception_and_line_and_exit_code_1(tree, script):
    """TK-09, TRAP-23, pain 2"""
    script("""
        import sys
        def fit():
            raise RuntimeError("loss is nan")
        fit()
    """)
    tree.hyperparameters({"epochs": "3", **QUOTED})
    code, output = tree.run()
    assert code == 1
    assert tree.failure.startswith(
        'RuntimeError: loss is nan at train.py:4 in fit: raise RuntimeError("loss is nan")\n'
    )
    assert "Traceback (most recent call last)" in output


def test_the_exit_code_is_1_whatever_the_script_s_own_is(tree, script):
    """TK-09"""
    script("import sys; print('giving up', flush=True); sys.exit(42)")
    tree.hyperparameters(QUOTED)
    assert tree.run()[0] == 1
    assert "exited with code 42" in tree.failure and "giving up" in tree.failure


def test_a_failure_file_of_the_script_s_own_stays(tree, script):
    """TK-09"""
    script("""
        import os
        open(os.path.join(os.environ["SM_OUTPUT_DIR"], "failure"), "w").write("my own words")
        raise SystemExit(1)
    """)
    tree.hyperparameters(QUOTED)
    assert tree.run()[0] == 1
    assert tree.failure == "my own words"


def test_a_crash_in_c_is_named_by_its_signal(tree, script):
    script("import ctypes; ctypes.string_at(0)")
    tree.hyperparameters(QUOTED)
    code, output = tree.run()
    assert code == 1
    assert tree.failure.startswith("SIGSEGV: train.py was ended by signal 11")
    assert "Fatal Python error: Segmentation fault" in output


def test_sigterm_reaches_the_script_which_saves(tree, script):
    """CHK-03, TRAIN-151, pain 9"""
    script("""
        import os, signal, sys, time
        def save(*_):
            open(os.path.join(os.environ["SM_MODEL_DIR"], "model.txt"), "w").write("early")
            sys.exit(0)
        signal.signal(signal.SIGTERM, save)
        print("ready")
        time.sleep(60)
    """)
    tree.hyperparameters(QUOTED)
    with tree.start() as process:
        for line in process.stdout:
            if line == "ready\n":
                break
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert tree.model == {"model.txt"}


def test_a_script_that_ignores_the_matter_ends_by_sigterm_and_is_told(tree, script):
    script("import time; print('ready'); time.sleep(60)")
    tree.hyperparameters(QUOTED)
    with tree.start() as process:
        for line in process.stdout:
            if line == "ready\n":
                break
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 143  # TRAIN-144
    assert "handle it to save the model" in output


def test_requirements_are_installed_for_the_script(tree, script, tmp_path):
    """TK-12: here a package of the source itself, so that nothing is downloaded."""
    script(RECORD)
    package = tree.layout.code / "dependency"
    package.mkdir()
    (package / "pyproject.toml").write_text("not a project")
    (tree.layout.code / "requirements.txt").write_text("./dependency\n")
    tree.hyperparameters(QUOTED)
    code, _ = tree.run(PIP_NO_INDEX="1")
    assert code == 1
    assert tree.failure.startswith("requirements.txt: pip ended with code ")
    assert "[REQUIREMENTS_FAILED]" in tree.failure
    (tree.layout.code / "requirements.txt").write_text("# none\n")
    code, output = tree.run(PIP_NO_INDEX="1")
    assert code == 0, output
    assert "requirements.txt installed in " in output


def test_a_launcher_of_many_processes_is_refused(tree, script):
    """TRAIN-45, DIST-09"""
    script(RECORD)
    tree.hyperparameters({"sagemaker_mpi_enabled": "true", **QUOTED})
    assert tree.run()[0] == 1
    assert tree.failure.startswith("sagemaker_mpi_enabled: not run here")
    assert "[LAUNCHER_UNSUPPORTED]" in tree.failure
    tree.hyperparameters({"sagemaker_mpi_enabled": "false", **QUOTED})
    assert tree.run()[0] == 0


def test_without_the_toolkit_the_extra_is_named(tree):
    """A finder hides the package, whether it is installed or not."""
    program = (
        "import sys\n"
        "sys.modules['sagemaker_training'] = None\n"
        "import importlib.util\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'sagemaker_training'"
        " else real(name, *a)\n"
        "from byoa.container.__main__ import main\n"
        "sys.exit(main(['train']))\n"
    )
    tree.hyperparameters(QUOTED)
    done = subprocess.run(
        [sys.executable, "-c", program], env=tree.environ(), timeout=60, capture_output=True
    )
    assert done.returncode == 1
    assert "pip install 'byoa[script]'" in tree.failure
    assert "[SCRIPT_MODE_MISSING]" in tree.failure


# --- where the code comes from ---


def archive(files, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, text in files.items():
            data = text.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_a_directory_is_copied_into_the_code_directory(layout, tmp_path):
    source = tmp_path / "src"
    (source / "lib").mkdir(parents=True)
    (source / "train.py").write_text("1")
    (source / "lib" / "a.py").write_text("2")
    script_mode.fetch(str(source), layout, {})
    assert (layout.code / "lib" / "a.py").read_text() == "2"


def test_a_directory_of_the_contract_is_found_in_the_layout(layout):
    channel = layout.channel("code")
    channel.mkdir()
    (channel / "train.py").write_text("1")
    script_mode.fetch("/opt/ml/input/data/code", layout, {})
    assert (layout.code / "train.py").exists()


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_an_archive_is_unpacked(layout, tmp_path, form):
    path = tmp_path / "source dir.tar.gz"
    path.write_bytes(archive({"train.py": "1"}))
    script_mode.fetch(form.format(path), layout, {})
    assert (layout.code / "train.py").read_text() == "1"


def test_what_is_in_the_code_directory_already_is_used(layout, tmp_path):
    """TK-03"""
    (layout.code / "train.py").write_text("mine")
    script_mode.fetch("s3://bkt/nowhere.tar.gz", layout, {})
    assert (layout.code / "train.py").read_text() == "mine"


def test_an_archive_that_would_leave_the_directory_is_refused(layout, tmp_path):
    path = tmp_path / "evil.tar.gz"
    path.write_bytes(archive({"../outside.py": "1"}))
    with pytest.raises(AlgorithmError, match="SOURCE_INVALID"):
        script_mode.fetch(str(path), layout, {})
    assert not (layout.root / "outside.py").exists()


def test_a_source_that_is_no_archive_or_does_not_exist_is_named(layout, tmp_path):
    (tmp_path / "x").write_text("not a tar")
    with pytest.raises(AlgorithmError, match="SOURCE_INVALID"):
        script_mode.fetch(str(tmp_path / "x"), layout, {})
    with pytest.raises(AlgorithmError, match="SOURCE_MISSING"):
        script_mode.fetch(str(tmp_path / "nowhere"), layout, {})


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """An HTTP server that answers GET and HEAD of one bucket's objects, as S3 does."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    objects = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            data = objects.get(self.path)
            self.send_response(200 if data is not None else 404)
            self.send_header("Content-Length", str(len(data or b"")))
            self.send_header("ETag", '"e"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data or b"")

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    yield objects, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_object_in_s3_is_downloaded_and_unpacked(layout, s3):
    """TRAIN-45, TK-08: S3_ENDPOINT_URL and the Region are honoured."""
    objects, url = s3
    objects["/bkt/job-1/source/sourcedir.tar.gz"] = archive({"train.py": "from s3"})
    environ = {"S3_ENDPOINT_URL": url, "AWS_REGION": "us-west-2"}
    script_mode.fetch("s3://bkt/job-1/source/sourcedir.tar.gz", layout, environ)
    assert (layout.code / "train.py").read_text() == "from s3"


def test_an_object_that_is_not_there_is_named(layout, s3):
    environ = {"S3_ENDPOINT_URL": s3[1]}
    with pytest.raises(AlgorithmError, match="SOURCE_DOWNLOAD_FAILED") as caught:
        script_mode.fetch("s3://bkt/none.tar.gz", layout, environ, region="us-west-2")
    assert caught.value.message.startswith("s3://bkt/none.tar.gz: ")


# --- the entry point ---


@pytest.mark.parametrize(("entry", "code"), [
    ("run.sh", "ENTRY_POINT_UNSUPPORTED"), ("package", "ENTRY_POINT_UNSUPPORTED"),
    ("../train.py", "ENTRY_POINT_OUTSIDE"), ("trian.py", "ENTRY_POINT_MISSING"),
])
def test_an_entry_point_that_cannot_run_is_refused(layout, entry, code):
    """TK-04"""
    (layout.code / "train.py").write_text("")
    with pytest.raises((AlgorithmError, UnsupportedError)) as caught:
        script_mode.check_entry(entry, layout.code)
    assert caught.value.code == code


def test_a_mistyped_entry_point_is_corrected(layout):
    (layout.code / "train.py").write_text("")
    with pytest.raises(AlgorithmError, match="did you mean 'train.py'"):
        script_mode.check_entry("trian.py", layout.code)


def test_a_source_that_is_a_package_is_refused(layout):
    (layout.code / "train.py").write_text("")
    (layout.code / "setup.py").write_text("")
    with pytest.raises(UnsupportedError, match="requirements.txt"):
        script_mode.check_entry("train.py", layout.code)
