from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.deprovision.overlay import Overlay

PROVISION = """
import os
from waagent import write_atomic
from waagent.agent import make_agent

agent = make_agent("cli")
distro = agent.distro
distro.set_hostname("node7")
distro.create_user("ops", None, None)
distro.set_password("ops", "correct horse battery")
distro.configure_sudo("ops", True)
distro.deploy_ssh_key("ops", "/home/ops/.ssh/authorized_keys", {key!r}, None)
for path, text in {files!r}.items():
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_atomic(path, text)
"""
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVmZ2hpamtsbW5vcHFyc3R1dnd4eXphYmNkZWZnaGlq ops@desk"
OVF = """\
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:wa="http://schemas.microsoft.com/windowsazure">
  <wa:ProvisioningSection><wa:Version>1.0</wa:Version>
    <LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure">
      <ConfigurationSetType>LinuxProvisioningConfiguration</ConfigurationSetType>
      <HostName>node7</HostName><UserName>ops</UserName>
    </LinuxProvisioningConfigurationSet>
  </wa:ProvisioningSection>
</Environment>
"""
FILES = {
    "/var/lib/waagent/ovf-env.xml": OVF,
    "/var/lib/waagent/provisioned": "id",
    "/var/lib/waagent/TransportPrivate.pem": "a secret",
    "/var/lib/waagent/transport-key.json": "{}",
    "/var/lib/waagent/Acme.Ext-1.0/config/0.settings": "{}",
    "/var/log/azure/Acme.Ext/1.0/log": "x",
    "/var/log/waagent.log": "x",
    "/var/lib/dhcp/dhclient.eth0.leases": "lease {}",
    "/var/lib/dhcpcd/eth0.lease": "x",
    "/run/systemd/netif/leases/2": "OPTION_245=a83f8110",
    "/etc/ssh/ssh_host_ed25519_key": "a secret",
    "/etc/ssh/ssh_host_ed25519_key.pub": "x",
    "/etc/systemd/system/waagent-network-setup.service": "[Service]",
    "/etc/systemd/system/waagent.service.d/12-CPUQuota.conf": "[Service]",
    "/root/.bash_history": "secret words",
    "/home/ops/.bash_history": "more of them",
}
"""What provisioning, extensions and the days after leave on a machine."""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Overlay]:
    for program in ("unshare", "chroot", "useradd", "userdel", "chpasswd"):
        if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            pytest.skip(f"{program} is not here")
    place = tmp_path / "overlay"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "waagent-test", str(place)], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        overlay = Overlay(place)
        first = overlay.sh("exit 0", check=False)
        if first.returncode:
            pytest.skip(f"the machine cannot be laid under an overlay: {first.stderr or sys.executable}")
        overlay.sh("printf 'Provisioning.DeleteRootPassword=y\\n' >/etc/waagent.conf; rm -rf /etc/waagent.conf.d")
        yield overlay
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


@pytest.fixture
def provisioned(machine: Overlay) -> Overlay:
    """The machine after provisioning by the distribution's real tools."""
    machine.python(PROVISION.format(files=FILES, key=KEY))
    assert os.path.exists(machine.place / "upper/home/ops/.ssh/authorized_keys")
    return machine
