"""`python -m byoa.container train` end to end, as SageMaker runs it (CHK-01 … CHK-05)."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from byoa.container import contract

FIXTURES = Path(__file__).parent / "fixtures"
SOURCE = (FIXTURES / "summing.py").read_text().splitlines()
SUMMING = {"BYOA_ALGORITHM": "summing:Summing"}


def place(text):
    """Where in the fixture algorithm `text` is: summing.py:<line>."""
    return f"summing.py:{next(n for n, line in enumerate(SOURCE, 1) if text in line)}"


def test_a_job_leaves_a_model_its_manifest_and_exit_code_0(tree):
    """CHK-01, TRAIN-140"""
    tree.hyperparameters({"shift": "2", "rate": '"0.5"'})  # unquoted and quoted: CHK-05
    code, output = tree.run(**SUMMING)
    assert code == 0, output
    assert tree.model == {"sum.txt", "byoa.json"}
    assert (tree.layout.model / "sum.txt").read_text() == "11.5"
    assert tree.manifest == {
        "byoa": 1, "algorithm": "summing:Summing",
        "hyperparameters": {"shift": 2, "rate": 0.5, "then": "return"}, "input": {},
    }
    assert tree.failure is None
    assert "train:sum=21; step=1" in output.splitlines()


def test_the_plan_and_the_times_are_one_line_each(tree):
    _, output = tree.run(**SUMMING)
    plan = [line for line in output.splitlines() if line.startswith("plan: ")]
    assert len(plan) == 1
    assert plan[0].startswith("plan: summing:Summing on algo-1 (1 of 1): ")
    assert "channels train (File)" in plan[0]
    assert [line for line in output.splitlines() if line.startswith("trained in ")]


def test_the_golden_files_of_the_service_are_read(cluster, tmp_path):
    """CHK-01 with FIX-01, FIX-03, FIX-04 and FIX-05 as they are; the three hosts' names resolve to
    this machine, which has no interface eth0."""
    hosts = cluster(3)
    tmp_path.joinpath("sitecustomize.py").write_text(
        "import socket\n"
        f"places = dict(zip(['algo-1', 'algo-2', 'algo-3'], {hosts.names}))\n"
        "resolve = socket.getaddrinfo\n"
        "socket.getaddrinfo = lambda name, *more, **options:"
        " resolve(places.get(name, name), *more, **options)\n"
        "socket.if_nameindex = lambda: [(1, 'lo')]\n"
    )
    for number, tree in enumerate(hosts.trees, start=1):
        for name in ("inputdataconfig", "resourceconfig", "checkpointconfig"):
            (golden,) = (FIXTURES / "config").glob(f"fix-0*-{name}.json")
            text = golden.read_text()
            if number != 2:  # the golden one is of algo-2
                text = text.replace('"current_host":"algo-2"', f'"current_host":"algo-{number}"')
            (tree.layout.config / f"{name}.json").write_text(text)
    ran = hosts.run(**SUMMING, PYTHONPATH=f"{FIXTURES}:{tmp_path}")
    assert [code for code, _ in ran] == [0, 0, 0], ran
    first, output = ran[0][1], ran[1][1]
    assert "on algo-2 (2 of 3)" in output
    assert "channels train (File), valid (Pipe)" in output
    assert (hosts.trees[1].layout.checkpoints / "algo-2-step-00000001").is_dir()
    assert "train:sum" in first  # the first host prints metrics (TRAIN-194)
    assert "train:sum" not in output
    assert "names the network interface 'eth0', which is not here (there are lo); 'lo' is taken" \
        in output  # TRAIN-63
    assert "pre-flight: 3 hosts reach one another by lo, and sum to 6, in " in first


def test_unknown_files_and_keys_and_absent_optional_files_do_not_matter(tree):
    """CHK-04, TRAIN-64, TRAIN-75, TRAP-13, TRAP-17"""
    config = tree.layout.config
    (config / "resourceconfig.json").write_text(
        '{"current_host":"algo-1","hosts":["algo-1"],"network_interface_name":"eth0","new":[1]}'
    )
    (config / "metric-definition-regex.json").unlink()
    (config / "upstreamoutputdataconfig.json").write_text("[]")
    (config / "init-config.json").write_text("{")
    tree.layout.manifest("train").write_text("not,data\n")
    (tree.layout.channel("train") / "part-0.csv.sagemaker-uploaded").write_text("not,data\n")
    code, output = tree.run(**SUMMING)
    assert code == 0, output


def test_an_unreadable_channel_is_the_first_words_of_the_failure(tree):
    """CHK-02, TRAIN-141"""
    (tree.layout.channel("train") / "part-0.csv").write_text("1,2\n3,x\n")
    code, output = tree.run(**SUMMING)
    assert code == 1
    assert tree.failure.startswith(
        f"ValueError: could not convert string to float: 'x' at {place('float(cell)')} in"
    )
    assert len(tree.failure) <= contract.FAILURE_LIMIT_CHARACTERS
    assert "Traceback (most recent call last)" in output
    assert "byoa.json" not in tree.model


def test_a_channel_that_is_not_there_names_those_that_are(tree):
    tree.channels(training="1\n", validation="1\n")
    code, _ = tree.run(**SUMMING)
    assert code == 1
    assert tree.failure.startswith(
        "the job has no channel 'train'; it has training, validation"
    )
    # For a job and for `byoa train`, which has no request.
    assert "add channel 'train' to the job's InputDataConfig; with `byoa train`: --channel" \
        " train=FILE" in tree.failure
    assert f"at {place('run.channel')} in train" in tree.failure


def test_sigterm_lets_the_algorithm_save_and_exit_0(tree):
    """CHK-03, TRAIN-150, TRAIN-151, TRAP-05"""
    tree.hyperparameters({"then": "wait"})
    with tree.start(**SUMMING) as process:
        for line in process.stdout:
            if line == "waiting\n":
                break
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert tree.model == {"sum.txt", "byoa.json"}
    assert "SIGTERM" in output and "stopped in " in output
    assert tree.failure is None


def test_more_sigterms_change_nothing(tree):
    tree.hyperparameters({"then": "wait_for_three"})
    with tree.start(**SUMMING) as process:
        for line in process.stdout:
            if line == "waiting\n":
                break
        process.send_signal(signal.SIGTERM)
        for line in process.stdout:
            if line == "stopping\n":
                break
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert tree.model == {"sum.txt", "byoa.json"}


def test_an_algorithm_that_was_stopped_before_it_saved_is_no_failure(tree):
    tree.hyperparameters({"wait": "true"})
    with tree.start(BYOA_ALGORITHM="summing:Idle") as process:
        for line in process.stdout:
            if line == "waiting\n":
                break
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "stopped before the algorithm saved a model" in output
    assert tree.model == set()


def test_an_algorithm_that_saves_nothing_fails_with_the_cure(tree):
    code, _ = tree.run(BYOA_ALGORITHM="summing:Idle")
    assert code == 1
    assert "[ALGORITHM_SAVED_NOTHING]" in tree.failure
    assert "run.model_dir" in tree.failure


def test_a_later_host_may_leave_saving_to_the_first(cluster):
    """TRAIN-132, TRAP-22"""
    hosts = cluster(2)
    (first, _), (later, output) = hosts.run(BYOA_ALGORITHM="summing:Idle")
    assert first == 1 and "[ALGORITHM_SAVED_NOTHING]" in hosts.trees[0].failure
    assert later == 0, output
    assert f"{hosts.names[1]} (2 of 2)" in output
    assert hosts.trees[1].model == set()


def test_a_host_that_fails_ends_the_others_who_name_it_and_its_reason(cluster):
    """TRAIN-140, TRAIN-145: they wait to be stopped, so that the first failure is the job's."""
    hosts = cluster(3)
    for tree in hosts.trees:
        tree.hyperparameters({"then": "meet"})
    hosts.trees[1].hyperparameters({"then": "fail"})
    processes = hosts.start(**SUMMING)
    assert processes[1].wait(60) == 1
    for process in (processes[0], processes[2]):
        for line in process.stdout:
            if line == "waits up to 30 s to be stopped with the job\n":
                break
        process.send_signal(signal.SIGTERM)
    ran = hosts.finish(processes)
    assert [code for code, _ in ran] == [1, 1, 1], ran
    assert hosts.trees[1].failure.startswith("ValueError: the sum is odd at ")
    for tree in (hosts.trees[0], hosts.trees[2]):
        assert tree.failure.startswith(
            f"{hosts.names[1]} has failed: ValueError: the sum is odd at "
        )
        assert "[PEER_LOST]" in tree.failure


