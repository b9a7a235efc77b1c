"""Host name, network, firewall and service on a real system, each in a namespace that is gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

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


HOSTNAMED = """
mkdir -p /run/dbus /run/systemd/system
dbus-daemon --system --fork --nopidfile --print-pid > /run/started
/lib/systemd/systemd-hostnamed > /run/hostnamed.log 2>&1 &
echo $! >> /run/started
for try in $(seq 100); do hostnamectl --static > /dev/null 2>&1 && break; sleep 0.1; done
hostnamectl --static > /dev/null
"""


def test_the_host_name_through_systemds_own_service(cell):
    for program in ("dbus-daemon", "hostnamectl", "/lib/systemd/systemd-hostnamed"):
        if not cell.has(program):
            pytest.skip(f"needs {program}")
    try:
        if cell.run("sh", "-ec", HOSTNAMED, check=False).returncode:
            pytest.skip("systemd-hostnamed does not run here")
        for name in ("Web2.example", "web-3"):
            assert cell.operation("set_hostname", hostname=name) is True
            assert cell.run("hostname").stdout == f"{name}\n"
            assert cell.read("/etc/hostname") == f"{name}\n"
            assert f"Hostname set to <{name}> (static)" in cell.read("/run/hostnamed.log"), "nobody else wrote it"
    finally:
        cell.shell("kill $(cat /run/started) || true; rmdir /run/systemd/system")


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
        ("is_default_route_missing", {}),
        ("find_primary_interface", {}),
        before=LINK,
        alone=True,
    )
    assert answers[0] is True
    assert answers[2:7] == [True] * 5
    assert answers[7:9] == [False, "eth0"]
    assert answers[9:11] == [True, True]
    # Down and up loses the routes of an interface that nothing manages: they are put back.
    assert answers[11:] == [True, False, "eth0"]


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
