"""`python -m byoa.container process` end to end, as a job runs it (PROC-01 … PROC-19)."""

import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from byoa.container import contract
from byoa.container.contract import (
    MESSAGE_LIMIT_BYTES,
    Layout,
    ProcessingHosts,
    ProcessingJobConfig,
)
from byoa.container.errors import ContractError
from byoa.container.process import find

GOLDEN = Path(__file__).parent / "fixtures" / "config" / "fix-19-processingjobconfig.json"


@pytest.fixture
def job(tree):
    """A processing job's tree: the golden config, and the directory of the SDK's script."""
    layout = tree.layout
    layout.processing_config.mkdir()
    (layout.processing_config / "processingjobconfig.json").write_bytes(GOLDEN.read_bytes())
    ProcessingHosts("algo-2", ("algo-1", "algo-2")).write(layout)
    tree.code = layout.processing / "input" / "code"
    tree.code.mkdir(parents=True)

    def write(source, name="clean.py"):
        (tree.code / name).write_text(textwrap.dedent(source))
        return tree.code / name

    tree.write = write
    return tree


def message(tree):
    return tree.layout.message.read_text(encoding="utf-8") if tree.layout.message.exists() else None


# --- what is run ---


def test_a_script_is_run_with_this_python_and_its_arguments(job):
    """PROC-01, PROC-13"""
    script = job.write("import sys; print(sys.executable, sys.argv[1:])")
    code, output = job.run("process", str(script), "--rows", "100")
    assert code == 0
    assert f"{sys.executable} ['--rows', '100']" in output.splitlines()
    assert message(job) is None


def test_a_script_is_found_where_the_sdk_s_processors_put_it(job):
    """PROC-19"""
    job.write("print('found')")
    code, output = job.run("process", "clean.py")
    assert code == 0 and "found" in output.splitlines()


def test_the_script_of_the_working_directory_comes_first(job):
    job.write("print('of the job')")
    (job.layout.root / "clean.py").write_text("print('of the image')")
    assert "of the image" in job.run("process", "clean.py")[1]


def test_a_module_is_run_with_its_arguments(job):
    code, output = job.run("process", "-m", "json.tool", "--help")
    assert code == 0 and "usage: " in output


def test_another_program_is_run_as_it_is(job):
    """A file with the executable bit, and a command on PATH."""
    script = job.write("#!/bin/sh\necho made by $0 $1\n", "clean.sh")
    script.chmod(0o755)
    assert f"made by {script} 7" in job.run("process", "clean.sh", "7")[1].splitlines()
    script.chmod(0o644)
    assert f"made by {script} 8" in job.run("process", "sh", str(script), "8")[1].splitlines()


def test_the_plan_tells_the_host_and_the_job_s_places(job):
    """PROC-04, PROC-05"""
    job.write("")
    _, output = job.run("process", "clean.py")
    (plan,) = [line for line in output.splitlines() if line.startswith("plan: ")]
    assert plan.startswith("plan: clean.py on algo-2 (2 of 2): ")
    assert plan.endswith("; inputs in; outputs out")


def test_a_program_by_hand_needs_no_config(tree, tmp_path):
    script = tmp_path / "hello.py"
    script.write_text("print('hello')")
    code, output = tree.run("process", str(script))
    assert code == 0 and "on algo-1 (1 of 1)" in output and "hello" in output.splitlines()


# --- what is refused ---


def test_without_a_program_an_example_is_shown(job):
    code, output = job.run("process")
    assert code == 1
    assert "[PROGRAM_MISSING]" in output and "docker run IMAGE process clean.py" in output
    assert "ContainerArguments" in output
    assert message(job).startswith("process was given no program to run")


def test_a_mistyped_script_is_corrected(job):
    job.write("")
    code, output = job.run("process", "claen.py")
    assert code == 1
    assert "there is no program 'claen.py'; did you mean 'clean.py'?" in output
    assert message(job).startswith("there is no program 'claen.py'")


def test_a_script_that_s3_brought_without_its_bit_is_named_with_the_cure(job):
    script = job.write("#!/bin/sh\n", "clean.sh")
    code, output = job.run("process", "clean.sh")
    assert code == 1
    assert "[PROGRAM_NOT_EXECUTABLE]" in output and f"process bash {script}" in output


