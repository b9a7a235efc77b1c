"""``waagent -serialconsole`` with the real GRUB 2 of Debian, in a root on a disk of its own (cli §4.6)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.distro.conftest import Cell

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

REPOSITORY = Path(__file__).resolve().parents[3]
PACKAGES = "grub-common grub2-common grub-pc-bin"
WORDS = "console=ttyS0 earlyprintk=ttyS0"
ROOT = "/run/bootable"

BUILD = r"""
root="$1"
shift
file=/run/bootable.img
truncate -s 200M $file
disk=$(losetup --find --show $file)
echo "$disk"
# GRUB starts no system from a disk that is a file: a partition of it is not looked through.
echo 'start=1MiB, type=83' | sfdisk --quiet "$disk"
partx --update "$disk"
mkfs.ext4 -q -F "${disk}p1"
mkdir -p "$root"
mount "${disk}p1" "$root"
for each in /*; do
    name=${each#/}
    [ -d "$each" ] || continue
    case "$name" in
        boot|tmp|run|mnt|lost+found) mkdir -p "$root/$name";;
        etc) cp -a /etc "$root/etc";;
        *) if [ -L "$each" ]; then cp -a "$each" "$root/$name"
           else mkdir "$root/$name"; mount --rbind "$each" "$root/$name"; fi;;
    esac
done
for each; do
    [ -e "$root$each" ] || { mkdir -p "$root$each"; mount --rbind "$each" "$root$each"; }
done
mkdir -p "$root/boot/grub"
for each in vmlinuz initrd.img; do echo "of no use" > "$root/boot/$each-6.1.0-1-amd64"; done
rm -rf "$root/etc/default/grub.d"
cp /usr/share/grub/default/grub "$root/etc/default/grub"
"""

CLEAR = r"""
umount --recursive --lazy "$1" || true
[ -z "$2" ] || { partx --delete "$2" || true; losetup --detach "$2"; }
rm -f /run/bootable.img
"""


class Bootable:
    """A root with GRUB's files, on a disk that ``grub-probe`` finds."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        # The agent and its interpreter, wherever they lie.
        done = cell.run("sh", "-ec", BUILD, "sh", ROOT, sys.prefix, sys.base_prefix, str(REPOSITORY), check=False)
        self.disk = done.stdout.strip()
        if done.returncode:
            self.close()
            pytest.skip(f"no root on a disk of its own can be made here: {done.stderr.strip()[-300:]}")

    def close(self) -> None:
        self.cell.shell(CLEAR, ROOT, self.disk)

    def inside(self, *command: str, check: bool = True) -> tuple[int, str, str]:
        done = self.cell.run("chroot", ROOT, *command, check=check)
        return done.returncode, done.stdout, done.stderr

    def serialconsole(self, *options: str) -> tuple[int, str, str]:
        return self.inside(sys.executable, "-m", "waagent", "-serialconsole", *options, check=False)

    def read(self, path: str) -> str:
        return self.cell.read(ROOT + path)

    def write(self, path: str, text: str) -> None:
        self.cell.write(ROOT + path, text)

    def kernels(self, menu: str = "/boot/grub/grub.cfg") -> list[str]:
        return [" ".join(line.split()) for line in self.read(menu).splitlines() if line.split()[:1] == ["linux"]]


@pytest.fixture(scope="module")
def grub(cell: Cell) -> Cell:
    if not cell.has("update-grub") or not cell.has("losetup"):
        script = f"apt-get -qq update; apt-get -qq -y --no-install-recommends install {PACKAGES}"
        environment = {"DEBIAN_FRONTEND": "noninteractive"}
        done = cell.run("sh", "-c", script, check=False, timeout=600, env=environment)
        if done.returncode:
            pytest.skip(f"{PACKAGES} cannot be installed: {done.stderr.strip()[-300:]}")
    return cell


@pytest.fixture
def bootable(grub: Cell) -> Iterator[Bootable]:
    found = Bootable(grub)
    try:
        code, _out, err = found.inside("update-grub", check=False)
        if code:
            pytest.skip(f"GRUB finds no disk under its root here: {err.strip()[-300:]}")
        yield found
    finally:
        found.close()


def test_debians_menu_gets_the_words_and_keeps_them_once(bootable: Bootable) -> None:
    before, menu = bootable.read("/etc/default/grub"), bootable.read("/boot/grub/grub.cfg")
    assert bootable.kernels()
    assert WORDS not in menu

    code, out, _err = bootable.serialconsole("--dry-run")
    assert code == 0
    assert f'+GRUB_CMDLINE_LINUX_DEFAULT="quiet {WORDS}"' in out
    assert "would run `update-grub`" in out
    assert bootable.read("/etc/default/grub") == before
    assert bootable.read("/boot/grub/grub.cfg") == menu

    for _ in range(2):
        code, out, err = bootable.serialconsole()
        assert (code, out) == (0, "Configured kernel to use ttyS0 as the boot console.\n"), err
        assert bootable.kernels()[0].endswith(f"ro quiet {WORDS}")
        assert bootable.read("/etc/default/grub") == before.replace('"quiet"', f'"quiet {WORDS}"')
        assert bootable.read("/etc/default/grub.before-serialconsole") == before
    assert bootable.inside("grub-script-check", "/boot/grub/grub.cfg")[0] == 0


def test_a_menu_that_cannot_be_made_leaves_the_file_as_it_was(bootable: Bootable) -> None:
    bootable.write("/etc/grub.d/99_acme", "#!/bin/sh\nexit 1\n")
    bootable.inside("chmod", "0755", "/etc/grub.d/99_acme")
    before, menu = bootable.read("/etc/default/grub"), bootable.read("/boot/grub/grub.cfg")
    code, out, err = bootable.serialconsole()
    assert (code, out) == (1, "")
    assert "/etc/default/grub is as it was before" in err
    assert bootable.read("/etc/default/grub") == before
    assert bootable.read("/boot/grub/grub.cfg") == menu


def test_a_login_prompt_comes_with_it_where_systemd_starts_the_machine(bootable: Bootable) -> None:
    link = "/etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service"
    bootable.inside("rm", "-f", link)
    bootable.inside("mkdir", "-p", "/run/systemd/system")
    assert "would enable serial-getty@ttyS0" in bootable.serialconsole("--dry-run")[1]
    assert bootable.serialconsole()[0] == 0
    target = bootable.inside("readlink", link)[1].strip()
    assert target.endswith("/lib/systemd/system/serial-getty@.service")
    assert "serial-getty" not in bootable.serialconsole("--dry-run")[1]


def test_words_that_an_images_file_overrides_are_said(bootable: Bootable) -> None:
    bootable.write("/etc/default/grub.d/50-image.cfg", 'GRUB_CMDLINE_LINUX_DEFAULT="console=tty1"\n')
    code, out, err = bootable.serialconsole()
    assert (code, out) == (1, "")
    assert "look for GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub.d" in err
    assert not any("ttyS0" in line for line in bootable.kernels())


def test_the_other_family_makes_its_menu_where_it_lies(bootable: Bootable) -> None:
    # The same GRUB under the name and in the place that Fedora, SUSE and Azure Linux know.
    bootable.inside("rm", "/etc/os-release")  # a link into /usr, which is the cell's
    bootable.write("/etc/os-release", "ID=azurelinux\nVERSION_ID=3.0\n")
    bootable.cell.shell(
        'mkdir "$1/boot/grub2"; mv "$1/boot/grub/grub.cfg" "$1/boot/grub2"; cd /usr/sbin;'
        " ln -sf grub-mkconfig grub2-mkconfig; mv update-grub update-grub.away",
        ROOT,
    )
    try:
        code, _out, err = bootable.serialconsole()
        assert code == 0, err
        assert f'GRUB_CMDLINE_LINUX="{WORDS}"' in bootable.read("/etc/default/grub")
        kernels = bootable.kernels("/boot/grub2/grub.cfg")
        assert kernels
        assert all(WORDS in line for line in kernels), "the one for repairs too"
    finally:
        bootable.cell.shell("cd /usr/sbin; rm -f grub2-mkconfig; mv update-grub.away update-grub")
