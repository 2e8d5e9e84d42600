"""Jobs on several hosts that reach one another by name: one tree, stream and exit each."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest

from byoa.local.control.instance_groups import groups_of, hosts_of, instance_type_of

pytestmark = pytest.mark.both_runners

FIXTURES = Path(__file__).parents[2] / "container" / "fixtures"
GROUP = "/aws/sagemaker/TrainingJobs"

# What programs of these jobs begin with: who they are, and a conversation over TCP by host name.
HEAD = """
import socket
def meet():
    '''Every later host greets the first one, which answers each with all the greetings.'''
    if me == first:
        listener = socket.create_server((first, 7777))
        peers = [listener.accept()[0] for _ in hosts[1:]]
        heard = sorted(peer.makefile().readline().strip() for peer in peers)
        for peer in peers:
            peer.sendall(f"{me} heard {' '.join(heard)}\\n".encode())
        return " ".join(heard)
    end = time.monotonic() + 20
    while True:
        try:
            peer = socket.create_connection((first, 7777), 5)
            break
        except OSError:
            assert time.monotonic() < end, "the first host does not listen"
            time.sleep(0.05)
    peer.sendall(f"{me}\\n".encode())
    return peer.makefile().readline().strip()
resources = json.loads((ml / 'input/config/resourceconfig.json').read_text())
me, hosts = resources['current_host'], resources['hosts']
first = hosts[0]
"""


@pytest.fixture
def cluster(new_laboratory: Any) -> Any:
    laboratory = new_laboratory("auto")
    if laboratory.runner.name == "process" and laboratory.runner.no_sandbox is not None:
        pytest.skip(f"no namespaces here: {laboratory.runner.no_sandbox}")
    return laboratory


@pytest.fixture
def submit(cluster: Any, training_request: Any) -> Any:
    """Submits a program as a job on two hosts, or so many."""

    def create(name: str, source: str, *, count: int = 2, **members: Any) -> None:
        specification = cluster.program(HEAD + source) | members.pop("specification", {})
        resources = {"InstanceType": "ml.m5.large", "InstanceCount": count, "VolumeSizeInGB": 1}
        cluster.call("CreateTrainingJob", **training_request(
            name, AlgorithmSpecification=specification, ResourceConfig=resources, **members,
        ))

    return create


def by_host(laboratory: Any, name: str) -> dict[str, list[str]]:
    """The lines of each host, which is told by the stream's name."""
    return {
        stream.removeprefix(f"{name}/").rpartition("-")[0]: lines
        for stream, lines in laboratory.streams(name).items()
    }


def until_all_printed(laboratory: Any, name: str, text: str, count: int = 2) -> None:
    end = time.monotonic() + 30
    while sum(line == text for line in laboratory.lines(name)) < count:
        assert time.monotonic() < end, (laboratory.lines(name), laboratory.describe(name))
        time.sleep(0.02)


def test_two_hosts_find_each_other_by_name_and_work_together(cluster: Any, submit: Any) -> None:
    """TRAIN-01, TRAIN-60, TRAIN-65, TRAIN-67, WIRE-40, CHK-45."""
    submit("pair", "print(meet())\n(ml / 'model' / f'part-{me}').write_text(me)")
    described = cluster.wait("pair")

    assert described["TrainingJobStatus"] == "Completed", described
    assert by_host(cluster, "pair") == {"algo-1": ["algo-2"], "algo-2": ["algo-1 heard algo-2"]}
    assert cluster.archive("output/pair/output/model.tar.gz") == {
        "part-algo-1": b"algo-1", "part-algo-2": b"algo-2",
    }
    assert described["ResourceConfig"]["InstanceCount"] == 2
    assert cluster.statuses("pair") == [
        "Starting", "Downloading", "Training", "Uploading", "Completed",
    ]


