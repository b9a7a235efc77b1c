"""Limits that handlers ask for: set where they differ, taken back, never in the way of an extension."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.scopes.conftest import LIMITS, Machine
from waagent_scopes import units

SLICE = "azure-vmextensions-Contoso.Tool.slice"
SERVICE = "sampled.service"
LOADED = {"LoadState": "loaded"}


def test_a_handlers_life(machine: Machine) -> None:
    machine.systemd.set_units({SERVICE: LOADED})
    machine.handle(operation="install", limits=LIMITS)
    assert machine.systemd.settings == [
        ["set-property", SLICE, "CPUAccounting=yes", "MemoryAccounting=yes", "CPUQuota=40%", "--runtime"]
    ]
    machine.handle(operation="enable", limits=LIMITS)
    assert machine.systemd.quotas == {SLICE: "400ms", SERVICE: "200ms"}
    assert machine.details["limits"] == {SLICE: 40.0, SERVICE: 20.0}
    machine.systemd.forget_calls()
    machine.handle(operation="enable", limits=LIMITS)
    assert machine.systemd.settings == [], "what is so already is not set again"
    machine.handle(operation="disable", limits=LIMITS)
    assert machine.systemd.quotas == {SLICE: "400ms", SERVICE: "200ms"}
    machine.handle(operation="uninstall", limits=LIMITS)
    assert machine.systemd.quotas == {}
    assert machine.details["limits"] == {}


def test_a_systemd_that_always_accounts_is_not_told_to(machine: Machine) -> None:
    machine.systemd.control_mode("newer")
    machine.handle(operation="install", limits=LIMITS)
    assert machine.systemd.settings == [["set-property", SLICE, "MemoryAccounting=yes", "CPUQuota=40%", "--runtime"]]
    machine.systemd.forget_calls()
    machine.handle(operation="enable", limits={"cpuQuotaPercentage": 40})
    assert machine.systemd.settings == []


def test_a_handler_without_limits_costs_nothing(machine: Machine) -> None:
    for operation in ("install", "enable", "uninstall"):
        machine.handle(operation=operation)
    assert [call["tool"] for call in machine.systemd.calls] == ["systemd-run"] * 3


def test_a_limit_somebody_changed_is_set_again_before_enable(machine: Machine) -> None:
    machine.handle(operation="install", limits=LIMITS)
    machine.systemd.set_units({SLICE: {"CPUQuotaPerSecUSec": "1s", "CPUAccounting": "yes", "MemoryAccounting": "yes"}})
    machine.systemd.forget_calls()
    machine.handle(operation="enable", limits={"cpuQuotaPercentage": 40})
    assert machine.systemd.settings == [["set-property", SLICE, "CPUQuota=40%", "--runtime"]]


def test_a_new_version_may_ask_for_something_else(machine: Machine) -> None:
    machine.systemd.set_units({SERVICE: LOADED, "other.service": LOADED})
    machine.handle(limits=LIMITS)
    new = {"cpuQuotaPercentage": 150, "services": [{"name": "other.service", "cpuQuotaPercentage": 5}]}
    machine.handle(limits=new)
    assert machine.systemd.quotas == {SLICE: "1.5s", "other.service": "50ms"}
    machine.handle(limits={})
    assert machine.systemd.quotas == {}


def test_services_are_limited_after_enable_where_they_are_loaded(machine: Machine) -> None:
    machine.handle(limits=LIMITS)
    assert machine.systemd.quotas == {SLICE: "400ms"}
    assert machine.having("[CGW] sampled.service of Contoso.Tool is not limited: sampled.service is not loaded")
    machine.systemd.set_units({SERVICE: LOADED})
    machine.handle("exit 1", limits=LIMITS)
    assert SERVICE not in machine.systemd.quotas, "enable failed"
    machine.handle(limits=LIMITS)
    assert machine.systemd.quotas[SERVICE] == "200ms"


@pytest.mark.parametrize(
    ("key", "value"), [("CGroups.EnforceLimits", False), ("CGroups.Excluded", "runcommand, contoso")]
)
def test_limits_may_be_switched_off_and_scopes_stay(machine: Machine, key: str, value: Any) -> None:
    machine.systemd.set_units({SERVICE: LOADED})
    machine.values[key] = value
    assert machine.handle(limits=LIMITS).code == 0
    assert machine.systemd.quotas == {}
    assert len(machine.systemd.runs) == 1


def test_switching_limits_off_takes_them_back(machine: Machine) -> None:
    machine.systemd.set_units({SERVICE: LOADED})
    machine.handle(limits=LIMITS)
    machine.values["CGroups.EnforceLimits"] = False
    machine.restart()
    assert machine.systemd.quotas == {}


def test_what_the_administrator_wrote_stays(machine: Machine) -> None:
    path = f"/etc/systemd/system/{SLICE}.d/50-mine.conf"
    file = machine.root / path.lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_text("[Slice]\nCPUQuota=90%\n")
    machine.systemd.set_units({SLICE: {"CPUQuotaPerSecUSec": "900ms", "DropInPaths": path}})
    machine.handle(limits=LIMITS)
    assert machine.systemd.quotas == {SLICE: "900ms"}
    file.write_text("[Slice]\nTasksMax=100\n")
    machine.handle(limits=LIMITS)
    assert machine.systemd.quotas == {SLICE: "400ms"}


def test_a_failed_systemd_run_takes_all_limits_back(machine: Machine) -> None:
    machine.systemd.set_units({SERVICE: LOADED})
    machine.handle(limits=LIMITS)
    machine.handle(name="Other.Tool", limits={"cpuQuotaPercentage": 10})
    assert len(machine.systemd.quotas) == 3
    machine.systemd.mode("refused")
    assert machine.handle("exit 6", limits=LIMITS).code == 6
    assert machine.systemd.quotas == {}
    assert machine.details["limits"] == {}
    machine.systemd.forget_calls()
    assert machine.handle("true", limits=LIMITS).code == 0
    assert machine.systemd.calls == []


def test_a_systemctl_that_fails_never_fails_an_extension(machine: Machine) -> None:
    machine.systemd.control_mode("fails")
    for operation in ("install", "enable", "uninstall"):
        assert machine.handle("exit 0", operation=operation, limits=LIMITS).code == 0
    assert len(machine.systemd.runs) == 3, "its scope does not depend on its limits"
    assert machine.having("[CGW] azure-vmextensions-Contoso.Tool.slice of Contoso.Tool is not limited")
    assert machine.details["limits"] == {}


def test_a_systemctl_that_hangs_is_asked_once(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waagent_scopes.systemd._SECONDS", 0.5)
    machine.systemd.control_mode("hangs")
    for _ in range(3):
        assert machine.handle("exit 0", limits=LIMITS).code == 0
    assert len(machine.systemd.calls) == 1
    assert machine.details["launcher"] == "process"
    assert machine.seen == [("CGroupsDisabled", False)]


def test_a_restarted_agent_knows_its_limits(machine: Machine) -> None:
    machine.systemd.set_units({SERVICE: LOADED})
    machine.handle(limits=LIMITS)
    machine.restart()
    assert machine.details["limits"] == {SLICE: 40.0, SERVICE: 20.0}
    machine.handle(operation="uninstall")
    assert machine.systemd.quotas == {}


def test_limits_of_an_earlier_boot_are_gone(machine: Machine) -> None:
    machine.state.save("scopes", {"boot": "another", "units": {SLICE: ["Contoso.Tool", 40]}})
    machine.restart()
    assert machine.details["limits"] == {}
    assert not machine.systemd.calls


@pytest.mark.parametrize(
    "saved", [None, [], {"boot": 1}, {"units": []}, {"units": {SLICE: 1, "b": ["x"], "c": ["x", "y"]}}]
)
def test_a_spoilt_memory_is_none(machine: Machine, saved: Any) -> None:
    if isinstance(saved, dict):
        from waagent_scopes import governor

        saved = {"boot": governor._boot_id(), **saved}
    machine.state.save("scopes", saved)
    machine.restart()
    assert machine.details["limits"] == {}


# -- names and numbers


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        ("Microsoft.Azure.Extensions.CustomScript", "azure-vmextensions-Microsoft.Azure.Extensions.CustomScript.slice"),
        ("A-B.C-D", "azure-vmextensions-A_B.C_D.slice"),
        ("a b/../c;$x", "azure-vmextensions-a_b_.._c__x.slice"),
    ],
)
def test_names_of_slices(handler: str, name: str) -> None:
    assert units.slice_of(handler) == name


@pytest.mark.parametrize(
    ("value", "quota"),
    [(40, 40.0), (12.5, 12.5), ("75", 75.0), (0, None), (-1, None), (True, None), ("x", None), (None, None),
     ([], None), (1e9, None), (float("nan"), None)],
)  # fmt: skip
def test_quotas_of_manifests(value: Any, quota: float | None) -> None:
    assert units.cpu_quota({"cpuQuotaPercentage": value}) == quota


@pytest.mark.parametrize("limits", [None, [], "x", {}, {"services": 1}, {"services": [1, {}, {"name": "x"}]}])
def test_odd_limits_are_none(limits: Any) -> None:
    assert units.cpu_quota(limits) is None
    assert units.service_quotas(limits if isinstance(limits, dict) else {}) == {}


@pytest.mark.parametrize(
    "name", ["x.slice", "-.mount", "a b.service", "--runtime.service/..", ".service", "x;y.service"]
)
def test_only_services_are_named_to_systemd(name: str) -> None:
    assert units.service_quotas({"services": [{"name": name, "cpuQuotaPercentage": 5}]}) == {}


@pytest.mark.parametrize(
    ("text", "quota"),
    [("infinity", None), ("", None), ("?", None), ("50ms", 5.0), ("1s", 100.0), ("1.5s", 150.0), ("1s 200ms", 120.0),
     ("1min", 6000.0), ("125us", 0.0125)],
)  # fmt: skip
def test_quotas_as_systemd_shows_them(text: str, quota: float | None) -> None:
    assert units.parse_quota(text) == pytest.approx(quota)


@pytest.mark.parametrize(
    ("handler", "excluded", "answer"),
    [
        ("Microsoft.Azure.Extensions.CustomScript", "customscript,runcommand", True),
        ("Microsoft.CPlat.Core.RunCommandLinux", " RunCommand ", True),
        ("Contoso.Tool", "customscript,runcommand", False),
        ("Contoso.Tool", "", False),
        ("Contoso.Tool", ",,", False),
    ],
)
def test_who_is_excluded(handler: str, excluded: str, answer: bool) -> None:
    assert units.is_excluded(handler, excluded) is answer
