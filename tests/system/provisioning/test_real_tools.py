"""Provisioning with the real tools: useradd, chpasswd, sudo, sshd; then somebody logs in (provisioning §6 to §9).

Everything happens in namespaces of its own (mounts, processes, host name, network) over a copy-on-write view of this
system with Debian's own packages of OpenSSH and sudo unpacked into it. Nothing of the machine is changed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PACKAGES = ("openssh-server", "openssh-sftp-server", "sudo", "libwrap0")
TOOLS = (
    "apt-get",
    "dpkg-deb",
    "unshare",
    "mount",
    "chroot",
    "ip",
    "ssh",
    "ssh-keygen",
    "useradd",
    "chpasswd",
    "mke2fs",
)
VM_ID = "544CDFD0-CB4E-4B4A-9954-5BDF3ED5C3B8"
PASSWORD = "Tr0ub4dor & <three>!"
WRONG = "not the password"

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

DOCUMENT = """\
<?xml version="1.0" encoding="utf-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:wa="http://schemas.microsoft.com/windowsazure">
  <wa:ProvisioningSection><wa:Version>1.0</wa:Version>
    <LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure">
      <HostName>node7</HostName><UserName>ops</UserName>{password}
      <DisableSshPasswordAuthentication>{disable}</DisableSshPasswordAuthentication>
      <SSH><PublicKeys><PublicKey><Path>/home/ops/.ssh/authorized_keys</Path><Value>{key}</Value></PublicKey></PublicKeys></SSH>
      <CustomData>IyEvYmluL3NoCmlkIC11ID4vcm9vdC9yYW4K</CustomData>
    </LinuxProvisioningConfigurationSet></wa:ProvisioningSection>
  <wa:PlatformSettingsSection><wa:Version>1.0</wa:Version><wa:PlatformSettings>
    <wa:ProvisionGuestAgent>true</wa:ProvisionGuestAgent></wa:PlatformSettings></wa:PlatformSettingsSection>
</Environment>
"""

PLUGIN = """\
from waagent import hookimpl


@hookimpl
def mount_provisioning_media(agent, device, mount_point):
    # The kernel of a test machine may know no file system of optical discs.
    agent.run(("mount", "-o", "ro,nodev,noexec,nosuid", "-t", "ext4", device, mount_point), check=True)
    return True


@hookimpl
def publish_hostname():
    return True  # there is no network to tell
"""


KILLED_AFTER = {
    "set_hostname": "hostname",
    "create_user": "name, comment, expiration",
    "set_password": "name, password",
    "configure_sudo": "name, password_required",
    "configure_sshd": "password_authentication, client_alive_interval",
    "deploy_ssh_key": "name, path, public_key, private_key",
    "lock_root_password": "",
    "regenerate_host_keys": "kind",
}
KILLER = """

import os
import signal

from waagent_distro import linux


def then_die_once(agent, operation):
    mark = "/run/killed-after-" + operation
    if not os.path.exists(mark):
        os.close(os.open(mark, os.O_CREAT))
        os.kill(os.getpid(), signal.SIGKILL)
    return True
