"""Each row of the table of distributions: what it answers and which commands it runs (spec/distro.md §4)."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

from tests.unit.distro.conftest import LINUX, network, plugins, process
from waagent.distro import DistroFacts, detect
from waagent.errors import NoAnswer, NotOnThisRoot

DEBIAN_RELOAD = "systemctl --job-mode=ignore-dependencies try-reload-or-restart ssh.service"
RELOAD = "systemctl try-reload-or-restart sshd.service"

ROWS = {
    # os-release, the plugins for it, name of the service, binaries, reload of ssh, main file edited, remote access
    "debian": ("ID=debian", "linux debian", "walinuxagent", "sbin", DEBIAN_RELOAD, True, True),
    "ubuntu": ("ID=ubuntu\nID_LIKE=debian", "linux debian ubuntu", "walinuxagent", "sbin", DEBIAN_RELOAD, True, True),
    "kali": ("ID=kali\nID_LIKE=debian", "linux debian", "walinuxagent", "sbin", DEBIAN_RELOAD, True, True),
    "rhel": ("ID=rhel\nID_LIKE=fedora", "linux fedora rhel", "waagent", "sbin", RELOAD, True, True),
    "centos": ('ID=centos\nID_LIKE="rhel fedora"', "linux fedora rhel", "waagent", "sbin", RELOAD, True, True),
    "alma": ('ID=almalinux\nID_LIKE="rhel centos fedora"', "linux fedora rhel", "waagent", "sbin", RELOAD, True, True),
    "rocky": ('ID=rocky\nID_LIKE="rhel centos fedora"', "linux fedora rhel", "waagent", "sbin", RELOAD, True, True),
    "ol": ("ID=ol\nID_LIKE=fedora", "linux fedora ol", "waagent", "sbin", RELOAD, True, True),
    "amzn": ("ID=amzn\nID_LIKE=fedora", "linux fedora", "waagent", "sbin", RELOAD, True, True),
    "fedora": ("ID=fedora", "linux fedora", "waagent", "sbin", RELOAD, False, False),
    "sles": ("ID=sles\nID_LIKE=suse", "linux suse", "waagent", "sbin", RELOAD, True, True),
    "leap": ('ID=opensuse-leap\nID_LIKE="suse opensuse"', "linux suse", "waagent", "sbin", RELOAD, True, True),
    "azurelinux": ("ID=azurelinux", "linux azurelinux", "waagent", "bin", RELOAD, False, True),
    "mariner": ("ID=mariner", "linux mariner", "waagent", "bin", RELOAD, False, True),
    "acl": (
        "ID=azurelinux\nVARIANT_ID=azurecontainerlinux", "linux azurelinux azurecontainerlinux", "waagent", "bin",
        RELOAD, False, True,
    ),
    "photon": ("ID=photon", "linux photon", "waagent", "bin", RELOAD, False, False),
    "arch": ("ID=arch", "linux arch", "waagent", "bin", RELOAD, False, True),
    "clear": ("ID=clear-linux-os", "linux clear-linux-os", "waagent", "bin", RELOAD, False, True),
    "flatcar": ("ID=flatcar\nID_LIKE=coreos", "linux flatcar", "waagent", "sbin", RELOAD, False, True),
    "chainguard": ("ID=chainguard", "linux chainguard", "waagent", "bin", RELOAD, True, True),
    "alpine": ("ID=alpine", "linux alpine", "waagent", "sbin", RELOAD, False, True),
    "alpaquita": ("ID=alpaquita\nID_LIKE=alpine", "linux alpine", "waagent", "sbin", RELOAD, False, True),
    "unknown": ("ID=void", "linux", "waagent", "sbin", RELOAD, True, True),
}  # fmt: skip
row = pytest.mark.parametrize("name", ROWS)


@pytest.fixture
def systemd(bare):
    (bare.root / "run/systemd/system").mkdir(parents=True)
    bare.answer("systemctl")
    bare.answer(
        "systemctl show", lambda command, _data: f"LoadState={'loaded' if bare.ssh in command else 'not-found'}\n"
    )
    return bare


@row
def test_a_row(systemd, name):
    release, loaded, service, binaries, reload, edits_main, remote_access = ROWS[name]
    systemd.ssh = reload.split()[-1]
    distro = systemd.become(release + "\n").distro
    present = {one.plugin for hook in systemd.registry.traits for one in systemd.registry.implementations(hook)}
    assert sorted(one for one in present if not one.startswith("linux.")) == sorted(loaded.split())
    assert distro.service_name() == service
    assert distro.binary_directory() == systemd.at("/usr/" + binaries)
    assert distro.unit_directory() == systemd.at("/etc/systemd/system")
    assert distro.supports_remote_access() is remote_access
    distro.restart_ssh()
    assert systemd.commands() == [reload]
    systemd.write("etc/ssh/sshd_config", "Include /etc/ssh/sshd_config.d/*.conf\n")
    systemd.write("etc/ssh/sshd_config.d/50-image.conf", "PasswordAuthentication yes\n")
    distro.configure_sshd(password_authentication=False)
    assert systemd.read("etc/ssh/sshd_config.d/10-waagent.conf").startswith("PasswordAuthentication no\n")
    assert ("PasswordAuthentication no" in systemd.read("etc/ssh/sshd_config")) is edits_main


BSD_ONLY = {"read_resource_disk", "format_resource_disk", "mount_resource_disk", "enable_swap"}
"""What the resource disk plugin does by itself on Linux."""


@row
def test_every_operation_is_answered_by_somebody(bare, name):
    bare.become(ROWS[name][0] + "\n")
    operations = {traits.name for traits in bare.registry.traits.values() if traits.kind == "operation"}
    unanswered = {one for one in operations if not bare.registry.implementations(one)}
    assert unanswered == BSD_ONLY | {"find_resource_disk"}


@row
def test_the_most_special_is_asked_first_and_linux_last(bare, name):
    bare.become(ROWS[name][0] + "\n")
    for hook in ("restart_interface", "service_name", "set_dhcp_hostname"):
        order = [one.plugin for one in bare.registry.implementations(hook)]
        assert order[-1] == "linux"
        tools = [plugin for plugin in order if plugin.startswith("linux.")]
        assert order[len(order) - 1 - len(tools) : -1] == tools


def test_where_main_files_are_not_edited_and_no_directory_is_included_nothing_is_written(systemd):
    systemd.become("ID=arch\n")
    systemd.write("etc/ssh/sshd_config", "Port 22\n")
    assert systemd.distro.configure_sshd(False, 180) is True
    assert systemd.read("etc/ssh/sshd_config") == "Port 22\n"
    assert any("left as it is" in line for line in systemd.lines)


@row
def test_under_another_root_nothing_is_changed_and_no_command_is_run(bare, name):
    bare.write("etc/os-release", ROWS[name][0] + "\n")
    bare.use(detect(bare.paths, LINUX))
    before = sorted(bare.root.rglob("*"))
    for traits in bare.registry.traits.values():
        if traits.changing:
            arguments = {one: "x" for one in traits.arguments if one != "agent"}
            with pytest.raises(NotOnThisRoot):
                getattr(bare.distro, traits.name)(**arguments)
    assert bare.ran == []
    assert sorted(bare.root.rglob("*")) == before


# ---- Single rows ----


def test_debian_and_its_kin_keep_udevs_files(bare):
    bare.write("etc/udev/rules.d/70-persistent-net.rules", "x")
    bare.become("ID=mint\nID_LIKE=ubuntu\n")  # without "debian" in its words: only what is true of Ubuntu's kin
    bare.distro.find_resolver_files()
    bare.become("ID=ubuntu\nID_LIKE=debian\n").distro.move_persistent_net_rules()
    assert bare.read("etc/udev/rules.d/70-persistent-net.rules") == "x"


def test_ubuntu_keeps_the_resolver_and_leaves_the_disk_to_cloud_init(systemd):
    systemd.write("etc/resolv.conf", "nameserver 10.0.0.1\n")
    systemd.become("ID=ubuntu\nID_LIKE=debian\n")
    assert systemd.distro.find_resolver_files() == ()
    hooks = systemd.distro._hooks
    for state, refused in [("enabled\n", True), ("static\n", True), ("disabled\n", False), ("masked\n", False)]:
        systemd.answer("systemctl is-enabled cloud-init-local.service", (0, state, ""))
        veto = hooks.decide_resource_disk(systemd, {})
        assert (veto is not None and "cloud-init is in charge" in veto.reason) is refused
    systemd.answer("systemctl is-enabled cloud-init-local.service", "enabled\n")
    systemd.write("etc/cloud/cloud-init.disabled", "")
    assert hooks.decide_resource_disk(systemd, {}) is None
    systemd.write("proc/cmdline", "quiet cloud-init=enabled\n")
    assert hooks.decide_resource_disk(systemd, {}) is not None
    systemd.write("proc/cmdline", "quiet cloud-init=disabled\n")
    assert hooks.decide_resource_disk(systemd, {}) is None


def test_kin_of_ubuntu_decide_about_their_disk_themselves(systemd):
    systemd.answer("systemctl is-enabled", "enabled\n")
    systemd.become('ID=pop\nID_LIKE="ubuntu debian"\n')
    assert systemd.distro._hooks.decide_resource_disk(systemd, {}) is None


def test_rhel_with_ifcfg_files_writes_the_name_there_and_goes_on(systemd):
    network(systemd)
    systemd.write("etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\nDHCP_HOSTNAME=old\nONBOOT=yes\n")
    systemd.write("run/NetworkManager/devices/2", "managed=true\n")
    process(systemd, 400, "NetworkManager")
    systemd.answer("nmcli")
    systemd.become('ID=almalinux\nID_LIKE="rhel centos fedora"\n').distro.set_dhcp_hostname("web1")
    text = systemd.read("etc/sysconfig/network-scripts/ifcfg-eth0")
    assert text == "DEVICE=eth0\nONBOOT=yes\nDHCP_HOSTNAME=web1\n"
    assert systemd.commands() == ["nmcli device modify eth0 ipv4.dhcp-hostname web1 ipv6.dhcp-hostname web1"]


def test_oracle_belongs_to_that_family(systemd):
    network(systemd)
    systemd.write("etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\n")
    systemd.become('ID="ol"\nID_LIKE="fedora"\nVERSION_ID="8.10"\n').distro.set_dhcp_hostname("web1")
    assert systemd.read("etc/sysconfig/network-scripts/ifcfg-eth0") == "DEVICE=eth0\nDHCP_HOSTNAME=web1\n"


def test_suse_forgets_the_name_of_an_image(systemd):
    systemd.write("etc/sysconfig/network/dhcp", 'DHCLIENT_HOSTNAME_OPTION="web1"\n')
    systemd.become("ID=sles\nID_LIKE=suse\n")
    systemd.distro.set_dhcp_hostname("localhost.localdomain")
    assert systemd.read("etc/sysconfig/network/dhcp") == 'DHCLIENT_HOSTNAME_OPTION="AUTO"\n'
    systemd.distro.start_network()
    assert systemd.commands() == ["systemctl start network.service"]


def test_clear_linux_locks_root_where_there_is_no_password_file_yet(systemd):
    systemd.become("ID=clear-linux-os\n").distro.lock_root_password()
    assert systemd.read("etc/shadow") == "root:*LOCK*:14600::::::\n"
    assert systemd.distro.configuration_path() == systemd.at("/usr/share/defaults/waagent/waagent.conf")
    systemd.write("etc/waagent.conf", "")
    assert systemd.distro.configuration_path() == systemd.at("/etc/waagent.conf")


def test_flatcars_core_belongs_to_people(systemd):
    systemd.write("etc/passwd", "core:x:500:500::/home/core:/bin/bash\nsys:x:400:400::/:/x\n")
    systemd.write("etc/login.defs", "UID_MIN 1000\n")
    systemd.answer("chpasswd")
    systemd.answer("userdel")
    systemd.become("ID=flatcar\nID_LIKE=coreos\n")
    assert systemd.distro.set_password("core", "secret") is True
    assert systemd.distro.delete_user("core") is True
    with pytest.raises(NoAnswer, match="sys is a system user"):
        systemd.distro.set_password("sys", "secret")


def test_alpine_without_shadow_uses_busybox(bare):
    bare.answer("adduser")
    bare.become("ID=alpine\n").distro.create_user("amy", "JIT_Account")
    assert bare.commands()[-1] == "adduser -D -g JIT_Account amy"
    with pytest.raises(NoAnswer, match="install the package shadow"):
        bare.distro.create_user("amy", expiration="2030-01-01")
    bare.write("etc/passwd", "amy:x:1000:1000::/home/amy:/bin/ash\nsys:x:3:3::/:/x\n")
    bare.write("etc/sudoers.d/waagent", "amy ALL=(ALL) ALL\n")
    bare.answer("deluser")
    assert bare.distro.delete_user("amy") is True
    assert bare.commands()[-1] == "deluser --remove-home amy"
    assert "amy" not in (bare.read("etc/sudoers.d/waagent") if (bare.root / "etc/sudoers.d/waagent").exists() else "")
    with pytest.raises(NoAnswer, match="sys is a system user"):
        bare.distro.delete_user("sys")
    bare.write("etc/passwd", "")
    bare.answer("useradd")
    bare.distro.create_user("amy")
    assert bare.commands()[-1] == "useradd -m amy"
    bare.write("etc/passwd", "amy:x:1000:1000::/home/amy:/bin/ash\n")
    bare.answer("userdel")
    bare.distro.delete_user("amy")
    assert bare.commands()[-1] == "userdel -f -r amy"


def test_openwrt(bare):
    for command in ("useradd", "uci", "/etc/init.d/system", "/etc/init.d/network", "/etc/init.d/sshd", "sh"):
        bare.answer(command)
    bare.write("sbin/procd", "")
    network(bare)
    distro = bare.become("ID=openwrt\n").distro
    distro.create_user("amy")
    assert (bare.root / "home").is_dir()
    distro.set_hostname("web1")
    distro.start_network()
    distro.restart_ssh()  # Dropbear
    bare.write("etc/init.d/sshd", "")
    distro.restart_ssh()
    distro.restart_interface("eth0")
    assert distro.eject_provisioning_media("/dev/sr0") is True
    assert distro.move_persistent_net_rules() is True
    assert bare.read("etc/hostname") == "web1\n"
    assert bare.commands() == [
        "useradd -m -s /bin/ash amy", "uci set system.@system[0].hostname=web1", "uci commit system",
        "/etc/init.d/system reload", "/etc/init.d/network start", "/etc/init.d/sshd restart",
        'sh -c ifdown "$1"; exec ifup "$1" sh eth0',
    ]  # fmt: skip


def test_devuan_has_no_jobs_to_ignore(bare):
    bare.write("etc/init.d/ssh", "")
    bare.answer("service")
    bare.become("ID=devuan\nID_LIKE=debian\n").distro.restart_ssh()
    assert bare.commands() == ["service ssh reload"]
    assert bare.distro.service_name() == "walinuxagent"


# ---- The package as a whole ----


def test_every_entry_point_is_a_plugin_of_its_own():
    for name, value in plugins().items():
        module = importlib.import_module(value)
        assert module.__doc__, name
        facts = DistroFacts(name.partition(".")[0])
        assert facts.level(name) is not None


def test_plugins_are_cheap_to_load():
    # The resident worker imports all that fit its distribution; what they do is loaded when it is asked for.
    fitting = [value for name, value in plugins().items() if name.partition(".")[0] in ("linux", "debian", "ubuntu")]
    program = (
        "import sys, importlib, waagent.markers, waagent.registry; before = set(sys.modules)\n"
        f"for name in {fitting!r}: importlib.import_module(name)\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"glob", "tempfile", "subprocess", "ctypes", "shutil", "secrets", "re"}
    steps = {name for name in loaded if name.startswith("waagent_distro.steps.")}
    assert steps <= {"waagent_distro.steps.processes", "waagent_distro.steps.textfiles"}
