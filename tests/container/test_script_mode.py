"""Script mode: the user's train.py as the training toolkit would start it (TK-01 … TK-12)."""

import json
import os
import signal
import subprocess
import sys
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
    assert tree.failure.startswith("sagemaker_mpi_enabled: not run here")
    assert "[LAUNCHER_UNSUPPORTED]" in tree.failure
    tree.hyperparameters({"sagemaker_mpi_enabled": "false", **QUOTED})
    assert tree.run()[0] == 0


# --- modules, commands, a framework's program ---


def test_a_module_of_the_source_is_run_as_one(tree, script):
    """TK-04"""
    script(RECORD, "trainer/fit.py")
    tree.hyperparameters({"sagemaker_program": '"trainer.fit"', "a": "1"})
    code, output = tree.run()
    assert code == 0, output
    assert seen(tree)["argv"][1:] == ["-a", "1"]
    assert tree.model == {"model.txt"}


AWKWARD = 'two words "quoted" \'single\' ünï😀 $(touch made) `touch made`; touch made\nline'


@pytest.mark.parametrize("shebang", ["#!/bin/sh\n", ""])
def test_a_shell_script_is_given_its_arguments_whole(tree, script, shebang):
    """TK-04, TK-05: as an argv; requirements are for Python programs (TK-12)."""
    script(f"""{shebang}printf '%s|' "$@" > "$SM_OUTPUT_DATA_DIR/args"
echo "in $PWD as $SM_CURRENT_HOST"
""", "bin/run.sh")
    (tree.layout.code / "requirements.txt").write_text("no-such-package\n")
    tree.hyperparameters({"sagemaker_program": '"bin/run.sh"', "text": json.dumps(AWKWARD),
                          "empty": '""'})
    code, output = tree.run()
    assert code == 0, output
    found = (tree.layout.output_data / "args").read_text()
    assert found == f"--empty||--text|{AWKWARD}|"
    assert f"in {tree.layout.code} as algo-1" in output
    assert not (tree.layout.code / "made").exists()


def test_a_program_of_the_source_is_run_by_its_first_line(tree, script):
    """TK-04"""
    script("#!/usr/bin/env python3\nimport sys; print('here', sys.argv)\n", "fit")
    tree.hyperparameters({"sagemaker_program": '"fit"', "a": "1"})
    code, output = tree.run()
    assert code == 0, output
    assert "here ['./fit', '-a', '1']" in output


def test_a_shell_script_s_failure_is_its_python_program_s(tree, script):
    """TK-09, TK-10"""
    script("def fit():\n    raise ValueError('no good')\nfit()\n")
    script("set -e\npython train.py\n", "run.sh")
    tree.hyperparameters({"sagemaker_program": '"run.sh"'})
    assert tree.run()[0] == 1
    assert tree.failure.startswith("ValueError: no good at train.py:2 in fit: raise ValueError(")
    script("echo begun; no-such-command --flag\n", "run.sh")
    assert tree.run()[0] == 1
    assert tree.failure.startswith("run.sh exited with code 127")
    assert "no-such-command: not found" in tree.failure


def test_a_first_line_that_names_no_program_is_told(tree, script):
    script("#!/no/such/shell\necho\n", "run.sh")
    tree.hyperparameters({"sagemaker_program": '"run.sh"'})
    assert tree.run()[0] == 1
    assert tree.failure.startswith("run.sh: ./run.sh cannot be run: No such file or directory")
    assert "[SCRIPT_NOT_STARTED]" in tree.failure


def test_a_child_process_s_exception_is_the_cause(tree, script):
    """Pain 2: not that some command has returned a code."""
    script("raise KeyError('column')\n", "prepare.py")
    script("import subprocess, sys\nsubprocess.run([sys.executable, 'prepare.py'], check=True)\n")
    tree.hyperparameters(QUOTED)
    assert tree.run()[0] == 1
    assert tree.failure.startswith("KeyError: 'column' at prepare.py:1")