"""


def killer() -> str:
    """Return what does the work of each operation and then kills the process that asked for it, each once."""
    text = KILLER
    for operation, names in KILLED_AFTER.items():
        arguments = f"agent, {names}" if names else "agent"
        text += f"\n\n@hookimpl\ndef {operation}({arguments}):\n    linux.{operation}({arguments})\n"
        text += f"    return then_die_once(agent, {operation!r})\n"
    return text


def needed() -> str:
    """Return why the test cannot run here, empty when it can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    tried = subprocess.run(["unshare", "-n", "-m", "-u", "-p", "-f", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "needs the right to make namespaces"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's own SSH server and sudo, unpacked."""
    reason = needed()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("packages")
    for package in PACKAGES:
        fetched = subprocess.run(
            ["apt-get", "download", package], cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )
        if fetched.returncode:
            pytest.skip(f"the package {package} cannot be fetched: {fetched.stderr.strip().splitlines()[-1:]}")
    for archive in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", archive, folder / "tree"], check=True, timeout=60)
    return folder / "tree"


@pytest.fixture
def provisioned(tree: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Provision a fresh machine and return what was seen of it."""

    def run(**options: Any) -> dict[str, Any]:
        seen = tmp_path / "seen.json"
        script = tmp_path / "options.json"
        script.write_text(json.dumps({"tree": str(tree), "scratch": str(tmp_path), "seen": str(seen), **options}))
        ran = subprocess.run(
            ["unshare", "-n", "-m", "-u", "-p", "-f", "--mount-proc", "--kill-child", sys.executable, __file__, script],
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{ran.stdout[-6000:]}\n{ran.stderr[-6000:]}"
        found: dict[str, Any] = json.loads(seen.read_text())
        return found

    return run


def test_password_and_key(provisioned: Callable[..., dict[str, Any]]) -> None:
    """The owner gave a password and a key: both open the door, and sudo asks for the password."""
    seen = provisioned(password=True, disable=False)
    evidence = seen["log"]
    assert seen["reports"] == [["NotReady", "Provisioning", "Starting"], ["Ready", "", ""]], evidence
    assert seen["key login"] == "ops node7", evidence
    assert seen["password login"] == "ops", evidence
    assert seen["wrong password login"] == "", evidence
    assert seen["settings"] == [1, None], evidence
    assert seen["sudo without password"] != "0", evidence
    assert seen["sudo with password"] == "0", evidence
    assert seen["sudoers"] == ["ops ALL=(ALL) ALL"], evidence
    assert seen["shadow"].startswith("$6$"), evidence
    common(seen)


def test_key_alone_over_an_images_drop_in(provisioned: Callable[..., dict[str, Any]]) -> None:
    """Ruling 41: the image's drop-in allows passwords; the owner's word counts all the same."""
    seen = provisioned(password=False, disable=True, drop_in="PasswordAuthentication yes\n")
    evidence = seen["log"]
    assert seen["reports"][-1] == ["Ready", "", ""], evidence
    assert seen["key login"] == "ops node7", evidence
    assert seen["password login"] == "", evidence
    assert "Permission denied (publickey)" in seen["password refusal"], evidence
    assert seen["sudo without password"] == "0", evidence
    assert seen["sudoers"] == ["ops ALL=(ALL) NOPASSWD: ALL"], evidence
    assert seen["shadow"][:1] in ("!", "*"), evidence
    common(seen)


def test_killed_after_each_operation(provisioned: Callable[..., dict[str, Any]]) -> None:
    """§29.4 with the real tools: what was done and not yet recorded is done again, to the same end.

    The image's drop-in forbids passwords, and the owner gave one.
    """
    seen = provisioned(password=True, disable=False, drop_in="PasswordAuthentication no\n", killed=True)
    evidence = seen["log"]
    assert seen["kills"] == len(KILLED_AFTER), evidence
    assert [report for report in seen["reports"] if report[0] == "Ready"] == [["Ready", "", ""]], evidence
    assert seen["reports"][-1] == ["Ready", "", ""], evidence
    assert seen["key login"] == "ops node7", evidence
    assert seen["password login"] == "ops", evidence
    assert seen["wrong password login"] == "", evidence
    assert seen["sudo with password"] == "0", evidence
    assert seen["sudoers"] == ["ops ALL=(ALL) ALL"], evidence
    assert seen["keys"] == 1, evidence
    assert seen["settings"] == [1, 1], evidence
    assert seen["accounts"] == [1, 1], evidence
    common(seen)


def common(seen: dict[str, Any]) -> None:
    evidence = seen["log"]
    assert seen["marker"] == VM_ID, evidence
    assert seen["home"] == ["ops", "0o700", "0o600"], evidence
    assert seen["root password"].startswith("root:*LOCK*"), evidence
    assert seen["host keys"] == ["ssh_host_rsa_key 0o600", "ssh_host_rsa_key.pub 0o644"], evidence
    assert seen["fingerprint told"] == [{"CertificateThumbprint": seen["fingerprint"]}], evidence
    assert seen["custom data ran as"] == "0\n", evidence
    assert seen["password in"] == [], evidence
    assert seen["second start"] == [], evidence
    assert seen["violations"] == [], evidence


def test_an_ssh_server_that_refuses_the_configuration(provisioned: Callable[..., dict[str, Any]]) -> None:
    """§29.5: `sshd -t` fails: the files are byte-identical, and the platform hears what sshd said."""
    seen = provisioned(password=False, disable=True, refusing=True)
    assert seen["reports"][-1][:2] == ["NotReady", "ProvisioningFailed"], seen["log"]
    assert "no such option today" in seen["reports"][-1][2], seen["log"]
    assert seen["sshd_config unchanged"], seen["log"]
    assert seen["drop-ins"] == [], seen["log"]
    assert seen["marker"] == ""


# -- what runs inside the namespaces


class Machine:
    """A copy-on-write view of this system, entered with chroot."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.scratch = Path(options["scratch"])
        self.root = self.scratch / "root"
        self.changes = self.scratch / "changes"

    def make(self) -> None:
        for place in (self.root, self.changes):
            place.mkdir()
        mount("tmpfs", self.changes, "tmpfs")
        for name in ("upper", "work"):
            (self.changes / name).mkdir()
        layers = f"lowerdir=/,upperdir={self.changes}/upper,workdir={self.changes}/work"
        mount("overlay", self.root, "overlay", layers)
        mount("proc", self.root / "proc", "proc")
        for name in ("run", "dev", "tmp"):
            mount("tmpfs", self.root / name, "tmpfs")
        inside = self.root / sys.prefix.lstrip("/")
        if not inside.exists():  # the tests run from a place that was just covered
            inside.mkdir(parents=True)
            subprocess.run(["mount", "--bind", sys.prefix, inside], check=True)
        self._devices()
        self._unpack()
        self._prepare()

    def _unpack(self) -> None:
        """Lay the packages over the view, also over what this system has of them; /lib may be a link to /usr/lib."""
        with subprocess.Popen(["tar", "-C", self.options["tree"], "-cf", "-", "."], stdout=subprocess.PIPE) as packed:
            subprocess.run(
                ["tar", "-C", self.root, "--keep-directory-symlink", "-xpf", "-"], stdin=packed.stdout, check=True
            )
        for folder in ("etc/ssh/sshd_config.d", "etc/sudoers.d"):
            for path in (self.root / folder).glob("*"):
                path.unlink()  # of this system's own

    def _devices(self) -> None:
        dev = self.root / "dev"
        for name, minor in (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)):
            os.mknod(dev / name, 0o020666, os.makedev(1, minor))
            os.chmod(dev / name, 0o666)
        os.mknod(dev / "tty", 0o020666, os.makedev(5, 0))
        for name in ("pts", "shm"):
            (dev / name).mkdir()
        mount("devpts", dev / "pts", "devpts", "newinstance,ptmxmode=0666,mode=620")
        os.symlink("pts/ptmx", dev / "ptmx")
        os.symlink("/proc/self/fd", dev / "fd")

    def _prepare(self) -> None:
        at = self.root
        shutil.copy(at / "usr/share/openssh/sshd_config", at / "etc/ssh/sshd_config")
        (at / "etc/ssh/sshd_config.d").mkdir(exist_ok=True)
        if self.options.get("drop_in"):
            (at / "etc/ssh/sshd_config.d/50-cloud-init.conf").write_text(self.options["drop_in"])
        for path in (at / "etc/ssh").glob("ssh_host_*"):
            path.unlink()
        (at / "run/sshd").mkdir(mode=0o755)
        (at / "etc/sudoers.d").mkdir(exist_ok=True)
        # What the packages' own scripts would have done.
        self.run("sh", "-c", "ldconfig; getent passwd sshd || useradd -r -M -d /run/sshd -s /usr/sbin/nologin sshd")
        for path, text in (("sys/class/dmi/id/product_uuid", VM_ID.lower() + "\n"), ("proc/none", "")):
            if path.startswith("sys"):
                (at / path).parent.mkdir(parents=True, exist_ok=True)
                (at / path).write_text(text)
        (at / "sys/firmware/efi").mkdir(parents=True, exist_ok=True)
        shutil.rmtree(at / "var/lib/waagent", ignore_errors=True)
        if self.options.get("refusing"):
            shutil.move(at / "usr/sbin/sshd", at / "usr/sbin/sshd.real")
            (at / "usr/sbin/sshd").write_text(
                "#!/bin/sh\ngrep -qs ClientAliveInterval.180 /etc/ssh/sshd_config && "
                "{ echo 'line 1: no such option today' >&2; exit 255; }\nexit 0\n"
            )
            os.chmod(at / "usr/sbin/sshd", 0o755)

    def run(self, *argv: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["chroot", str(self.root), *argv], capture_output=True, text=True, timeout=100, check=check, **options
        )

    def insert(self, document: str) -> None:
        """Put a medium into the drive: a block device named sr0."""
        folder, image = self.scratch / "medium", self.scratch / "medium.img"
        folder.mkdir()
        (folder / "ovf-env.xml").write_text(document)
        with image.open("wb") as stream:
            stream.truncate(1 << 20)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", folder, image], check=True)
        shutil.rmtree(folder)
        device = subprocess.run(
            ["losetup", "--find", "--show", "--read-only", image], capture_output=True, text=True, check=True
        ).stdout.strip()
        self.loop = device
        os.mknod(self.root / "dev/sr0", 0o060660, os.stat(device).st_rdev)

    def agent(self, fabric: Any) -> int:
        """Run one boot stage of the agent on the real root of this view; return how it ended."""
        conf = (
            "Provisioning.Agent=auto\nProvisioning.DeleteRootPassword=y\nProvisioning.ExecuteCustomData=y\n"
            "Provisioning.MonitorHostName=n\nResourceDisk.Format=n\nLogs.Console=n\nLogs.Verbose=y\nOS.EnableFirewall=n\n"
        )
        (self.root / "etc/waagent.conf").write_text(conf + fabric.conf())
        python = ("/usr/bin/env", f"PYTHONPATH={self.site}", sys.executable)
        return self.run(*python, "-m", "waagent", "-run-boot", cwd="/", check=False).returncode

    @property
    def site(self) -> str:
        return "/opt/site"

    def read(self, path: str) -> str:
        try:
            return (self.root / path).read_text()
        except FileNotFoundError:
            return ""


def mount(what: str, where: Path, kind: str, options: str = "") -> None:
    subprocess.run(["mount", "-t", kind, *(["-o", options] if options else []), what, str(where)], check=True)


def type_password(argv: list[str], password: str, env: dict[str, str]) -> str:
    """Run *argv* on a terminal, answer each of its prompts, and return all that it printed."""
    import pty
    import select
    import time

    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(argv[0], argv, env)
    text, answered, deadline = b"", 0, time.monotonic() + 30
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                piece = os.read(terminal, 4096)
            except OSError:
                break
            if not piece:
                break
            text += piece
        if text.count(b"assword:") > answered:
            os.write(terminal, password.encode() + b"\n")
            answered += 1
    os.close(terminal)
    os.waitpid(pid, 0)
    return text.decode("utf-8", "replace")


def drive(options: dict[str, Any]) -> None:
    """Make a machine, provision it, log in, write down what was seen."""
    from waagent_fabric import Fabric, install_module

    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    os.umask(0o022)
    machine = Machine(options)
    machine.make()
    source = machine.scratch / "acme_medium.py"
    source.write_text(PLUGIN + (killer() if options.get("killed") else ""))
    install_module(
        str(machine.root) + machine.site, source, {"waagent.distros": {"linux.medium": "acme_medium"}}, distribution="m"
    )
    key = machine.scratch / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ops@desk", "-f", key], check=True)
    escaped = PASSWORD.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    machine.insert(
        DOCUMENT.format(
            password=f"<UserPassword>{escaped}</UserPassword>" if options["password"] else "",
            disable=str(options["disable"]).lower(),
            key=key.with_suffix(".pub").read_text().strip(),
        )
    )
    before = machine.read("etc/ssh/sshd_config")
    seen: dict[str, Any] = {}
    try:
        with Fabric() as fabric:
            seen["kills"] = 0
            while machine.agent(fabric) == -signal.SIGKILL and seen["kills"] < 2 * len(KILLED_AFTER):
                seen["kills"] += 1
            seen["reports"] = [[one.state, one.substatus, one.description] for one in fabric.health_reports]
            seen["fingerprint told"] = fabric.role_properties
            look(machine, seen, before)
            if not options.get("refusing"):
                log_in(machine, seen, key)
            fabric.clear_records()
            first = machine.read("var/log/waagent.log")
            if not options.get("refusing"):
                machine.agent(fabric)
            added = machine.read("var/log/waagent.log")[len(first) :]
            seen["second start"] = [
                line for line in added.splitlines() if "provisioning" in line.lower() and "is loaded" not in line
            ] + [str(one) for one in fabric.health_reports]
            seen["violations"] = [str(one) for one in fabric.violations]
            seen["log"] = first[-8000:]
    finally:
        subprocess.run(["losetup", "-d", machine.loop], check=False)
    Path(options["seen"]).write_text(json.dumps(seen))


def look(machine: Machine, seen: dict[str, Any], before: str) -> None:
    root = machine.root
    seen["marker"] = machine.read("var/lib/waagent/provisioned")
    seen["sshd_config unchanged"] = machine.read("etc/ssh/sshd_config") == before
    seen["drop-ins"] = sorted(path.name for path in (root / "etc/ssh/sshd_config.d").glob("10-*"))
    if not seen["marker"]:
        return
    home = root / "home/ops"
    owner = machine.run("stat", "-c", "%U", "/home/ops/.ssh/authorized_keys").stdout.strip()
    seen["home"] = [
        owner,
        oct((home / ".ssh").stat().st_mode & 0o777),
        oct((home / ".ssh/authorized_keys").stat().st_mode & 0o777),
    ]
    shadow = machine.read("etc/shadow").splitlines()
    seen["shadow"] = next(line.split(":")[1] for line in shadow if line.startswith("ops:"))
    seen["keys"] = len((home / ".ssh/authorized_keys").read_text().splitlines())
    seen["settings"] = [
        sum(line == "PasswordAuthentication yes" for line in path.read_text().splitlines()) if path.exists() else None
        for path in (root / "etc/ssh/sshd_config", root / "etc/ssh/sshd_config.d/10-waagent.conf")
    ]
    seen["accounts"] = [
        sum(line.startswith("ops:") for line in machine.read(name).splitlines())
        for name in ("etc/passwd", "etc/shadow")
    ]
    seen["root password"] = next(line for line in shadow if line.startswith("root:"))
    seen["sudoers"] = machine.read("etc/sudoers.d/waagent").splitlines()
    seen["host keys"] = sorted(
        f"{path.name} {oct(path.stat().st_mode & 0o777)}" for path in (root / "etc/ssh").glob("ssh_host_*")
    )
    listed = machine.run("ssh-keygen", "-lf", "/etc/ssh/ssh_host_rsa_key.pub").stdout.split()[1]
    seen["fingerprint"] = listed.replace(":", "")
    seen["custom data ran as"] = machine.read("root/ran")
    places = (root / "var/lib/waagent", root / "var/log", root / "run", root / "etc")
    seen["password in"] = [
        str(path)
        for place in places
        for path in place.rglob("*")
        if path.is_file() and not path.is_symlink() and PASSWORD.encode() in path.read_bytes()
    ]


def log_in(machine: Machine, seen: dict[str, Any], key: Path) -> None:
    import socket
    import time

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        ["chroot", str(machine.root), "/usr/sbin/sshd", "-D", "-e", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=(machine.scratch / "sshd.log").open("wb"),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        quiet = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "IdentitiesOnly=yes")
        ssh = ["ssh", "-F", "none", "-p", str(port)]
        for option in quiet:
            ssh += ["-o", option]
        with_key = [*ssh, "-i", str(key), "-o", "PreferredAuthentications=publickey", "ops@127.0.0.1"]

        def ask(*words: str, data: str = "") -> str:
            done = subprocess.run(
                [*with_key, *words], input=data, capture_output=True, text=True, timeout=60, check=False
            )
            return done.stdout.strip() or done.stderr.strip()

        seen["key login"] = ask("echo $(id -un) $(uname -n)")
        with_password = [
            *ssh, "-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1",
            "-o", "PreferredAuthentications=password,keyboard-interactive", "ops@127.0.0.1", "echo user=$(id -un)",
        ]  # fmt: skip
        env = dict(os.environ)
        for name, word in (("password login", PASSWORD), ("wrong password login", WRONG)):
            text = type_password(with_password, word, env)
            seen[name] = text.partition("user=")[2].split()[0] if "user=" in text else ""
            seen["password refusal"] = text
        seen["sudo without password"] = ask("sudo -k; sudo -n id -u; true").splitlines()[-1]
        seen["sudo with password"] = ask("sudo -k; sudo -S -p '' id -u", data=PASSWORD + "\n").splitlines()[-1]
    finally:
        server.terminate()
        server.wait(10)


if __name__ == "__main__":
    drive(json.loads(Path(sys.argv[1]).read_text()))
