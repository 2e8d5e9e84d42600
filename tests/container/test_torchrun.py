"""Scripts under a real torchrun, on one host and on two."""

from __future__ import annotations

import json
import signal
import textwrap
import time

import pytest

from byoa.container.rank_logs import RankLogs

pytest.importorskip("torch")

TORCH = {
    "sagemaker_program": '"train.py"', "sagemaker_torch_distributed_enabled": "true",
    "epochs": "3",
}
HEAD = """
import os, pathlib, signal, sys, time
import torch, torch.distributed as dist
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
model = pathlib.Path(os.environ["SM_MODEL_DIR"])
def total(value):
    tensor = torch.tensor([float(value)])
    dist.all_reduce(tensor)
    return tensor.item()
"""
SUM = HEAD + """
print(f"rank={rank}; local={os.environ['LOCAL_RANK']}; sum={total(rank + 1)}; {sys.argv[1:]}")
print(f"master={os.environ['MASTER_ADDR']}; if={os.environ['NCCL_SOCKET_IFNAME']}")
if rank == 0: (model / "model.txt").write_text("trained")
dist.destroy_process_group()
"""


def write(tree, source, **values):
    tree.hyperparameters({**TORCH, **values})
    (tree.layout.code / "train.py").write_text(textwrap.dedent(source))


def until(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"{text!r} was never printed")


def test_one_host_runs_as_many_processes_as_it_is_told(tree):
    """DIST-01, DIST-02, TK-05"""
    write(tree, SUM, sagemaker_mpi_num_of_processes_per_host="2")
    code, output = tree.run()
    assert code == 0, output
    lines = output.splitlines()
    for rank in (0, 1):
        assert f"rank={rank}; local={rank}; sum=3.0; ['--epochs', '3']" in lines
    assert "torchrun starts 2 process(es)" in lines
    assert tree.model == {"model.txt"}


def test_two_hosts_are_one_group(cluster):
    """DIST-01, DIST-03, DIST-04, TRAIN-62, TRAIN-63"""
    hosts = cluster(2)
    for tree in hosts.trees:
        write(tree, SUM)
    ran = hosts.run()
    assert [code for code, _ in ran] == [0, 0], ran
    for rank, (_, output) in enumerate(ran):
        assert f"rank={rank}; local=0; sum=3.0; ['--epochs', '3']" in output.splitlines()
        assert f"master={hosts.names[0]}; if=lo" in output.splitlines()
    assert "pre-flight: 2 hosts reach one another" in ran[0][1]
    assert hosts.trees[1].model == set()


def test_lines_of_several_processes_come_whole(tree):
    """TK-11: a metric's expression finds them."""
    write(tree, """
        import os
        for number in range(300):
            print("r", os.environ["RANK"], "-", "x" * 200, "loss=", number, sep="")
        print("no end", end="")
    """, sagemaker_mpi_num_of_processes_per_host="2")
    code, output = tree.run()
    assert code == 0, output
    for rank in (0, 1):
        found = [line for line in output.splitlines() if line.startswith(f"r{rank}-")]
        assert found == [f"r{rank}-{'x' * 200}loss={number}" for number in range(300)]
    assert output.splitlines().count("no end") == 2


def test_the_failing_process_s_own_line_is_the_reason_not_torchrun_s_trace(tree):
    """TRAIN-141: the other process, which then fails as well, is not the cause."""
    write(tree, HEAD + """
if rank == 1:
    raise ValueError("no good")
total(1)
""", sagemaker_mpi_num_of_processes_per_host="2")
    code, output = tree.run()
    assert code == 1, output
    assert tree.failure.startswith("ValueError: no good at train.py:")
    assert "train.py (rank 1) exited with code 1" in tree.failure
    assert "ChildFailedError" not in tree.failure.splitlines()[0]


def test_a_killed_process_is_named_with_its_signal(tree):
    write(tree, HEAD + """
if rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
total(1)
""", sagemaker_mpi_num_of_processes_per_host="2")
    assert tree.run()[0] == 1
    assert tree.failure.startswith("SIGKILL: train.py (rank 1) was ended by signal 9"), tree.failure


