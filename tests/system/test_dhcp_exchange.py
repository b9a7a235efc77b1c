"""The agent's own DHCP exchange with the kernel's sockets and routes, in a network of its own (wireserver §2.4)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ADDRESS = "168.63.129.16"
GATEWAY = "10.77.0.1"
INSIDE = ("unshare", "-n", "-m")


def can_make_namespaces() -> bool:
    if os.geteuid() != 0 or not all(shutil.which(tool) for tool in ("unshare", "ip", "mount")):
        return False
    made = "ip link add x0 type veth peer name x1 && mount -t sysfs none /sys"
    return subprocess.run([*INSIDE, "sh", "-c", made], capture_output=True, check=False).returncode == 0


@pytest.mark.system
@pytest.mark.timeout(120)
@pytest.mark.skipif(not can_make_namespaces(), reason="needs root with the right to make network namespaces")
@pytest.mark.parametrize("default_route", [False, True])
def test_the_network_is_asked_and_its_routes_are_set(tmp_path: Path, default_route: bool) -> None:
    noted = tmp_path / "dhcp-routes.json"
    argv = [*INSIDE, sys.executable, __file__, str(noted), str(int(default_route))]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    seen = json.loads(ran.stdout)
    assert seen["found"] == [ADDRESS, ADDRESS]
    # The second exchange of the process asks for a broadcast answer.
    assert seen["flags"] == [0, 0x8000]
    expected = [f"{ADDRESS} via {GATEWAY} dev eth0"]
    if default_route:
        expected.append("default via 10.77.0.9 dev eth0")
    else:
        expected.append(f"default via {GATEWAY} dev eth0")
    routes = [line.strip() for line in seen["routes"].splitlines()]
    assert sorted(line for line in routes if "via" in line) == sorted(expected)
    assert not [line for line in routes if "255.255.255.255" in line]
    content = json.loads(noted.read_text())
    assert content["routes"] == [[f"{ADDRESS}/32", GATEWAY]]
    # Set by the first exchange, found by the second: still the agent's to restore.
    assert content["gateway"] == (None if default_route else GATEWAY)


# -- what runs inside the namespace


def command(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def serve() -> None:
    """Be the DHCP server at the other end of the wire; prints the flags of each request."""
    print("waiting", flush=True)
    sys.stdin.readline()
    command("ip", "link", "set", "peer", "up")
    command("ip", "address", "add", f"{GATEWAY}/24", "dev", "peer")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"peer")
        server.bind(("", 67))
        print("ready", flush=True)
        while True:
            request = server.recv(1024)
            options = b"\xf5\x04" + socket.inet_aton(ADDRESS) + b"\x03\x04" + socket.inet_aton(GATEWAY)
            options += b"\xf9\x09\x20" + socket.inet_aton(ADDRESS) + socket.inet_aton(GATEWAY) + b"\xff"
            server.sendto(b"\x02" + request[1:240] + b"\x35\x01\x02" + options, ("255.255.255.255", 68))
            print(int.from_bytes(request[10:12], "big"), flush=True)


def drive(noted: str, default_route: bool) -> None:
    """Lay the wire, ask twice, and print what came of it."""
    from waagent.agent import make_agent
    from waagent.platform.dhcpclient import DhcpClient

    command("mount", "-t", "sysfs", "none", "/sys")
    argv = ["unshare", "-n", sys.executable, __file__]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stdout.readline() == "waiting\n"
        command("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer")
        command("ip", "link", "set", "peer", "netns", str(server.pid))
        command("ip", "link", "set", "eth0", "up")
        command("ip", "address", "add", "10.77.0.4/24", "dev", "eth0")
        if default_route:
            command("ip", "route", "add", "default", "via", "10.77.0.9", "dev", "eth0")
        server.stdin.write("go\n")
        server.stdin.flush()
        assert server.stdout.readline() == "ready\n"
        agent = make_agent()
        client = DhcpClient(agent.distro, agent.log, lambda _seconds: False, routes_file=noted)
        found = [client.endpoint()]
        flags = [int(server.stdout.readline())]
        routes = command("ip", "route")
        found.append(client.endpoint())
        flags.append(int(server.stdout.readline()))
        server.kill()
    print(json.dumps({"found": found, "flags": flags, "routes": routes}))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        drive(sys.argv[1], sys.argv[2] == "1")
    else:
        serve()
