"""A renamed machine and its DHCP server, with the real tools that run an interface: which of them is in charge, what
its lease says, and that the server learns the name (spec/distro.md §5.1, §5.2, provisioning §10)."""

from __future__ import annotations

import json
import sys

import attrs
import pytest

from tests.system.distro.conftest import DRIVER, Cell

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

NETWORK = r"""
mount -t sysfs -o ro sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /run/dbus /run/lock /run/systemd /run/network /run/own /var/lib/dhcp /var/lib/dhcpcd /var/lib/NetworkManager
cp -a /etc /run/own/etc
mount --bind /run/own/etc /etc
for each in /var/lib/NetworkManager /var/lib/dhcp /var/lib/dhcpcd; do mount -t tmpfs tmpfs $each; done
hostname web1
echo web1 > /etc/hostname
unshare --net sleep 600 &
server=$!
until [ "$(readlink /proc/$server/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
ip link set lo up
ip link add eth0 type veth peer name srv0 netns $server
nsenter --net=/proc/$server/ns/net sh -ec '
    ip link set lo up
    ip addr add 10.9.0.1/24 dev srv0
    ip link set srv0 up
    exec dnsmasq --conf-file=/dev/null --port=0 --interface=srv0 --bind-interfaces --user=root --no-ping \
        --dhcp-range=10.9.0.50,10.9.0.99,255.255.255.0,10m --dhcp-option=3,10.9.0.1 \
        --dhcp-option-force=245,a8:3f:81:10 --log-dhcp --log-facility=/run/own/dhcp.log \
        --dhcp-leasefile=/run/own/leases --pid-file=/run/own/dnsmasq.pid
'
dbus-daemon --system --fork --nopidfile
"""

RENAME = r"""
for try in $(seq 300); do
    if ip -4 -o addr show dev eth0 scope global | grep -q inet && ip route show default | grep -q eth0; then break; fi
    sleep 0.1
done
ip route show default | grep -q eth0 || { cat /run/own/*.log >&2; exit 9; }
ip monitor link > /run/own/links &
for each in /proc/[0-9]*; do echo "${each#/proc/} $(cat $each/comm)"; done > /run/own/processes
"$1" -c "$2" > /run/own/answers
for try in $(seq 200); do
    if grep -q 'client provides name: web7' /run/own/dhcp.log; then break; fi
    sleep 0.1
done
python3 - <<'PY'
import json
read = lambda name: open("/run/own/" + name).read()
found = {"answers": json.loads(read("answers")), "server": read("dhcp.log"), "links": read("links")}
found["processes"] = dict(line.split(" ", 1) for line in read("processes").splitlines())
print(json.dumps(found))
PY
"""
NO_NETWORK = 9
"""What the script ends with when the tool got no lease."""


@attrs.frozen
class Tool:
    """A tool that runs interfaces: Debian's package of it, how it is started, and what it is like."""

    package: str
    start: str
    client: str
    pauses: bool = False
    keeps_option: bool = True
    keeps_link: bool = True


NETWORKMANAGER = r"""
mkdir -p /etc/NetworkManager/system-connections
profile=/etc/NetworkManager/system-connections/eth0.nmconnection
printf '%s\n' '[connection]' id=eth0 type=ethernet interface-name=eth0 '[ipv4]' method=auto > $profile
printf '%s\n' '[ipv6]' method=ignore >> $profile
chmod 0600 $profile
NetworkManager --no-daemon > /run/own/tool.log 2>&1 &
"""
NETWORKD = r"""
printf '%s\n' '[Match]' Name=eth0 '[Network]' DHCP=ipv4 > /etc/systemd/network/10-eth0.network
/lib/systemd/systemd-networkd > /run/own/tool.log 2>&1 &
"""
IFUPDOWN = r"""
printf '%s\n' 'auto eth0' 'iface eth0 inet dhcp' > /etc/network/interfaces
ifup eth0 > /run/own/tool.log 2>&1
"""

TOOLS = {
    "networkmanager": Tool("network-manager", NETWORKMANAGER, "NetworkManager"),
    "networkd": Tool("systemd", NETWORKD, "systemd-network", pauses=True),
    "ifupdown": Tool("ifupdown isc-dhcp-client", IFUPDOWN, "dhclient", keeps_link=False),
    "dhcpcd": Tool("dhcpcd-base", "dhcpcd eth0 > /run/own/tool.log 2>&1\n", "dhcpcd", keeps_option=False),
}


@pytest.mark.parametrize("name", TOOLS)
def test_the_server_learns_the_name_and_the_lease_names_the_endpoint(cell: Cell, name: str) -> None:
    tool = TOOLS[name]
    install = "apt-get -qq update; apt-get -qq -y --no-install-recommends install dbus dnsmasq-base"
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    done = cell.run("sh", "-c", f"{install} {tool.package}", check=False, timeout=600, env=environment)
    if done.returncode:
        pytest.skip(f"{tool.package} cannot be installed: {done.stderr.strip()[-300:]}")
    calls = [
        ("find_primary_interface", {}),
        ("find_dhcp_processes", {}),
        ("dhcp_lease_endpoint", {}),
        ("must_pause_dhcp", {}),
        ("set_hostname", {"hostname": "web7"}),
        ("publish_hostname", {"hostname": "web7"}),
    ]
    alone = ("unshare", "--net", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc")
    script = NETWORK + tool.start + RENAME
    done = cell.run(
        *alone, "sh", "-ec", script, "sh", sys.executable, DRIVER, data=json.dumps(calls), check=False, timeout=120
    )
    if done.returncode == NO_NETWORK:
        pytest.skip(f"{name} brings no interface up here: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    primary, clients, endpoint, pauses, *changed = found["answers"]
    assert primary == "eth0"
    assert [found["processes"][str(pid)] for pid in clients] == [tool.client]
    if tool.keeps_option:
        assert endpoint == "168.63.129.16"
    else:
        assert "there is no DHCP lease" in endpoint["error"]
    assert pauses is tool.pauses
    assert changed == [True, True]
    names = [line.split()[-1] for line in found["server"].splitlines() if "client provides name" in line]
    assert names[-1] == "web7", names
    assert ("state DOWN" not in found["links"]) is tool.keeps_link, found["links"]
