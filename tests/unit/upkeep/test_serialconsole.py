"""``waagent -serialconsole``: each boot loader of cli §4.6, dry run, backup, and what goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.upkeep.machine import Machine
from waagent import CommandError
from waagent.commands import Completed
from waagent.distro import DistroFacts
from waagent_upkeep import bootloaders, consolecommand

BOTH = "console=ttyS0 earlyprintk=ttyS0"
GRUB = 'GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT="quiet splash"\nGRUB_CMDLINE_LINUX=""\n'


class Bootable(Machine):
    """A machine whose boot loader can be changed."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(root, role="cli")
        self.failing: set[str] = set()
        monkeypatch.setattr(type(self.paths), "is_real", True)

    def run(self, argv: tuple[str, ...], *, check: bool = False, **_: Any) -> Completed:
        self.commands.append(argv)
        done = Completed(argv, int(argv[0] in self.failing), "", "out of disk space")
        if check and not done.ok:
            raise CommandError(done.describe(), argv, done.returncode)
        return done

    def install(self, *programs: str) -> None:
        for program in programs:
            self.write(f"/usr/sbin/{program}")

    def is_a(self, identity: str, *likes: str, base: str = "linux") -> None:
        self.distro.facts = DistroFacts(identity, likes, base=base)

    def command(self, *, dry_run: bool = False, machine: str = "x86_64") -> int:
        return consolecommand.run(self, dry_run=dry_run, machine=machine)  # type: ignore[arg-type]


@pytest.fixture
def bootable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bootable:
    return Bootable(tmp_path / "root", monkeypatch)


def test_debian(bootable: Bootable, capsys: pytest.CaptureFixture[str]) -> None:
    bootable.is_a("ubuntu", "debian")
    bootable.install("update-grub", "grubby")
    path = bootable.write("/etc/default/grub", GRUB)
    path.chmod(0o640)
    assert bootable.command() == 0
    assert f'GRUB_CMDLINE_LINUX_DEFAULT="quiet splash {BOTH}"' in path.read_text()
    assert path.read_text().replace(" " + BOTH, "") == GRUB, "nothing else is changed"
    assert bootable.commands == [("update-grub",)]
    assert bootable.read("/etc/default/grub.before-serialconsole") == GRUB
    assert path.stat().st_mode & 0o777 == 0o640
    assert capsys.readouterr().out == "Configured kernel to use ttyS0 as the boot console.\n"
    once = path.read_text()
    assert bootable.command() == 0
    assert path.read_text() == once
    assert bootable.read("/etc/default/grub.before-serialconsole") == GRUB, "the copy is of what was there before"


@pytest.mark.parametrize(
    ("programs", "configuration", "command"),
    [
        (("grubby", "grub2-mkconfig"), None, ("grubby", "--update-kernel=ALL", f"--args={BOTH}")),
        (("grub2-mkconfig",), "/boot/grub2/grub.cfg", ("grub2-mkconfig", "-o", "{root}/boot/grub2/grub.cfg")),
        (
            ("grub2-mkconfig",),
            "/boot/efi/EFI/redhat/grub.cfg",
            ("grub2-mkconfig", "-o", "{root}/boot/efi/EFI/redhat/grub.cfg"),
        ),
    ],
)
def test_red_hat(
    bootable: Bootable, programs: tuple[str, ...], configuration: str | None, command: tuple[str, ...]
) -> None:
    bootable.is_a("rhel", "fedora")
    bootable.install(*programs)
    if configuration:
        bootable.write(configuration)
    path = bootable.write("/etc/default/grub", 'GRUB_CMDLINE_LINUX="crashkernel=auto"\n')
    assert bootable.command() == 0
    assert path.read_text() == f'GRUB_CMDLINE_LINUX="crashkernel=auto {BOTH}"\n'
    assert bootable.commands == [tuple(word.format(root=bootable.root) for word in command)]


def test_a_dry_run_shows_the_change_and_makes_none(bootable: Bootable, capsys: pytest.CaptureFixture[str]) -> None:
    bootable.is_a("debian")
    bootable.install("update-grub")
    path = bootable.write("/etc/default/grub", GRUB)
    before = sorted(bootable.root.rglob("*"))
    assert bootable.command(dry_run=True) == 0
    out = capsys.readouterr().out
    assert "would run `update-grub`" in out
    assert f'+GRUB_CMDLINE_LINUX_DEFAULT="quiet splash {BOTH}"' in out
    assert (path.read_text(), bootable.commands, sorted(bootable.root.rglob("*"))) == (GRUB, [], before)


def test_a_boot_loader_that_refuses_leaves_the_file_as_it_was(
    bootable: Bootable, capsys: pytest.CaptureFixture[str]
) -> None:
    bootable.is_a("debian")
    bootable.install("update-grub")
    path = bootable.write("/etc/default/grub", GRUB)
    bootable.failing.add("update-grub")
    for _ in range(4):
        assert bootable.command() == 1
        assert path.read_text() == GRUB
    assert "out of disk space" in capsys.readouterr().err
    bootable.failing.clear()
    assert bootable.command() == 0, "and it can be tried as often as it takes"


