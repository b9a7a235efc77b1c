"""Unit files of old: those that agents wrote go, everything else stays."""

from __future__ import annotations

from pathlib import Path

from tests.unit.scopes.conftest import Machine
from waagent.journal import Journal
from waagent.plan import Executor

ETC = "etc/systemd/system"
LIB = "usr/lib/systemd/system"
OLD_SLICE = "[Unit]\nDescription=Slice for Azure VM extension Contoso.Tool\n[Slice]\nCPUQuota=5%\n"
OLD_DROP_IN = "# This drop-in unit file was created by the Azure VM Agent.\n# Do not edit.\n[Service]\nCPUQuota=75%\n"


def write(machine: Machine, name: str, text: str) -> Path:
    path = machine.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def run(machine: Machine, number: int = 1) -> list[str]:
    plan = machine.plugin.on_boot(machine)  # type: ignore[arg-type]
    assert plan is not None
    assert plan.phase == "early"
    executor = Executor(Journal(str(machine.root / f"journal{number}.jsonl")), machine.log)
    dry = [step.name for step in executor.dry_run(plan)]
    result = executor.run(plan)
    assert result.ok
    assert [step.name for step in result.steps] == dry
    return dry


def test_what_agents_of_old_wrote_goes(machine: Machine) -> None:
    old = [
        write(machine, f"{LIB}/azure-vmextensions-Contoso.Tool-1.2.3.slice", OLD_SLICE),
        write(machine, f"{ETC}/azure-vmextensions-Contoso.Tool.slice", OLD_SLICE),
        write(machine, f"{ETC}/walinuxagent.service.d/12-CPUQuota.conf", OLD_DROP_IN),
        write(machine, f"{LIB}/waagent.service.d/11-CPUAccounting.conf", OLD_DROP_IN),
        write(machine, f"{ETC}/system-walinuxagent.extensions.slice", "[Unit]\nDescription=x\n"),
    ]
    kept = [
        write(machine, f"{LIB}/azure-vmextensions.slice", "[Unit]\nDescription=Slice for Azure VM Extensions\n"),
        write(machine, f"{LIB}/azure.slice", "[Unit]\n"),
        write(machine, f"{ETC}/azure-vmextensions-Contoso.Mine.slice", "[Slice]\nCPUQuota=90%\n"),
        write(machine, f"{ETC}/walinuxagent.service.d/10-Slice.conf", OLD_DROP_IN),
        write(machine, f"{ETC}/nginx.service.d/12-CPUQuota.conf", "[Service]\nCPUQuota=10%\n"),
    ]
    assert run(machine) == ["remove"]
    assert [path.exists() for path in old] == [False] * len(old)
    assert [path.exists() for path in kept] == [True] * len(kept)
    assert machine.systemd.settings == [["daemon-reload"]]
    assert run(machine, 2) == []
    assert len(machine.systemd.calls) == 1


def test_nothing_to_do_asks_nobody(machine: Machine) -> None:
    assert run(machine) == []
    assert not machine.systemd.calls


def test_a_reload_that_fails_spoils_no_boot(machine: Machine) -> None:
    machine.systemd.control_mode("fails")
    path = write(machine, f"{ETC}/azure-vmextensions-X.Y.slice", OLD_SLICE)
    assert run(machine) == ["remove"]
    assert not path.exists()


def test_lib_that_is_usr_lib_is_one_directory(machine: Machine) -> None:
    path = write(machine, f"{LIB}/azure-vmextensions-X.Y.slice", OLD_SLICE)
    (machine.root / "lib").symlink_to("usr/lib")
    assert run(machine) == ["remove"]
    assert not path.exists()
    assert len(machine.having("Removed a unit file")) == 1
