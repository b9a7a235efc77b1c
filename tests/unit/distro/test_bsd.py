"""FreeBSD and OpenBSD, against transcripts of what their commands print. Neither system was there to run them on."""

from __future__ import annotations

import pytest

from tests.unit.distro.test_keys import KEY
from waagent.errors import NoAnswer

FREEBSD, OPENBSD = ("FreeBSD", "14.1-RELEASE"), ("OpenBSD", "7.5")
PASSWD = (
    "root:*:0:0:Charlie &:/root:/bin/csh\n_ntp:*:83:83::/var/empty:/sbin/nologin\namy:*:1001:1001::/home/amy:/bin/sh\n"
)


@pytest.fixture
def freebsd(bare):
    bare.write("etc/passwd", PASSWD)
    return bare.become("ID=freebsd\n", FREEBSD)


@pytest.fixture
def openbsd(bare):
    bare.write("etc/passwd", PASSWD)
    return bare.become("", OPENBSD)


LINUX_ONLY = {
    "unit_directory",
    "read_package_lock",
    "read_firewall",
    "set_firewall",
    "persist_firewall",
    "remove_firewall",
}


@pytest.mark.parametrize("kernel", [FREEBSD, OPENBSD])
def test_nothing_of_linux_answers_there(bare, kernel):
    bare.become("", kernel)
    plugins = {one.plugin for hook in bare.registry.traits for one in bare.registry.implementations(hook)}
    assert plugins == {"posix", kernel[0].lower()}
    operations = {name for name, traits in bare.registry.traits.items() if traits.kind == "operation"}
    unanswered = {name for name in operations if not bare.registry.implementations(name)}
    allowed = LINUX_ONLY | ({"dhcp_lease_endpoint"} if kernel is FREEBSD else set())
    assert unanswered == allowed


# ---- FreeBSD ----


def test_freebsd_accounts(freebsd):
    for command in ("pw", "rmuser", "touch", "visudo"):
        freebsd.answer(command)
    distro = freebsd.distro
    distro.create_user("bob", "JIT_Account", "2030-01-31")
    distro.create_user("amy")
    distro.set_password("amy", "secret")
    distro.configure_sudo("amy", True)
    distro.lock_root_password()
    distro.delete_user("amy")
    assert freebsd.commands()[0] == "pw useradd bob -e 31-01-2030 -m -c JIT_Account"
    assert freebsd.commands()[1] == "pw usermod amy -H 0"
    assert freebsd.inputs[1].startswith(b"$6$")
    assert "secret" not in " ".join(freebsd.commands())
    assert "pw usermod root -h -" in freebsd.commands()
    assert freebsd.commands()[-1] == "rmuser -y amy"
    assert not (freebsd.root / "usr/local/etc/sudoers.d/waagent").exists()
    assert not (freebsd.root / "etc/sudoers.d").exists()
    for call in (lambda: distro.set_password("_ntp", "x"), lambda: distro.delete_user("_ntp")):
        with pytest.raises(NoAnswer, match="_ntp is a system user"):
            call()


def test_freebsd_sudo_is_where_the_package_looks(freebsd):
    freebsd.answer("visudo")
    freebsd.distro.configure_sudo("amy", False)
    assert freebsd.read("usr/local/etc/sudoers.d/waagent") == "amy ALL=(ALL) NOPASSWD: ALL\n"


def test_freebsd_services_and_places(freebsd):
    for command in ("service", "sysrc"):
        freebsd.answer(command)
    program = freebsd.write("usr/local/sbin/waagent", "", 0o755)
    distro = freebsd.distro
    assert distro.configuration_path() == freebsd.at("/usr/local/etc/waagent.conf")
    assert distro.binary_directory() == freebsd.at("/usr/local/sbin")
    distro.register_service(str(program))
    distro.restart_ssh()
    assert f"{program} -daemon" in freebsd.read("usr/local/etc/rc.d/waagent")
    distro.unregister_service()
    distro.unregister_service()
    assert freebsd.commands() == [
        "sysrc waagent_enable=YES", "service waagent restart", "service sshd restart", "service waagent stop",
        "sysrc waagent_enable=NO",
    ]  # fmt: skip
    with pytest.raises(NoAnswer, match=r"rc\.d cannot mask"):
        distro.service_action("waagent", "mask")