def test_an_algorithm_gathers_over_its_hosts(cluster):
    """DIST-10"""
    hosts = cluster(2)
    for tree in hosts.trees:
        tree.hyperparameters({"then": "meet"})
    ran = hosts.run(**SUMMING)
    assert [code for code, _ in ran] == [0, 0], ran
    for name, (_, output) in zip(hosts.names, ran, strict=True):
        assert f"{name} met {', '.join(hosts.names)}" in output


def test_a_stop_ends_the_wait_for_hosts_that_never_come(tree):
    """TRAIN-65, TRAIN-150: SIGTERM is seen while names are waited for."""
    tree.hosts("localhost", ["localhost", "never.invalid"])
    with tree.start(BYOA_ALGORITHM="summing:Idle") as process:
        for line in process.stdout:
            if line == "waiting for the name never.invalid to resolve\n":
                break
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "stopped before all hosts had met" in output


def test_several_hosts_are_refused_where_the_algorithm_does_not_share_the_work(tree):
    """TRAIN-132: each host would train alone and overwrite the others' model."""
    tree.hosts("algo-1", ["algo-1", "algo-2"])
    code, _ = tree.run(BYOA_ALGORITHM="summing:Alone")
    assert code == 1
    assert "[HOSTS_UNSUPPORTED]" in tree.failure
    assert "InstanceCount=1" in tree.failure


