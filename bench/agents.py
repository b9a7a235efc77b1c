"""The agents that are measured: ours, and the distribution's own, each under the same interpreter and platform."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

PACKAGES = ("waagent", "python3-distro")
COMMON = """\
Provisioning.Agent=disabled
Provisioning.Enabled=n
Provisioning.MonitorHostName=n
Provisioning.RegenerateSshHostKeyPair=n
ResourceDisk.Format=n
ResourceDisk.EnableSwap=n
Logs.Collect=n
Logs.Console=n
Protocol.EndpointDiscovery=static
AutoUpdate.Enabled=n
OS.EnableFirewall=n
Extensions.GoalStatePeriod=6
CGroups.EnforceLimits=n
"""
HANDLER = """#!/bin/sh
# One quick handler: notes when it ran, and reports success.
case $1 in enable)
  date +%s.%N >>"$AZURE_GUEST_AGENT_EXTENSION_PATH/../../started"
  echo '[{"version":"1.0","timestampUTC":"2026-01-01T00:00:00Z","status":{"operation":"Enable","status":"success",' \
    '"code":0,"formattedMessage":{"lang":"en-US","message":"done"}}}]' \
    >"$AZURE_GUEST_AGENT_EXTENSION_PATH/status/$ConfigSequenceNumber.status" ;;
esac
"""


class Agent:
    """One agent as a process; its state is thrown away with its scratch directory."""

    name = ""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0

    def command(self) -> tuple[list[str], dict[str, str]]:
        """Return what to start, with which environment."""
        raise NotImplementedError

    @property
    def lib(self) -> Path:
        """The state directory, as seen from here."""
        raise NotImplementedError

    def start(self) -> int:
        """Start it; return its pid."""
        argv, environment = self.command()
        with (self.scratch / "console").open("ab") as console:
            self.started = time.time()
            self.process = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True
            )
        return self.process.pid

    def stop(self) -> None:
        """End it, and what it left running."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def handler_starts(self) -> list[float]:
        """Return when handlers ran, in seconds since the epoch."""
        path = self.lib.parent / "started"
        return [float(line) for line in path.read_text().split()] if path.exists() else []


class Ours(Agent):
    """This agent, as installed beside the interpreter that runs the benchmark."""

    name = "waagent"

    def command(self) -> tuple[list[str], dict[str, str]]:
        etc = self.scratch / "root/etc"
        etc.mkdir(parents=True, exist_ok=True)
        (etc / "waagent.conf").write_text(COMMON)
        argv = [sys.executable, "-m", "waagent", "--root", str(self.scratch / "root"), "-daemon"]
        return argv, {"PATH": os.environ["PATH"]}

    @property
    def lib(self) -> Path:
        return self.scratch / "root/var/lib/waagent"


class Other(Agent):
    """The distribution's agent: an independent program for the same protocol, unpacked, unmodified.

    It knows one root only; so it runs with scratch copies bound over what it writes to (a mount namespace).
    """

    name = "other"
    tree = Path()

    @classmethod
    def fetch(cls, folder: Path) -> None:
        """Download and unpack the packages."""
        cls.tree = folder / "tree"
        for package in PACKAGES:
            place = folder / package
            place.mkdir(parents=True, exist_ok=True)
            subprocess.run(["apt-get", "-qq", "download", package], cwd=place, check=True)
            subprocess.run(["dpkg-deb", "-x", *place.glob("*.deb"), cls.tree], check=True)

    def command(self) -> tuple[list[str], dict[str, str]]:
        for name in ("lib", "log", "run"):
            (self.scratch / name).mkdir(parents=True, exist_ok=True)
        if not (self.scratch / "etc").exists():
            shutil.copytree("/etc", self.scratch / "etc", symlinks=True, ignore_dangling_symlinks=True)
        (self.scratch / "etc/waagent.conf").write_text(COMMON)
        binds = "".join(
            f"mount --bind '{self.scratch}/{name}' {target}; "
            for name, target in (("etc", "/etc"), ("lib", "/var/lib"), ("log", "/var/log"), ("run", "/run"))
        )
        python = os.path.realpath(sys.executable)
        run = f"{binds} exec '{python}' -u '{self.tree}/usr/sbin/waagent' -daemon"
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{self.tree}/usr/lib/python3/dist-packages"}
        return ["unshare", "-m", "sh", "-c", run], environment

    @property
    def lib(self) -> Path:
        return self.scratch / "lib/waagent"