NETSTAT = """Routing tables

Internet:
Destination        Gateway            Flags     Netif Expire
default            10.0.0.1           UGS         hn0
10.0.0.0/24        link#2             U           hn0
10.0.0.4           link#2             UHS         lo0
127.0.0.1          link#1             UH          lo0
"""


def test_freebsd_network(freebsd):
    freebsd.answer("ifconfig -l ether", "hn0 hn1\n")
    freebsd.answer("netstat", NETSTAT)
    freebsd.answer("pgrep", "812\n77\n")
    freebsd.answer("/etc/rc.d/dhclient")
    freebsd.answer("hostname")
    freebsd.answer("route", (1, "add net 10.1.0.0: gateway 10.0.0.1: route already in table\n", ""))
    freebsd.answer("route delete", (77, "", "route: route has not been found: not in table\n"))
    freebsd.write("etc/rc.conf", 'sshd_enable="YES"\nhostname="old"\n')
    freebsd.write("etc/dhclient.conf", 'send host-name "old";\n')
    distro = freebsd.distro
    assert distro.find_primary_interface() == "hn0"
    assert distro.is_default_route_missing() is False
    assert distro.find_dhcp_processes() == (77, 812)
    distro.set_hostname("web1")
    assert distro.publish_hostname("web1") is True
    distro.add_route("10.1.0.0", 16, "10.0.0.1", "hn0")
    distro.add_broadcast_route("hn0")
    distro.delete_broadcast_route("hn0")
    assert freebsd.read("etc/rc.conf") == 'sshd_enable="YES"\nhostname="web1"\n'
    assert freebsd.read("etc/dhclient.conf") == 'send host-name "web1";\n'
    changing = [line for line in freebsd.commands() if not line.startswith(("ifconfig", "netstat", "pgrep"))]
    assert changing == [
        "hostname web1", "/etc/rc.d/dhclient restart hn0", "route add -net 10.1.0.0/16 10.0.0.1",
        "route add 255.255.255.255 -iface hn0", "route delete 255.255.255.255 -iface hn0",
    ]  # fmt: skip
    freebsd.answer("route", (1, "", "route: writing to routing socket: Network is unreachable\n"))
    with pytest.raises(NoAnswer, match="Network is unreachable"):
        distro.add_route("10.1.0.0", 16, "10.9.0.1", "hn0")


@pytest.mark.parametrize(
    ("version", "shown"),
    [("2.3", "544cdfd0-cb4e-4b4a-9954-5bdf3ed5c3b8"), ("3.1", "d0df4c54-4ecb-4a4b-9954-5bdf3ed5c3b8")],
)
def test_freebsd_identity(freebsd, version, shown):
    freebsd.answer("kenv -q smbios.system.uuid", shown + "\n")
    freebsd.answer("kenv -q smbios.version", version + "\n")
    freebsd.answer("sysctl -n hw.physmem hw.ncpu", "4252983296\n2\n")
    assert freebsd.distro.read_vm_id() == "D0DF4C54-4ECB-4A4B-9954-5BDF3ED5C3B8"
    assert freebsd.distro.read_machine()["memory_mib"] == 4055
    assert freebsd.distro.read_machine()["processors"] == 2


FREEBSD_MOUNTS = "/dev/da0p2 on / (ufs, local, journaled soft-updates)\ndevfs on /dev (devfs)\n"