def test_an_exception_s_line_comes_first_in_the_failure(tree):
    """TRAIN-141, TRAP-23"""
    tree.hyperparameters({"then": "fail"})
    code, _ = tree.run(**SUMMING)
    assert code == 1
    assert tree.failure.startswith(
        f"ValueError: the sum is odd at {place('raise ValueError')} in _fail:"
        ' raise ValueError("the sum is odd")'
    )


@pytest.mark.parametrize(("then", "code", "start"), [
    ("exit_7", 7, "SystemExit: 7 at summing.py:"),
    ("exit_text", 1, "SystemExit: nothing to do at summing.py:"),
    ("interrupt", 130, "KeyboardInterrupt at summing.py:"),
    ("memory", 1, "MemoryError at summing.py:"),
])
def test_every_other_end_is_a_failure_with_its_own_code(tree, then, code, start):
    """TRAIN-144"""
    tree.hyperparameters({"then": then})
    assert tree.run(**SUMMING)[0] == code
    assert tree.failure.startswith(start)
    assert ("peak memory" in tree.failure) == (then == "memory")  # TRAP-24


@pytest.mark.parametrize("then", ["explain_and_exit_7", "explain_and_fail"])
def test_a_failure_file_of_the_author_s_is_kept(tree, then):
    """TRAIN-141, TK-09"""
    tree.hyperparameters({"then": then})
    code, output = tree.run(**SUMMING)
    assert code == (7 if then.endswith("7") else 1)
    assert tree.failure == "the loss is nan since epoch 3"
    assert "summing.py" in output  # the log has the rest


@pytest.mark.parametrize(("then", "line", "after"), [
    ("print_no_end", "no newline at end", "trained in "),
    ("warn_no_end", "50 %", "trained in "),
    ("print_no_end_and_fail", "no newline at end", "Traceback (most recent call last):"),
])
def test_a_last_line_without_an_end_stays_the_author_s(tree, then, line, after):
    tree.hyperparameters({"then": then})
    code, output = tree.run(**SUMMING)
    assert code == (1 if then.endswith("fail") else 0)
    lines = output.splitlines()
    assert lines[lines.index(line) + 1].startswith(after)


