"""The traps that another agent fell into, by their numbers in spec/distro.md §6."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from tests.unit.distro.conftest import network, plugins, process
from tests.unit.distro.test_keys import KEY
from waagent.errors import NoAnswer
from waagent_distro.steps import interfaces, servicefiles

PRODUCT = Path(__file__).resolve().parents[3]


@pytest.fixture
def systemd(bare):
    (bare.root / "run/systemd/system").mkdir(parents=True)
    bare.answer("systemctl")
    bare.answer("networkctl")
    bare.answer("nmcli")
    bare.answer("ifup")
    network(bare)
    return bare


def use_networkd(machine):
    machine.write("run/systemd/netif/links/2", "ADMIN_STATE=configured\n")
    process(machine, 300, "systemd-network")


def test_trap_1_a_new_release_is_as_good_as_an_old_one(systemd):
    use_networkd(systemd)
    for version in ("17.10", "22.04", "24.04", "26.04", "99.10"):
        systemd.ran.clear()
        distro = systemd.become(f'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="{version}"\n').distro
        assert distro.find_dhcp_processes() == (300,)
        distro.restart_interface("eth0")
        distro.service_action("walinuxagent", "start")
        assert systemd.commands() == ["networkctl reconfigure eth0", "systemctl start walinuxagent.service"]


@pytest.mark.parametrize(
    ("release", "tool", "command"),
    [
        ("ID=ubuntu\nID_LIKE=debian", "systemd-network", "networkctl reconfigure eth0"),
        ("ID=chainguard", "systemd-network", "networkctl reconfigure eth0"),
        ("ID=sles\nID_LIKE=suse", "wickedd-dhcp4", "ifup eth0"),
    ],
)
def test_trap_2_nothing_is_restarted_again_after_a_success(systemd, release, tool, command):
    systemd.write("run/systemd/netif/links/2", "ADMIN_STATE=configured\n")
    process(systemd, 300, tool)
    systemd.become(release + "\n").distro.restart_interface("eth0")
    assert systemd.commands() == [command]
    assert systemd.stopping.slept == []


def test_trap_2_a_failure_is_logged_and_not_hidden_by_an_error_of_the_log(systemd):
    use_networkd(systemd)
    for command in ("networkctl", "systemctl restart", "sh"):
        systemd.answer(command, (1, "", "100 % broken {}"))
    with pytest.raises(NoAnswer, match=re.escape("100 % broken {}")):
        systemd.become("ID=ubuntu\nID_LIKE=debian\n").distro.restart_interface("eth0")


def test_trap_3_fedora_publishes_a_host_name(systemd):
    systemd.write("run/NetworkManager/devices/2", "managed=true\n")
    process(systemd, 400, "NetworkManager")
    assert systemd.become("ID=fedora\n").distro.publish_hostname("web1") is True
    assert systemd.commands() == ["nmcli device modify eth0 ipv4.dhcp-hostname web1 ipv6.dhcp-hostname web1"]


def test_trap_4_clear_linux_can_be_deprovisioned(systemd):
    systemd.write("etc/resolv.conf", "nameserver 10.0.0.1\n")
    distro = systemd.become("ID=clear-linux-os\n").distro
    assert distro.find_resolver_files() == (systemd.at("/etc/resolv.conf"),)
    assert distro.lock_root_password() is True
    systemd.answer("hostnamectl")
    assert distro.set_hostname("localhost.localdomain") is True


def test_trap_5_devuan_names_the_service_first(bare):
    bare.write("etc/init.d/ssh", "")
    bare.answer("service")
    bare.become("ID=devuan\nID_LIKE=debian\n").distro.restart_ssh()
    assert bare.ran == [("service", "ssh", "reload")]


def test_trap_6_alpine_without_dhcpcd(bare):
    network(bare)
    bare.answer("sh")
    distro = bare.become("ID=alpine\n").distro
    assert distro.find_dhcp_processes() == ()
    assert distro.restart_interface("eth0") is True
    assert bare.commands() == [f"sh -c {interfaces._BOUNCE} sh eth0"]


def test_trap_7_routes_keep_their_mask(systemd):
    systemd.become("ID=debian\n").distro.add_route("10.1.0.0", 16, "10.0.0.1", "eth0")
    assert "10.1.0.0/16" in systemd.commands()[0].split()


def test_trap_8_the_private_key_is_the_private_one(systemd):
    systemd.write("etc/passwd", f"amy:x:{os.getuid()}:{os.getgid()}::/home/amy:/bin/sh\n")
    (systemd.root / "home/amy").mkdir(parents=True)
    systemd.become("ID=debian\n").distro.deploy_ssh_key("amy", "/home/amy/.ssh/id_ed25519", KEY, "-----BEGIN…")
    path = systemd.root / "home/amy/.ssh/id_ed25519"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.with_suffix(".pub").stat().st_mode) == 0o644
    assert path.with_suffix(".pub").read_text() == KEY + "\n"
    assert path.stat().st_uid == os.getuid()


@pytest.mark.parametrize(
    "release",
    ["ID=ol\nID_LIKE=fedora", "ID=kali\nID_LIKE=debian", "ID=sle-micro\nID_LIKE=suse", "ID=sle_hpc\nID_LIKE=suse",
     "ID=euleros", "ID=uos\nID_LIKE=debian", "ID=azurelinux\nVARIANT_ID=azurecontainerlinux", "ID=never-heard-of"],
)  # fmt: skip
def test_trap_9_who_manages_services_is_seen_and_not_listed(systemd, release):
    program = systemd.write("usr/bin/waagent", "", 0o755)
    distro = systemd.become(release + "\n").distro
    distro.register_service(str(program))
    unit = systemd.root / "etc/systemd/system" / f"{distro.service_name()}.service"
    assert f"ExecStart={program} -daemon" in unit.read_text()
    assert not (systemd.root / "etc/init.d").exists()


def test_trap_10_nothing_is_written_below_usr(systemd):
    program = systemd.write("opt/agent/waagent", "", 0o755)
    systemd.answer("iptables")
    for name, value in plugins().items():
        if value.startswith("waagent_distro.systems") and name != "openwrt":
            distro = systemd.become(f"ID={name}\n").distro
            distro.register_service(str(program))
            distro.persist_firewall("168.63.129.16", 0)
            assert distro.unit_directory() == systemd.at("/etc/systemd/system")
    assert not (systemd.root / "usr").exists()
    assert not (systemd.root / "lib").exists()


def test_trap_11_what_an_unknown_system_is_like_counts(systemd):
    systemd.answer("systemctl show", "LoadState=loaded\n")
    distro = systemd.become('ID=brand-new\nID_LIKE="ubuntu debian"\n').distro
    assert distro.service_name() == "walinuxagent"
    assert distro.find_resolver_files() == ()
    distro.restart_ssh()
    assert systemd.commands() == ["systemctl --job-mode=ignore-dependencies try-reload-or-restart sshd.service"]


def test_trap_12_no_output_of_stat_is_looked_at():
    # A Rust "stat" prints other names. Nobody runs it: who manages services is told by a directory that systemd makes,
    # and where processes are counted by what the kernel writes about them.
    words = re.compile(r'\(\s*"stat",|"stat -f|"--format')
    sources = [path for part in ("core", "plugins") for path in (PRODUCT / part).rglob("*.py")]
    assert len(sources) > 100
    assert [path.name for path in sources if words.search(path.read_text())] == []


@pytest.mark.parametrize("earlier", ["50-cloud-init.conf", "60-cloudimg-settings.conf"])
def test_trap_13_our_drop_in_is_read_before_the_images(systemd, earlier):
    systemd.write("etc/ssh/sshd_config", "Include /etc/ssh/sshd_config.d/*.conf\nPasswordAuthentication yes\n")
    systemd.write(f"etc/ssh/sshd_config.d/{earlier}", "PasswordAuthentication yes\n")
    systemd.become("ID=debian\n").distro.configure_sshd(password_authentication=False)
    order = sorted(os.listdir(systemd.root / "etc/ssh/sshd_config.d"))
    first = (systemd.root / "etc/ssh/sshd_config.d" / order[0]).read_text()
    assert order == ["10-waagent.conf", earlier]
    assert "PasswordAuthentication no\n" in first


def test_a_service_is_ordered_after_no_unit_that_waits_for_it():
    # Ordered after cloud-final, which starts services itself, a boot never ended (spec/distro.md §7.2).
    assert "cloud-final" not in servicefiles.unit("/usr/sbin/waagent", "waagent")