def test_freebsd_media(freebsd):
    freebsd.write("dev/cd0", "")
    freebsd.answer("mount", FREEBSD_MOUNTS)
    freebsd.answer("mount -o", lambda command, _d: int("udf" in command))
    freebsd.answer("cdcontrol")
    distro = freebsd.distro
    device = distro.find_provisioning_media()
    assert device == freebsd.at("/dev/cd0")
    distro.mount_provisioning_media(device, "/mnt/cdrom")
    freebsd.answer("mount", FREEBSD_MOUNTS + f"{device} on /mnt/cdrom (cd9660, local, read-only)\n")
    distro.mount_provisioning_media(device, "/mnt/cdrom")
    freebsd.answer("umount")
    distro.unmount_provisioning_media("/mnt/cdrom")
    distro.eject_provisioning_media(device)
    assert [line for line in freebsd.commands() if line != "mount"] == [
        f"mount -o ro,nosuid,noexec -t udf {device} /mnt/cdrom",
        f"mount -o ro,nosuid,noexec -t cd9660 {device} /mnt/cdrom",
        "umount /mnt/cdrom", f"cdcontrol -f {device} eject",
    ]  # fmt: skip


STORVSC = """dev.storvsc.1.%parent: vmbus0
dev.storvsc.1.%pnpinfo: classid=32412632-86cb-44a2-9b5c-50d1417354f5 deviceid=00000000-0001-8899-0000-000000000000
dev.storvsc.0.%pnpinfo: classid=32412632-86cb-44a2-9b5c-50d1417354f5 deviceid=00000000-0000-8899-0000-000000000000
"""
DEVLIST = """scbus0 on storvsc0 bus 0:
<Msft Virtual Disk 1.0>            at scbus0 target 0 lun 0 (pass0,da0)
<>                                 at scbus0 target -1 lun ffffffff ()
scbus1 on storvsc1 bus 0:
<Msft Virtual Disk 1.0>            at scbus1 target 1 lun 0 (pass1,da1)
<>                                 at scbus1 target -1 lun ffffffff ()
scbus-1 on xpt0 bus 0:
"""
GPART = """Geom name: da1
modified: false
state: OK
fwheads: 255
fwsectors: 63
last: 33554431
first: 63
entries: 4
scheme: MBR
Providers:
1. Name: da1s1
   Mediasize: 17177772032 (16G)
   Sectorsize: 512
   Mode: r0w0e0
   rawtype: 7
   length: 17177772032
   index: 1
   type: ntfs
   end: 33552383
   start: 128
Consumers:
1. Name: da1
   Mediasize: 17179869184 (16G)
   Sectorsize: 512
   Mode: r0w0e0
"""


def test_freebsd_resource_disk(freebsd):
    freebsd.answer("sysctl dev.storvsc", STORVSC)
    freebsd.answer("camcontrol devlist -v", DEVLIST)
    freebsd.answer("gpart list da1", GPART)
    freebsd.answer("diskinfo", "da1\t512\t17179869184\t33554432\t0\t0\n")
    freebsd.answer("fstyp", "ntfs\n")
    freebsd.answer("mount", FREEBSD_MOUNTS)
    freebsd.answer("mount -t")
    freebsd.answer("newfs")
    distro = freebsd.distro
    device = distro.find_resource_disk()
    assert device == freebsd.at("/dev/da1")
    facts = distro.read_resource_disk(device)
    assert (facts["table"], facts["size"], facts["mounted"]) == ("mbr", 17179869184, None)
    assert [(one["device"], one["type"], one["filesystem"]) for one in facts["partitions"]] == [
        (device + "s1", "7", "ntfs")
    ]
    assert distro.format_resource_disk(device, "ufs") == device + "s1"
    distro.mount_resource_disk(device + "s1", freebsd.at("/mnt/resource"))
    lines = [line for line in freebsd.commands() if line.startswith(("newfs", "mount -t"))]
    assert lines == [f"newfs -U {device}s1", f"mount -t ufs {device}s1 {freebsd.at('/mnt/resource')}"]
    with pytest.raises(NoAnswer, match="takes ufs, not ext4"):
        distro.format_resource_disk(device, "ext4")
    freebsd.answer("mount", FREEBSD_MOUNTS + f"{device}s1 on /mnt/resource (ufs, local)\n")
    with pytest.raises(NoAnswer, match="is not formatted: mounted /mnt/resource"):
        distro.format_resource_disk(device, "ufs")