def test_an_ended_line_is_followed_by_ours_at_once(tree):
    _, output = tree.run(**SUMMING)
    assert "" not in output.splitlines()


def test_a_first_sigint_lets_the_algorithm_save(tree):
    """TRAIN-150: Ctrl-C under `byoa train` is asked for like StopTrainingJob."""
    tree.hyperparameters({"then": "wait"})
    with tree.start(**SUMMING) as process:
        for line in process.stdout:
            if line == "waiting\n":
                break
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "SIGINT: run.stopping is set" in output and "stopped in " in output
    assert tree.model == {"sum.txt", "byoa.json"}
    assert tree.failure is None


def test_a_second_sigint_interrupts_without_a_traceback(tree):
    """TRAIN-144"""
    tree.hyperparameters({"then": "go_on"})
    with tree.start(**SUMMING) as process:
        for line in process.stdout:
            if line == "waiting\n":
                break
        process.send_signal(signal.SIGINT)
        for line in process.stdout:
            if line == "stopping\n":
                break
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert "KeyboardInterrupt at summing.py:" in output  # wherever it was by then
    assert "byoa.json" not in tree.model


def test_sys_exit_0_is_a_return(tree):
    tree.hyperparameters({"then": "exit_0"})
    assert tree.run(**SUMMING)[0] == 0
    assert tree.model == {"sum.txt", "byoa.json"}
    assert tree.failure is None


def test_what_native_code_does_as_python_is_torn_down_does_not_fail_a_job(tree, tmp_path):
    """Yet exit functions are called, and threads waited for."""
    tmp_path.joinpath("aborting.py").write_text(textwrap.dedent("""
        import atexit, concurrent.futures, os, time
        from byoa.algorithms import Algorithm

        class Aborts:
            def __del__(self):
                os.abort()

        held = Aborts()

        class Trains(Algorithm):
            def train(self, run):
                (run.model_dir / "model").touch()
                atexit.register(print, "exit function")
                executor = concurrent.futures.ThreadPoolExecutor(1)
                executor.submit(lambda: (time.sleep(0.3), print("thread", end="")))

            def load(self, model_dir, device): ...
            def predict(self, model, records): ...
    """))
    code, output = tree.run(BYOA_ALGORITHM="aborting:Trains", PYTHONPATH=str(tmp_path))
    assert code == 0, output
    assert output.endswith("threadexit function\n")


def test_all_wrong_hyperparameters_are_named_at_once(tree):
    tree.hyperparameters({"shift": "-1", "rate": "fast", "shfit": "1"})
    code, _ = tree.run(**SUMMING)
    assert code == 1
    assert tree.failure.startswith("3 hyperparameters are wrong: ")
    assert "hyperparameters.py" not in tree.failure  # a line of byoa's is no help
    assert all(name in tree.failure for name in ("shift", "rate", "shfit"))


def test_hyperparameters_of_the_platform_are_passed_over(tree):
    """TRAIN-44, TRAIN-45"""
    tree.hyperparameters({"_tuning_objective_metric": "loss", "sagemaker_region": '"eu-west-1"'})
    assert tree.run(**SUMMING)[0] == 0


def test_a_job_resumes_from_its_checkpoint(tree):
    """TRAIN-174"""
    tree.checkpoint_config()
    first, output = tree.run(**SUMMING)
    assert first == 0 and "checkpoint step 1 → 4 B, " in output
    second, _ = tree.run(**SUMMING)
    assert second == 0
    assert (tree.layout.model / "sum.txt").read_text() == "42.0"


def test_nothing_chosen_lists_the_algorithms_and_both_ways(tree):
    code, output = tree.run()
    assert code == 1
    assert "[ALGORITHM_NOT_CHOSEN]" in output
    for word in ("BYOA_ALGORITHM", "mlp-classifier", "module:Class", "sagemaker_program",
                 "SAGEMAKER_PROGRAM"):
        assert word in tree.failure


