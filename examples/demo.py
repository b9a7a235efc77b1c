"""The agent's main job, live: an embedded platform, the real agent in a scratch directory, a machine made of files.

The platform hands over a provisioning document, and the agent makes the machine that it describes: the operating system
is the plugin in ``sandbox_distribution``, so users and keys become files. Then an extension is installed and enabled.

Run by ``make demo``. Needs no root and touches nothing outside the directory it prints. Exit status 0 means that the
platform heard Ready, and that the status it received says success.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

from waagent_fabric import Fabric, HandlerSpec, SettingsSpec, install_module
from waagent_fabric.agentprocess import RunningAgent

HERE = Path(__file__).resolve().parent
NAME, VERSION = "Example.Greeter", "1.0.0"
SECRET = "correct horse battery staple"  # what only this machine may read
PASSWORD = "Tr0ub4dor&3"  # the user's, in the provisioning document
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVmZ2hpamtsbW5vcHFyc3R1dnd4eXphYmNkZWZnaGlq ops@desk"

DOCUMENT = f"""\
<?xml version="1.0" encoding="utf-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:wa="http://schemas.microsoft.com/windowsazure">
  <wa:ProvisioningSection>
    <wa:Version>1.0</wa:Version>
    <LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure">
      <ConfigurationSetType>LinuxProvisioningConfiguration</ConfigurationSetType>
      <HostName>demo-vm</HostName>
      <UserName>ops</UserName>
      <UserPassword>{PASSWORD.replace("&", "&amp;")}</UserPassword>
      <DisableSshPasswordAuthentication>true</DisableSshPasswordAuthentication>
      <SSH><PublicKeys><PublicKey><Path>/home/ops/.ssh/authorized_keys</Path><Value>{KEY}</Value></PublicKey></PublicKeys></SSH>
    </LinuxProvisioningConfigurationSet>
  </wa:ProvisioningSection>
  <wa:PlatformSettingsSection><wa:Version>1.0</wa:Version><wa:PlatformSettings>
    <wa:ProvisionGuestAgent>true</wa:ProvisionGuestAgent>
  </wa:PlatformSettings></wa:PlatformSettingsSection>
</Environment>
"""

# What the platform is asked and told, in the words of a timeline.
MILESTONES = (
    ("wireserver", "comp=versions", "asked which protocol versions the platform speaks"),
    ("wireserver", "comp=goalstate", "read the goal state"),
    ("wireserver", "type=extensionsConfig", "read what extensions are wanted"),
    ("wireserver", "comp=certificates", "fetched the certificates, encrypted for this machine"),
    ("blobs", "manifest", "fetched the extension's version manifest"),
    ("blobs", ".zip", "fetched the extension's package"),
    ("hostplugin", "/status", "uploaded the first status"),
)


def sample_files() -> dict[str, bytes]:
    """Return the sample extension's package: path in the zip to content."""
    folder = HERE / "sample_extension"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Follower(threading.Thread):
    """Print the agent's log while it grows."""

    def __init__(self, agent: RunningAgent, began: float) -> None:
        super().__init__(daemon=True)
        self._agent = agent
        self._began = began
        self.ended = threading.Event()

    def run(self) -> None:
        """Print line by line until the demonstration ends."""
        shown = 0
        while True:
            last = self.ended.is_set()
            text = self._agent.log()
            whole = text.rfind("\n") + 1
            for line in text[shown:whole].splitlines():
                # Lines of more than one line (what a command printed) carry their time only once.
                body = line[28:] if line[:2] == "20" and line[26:28] == "Z " else f"    {line}"
                if body.strip():
                    print(f"  {time.monotonic() - self._began:6.2f} s  {body[:150]}", flush=True)
            shown = whole
            if last:
                return
            self.ended.wait(0.05)


def prepare_machine(root: Path) -> str:
    """Make the machine: its operating system, its firmware, its medium; return where the plugin is installed."""
    for folder in ("etc", "dev/sr0", "sys/class/dmi/id"):
        (root / folder).mkdir(parents=True)
    (root / "etc/os-release").write_text('ID=sandbox\nPRETTY_NAME="Sandbox 1"\n')
    (root / "sys/class/dmi/id/product_uuid").write_text("544cdfd0-cb4e-4b4a-9954-5bdf3ed5c3b8\n")
    (root / "dev/sr0/ovf-env.xml").write_text(DOCUMENT)
    module = HERE / "sandbox_distribution" / "acme_sandbox.py"
    return install_module(
        root / "site", module, {"waagent.distros": {"sandbox": "acme_sandbox"}}, distribution="acme-sandbox"
    )


