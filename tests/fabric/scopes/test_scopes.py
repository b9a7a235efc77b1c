"""Scopes through the whole agent: real handlers, a systemd that works and one that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.scopes.fakesystemd import FakeSystemd
from waagent_fabric import Fabric, HandlerSpec, SettingsSpec, read_calls, sample_package

pytestmark = pytest.mark.fabric
NAME = "Contoso.Sample"
SLICE = f"azure-vmextensions-{NAME}.slice"
AGENT = "waagent.service"


@pytest.fixture
def systemd(agent_root: Path) -> FakeSystemd:
    return FakeSystemd(agent_root)


def publish(fabric: Fabric, state: str = "enabled", sequence: int = 0) -> None:
    fabric.publish([HandlerSpec(NAME, "1.0.0", state, (SettingsSpec(public={}, sequence_number=sequence),))])


def operations(root: Path) -> list[str]:
    return [call.operation for call in read_calls(root, NAME)]


@pytest.mark.parametrize("launcher", ["scope", "service"])
def test_a_handlers_life_in_units(
    fabric: Fabric, agent_root: Path, running_agent: Any, systemd: FakeSystemd, launcher: str
) -> None:
    limits = {"cpuQuotaPercentage": 40}
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0", manifest={"resourceLimits": limits}))
    publish(fabric)
    # Which processes are in the agent's group is that of the real machine: they are not looked at.
    conf = {"Extensions.Launcher": launcher, "Debug.CgroupDisableOnProcessCheckFailure": "n"}
    (agent_root / "proc/self").mkdir(parents=True)
    (agent_root / "proc/self/cgroup").write_text(f"0::/system.slice/{AGENT}\n")
    systemd.set_units({AGENT: {"LoadState": "loaded"}})
    agent = running_agent(agent_root, fabric, conf=conf)
    fabric.wait_for_extension(NAME)
    assert operations(agent_root) == ["install", "enable"]
    assert [options["slice"] for options in systemd.runs] == [SLICE, SLICE]
    assert [str(options["unit"]).split("_")[0] for options in systemd.runs] == ["install", "enable"]
    assert ["scope" in options for options in systemd.runs] == [launcher == "scope"] * 2
    assert systemd.quotas == {SLICE: "400ms", AGENT: "500ms"}
    publish(fabric, "uninstall")
    agent.wait_until(lambda: operations(agent_root)[-1] == "uninstall", 30.0, "the uninstall command")
    agent.wait_until(lambda: systemd.quotas == {AGENT: "500ms"}, 10.0, "no limit of the handler any more")
    assert not fabric.violations


def test_a_systemd_that_fails_fails_no_extension(
    fabric: Fabric, agent_root: Path, running_agent: Any, systemd: FakeSystemd
) -> None:
    systemd.mode("refused")
    systemd.control_mode("fails")
    limits = {"cpuQuotaPercentage": 40}
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0", manifest={"resourceLimits": limits}))
    publish(fabric)
    agent = running_agent(agent_root, fabric)
    fabric.wait_for_extension(NAME)
    assert operations(agent_root) == ["install", "enable"], "each ran once"
    assert len(systemd.runs) == 1
    assert "[CGW] Commands of handlers have no units" in agent.log()


@pytest.mark.parametrize("launcher", ["scope", "service"])
def test_a_killed_worker_is_followed_by_one_that_takes_the_unit_up(
    fabric: Fabric, agent_root: Path, running_agent: Any, systemd: FakeSystemd, tmp_path: Path, launcher: str
) -> None:
    wait = f"touch {tmp_path}/begun; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0", enable=wait))
    publish(fabric)
    agent = running_agent(agent_root, fabric, conf={"Extensions.Launcher": launcher})
    agent.wait_until((tmp_path / "begun").exists, 30.0, "the command")
    agent.kill_worker()
    (tmp_path / "go").touch()
    fabric.wait_for_extension(NAME)
    assert operations(agent_root) == ["install", "enable"]
    assert len(systemd.runs) == 2