def test_each_host_reads_who_it_is(cluster: Any, submit: Any) -> None:
    """TRAIN-60, TRAIN-61, TRAIN-63, TRAIN-65: the interface is one that this host has; names may
    come late."""
    submit("who", """
print(json.dumps(resources))
print(resources['network_interface_name'] in [name for _, name in socket.if_nameindex()])
def known(host):
    end = time.monotonic() + 20
    while True:
        try:
            return socket.gethostbyname(host) != ''
        except OSError:  # its container has not started yet
            assert time.monotonic() < end, host
            time.sleep(0.05)
for host in hosts: print(host, known(host), flush=True)
while not (ml / 'input/go').exists(): time.sleep(0.02)
""", count=3)
    for host in ("algo-1", "algo-2", "algo-3"):
        until_all_printed(cluster, "who", f"{host} True", 3)
    for host in ("algo-1", "algo-2", "algo-3"):
        (cluster.ml("who", host) / "input/go").touch()
    assert cluster.wait("who")["TrainingJobStatus"] == "Completed"
    import json

    found = by_host(cluster, "who")
    assert sorted(found) == ["algo-1", "algo-2", "algo-3"]
    for host, lines in found.items():
        resources = json.loads(lines[0])
        assert resources["current_host"] == host
        assert resources["hosts"] == ["algo-1", "algo-2", "algo-3"]
        assert resources["current_instance_type"] == "ml.m5.large"
        assert resources["instance_groups"] == [{
            "instance_group_name": "homogeneousCluster", "instance_type": "ml.m5.large",
            "hosts": ["algo-1", "algo-2", "algo-3"],
        }]
        assert lines[1:] == ["True", "algo-1 True", "algo-2 True", "algo-3 True"]


@pytest.mark.process_only("no container starts")
def test_hosts_are_in_the_order_of_a_dictionary() -> None:
    """TRAIN-62, TRAP-15."""
    one_type = {"InstanceType": "ml.m5.large", "InstanceCount": 11}
    hosts = hosts_of({"ResourceConfig": one_type})
    assert hosts[:4] == ("algo-1", "algo-10", "algo-11", "algo-2")


@pytest.mark.process_only("no container starts")
def test_hosts_are_counted_over_all_groups_in_the_request_s_order() -> None:
    """TRAIN-61, TRAIN-215."""
    request = {"ResourceConfig": {"InstanceGroups": [
        {"InstanceGroupName": "z", "InstanceType": "ml.c5.xlarge", "InstanceCount": 2},
        {"InstanceGroupName": "a", "InstanceType": "ml.m5.large", "InstanceCount": 8},
    ]}}
    first, second = groups_of(request)
    assert (first.name, first.hosts) == ("z", ("algo-1", "algo-2"))
    assert second.hosts[:2] == ("algo-10", "algo-3")
    assert hosts_of(request)[:3] == ("algo-1", "algo-10", "algo-2")
    assert instance_type_of(request, "algo-10") == "ml.m5.large"


