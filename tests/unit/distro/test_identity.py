"""What the machine is, who holds the package lock, and udev's names of interfaces."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys

import pytest

STORED, MEANT = "544CDFD0-CB4E-4B4A-9954-5BDF3ED5C3B8", "D0DF4C54-4ECB-4A4B-9954-5BDF3ED5C3B8"


def entry_point(version):
    major, minor = version
    if major >= 3:
        return b"_SM3_" + bytes([0, 24, major, minor, 0, 1, 0]) + bytes(12)
    return b"_SM_" + bytes([0, 31, major, minor]) + bytes(23)


@pytest.mark.parametrize(
    ("version", "shown", "found"),
    [((2, 3), STORED, MEANT), ((2, 6), MEANT, MEANT), ((3, 1), MEANT, MEANT), ((2, 10), MEANT.lower(), MEANT)],
)
def test_the_id_is_the_platforms_whatever_the_firmware_is(machine, version, shown, found):
    machine.write("sys/class/dmi/id/product_uuid", shown.lower() + "\n")
    machine.write("sys/firmware/dmi/tables/smbios_entry_point", entry_point(version))
    assert machine.distro.read_vm_id() == found


@pytest.mark.parametrize(("efi", "shown"), [(True, MEANT), (False, STORED)])
def test_where_the_version_is_not_told_the_generation_decides(machine, efi, shown):
    machine.write("sys/class/dmi/id/product_uuid", shown)
    if efi:
        (machine.root / "sys/firmware/efi").mkdir(parents=True)
    assert machine.distro.read_vm_id() == MEANT


def test_dmidecode_is_asked_where_the_kernel_does_not_tell(machine):
    machine.answer("dmidecode", STORED + "\n")
    assert machine.distro.read_vm_id() == MEANT
    machine.answer("dmidecode", "Not Settable\n")
    assert machine.distro.read_vm_id() == ""


def test_the_size_of_the_machine(machine):
    found = machine.distro.read_machine()
    assert found["processors"] == os.cpu_count()
    assert found["architecture"] == os.uname().machine
    assert 64 < found["memory_mib"] < 1 << 30


@pytest.mark.parametrize("query", ["dpkg-query --search {}", "rpm -qf {}", "pacman -Qo {}", "apk info --who-owns {}"])
def test_a_resolver_file_that_a_package_owns_is_kept(machine, query):
    path = machine.write("etc/resolv.conf", "# from the package\n")
    machine.answer(query.split()[0], (1, "", "nobody owns it"))
    assert machine.distro.find_resolver_files() == (str(path),)
    machine.answer(query.format(path), "filesystem\n")
    assert machine.distro.find_resolver_files() == ()


def test_resolver_files(machine):
    assert machine.distro.find_resolver_files() == ()
    path = machine.write("etc/resolv.conf", "")
    assert machine.distro.find_resolver_files() == (str(path),)
    path.unlink()
    path.symlink_to("/run/systemd/resolve/stub-resolv.conf")
    assert machine.distro.find_resolver_files() == ()
    path.unlink()
    machine.write("etc/target", "")
    path.symlink_to("target")
    assert machine.distro.find_resolver_files() == ()


HOLDER = """
import fcntl, sys
stream = open(sys.argv[1], "w")
(fcntl.lockf if sys.argv[2] == "record" else fcntl.flock)(stream, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("var/lib/dpkg/lock-frontend", "record"),
        ("usr/lib/sysimage/rpm/.rpm.lock", "record"),
        ("lib/apk/db/lock", "whole"),
    ],
)
def test_who_holds_the_package_lock(machine, path, kind):
    lock = machine.write(path, "")
    assert machine.distro.read_package_lock() == ""
    command = [sys.executable, "-c", HOLDER, str(lock), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"locked\n"
        machine.write(f"proc/{holder.pid}/comm", "apt-get\n")
        with open("/proc/locks") as locks:
            machine.write("proc/locks", locks.read())
        assert machine.distro.read_package_lock() == f"apt-get ({holder.pid}), /{path}"
        with open(lock, "a") as stream:  # asking took no lock that would be in the way
            if kind == "record":
                with pytest.raises(OSError):
                    fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder.stdin.close()
    machine.write("proc/locks", "")
    assert machine.distro.read_package_lock() == ""


def test_locks_that_are_a_process_id_or_a_file(machine):
    machine.write("run/zypp.pid", "77\n")
    assert machine.distro.read_package_lock() == ""  # left behind
    machine.write("proc/77/comm", "zypper\n")
    assert machine.distro.read_package_lock() == "zypper (77), /run/zypp.pid"
    machine.write("run/zypp.pid", "")
    machine.write("var/lib/pacman/db.lck", "")
    assert machine.distro.read_package_lock() == "somebody, /var/lib/pacman/db.lck"


def test_udevs_names_of_interfaces_go_and_come_back(machine):
    generator = machine.write("lib/udev/rules.d/75-persistent-net-generator.rules", "generator")
    rules = machine.write("etc/udev/rules.d/70-persistent-net.rules", "rules")
    for _ in range(2):
        assert machine.distro.move_persistent_net_rules() is True
    assert not generator.exists()
    assert not rules.exists()
    assert machine.read("var/lib/waagent/70-persistent-net.rules") == "rules"
    assert sum("Move rules file" in line for line in machine.lines) == 2
    rules.write_text("written again")
    assert machine.distro.restore_persistent_net_rules() is True
    assert generator.read_text() == "generator"
    assert rules.read_text() == "written again"


def test_rules_that_an_administrator_masked_stay_masked(machine):
    path = machine.root / "etc/udev/rules.d/70-persistent-net.rules"
    path.parent.mkdir(parents=True)
    path.symlink_to("/dev/null")
    assert machine.distro.move_persistent_net_rules() is True
    assert path.is_symlink()