def test_a_failure_ends_the_processes_of_the_other_hosts_who_name_it(cluster):
    """TRAIN-140, DIST-11: also one that does not notice, since it is in no collective."""
    hosts = cluster(2)
    for tree in hosts.trees:
        write(tree, HEAD + """
total(1)
if rank == 1:
    raise ValueError("no good")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(300)
""")
    processes = hosts.start()
    assert processes[1].wait(60) == 1
    until(processes[0], "to be stopped with the job")
    processes[0].send_signal(signal.SIGTERM)
    assert [code for code, _ in hosts.finish(processes)] == [1, 1]
    assert hosts.trees[1].failure.startswith("ValueError: no good at train.py:")
    assert hosts.trees[0].failure.startswith(
        f"{hosts.names[1]} has failed: ValueError: no good at train.py:"
    )


def test_a_stop_reaches_every_process_which_may_save_and_end_with_0(tree):
    """TRAIN-150, TRAIN-151"""
    write(tree, """
        import os, pathlib, signal, sys, time
        def save(number, frame):
            time.sleep(0.5)
            pathlib.Path(os.environ["SM_MODEL_DIR"], os.environ["RANK"]).touch()
            sys.exit(0)
        signal.signal(signal.SIGTERM, save)
        print("ready", os.environ["RANK"], flush=True)
        time.sleep(100)
    """, sagemaker_mpi_num_of_processes_per_host="2")
    with tree.start() as process:
        until(process, "ready")
        until(process, "ready")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert tree.model == {"0", "1"}


def test_a_host_that_has_stopped_does_not_wait_for_one_that_is_deaf(cluster, tmp_path):
    """TRAIN-150: torchrun itself would wait for the other hosts, beyond any grace."""
    hosts = cluster(2)
    for tree in hosts.trees:
        write(tree, HEAD + f"""
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
total(1)
print("ready", flush=True)
go = pathlib.Path({str(tmp_path)!r}, "go")
while not (told if rank == 0 else go.exists()): time.sleep(0.05)
(model / "saved").touch()
dist.destroy_process_group()
""")
    processes = hosts.start()
    for process in processes:
        until(process, "ready")
    for process in processes:
        process.send_signal(signal.SIGTERM)
    first = processes[0].wait(60)
    deaf = processes[1].poll()
    (tmp_path / "go").touch()
    ran = hosts.finish(processes)
    assert deaf is None, "it was to run on"
    assert first == 143, ran
    assert ran[1][0] in (0, 143), ran  # its own torchrun may linger, too
    assert "train.py has ended here, and torchrun, which waited for the other hosts" in ran[0][1]
    assert [tree.model for tree in hosts.trees] == [{"saved"}, {"saved"}]
    assert [tree.failure for tree in hosts.trees] == [None, None]


def test_a_script_that_ignores_the_stop_s_signal_ends_with_143(tree):
    """TRAIN-144"""
    write(tree, "import time\nprint('ready', flush=True)\ntime.sleep(100)\n")
    with tree.start() as process:
        until(process, "ready")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert "was ended by SIGTERM" in output


def test_nothing_of_the_script_outlives_the_container_s_process(tree, tmp_path):
    """torchrun gives each process a group of its own."""
    write(tree, f"""
        import os, pathlib, time
        pathlib.Path({str(tmp_path)!r}, "pid-" + os.environ["RANK"]).write_text(str(os.getpid()))
        if os.environ["RANK"] == "1":
            while not pathlib.Path({str(tmp_path)!r}, "pid-0").exists(): time.sleep(0.01)
            os.kill(os.getppid(), 9)
        time.sleep(100)
    """, sagemaker_mpi_num_of_processes_per_host="2")
    assert tree.run()[0] == 1
    for rank in (0, 1):
        pid = int((tmp_path / f"pid-{rank}").read_text())
        end = time.monotonic() + 10
        while alive(pid):
            assert time.monotonic() < end, pid
            time.sleep(0.05)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_files_that_grow_are_handed_on_in_whole_lines(tmp_path):
    directory = tmp_path / "run" / "attempt_0" / "0"
    directory.mkdir(parents=True)
    lines = []
    with RankLogs(tmp_path, lines.append) as logs, (directory / "stdout.log").open("w") as file:
        file.write("first\nsec")
        file.flush()
        end = time.monotonic() + 10
        while not lines:
            assert time.monotonic() < end
            time.sleep(0.01)
        file.write("ond\nlast")
    assert lines == ["first", "second", "last"]
    assert list(logs.tail(0)) == lines
    assert json.dumps(logs.ranks) == "[0]"
