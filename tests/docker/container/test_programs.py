"""Processing jobs and plain commands in the real image (PROC-01 … PROC-19, CHK-18)."""

from __future__ import annotations

import textwrap

import pytest

from byoa.container.contract import ProcessingHosts

CLEAN = '''
import json, os, sys
import numpy
rows = open("/opt/ml/processing/input/data/rows.csv").read().split()
if "--fail" in sys.argv:
    raise ValueError("no row is left")
with open("/opt/ml/processing/output/clean.csv", "w") as file:
    file.write("\\n".join(sorted(set(rows))))
os.symlink("clean.csv", "/opt/ml/processing/output/latest.csv")
print("arguments", sys.argv[1:], "uid", os.getuid())
if "--tell" in sys.argv:
    open("/opt/ml/output/message", "w", encoding="utf-8").write("größer")
'''


@pytest.fixture
def job(tree):
    """A processing job's tree: FIX-19, an input, and the script where the SDK puts it (PROC-19)."""
    tree.golden("fix-19")
    layout = tree.layout
    layout.processing_config.mkdir()
    golden = layout.config / "processingjobconfig.json"
    golden.rename(layout.processing_config / golden.name)
    ProcessingHosts().write(layout)
    code, data = layout.processing / "input" / "code", layout.processing / "input" / "data"
    output = layout.processing / "output"
    for directory in (code, data, output):
        directory.mkdir(parents=True)
    (code / "run.py").write_text(textwrap.dedent(CLEAN))
    (data / "rows.csv").write_text("b\na\nb\n")
    tree.share()
    return tree


def test_a_processing_job_s_script_runs_in_every_way(start, job, torch_free_image, way):
    """CHK-18, PROC-01: ContainerArguments follow the image's entrypoint."""
    box = start(torch_free_image, "process", "run.py", "--x", "1", tree=job, way=way)
    assert box.wait() == 0, box.log
    assert "arguments ['--x', '1'] uid " in box.log
    assert (job.layout.processing / "output" / "clean.csv").read_text() == "a\nb"
    assert "output out: 1 files, 3 B; 1 symbolic links, which are not uploaded" in box.log
    assert not job.layout.message.exists()


@pytest.mark.parametrize("way", ["root", "all-at-once"], indirect=True)
def test_a_failure_s_cause_is_the_exit_message(start, job, torch_free_image, way):
    """CHK-18, PROC-12, PROC-13"""
    box = start(torch_free_image, "process", "run.py", "--fail", tree=job, way=way)
    assert box.wait() == 1
    data = job.layout.message.read_bytes()
    assert len(data) <= 1024
    assert data.decode("utf-8").startswith("ValueError: no row is left at run.py:6 in <module>")


def test_the_program_s_own_message_is_kept(start, job, torch_free_image):
    """PROC-12: UTF-8, for any end."""
    box = start(torch_free_image, "process", "run.py", "--tell", tree=job)
    assert box.wait() == 0, box.log
    assert job.layout.message.read_text(encoding="utf-8") == "größer"


@pytest.mark.parametrize("entrypoint", [
    ["python3", "/opt/ml/processing/input/code/run.py"],
    ["/bin/bash", "-c", "cd /opt/ml/processing/input/code && python run.py"],
])
def test_the_sdk_s_entrypoints_find_the_image_s_python(start, job, torch_free_image, entrypoint):
    """PROC-01, PROC-19: ContainerEntrypoint replaces ours; numpy is there all the same."""
    box = start(torch_free_image, tree=job, entrypoint=entrypoint)
    assert box.wait() == 0, box.log
    assert (job.layout.processing / "output" / "clean.csv").exists()


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_to_the_first_process_reaches_the_program(start, job, torch_free_image, number):
    """PROC-02"""
    (job.layout.processing / "input" / "code" / "run.py").write_text(textwrap.dedent("""
        import signal, sys, time
        def stop(number, frame):
            open("/opt/ml/processing/output/kept.csv", "w").write("1")
            sys.exit(0)
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        print("ready", flush=True)
        time.sleep(60)
    """))
    box = start(torch_free_image, "process", "run.py", tree=job)
    box.until(lambda: "ready" in box.log)
    box.container.kill(number)
    assert box.wait(30) == 0, box.log
    assert (job.layout.processing / "output" / "kept.csv").exists()


def test_no_program_says_how_one_is_given(start, job, torch_free_image):
    box = start(torch_free_image, "process", tree=job)
    assert box.wait() == 1
    assert "docker run IMAGE process clean.py" in box.log


@pytest.mark.parametrize("user", ["0:0", "4711:4711"])
def test_an_output_of_another_user_s_is_a_clear_error(start, job, torch_free_image, user):
    (job.layout.processing / "output").chmod(0o755)
    box = start(torch_free_image, "process", "run.py", tree=job, user=user)
    if user == "0:0":
        assert box.wait() == 0, box.log
        return
    assert box.wait() == 1
    assert "uid 4711 (gid 4711) cannot write to /opt/ml/processing/output: " in box.log
    assert job.layout.message.read_text().startswith("uid 4711 (gid 4711) cannot write to")


# --- plain commands ---


def test_a_plain_command_runs_as_the_first_process(start, torch_free_image):
    box = start(torch_free_image, "bash", "-c", "yes | head -1; echo process $$; exit 3")
    assert box.wait() == 3
    assert box.log.splitlines() == ["y", "process 1"]  # and no complaint of a broken pipe


def test_python_is_the_image_s(start, torch_free_image):
    box = start(torch_free_image, "python", "-c", "import byoa.serve, sys; print(sys.prefix)")
    assert box.wait() == 0
    assert box.log.strip() == "/opt/byoa"


def test_a_mistyped_command_is_corrected(start, tree, torch_free_image):
    box = start(torch_free_image, "trian", tree=tree)
    assert box.wait() == 1
    assert "did you mean 'train'?" in box.log
    assert tree.failure.startswith("there is no command 'trian'")