def test_a_framework_s_training_program_is_run_in_place_of_the_script(tree):
    """TK-01: SAGEMAKER_TRAINING_MODULE; it finds the variables, and fetches code by itself."""
    code, output = tree.run(
        SAGEMAKER_TRAINING_MODULE="training_framework:main", SAGEMAKER_PROGRAM="train.py",
        SAGEMAKER_SUBMIT_DIRECTORY="s3://bkt/nowhere.tar.gz",
    )
    assert code == 0, output
    assert "the framework trains train.py for training_framework:main" in output
    code, _ = tree.run(SAGEMAKER_TRAINING_MODULE="training_framework:fail")
    assert code == 1
    assert tree.failure.startswith("LookupError: no script at ")
    code, _ = tree.run(SAGEMAKER_TRAINING_MODULE="training_framework")
    assert code == 1
    assert "[TRAINING_MODULE_INVALID]" in tree.failure


def test_an_algorithm_and_a_framework_s_program_are_one_too_many(tree):
    code, _ = tree.run(
        SAGEMAKER_TRAINING_MODULE="training_framework:main", BYOA_ALGORITHM="nearest-centroid"
    )
    assert code == 1
    assert "[ALGORITHM_AMBIGUOUS]" in tree.failure
    assert "SAGEMAKER_TRAINING_MODULE" in tree.failure


# --- the end ---


def test_success_is_written_down_and_an_earlier_one_s_is_removed(tree, script):
    """TK-09"""
    script("pass\n")
    tree.hyperparameters(QUOTED)
    success = tree.layout.output / "success"
    assert tree.run()[0] == 0
    assert success.exists() and tree.failure is None
    script("raise SystemExit(3)\n")
    assert tree.run()[0] == 1
    assert not success.exists() and tree.failure is not None


def test_what_is_written_to_intermediate_is_copied_to_s3(tree, script, sagemaker):
    """TK-13; a platform that has made the directory does it by itself (TRAIN-33)."""
    bucket = f"intermediate-{os.getpid()}"
    client = sagemaker.client("s3")
    client.create_bucket(Bucket=bucket)
    script("""
        import os, time
        from pathlib import Path
        place = Path(os.environ["SM_OUTPUT_INTERMEDIATE_DIR"])
        (place / "early").mkdir()
        (place / "early" / "a.txt").write_text("first")
        time.sleep(3)
        (place / "late.txt").write_text("second")
    """)
    tree.hyperparameters({"sagemaker_s3_output": f'"s3://{bucket}/out/"', **QUOTED})
    aws = {"AWS_ENDPOINT_URL": sagemaker.url, "AWS_REGION": "us-east-1",
           "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    code, output = tree.run(TRAINING_JOB_NAME="job-1", **aws)
    assert code == 0, output
    listed = client.list_objects_v2(Bucket=bucket)["Contents"]
    assert [each["Key"] for each in listed] == [
        "out/job-1/output/intermediate/early/a.txt", "out/job-1/output/intermediate/late.txt",
    ]
    early, late = (each["LastModified"] for each in listed)
    assert early < late, "while the script ran"


# --- what the toolkit does, and this does not ---


def test_nothing_third_party_is_imported_on_the_way_to_the_script(tree, script):
    """Pain 13, pain 27: a script's dependencies cannot conflict with ours; nor need the training
    toolkit be there."""
    script("print('ran')\n")
    tree.hyperparameters(QUOTED)
    program = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from byoa.container.__main__ import main\n"
        "code = main(['train'])\n"
        "names = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print('foreign', sorted(names - set(sys.stdlib_module_names) - {'byoa'}))\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=tree.environ(), timeout=60, capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "foreign []" in done.stdout


def test_the_name_of_an_error_in_the_output_is_no_error(tree, script):
    """TK-10 looks for names of exceptions in lines; here only a traceback's shape counts."""
    script("""
        print("ValueError: a warning that a library prints", flush=True)
        print("no MemoryError here", flush=True)
        raise SystemExit(3)
    """)
    tree.hyperparameters(QUOTED)
    assert tree.run()[0] == 1
    assert tree.failure.startswith("train.py exited with code 3 and printed no traceback")
    assert "OutOfMemory" not in tree.failure