def test_a_program_of_no_known_format_is_a_clear_error(job):
    script = job.write("no interpreter", "clean")
    script.chmod(0o755)
    code, output = job.run("process", "clean")
    assert code == 1 and "[PROGRAM_NOT_STARTED]" in output
    assert "Exec format error" in message(job)


def test_a_module_has_to_be_named(tmp_path):
    with pytest.raises(ContractError, match="PROGRAM_MISSING"):
        find(["-m"], Layout(tmp_path))


# --- how it ends ---


def test_an_exception_s_line_comes_first_in_the_message(job):
    """PROC-12, TRAP-45"""
    job.write("""
        def clean():
            raise ValueError("no rows")
        clean()
    """)
    code, output = job.run("process", "clean.py")
    assert code == 1
    assert message(job).startswith(
        'ValueError: no rows at clean.py:3 in clean: raise ValueError("no rows")'
    )
    assert len(job.layout.message.read_bytes()) <= MESSAGE_LIMIT_BYTES
    assert "Traceback (most recent call last)" in output
    assert job.failure is None  # that file is a training job's


def test_the_exit_code_is_the_program_s(job):
    """PROC-13, CHK-18"""
    job.write("import sys; print('no rows'); sys.exit(7)")
    assert job.run("process", "clean.py")[0] == 7
    assert message(job).startswith("clean.py exited with code 7")
    assert "no rows" in message(job)


def test_a_message_of_the_program_s_own_is_kept(job):
    """PROC-12: it is shown for any end."""
    job.write("""
        import os, sys
        path = os.environ["SAGEMAKER_BASE_DIR"] + "/output/message"
        open(path, "w", encoding="utf-8").write("größer als erlaubt")
        sys.exit(int(sys.argv[1]))
    """)
    for code in (0, 1):
        assert job.run("process", "clean.py", str(code))[0] == code
        assert message(job) == "größer als erlaubt"


def test_the_message_of_an_earlier_run_is_not_this_one_s(job):
    job.write("")
    job.layout.message.write_text("an earlier failure")
    assert job.run("process", "clean.py")[0] == 0
    assert message(job) is None


def test_a_message_is_cut_to_the_service_s_bytes_at_a_character(job):
    """PROC-12: 1 KB of UTF-8, not 1,024 characters."""
    job.write("raise ValueError('ü' * 2000)")
    assert job.run("process", "clean.py")[0] == 1
    data = job.layout.message.read_bytes()
    assert MESSAGE_LIMIT_BYTES - 3 <= len(data) <= MESSAGE_LIMIT_BYTES
    assert data.decode("utf-8").startswith("ValueError: üüü")


@pytest.mark.parametrize(("data", "said"), [
    (b"caf\xe9", "is not UTF-8"),
    (b"x" * 1025, "has 1025 bytes; the service shows the first 1024"),
])
def test_a_message_that_the_service_will_not_show_is_pointed_out(job, data, said):
    """PROC-12, TRAP-45"""
    job.write(f"""
        import os
        path = os.environ["SAGEMAKER_BASE_DIR"] + "/output/message"
        open(path, "wb").write({data!r})
    """)
    code, output = job.run("process", "clean.py")
    assert code == 0 and said in output


def test_outputs_are_made_counted_and_links_are_pointed_out(job):
    """PROC-07, PROC-10, TRAP-43, CHK-18"""
    job.write("""
        import os, pathlib
        out = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"]) / "processing" / "output"
        (out / "part").mkdir()
        (out / "part" / "a.csv").write_text("1,2\\n")
        (out / "latest.csv").symlink_to(out / "part" / "a.csv")
    """)
    code, output = job.run("process", "clean.py")
    assert code == 0
    assert "output out: 1 files, 4 B; 1 symbolic links, which are not uploaded" in output


def test_an_empty_output_is_pointed_out(job):
    """TRAP-43"""
    job.write("")
    _, output = job.run("process", "clean.py")
    assert "output out: 0 files, 0 B; write what is to be kept to /opt/ml/processing/output" \
        in output.splitlines()


