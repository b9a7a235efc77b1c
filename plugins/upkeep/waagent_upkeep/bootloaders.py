"""Boot loaders: which one is here, what its configuration is to say, and how it takes effect (cli §4.6). Pure texts."""

from __future__ import annotations

import glob
import os
import re
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from waagent import Agent

WORDS = ("console=ttyS0", "earlyprintk=ttyS0")
"""What the kernel is told."""
GRUB, GRUB_1, SYSTEMD_BOOT, FREEBSD = "GRUB 2", "GRUB 1", "systemd-boot", "FreeBSD's loader"

GRUB_FILE = "/etc/default/grub"
GRUB_MENUS = ("/boot/grub2/grub.cfg", "/boot/grub/grub.cfg")
GRUB_CONFIGURATIONS = (*GRUB_MENUS, "/etc/grub2.cfg", "/etc/grub2-efi.cfg", "/boot/efi/EFI/*/grub.cfg")
GRUB_1_FILES = ("/boot/grub/menu.lst", "/boot/grub/grub.conf")
SYSTEMD_BOOT_FILE = "/etc/kernel/cmdline"
FREEBSD_FILE = "/boot/loader.conf"
FREEBSD_LINES = ('console="comconsole,vidconsole"', 'comconsole_speed="115200"')

_DEBIAN = ("debian", "ubuntu")
_PROGRAMS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin")


@attrs.frozen(eq=False, repr=False)
class Loader:
    """The boot loader of this machine.

    Attributes:
        kind: its name.
        path: its configuration.
        key: of GRUB 2: the variable that holds the kernel's words.
        commands: what makes a change take effect, in order.
    """

    kind: str
    path: str
    key: str = ""
    commands: tuple[tuple[str, ...], ...] = ()

    def edited(self, text: str) -> str:
        """Return *text* with the serial console in it; the same text when it is there."""
        if self.kind == GRUB:
            return edit_variable(text, self.key)
        if self.kind == GRUB_1:
            return edit_kernel_lines(text)
        if self.kind == SYSTEMD_BOOT:
            return with_words(text.strip()) + "\n" if with_words(text.strip()) != text.strip() else text
        return edit_loader_conf(text)


def find(agent: Agent) -> Loader | None:
    """Return the boot loader of the machine, ``None`` for one that is not known."""
    at = agent.paths.at
    facts = agent.distro.facts
    if facts.base == "posix":
        return Loader(FREEBSD, at(FREEBSD_FILE)) if facts.id == "freebsd" or "freebsd" in facts.id_like else None
    if os.path.exists(at(GRUB_FILE)):
        debian = any(word in _DEBIAN for word in (facts.id, *facts.id_like))
        key = "GRUB_CMDLINE_LINUX_DEFAULT" if debian else "GRUB_CMDLINE_LINUX"
        commands = _grub_commands(agent, debian)
        return Loader(GRUB, at(GRUB_FILE), key, commands) if commands else None
    for name in GRUB_1_FILES:
        if os.path.exists(at(name)):
            return Loader(GRUB_1, at(name))
    if os.path.exists(at(SYSTEMD_BOOT_FILE)) and _program(agent, "kernel-install"):
        kernels = sorted(glob.glob(at("/lib/modules/*/vmlinuz")))
        commands = tuple(("kernel-install", "add", path.split(os.sep)[-2], path) for path in kernels)
        return Loader(SYSTEMD_BOOT, at(SYSTEMD_BOOT_FILE), commands=commands)
    return None


def with_words(value: str) -> str:
    """Return the kernel's command line *value* with the words that are missing."""
    present = value.split()
    lacking = [word for word in WORDS if not any(one == word or one.startswith(word + ",") for one in present)]
    return " ".join([value, *lacking]) if lacking and value else " ".join(lacking) or value


def edit_variable(text: str, key: str) -> str:
    """Return the shell file *text* with the words in the variable *key*; the last assignment is the one that counts."""
    form = re.compile(rf"^(\s*{key}=)(?:\"([^\"]*)\"|'([^']*)'|([^\s#\"']*))(.*)$")
    lines = text.split("\n")
    for number in range(len(lines) - 1, -1, -1):
        match = form.match(lines[number])
        if match is None:
            continue
        head, double, single, bare, rest = match.groups()
        quote = "'" if single is not None else '"'
        value = next(one for one in (double, single, bare) if one is not None)
        if with_words(value) == value:
            return text
        lines[number] = f"{head}{quote}{with_words(value)}{quote}{rest}"
        return "\n".join(lines)
    return text.rstrip("\n") + ("\n" if text.strip() else "") + f'{key}="{" ".join(WORDS)}"\n'


def edit_kernel_lines(text: str) -> str:
    """Return the menu of GRUB 1 with the words in each line that begins with ``kernel``."""
    lines = text.split("\n")
    return "\n".join(with_words(line) if line.split(None, 1)[:1] == ["kernel"] else line for line in lines)


def edit_loader_conf(text: str) -> str:
    """Return ``loader.conf`` with the serial port as console; what it says of these keys otherwise is replaced."""
    for wanted in FREEBSD_LINES:
        key = wanted.partition("=")[0]
        lines = text.split("\n")
        present = [line for line in lines if line.strip().startswith(key + "=")]
        if any("comconsole" in line if key == "console" else line for line in present[-1:]):
            continue
        kept = "\n".join(line for line in lines if line not in present).rstrip("\n")
        text = f"{kept}\n{wanted}\n" if kept else f"{wanted}\n"
    return text


def _grub_commands(agent: Agent, debian: bool) -> tuple[tuple[str, ...], ...]:
    if not debian and _program(agent, "grubby"):
        return (("grubby", "--update-kernel=ALL", f"--args={' '.join(WORDS)}"),)
    if _program(agent, "update-grub"):
        return (("update-grub",),)
    for program in ("grub2-mkconfig", "grub-mkconfig"):
        if _program(agent, program):
            for pattern in GRUB_CONFIGURATIONS:
                found = sorted(glob.glob(agent.paths.at(pattern)))
                if found:
                    return ((program, "-o", found[0]),)
    return ()


def _program(agent: Agent, name: str) -> bool:
    return any(os.path.exists(agent.paths.at(os.path.join(place, name))) for place in _PROGRAMS)
