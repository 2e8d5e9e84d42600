"""Waiting for the names of a job's hosts."""

from __future__ import annotations

import socket

import pytest

from byoa.container import hosts
from byoa.container.contract import ResourceConfig
from byoa.container.errors import ContractError
from byoa.container.hosts import wait_for_hosts

TWO = ResourceConfig("algo-1", ("algo-1", "algo-2"))


@pytest.fixture
def late(monkeypatch):
    """Names that resolve only after so many questions; the questions that were asked."""
    asked = []
    answers = {}

    def getaddrinfo(host, port):
        asked.append(host)
        if asked.count(host) <= answers.get(host, 0):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return []

    monkeypatch.setattr(hosts.socket, "getaddrinfo", getaddrinfo)
    return answers, asked


def test_a_name_that_comes_late_is_asked_for_again(late):
    """TRAIN-65, CHK-13; one that has resolved is not."""
    answers, asked = late
    answers["algo-2"] = 3
    said = []
    wait_for_hosts(TWO, say=said.append)
    assert asked == ["algo-1", "algo-2", "algo-2", "algo-2", "algo-2"]
    assert said[0] == "waiting for the name algo-2 to resolve"
    assert said[1].startswith("all 2 hosts resolve after ")


def test_names_that_resolve_at_once_are_not_spoken_of(late):
    said = []
    wait_for_hosts(TWO, say=said.append)
    assert said == []


def test_a_single_host_asks_nobody(late):
    """CHK-16: it may have no network at all."""
    _, asked = late
    wait_for_hosts(ResourceConfig())
    assert asked == []


def test_hosts_that_never_resolve_are_named_with_the_resolver_s_word(late):
    answers, _ = late
    answers.update({"algo-1": 10**6, "algo-2": 10**6})
    with pytest.raises(ContractError) as caught:
        wait_for_hosts(TWO, timeout=0.3, say=lambda text: None)
    assert caught.value.code == "HOST_UNRESOLVED"
    assert "the names algo-1, algo-2 did not resolve within 0.3 s" in caught.value.message
    assert "Name or service not known" in caught.value.message


def test_a_long_wait_says_again_who_is_missing(late, monkeypatch):
    answers, _ = late
    answers["algo-2"] = 4
    monkeypatch.setattr(hosts, "TELL_SECONDS", 0.0)
    said = []
    wait_for_hosts(TWO, say=said.append)
    assert any(line.startswith("still waiting for the name algo-2") for line in said)


def test_a_stop_ends_the_wait(late):
    """TRAIN-150"""
    answers, asked = late
    answers["algo-2"] = 10**6
    wait_for_hosts(TWO, stopping=lambda: len(asked) > 2, say=lambda text: None)
    assert asked.count("algo-2") < 10