def test_instance_groups_have_their_own_type_and_channels(
    cluster: Any, training_request: Any, channel: Any
) -> None:
    """TRAIN-61, TRAIN-101, TRAIN-215: a channel of a group is not even a directory elsewhere, and
    is divided within the group."""
    for name in ("a", "b", "c", "d"):
        cluster.buckets.put_bytes("tests", f"data/{name}", name.encode())
    groups = [
        {"InstanceGroupName": "workers", "InstanceType": "ml.c5.xlarge", "InstanceCount": 2},
        {"InstanceGroupName": "lead", "InstanceType": "ml.m5.large", "InstanceCount": 1},
    ]

    def of(name: str, **members: Any) -> Any:
        made = channel(name, "s3://tests/data/")
        made["DataSource"]["S3DataSource"].update(members)
        return made

    source = HEAD + """
data = ml / 'input/data'
print(json.dumps([
    resources['current_group_name'], resources['current_instance_type'], hosts,
    [each['instance_group_name'] for each in resources['instance_groups']],
    {each.name: sorted(path.name for path in each.iterdir()) for each in data.iterdir()
     if each.is_dir()},
]))
"""
    cluster.call("CreateTrainingJob", **training_request(
        "groups", AlgorithmSpecification=cluster.program(source),
        ResourceConfig={"InstanceGroups": groups, "VolumeSizeInGB": 1},
        InputDataConfig=[
            of("all"),
            of("part", InstanceGroupNames=["workers"], S3DataDistributionType="ShardedByS3Key"),
            of("whole", InstanceGroupNames=["lead"]),
        ],
    ))
    described = cluster.wait("groups")
    assert described["TrainingJobStatus"] == "Completed", described
    assert described["ResourceConfig"]["InstanceGroups"] == groups
    assert "InstanceCount" not in described["ResourceConfig"]
    import json

    found = {host: json.loads(lines[0]) for host, lines in by_host(cluster, "groups").items()}
    names, everything = ["algo-1", "algo-2", "algo-3"], ["a", "b", "c", "d"]
    for host, kind, data in (
        ("algo-1", ["workers", "ml.c5.xlarge"], {"all": everything, "part": ["a", "c"]}),
        ("algo-2", ["workers", "ml.c5.xlarge"], {"all": everything, "part": ["b", "d"]}),
        ("algo-3", ["lead", "ml.m5.large"], {"all": everything, "whole": everything}),
    ):
        assert found[host] == [*kind, names, ["workers", "lead"], data]


def test_every_host_gets_all_data_or_its_own_share_of_the_objects(
    cluster: Any, submit: Any, channel: Any
) -> None:
    """TRAIN-90, TRAIN-100: sorted keys in turn; a host may get none."""
    for name in ("a", "b", "c"):
        cluster.buckets.put_bytes("tests", f"many/{name}", name.encode())
    cluster.buckets.put_bytes("tests", "one/only", b"1")
    shared = {"S3DataDistributionType": "ShardedByS3Key", "S3DataType": "S3Prefix"}
    submit(
        "data",
        "for name in ('whole', 'many', 'one'):\n"
        "    folder = ml / 'input/data' / name\n"
        "    print(name, *sorted(path.name for path in folder.iterdir()))\n"
        "print(json.loads((ml / 'input/config/inputdataconfig.json').read_text())"
        "['many']['S3DistributionType'])",
        InputDataConfig=[
            channel("whole", "s3://tests/many/"),
            {"ChannelName": "many",
             "DataSource": {"S3DataSource": shared | {"S3Uri": "s3://tests/many/"}}},
            {"ChannelName": "one",
             "DataSource": {"S3DataSource": shared | {"S3Uri": "s3://tests/one/only"}}},
        ],
    )
    assert cluster.wait("data")["TrainingJobStatus"] == "Completed"

    assert by_host(cluster, "data") == {
        "algo-1": ["whole a b c", "many a c", "one only", "ShardedByS3Key"],
        "algo-2": ["whole a b c", "many b", "one", "ShardedByS3Key"],
    }


@pytest.mark.parametrize("compression", ["GZIP", "NONE"])
def test_what_all_hosts_leave_is_merged(
    cluster: Any, submit: Any, compression: str
) -> None:
    """TRAIN-130, TRAIN-131, TRAIN-132, TRAIN-134, TRAP-22; of a name under which two hosts have
    written different things the author is told."""
    submit("merged", """
(ml / 'model' / 'weights').write_text(me)
(ml / 'model' / 'parts').mkdir()
(ml / 'model' / 'parts' / me).write_text(me)
(ml / 'output/data' / f'report-{me}').write_text(me)
if me != first: (ml / 'model' / 'weights').write_text(me)
(ml / 'model' / 'odd').mkdir() if me == first else (ml / 'model' / 'odd').touch()
""", OutputDataConfig={"S3OutputPath": "s3://tests/output", "CompressionType": compression})
    assert cluster.wait("merged")["TrainingJobStatus"] == "Completed"

    files = {"parts/algo-1": b"algo-1", "parts/algo-2": b"algo-2", "weights": b"algo-1"}
    if compression == "GZIP":
        assert cluster.archive("output/merged/output/model.tar.gz") == files | {
            "odd": None, "parts": None,
        }
    else:
        top = "output/merged/output/model/"
        assert {key[len(top):]: cluster.get(key) for key in cluster.keys(top)} == files
    assert cluster.archive("output/merged/output/output.tar.gz") == {
        "report-algo-1": b"algo-1", "report-algo-2": b"algo-2",
    }
    where = "not in model.tar.gz" if compression == "GZIP" else "not uploaded"
    assert by_host(cluster, "merged") == {"algo-1": [
        f"byoa: {where}: {name} of algo-2: algo-1 has written something else under this name,"
        " which is kept" for name in ("odd", "weights")
    ]}


