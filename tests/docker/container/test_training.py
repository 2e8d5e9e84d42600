"""`docker run IMAGE train` (CHK-01 … CHK-05, CHK-16, CHK-17)."""

from __future__ import annotations

import json

import pytest

SEVERAL = {"algo-1": "127.0.0.1", "algo-2": "127.0.0.1", "algo-3": "127.0.0.1"}
FEW = b"0,1,2\n1,5,6\n0,1,3\n1,6,6\n"
CENTROID = {"BYOA_ALGORITHM": "nearest-centroid"}
MLP = {"BYOA_ALGORITHM": "mlp-classifier"}


def test_the_contract_s_files_are_all_that_training_needs(start, tree, torch_free_image, way):
    """CHK-01 with FIX-01, FIX-03 and FIX-04 byte for byte; CHK-16 without a network.

    A script, for an algorithm class would wait for the two other hosts that FIX-03 names.
    """
    tree.golden("fix-01", "fix-03", "fix-04")
    tree.channel("train", FEW)
    tree.layout.code.mkdir(exist_ok=True)
    (tree.layout.code / "train.py").write_text(
        "import os\n"
        "open(os.environ['SM_MODEL_DIR'] + '/model.json', 'w').write(os.environ['SM_HPS'])\n"
    )
    box = start(torch_free_image, "train", tree=tree, way=way, extra_hosts=SEVERAL,
                environment={"SAGEMAKER_PROGRAM": "train.py"})
    assert box.wait() == 0, box.log
    assert tree.model == {"model.json"}
    assert json.loads((tree.layout.model / "model.json").read_text()) == {"epochs": 10, "lr": 0.1}
    assert "script train.py on algo-2 (2 of 3)" in box.log
    assert not tree.layout.failure.exists()


def test_script_mode_needs_no_more(start, tree, torch_free_image, way):
    """CHK-01 with FIX-02, TK-02; HW-03: SM_NUM_GPUS is 0 where there is no GPU."""
    tree.job(FEW)
    tree.golden("fix-02")
    (tree.layout.code / "train.py").write_text(
        "import os, sys\n"
        "print('arguments', sys.argv[1:], 'GPUs', os.environ['SM_NUM_GPUS'])\n"
        "open(os.environ['SM_MODEL_DIR'] + '/model.txt', 'w').write('trained')\n"
    )
    box = start(torch_free_image, "train", tree=tree, way=way)
    assert box.wait() == 0, box.log
    assert "arguments ['--epochs', '10', '--lr', '0.1', '--optimizer', 'adam'] GPUs 0" in box.log
    assert tree.model == {"model.txt"}


@pytest.mark.parametrize("metric", ["cosine", '"cosine"'])
def test_hyperparameters_are_read_quoted_and_unquoted(start, tree, torch_free_image, metric):
    """CHK-05, TRAIN-43"""
    tree.job(FEW, metric=metric)
    box = start(torch_free_image, "train", tree=tree, environment=CENTROID)
    assert box.wait() == 0, box.log
    assert tree.manifest["hyperparameters"] == {"metric": "cosine"}


def test_odd_files_and_keys_do_not_matter(start, tree, torch_free_image):
    """CHK-04, TRAIN-31, TRAIN-64, TRAIN-75"""
    tree.job(FEW)
    config = tree.layout.config
    (config / "resourceconfig.json").write_text(
        '{"current_host":"algo-1","hosts":["algo-1"],"network_interface_name":"eth0","new":[1]}'
    )
    (config / "hyperparameters.json").write_bytes("\N{BYTE ORDER MARK}{}".encode())
    (config / "init-config.json").write_text("{")
    (config / "upstreamoutputdataconfig.json").write_text("[]")
    tree.layout.manifest("train").write_text("not,data\n")
    assert not (config / "checkpointconfig.json").exists()
    box = start(torch_free_image, "train", tree=tree, environment=CENTROID)
    assert box.wait() == 0, box.log
    assert tree.model == {"centroids.npz", "byoa.json"}


# --- failures ---


def test_a_channel_that_does_not_decode_is_the_failure_s_cause(start, tree, torch_free_image):
    """CHK-02, TRAIN-141"""
    tree.job(b"0,1,2\n1,x,6\n" + b"1,2,3\n" * 1000)
    box = start(torch_free_image, "train", tree=tree, environment=CENTROID)
    assert box.wait() == 1
    assert "'x' is not a number" in tree.failure.partition("\n")[0]
    assert "part-0.csv" in tree.failure
    assert tree.model == set()


def test_a_channel_that_may_not_be_read_is_named(start, tree, torch_free_image):
    """CHK-02 with --user: the file is another's alone."""
    tree.job(FEW)
    (tree.layout.channel("train") / "part-0.csv").chmod(0o600)
    box = start(torch_free_image, "train", tree=tree, environment=CENTROID, user="4711:4711")
    assert box.wait() == 1
    first = tree.failure.partition("\n")[0]
    assert first.startswith("train/part-0.csv: it cannot be read: Permission denied")