def test_two_choices_are_refused(tree):
    tree.hyperparameters({"sagemaker_program": '"train.py"'})
    code, _ = tree.run(**SUMMING)
    assert code == 1
    assert "[ALGORITHM_AMBIGUOUS]" in tree.failure


def test_an_unknown_algorithm_is_a_failure_with_a_file(tree):
    code, _ = tree.run(BYOA_ALGORITHM="summing:Suming")
    assert code == 1
    assert ": 'summing:Suming': module summing has no Suming" in tree.failure
    assert not tree.failure.startswith("AlgorithmError")  # the service puts that before it
    assert "Summing" in tree.failure


def test_an_error_of_syntax_in_the_author_s_module_is_placed(tree, tmp_path):
    (tmp_path / "broken.py").write_text("import os\n\ndef train(:\n    pass\n")
    code, _ = tree.run(BYOA_ALGORITHM="broken:Thing", PYTHONPATH=str(tmp_path))
    assert code == 1
    assert tree.failure == "SyntaxError: invalid syntax at broken.py:3: def train(:"


def test_a_failing_import_in_the_author_s_module_is_placed(tree, tmp_path):
    (tmp_path / "needy.py").write_text("import os\nimport not_in_this_image\n")
    code, _ = tree.run(BYOA_ALGORITHM="needy:Thing", PYTHONPATH=str(tmp_path))
    assert code == 1
    assert tree.failure.startswith(
        "ModuleNotFoundError: No module named 'not_in_this_image' at needy.py:2"
    )


def test_a_module_in_the_working_directory_is_found(tree):
    source = (FIXTURES / "summing.py").read_text()
    (tree.layout.root / "mine.py").write_text(source)
    code, output = tree.run(BYOA_ALGORITHM="mine:Summing", PYTHONPATH="")
    assert code == 0, output


def test_a_missing_tree_is_a_failure_that_says_what_to_mount(tree):
    (tree.layout.config / "hyperparameters.json").unlink()
    code, _ = tree.run(**SUMMING)
    assert code == 1
    assert "[CONFIG_MISSING]" in tree.failure
    assert "mount the job's input at /opt/ml" in tree.failure


def test_the_failure_of_an_earlier_run_is_removed(tree):
    tree.layout.failure.write_text("old")
    assert tree.run(**SUMMING)[0] == 0
    assert tree.failure is None


def test_the_start_path_imports_nothing_third_party(tree):
    """A finder refuses every module that is neither Python's, byoa's nor the author's."""
    program = textwrap.dedent("""
        import sys

        class Refuse:
            def find_spec(self, name, path=None, target=None):
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names and top not in ("byoa", "summing"):
                    raise ImportError(f"third-party import on the start path: {name}")

        sys.meta_path.insert(0, Refuse())
        from byoa.container.__main__ import main
        sys.exit(main(["train"]))
    """)
    done = subprocess.run(
        [sys.executable, "-c", program], env=tree.environ(**SUMMING), capture_output=True,
        text=True, timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert tree.model == {"sum.txt", "byoa.json"}


def test_importing_the_entrypoint_starts_nothing(tmp_path):
    """No side effect at import: no file, no handler, no thread."""
    program = (
        "import signal, threading; import byoa.container.__main__, byoa.container.train,"
        " byoa.container.script_mode;"
        "print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, threading.active_count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={"SAGEMAKER_BASE_DIR": str(tmp_path / "ml"), "HOME": str(tmp_path)},
    )
    assert done.stdout == "True 1\n", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_model_file_of_its_owner_s_alone_is_shared(tree):
    """TRAIN-08: the server's workers, who read it, are another user."""
    tree.hyperparameters({"then": "save_privately"})
    code, output = tree.run(**SUMMING)
    assert code == 0, output
    modes = {
        path.name: path.stat().st_mode & 0o777 for path in tree.layout.model.rglob("*")
        if path.name.startswith("private")
    }
    assert modes == {"private": 0o755, "private.bin": 0o644}
