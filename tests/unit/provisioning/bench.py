"""A boot-stage agent under a scratch root with the sandbox distribution and a platform that only listens."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

from waagent import ProtocolError
from waagent.agent import BOOT, Agent, make_agent
from waagent.plugins import PluginHost
from waagent_provisioning.flow import Flow

SANDBOX = Path(__file__).resolve().parents[3] / "examples" / "sandbox_distribution" / "acme_sandbox.py"
VM_ID = "544CDFD0-CB4E-4B4A-9954-5BDF3ED5C3B8"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVmZ2hpamtsbW5vcHFyc3R1dnd4eXphYmNkZWZnaGlq ops@desk"


def document(
    user: str | None = "ops", host: str | None = "node7", inside: str = "", settings: str = "", prefix: str = "wa"
) -> bytes:
    """Return a provisioning document as the platform writes it."""
    named = "".join(
        f"<{prefix}:{name}>{text}</{prefix}:{name}>"
        for name, text in (("HostName", host), ("UserName", user))
        if text is not None
    )
    p = prefix
    return (
        f'<?xml version="1.0" encoding="utf-8"?><o:Environment xmlns:o="http://schemas.dmtf.org/ovf/environment/1" '
        f'xmlns:{p}="http://schemas.microsoft.com/windowsazure"><{p}:ProvisioningSection><{p}:Version>1.0</{p}:Version>'
        f"<{p}:LinuxProvisioningConfigurationSet>{named}{inside}</{p}:LinuxProvisioningConfigurationSet>"
        f"</{p}:ProvisioningSection>{settings}</o:Environment>"
    ).encode()


def platform_settings(inside: str) -> str:
    return (
        f"<wa:PlatformSettingsSection><wa:PlatformSettings>{inside}</wa:PlatformSettings></wa:PlatformSettingsSection>"
    )


class Listener:
    """The part of the platform that provisioning talks to."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, str]] = []
        self.without_goal_state: list[tuple[str, str, str]] = []
        self.fingerprints: list[str] = []
        self.refusing: list[str] = []
        self.refuses_properties = False
        self.unreadable = False
        self.endpoint: str | None = "127.0.0.1:80"
        self.compute: dict[str, Any] | None = None
        self.goal_state = None
        self.record: Path | None = None

    def report_health(self, state: str, substatus: str = "", description: str = "") -> None:
        if self.refusing or self.unreadable:
            raise ProtocolError(self.refusing.pop(0) if self.refusing else "no goal state")
        if self.record is not None:
            with open(self.record, "a", encoding="utf-8") as stream:
                stream.write(f"{(state, substatus, description)}\n")
        self.said.append((state, substatus, description))

    def report_provisioning_health(self, state: str, substatus: str = "", description: str = "") -> None:
        self.without_goal_state.append((state, substatus, description))

    def report_role_properties(self, thumbprint: str) -> None:
        if self.unreadable:
            raise ProtocolError("no goal state")
        self.fingerprints.append(thumbprint)
        if self.record is not None:
            with open(f"{self.record}-fingerprint", "a", encoding="utf-8") as stream:
                stream.write(f"{thumbprint}\n")
        if self.refuses_properties:
            raise ProtocolError("the status 400 of an old platform")

    def prefetch(self) -> None:
        if self.unreadable:
            raise ProtocolError("no goal state")

    def imds_compute(self) -> dict[str, Any] | None:
        return self.compute


def sandbox() -> types.ModuleType:
    """Return the sandbox distribution as a module."""
    if "acme_sandbox" not in sys.modules:
        found = importlib.util.spec_from_file_location("acme_sandbox", SANDBOX)
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        sys.modules["acme_sandbox"] = module
        found.loader.exec_module(module)
    return sys.modules["acme_sandbox"]


class Bench:
    """One machine, started as often as a test likes."""

    def __init__(self, root: Path, conf: str = "", **plugins: object) -> None:
        self.root = root
        self.conf = conf
        self.plugins = plugins
        self.listener = Listener()
        for place in ("etc", "dev", "sys/class/dmi/id", "var/lib/waagent", "var/log", "run/waagent"):
            (root / place).mkdir(parents=True, exist_ok=True)
        if not (root / "sys/class/dmi/id/product_uuid").exists():
            (root / "sys/class/dmi/id/product_uuid").write_text(VM_ID.lower() + "\n")
        self.agent = self.start()

    def start(self) -> Agent:
        """Return an agent as a new process would have it."""
        (self.root / "etc/waagent.conf").write_text(self.conf)
        agent = make_agent(BOOT, str(self.root))
        agent.log.sinks.stream = None
        host = PluginHost(agent.log, agent.config, agent.paths)
        host.add("sandbox", sandbox(), group="waagent.distros", level=1)
        for name, plugin in self.plugins.items():
            host.add(name, plugin)
        agent.use_plugins(host)
        agent.platform = self.listener  # type: ignore[assignment]
        self.agent = agent
        return agent

    def insert(self, data: bytes) -> None:
        (self.root / "dev/sr0").mkdir(exist_ok=True)
        (self.root / "dev/sr0/ovf-env.xml").write_bytes(data)

    def boot(self) -> list[Any]:
        """Run the plans of one start; return the results."""
        agent = self.start()
        try:
            return [agent.executor.run(plan) for plan in Flow(agent).plans()]
        finally:
            agent.executor.journal.close()

    def lib(self, name: str) -> Path:
        return self.root / "var/lib/waagent" / name

    @property
    def log(self) -> str:
        path = self.root / "var/log/waagent.log"
        return path.read_text() if path.exists() else ""
