"""The agent under a real systemd: it becomes ready, runs an extension, and what it started outlives it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from tests.vm import machine

CONF = """\
Provisioning.Agent=disabled
ResourceDisk.Format=n
OS.EnableFirewall=n
Logs.Verbose=y
Extensions.GoalStatePeriod=2
"""
NAME = "Contoso.Vm.Sample"


def with_user(key: Path) -> Any:
    """Return what puts a user with *key* into an image; this machine is not provisioned."""

    def prepare(root: Path) -> None:
        subprocess.run(["chroot", root, "useradd", "-m", "-s", "/bin/bash", "azureuser"], check=True)
        (root / "etc/sudoers.d/test").write_text("azureuser ALL=(ALL) NOPASSWD: ALL\n")
        ssh = root / "home/azureuser/.ssh"
        ssh.mkdir()
        (ssh / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
        subprocess.run(["chroot", root, "chown", "-R", "azureuser:", "/home/azureuser/.ssh"], check=True)

    return prepare


def test_the_agent_serves_under_systemd(platform: Any, login_key: Path, tmp_path: Path) -> None:
    from waagent_fabric import HandlerSpec, SettingsSpec, sample_package

    detach = 'setsid sh -c "sleep 1000" </dev/null >/dev/null 2>&1 &'
    platform.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0", enable=detach))
    platform.publish([HandlerSpec(NAME, "1.0.0", settings=[SettingsSpec(protected={"a": 1}, sequence_number=0)])])
    image = machine.Image(tmp_path / "image", machine.built_wheel(), CONF, prepare=with_user(login_key))
    with machine.Machine(image, tmp_path / "vm") as guest:
        guest.key = login_key
        platform.wait_for_extension(NAME, "success", timeout=300)
        guest.wait_for_login()
        assert guest.ssh("systemctl is-active waagent").strip() == "active"
        shown = guest.ssh("systemctl show waagent -p Type,NotifyAccess,KillMode,StatusText,NRestarts")
        assert "Type=notify" in shown
        assert "NRestarts=0" in shown
        sleeper = guest.ssh("pgrep -f '^sleep 1000'").split()[0]
        guest.ssh("sudo systemctl restart waagent", timeout=120)
        guest.wait_for(
            lambda: guest.ssh("systemctl is-active waagent", check=False).strip() == "active", 60, "the agent again"
        )
        assert guest.ssh("pgrep -f '^sleep 1000'").split()[0] == sleeper, "the restart killed a handler's child"
        before = len(platform.statuses)
        platform.wait_for(lambda: len(platform.statuses) > before, 60, "status after the restart")
        assert platform.violations == []