def test_a_model_directory_of_another_user_s_is_a_clear_failure(start, tree, torch_free_image):
    """TRAIN-08: which path, which uid, what to do."""
    tree.job(FEW)
    tree.layout.model.chmod(0o755)
    box = start(torch_free_image, "train", tree=tree, environment=CENTROID, user="4711:4711")
    assert box.wait() == 1
    assert tree.failure.startswith("uid 4711 (gid 4711) cannot write to /opt/ml/model: ")
    assert "chown -R 4711:4711" in tree.failure
    assert tree.failure in box.log


def test_an_output_directory_that_cannot_be_written_is_told_in_the_log(
    start, tree, torch_free_image
):
    tree.job(FEW)
    box = start(torch_free_image, "train", tree=tree, read_only=("output",), environment=CENTROID)
    assert box.wait() == 1
    assert "uid 0 (gid 0) cannot write to /opt/ml/output: it is mounted read-only" in box.log
    assert "mount /opt/ml/output for writing" in box.log


# --- the real algorithms ---


def test_the_digits_are_learnt_and_served_in_every_way(start, tree, torch_free_image, way, digits):
    """CHK-01, CHK-06, CHK-07, CHK-16: the model is read-only to the server (HOST-40)."""
    tree.job(digits["train"])
    box = start(torch_free_image, "train", tree=tree, way=way, environment=CENTROID)
    assert box.wait() == 0, box.log
    box = start(torch_free_image, "serve", tree=tree, way=way, read_only=("model",)).ready()
    answer = box.invoke(digits["test-records"], accept="text/csv")
    assert answer.status == 200
    assert accuracy(answer.text, digits) > 0.85


@pytest.mark.parametrize("way", ["root", "all-at-once"], indirect=True)
def test_the_torch_algorithm_trains_and_serves(start, tree, byoa_image, way, digits):
    """torch asks for the user's name and a cache directory, which nobody has to have."""
    tree.job(digits["train"], epochs="8")
    box = start(byoa_image, "train", tree=tree, way=way, environment=MLP)
    assert box.wait() == 0, box.log
    box = start(byoa_image, "serve", tree=tree, way=way, read_only=("model",)).ready()
    answer = box.invoke(digits["test-records"], accept="application/json")
    found = [each["predicted_label"] for each in json.loads(answer.body)["predictions"]]
    assert accuracy("\n".join(map(str, found)), digits) > 0.9


@pytest.mark.parametrize("way", ["root", "all-at-once"], indirect=True)
def test_sigterm_in_training_leaves_a_model(start, tree, byoa_image, way, digits):
    """CHK-03, TRAIN-150"""
    tree.job(digits["train"], epochs="100000", early_stopping_patience="100000")
    box = start(byoa_image, "train", tree=tree, way=way, environment=MLP)
    box.until(lambda: "train:loss=" in box.log)
    box.container.kill("SIGTERM")
    assert box.wait(120) == 0, box.log
    assert "SIGTERM: run.stopping is set" in box.log
    assert "byoa.json" in tree.model and len(tree.model) > 1
    assert not tree.layout.failure.exists()


# --- GPUs ---


def test_a_cuda_image_without_a_device_says_so_and_trains(start, tree, cuda_image):
    """CHK-17: the image asks for all GPUs (HW-01), and there is none."""
    tree.job(FEW, epochs="1")
    box = start(cuda_image, "train", tree=tree, environment=MLP)
    assert box.wait() == 0, box.log
    (line,) = [each for each in box.log.splitlines() if each.startswith("no GPU: ")]
    assert "torch here is a build for CUDA" in line and "docker run --gpus all" in line
    assert "0 GPUs → device cpu" in box.log


def test_a_cuda_image_without_a_device_counts_no_gpu(start, tree, cuda_image):
    """CHK-17, HW-02, HW-03: SM_NUM_GPUS 0, as the service starts it on an instance without."""
    tree.job(FEW)
    tree.golden("fix-02")
    (tree.layout.code / "train.py").write_text(
        "import os; print('GPUs', os.environ['SM_NUM_GPUS'])"
    )
    box = start(cuda_image, "train", tree=tree, environment={"NVIDIA_VISIBLE_DEVICES": "void"})
    assert box.wait() == 0, box.log
    lines = box.log.splitlines()
    assert "GPUs 0" in lines
    assert len([each for each in lines if each.startswith("no GPU: ")]) == 1


def accuracy(text: str, digits: dict[str, bytes]) -> float:
    labels = digits["test-labels"].decode().split()
    found = [str(int(float(each))) for each in text.split()]
    assert len(found) == len(labels)
    return sum(a == b for a, b in zip(found, labels, strict=True)) / len(labels)