def test_a_host_that_fails_ends_the_others_and_its_reason_is_the_jobs(
    cluster: Any, submit: Any
) -> None:
    """TRAIN-140, TRAIN-145."""
    submit("failing", """
if me == 'algo-2':
    meet()
    (ml / 'output/failure').write_text('the data of algo-2 is bad')
    (ml / 'model' / 'late').touch()
    sys.exit(3)
def end(*_):
    print('ended', flush=True)
    (ml / 'output/failure').write_text('a peer is gone')
    sys.exit(9)
signal.signal(signal.SIGTERM, end)
meet()
time.sleep(60)
""")
    described = cluster.wait("failing")

    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"] == "AlgorithmError: the data of algo-2 is bad, exit code: 3"
    assert by_host(cluster, "failing")["algo-1"] == ["ended"]
    assert cluster.archive("output/failing/output/model.tar.gz") == {"late": b""}


def test_a_host_that_does_not_end_for_a_failed_one_is_killed(
    cluster: Any, submit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRAIN-140; one that waits for its peer in a library may never see SIGTERM."""
    from byoa.local.control import training_run

    monkeypatch.setattr(training_run, "PEERS_SECONDS", 0.3)
    submit("deaf", """
signal.signal(signal.SIGTERM, lambda *_: print('no', flush=True))
meet()
if me == first: sys.exit(5)
end = time.monotonic() + 60
while time.monotonic() < end: time.sleep(0.1)
""")

    assert cluster.wait("deaf")["FailureReason"] == "AlgorithmError: , exit code: 5"


def test_a_host_that_ends_early_leaves_the_job_to_the_others(cluster: Any, submit: Any) -> None:
    """DIST-11."""
    submit("early", "meet()\nif me == first: time.sleep(0.7); print('last')")

    assert cluster.wait("early")["TrainingJobStatus"] == "Completed"
    assert by_host(cluster, "early") == {"algo-1": ["last"]}  # WIRE-41


def test_a_stop_reaches_every_host_and_keeps_what_each_saves(cluster: Any, submit: Any) -> None:
    """TRAIN-150, TRAIN-151, TRAIN-137."""
    submit("stopped", """
def stop(*_):
    (ml / 'model' / me).touch()
    sys.exit(7)
signal.signal(signal.SIGTERM, stop)
os.write(1, b'ready\\n')
time.sleep(60)
""")
    until_all_printed(cluster, "stopped", "ready")
    cluster.call("StopTrainingJob", TrainingJobName="stopped")
    described = cluster.wait("stopped")

    assert described["TrainingJobStatus"] == described["SecondaryStatus"] == "Stopped"
    assert cluster.archive("output/stopped/output/model.tar.gz") == {"algo-1": b"", "algo-2": b""}


def test_the_runtime_limit_ends_every_host_deaf_ones_too(
    cluster: Any, submit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRAIN-150, TRAIN-152: one grace for all."""
    cluster.close()
    cluster.settings = type(cluster.settings)(home=cluster.home, stop_grace=0.5)
    cluster.open()
    submit(
        "limit",
        "signal.signal(signal.SIGTERM, lambda *_: print('no', flush=True))\n"
        "(ml / 'model' / me).touch()\nend = time.monotonic() + 60\n"
        "while time.monotonic() < end: time.sleep(0.1)",
        StoppingCondition={"MaxRuntimeInSeconds": 2},
    )
    described = cluster.wait("limit")

    assert described["SecondaryStatus"] == "MaxRuntimeExceeded"
    assert cluster.archive("output/limit/output/model.tar.gz") == {"algo-1": b"", "algo-2": b""}


METRICS = [{"Name": "loss", "Regex": "loss=([0-9.]+)"}]


def test_a_metric_has_the_host_that_printed_it_as_a_dimension(cluster: Any, submit: Any) -> None:
    """TRAIN-192, TRAIN-194: the value that was printed last is the final one."""
    submit("metrics", """
if me == 'algo-2': print('loss=2.0', flush=True)
meet()
if me == first:
    time.sleep(0.5)
    print('loss=1.0')
""", specification={"MetricDefinitions": METRICS})
    described = cluster.wait("metrics")

    assert described["FinalMetricDataList"][0]["Value"] == 1.0
    data = cluster.metrics._moto.backend("cloudwatch", cluster.caller.region).metric_data
    values = {
        dimension.value: each.value
        for each in data
        for dimension in each.dimensions
        if dimension.name == "Host" and dimension.value.startswith("metrics/")
    }
    assert values == {"metrics/algo-1": 1.0, "metrics/algo-2": 2.0}


def test_checkpoints_come_to_every_host_and_go_to_one_prefix(cluster: Any, submit: Any) -> None:
    """TRAIN-170, TRAIN-171, TRAIN-172."""
    cluster.buckets.put_bytes("tests", "ck/algo-1-old", b"1")
    submit(
        "checkpoints",
        "directory = ml / 'checkpoints'\n"
        "print(*sorted(path.name for path in directory.iterdir()))\n"
        "(directory / f'{me}-new').write_text(me)\n"
        "if me == first: (directory / 'algo-1-old').unlink()",
        CheckpointConfig={"S3Uri": "s3://tests/ck"},
    )
    assert cluster.wait("checkpoints")["TrainingJobStatus"] == "Completed"

    assert by_host(cluster, "checkpoints") == {"algo-1": ["algo-1-old"], "algo-2": ["algo-1-old"]}
    assert cluster.keys("ck/") == ["ck/algo-1-new", "ck/algo-2-new"]


WAITING = """
print('pid', os.getpid(), flush=True)
directory = ml / 'checkpoints'
directory.joinpath(f'{me}-0').write_text(me)
meet()
print('loss=1.0', flush=True)
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
while me == first and not (ml / 'input/go').exists() and not stopped: time.sleep(0.02)
print('loss=0.5')
(ml / 'model' / me).touch()
"""


def start_waiting(laboratory: Any, submit: Any, name: str) -> Path:
    """The first host waits for a file, which is returned; the second ends."""
    submit(name, WAITING, specification={"MetricDefinitions": METRICS},
           CheckpointConfig={"S3Uri": "s3://tests/ck"})
    until_all_printed(laboratory, name, "loss=1.0")
    return laboratory.ml(name) / "input/go"


def test_all_hosts_are_adopted_by_the_next_server(cluster: Any, submit: Any) -> None:
    """One of them ended while no server ran."""
    go = start_waiting(cluster, submit, "adopted")
    before = cluster.streams("adopted")
    cluster.close(keep_running=True)
    cluster.logs.delete_group(cluster.caller, GROUP)
    cluster.open()
    cluster.until_printed("adopted", "loss=1.0")
    assert cluster.describe("adopted")["SecondaryStatus"] == "Training"
    go.touch()
    described = cluster.wait("adopted")

    assert described["TrainingJobStatus"] == "Completed"
    found = cluster.streams("adopted")
    assert sorted(found) == sorted(before)
    assert [lines[1:] for lines in found.values()] == [["loss=1.0", "loss=0.5"]] * 2
    assert cluster.archive("output/adopted/output/model.tar.gz") == {"algo-1": b"", "algo-2": b""}
    assert cluster.keys("ck/") == ["ck/algo-1-0", "ck/algo-2-0"]
    cluster.close()  # the record is written before the containers are removed
    assert cluster.onlooker.left() == []


def test_a_host_that_the_killed_server_had_not_started_is_started_by_the_next(
    cluster: Any, submit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from byoa.local.control.training_run import _Left

    start, started = cluster.runner.start, []

    def only_the_first(spec: Any, warm: Any = None) -> Any:
        if started:
            end = time.monotonic() + 30
            while cluster.runner.adopt({"name": started[0].name}) is None:
                assert time.monotonic() < end
            (run,) = cluster.training._runs.values()
            run.leave()
            raise _Left
        started.append(spec)
        return start(spec)

    monkeypatch.setattr(cluster.runner, "start", only_the_first)
    submit("half", "print('pid', os.getpid(), flush=True)\nprint(meet())")
    (run,) = cluster.training._runs.values()
    assert run.join(30)
    cluster.close(keep_running=True)
    cluster.open()

    described = cluster.wait("half")
    assert described["TrainingJobStatus"] == "Completed", cluster.streams("half")
    found = by_host(cluster, "half")
    assert found["algo-2"][1:] == ["algo-1 heard algo-2"]
    assert [line.split()[0] for line in found["algo-1"]] == ["pid", "algo-2"]


def test_a_job_whose_second_host_is_gone_fails_and_leaves_no_process(
    cluster: Any, submit: Any
) -> None:
    submit("gone", "print('ready', flush=True)\ntime.sleep(60)")
    until_all_printed(cluster, "gone", "ready")
    assert len(cluster.onlooker.running()) == 2
    cluster.close(keep_running=True)
    cluster.onlooker.lose("algo-2")
    cluster.open()
    described = cluster.wait("gone")

    assert described["FailureReason"].startswith("InternalServerError: ")
    cluster.until_ended()


def test_a_shutdown_stops_every_host(cluster: Any, submit: Any) -> None:
    start_waiting(cluster, submit, "shutdown")
    cluster.close(timeout=5.0)
    cluster.open()

    assert cluster.describe("shutdown")["TrainingJobStatus"] == "Stopped"
    assert cluster.archive("output/shutdown/output/model.tar.gz") == {
        "algo-1": b"", "algo-2": b"",
    }
    assert cluster.onlooker.left() == []


def test_the_streams_of_all_hosts_come_back_and_go_with_the_job(
    cluster: Any, submit: Any
) -> None:
    """WIRE-22"""
    submit("kept", "print(me)")
    cluster.wait("kept")
    before = cluster.streams("kept")
    assert sorted(before.values()) == [["algo-1"], ["algo-2"]]
    cluster.close()
    cluster.logs.delete_group(cluster.caller, GROUP)
    cluster.open()
    until_all_printed(cluster, "kept", "algo-1", 1)
    until_all_printed(cluster, "kept", "algo-2", 1)
    assert cluster.streams("kept") == before
    cluster.call("DeleteTrainingJob", TrainingJobName="kept")

    assert cluster.streams("kept") == {}
    assert [path for path in (cluster.home / "logs").rglob("*") if path.is_file()] == []


def test_isolated_hosts_reach_one_another_and_nothing_else(cluster: Any, submit: Any) -> None:
    """TRAIN-12, CHK-16."""
    with socket.create_server(("127.0.0.1", 0)) as outside:
        outside.settimeout(0.1)
        port = outside.getsockname()[1]
        submit("isolated", f"""
print(meet(), 'AWS_ENDPOINT_URL' in os.environ)
for goal in (('127.0.0.1', {port}), ('192.0.2.1', 80)):
    try:
        socket.create_connection(goal, 5)
        print('reached', goal)
    except OSError:
        print('out of reach')
""", EnableNetworkIsolation=True)
        described = cluster.wait("isolated")
        with pytest.raises(TimeoutError):
            outside.accept()

    assert described["TrainingJobStatus"] == "Completed", cluster.lines("isolated")
    out = ["out of reach", "out of reach"]
    assert by_host(cluster, "isolated") == {
        "algo-1": ["algo-2 False", *out], "algo-2": ["algo-1 heard algo-2 False", *out],
    }


def test_two_jobs_may_use_the_same_port(cluster: Any, submit: Any) -> None:
    """TRAIN-67: every job's hosts are a network of their own."""
    for name in ("left", "right"):
        submit(name, f"print({name!r}, meet(), flush=True)\n(time.sleep(1) if me == first else 0)")
    for name in ("left", "right"):
        assert cluster.wait(name)["TrainingJobStatus"] == "Completed"
        assert by_host(cluster, name)["algo-1"] == [f"{name} algo-2"]


MEETING = """
import socket, time
from summing import Summing

class Meeting(Summing):
    def _return(self, run):
        address = run.hosts.hosts[0], 7777
        if run.hosts.rank == 0:  # it stays until the other has come: its name goes with it
            with socket.create_server(address) as listener:
                listener.accept()[0].close()
            return
        for _ in range(200):
            try:
                return socket.create_connection(address, 5).close()
            except OSError:
                time.sleep(0.05)
        raise TimeoutError("the first host does not listen")
"""


def test_an_algorithm_of_several_hosts_trains_by_byoa_s_own_entrypoint(
    cluster: Any, training_request: Any, channel: Any
) -> None:
    """TRAIN-65, TRAIN-194: the plan says who is who; the first host prints the metrics."""
    cluster.buckets.put_bytes("tests", "sum/code/summing.py",
                              FIXTURES.joinpath("summing.py").read_bytes())
    cluster.buckets.put_bytes("tests", "sum/code/meeting.py", MEETING.encode())
    cluster.buckets.put_bytes("tests", "sum/data/a.csv", b"1,2\n")
    cluster.buckets.put_bytes("tests", "sum/data/b.csv", b"3,4\n")
    data = channel("train", "s3://tests/sum/data/")
    data["DataSource"]["S3DataSource"]["S3DataDistributionType"] = "ShardedByS3Key"
    cluster.call("CreateTrainingJob", **training_request(
        "summing",
        AlgorithmSpecification={
            "TrainingImage": cluster.byoa_image, "TrainingInputMode": "File",
        },
        InputDataConfig=[data, channel("code", "s3://tests/sum/code/")],
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1},
        Environment={"BYOA_ALGORITHM": "meeting:Meeting",
                     "PYTHONPATH": "/opt/ml/input/data/code"},
    ))
    described = cluster.wait("summing")

    assert described["TrainingJobStatus"] == "Completed", described
    found = by_host(cluster, "summing")
    assert any("on algo-2 (2 of 2)" in line for line in found["algo-2"])
    assert any(line.startswith("train:sum=3") for line in found["algo-1"])
    assert not any(line.startswith("train:sum") for line in found["algo-2"])
    assert cluster.archive("output/summing/output/model.tar.gz")["sum.txt"] == b"3.0"


def test_torch_meets_over_the_interface_that_the_hosts_are_told(
    cluster: Any, submit: Any, request: pytest.FixtureRequest
) -> None:
    """TRAIN-63, DIST-10."""
    if cluster.runner.name == "process":
        pytest.importorskip("torch")
        image = {}
    else:
        image = {"TrainingImage": request.getfixturevalue("byoa_image")}
    submit("gloo", """
os.environ['GLOO_SOCKET_IFNAME'] = resources['network_interface_name']
import torch, torch.distributed
torch.distributed.init_process_group(
    'gloo', init_method=f'tcp://{first}:7777', rank=hosts.index(me), world_size=len(hosts))
total = torch.tensor([hosts.index(me) + 1.0])
torch.distributed.all_reduce(total)
print(total.item())
torch.distributed.destroy_process_group()
""", specification=image)
    described = cluster.wait("gloo", timeout=90)

    assert described["TrainingJobStatus"] == "Completed", cluster.streams("gloo")
    assert [lines[-1] for lines in by_host(cluster, "gloo").values()] == ["3.0", "3.0"]
