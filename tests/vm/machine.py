"""A real Debian under QEMU, at the platform's addresses: built once, booted from throw-away overlays.

The root file system is made by ``mmdebstrap`` from the distribution's own packages and kept under ``build/vm``; each
machine gets its own copy-on-write disk. Everything runs inside the network namespace of the process that starts it, so
the guest reaches an embedded platform at 168.63.129.16 and 169.254.169.254 as it would on the platform.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parent.parent.parent
BUILD = REPOSITORY / "build" / "vm"
SUITE = "bookworm"
PACKAGES = (
    "systemd,systemd-sysv,udev,dbus,linux-image-cloud-amd64,openssh-server,sudo,python3,python3-pluggy,python3-attr,"
    "python3-cryptography,python3-requests,python3-stevedore,iproute2,iptables,isc-dhcp-client,ifupdown,parted,fdisk,"
    "e2fsprogs,ca-certificates,procps,eject,netbase,openssl,kmod,dosfstools,python3-pytest,cloud-init"
)
TOOLS = ("mmdebstrap", "qemu-system-x86_64", "qemu-img", "genisoimage", "mke2fs", "ssh", "ssh-keygen", "ip")
CLONE_NEWNET = 0x40000000
HOSTNAME = "waagent-image"
MAC = "00:0d:3a:00:00:01"
"""What the embedded platform's metadata says of the machine's only interface."""


def missing_tools() -> list[str]:
    """Return the tools that are not installed."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def enter_network() -> None:
    """Leave the machine's network for one of our own that carries the platform's addresses on its loopback."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
    bring_up_addresses()


def bring_up_addresses() -> None:
    """Put the platform's addresses on the loopback of this network."""
    for command in (
        "ip link set lo up",
        "ip addr add 168.63.129.16/32 dev lo",
        "ip addr add 169.254.169.254/32 dev lo",
    ):
        subprocess.run(command.split(), check=True)


def base_tree() -> Path:
    """Return the archive of the distribution's root file system, made when it is not there."""
    key = hashlib.sha256(f"{SUITE} {PACKAGES}".encode()).hexdigest()[:12]
    archive = BUILD / f"{SUITE}-{key}.tar"
    if not archive.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        partial = archive.with_suffix(".partial.tar")
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", SUITE, partial], check=True
        )
        partial.rename(archive)
    return archive


def unpack(root: Path) -> None:
    """Unpack the distribution's root file system into *root*, which is made."""
    root.mkdir(parents=True)
    subprocess.run(["tar", "-C", root, "-xf", base_tree()], check=True)
    # Installed, and off where a test does not turn it on.
    (root / "etc/cloud/cloud-init.disabled").touch()


def install_agent(root: Path, wheel: Path, conf: str) -> None:
    """Install the agent with its unit file, as a package would, below *root*."""
    target = root / "usr/lib/python3/dist-packages"
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "install", "--no-deps", "--no-compile", "--target", target, wheel],
        check=True,
    )
    shutil.rmtree(target / "bin", ignore_errors=True)
    packages = [f"/{path.relative_to(root)}" for path in target.glob("waagent*") if path.suffix != ".dist-info"]
    subprocess.run(["chroot", root, "python3", "-m", "compileall", "-q", *packages], check=True)
    script = root / "usr/sbin/waagent"
    shutil.copy(REPOSITORY / "packaging/sbin/waagent", script)
    script.chmod(0o755)
    shutil.copy(REPOSITORY / "packaging/systemd/waagent.service", root / "lib/systemd/system/waagent.service")
    (root / "etc/waagent.conf").write_text(conf)


