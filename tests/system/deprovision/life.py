"""The life of a machine, lived once: the agent's own service provisions it, extensions run, its owner works on it.

Run as a script, in namespaces of its own: ``life.py PLACE LOWER SEEN``. What changes stays in PLACE (see
:mod:`tests.system.deprovision.overlay`), what the platform and the owner saw is written to SEEN.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.vm import machine

VM_ID = "544CDFD0-CB4E-4B4A-9954-5BDF3ED5C3B8"
PASSWORD = "Tr0ub4dor-and-three!"
HANDLER = "Contoso.Life"
CONF = """\
Provisioning.Agent=auto
Provisioning.DeleteRootPassword=y
Provisioning.ExecuteCustomData=y
ResourceDisk.Format=n
Logs.Console=n
Logs.Verbose=y
OS.EnableFirewall=n
Extensions.GoalStatePeriod=1
"""
DOCUMENT = """\
<?xml version="1.0" encoding="utf-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:wa="http://schemas.microsoft.com/windowsazure">
  <wa:ProvisioningSection><wa:Version>1.0</wa:Version>
    <LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure">
      <HostName>node7</HostName><UserName>ops</UserName><UserPassword>{password}</UserPassword>
      <DisableSshPasswordAuthentication>false</DisableSshPasswordAuthentication>
      <SSH><PublicKeys><PublicKey><Path>/home/ops/.ssh/authorized_keys</Path><Value>{key}</Value></PublicKey></PublicKeys></SSH>
      <CustomData>IyEvYmluL3NoCmlkIC11ID4vcnVuL2N1c3RvbS1kYXRhCg==</CustomData>
    </LinuxProvisioningConfigurationSet></wa:ProvisioningSection>
  <wa:PlatformSettingsSection><wa:Version>1.0</wa:Version><wa:PlatformSettings>
    <wa:ProvisionGuestAgent>true</wa:ProvisionGuestAgent></wa:PlatformSettings></wa:PlatformSettingsSection>
</Environment>
"""
"""Its custom data is a script that leaves ``/run/custom-data``."""

MEDIUM_PLUGIN = """\
from waagent import hookimpl


@hookimpl
def mount_provisioning_media(agent, device, mount_point):
    # The kernel that runs the tests may know no file system of optical discs.
    agent.run(("mount", "-o", "ro,nodev,noexec,nosuid", "-t", "ext4", device, mount_point), check=True)
    return True


@hookimpl
def publish_hostname():
    return True  # there is no network to tell
