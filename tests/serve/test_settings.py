"""The table of settings, and the plan of workers that follows from it."""

from __future__ import annotations

from dataclasses import fields

import pytest

from byoa.container.errors import ContractError
from byoa.container.hardware import Gpu, Hardware
from byoa.serve import settings as settings_module
from byoa.serve.plan import make_plan
from byoa.serve.settings import REFUSED, SETTINGS, Settings, read


def test_the_table_and_the_type_name_the_same_settings():
    assert [each.name for each in SETTINGS] == [each.name for each in fields(Settings)]


def test_every_setting_has_a_meaning_and_a_variable_of_its_own():
    variables = [name for each in SETTINGS for name in each.variables] + list(REFUSED)
    assert len(set(variables)) == len(variables)
    assert all(each.doc and each.parse.__doc__ for each in SETTINGS)


def test_the_defaults_are_the_contracts():
    """HOST-10, HOST-31, HOST-32, ITK-03."""
    settings = read({})
    assert (settings.port, settings.payload_limit, settings.timeout) == (8080, 6_291_456, 60)
    assert settings.default_accept == "application/json"
    assert settings.door == "express"


def test_running_requests_get_less_time_than_the_platform_gives():
    """HOST-03: SIGKILL comes after 30 s."""
    assert read({}).graceful_timeout < 30
    with pytest.raises(ContractError, match="BYOA_GRACEFUL_TIMEOUT='30'"):
        read({"BYOA_GRACEFUL_TIMEOUT": "30"})


def test_the_server_answers_504_before_the_platform_cuts():
    """HOST-31."""
    assert 50 < read({}).deadline < 60
    assert read({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "1"}).deadline < 1


def test_the_first_variable_of_a_setting_wins():
    both = {
        "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": "7", "SAGEMAKER_MODEL_SERVER_TIMEOUT": "8",
        "BYOA_WORKERS": "3", "SAGEMAKER_MODEL_SERVER_WORKERS": "4",
    }
    settings = read(both)
    assert (settings.timeout, settings.workers) == (7, 3)
    assert read({"SAGEMAKER_MODEL_SERVER_WORKERS": "4", "BYOA_WORKERS": " "}).workers == 4


def test_a_payload_limit_of_0_is_none():
    """BT-05."""
    assert read({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "0"}).payload_limit == 0
    assert read({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "25"}).payload_limit == 25 << 20


@pytest.mark.parametrize(("given", "level"), [("20", "info"), ("INFO", "info"), ("40", "error")])
def test_the_sdks_log_level_is_understood(given, level):
    """HOST-08: the SDK sets SAGEMAKER_CONTAINER_LOG_LEVEL=20."""
    assert read({"SAGEMAKER_CONTAINER_LOG_LEVEL": given}).log_level == level


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BYOA_SERVER", "nginx"), ("SAGEMAKER_BIND_TO_PORT", "0"), ("BYOA_WORKERS", "many"),
        ("SAGEMAKER_BIND_TO_PORT", "65536"), ("BYOA_DEBUG", "maybe"), ("BYOA_QUEUE_LIMIT", "0"),
        ("SAGEMAKER_MODEL_SERVER_TIMEOUT", "nan"), ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "-1"),
        ("BYOA_LOG_LEVEL", "loud"), ("SAGEMAKER_MULTI_MODEL", "many"),
        ("BYOA_MODELS_MEMORY_MB", "0"), ("BYOA_MAX_BATCH", "0"),
        ("BYOA_READ_TIMEOUT", "0"),
        ("SAGEMAKER_HANDLER", "mine:handle"), ("SAGEMAKER_MODEL_SERVER_VMARGS", "-Xmx1g"),
    ],
)
def test_a_bad_value_is_refused_naming_its_variable(variable, value):
    with pytest.raises(ContractError) as caught:
        read({variable: value})
    assert caught.value.code == "SETTING_INVALID"
    assert f"{variable}={value!r}" in caught.value.message