class Image:
    """A bootable system disk with the agent installed, and the kernel that boots it.

    Args:
        folder: where the disk, the kernel and the initial file system go.
        wheel: the agent's wheel; ``None`` leaves the machine without an agent.
        conf: the content of ``/etc/waagent.conf``.
        prepare: called with the unpacked root file system before the disk is made.
        enable: whether the agent starts at boot.
    """

    def __init__(
        self,
        folder: Path,
        wheel: Path | None,
        conf: str = "",
        *,
        prepare: Callable[[Path], None] | None = None,
        enable: bool = True,
    ) -> None:
        self.folder = folder
        self.disk = folder / "system.img"
        self.kernel = folder / "kernel"
        self.initrd = folder / "initrd"
        root = folder / "root"
        unpack(root)
        self._system(root)
        if wheel is not None:
            install_agent(root, wheel, conf)
            self._unit(root, enable)
        if prepare is not None:
            prepare(root)
        for pattern, target in (("vmlinuz-*", self.kernel), ("initrd.img-*", self.initrd)):
            shutil.copy(next((root / "boot").glob(pattern)), target)
        with self.disk.open("wb") as stream:
            stream.truncate(3 << 30)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, self.disk], check=True)
        shutil.rmtree(root)

    @staticmethod
    def _system(root: Path) -> None:
        (root / "etc/hostname").write_text(f"{HOSTNAME}\n")
        (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {HOSTNAME}\n")
        (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
        interfaces = root / "etc/network/interfaces.d"
        interfaces.mkdir(parents=True, exist_ok=True)
        (interfaces / "eth0").write_text("auto eth0\niface eth0 inet dhcp\n")
        # A machine nobody prepared has no way in: the serial console is for tests that look for a fault.
        subprocess.run(["chroot", root, "passwd", "-l", "root"], check=True, capture_output=True)

    @staticmethod
    def _unit(root: Path, enable: bool) -> None:
        drop_in = root / "etc/systemd/system/waagent.service.d"
        drop_in.mkdir(parents=True)
        # The unit is for the platform's hypervisor; this machine has another one.
        (drop_in / "test.conf").write_text("[Unit]\nConditionVirtualization=\nConditionVirtualization=vm\n")
        if enable:
            subprocess.run(["systemctl", f"--root={root}", "enable", "waagent"], check=False, capture_output=True)
            wants = root / "etc/systemd/system/multi-user.target.wants"
            wants.mkdir(parents=True, exist_ok=True)
            link = wants / "waagent.service"
            if not link.is_symlink():
                link.symlink_to("/lib/systemd/system/waagent.service")


def make_dvd(path: Path, files: dict[str, str | bytes]) -> Path:
    """Write a provisioning medium as the platform attaches it; return its path."""
    folder = path.with_suffix(".d")
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    subprocess.run(["genisoimage", "-quiet", "-udf", "-o", path, folder], check=True)
    shutil.rmtree(folder)
    return path


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fat_disk(root: Path, path: Path) -> list[str]:
    """Make a disk with one FAT partition at *path*, with the tools below *root*; return QEMU's arguments for it."""
    scratch = root / "tmp/disk.img"
    with scratch.open("wb") as stream:
        stream.truncate(128 << 20)
    table = "label: dos\nstart=2048, type=c\n"
    for command in ("sfdisk --quiet /tmp/disk.img", "mkfs.vfat --offset 2048 -n PLATFORM /tmp/disk.img"):
        subprocess.run(["chroot", root, *command.split()], input=table.encode(), check=True, capture_output=True)
    shutil.move(scratch, path)
    return [
        "-device", "virtio-scsi-pci", "-drive", f"file={path},if=none,id=resource,format=raw",
        "-device", "scsi-hd,drive=resource,serial=temporary",
    ]  # fmt: skip


def put_tests(root: Path, *names: str) -> None:
    """Copy files below ``tests`` to the machine, for :meth:`Machine.run_tests`."""
    for name in names:
        target = root / "opt/waagent-tests/tests" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / "tests" / name, target)


class Machine:
    """One virtual machine.

    Args:
        image: what it boots.
        folder: where its overlay and its console go.
        dvd: a provisioning medium in the drive.
        drives: more QEMU arguments (a resource disk, say).
        uuid: the machine's DMI identity.
        memory: MiB.
    """

    def __init__(
        self,
        image: Image,
        folder: Path,
        *,
        dvd: Path | None = None,
        drives: Sequence[str] = (),
        uuid: str = "f1ab0000-0000-4000-8000-000000000001",
        memory: int = 1024,
    ) -> None:
        self.image = image
        self.folder = folder
        self.console_path = folder / "console.log"
        self.port = free_port()
        self.user = "azureuser"
        self.key: Path | None = None
        self.process: subprocess.Popen[bytes] | None = None
        overlay = folder / "overlay.qcow2"
        folder.mkdir(parents=True, exist_ok=True)
        if not overlay.exists():
            subprocess.run(
                ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image.disk, overlay], check=True
            )
        asset = "7783-7084-3265-9085-8269-3286-77"
        self._argv = [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(memory),
            "-nographic", "-no-reboot", "-serial", "mon:stdio",
            "-kernel", str(image.kernel), "-initrd", str(image.initrd),
            "-append", "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet",
            "-drive", f"file={overlay},if=virtio,format=qcow2",
            "-netdev", f"user,id=n0,hostfwd=tcp:127.0.0.1:{self.port}-:22",
            "-device", f"virtio-net-pci,netdev=n0,mac={MAC}",
            "-uuid", uuid, "-smbios", f"type=3,asset={asset}",
            *(["-drive", f"file={dvd},media=cdrom,readonly=on"] if dvd else []),
            *drives,
        ]  # fmt: skip

    def start(self) -> Machine:
        """Switch it on; returns itself at once."""
        with self.console_path.open("ab") as console:
            self.process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        return self

    def power_cut(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def wait_until_off(self, timeout: float = 90) -> None:
        """Wait until the guest has switched itself off."""
        assert self.process is not None
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.power_cut()
            raise
        self.process = None

    def __enter__(self) -> Machine:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.power_cut()

    @property
    def console(self) -> str:
        """What the machine printed on its serial console."""
        if not self.console_path.exists():
            return ""
        text = self.console_path.read_text(errors="replace")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)

    def ssh_argv(self, *options: str) -> list[str]:
        """Return the ssh command that logs in with the deployed key."""
        key = ["-i", str(self.key), "-o", "IdentitiesOnly=yes"] if self.key else []
        return [
            "ssh", "-q", "-p", str(self.port), *key, "-o", "StrictHostKeyChecking=no",
            "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=10", "-o", "BatchMode=yes",
            *options, f"{self.user}@127.0.0.1",
        ]  # fmt: skip

    def ssh(self, command: str, *, check: bool = True, timeout: float = 90) -> str:
        """Run *command* in the guest; return what it printed.

        Raises:
            AssertionError: it failed; the message holds what it said.
        """
        done = subprocess.run([*self.ssh_argv(), command], capture_output=True, text=True, timeout=timeout, check=False)
        if check:
            assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def read(self, path: str) -> str:
        """Return the content of a file that only root may read."""
        return self.ssh(f"sudo cat {shlex.quote(path)}")

    def run_tests(self, *names: str, timeout: float = 240) -> str:
        """Run tests inside the guest, as root; return what pytest said.

        Raises:
            AssertionError: one failed or was skipped; the message holds what pytest said.
        """
        files = " ".join(f"tests/{name}" for name in names)
        pytest = "python3 -m pytest -p no:cacheprovider -q -ra --import-mode=importlib -o 'markers=system: root'"
        said = self.ssh(f"cd /opt/waagent-tests && sudo env PYTHONPATH=. {pytest} {files}", timeout=timeout)
        assert "skipped" not in said, said
        return said

    def disk_file(self, path: str) -> str | None:
        """Return a file of the system disk of a machine that is off, ``None`` when it is not there."""
        said, complaint = self._debugfs(f"cat {path}")
        return None if "File not found" in complaint else said

    def disk_names(self, path: str) -> list[str]:
        """Return the names in a directory of the system disk of a machine that is off."""
        said, complaint = self._debugfs(f"ls -p {path}")
        assert "File not found" not in complaint, complaint
        names = [line.split("/")[5] for line in said.splitlines() if line.count("/") >= 6]
        return sorted(set(names) - {".", "..", ""})

    def _debugfs(self, request: str) -> tuple[str, str]:
        assert self.process is None, "it is on"
        raw = self.folder / "off.img"
        if not raw.exists():
            subprocess.run(["qemu-img", "convert", "-O", "raw", self.folder / "overlay.qcow2", raw], check=True)
        done = subprocess.run(["debugfs", "-R", request, raw], capture_output=True, check=True)
        return done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")

    def wait_for(self, condition: Callable[[], T], timeout: float, what: str) -> T:
        """Wait until *condition* is true.

        Raises:
            AssertionError: it stayed false, or the machine ended; the message holds the end of the console.
        """
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            ended = self.process is None or self.process.poll() is not None
            if ended or time.monotonic() > deadline:
                tail = "\n".join(self.console.splitlines()[-40:])
                raise AssertionError(f"{what}: not within {timeout} s{' (the machine ended)' if ended else ''}\n{tail}")
            threading.Event().wait(0.5)

    def wait_for_login(self, timeout: float = 240) -> None:
        """Wait until the user can log in."""

        def in_already() -> bool:
            try:
                return self.ssh("true", check=False, timeout=20) == "" and self._answers()
            except subprocess.TimeoutExpired:
                return False

        self.wait_for(in_already, timeout, "a login by ssh")

    def _answers(self) -> bool:
        done = subprocess.run([*self.ssh_argv(), "echo here"], capture_output=True, text=True, timeout=30, check=False)
        return done.stdout.strip() == "here"


def new_key(folder: Path) -> Path:
    """Make an ssh key pair; return the private key's path (the public one has ``.pub``)."""
    path = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def built_wheel() -> Path:
    """Return the wheel of this checkout: the one that ``make`` built unless a source is newer, else one built now."""
    sources = [REPOSITORY / "pyproject.toml"]
    for folder in ("core", "plugins", "fabric"):
        sources += [path for path in (REPOSITORY / folder).rglob("*") if path.suffix != ".pyc" and path.is_file()]
    newest = max(path.stat().st_mtime for path in sources)
    target = BUILD / "wheel"
    for folder in (REPOSITORY / "build/.venv-run", target):
        for wheel in folder.glob("waagent-*.whl"):
            if wheel.stat().st_mtime >= newest:
                return wheel
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--wheel-dir", target, REPOSITORY], check=True
    )
    return next(target.glob("waagent-*.whl"))


@contextlib.contextmanager
def platform() -> Iterator[Any]:
    """Serve the embedded platform at its real addresses."""
    from waagent_fabric import Fabric

    with Fabric.at_real_addresses() as fabric:
        yield fabric


def as_root() -> bool:
    """Return whether namespaces and disks can be made."""
    return os.geteuid() == 0