def test_freebsd_finds_the_disk_by_its_place_too(freebsd):
    freebsd.answer("camcontrol periphlist 3:1:0", "da1: generation: 7 index: 1 status: MORE\npass1: generation: 7\n")
    assert freebsd.distro.find_resource_disk() == freebsd.at("/dev/da1")
    freebsd.answer("camcontrol", 1)
    assert freebsd.distro.find_resource_disk() == ""


def test_freebsd_swap_takes_one_memory_disk_however_often_it_is_asked(freebsd):
    path = freebsd.root / "swapfile"
    units = []
    freebsd.answer("mdconfig -a", lambda command, _d: units.append(command[-1]) or "md0\n")
    freebsd.answer("mdconfig -l", lambda _c, _d: "".join(f"md0\tvnode\t1024K\t{one}\t-\n" for one in units))
    active = []
    freebsd.answer("swapon", lambda command, _d: active.append(command[-1]) or 0)
    freebsd.answer(
        "swapctl -l",
        lambda _c, _d: "Device: 1K-blocks Used:\n" + "".join(f"{one} 1 0\n" for one in active),
    )
    for _ in range(3):
        assert freebsd.distro.enable_swap(str(path), 1) is True
    assert units == [str(path)]
    assert active == ["/dev/md0"]
    assert path.stat().st_size == 1 << 20
    assert path.stat().st_mode & 0o777 == 0o600
    freebsd.answer("swapoff", lambda command, _d: active.remove(command[-1]) or 0)
    freebsd.answer("mdconfig -d", lambda _c, _d: units.clear() or 0)
    assert freebsd.distro.enable_swap(str(path), 2) is True
    assert path.stat().st_size == 2 << 20
    assert active == ["/dev/md0"]
    freebsd.answer("swapoff", (1, "", "swapoff: /dev/md0: Cannot allocate memory\n"))
    with pytest.raises(NoAnswer, match="Cannot allocate memory"):
        freebsd.distro.enable_swap(str(path), 3)
    assert (path.stat().st_size, active, units) == (2 << 20, ["/dev/md0"], [str(path)])
    with pytest.raises(NoAnswer, match="do not fit"):
        freebsd.distro.enable_swap(str(path) + "2", 1 << 30)
    freebsd.answer("sysctl")
    freebsd.distro.set_scsi_timeout(300)
    assert freebsd.commands()[-1] == "sysctl kern.cam.da.default_timeout=300"


def test_freebsd_swap_is_encrypted_with_a_key_that_nobody_knows(freebsd):
    path = freebsd.root / "swapfile"
    freebsd.write("etc/waagent.conf", "ResourceDisk.EnableSwapEncryption=y\n")
    active = ["/dev/md0"]  # in use without encryption, from before the option was set
    freebsd.write("swapfile", bytes(1 << 20))
    freebsd.answer("mdconfig -l", f"md0\tvnode\t1024K\t{path}\t-\n")
    freebsd.answer("swapctl -l", lambda _c, _d: "Device: 1K-blocks Used:\n" + "".join(f"{one} 1 0\n" for one in active))
    freebsd.answer("swapoff", lambda command, _d: active.remove(command[-1]) or 0)
    freebsd.answer("swapon", lambda command, _d: active.append(command[-1]) or 0)
    freebsd.answer("kldload", (1, "", "kldload: can't load aesni: module already loaded or in kernel\n"))
    freebsd.answer("geli", lambda command, _d: freebsd.write(command[-1] + ".eli", "") and 0)
    for _ in range(2):
        assert freebsd.distro.enable_swap(str(path), 1) is True
    assert active == ["/dev/md0.eli"]
    changes = [line for line in freebsd.commands() if " -l" not in line or "geli" in line]
    assert changes == [
        "swapoff /dev/md0",
        "kldload -n aesni cryptodev geom_eli",
        "geli onetime -e AES-XTS -l 256 -d /dev/md0",
        "swapon /dev/md0.eli",
    ]


# ---- OpenBSD ----


