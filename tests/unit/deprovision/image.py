"""A provisioned machine with everything that deprovisioning removes, and much that it must leave alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.unit.upkeep.machine import Machine
from waagent import NoAnswer
from waagent_deprovision import plugin

OVF = """\
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:wa="http://schemas.microsoft.com/windowsazure">
  <wa:ProvisioningSection><wa:Version>1.0</wa:Version>
    <LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure">
      <ConfigurationSetType>LinuxProvisioningConfiguration</ConfigurationSetType>
      <HostName>node7</HostName><UserName>{user}</UserName>
    </LinuxProvisioningConfigurationSet>
  </wa:ProvisioningSection>
</Environment>
"""
PASSWD = "root:x:0:0:root:/root:/bin/sh\nops:x:1000:1000::/home/ops:/bin/sh\nopsy:x:1001:1001::/home/opsy:/bin/sh\n"

GOES = (
    "/etc/ssh/ssh_host_rsa_key",
    "/etc/ssh/ssh_host_rsa_key.pub",
    "/var/lib/dhcp/dhclient.eth0.leases",
    "/var/lib/dhcpcd/duid",
    "/var/lib/dhclient/deep/er/lease",
    "/var/db/dhclient.leases.hn0",
    "/var/lib/NetworkManager/dhclient-x-eth0.lease",
    "/run/systemd/netif/leases/2",
    "/etc/resolv.conf",
    "/root/.bash_history",
    "/var/log/waagent.log",
    "/var/log/azure/Acme.Ext/1.0/x.log",
    "/var/lib/waagent/TransportPrivate.pem",
    "/var/lib/waagent/transport-key.json",
    "/var/lib/waagent/provisioned",
    "/var/lib/waagent/Acme.Ext-1.0/config/0.settings",
    "/etc/systemd/system/waagent-network-setup.service",
    "/etc/systemd/system/waagent-firewall.service",
    "/etc/systemd/system/waagent.service.d/12-CPUQuota.conf",
    "/etc/systemd/system/azure-walinuxagent-logcollector.slice",
)
STAYS = (
    "/etc/ssh/sshd_config",
    "/etc/ssh/moduli",
    "/etc/waagent.conf",
    "/etc/machine-id",
    "/etc/fstab",
    "/etc/sudoers.d/90-cloud-init-users",
    "/var/log/waagent.log.1",
    "/var/log/syslog",
    "/home/ops/.bash_history",
    "/home/opsy/keep",
    "/var/lib/NetworkManager/internal-x-eth0.lease",
    "/var/lib/cloud/instance",
    "/usr/lib/systemd/system/waagent-network-setup.service",
    "/etc/systemd/system/waagent.service.d/50-mine.conf",
    "/etc/systemd/system/other.service",
)


class Image(Machine):
    """The machine, and the command line on it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, role="cli")
        self.hooks = self
        self.also: list[tuple[str, Any]] = []
        self.broken: Exception | None = None
        self.distro.answers.update(
            service_name="waagent",
            unit_directory=str(root / "etc/systemd/system"),
            find_resolver_files=lambda: (self.paths.at("/etc/resolv.conf"),),
            delete_user=self._delete_user,
            set_hostname=lambda name: bool(self.write("/etc/hostname", name + "\n")),
        )
        for path in (*GOES, *STAYS):
            if path != "/etc/waagent.conf":
                self.write(path, f"content of {path}\n")
        self.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
        self.write("/etc/hostname", "node7\n")
        self.write("/etc/passwd", PASSWD)
        self.write("/var/lib/waagent/ovf-env.xml", OVF.format(user="ops"))
        self.configure("")

    def configure(self, text: str, *options: Any) -> None:
        super().configure(text, plugin.declare_options(), *options)

    def on_deprovision(self, agent: Any, delete_user: bool) -> list[tuple[str, Any]]:
        """What the façade does."""
        if self.broken is not None:
            raise NoAnswer(f"on_deprovision: no plugin answered; acme: {self.broken}", "acme", "on_deprovision")
        return [("deprovision", plugin.on_deprovision(self, delete_user)), *self.also]

    def _delete_user(self, name: str) -> bool:
        self.write("/etc/passwd", "".join(line for line in PASSWD.splitlines(True) if not line.startswith(name + ":")))
        return True

    def tree(self) -> dict[str, str]:
        """Everything that is there, by path: contents of files, targets of links."""
        found = {}
        for place, directories, files in os.walk(self.root):
            for name in (*directories, *files):
                path = os.path.join(place, name)
                inner = "/" + os.path.relpath(path, self.root)
                if os.path.islink(path):
                    found[inner] = "-> " + os.readlink(path)
                elif os.path.isfile(path):
                    with open(path, encoding="utf-8", errors="replace") as stream:
                        found[inner] = stream.read()
                else:
                    found[inner] = "directory"
        return found

    def deprovision(self, user: bool = True, **options: Any) -> int:
        from waagent_deprovision import command

        return command.run(self, delete_user=user, **options)  # type: ignore[arg-type]
