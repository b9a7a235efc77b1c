"""Host name, network, firewall, service and disks on a real system, each in a namespace that is gone afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.system.distro.conftest import DRIVER
from waagent_distro.steps import servicefiles

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

LINK = """
ip link add eth0 type veth peer name eth1
ip link set eth1 up
ip link set eth0 up
ip addr add 10.9.0.4/24 dev eth0
"""


def test_the_host_name_is_the_kernels_and_the_next_boots(cell):
    before = os.uname().nodename
    assert cell.operation("set_hostname", hostname="web1.example") is True
    assert cell.run("hostname").stdout == "web1.example\n"
    assert cell.read("/etc/hostname") == "web1.example\n"
    assert os.uname().nodename == before


def test_routes_in_a_network_of_their_own(cell):
    answers = cell.operations(
        ("is_default_route_missing", {}),
        ("find_primary_interface", {}),
        *[("add_route", {"network": "10.20.0.0", "prefix": 16, "gateway": "10.9.0.1", "interface": "eth0"})] * 2,
        ("add_route", {"network": "0.0.0.0", "prefix": 0, "gateway": "10.9.0.1", "interface": "eth0"}),
        *[("add_broadcast_route", {"interface": "eth0"})] * 2,
        ("is_default_route_missing", {}),
        ("find_primary_interface", {}),
        *[("delete_broadcast_route", {"interface": "eth0"})] * 2,
        ("restart_interface", {"interface": "eth0"}),
        before=LINK,
        alone=True,
    )
    assert answers[0] is True
    assert answers[2:7] == [True] * 5
    assert answers[7:9] == [False, "eth0"]
    assert answers[9:11] == [True, True]
    # Down and up loses the route on an interface that nothing manages: that is said, and not taken for success.
    assert "did not come back" in answers[11]["error"]


@pytest.mark.parametrize("tool", ["iptables", "nft"])
def test_the_firewall_of_this_kernel(cell, tool):
    probes = {"iptables": "iptables -w -t security -S OUTPUT", "nft": "nft add table ip probe"}
    if cell.run("sh", "-c", probes[tool], alone=True, check=False).returncode:
        pytest.skip(f"this kernel has no {tool} table of that kind")
    hide = "mount -t tmpfs tmpfs /usr/local/sbin; "
    if tool == "nft":
        hide += "for each in /usr/sbin/iptables*; do mount --bind /bin/false $each; done; "
    rule = {"endpoint": "168.63.129.16", "uid": 0}
    answers = cell.operations(
        ("read_firewall", rule), ("set_firewall", rule), ("read_firewall", rule), ("set_firewall", rule),
        ("read_firewall", rule), ("read_firewall", {"endpoint": "168.63.129.16", "uid": 7}),
        ("remove_firewall", rule), ("read_firewall", rule), ("remove_firewall", rule),
        before=f"unshare --mount true; {hide if tool == 'nft' else ''}", alone=True,
    )  # fmt: skip
    if tool == "nft":
        cell.shell("for each in /usr/sbin/iptables*; do umount $each || true; done; umount /usr/local/sbin")
    assert answers[:5] == ["absent", True, "present", True, "present"]
    assert answers[5] not in ("present", "absent")
    assert answers[6:] == [True, "absent", True]


def test_a_program_becomes_a_service_and_stops_being_one(cell):
    cell.write("/opt/agent/waagent", '#!/bin/sh\necho "$@" > /run/agent-ran\nexec sleep 300\n')
    cell.run("chmod", "0755", "/opt/agent/waagent")
    cell.run("rm", "-f", "/etc/init.d/walinuxagent")
    assert cell.operation("register_service", program="/opt/agent/waagent") is True
    running = "for try in $(seq 100); do pgrep -f '^sleep 300' && exit 0; sleep 0.1; done; exit 1"
    assert cell.shell(running).strip().isdigit()
    assert cell.read("/run/agent-ran") == "-daemon\n"
    assert "S" in cell.shell("ls /etc/rc2.d | grep walinuxagent")
    assert cell.operation("unregister_service") is True
    assert cell.run("pgrep", "-f", "^sleep 300", check=False).returncode == 1
    assert cell.run("test", "-e", "/etc/init.d/walinuxagent", check=False).returncode == 1


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_unit(tmp_path):
    program = tmp_path / "some where" / "waagent"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "waagent.service"
    unit.write_text(servicefiles.unit(str(program), "waagent"))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    complaints = [line for line in done.stderr.splitlines() if "waagent.service" in line]
    assert complaints == []


# ---- Disks ----


class Loop:
    """A loop device over a file in the cell, detached at the end whatever happened."""

    def __init__(self, cell, size="400M"):
        self.cell = cell
        self.point = "/mnt/waagent-test"
        script = 'file=$(mktemp /run/disk.XXXXXX); truncate -s "$1" $file; losetup --find --show $file'
        done = cell.run("sh", "-ec", script, "sh", size, check=False)
        if done.returncode:
            pytest.skip(f"no loop device: {done.stderr.strip()}")
        self.device = done.stdout.strip()

    def table(self, script):
        self.cell.run("sfdisk", "--quiet", self.device, data=script)
        self.cell.run("partx", "--update", self.device)  # the kernel may know nothing of such tables

    def facts(self):
        return self.cell.operation("read_resource_disk", device=self.device)

    def close(self):
        undo = (("swapoff", self.point + "/swapfile"), ("umount", self.point), ("partx", "--delete", self.device))
        for command in undo:
            self.cell.run(*command, check=False)
        self.cell.shell('losetup --detach "$1"; rm -f /run/disk.*', self.device)


@pytest.fixture
def loop(cell):
    found = Loop(cell)
    yield found
    found.close()


def test_a_disk_fresh_from_the_platform_becomes_usable(cell, loop):
    loop.table("label: dos\nstart=1MiB, type=7\n")
    cell.run("mkntfs", "--quick", "--quiet", loop.device + "p1")
    facts = loop.facts()
    (ntfs,) = facts["partitions"]
    assert (facts["table"], facts["blank"], facts["mounted"], facts["holders"]) == ("mbr", False, None, [])
    assert facts["size"] == 400 << 20
    assert (ntfs["device"], ntfs["type"], ntfs["filesystem"]) == (loop.device + "p1", "7", "ntfs")
    assert ntfs["contents"] in ([], None)
    assert ntfs["problem"] == ""
    partition = cell.operation("format_resource_disk", device=loop.device, filesystem="ext4")
    assert partition == loop.device + "p1"
    for _ in range(2):
        arguments = {"partition": partition, "mount_point": loop.point, "options": "noatime"}
        assert cell.operation("mount_resource_disk", **arguments) is True
    facts = loop.facts()
    (ext4,) = facts["partitions"]
    assert (ext4["type"], ext4["filesystem"], ext4["label"]) == ("83", "ext4", "azure-resource")
    assert facts["mounted"] == loop.point
    refused = cell.operation("format_resource_disk", device=loop.device, filesystem="ext4")
    assert f"is not formatted: mounted {loop.point}" in refused["error"]


@pytest.mark.parametrize(
    ("filesystem", "label"), [("ext4", "azure-resource"), ("xfs", "azure-res"), ("btrfs", "azure-resource")]
)
def test_each_file_system_and_swap_on_it(cell, loop, filesystem, label):
    if filesystem not in cell.read("/proc/filesystems").split():
        pytest.skip(f"this kernel has no {filesystem}")
    assert loop.facts()["blank"] is True
    partition = cell.operation("format_resource_disk", device=loop.device, filesystem=filesystem)
    assert loop.facts()["partitions"][0]["label"] == label
    cell.operation("mount_resource_disk", partition=partition, mount_point=loop.point)
    path = loop.point + "/swapfile"
    before = cell.read("/proc/swaps")
    for size in (5, 5, 7, 3):
        answer = cell.operation("enable_swap", path=path, size_mib=size)
        assert answer is True, answer
        assert cell.run("stat", "-c", "%s %a", path).stdout == f"{size << 20} 600\n"
        assert sum("swapfile" in line for line in cell.read("/proc/swaps").splitlines()) == 1
        assert cell.shell(f"ls -A {loop.point} | grep swap") == "swapfile\n"
    assert loop.facts()["mounted"] == loop.point
    cell.run("swapoff", path)
    assert cell.read("/proc/swaps") == before


def test_a_gpt_disk_with_a_reserved_partition_gets_one(cell, loop):
    reserved, basic = "E3C9E316-0B5C-4DB8-817D-F92DF00215AE", "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
    loop.table(f"label: gpt\nstart=1MiB, size=16MiB, type={reserved}\ntype={basic}\n")
    facts = loop.facts()
    assert [one["type"] for one in facts["partitions"]] == [reserved.lower(), basic.lower()]
    assert cell.operation("format_resource_disk", device=loop.device, filesystem="ext4") == loop.device + "p1"
    facts = loop.facts()
    assert facts["table"] == "gpt"
    assert [one["filesystem"] for one in facts["partitions"]] == ["ext4"]


def test_files_survive_mounts_with_bad_options_and_other_wishes(cell, loop):
    partition = cell.operation("format_resource_disk", device=loop.device, filesystem="ext4")
    for options in (None, "compress=lzo", "no-such-option"):
        arguments = {"partition": partition, "mount_point": loop.point, "options": options}
        assert cell.operation("mount_resource_disk", **arguments) is True
        cell.shell(f"echo kept >> {loop.point}/file; umount {loop.point}")
    cell.operation("mount_resource_disk", partition=partition, mount_point=loop.point)
    assert cell.read(loop.point + "/file") == "kept\n" * 3


def test_a_disk_that_somebody_locks_is_left_alone(cell, loop):
    script = 'exec 9<"$1"; flock -x 9; exec "$2" -c "$3"'
    calls = [("format_resource_disk", {"device": loop.device, "filesystem": "ext4"})]
    done = cell.run("sh", "-ec", script, "sh", loop.device, sys.executable, DRIVER, data=json.dumps(calls))
    assert "somebody holds its lock" in json.loads(done.stdout)[0]["error"]
    assert loop.facts()["blank"] is True
