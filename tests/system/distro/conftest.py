"""A cell: this machine's own root under an overlay in memory, with namespaces of its own. What is done there is gone
with it, and the programs are the distribution's real ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SETUP = r"""
set -e
mount --make-rprivate /
place="$1"
mount -t tmpfs -o size=3g tmpfs "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" "$place/root"
cd "$place/root"
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys
mount -t tmpfs tmpfs run
mkdir run/lock
printf '#!/bin/sh\nexit 101\n' > usr/sbin/policy-rc.d
chmod 0755 usr/sbin/policy-rc.d
exec "$2" -c "$3"
"""

KEEPER = """
import signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever ends without a parent here is forgotten at once
print("ready", flush=True)
sys.stdin.read()
"""

PROGRAMS = {
    "sshd": "openssh-server", "ssh": "openssh-client", "visudo": "sudo", "sfdisk": "fdisk", "iptables": "iptables",
    "nft": "nftables", "mkfs.xfs": "xfsprogs", "mkfs.btrfs": "btrfs-progs", "mkntfs": "ntfs-3g", "chpasswd": "passwd",
    "ip": "iproute2",
}  # fmt: skip
"""Programs that the tests need, and Debian's packages of them; those that are missing are installed in the cell."""

DRIVER = """
import json, sys
from waagent.agent import make_agent
agent = make_agent()
answers = []
for name, arguments in json.load(sys.stdin):
    try:
        answers.append(getattr(agent.distro, name)(**arguments))
    except Exception as problem:
        answers.append({"error": f"{type(problem).__name__}: {problem}"})
json.dump(answers, sys.stdout)
"""


class Cell:
    """The cell, while it lives."""

    def __init__(self, place: Path) -> None:
        self.root = f"{place}/root"
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "sh", "-c", SETUP, "sh", place,
             sys.executable, KEEPER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        if self._holder.stdout.readline() != "ready\n":
            reason = self._holder.stderr.read().strip()
            self.close()
            pytest.skip(f"no overlay in a namespace can be made here: {reason}")
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text()
        self._pid = children.split()[0]

    def close(self) -> None:
        for stream in (self._holder.stdin, self._holder.stdout, self._holder.stderr):
            stream.close()
        self._holder.kill()
        self._holder.wait(30)

    def run(
        self, *command: str, data: str = "", check: bool = True, timeout: float = 120, alone: bool = False,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Run a command in the cell; with *alone* in a network namespace of its own that is gone afterwards."""
        entered = ["nsenter", "--target", self._pid, "--mount", "--uts", "--ipc", "--pid", "chroot", self.root]
        apart = ["unshare", "--net"] if alone else []
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/root", **(env or {})}
        done = subprocess.run(
            [*entered, *apart, *command], input=data, capture_output=True, text=True,
            timeout=timeout, check=False, env=environment,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def shell(self, script: str, *arguments: str, **more: Any) -> str:
        return self.run("sh", "-ec", script, "sh", *arguments, **more).stdout

    def has(self, program: str) -> bool:
        return self.run("sh", "-c", 'command -v "$1"', "sh", program, check=False).returncode == 0

    def write(self, path: str, text: str) -> None:
        self.shell('mkdir -p "$(dirname "$1")"; cat > "$1"', path, data=text)

    def read(self, path: str) -> str:
        return self.run("cat", path).stdout

    def operations(self, *calls: tuple[str, dict[str, Any]], before: str = "", alone: bool = False) -> list[Any]:
        """Call operations of the real agent with its real plugins; *before* is shell that prepares the namespace."""
        script = f'{before}\nexec "$1" -c "$2"'
        done = self.run("sh", "-ec", script, "sh", sys.executable, DRIVER, data=json.dumps(calls), alone=alone)
        return json.loads(done.stdout)

    def operation(self, name: str, /, **arguments: Any) -> Any:
        return self.operations((name, arguments))[0]


@pytest.fixture(scope="session")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    """The cell with every program that is needed; skips where there is no root, no overlay or no Debian."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    for program in ("unshare", "nsenter", "apt-get"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    found = Cell(tmp_path_factory.mktemp("cell"))
    try:
        if found.run(sys.executable, "-c", "import waagent", check=False).returncode:
            pytest.skip("this interpreter lies on a file system of its own, which the cell does not have")
        missing = sorted({package for program, package in PROGRAMS.items() if not found.has(program)})
        if missing:
            install = "apt-get -qq update; apt-get -qq -y --no-install-recommends install"
            environment = {"DEBIAN_FRONTEND": "noninteractive"}
            done = found.run("sh", "-c", f"{install} {' '.join(missing)}", check=False, timeout=600, env=environment)
            if done.returncode:
                pytest.skip(f"{', '.join(missing)} cannot be installed: {done.stderr.strip()[-300:]}")
        found.write("/etc/waagent.conf", "Logs.Verbose=n\n")
        yield found
    finally:
        found.close()
