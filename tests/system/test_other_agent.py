"""Debian's own agent for the same protocol runs unmodified against the fabric at the platform's real addresses.

The agent is an independent program: where it is content, the fabric speaks as the platform does. It runs in
namespaces of its own (network, mounts, processes, host name) over scratch copies of what it writes to.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

PACKAGES = ("waagent", "python3-distro")
HANDLER = "Contoso.Other.Sample"
SECRET = "a-secret-of-the-other-agent"
CONF = """\
Extensions.Enabled=y
Provisioning.Enabled=n
Provisioning.Agent=disabled
Provisioning.MonitorHostName=n
ResourceDisk.Format=n
ResourceDisk.EnableSwap=n
Logs.Verbose=y
Logs.Collect=n
AutoUpdate.Enabled=n
OS.EnableFirewall=n
CGroups.EnforceLimits=n
"""


def download(folder: Path) -> Path:
    """Fetch and unpack the distribution's packages; return the tree."""
    tools = ("apt-get", "dpkg-deb", "unshare", "ip", "mount", "openssl")
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    if not os.path.exists("/usr/bin/python3"):
        pytest.skip("needs the distribution's own /usr/bin/python3")
    tree = folder / "tree"
    for package in PACKAGES:
        place = folder / package
        place.mkdir()
        fetched = subprocess.run(
            ["apt-get", "download", package], cwd=place, capture_output=True, text=True, timeout=60, check=False
        )
        archives = list(place.glob("*.deb"))
        if fetched.returncode or not archives:
            pytest.skip(f"the package {package} cannot be fetched: {fetched.stderr.strip().splitlines()[-1:]}")
        subprocess.run(["dpkg-deb", "-x", archives[0], tree], check=True, timeout=60)
    return tree


