"""What an epoch of a channel is, without a job: order, shards, lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from byoa.local.control.augmented_manifest import AugmentedManifest
from byoa.local.control.channel_epochs import ChannelEpochs
from byoa.local.control.channel_sources import DownloadError, Share, Source
from byoa.local.storage.buckets import Buckets


@pytest.fixture
def buckets(tmp_path: Path) -> Iterator[Buckets]:
    made = Buckets(tmp_path)
    made.create("tests")
    yield made
    made.close()


def channel(*, seed: int | None = None, **source: Any) -> dict[str, Any]:
    s3 = {"S3DataType": "S3Prefix", "S3Uri": "s3://tests/d/",
          "S3DataDistributionType": "ShardedByS3Key"} | source
    found: dict[str, Any] = {"ChannelName": "c", "DataSource": {"S3DataSource": s3}}
    return found if seed is None else found | {"ShuffleConfig": {"Seed": seed}}


def keys(epochs: ChannelEpochs, number: int) -> list[str]:
    return [part.key for part in epochs.parts(number) if isinstance(part, Source)]


@pytest.fixture
def many(buckets: Buckets) -> list[str]:
    names = [f"d/{number:03}" for number in range(50)]
    for name in names:
        buckets.put_bytes("tests", name, b"")
    return names


@pytest.mark.parametrize("hosts", [1, 3, 50, 64])
@pytest.mark.parametrize("seed", [None, 0, 7])
def test_the_hosts_shares_of_each_epoch_are_all_objects_once(
    buckets: Buckets, many: list[str], hosts: int, seed: int | None
) -> None:
    """TRAIN-99, TRAIN-100: each host's is about an n-th, and some are empty."""
    for number in range(3):
        shares = [
            keys(ChannelEpochs(buckets, channel(seed=seed), Share(rank, hosts)), number)
            for rank in range(hosts)
        ]
        assert sorted(sum(shares, [])) == many
        assert {len(share) for share in shares} <= {50 // hosts, -(-50 // hosts)}


def test_the_order_is_that_of_the_keys_or_of_the_seed(buckets: Buckets, many: list[str]) -> None:
    """TRAIN-99: the same seed, the same order; in another process, too."""
    plain = ChannelEpochs(buckets, channel(), Share())
    assert [keys(plain, number) for number in range(3)] == [many] * 3

    one, same = (ChannelEpochs(buckets, channel(seed=5), Share()) for _ in range(2))
    orders = [keys(one, number) for number in range(3)]
    assert [keys(same, number) for number in range(3)] == orders
    assert len({tuple(order) for order in (many, *orders)}) == 4
    assert orders[0][:3] == ["d/008", "d/009", "d/007"]


def test_fully_replicated_data_is_every_host_s(buckets: Buckets, many: list[str]) -> None:
    whole = channel(S3DataDistributionType="FullyReplicated")

    assert keys(ChannelEpochs(buckets, whole, Share(1, 3)), 0) == many


def test_a_manifest_stays_as_it_was_when_the_job_began(buckets: Buckets) -> None:
    """Its object may be replaced between two epochs."""
    buckets.put_bytes("tests", "m", b'{"a":1,"b-ref":"s3://x/y/z"}\r\n{"b-ref":"s3://x/q","a":[]}')
    lines = AugmentedManifest(buckets, "s3://tests/m", ["b-ref", "a", "a"])
    buckets.put_bytes("tests", "m", b"no manifest")

    assert len(lines) == 2
    assert list(lines.parts(0)) == [Source("x", "y/z", "z"), b"1", b"1"]
    assert list(lines.parts(1)) == [Source("x", "q", "q"), b"[]", b"[]"]
    lines.close()


def test_a_line_that_is_no_text_is_named(buckets: Buckets) -> None:
    buckets.put_bytes("tests", "m", b'{"a":"\\ud83d"}\n\xff\xfe{"a":1}')
    with pytest.raises(DownloadError, match="line 2 of the augmented manifest .* no JSON object"):
        AugmentedManifest(buckets, "s3://tests/m", ["a"])
