"""Which sessions are known, and for how long."""

import pytest

from byoa.local.runtime.routing import Backend, Route, Router, VariantRoute
from byoa.local.runtime.sessions import BadSession, Sessions
from byoa.local.settings import Caller

EVER = "Expires=2099-01-01T00:00:00Z"


def test_a_session_is_found_until_it_is_closed():
    """SESS-01, SESS-02."""
    sessions, backend = Sessions(), Backend("i-1")
    sessions.opened(f"a-1; {EVER}", backend)
    assert sessions.find("a-1") is backend
    assert sessions.find("a") is None
    sessions.closed("a-1")
    sessions.closed("a-1")
    assert sessions.find("a-1") is None


def test_a_session_that_is_opened_again_lives_as_long_as_was_said_last():
    """SESS-01."""
    sessions, backend = Sessions(), Backend("i-1")
    sessions.opened(f"a; {EVER}", backend)
    sessions.opened("a; Expires=2001-01-01T00:00:00Z", backend)
    assert sessions.find("a") is None


@pytest.mark.parametrize("value", [
    "", "a", f"; {EVER}", f"-a; {EVER}", f"a; {EVER}x", f"a;{EVER}", "a; Expires=2099-01-01",
    "a; Expires=2099-02-30T00:00:00Z", f"NEW_SESSION; {EVER}", f"{'a' * 240}; {EVER}",
])
def test_what_the_api_would_not_take_for_a_session_is_refused(value):
    """SESS-01, HOST-34."""
    with pytest.raises(BadSession):
        Sessions().opened(value, Backend("i-1"))


def test_a_container_that_was_started_anew_keeps_none_of_the_earlier_sessions():
    sessions, backend = Sessions(), Backend("i-1")
    backend.connect(("127.0.0.1", 1))
    sessions.opened(f"a; {EVER}", backend)
    backend.connect(("127.0.0.1", 2))
    assert sessions.find("a") is None
    backend.close()


def test_a_route_keeps_the_sessions_of_its_instances_and_no_others():
    router, caller, here, there = Router(), Caller("1", "us-west-2"), Backend("x"), Backend("y")
    router.set(caller, "ep", Route([VariantRoute("v", 1.0, [here, there])]))
    for name, backend in (("a", here), ("b", there)):
        router.sessions(caller, "ep").opened(f"{name}; {EVER}", backend)
    router.set(caller, "ep", Route([VariantRoute("v", 1.0, [there, Backend("z")])]))
    assert [router.sessions(caller, "ep").find(name) for name in "ab"] == [None, there]
    assert router.sessions(Caller("1", "eu-west-1"), "ep").find("b") is None
    router.remove(caller, "ep")
    assert router.sessions(caller, "ep").find("b") is None