def can_make_namespaces() -> bool:
    """Whether this process may make the namespaces that the test needs."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", "-n", "-m", "-u", "-p", "-f", "true"], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.skipif(not can_make_namespaces(), reason="needs root with the right to make namespaces")
@pytest.mark.timeout(300)
def test_debians_agent_enables_an_extension_and_reports_it(tmp_path: Path) -> None:
    tree = download(tmp_path)
    scratch = tmp_path / "scratch"
    for name in ("lib", "log", "run"):
        (scratch / name).mkdir(parents=True)
    shutil.copytree("/etc", scratch / "etc", symlinks=True, ignore_dangling_symlinks=True)
    (scratch / "etc/waagent.conf").write_text(CONF)

    namespaces = ["unshare", "-n", "-m", "-u", "-p", "-f", "--mount-proc", "--kill-child"]
    ran = subprocess.run(
        [*namespaces, sys.executable, __file__, tree, scratch],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip

    log = scratch / "log/waagent.log"
    evidence = f"{ran.stdout}\n{ran.stderr}\n{log.read_text()[-6000:] if log.exists() else 'no log'}"
    assert ran.returncode == 0, evidence
    seen = json.loads((scratch / "seen.json").read_text())
    assert seen["violations"] == [], evidence
    for item in seen["extensions"]:
        assert item["status"] == "Ready"
        assert item["runtimeSettingsStatus"]["settingsStatus"]["status"]["status"] == "success"
    assert [item["handlerVersion"] for item in seen["extensions"]] == ["1.0.0", "1.1.0", "1.1.0"]
    assert [item["runtimeSettingsStatus"]["sequenceNumber"] for item in seen["extensions"]] == [0, 1, 2]
    assert seen["opened"] == [{"secret": SECRET}] * 3
    assert seen["channels"] == ["hostplugin"]
    assert seen["page_blob"] == "PageBlob"
    tenant = seen["tenant"]
    assert f"{tenant}.crt" in seen["lib"]
    assert f"{tenant}.prv" in seen["lib"]
    assert f"{seen['vault']}.prv" in seen["lib"], "the key of the second certificate was lost"


# -- what runs inside the namespaces


def drive(tree: str, scratch: str) -> None:
    """Serve the platform at its own addresses, run the agent, write down what was seen."""
    from waagent_fabric import Fabric

    for command in (
        ["ip", "link", "set", "lo", "up"],
        ["ip", "addr", "add", "168.63.129.16/32", "dev", "lo"],
        ["ip", "addr", "add", "169.254.169.254/32", "dev", "lo"],
        # As on the platform: an interface with a default route, and a route to the platform's address.
        ["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"],
        ["ip", "addr", "add", "10.0.0.4/24", "dev", "eth0"],
        ["ip", "link", "set", "eth0", "up"],
        ["ip", "link", "set", "eth1", "up"],
        ["ip", "route", "add", "default", "via", "10.0.0.1"],
        ["ip", "route", "add", "168.63.129.16/32", "dev", "lo"],
        *(
            ["mount", "--bind", f"{scratch}/{name}", target]
            for name, target in (("etc", "/etc"), ("lib", "/var/lib"), ("log", "/var/log"), ("run", "/run"))
        ),
    ):
        subprocess.run(command, check=True)
    with Fabric.at_real_addresses() as fabric:
        agent = subprocess.Popen(
            ["/usr/bin/python3", f"{tree}/usr/sbin/waagent", "-daemon"],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{tree}/usr/lib/python3/dist-packages"},
            stdin=subprocess.DEVNULL,
        )
        try:
            seen = exercise(fabric, scratch)
        finally:
            agent.kill()
            agent.wait()
        Path(scratch, "seen.json").write_text(json.dumps(seen))


def exercise(fabric, scratch: str) -> dict:
    from waagent_fabric import HandlerSpec, SettingsSpec, sample_package

    open_settings = 'open_protected >>"$logs/opened" || exit 9; echo >>"$logs/opened"'

    def goal(version: str, sequence: int) -> list[HandlerSpec]:
        settings = SettingsSpec(public={"n": sequence}, protected={"secret": SECRET}, sequence_number=sequence)
        return [HandlerSpec(HANDLER, version, settings=[settings])]

    vault = fabric.add_certificate("vault secret")  # RSA: version 2.7.3 gives up on a key of another kind
    for version in ("1.0.0", "1.1.0"):
        fabric.add_package(HANDLER, version, sample_package(HANDLER, version, enable=open_settings))
    extensions = []
    fabric.publish(goal("1.0.0", 0))
    extensions.append(fabric.wait_for_extension(HANDLER, version="1.0.0", sequence_number=0, timeout=90))
    fabric.publish(goal("1.1.0", 1), status_blob="PageBlob")
    extensions.append(fabric.wait_for_extension(HANDLER, version="1.1.0", sequence_number=1, timeout=60))
    page_blob = fabric.statuses[-1].blob_type
    fabric.reallocate()  # another container id and configuration name
    fabric.publish(goal("1.1.0", 2), status_blob="PageBlob")
    extensions.append(fabric.wait_for_extension(HANDLER, sequence_number=2, timeout=60))
    # This version of the agent reads vmSettings and does not act on them yet: it must find nothing wrong with them.
    etag = fabric.publish(goal("1.1.0", 3), "fasttrack", status_blob="PageBlob").partition("_")[2]

    def fast_track_read() -> bool:
        return any(
            record.status == 304 and record.header("If-None-Match") == etag
            for record in fabric.requests
            if record.path == "/vmSettings"
        )

    fabric.wait_for(fast_track_read, 30, "vmSettings taken and asked for again by etag")
    log = Path("/var/log/azure", HANDLER, "opened")
    return {
        "extensions": extensions,
        "opened": [json.loads(line) for line in log.read_text().splitlines()],
        "channels": sorted({record.channel for record in fabric.statuses}),
        "violations": [str(item) for item in fabric.violations],
        "page_blob": page_blob,
        "tenant": fabric.tenant.thumbprint,
        "vault": vault.thumbprint,
        "lib": sorted(os.listdir("/var/lib/waagent")),
    }


if __name__ == "__main__":
    started = time.monotonic()
    try:
        drive(*sys.argv[1:3])
    finally:
        print(f"inside: {time.monotonic() - started:.1f} s")
