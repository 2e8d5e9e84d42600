"""What Logs writes, as boto3's logs client and the SageMaker SDK read it."""

from __future__ import annotations

import importlib.util
import time
import uuid
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from byoa.local.aws.logs import EVENT_LIMIT_BYTES, Logs
from byoa.local.settings import Caller

CALLER = Caller("123456789012", "eu-west-3")
GROUP = "/aws/sagemaker/TrainingJobs"


@pytest.fixture
def logs(wire):
    return Logs(wire.aws.moto)


@pytest.fixture
def job():
    return f"job-{uuid.uuid4().hex[:12]}"


def _read(client, stream, **more):
    """All events, as the SDK pages: until the token repeats."""
    events, token = [], None
    for _ in range(100):
        asked = {"nextToken": token} if token else {}
        page = client.get_log_events(logGroupName=GROUP, logStreamName=stream, startFromHead=True,
                                     **asked, **more)
        events += page["events"]
        if page["nextForwardToken"] == token:
            return events
        token = page["nextForwardToken"]
    raise AssertionError("the forward token never repeats")


def test_lines_are_read_in_order_with_their_times(wire, logs, job):
    """WIRE-40, WIRE-41."""
    now = time.time()
    stream = f"{job}/algo-1-{int(now)}"
    logs.append(CALLER, GROUP, stream, [(now, "first"), (now, "second"), (now + 1, "Grüße ✓")])
    logs.append(CALLER, GROUP, stream, [(now + 2, "last\n")])
    events = _read(wire.client("logs"), stream)
    assert [event["message"] for event in events] == ["first", "second", "Grüße ✓", "last"]
    assert events[0]["timestamp"] == int(now * 1000)


def test_describe_log_streams_has_no_token_when_everything_fitted(wire, logs, job):
    """WIRE-22, TRAP-55, CHK-45: the SDK would loop for ever."""
    for host in (1, 2):
        logs.append(CALLER, GROUP, f"{job}/algo-{host}-1", [(time.time(), "x")])
    logs.append(CALLER, GROUP, f"{job}-other/algo-1-1", [(time.time(), "x")])
    answer = wire.client("logs").describe_log_streams(
        logGroupName=GROUP, logStreamNamePrefix=f"{job}/", orderBy="LogStreamName", limit=2)
    assert "nextToken" not in answer
    assert [s["logStreamName"] for s in answer["logStreams"]] == [
        f"{job}/algo-1-1", f"{job}/algo-2-1"]


def test_an_empty_stream_is_there_and_its_end_repeats_the_token(wire, logs, job):
    """WIRE-22."""
    logs.create(CALLER, GROUP, f"{job}/algo-1-1")
    assert _read(wire.client("logs"), f"{job}/algo-1-1") == []


def test_a_tail_goes_on_where_it_stopped(wire, logs, job):
    client, stream, now = wire.client("logs"), f"{job}/algo-1-1", time.time()
    logs.append(CALLER, GROUP, stream, [(now, "a")])
    page = client.get_log_events(logGroupName=GROUP, logStreamName=stream, startFromHead=True)
    logs.append(CALLER, GROUP, stream, [(now + 1, "b")])
    page = client.get_log_events(logGroupName=GROUP, logStreamName=stream, startFromHead=True,
                                 nextToken=page["nextForwardToken"])
    assert [event["message"] for event in page["events"]] == ["b"]


def test_more_events_than_a_page_holds_are_all_read(wire, logs, job):
    now = time.time()
    logs.append(CALLER, GROUP, f"{job}/algo-1-1",
                [(now + i / 1000, f"line {i}") for i in range(12_345)])
    events = _read(wire.client("logs"), f"{job}/algo-1-1")
    assert [event["message"] for event in events] == [f"line {i}" for i in range(12_345)]


