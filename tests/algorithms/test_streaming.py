"""Streaming algorithms: passes, Pipe mode, resume, hosts, stop, earlier models."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byoa.algorithms import StreamingAlgorithm, array_state, param, streaming_source
from byoa.algorithms.registry import find
from byoa.algorithms.streaming import MODEL
from byoa.container.channels import Channel
from byoa.container.checkpoints import Checkpoints
from byoa.container.contract import ChannelConfig, InputDataConfig, ResourceConfig
from byoa.container.errors import AlgorithmError, DataError
from byoa.container.manifest import Manifest, write_manifest


class Means(StreamingAlgorithm):
    """Sums a class: additive, so hosts and batches may come in any order."""

    measures_train = True

    class Hyperparameters(StreamingAlgorithm.Hyperparameters):
        classes: int = param(10, doc="of the labels", min=2)
        mini_batch_size: int = param(100, doc="records a batch", min=1)

    def init(self, sample: Any, earlier: Any) -> dict[str, Any]:
        shape = (self.hyperparameters.classes, sample.features.shape[1])
        return earlier or {"sums": np.zeros(shape), "counts": np.zeros(shape[0])}

    def begin(self, state: dict[str, Any], lead: bool) -> None:
        if not lead:
            state.update({name: np.zeros_like(value) for name, value in state.items()})

    def update(self, state: dict[str, Any], batch: Any) -> None:
        np.add.at(state["sums"], batch.labels.astype(int), batch.features)
        np.add.at(state["counts"], batch.labels.astype(int), 1)

    def merge(self, state: dict[str, Any], other: dict[str, Any]) -> None:
        state["sums"] = state["sums"] + other["sums"]
        state["counts"] = state["counts"] + other["counts"]

    def finalize(self, state: dict[str, Any]) -> dict[str, Any]:
        return dict(state)

    def measure(self, state: Any, batches: Iterable[Any], channel: str) -> dict[str, Any]:
        right = total = 0
        for batch in batches:
            right += int((self.predict(state, batch.features) == batch.labels).sum())
            total += len(batch.features)
        return {"right": right, "total": total}

    def score(
        self, state: Any, parts: Sequence[Mapping[str, Any]], channel: str
    ) -> dict[str, float]:
        return {"accuracy": sum(p["right"] for p in parts) / sum(p["total"] for p in parts)}

    def predict(self, model: Any, records: np.ndarray) -> np.ndarray:
        means = model["sums"] / np.maximum(model["counts"], 1)[:, None]
        return (records @ means.T - (means**2).sum(axis=1) / 2).argmax(axis=1)


class Drift(StreamingAlgorithm):
    """A state that depends on the order and number of all updates."""

    class Hyperparameters(StreamingAlgorithm.Hyperparameters):
        epochs: int = param(3, doc="passes", min=1)
        mini_batch_size: int = param(100, doc="records a batch", min=1)
        patience: int = param(99, doc="passes until enough", min=1)

    def init(self, sample: Any, earlier: Any) -> dict[str, Any]:
        return {"at": np.zeros(sample.features.shape[1]), "updates": 0, "passes": 0}

    def update(self, state: dict[str, Any], batch: Any) -> None:
        state["at"] = 0.9 * state["at"] + 0.1 * np.tanh(batch.features.mean(axis=0) - state["at"])
        state["updates"] += 1

    def merge(self, state: dict[str, Any], other: dict[str, Any]) -> None:
        state["at"] = (state["at"] + other["at"]) / 2

    def end(self, state: dict[str, Any]) -> None:
        state["passes"] += 1

    def go_on(self, state: dict[str, Any], scores: Mapping[str, float]) -> bool:
        self.run.metrics.log("train:first", state["at"][20], self.epoch)
        return bool(state["passes"] < self.hyperparameters.patience)

    def finalize(self, state: dict[str, Any]) -> dict[str, Any]:
        return dict(state)

    def predict(self, model: Any, records: np.ndarray) -> np.ndarray:
        return records @ model["at"]


class After:
    """Asks to stop at the n-th look, as SIGTERM does in the middle of a pass."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def model(job: Any) -> dict[str, Any]:
    return array_state.read(job.layout.model, MODEL)


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(
        np.asarray(one[name]).tobytes() == np.asarray(other[name]).tobytes() for name in one
    )


