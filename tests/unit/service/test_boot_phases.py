"""The order of the boot stage's work, and what people see of it on the console (ruling 14, cli §7.3)."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from waagent import Plan, Step, hookimpl
from waagent.service import boot, launch

from .conftest import Probe


class Working:
    """A plugin with one plan in each phase; the disk's waits for provisioning, which waits for nobody."""

    def __init__(self, reader: int) -> None:
        self.reader = reader
        self.did: list[str] = []
        self.provisioned = threading.Event()

    @hookimpl
    def on_boot(self, agent: Any) -> list[Plan]:
        phases = ("background", "after", None, "nonsense", "provision", "disk", "early")
        return [self.plan(phase) for phase in phases]

    def plan(self, phase: str | None) -> Plan:
        name = str(phase)

        def work() -> None:
            if phase == "disk":
                assert self.provisioned.wait(20), "provisioning waits for the disk"
            if phase == "background":
                assert os.read(self.reader, 1), "nobody waits for the background"
            self.did.append(name)
            if phase == "provision":
                self.provisioned.set()

        return Plan(
            name,
            lambda: {"done": name in self.did},
            lambda facts: [] if facts["done"] else [Step("work", "work", work)],
            phase=phase,
        )


def test_phases_run_in_their_order_and_the_disk_beside_provisioning(probe: Probe) -> None:
    reader, writer = os.pipe()
    working = Working(reader)
    probe.use(working=working)
    assert boot.BootStage(probe.agent, writer).run() == 0
    os.close(reader)
    assert [name for name in working.did if name != "disk"] == [
        "early", "provision", "after", "None", "nonsense", "background",
    ]  # fmt: skip
    assert working.did.index("provision") < working.did.index("disk") < working.did.index("background")
    assert "wants the unknown phase 'nonsense'; it runs in 'after'" in probe.log


def test_one_plan_that_fails_keeps_no_other_from_running(probe: Probe) -> None:
    done: list[str] = []

    class Failing:
        @hookimpl
        def on_boot(self, agent: Any) -> list[Plan]:
            def broken() -> dict[str, Any]:
                raise OSError("no such disk")

            return [
                Plan("broken", broken, lambda facts: [], phase="early"),
                Plan("fine", dict, lambda facts: [] if done else [Step("s", "s", lambda: done.append("s"))]),
            ]

    (probe.root / "run/waagent").mkdir(parents=True)
    probe.use(failing=Failing())
    assert boot.BootStage(probe.agent, None).run() == 0
    assert done == ["s"]
    assert "Plan broken of plugin failing did not reach its goal" in probe.log
    results = json.loads((probe.root / "run/waagent/boot.json").read_text())["plans"]
    assert [(one["plan"], one["ok"]) for one in results] == [("broken", False), ("fine", True)]


@pytest.mark.parametrize(
    ("conf", "provisioned", "echoed"),
    [("", False, True), ("Logs.Console=y\n", False, True), ("Logs.Console=n\n", False, False), ("", True, False)],
)
def test_the_log_is_echoed_to_the_console_until_the_machine_is_provisioned(
    tmp_path: Path, conf: str, provisioned: bool, echoed: bool
) -> None:
    for name in ("dev", "etc", "var/lib/waagent"):
        (tmp_path / name).mkdir(parents=True)
    console = tmp_path / "dev/console"
    console.touch()
    (tmp_path / "etc/waagent.conf").write_text(f"Provisioning.Agent=disabled\nUnknown.Key=1\n{conf}")
    if provisioned:
        (tmp_path / "var/lib/waagent/provisioned").touch()
    argv = launch.command(launch.BOOT, root=str(tmp_path))
    done = subprocess.run(argv, env=launch.environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    text = console.read_text()
    if echoed:
        assert "Unknown.Key" in text
        assert text.splitlines()[-1].endswith(boot.CONSOLE_END)
    else:
        assert text == ""
