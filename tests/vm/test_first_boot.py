"""The first real machine: a generic image becomes the machine that its owner asked for (provisioning §6, §29)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.vm import machine

CONF = """\
Provisioning.Agent=waagent
ResourceDisk.Format=n
OS.EnableFirewall=n
Logs.Verbose=y
Extensions.GoalStatePeriod=2
"""
NAME = "Contoso.Vm.First"
HOST = "first-machine"
OVF = """\
<?xml version="1.0" encoding="utf-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:wa="http://schemas.microsoft.com/windowsazure">
  <wa:ProvisioningSection><wa:Version>1.0</wa:Version>
    <LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure">
      <ConfigurationSetType>LinuxProvisioningConfiguration</ConfigurationSetType>
      <HostName>{host}</HostName><UserName>azureuser</UserName>
      <DisableSshPasswordAuthentication>true</DisableSshPasswordAuthentication>
      <SSH><PublicKeys><PublicKey>
        <Fingerprint>EB0C0AB4B2D5FC35F2F0658D19F44C8283E2DD62</Fingerprint>
        <Path>/home/azureuser/.ssh/authorized_keys</Path><Value>{key}</Value>
      </PublicKey></PublicKeys></SSH>
    </LinuxProvisioningConfigurationSet>
  </wa:ProvisioningSection>
  <wa:PlatformSettingsSection><wa:Version>1.0</wa:Version><wa:PlatformSettings>
    <wa:ProvisionGuestAgent>true</wa:ProvisionGuestAgent>
  </wa:PlatformSettings></wa:PlatformSettingsSection>
</Environment>
"""


def remember_host_keys(root: Path) -> None:
    """Keep the image's host keys where the test finds them on the machine."""
    old = root / "root/image-keys"
    old.mkdir()
    for key in (root / "etc/ssh").glob("ssh_host_*.pub"):
        (old / key.name).write_bytes(key.read_bytes())


def test_a_generic_image_becomes_the_owners_machine(platform: Any, login_key: Path, tmp_path: Path) -> None:
    from waagent_fabric import HandlerSpec, SettingsSpec, sample_package

    platform.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0"))
    platform.publish([HandlerSpec(NAME, "1.0.0", settings=[SettingsSpec(public={"a": 1}, sequence_number=0)])])
    public = login_key.with_suffix(".pub").read_text().strip()
    dvd = machine.make_dvd(tmp_path / "dvd.iso", {"ovf-env.xml": OVF.format(host=HOST, key=public)})
    image = machine.Image(tmp_path / "image", machine.built_wheel(), CONF, prepare=remember_host_keys)
    with machine.Machine(image, tmp_path / "vm", dvd=dvd) as guest:
        guest.key = login_key
        platform.wait_for(lambda: [r.state for r in platform.health_reports][-1:] == ["Ready"], 300, "the Ready report")
        guest.wait_for_login()

        assert guest.ssh("id -un").strip() == "azureuser"
        assert guest.ssh("sudo -n id -u").strip() == "0"
        assert guest.ssh("hostname").strip() == HOST
        assert guest.ssh("cat /etc/hostname").strip() == HOST

        old = {name: guest.read(f"/root/image-keys/{name}") for name in guest.ssh("sudo ls /root/image-keys").split()}
        new = {name: guest.ssh(f"cat /etc/ssh/{name}") for name in guest.ssh("cd /etc/ssh; ls ssh_host_*.pub").split()}
        assert new
        assert all(new.get(name) != key for name, key in old.items()), "a host key of the image is still there"
        states = [report.state for report in platform.health_reports]
        assert states[0] == "NotReady"
        assert states[-1] == "Ready"
        assert any(item.get("CertificateThumbprint") for item in platform.role_properties), "no host key was reported"

        platform.wait_for_extension(NAME, "success", timeout=120)
        assert guest.read("/var/lib/waagent/provisioned").strip()
        redacted = guest.read("/var/lib/waagent/ovf-env.xml")
        assert "azureuser" in redacted
        assert guest.ssh("systemctl is-active waagent").strip() == "active"
        assert platform.violations == []
