"""The instances of a training job: one type, or groups of several (TRAIN-215)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from byoa.container.contract import HOMOGENEOUS_GROUP, InstanceGroup


def groups_of(request: Mapping[str, Any]) -> tuple[InstanceGroup, ...]:
    """The groups in the request's order; algo-1 … algo-N are counted over all of them."""
    resources = request["ResourceConfig"]
    given = resources.get("InstanceGroups") or [{
        "InstanceGroupName": HOMOGENEOUS_GROUP, "InstanceType": resources["InstanceType"],
        "InstanceCount": resources["InstanceCount"],
    }]
    groups, first = [], 1
    for each in given:
        numbers = range(first, first + each["InstanceCount"])
        first = numbers.stop
        hosts = tuple(sorted(f"algo-{number}" for number in numbers))
        groups.append(InstanceGroup(each["InstanceGroupName"], each["InstanceType"], hosts))
    return tuple(groups)


def hosts_of(request: Mapping[str, Any]) -> tuple[str, ...]:
    """All hosts in the service's order, that of a dictionary (TRAIN-62)."""
    return tuple(sorted(host for group in groups_of(request) for host in group.hosts))


def instance_type_of(request: Mapping[str, Any], host: str) -> str:
    return next(group.instance_type for group in groups_of(request) if host in group.hosts)


def place_of(
    request: Mapping[str, Any], channel: Mapping[str, Any], host: str
) -> tuple[int, int] | None:
    """The host's index among the hosts that get a channel, and their number; None for one that does
    not, as its group is not among the channel's InstanceGroupNames (TRAIN-101)."""
    wanted = channel["DataSource"].get("S3DataSource", {}).get("InstanceGroupNames")
    hosts = tuple(sorted(
        each for group in groups_of(request) if not wanted or group.name in wanted
        for each in group.hosts
    ))
    return (hosts.index(host), len(hosts)) if host in hosts else None


def counts_out_of_range(resources: Mapping[str, Any]) -> Iterator[str]:
    """What the API's model allows, in its words: its least is 0."""
    for number, group in enumerate(resources.get("InstanceGroups") or (), start=1):
        if group["InstanceCount"] < 1:
            yield (
                f"Value '{group['InstanceCount']}' at"
                f" 'resourceConfig.instanceGroups.{number}.member.instanceCount' failed to satisfy"
                " constraint: Member must have value greater than or equal to 1"
            )


def wrong(request: Mapping[str, Any]) -> Iterator[str]:
    """Groups that contradict other members, or that channels name and that are not there."""
    resources = request.get("ResourceConfig") or {}
    groups = resources.get("InstanceGroups") or []
    both = [name for name in ("InstanceType", "InstanceCount") if resources.get(name)]
    if groups and both:
        yield (
            f"ResourceConfig must have either InstanceGroups or {' and '.join(both)}, not both."
        )
    names = Counter(group["InstanceGroupName"] for group in groups)
    for name, count in names.items():
        if count > 1:
            yield f"Instance group names must be unique: {name!r} is given {count} times."
    for channel in request.get("InputDataConfig") or []:
        source = channel["DataSource"].get("S3DataSource") or {}
        for name in source.get("InstanceGroupNames") or []:
            if name not in names:
                have = ", ".join(map(repr, names)) or "none"
                yield (
                    f"Channel {channel['ChannelName']!r}: InstanceGroupNames has {name!r}, which is"
                    f" no instance group of ResourceConfig; it has {have}."
                )
