"""The run object of an algorithm: channels, signature, devices, hosts."""

import json

import pytest

from byoa.container.errors import DataError
from byoa.container.hardware import Hardware
from byoa.container.run import Run

CPU = Hardware(2.0, "affinity", 1 << 30, "machine")


def test_directories_and_hosts_are_the_job_s(tree):
    tree.hosts("algo-2", ["algo-1", "algo-2"])
    run = Run(tree.layout, {"a": 1}, hardware=CPU)
    assert (run.hosts.rank, run.hosts.current_host) == (1, "algo-2")
    assert run.model_dir == tree.layout.model
    assert run.output_dir == tree.layout.output / "data"
    assert (run.device, run.hyperparameters, run.stopping) == ("cpu", {"a": 1}, False)


def test_stopping_follows_the_signal(tree):
    asked = []
    run = Run(tree.layout, None, hardware=CPU, stopping=lambda: bool(asked))
    assert not run.stopping
    asked.append(1)
    assert run.stopping


def test_channels_come_in_the_request_s_order_and_by_name(tree):
    """TRAIN-31"""
    tree.channels(validation="1,2\n", train="1,2\n")
    (tree.layout.data / "sm_drivers").mkdir()
    run = Run(tree.layout, None, hardware=CPU)
    assert list(run.channels) == ["validation", "train"]
    assert run.channel("train") is run.channels["train"]
    with pytest.raises(DataError, match="no channel 'test'; it has validation, train"):
        run.channel("test")


def test_the_signature_is_taken_from_the_first_channel_that_is_loaded(tree):
    tree.channels(train="1,2,3\n0,5,6\n", validation="1,9\n")
    run = Run(tree.layout, None, hardware=CPU)
    assert run.signature == {}
    features, labels = run.channel("train").load()
    assert (features.shape, labels.tolist()) == ((2, 2), [1.0, 0.0])
    run.channel("validation").load()
    assert run.signature == {"features": 2, "sample": [[2.0, 3.0]]}
    json.dumps(run.signature)


def test_the_signature_is_taken_from_batches_as_well(tree):
    tree.channels(train="1,2,3\n0,5,6\n", validation="1,9\n")
    run = Run(tree.layout, None, hardware=CPU)
    batches = run.channel("train").batches(1)
    assert run.signature == {}  # nothing has been read yet
    next(batches)
    assert run.signature == {"features": 2, "sample": [[2.0, 3.0]]}
    assert len(list(batches)) == 1
    list(run.channel("validation").batches(1))
    run.channel("train").load()
    assert run.signature == {"features": 2, "sample": [[2.0, 3.0]]}


def test_a_signature_of_the_author_s_stays(tree):
    run = Run(tree.layout, None, hardware=CPU)
    run.signature["features"] = 9
    run.channel("train").load()
    assert run.signature == {"features": 9}


def test_checkpoints_are_in_the_local_path_of_the_job(tree):
    """TRAIN-74, TRAIN-170"""
    assert not Run(tree.layout, None, hardware=CPU).checkpoints.enabled
    (tree.layout.config / "checkpointconfig.json").write_text(
        '{"S3Uri":"s3://b/c","LocalPath":"/opt/ml/checkpoints/mine"}'
    )
    run = Run(tree.layout, None, hardware=CPU)
    assert run.checkpoints.directory == tree.layout.root / "checkpoints" / "mine"


def test_only_the_first_host_prints_metrics(tree, capsys):
    """TRAIN-194"""
    Run(tree.layout, None, hardware=CPU).metrics.log("loss", 1.0)
    tree.hosts("algo-2", ["algo-1", "algo-2"])
    Run(tree.layout, None, hardware=CPU).metrics.log("loss", 2.0)
    assert capsys.readouterr().out == "loss=1\n"
    assert len((tree.layout.metrics / "metrics.jsonl").read_text().splitlines()) == 2