def show_machine(root: Path) -> None:
    """Print what became of the machine, as the operating system's plugin recorded it."""
    for line in (root / "sandbox.jsonl").read_text().splitlines():
        done = json.loads(line)
        operation = done.pop("operation")
        facts = ", ".join(f"{key}={value}" for key, value in done.items() if value is not None)
        print(f"  {operation:<26} {facts}".rstrip())


def timeline(fabric: Fabric, began: float, ended: float) -> list[tuple[float, str]]:
    """Return (seconds since the start, what happened) as the platform saw it."""
    rows = [
        (report.time - began, f"heard {report.state}{': ' + report.description if report.description else ''}")
        for report in fabric.health_reports
    ]
    for server, part, words in MILESTONES:
        for record in fabric.requests:
            if record.server == server and part in record.path:
                rows.append((record.time - began, words))
                break
    rows.append((ended - began, "the uploaded status says success"))
    return sorted(rows)


def show_status(document: dict[str, Any]) -> None:
    """Print the status document as a table."""
    agent = document["aggregateStatus"]["guestAgentStatus"]
    print(f"  agent       {agent['version']:<10} {agent['status']:<10} {agent['formattedMessage']['message']}")
    for item in document["aggregateStatus"]["handlerAggregateStatus"]:
        print(
            f"  handler     {item['handlerVersion']:<10} {item['status']:<10} {item['handlerName']}: "
            f"{(item.get('formattedMessage') or {}).get('message', '')}"
        )
        settings = item.get("runtimeSettingsStatus")
        if settings:
            status = settings["settingsStatus"]["status"]
            number = f"no. {settings['sequenceNumber']}"
            print(f"  extension   {number:<10} {status['status']:<10} {status['formattedMessage']['message']}")


def show_files(root: Path) -> None:
    """Print what the agent left, and where."""
    interesting = ("*.log", "*.settings", "*.status", "*.crt", "HandlerState", "HandlerEnvironment.json", "status.json")
    for pattern in interesting:
        for path in sorted(root.rglob(pattern)):
            print(f"  {path.relative_to(root)}")


def main() -> int:
    """Run the demonstration; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=HERE.parent / "build" / "demo", help="scratch directory")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds to wait for success")
    arguments = parser.parse_args()
    root: Path = arguments.directory.resolve()
    if root.exists():
        shutil.rmtree(root)
    root.mkdir(parents=True)
    site = prepare_machine(root)

    with Fabric() as fabric:
        fabric.add_package(NAME, VERSION, sample_files())
        settings = SettingsSpec(public={"greet": "world"}, protected={"secret": SECRET}, sequence_number=0)
        fabric.publish([HandlerSpec(NAME, VERSION, settings=[settings])])
        print(f"The platform listens at {fabric.wireserver} (WireServer), {fabric.host_plugin} (host plugin).")
        print(f"The agent runs under {root}; its log:\n")
        began, wall = time.monotonic(), time.time()
        conf = {"Logs.Verbose": "n", "Provisioning.Agent": "auto"}
        agent = RunningAgent(root, fabric, conf=conf, environment={"PYTHONPATH": site})
        follower = Follower(agent, began)

        def is_ready() -> bool:
            return (fabric.extension_status(NAME) or {}).get("status") == "Ready"

        with agent:
            follower.start()
            try:
                fabric.wait_for_extension(NAME, "success", sequence_number=0, timeout=arguments.timeout)
                fabric.wait_for(is_ready, arguments.timeout, "a handler that is Ready")
                failure = None
            except TimeoutError as problem:
                failure = str(problem)
            ended = time.time()
            document = fabric.status
        follower.ended.set()
        follower.join(5)

        print("\nWhat the agent did to the machine, which is a directory here:\n")
        show_machine(root)
        print("\nWhat the platform saw:\n")
        for seconds, words in timeline(fabric, wall, ended):
            print(f"  {seconds:6.2f} s  {words}")
        print("\nThe status it received:\n")
        if document is None:
            print("  none")
        else:
            show_status(document)
        print(f"\nWhere things are, under {root}:\n")
        show_files(root)
        for violation in fabric.violations:
            print(f"\nThe agent broke a rule of the platform: {violation}")
        files = [path for path in root.rglob("*") if path.is_file()]
        leak = [path for path in files if any(word.encode() in path.read_bytes() for word in (SECRET, PASSWORD))]
        for path in leak:
            print(f"\nA secret stands in {path}!")
        said = [report.state for report in fabric.health_reports]
        if failure is None and said != ["NotReady", "Ready"]:
            failure = f"the platform heard {said} instead of NotReady and Ready"
        if failure is not None:
            print(f"\nFailed: {failure}")
        return 1 if failure is not None or fabric.violations or leak else 0


if __name__ == "__main__":
    sys.exit(main())
