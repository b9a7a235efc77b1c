"""A machine that is a directory: the sandbox distribution, its medium, and a real agent on the embedded platform."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from waagent_fabric import Fabric, RunningAgent, install_module

SANDBOX = Path(__file__).resolve().parents[3] / "examples" / "sandbox_distribution" / "acme_sandbox.py"
VM_ID = "544CDFD0-CB4E-4B4A-9954-5BDF3ED5C3B8"
PASSWORD = "tr0ub4dor & <three>"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVmZ2hpamtsbW5vcHFyc3R1dnd4eXphYmNkZWZnaGlq ops@desk"

DOCUMENT = """\
<?xml version="1.0" encoding="utf-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:wa="http://schemas.microsoft.com/windowsazure">
  <wa:ProvisioningSection>
    <wa:Version>1.0</wa:Version>
    <LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure">
      <ConfigurationSetType>LinuxProvisioningConfiguration</ConfigurationSetType>
      <HostName>node7</HostName>
      <UserName>ops</UserName>
      {more}
    </LinuxProvisioningConfigurationSet>
  </wa:ProvisioningSection>
  <wa:PlatformSettingsSection>
    <wa:Version>1.0</wa:Version>
    <wa:PlatformSettings>
      <wa:ProvisionGuestAgent>{guest_agent}</wa:ProvisionGuestAgent>{settings}
    </wa:PlatformSettings>
  </wa:PlatformSettingsSection>
</Environment>
"""


def password(text: str = PASSWORD) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"<UserPassword>{escaped}</UserPassword>"


def public_key(value: str = KEY) -> str:
    return (
        "<DisableSshPasswordAuthentication>true</DisableSshPasswordAuthentication><SSH><PublicKeys><PublicKey>"
        f"<Fingerprint>00112233445566778899AABBCCDDEEFF00112233</Fingerprint>"
        f"<Path>/home/ops/.ssh/authorized_keys</Path><Value>{value}</Value></PublicKey></PublicKeys></SSH>"
    )


class Machine:
    """A scratch root with an operating system that is a plugin."""

    def __init__(self, root: Path, fabric: Fabric, start: Callable[..., RunningAgent]) -> None:
        self.root = root
        self.fabric = fabric
        self._start = start
        self.conf = {"Provisioning.Agent": "auto"}
        self.site = install_module(
            root.parent / "site", SANDBOX, {"waagent.distros": {"sandbox": "acme_sandbox"}}, distribution="acme-sandbox"
        )
        for place in ("etc", "dev", "sys/class/dmi/id"):
            (root / place).mkdir(parents=True, exist_ok=True)
        (root / "etc/os-release").write_text('ID=sandbox\nPRETTY_NAME="Sandbox 1"\n')
        self.vm_id = VM_ID

    @property
    def vm_id(self) -> str:
        return (self.root / "sys/class/dmi/id/product_uuid").read_text().strip()

    @vm_id.setter
    def vm_id(self, value: str) -> None:
        (self.root / "sys/class/dmi/id/product_uuid").write_text(value + "\n")

    def insert(self, more: str = "", guest_agent: str = "true", settings: str = "", text: str | None = None) -> None:
        """Put a medium with a provisioning document into the drive."""
        (self.root / "dev/sr0").mkdir(parents=True, exist_ok=True)
        document = text if text is not None else DOCUMENT.format(more=more, guest_agent=guest_agent, settings=settings)
        (self.root / "dev/sr0/ovf-env.xml").write_text(document)

    def boot(self, **options: Any) -> RunningAgent:
        environment = {"PYTHONPATH": self.site, **options.pop("environment", {})}
        return self._start(self.root, self.fabric, conf=self.conf, environment=environment, **options)

    def path(self, name: str) -> Path:
        return self.root / "var/lib/waagent" / name

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def operations(self) -> list[str]:
        """Return what the operating system was asked to do, in order."""
        try:
            lines = (self.root / "sandbox.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line)["operation"] for line in lines]

    def reports(self) -> list[tuple[str, str, str]]:
        """Return (state, substatus, description) of each health report."""
        return [(one.state, one.substatus, one.description) for one in self.fabric.health_reports]

    def wait_for_report(self, state: str, count: int = 1, timeout: float = 30.0) -> None:
        self.fabric.wait_for(
            lambda: len([one for one in self.fabric.health_reports if one.state == state]) >= count,
            timeout,
            f"{count} reports of {state}\n{self.log()}",
        )

    def wait_for_boot(self, agent: RunningAgent) -> None:
        agent.wait_until(lambda: agent.boot is None and agent.worker is not None, 30, "the end of the boot stage")

    def log(self) -> str:
        try:
            return self.read("var/log/waagent.log")
        except FileNotFoundError:
            return ""

    def files_with(self, secret: str) -> list[str]:
        """Return the files under the root that hold *secret*, the medium apart."""
        found = []
        for path in self.root.rglob("*"):
            if path.is_file() and not path.is_relative_to(self.root / "dev"):
                with contextlib.suppress(FileNotFoundError):  # the agent works: a temporary file is there and gone
                    if secret.encode() in path.read_bytes():
                        found.append(str(path.relative_to(self.root)))
        return found


@pytest.fixture
def machine(tmp_path: Path, fabric: Fabric, running_agent: Callable[..., RunningAgent]) -> Machine:
    root = tmp_path / "root"
    root.mkdir()
    mask = os.umask(0o022)
    try:
        return Machine(root, fabric, running_agent)
    finally:
        os.umask(mask)