def centres(data: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return np.stack([data[0][data[1] == k].mean(axis=0) for k in range(10)])


def test_one_pass_learns_what_the_whole_data_say(job: Callable[..., Any], digits: Any) -> None:
    trained = job(Means).channels(train=digits.train, test=digits.test)
    algorithm = trained.train()
    found = algorithm.load(trained.layout.model, "cpu")
    assert found["sums"] / found["counts"][:, None] == pytest.approx(centres(digits.train))
    right = (algorithm.predict(found, digits.test[0].astype(np.float32)) == digits.test[1]).mean()
    assert trained.metrics("test:accuracy") == [(1, pytest.approx(right))]
    assert trained.metrics("train:accuracy")[0][1] > 0.85


def test_a_pipe_gives_the_same_model_as_files(job: Callable[..., Any], digits: Any) -> None:
    """TRAIN-94 … TRAIN-96; several passes, each through a FIFO of its own."""
    files = job(Drift, "files").channels(train=digits.train)
    files.train()
    pipe = job(Drift, "pipe").channels(train=digits.train).piped("train")
    pipe.train()
    assert same(model(pipe), model(files))


def test_the_readme_s_example_trains_from_files_and_from_a_pipe(
    job: Callable[..., Any], digits: Any, module: Callable[[str, str], str]
) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    blocks = [part.partition("```")[0] for part in text.split("```python\n")]
    (source,) = [block for block in blocks if "class ClassMeans" in block]
    kind = find(f"{module('class_means', source)}:ClassMeans")
    found = []
    for name in ("files", "pipe"):
        trained = job(kind, name).channels(train=digits.train)
        if name == "pipe":
            trained.piped("train")
        algorithm = trained.train()
        loaded = algorithm.load(trained.layout.model, "cpu")
        predicted = algorithm.predict(loaded, digits.test[0].astype(np.float32))
        assert (predicted == digits.test[1]).mean() > 0.85
        found.append(model(trained))
    assert same(*found)


def test_records_that_are_not_kept_are_read_anew_and_give_the_same(
    job: Callable[..., Any], digits: Any, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept = job(Drift, "kept").channels(train=digits.train)
    kept.train()
    monkeypatch.setattr(streaming_source, "_KEPT_SHARE", 1e-6)
    anew = job(Drift, "anew").channels(train=digits.train)
    anew.train()
    assert "are read anew in each pass" in capsys.readouterr().out
    assert same(model(anew), model(kept))


def test_all_channels_together_keep_no_more_than_their_share(
    job: Callable[..., Any], digits: Any, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Room for `train` alone: it is kept, and `validation` and `test` are read anew."""
    reads: list[str] = []

    def batches(channel: Any, *given: Any, **named: Any) -> Any:
        reads.append(channel.name)
        return original(channel, *given, **named)

    original = Channel.batches
    monkeypatch.setattr(Channel, "batches", batches)
    monkeypatch.setattr(streaming_source, "_memory", lambda *given: 1_000_000)
    part = digits.train[0][:600], digits.train[1][:600]
    room = 600 * 65 * 4 * 1.5  # of one channel, and half
    monkeypatch.setattr(streaming_source, "_KEPT_SHARE", room / 1_000_000)

    class Measured(Drift):
        def measure(self, state: Any, batches: Iterable[Any], channel: str) -> dict[str, Any]:
            return {"total": sum(len(batch.features) for batch in batches)}

    job(Measured).channels(train=part, validation=part, test=part).train()
    assert (reads.count("train"), reads.count("validation"), reads.count("test")) == (1, 3, 1)
    said = capsys.readouterr().out
    assert "channel train" not in said
    assert "channel validation: all channels have more than" in said
    assert "channel test: all channels have more than" in said


def test_what_is_kept_is_measured_as_it_is_prepared(
    job: Callable[..., Any], digits: Any, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Room for the records, and not for three times as much that is made of them."""

    class Wide(Drift):
        def prepare(self, state: Any, batch: Any, origin: Any) -> Any:
            return batch._replace(features=np.tile(batch.features, (1, 3)))

        def update(self, state: Any, batch: Any) -> None:
            super().update(state, batch._replace(features=batch.features[:, :64]))

    records = digits.train[0].shape[0]
    monkeypatch.setattr(streaming_source, "_memory", lambda *given: 1_000_000)
    monkeypatch.setattr(streaming_source, "_KEPT_SHARE", records * 65 * 4 * 2 / 1_000_000)
    job(Drift, "plain").channels(train=digits.train).train()
    assert "read anew" not in capsys.readouterr().out
    job(Wide, "wide").channels(train=digits.train).train()
    assert "channel train" in capsys.readouterr().out


@pytest.mark.parametrize("looks", [5, 13, 19, 30])
def test_an_interrupted_training_ends_bit_for_bit_as_an_uninterrupted_one(
    job: Callable[..., Any], digits: Any, looks: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """TRAIN-151, TRAIN-174: in the first pass, at a pass's edge, in a later one."""
    whole = job(Drift, "whole").channels(train=digits.train).checkpoints()
    whole.train()
    broken = job(Drift, "broken").channels(train=digits.train).checkpoints()
    broken.train(stopping=After(looks))
    assert model(broken)["updates"] < model(whole)["updates"]
    broken.train()
    assert "resumes after pass" in capsys.readouterr().out
    assert same(model(broken), model(whole))
    assert broken.metrics("train:first") == whole.metrics("train:first")
    before = model(broken)
    broken.train()  # it is complete: nothing is done again
    assert same(model(broken), before)


def test_a_pipe_resumes_in_the_middle_of_a_pass(job: Callable[..., Any], digits: Any) -> None:
    whole = job(Drift, "whole").channels(train=digits.train)
    whole.train()
    broken = job(Drift, "broken").channels(train=digits.train).checkpoints().piped("train")
    broken.train(stopping=After(40))
    assert model(broken)["updates"] < model(whole)["updates"]
    (broken.layout.root / "done").touch()
    again = job(Drift, "again").channels(train=digits.train).checkpoints().piped("train")
    broken.layout.checkpoints.rename(again.layout.checkpoints)
    again.train()
    assert same(model(again), model(whole))


def test_a_training_stops_within_a_batch_and_saves_what_it_has(
    job: Callable[..., Any], digits: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """TRAIN-151"""
    stopped = job(Drift).channels(train=digits.train)
    stopped.train(stopping=After(4))
    assert model(stopped)["updates"] == 4
    assert "stopped in pass 1" in capsys.readouterr().out


def test_a_training_that_is_stopped_before_its_first_record_saves_no_model(
    job: Callable[..., Any], digits: Any
) -> None:
    stopped = job(Drift).channels(train=digits.train)
    stopped.train(stopping=lambda: True)
    assert list(stopped.layout.model.iterdir()) == []


@pytest.mark.parametrize("channel", ["train", "validation", "test"])
def test_a_training_stops_within_a_batch_of_a_measurement(
    job: Callable[..., Any], digits: Any, channel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """TRAIN-151: the stop comes with the second batch, the model is saved, and the training goes
    on from there to the end of an uninterrupted one."""
    seen = {"batches": 0, "stop": False}

    class Slow(Means):
        def measure(self, state: Any, batches: Iterable[Any], channel: str) -> dict[str, Any]:
            def watched() -> Iterable[Any]:
                for batch in batches:
                    seen["batches"] += 1
                    seen["stop"] = stopping and channel == wanted and seen["batches"] == 2
                    yield batch

            return super().measure(state, watched(), channel)

    wanted, stopping = channel, False
    channels = {"train": digits.train, "test": digits.test}
    if channel == "validation":
        channels["validation"] = digits.validation
    whole = job(Slow, "whole").channels(**channels).checkpoints()
    whole.train(mini_batch_size=20)
    seen["batches"], stopping = 0, True
    if channel == "test":
        seen["batches"] = -len(range(0, len(digits.train[0]), 20))  # `train` is measured before
    broken = job(Slow, "broken").channels(**channels).checkpoints()
    broken.train(mini_batch_size=20, stopping=lambda: seen["stop"])
    assert seen["batches"] == 2
    assert f"stopped in measuring {channel} after pass 1" in capsys.readouterr().out
    assert broken.metrics(f"{channel}:accuracy") == []
    assert same(model(broken), model(whole))
    seen["stop"] = stopping = False
    broken.train(mini_batch_size=20)
    assert same(model(broken), model(whole))
    assert broken.metrics(f"{channel}:accuracy") == whole.metrics(f"{channel}:accuracy")


def test_hosts_stop_in_a_measurement_when_one_is_asked_to(
    job: Callable[..., Any], group: Callable[[int], Any], digits: Any
) -> None:
    """TRAIN-151: the second host alone is asked, in the middle of the measurement."""
    asked = [False, False]

    class Slow(Means):
        def measure(self, state: Any, batches: Iterable[Any], channel: str) -> dict[str, Any]:
            asked[self.run.peers.rank] = self.run.peers.rank == 1
            return super().measure(state, batches, channel)

    names = ("algo-1", "algo-2")
    pair = []
    for name in names:
        one = job(Slow, name).channels(train=digits.train, validation=digits.validation)
        pair.append(one.hosts(*sorted(names, key=lambda other: other != name)))
    group(2).each(
        lambda rank, peers: pair[rank].train(peers=peers, stopping=lambda: asked[rank]) and None
    )
    assert model(pair[0])["counts"].sum() == len(digits.train[0])
    assert pair[0].metrics("validation:accuracy") == []


def test_go_on_ends_the_passes(job: Callable[..., Any], digits: Any) -> None:
    early = job(Drift).channels(train=digits.train)
    early.train(patience=2)
    assert model(early)["passes"] == 2


def test_a_checkpoint_of_another_training_is_refused(
    job: Callable[..., Any], digits: Any
) -> None:
    trained = job(Drift).channels(train=digits.train).checkpoints()
    trained.train()
    with pytest.raises(AlgorithmError, match="mini_batch_size=100") as caught:
        trained.train(mini_batch_size=50)
    assert caught.value.code == "CHECKPOINT_OF_ANOTHER_TRAINING"
    trained.train(epochs=4)  # more passes are no other training
    assert model(trained)["passes"] == 4


@pytest.mark.parametrize("distribution", ["FullyReplicated", "ShardedByS3Key"])
def test_hosts_share_the_data_and_the_first_saves_one_model(
    job: Callable[..., Any], digits: Any, group: Callable[[int], Any], distribution: str
) -> None:
    """TRAIN-132, TRAIN-62"""
    records, labels = digits.train
    names = ("algo-1", "algo-2", "algo-3")
    jobs = []
    for rank, name in enumerate(names):
        share = slice(rank, None, 3) if distribution == "ShardedByS3Key" else slice(None)
        one = job(Means, name).channels(
            train=(records[share], labels[share]), validation=digits.validation
        )
        config = InputDataConfig.read(one.layout).channels
        config["train"] = ChannelConfig(content_type="text/csv", distribution=distribution)
        InputDataConfig(config).write(one.layout)
        ResourceConfig(current_host=name, hosts=names).write(one.layout)
        jobs.append(one)
    group(3).each(lambda rank, peers: jobs[rank].train(peers=peers) and None)
    alone = job(Means, "alone").channels(train=digits.train, validation=digits.validation)
    alone.train()
    assert model(jobs[0])["counts"].sum() == len(records)
    assert model(jobs[0])["sums"] == pytest.approx(model(alone)["sums"])
    assert jobs[0].metrics("validation:accuracy") == alone.metrics("validation:accuracy")
    for other in jobs[1:]:
        assert list(other.layout.model.iterdir()) == []


def test_hosts_resume_from_the_first_one_s_last_whole_pass(
    job: Callable[..., Any], digits: Any, group: Callable[[int], Any]
) -> None:
    """TRAIN-172, TRAIN-174: a stop seen by one host ends all, and none goes on by itself."""
    names = ("algo-1", "algo-2")

    def pair(prefix: str) -> list[Any]:
        jobs = []
        for name in names:
            one = job(Drift, f"{prefix}-{name}").channels(train=digits.train).checkpoints()
            ResourceConfig(current_host=name, hosts=names).write(one.layout)
            jobs.append(one)
        return jobs

    whole, broken = pair("whole"), pair("broken")
    group(2).each(lambda rank, peers: whole[rank].train(peers=peers) and None)
    stops = [lambda: False, After(9)]
    group(2).each(
        lambda rank, peers: broken[rank].train(peers=peers, stopping=stops[rank]) and None
    )
    assert model(broken[0])["passes"] == 1
    assert Checkpoints(broken[1].layout.checkpoints, host="algo-2").latest() is None
    group(2).each(lambda rank, peers: broken[rank].train(peers=peers) and None)
    assert same(model(broken[0]), model(whole[0]))


@pytest.mark.parametrize("archive", [False, True])
def test_training_goes_on_from_the_model_of_an_earlier_job(
    job: Callable[..., Any], digits: Any, archive: bool, module: Callable[[str, str], str]
) -> None:
    records, labels = digits.train
    first = job(Means, "first").channels(train=(records[:500], labels[:500]))
    first.train()
    second = job(Means, "second").channels(train=(records[500:], labels[500:]))
    config = InputDataConfig.read(second.layout).channels
    config["model"] = ChannelConfig(content_type="application/x-sagemaker-model")
    InputDataConfig(config).write(second.layout)
    channel = second.layout.channel("model")
    if archive:
        channel.mkdir()
        with tarfile.open(channel / "model.tar.gz", "w:gz") as tar:
            tar.add(first.layout.model, ".")
    else:
        first.layout.model.rename(channel)
    second.train()
    whole = job(Means, "whole").channels(train=digits.train)
    whole.train()
    assert model(second)["sums"] == pytest.approx(model(whole)["sums"])


def test_an_earlier_model_of_another_algorithm_is_refused(
    job: Callable[..., Any], digits: Any
) -> None:
    trained = job(Means).channels(train=digits.train)
    config = InputDataConfig.read(trained.layout).channels
    InputDataConfig(config | {"model": ChannelConfig()}).write(trained.layout)
    channel = trained.layout.channel("model")
    channel.mkdir()
    (channel / "other.bin").write_bytes(b"x")
    with pytest.raises(DataError, match=r"model\.json is not there; there are other\.bin"):
        trained.train()
    write_manifest(channel, Manifest("nearest-centroid"))
    with pytest.raises(AlgorithmError) as caught:
        trained.train()
    assert caught.value.code == "EARLIER_MODEL_OF_ANOTHER_ALGORITHM"
    (channel / "model.tar.gz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="one model.tar.gz"):
        trained.train()
    for name in ("other.bin", "byoa.json"):
        (channel / name).unlink()
    with pytest.raises(DataError) as broken:
        trained.train()
    assert broken.value.code == "EARLIER_MODEL_UNREADABLE"


def test_a_number_that_is_none_is_named_by_record_and_column(job: Callable[..., Any]) -> None:
    rows = "".join(f"{n % 10},1,{n}\n" for n in range(250))
    trained = job(Means).channels(train=rows + "1,2,nan\n")
    with pytest.raises(DataError) as caught:
        trained.train()
    assert caught.value.code == "VALUE_NOT_FINITE"
    assert caught.value.where == "train (features) record 251, column 2"


def test_a_state_that_cannot_be_saved_says_what_is_in_it(
    job: Callable[..., Any], digits: Any
) -> None:
    class Odd(Drift):
        def end(self, state: dict[str, Any]) -> None:
            state["odd"] = {1, 2}

    trained = job(Odd).channels(train=digits.train).checkpoints()
    with pytest.raises(AlgorithmError, match="'odd' in the state is set") as caught:
        trained.train()
    assert caught.value.code == "STATE_NOT_PLAIN"


def test_states_travel_and_return_as_they_were() -> None:
    state = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(3, np.int32), "n": 7, "t": "é",
             "list": [1, None, {"x": True}], "float": np.float64(0.1)}
    returned = array_state.unpack(array_state.pack(state))
    assert returned.pop("float") == 0.1
    assert same({k: v for k, v in state.items() if k in "ab"},
                {k: v for k, v in returned.items() if k in "ab"})
    assert (returned["n"], returned["t"], returned["list"]) == (7, "é", [1, None, {"x": True}])
    with pytest.raises(AlgorithmError, match="an array of object"):
        array_state.pack({"o": np.array([None])})


def test_declaring_a_streaming_algorithm_imports_no_library() -> None:
    program = "import sys, byoa.algorithms; print('numpy' in sys.modules or 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "False\n"


def test_a_model_that_is_damaged_is_named(tmp_path: Path) -> None:
    array_state.write(tmp_path, MODEL, {"a": np.ones(3)})
    (tmp_path / "model.npz").write_bytes(b"damaged")
    with pytest.raises(AlgorithmError) as caught:
        array_state.read(tmp_path, MODEL)
    assert caught.value.code == "MODEL_UNREADABLE"