def test_all_bad_values_are_told_at_once():
    with pytest.raises(ContractError) as caught:
        read({"BYOA_WORKERS": "x", "BYOA_KEEPALIVE": "y", "SAGEMAKER_HANDLER": "h"})
    assert all(
        word in caught.value.message
        for word in ("BYOA_WORKERS", "BYOA_KEEPALIVE", "SAGEMAKER_HANDLER")
    )


@pytest.mark.parametrize("value", ["", "false", "False", "0"])
def test_a_refused_variable_that_asks_for_nothing_is_no_error(value):
    assert read({"SAGEMAKER_HANDLER": value}).port == 8080


def machine(**changes):
    facts = {"cpus": 4.0, "cpu_source": "test", "memory_bytes": 1 << 33, "memory_source": "test"}
    return Hardware(**{**facts, **changes})


def test_there_is_one_worker_a_usable_cpu():
    """ITK-03, pains 7 and 8."""
    assert make_plan(read({}), machine(), {}).workers == 4
    assert make_plan(read({}), machine(cpus=0.5), {}).workers == 1
    assert make_plan(read({"BYOA_WORKERS": "2"}), machine(), {}).workers == 2


def test_there_is_one_worker_a_gpu_each_with_its_own():
    """Pain 7: not every worker on device 0."""
    gpus = (Gpu("a", None), Gpu("b", None))
    found = machine(gpus=gpus, device="cuda")
    plan = make_plan(read({}), found, {})
    assert (plan.workers, plan.device, plan.gpus) == (2, "cuda", ("0", "1"))
    assert make_plan(read({}), found, {"CUDA_VISIBLE_DEVICES": "3,5"}).gpus == ("3", "5")


def test_workers_are_pinned_only_where_the_container_has_the_cpus_to_itself():
    import os

    cpus = len(os.sched_getaffinity(0))
    found = machine(cpus=float(cpus))
    alone = make_plan(read({}), found, {})
    assert alone.pin == (cpus > 1)
    assert not make_plan(read({}), found, {"SAGEMAKER_BASE_DIR": "/tmp/ml"}).pin
    assert make_plan(read({"BYOA_PIN_WORKERS": "1"}), found, {"SAGEMAKER_BASE_DIR": "/x"}).pin
    assert not make_plan(read({"BYOA_PIN_WORKERS": "0"}), found, {}).pin


def test_a_worker_looks_for_the_next_request_where_it_has_a_cpu_to_itself(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(4)), raising=False)

    def poll(cpus: float, **environ: str) -> float:
        return make_plan(read(environ), machine(cpus=cpus), {}).busy_poll

    assert poll(4, BYOA_WORKERS="4") == 0.0002
    assert poll(4, BYOA_WORKERS="5") == 0
    # A quota that looking used up would throttle what answers need.
    assert poll(2, BYOA_WORKERS="2") == poll(0.5, BYOA_WORKERS="1") == 0
    assert poll(2, BYOA_WORKERS="1") == 0.0002
    assert poll(4, BYOA_BUSY_POLL="0") == 0
    assert poll(0.5, BYOA_BUSY_POLL="50") == 0.00005


@pytest.mark.parametrize("other", [{"BYOA_SERVER": "flask"}, {"BYOA_ASGI_WORKER": "gunicorn"}])
def test_looking_for_requests_is_refused_where_a_door_does_not_have_it(other):
    with pytest.raises(ContractError, match="BYOA_BUSY_POLL: only the express lane on uvicorn's"):
        read(other | {"BYOA_BUSY_POLL": "100"})
    assert read(other | {"BYOA_BUSY_POLL": "0"}).busy_poll == 0


def test_looking_for_requests_is_refused_where_uvicorn_is_not_installed(monkeypatch):
    monkeypatch.setattr(settings_module, "uvicorn_installed", lambda: False)
    with pytest.raises(ContractError, match=r"install byoa\[fast\]"):
        read({"BYOA_BUSY_POLL": "100"})