def test_the_sdk_s_own_tail_ends_and_sees_every_line(wire, logs, job):
    """WIRE-22, CHK-31: the SDK's reader, unmodified."""
    # The one file: importing the package warns of its age and takes seconds.
    spec = importlib.util.find_spec("sagemaker")
    path = Path(spec.origin).with_name("logs.py")
    reader = importlib.util.spec_from_file_location("sdk_logs", path)
    sdk = importlib.util.module_from_spec(reader)
    reader.loader.exec_module(sdk)

    now = time.time()
    streams = [f"{job}/algo-{host}-1" for host in (1, 2)]
    for host, stream in enumerate(streams, start=1):
        logs.append(CALLER, GROUP, stream, [(now + i, f"{host}:{i}") for i in range(20)])
    found = [(index, event["message"]) for index, event in
             sdk.multi_stream_iter(wire.client("logs"), GROUP, streams)]
    assert sorted(found) == sorted(
        (host - 1, f"{host}:{i}") for host in (1, 2) for i in range(20))


def test_a_missing_group_is_a_resource_not_found(wire):
    """WIRE-22."""
    with pytest.raises(ClientError) as caught:
        wire.client("logs").describe_log_streams(logGroupName="/none", logStreamNamePrefix="x")
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_a_text_of_several_lines_is_several_events_and_empty_lines_are_none(wire, logs, job):
    """WIRE-41."""
    logs.append(CALLER, GROUP, f"{job}/algo-1-1", [(time.time(), "a\r\n\n  b\n"), (1.0, "")])
    assert [e["message"] for e in _read(wire.client("logs"), f"{job}/algo-1-1")] == ["a", "  b"]


def test_nothing_to_write_makes_no_stream(wire, logs, job):
    """WIRE-41."""
    logs.append(CALLER, f"{GROUP}/{job}", "s", [(time.time(), "")])
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        wire.client("logs").describe_log_streams(logGroupName=f"{GROUP}/{job}")


@pytest.mark.parametrize("character", ["x", "é", "𝄞"])
def test_a_line_over_256_kib_is_split_between_characters(wire, logs, job, character):
    """WIRE-41."""
    text = "a" + character * (600_000 // len(character.encode()))
    logs.append(CALLER, GROUP, f"{job}/algo-1-1", [(time.time(), text)])
    parts = [e["message"] for e in _read(wire.client("logs"), f"{job}/algo-1-1")]
    assert len(parts) == 3
    assert all(len(part.encode()) <= EVENT_LIMIT_BYTES for part in parts)
    assert "".join(parts) == text


def test_old_lines_are_accepted_when_they_are_replayed(wire, logs, job):
    logs.append(CALLER, GROUP, f"{job}/algo-1-1", [(time.time() - 90 * 86400, "old")])
    assert [e["message"] for e in _read(wire.client("logs"), f"{job}/algo-1-1")] == ["old"]


def test_logs_live_in_the_caller_s_region(wire, logs, job):
    logs.append(CALLER, GROUP, f"{job}/algo-1-1", [(time.time(), "x")])
    elsewhere = wire.client("logs", "sa-east-1")
    with pytest.raises(ClientError):
        _read(elsewhere, f"{job}/algo-1-1")


def test_groups_and_streams_are_deleted_once_or_twice(wire, logs, job):
    group = f"/aws/sagemaker/Endpoints/{job}"
    logs.append(CALLER, group, "AllTraffic/i-1", [(time.time(), "x")])
    logs.append(CALLER, group, "AllTraffic/i-2", [(time.time(), "x")])
    logs.delete_stream(CALLER, group, "AllTraffic/i-1")
    logs.delete_stream(CALLER, group, "AllTraffic/i-1")
    client = wire.client("logs")
    assert [s["logStreamName"] for s in
            client.describe_log_streams(logGroupName=group)["logStreams"]] == ["AllTraffic/i-2"]
    logs.delete_group(CALLER, group)
    logs.delete_group(CALLER, group)
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        client.describe_log_streams(logGroupName=group)