"""


def prepare(lower: Path) -> None:
    """Make the root file system of a generic image: Debian with the agent, and host keys of its own."""
    from waagent_fabric import install_module

    machine.unpack(lower)
    machine.install_agent(lower, machine.built_wheel(), CONF)
    source = lower.parent / "acme_medium.py"
    source.write_text(MEDIUM_PLUGIN)
    site = lower / "usr/lib/python3/dist-packages"
    install_module(site, source, {"waagent.distros": {"linux.medium": "acme_medium"}}, distribution="m")
    # A program that is started by the dozen writes no bytecode here that would look like its trace.
    subprocess.run(["chroot", lower, "python3", "-m", "compileall", "-q", "/usr/lib/python3/dist-packages"], check=True)
    (lower / "etc/resolv.conf").unlink(missing_ok=True)
    (lower / "etc/resolv.conf").write_text("nameserver 168.63.129.16\n")


class Life:
    """One machine while it lives."""

    def __init__(self, place: Path, lower: Path) -> None:
        self.place = place
        self.root = place / "merged"
        self.lower = lower
        self.seen: dict[str, Any] = {}

    def mount(self) -> None:
        """Put the root file system together, as a container has it."""
        root, place = self.root, self.place
        mount("overlay", root, "overlay", f"lowerdir={self.lower},upperdir={place}/upper,workdir={place}/work")
        subprocess.run(["mount", "--bind", place / "run", root / "run"], check=True)
        mount("proc", root / "proc", "proc")
        for name in ("dev", "sys", "tmp"):
            mount("tmpfs", root / name, "tmpfs", "mode=1777" if name == "tmp" else "mode=755")
        for name, minor in (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)):
            os.mknod(root / "dev" / name, 0o020666, os.makedev(1, minor))
            os.chmod(root / "dev" / name, 0o666)
        os.mknod(root / "dev/tty", 0o020666, os.makedev(5, 0))
        (root / "dev/pts").mkdir()
        mount("devpts", root / "dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=620")
        os.symlink("pts/ptmx", root / "dev/ptmx")
        os.symlink("/proc/self/fd", root / "dev/fd")
        identity = root / "sys/class/dmi/id/product_uuid"
        identity.parent.mkdir(parents=True)
        identity.write_text(VM_ID.lower() + "\n")
        (root / "sys/firmware/efi").mkdir(parents=True)
        (root / "run/sshd").mkdir(mode=0o755)

    def insert(self, document: str) -> str:
        """Put a medium into the drive; return the loop device behind it."""
        folder, image = self.place / "medium", self.place / "medium.img"
        folder.mkdir()
        (folder / "ovf-env.xml").write_text(document)
        with image.open("wb") as stream:
            stream.truncate(1 << 20)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", folder, image], check=True)
        shutil.rmtree(folder)
        attach = ["losetup", "--find", "--show", "--read-only", image]
        device = subprocess.run(attach, capture_output=True, text=True, check=True).stdout.strip()
        os.mknod(self.root / "dev/sr0", 0o060660, os.stat(device).st_rdev)
        return device

    def live(self, key: Path) -> None:
        """Serve it with the agent until it is Ready and its extension has run; let the owner log in; stop the agent."""
        from waagent_fabric import Fabric, HandlerSpec, SettingsSpec, sample_package

        with Fabric.at_real_addresses() as fabric:
            fabric.add_package(
                HANDLER, "1.0.0", sample_package(HANDLER, "1.0.0", enable="open_protected >$logs/opened")
            )
            settings = SettingsSpec(public={"a": 1}, protected={"key": "protected words"}, sequence_number=0)
            fabric.publish([HandlerSpec(HANDLER, "1.0.0", settings=[settings])])
            agent = subprocess.Popen(
                ["chroot", self.root, "/usr/sbin/waagent", "-daemon"], stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                fabric.wait_for_extension(HANDLER, "success", timeout=90)
                self.seen["reports"] = [one.state for one in fabric.health_reports]
                self.seen["role properties"] = list(fabric.role_properties)
                self.log_in(key)
            finally:
                agent.send_signal(signal.SIGTERM)
                self.seen["exit"] = agent.wait(40)
                self.seen["violations"] = [str(one) for one in fabric.violations]
                self.seen["log"] = (self.root / "var/log/waagent.log").read_text()[-6000:]

    def log_in(self, key: Path) -> None:
        """Be the owner: come in with the key, become root with the password, leave a history."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = subprocess.Popen(
            ["chroot", self.root, "/usr/sbin/sshd", "-D", "-e", "-p", str(port)], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            ssh = ["ssh", "-F", "none", "-p", str(port), "-i", str(key), "-tt"]
            for option in ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"):
                ssh += ["-o", option]
            words = f"echo {PASSWORD} | sudo -S -p '' sh -c 'echo $SUDO_USER is $(id -un) on $(uname -n)'"
            session = subprocess.run(
                [*ssh, "ops@127.0.0.1"], input=f"{words}\necho a secret\nexit\n", capture_output=True, text=True,
                timeout=60, check=False,
            )  # fmt: skip
            self.seen["session"] = session.stdout + session.stderr
        finally:
            server.terminate()
            server.wait(10)


def mount(what: str, where: Path, kind: str, options: str = "") -> None:
    subprocess.run(["mount", "-t", kind, *(["-o", options] if options else []), what, where], check=True)


def main(place: Path, lower: Path, seen: Path) -> None:
    os.umask(0o022)
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    machine.bring_up_addresses()
    life = Life(place, lower)
    life.mount()
    key = machine.new_key(place)
    document = DOCUMENT.format(password=PASSWORD, key=key.with_suffix(".pub").read_text().strip())
    device = life.insert(document)
    try:
        life.live(key)
    finally:
        subprocess.run(["losetup", "-d", device], check=False)
        seen.write_text(json.dumps(life.seen))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
