"""The agent under a real systemd beside the real cloud-init: it waits, serves, and what it started outlives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.vm import machine
from tests.vm.test_first_boot import OVF

CONF = """\
Provisioning.Agent=auto
ResourceDisk.Format=n
OS.EnableFirewall=n
Logs.Verbose=y
Extensions.GoalStatePeriod=2
Extensions.WaitForCloudInit=y
"""
NAME = "Contoso.Vm.Sample"
HOST = "cloud-machine"
CLOUD = """\
datasource_list: [Azure]
cloud_config_modules: []
cloud_final_modules: [final-message]
"""
"""What takes long and has nothing to do with the agent is left out."""
RUN = (
    "test -e /run/cloud-init/result.json && echo through >$logs/cloud-init; "
    'setsid sh -c "sleep 1000" </dev/null >/dev/null 2>&1 &'
)


def with_cloud_init(root: Path) -> None:
    (root / "etc/cloud/cloud-init.disabled").unlink()
    (root / "etc/cloud/cloud.cfg.d/95-test.cfg").write_text(CLOUD)
    (root / "etc/network/interfaces.d/eth0").unlink()


def test_the_agent_serves_beside_cloud_init(platform: Any, login_key: Path, tmp_path: Path) -> None:
    from waagent_fabric import HandlerSpec, SettingsSpec, sample_package

    platform.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0", enable=RUN))
    platform.publish([HandlerSpec(NAME, "1.0.0", settings=[SettingsSpec(protected={"a": 1}, sequence_number=0)])])
    public = login_key.with_suffix(".pub").read_text().strip()
    owner = {"adminUsername": "azureuser", "computerName": HOST, "disablePasswordAuthentication": "true"}
    key = {"keyData": public, "path": "/home/azureuser/.ssh/authorized_keys"}
    platform.set_instance_metadata(compute={"osProfile": owner, "publicKeys": [key]})
    dvd = machine.make_dvd(tmp_path / "dvd.iso", {"ovf-env.xml": OVF.format(host=HOST, key=public)})
    image = machine.Image(tmp_path / "image", machine.built_wheel(), CONF, prepare=with_cloud_init)
    with machine.Machine(image, tmp_path / "vm", dvd=dvd) as guest:
        guest.key = login_key
        platform.wait_for_extension(NAME, "success", timeout=400)
        guest.wait_for_login()
        cloud_init_provisioned_and_was_waited_for(guest, platform)
        it_serves_under_systemd(guest, platform)


def cloud_init_provisioned_and_was_waited_for(guest: machine.Machine, platform: Any) -> None:
    """Provisioning §13, extensions §18: never two writers, and no extension before cloud-init is through."""
    assert guest.ssh("hostname").strip() == HOST
    log = guest.read("/var/log/waagent.log")
    assert "Provisioning with cloud-init succeeded (" in log
    assert "Create the user" not in log
    states = [report.state for report in platform.health_reports]
    assert set(states) == {"Ready"}, "cloud-init reported Ready first, and that is not taken back"
    assert len(states) >= 2, "the agent reports too"
    assert any(item.get("CertificateThumbprint") for item in platform.role_properties), "no host key was reported"
    assert log.index("cloud-init completed\n") < log.index("Launch command:")
    assert guest.read(f"/var/log/azure/{NAME}/cloud-init") == "through\n"


def it_serves_under_systemd(guest: machine.Machine, platform: Any) -> None:
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
    assert {report.state for report in platform.health_reports} == {"Ready"}
    assert platform.violations == []
