"""Script mode: the user's train.py as the training toolkit would start it (TK-01 … TK-12)."""

import json
import signal
import textwrap

import pytest

QUOTED = {"sagemaker_program": '"train.py"'}


@pytest.fixture
def script(tree):
    """Write the user's source into the code directory."""
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


def test_a_launcher_of_many_processes_is_refused(tree, script):
    """TRAIN-45, DIST-09"""
    script(RECORD)
    tree.hyperparameters({"sagemaker_mpi_enabled": "true", **QUOTED})
    assert tree.run()[0] == 1
    assert "[LAUNCHER_UNSUPPORTED]" in tree.failure
    tree.hyperparameters({"sagemaker_mpi_enabled": "false", **QUOTED})
    assert tree.run()[0] == 0