def test_openbsd_accounts(openbsd):
    for command in ("useradd", "userdel", "usermod", "doas"):
        openbsd.answer(command)
    openbsd.answer("encrypt", "$2b$10$abcdefghijklmnopqrstuv\n")
    distro = openbsd.distro
    distro.create_user("bob")
    distro.set_password("amy", "secret")
    distro.lock_root_password()
    distro.configure_sudo("amy", True)
    distro.configure_sudo("bob", False)
    assert openbsd.read("etc/doas.conf") == (
        "permit keepenv nopass root\npermit keepenv persist amy\npermit keepenv nopass bob\n"
    )
    distro.configure_sudo("bob", True)
    distro.delete_user("amy")
    assert openbsd.read("etc/doas.conf") == "permit keepenv nopass root\npermit keepenv persist bob\n"
    assert [line for line in openbsd.commands() if not line.startswith("doas")] == [
        "useradd -m bob", "encrypt", "usermod -p $2b$10$abcdefghijklmnopqrstuv amy", "usermod -p * root",
        "userdel -r amy",
    ]  # fmt: skip
    openbsd.answer("doas", (1, "", "doas: syntax error at line 3\n"))
    with pytest.raises(NoAnswer, match=r"doas does not accept.*syntax error"):
        distro.configure_sudo("amy", True)
    assert "amy" not in openbsd.read("etc/doas.conf")
    with pytest.raises(NoAnswer, match="_ntp is a system user"):
        distro.set_password("_ntp", "x")


def test_openbsd_services(openbsd):
    openbsd.answer("rcctl")
    program = openbsd.write("usr/local/sbin/waagent", "", 0o755)
    openbsd.distro.register_service(str(program))
    openbsd.distro.restart_ssh()
    openbsd.distro.unregister_service()
    assert openbsd.commands() == [
        "rcctl enable waagent", "rcctl restart waagent", "rcctl restart sshd", "rcctl stop waagent",
        "rcctl disable waagent",
    ]  # fmt: skip
    assert not (openbsd.root / "etc/rc.d/waagent").exists()
    with pytest.raises(NoAnswer, match="rcctl cannot mask"):
        openbsd.distro.service_action("x", "mask")


IFCONFIG = "hvn0: flags=808843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST,AUTOCONF4> mtu 1500\n\tlladdr 00:0d:3a:00:00:01\n"
LEASE = 'lease {\n  interface "hvn0";\n  option option-245 a8:3f:81:10;\n  expire 5 2099/01/01 00:00:00 UTC;\n}\n'


def test_openbsd_network(openbsd):
    openbsd.answer("ifconfig hvn", IFCONFIG)
    openbsd.answer("route -n get default", 0)
    for command in ("hostname", "/sbin/dhclient", "route add", "route delete"):
        openbsd.answer(command)
    openbsd.write("var/db/dhclient.leases.hvn0", LEASE)
    distro = openbsd.distro
    assert distro.find_primary_interface() == "hvn0"
    assert distro.is_default_route_missing() is False
    assert distro.dhcp_lease_endpoint() == "168.63.129.16"
    distro.set_hostname("web1")
    distro.publish_hostname("web1")
    distro.add_route("10.1.0.0", 16, "10.0.0.1", "hvn0")
    assert openbsd.read("etc/myname") == "web1\n"
    assert "/sbin/dhclient hvn0" in openbsd.commands()
    assert openbsd.commands()[-1] == "route add -net 10.1.0.0/16 10.0.0.1"
    openbsd.answer("sysctl -n hw.uuid", "d0df4c54-4ecb-4a4b-9954-5bdf3ed5c3b8\n")
    assert distro.read_vm_id() == "D0DF4C54-4ECB-4A4B-9954-5BDF3ED5C3B8"
    assert distro.set_scsi_timeout(300) is True


OPENBSD_MOUNTS = "/dev/sd0a on / type ffs (local)\n/dev/sd0e on /home type ffs (local, nodev, nosuid)\n"
FDISK = "Disk: wd1\tgeometry: 1044/255/63 [16777216 Sectors]\nOffset: 0\tSignature: 0xAA55\n"
DISKLABEL = """# /dev/rwd1c:
type: ESDI
16 partitions:
#                size           offset  fstype [fsize bsize   cpg]
  c:         33554432                0  unused
  i:         33550336              128    NTFS
"""