# --- signals ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_program_which_may_finish(job, number):
    """PROC-02"""
    job.write("""
        import signal, sys, time
        def stop(number, frame):
            print("got", signal.Signals(number).name, flush=True)
            sys.exit(0)
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        print("ready", flush=True)
        for _ in range(600):  # a signal just before a sleep does not cut it short
            time.sleep(0.1)
    """)
    with job.start("process", "clean.py") as process:
        for line in process.stdout:
            if line == "ready\n":
                break
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert f"got {number.name}" in output.splitlines()
    assert message(job) is None


def test_a_program_that_sigterm_ends_is_stopped_not_failed(job):
    job.write("import time; print('ready', flush=True); time.sleep(60)")
    with job.start("process", "clean.py") as process:
        for line in process.stdout:
            if line == "ready\n":
                break
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "handle it to save results" in output
    assert message(job) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_that_cannot_be_written_is_named(job):
    (job.layout.processing / "output").mkdir(mode=0o555)
    job.write("")
    code, output = job.run("process", "clean.py")
    assert code == 1 and "[DIRECTORY_NOT_WRITABLE]" in output


# --- the files ---


def test_the_golden_config_is_read_and_written_byte_for_byte(tmp_path):
    """FIX-19, PROC-03, PROC-04"""
    layout = Layout(tmp_path)
    layout.processing_config.mkdir()
    path = layout.processing_config / "processingjobconfig.json"
    path.write_bytes(GOLDEN.read_bytes())
    config = ProcessingJobConfig.read(layout)
    assert config.name == "p1"
    assert [(each.name, each.local_path) for each in config.inputs + config.outputs] == [
        ("in", "/opt/ml/processing/input/data"), ("out", "/opt/ml/processing/output"),
    ]
    config.write(layout)
    assert path.read_bytes() == GOLDEN.read_bytes()


def test_absent_members_and_places_without_files_are_read(tmp_path):
    """PROC-04: absent optionals appear as null; PROC-16: a feature group has no LocalPath."""
    ProcessingJobConfig({
        "ProcessingInputs": None,
        "ProcessingOutputConfig": {"Outputs": [
            {"OutputName": "f", "AppManaged": True, "FeatureStoreOutput": {}},
        ]},
    }).write(Layout(tmp_path))
    config = ProcessingJobConfig.read(Layout(tmp_path))
    assert config.inputs == ()
    (output,) = config.outputs
    assert (output.name, output.local_path, output.app_managed) == ("f", None, True)


def test_the_hosts_file_has_the_service_s_two_keys(tmp_path):
    """PROC-05"""
    layout = Layout(tmp_path)
    assert ProcessingHosts.read(layout) == ProcessingHosts("algo-1", ("algo-1",))
    ProcessingHosts("algo-2", ("algo-1", "algo-2")).write(layout)
    assert (layout.processing_config / "resourceconfig.json").read_text() == (
        '{"current_host":"algo-2","hosts":["algo-1","algo-2"]}'
    )
    assert ProcessingHosts.read(layout) == ProcessingHosts("algo-2", ("algo-1", "algo-2"))


def test_a_malformed_config_is_named(tmp_path):
    layout = Layout(tmp_path)
    ProcessingJobConfig({"ProcessingInputs": {"in": 1}}).write(layout)
    with pytest.raises(ContractError, match="CONFIG_INVALID"):
        _ = ProcessingJobConfig.read(layout).inputs


def test_a_message_is_shown_to_its_limit_even_inside_a_character(tmp_path):
    """PROC-12"""
    layout = Layout(tmp_path)
    assert contract.read_message(layout) is None
    layout.output.mkdir()
    layout.message.write_bytes(b"x" + "ü".encode() * 600)
    assert contract.read_message(layout) == "x" + "ü" * 511
    layout.message.write_bytes(b"x" * 2000 + b"\xff")
    assert contract.read_message(layout) == "x" * 1024
    layout.message.write_bytes(b"\xff")
    with pytest.raises(ContractError, match="MESSAGE_NOT_UTF8"):
        contract.read_message(layout)
