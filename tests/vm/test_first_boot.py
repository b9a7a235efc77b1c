"""The first real machine: a generic image becomes the machine that its owner asked for (provisioning §6, §29)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.vm import machine

CONF = """\
Provisioning.Agent=auto
Provisioning.DeleteRootPassword=y
ResourceDisk.Format=y
ResourceDisk.EnableSwap=y
ResourceDisk.SwapSizeMB=16
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


INSIDE = ("system/test_scopes.py", "vm/inside/vfat.py")
LINK = """\
SUBSYSTEM=="block", KERNEL=="sd?", SYMLINK+="disk/azure/resource"
SUBSYSTEM=="block", KERNEL=="sd?[0-9]", SYMLINK+="disk/azure/resource-part%n"
"""
"""There is no virtual bus here that would prove the resource disk: a link as udev's rules make it has to do."""


def test_a_generic_image_becomes_the_owners_machine(platform: Any, login_key: Path, tmp_path: Path) -> None:
    from waagent_fabric import HandlerSpec, SettingsSpec, sample_package

    drives: list[str] = []

    def prepare(root: Path) -> None:
        remember_host_keys(root)
        drives.extend(machine.fat_disk(root, tmp_path / "resource.img"))
        (root / "etc/udev/rules.d/66-resource.rules").write_text(LINK)
        machine.put_tests(root, *INSIDE, "system/resourcedisk/loops.py")

    platform.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0"))
    platform.publish([HandlerSpec(NAME, "1.0.0", settings=[SettingsSpec(public={"a": 1}, sequence_number=0)])])
    public = login_key.with_suffix(".pub").read_text().strip()
    dvd = machine.make_dvd(tmp_path / "dvd.iso", {"ovf-env.xml": OVF.format(host=HOST, key=public)})
    image = machine.Image(tmp_path / "image", machine.built_wheel(), CONF, prepare=prepare)
    with machine.Machine(image, tmp_path / "vm", dvd=dvd, drives=drives) as guest:
        guest.key = login_key
        platform.wait_for(lambda: [r.state for r in platform.health_reports][-1:] == ["Ready"], 300, "the Ready report")
        guest.wait_for_login()
        it_is_the_owners(guest, platform)
        it_has_a_temporary_disk(guest)
        guest.run_tests(*INSIDE)
        it_becomes_an_image_again(guest)


def it_is_the_owners(guest: machine.Machine, platform: Any) -> None:
    assert guest.ssh("id -un").strip() == "azureuser"
    assert guest.ssh("sudo -n id -u").strip() == "0"
    assert guest.ssh("hostname").strip() == HOST
    assert guest.ssh("cat /etc/hostname").strip() == HOST
    assert guest.ssh("hostnamectl --static").strip() == HOST
    told = guest.ssh("sudo journalctl --no-pager -u systemd-hostnamed")
    assert f"Hostname set to <{HOST}> (static)" in told, "systemd was asked for it"

    old = {name: guest.read(f"/root/image-keys/{name}") for name in guest.ssh("sudo ls /root/image-keys").split()}
    new = {name: guest.ssh(f"cat /etc/ssh/{name}") for name in guest.ssh("cd /etc/ssh; ls ssh_host_*.pub").split()}
    assert new
    assert all(new.get(name) != key for name, key in old.items()), "a host key of the image is still there"
    fingerprint = guest.ssh("ssh-keygen -lf /etc/ssh/ssh_host_rsa_key.pub").split()[1]
    reported = [item["CertificateThumbprint"] for item in platform.role_properties if "CertificateThumbprint" in item]
    assert set(reported) == {fingerprint.replace(":", "")}
    states = [report.state for report in platform.health_reports]
    assert states[0] == "NotReady"
    assert states[-1] == "Ready"

    platform.wait_for_extension(NAME, "success", timeout=120)
    assert guest.read("/var/lib/waagent/provisioned").strip()
    redacted = guest.read("/var/lib/waagent/ovf-env.xml")
    assert "azureuser" in redacted
    assert guest.ssh("systemctl is-active waagent").strip() == "active"
    assert platform.violations == []


def it_has_a_temporary_disk(guest: machine.Machine) -> None:
    """A disk that only a link calls temporary is used as it is, with FAT on it; it is never formatted."""
    assert guest.ssh("findmnt -n -o SOURCE,FSTYPE /mnt/resource").split() == ["/dev/sda1", "vfat"]
    assert "temporary disk" in guest.ssh("cat /mnt/resource/DATALOSS_WARNING_README.txt")
    log = guest.read("/var/log/waagent.log")
    assert "Resource disk sda is mounted at /mnt/resource with vfat" in log
    assert "swap" in log
    assert guest.ssh("cat /proc/swaps").count("\n") == 1, "FAT holds no swap file"
    guest.ssh("sudo umount /mnt/resource && sudo wipefs -q -a /dev/sda1 /dev/sda && sudo udevadm settle")
    refused = json.loads(guest.ssh("sudo waagent resourcedisk --json", check=False))
    assert refused["decision"]["action"] == "refuse", refused
    assert refused["steps"] == []
    guest.ssh("sudo rm -r /etc/udev/rules.d/66-resource.rules /dev/disk/azure")  # the tests inside have another disk


def it_becomes_an_image_again(guest: machine.Machine) -> None:
    """Deprovisioned under its own systemd and switched off: the disk is looked at from outside."""
    words = "waagent -force -deprovision+user >/root/said 2>&1; echo exit $? >>/root/said; systemctl poweroff"
    guest.ssh(f"sudo systemd-run --collect --unit=deprovision sh -c '{words}'", check=False)
    guest.wait_until_off()
    said = guest.disk_file("/root/said") or ""
    assert said.endswith("exit 0\n"), said
    assert guest.disk_file("/etc/hostname") == "localhost.localdomain\n"
    for path in ("passwd", "shadow", "group", "subuid"):
        for name in (path, f"{path}-"):
            assert "azureuser" not in (guest.disk_file(f"/etc/{name}") or ""), name
    assert "root:*LOCK*:" in (guest.disk_file("/etc/shadow") or "")
    assert guest.disk_names("/home") == []
    assert guest.disk_names("/var/lib/waagent") == []
    assert guest.disk_names("/var/log/azure") == []
    assert [name for name in guest.disk_names("/etc/ssh") if name.startswith("ssh_host_")] == []
    assert "waagent" not in guest.disk_names("/etc/sudoers.d")
    for path in ("/etc/resolv.conf", "/var/log/waagent.log", "/root/.bash_history"):
        assert guest.disk_file(path) is None, path