def test_a_drop_in_that_takes_the_words_away_again(bootable: Bootable, capsys: pytest.CaptureFixture[str]) -> None:
    bootable.is_a("debian")
    bootable.install("update-grub")
    bootable.write("/etc/default/grub", GRUB)
    bootable.write("/boot/grub/grub.cfg", "menuentry x {\n\tlinux /vmlinuz root=/dev/sda1 quiet\n}\n")
    assert bootable.command() == 1
    assert "look for GRUB_CMDLINE_LINUX_DEFAULT in" in capsys.readouterr().err
    bootable.write("/boot/grub/grub.cfg", f"menuentry x {{\n\tlinux /vmlinuz quiet {BOTH}\n}}\n")
    assert bootable.command() == 0


def test_grub_1(bootable: Bootable) -> None:
    path = bootable.write("/boot/grub/menu.lst", "title x\n\tkernel /vmlinuz ro quiet\n\tinitrd /initrd\n")
    assert bootable.command() == 0
    assert path.read_text() == f"title x\n\tkernel /vmlinuz ro quiet {BOTH}\n\tinitrd /initrd\n"
    assert bootable.commands == []


def test_systemd_boot(bootable: Bootable) -> None:
    path = bootable.write("/etc/kernel/cmdline", "root=/dev/sda1 ro\n")
    kernel = bootable.write("/lib/modules/6.1.0/vmlinuz")
    bootable.install("kernel-install")
    assert bootable.command() == 0
    assert path.read_text() == f"root=/dev/sda1 ro {BOTH}\n"
    assert bootable.commands == [("kernel-install", "add", "6.1.0", str(kernel))]


def test_freebsd(bootable: Bootable) -> None:
    bootable.is_a("freebsd", base="posix")
    path = bootable.write("/boot/loader.conf", 'autoboot_delay="2"\nconsole="vidconsole"\n')
    assert bootable.command() == 0
    assert path.read_text() == ('autoboot_delay="2"\nconsole="comconsole,vidconsole"\ncomconsole_speed="115200"\n')
    once = path.read_text()
    assert bootable.command() == 0
    assert path.read_text() == once


@pytest.mark.parametrize("machine", ["aarch64", "arm64"])
def test_on_arm_nothing_is_guessed(bootable: Bootable, machine: str, capsys: pytest.CaptureFixture[str]) -> None:
    bootable.is_a("debian")
    bootable.install("update-grub")
    bootable.write("/etc/default/grub", GRUB)
    assert bootable.command(machine=machine) == 1
    assert "ttyAMA0" in capsys.readouterr().err
    assert bootable.read("/etc/default/grub") == GRUB


def test_an_unknown_boot_loader(bootable: Bootable, capsys: pytest.CaptureFixture[str]) -> None:
    assert bootable.command() == 1
    assert "no boot loader is found" in capsys.readouterr().err


def test_another_root_is_not_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = Machine(tmp_path / "root", role="cli")
    machine.write("/boot/grub/menu.lst", "kernel /vmlinuz\n")
    assert consolecommand.run(machine, machine="x86_64") == 1
    assert machine.read("/boot/grub/menu.lst") == "kernel /vmlinuz\n"


def test_a_login_prompt_is_enabled_where_systemd_runs(bootable: Bootable) -> None:
    bootable.write("/boot/grub/menu.lst", "kernel /vmlinuz\n")
    (bootable.root / "run/systemd/system").mkdir(parents=True)
    bootable.distro.answers["service_action"] = OSError("no such unit")
    assert bootable.command() == 0, "the console works without it"
    assert bootable.distro.asked("service_action") == [("serial-getty@ttyS0", "enable")]


KEY = "GRUB_CMDLINE_LINUX"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f'{KEY}="{BOTH}"\n'),
        (f"{KEY}=\n", f'{KEY}="{BOTH}"\n'),
        (f'{KEY}=""\n', f'{KEY}="{BOTH}"\n'),
        (f"{KEY}='quiet'\n", f"{KEY}='quiet {BOTH}'\n"),
        (f"{KEY}=quiet\n", f'{KEY}="quiet {BOTH}"\n'),
        (f'{KEY}="a" # why\n', f'{KEY}="a {BOTH}" # why\n'),
        (f'{KEY}="a"\n{KEY}="${KEY} b"\n', f'{KEY}="a"\n{KEY}="${KEY} b {BOTH}"\n'),
        (f'{KEY}="console=ttyS0,115200n8"\n', f'{KEY}="console=ttyS0,115200n8 earlyprintk=ttyS0"\n'),
        (f'{KEY}="{BOTH}"\n', f'{KEY}="{BOTH}"\n'),
        (f'#{KEY}="a"\n', f'#{KEY}="a"\n{KEY}="{BOTH}"\n'),
        (f'{KEY}_DEFAULT="a"', f'{KEY}_DEFAULT="a"\n{KEY}="{BOTH}"\n'),
    ],
)
def test_the_variable_is_edited_in_place(before: str, after: str) -> None:
    assert bootloaders.edit_variable(before, KEY) == after


@given(st.text(alphabet="abKEYGRUB_CMDLINE_LINUX=\"' \n#", max_size=60))
def test_editing_twice_is_editing_once(text: str) -> None:
    once = bootloaders.edit_variable(text, KEY)
    assert bootloaders.edit_variable(once, KEY) == once
    for edit in (bootloaders.edit_kernel_lines, bootloaders.edit_loader_conf):
        assert edit(edit(text)) == edit(text)