def test_openbsd_disk_and_media(openbsd):
    openbsd.write("dev/cd0a", "")
    openbsd.write("dev/cd0c", "")
    openbsd.answer("mount", OPENBSD_MOUNTS)
    openbsd.answer("mount -o")
    openbsd.answer("cdio")
    openbsd.answer("sysctl -n hw.disknames", "sd0:0123456789abcdef,cd0:,wd1:,fd0:\n")
    openbsd.answer("fdisk", FDISK)
    openbsd.answer("disklabel", DISKLABEL)
    openbsd.answer("newfs")
    distro = openbsd.distro
    media = distro.find_provisioning_media()
    assert media == openbsd.at("/dev/cd0c")
    distro.mount_provisioning_media(media, "/mnt/cdrom")
    distro.eject_provisioning_media(media)
    assert openbsd.commands()[-2:] == [f"mount -o ro,nosuid,noexec -t udf {media} /mnt/cdrom", "cdio -f cd0 eject"]
    device = distro.find_resource_disk()
    assert device == openbsd.at("/dev/wd1")
    facts = distro.read_resource_disk(device)
    assert (facts["table"], facts["size"]) == ("mbr", 33554432 * 512)
    assert [(one["device"], one["filesystem"]) for one in facts["partitions"]] == [(device + "i", "ntfs")]
    openbsd.write("etc/waagent.conf", "ResourceDisk.EnableSwap=y\nResourceDisk.SwapSizeMB=999999\n")
    assert distro.format_resource_disk(device, "ufs2") == device + "a"
    assert [line for line in openbsd.commands() if line.split()[0] in ("fdisk", "newfs")][-2:] == [
        "fdisk -yi wd1", "newfs -O2 wd1a",
    ]  # fmt: skip
    assert openbsd.inputs[-2] == b"/mnt/resource 1G-* 50%\nswap 1-524288M 50%\n"
    openbsd.write("etc/waagent.conf", "ResourceDisk.MountPoint=/scratch\nResourceDisk.SwapSizeMB=1024\n")
    distro.format_resource_disk(device, "ufs")
    assert openbsd.inputs[-2] == b"/scratch 1G-* 100%\n"
    openbsd.answer("mount", OPENBSD_MOUNTS + f"{device}a on /mnt/resource type ffs (local)\n")
    active = []
    openbsd.answer("swapctl -a", lambda command, _d: active.append(command[-1]) or 0)
    openbsd.answer("swapctl -l", lambda _c, _d: "Device 512-blocks Used\n" + "".join(f"{one} 1 0\n" for one in active))
    for _ in range(2):
        assert distro.enable_swap("/mnt/resource/swapfile", 65536) is True
    assert active == [device + "b"]
    with pytest.raises(NoAnswer, match="no disk with a swap partition"):
        distro.enable_swap("/home/swapfile", 1)


@pytest.mark.parametrize("kernel", [FREEBSD, OPENBSD])
def test_what_needs_no_command_is_the_same_code(bare, kernel):
    import os

    bare.write("etc/passwd", f"amy:*:{os.getuid()}:{os.getgid()}::/home/amy:/bin/sh\n")
    (bare.root / "home/amy").mkdir(parents=True)
    bare.write("etc/ssh/sshd_config", "Port 22\n")
    bare.write("etc/resolv.conf", "")
    distro = bare.become("", kernel).distro
    distro.deploy_ssh_key("amy", "/home/amy/.ssh/authorized_keys", KEY)
    distro.configure_sshd(password_authentication=False)
    assert "PasswordAuthentication no" in bare.read("etc/ssh/sshd_config")
    assert bare.read("home/amy/.ssh/authorized_keys") == KEY + "\n"
    assert distro.find_resolver_files() == (bare.at("/etc/resolv.conf"),)
    for operation in ("stop_dhcp", "start_dhcp", "open_dhcp_port", "close_dhcp_port", "move_persistent_net_rules"):
        assert getattr(distro, operation)() is True
    assert distro.must_pause_dhcp() is False
    assert distro.restore_persistent_net_rules() is True
    assert distro.supports_remote_access() is True
    assert distro.service_name() == "waagent"
    assert bare.commands() == []
