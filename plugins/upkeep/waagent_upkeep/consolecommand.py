"""``waagent -serialconsole``: the boot loader's configuration changed, with a copy of it kept (cli §4.6)."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from waagent import AgentError, Plan, Step, read_limited, write_atomic
from waagent_upkeep import bootloaders

if TYPE_CHECKING:
    from waagent import Agent
    from waagent_upkeep.bootloaders import Loader

DONE, FAILED = 0, 1
CONFIGURED = "Configured kernel to use ttyS0 as the boot console."
BACKUP = ".before-serialconsole"
GETTY = "serial-getty@ttyS0"

_GETTY_LINK = "/etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service"
_LIMIT = 1 << 20
_TIMEOUT = 300.0
_ARM = "On this processor the console is ttyAMA0: add console=ttyAMA0 earlycon=pl011,0xeffec000 by hand if you want it."


def run(agent: Agent, *, dry_run: bool = False, machine: str = "") -> int:
    """Do it, or show what would be done; returns the exit code.

    Args:
        agent: the command's agent.
        dry_run: only show.
        machine: the processor, as ``uname -m`` has it; default this one's.
    """
    if (machine or os.uname().machine) in ("aarch64", "arm64"):
        return _refuse(_ARM)
    loader = bootloaders.find(agent)
    if loader is None:
        return _refuse("no boot loader is found that this command knows; nothing was changed")
    console = Console(agent, loader)
    plan = console.plan()
    executor = agent.executor_in(agent.paths.run("serialconsole"))
    if dry_run:
        steps = executor.dry_run(plan)
        for step in steps:
            sys.stdout.write(f"would {step.summary}\n")
        sys.stdout.write(console.difference())
        sys.stdout.write("" if steps else "nothing to do\n")
        return DONE
    if not agent.paths.is_real:
        return _refuse("this changes how the machine starts, and is not done under another root")
    executor.journal.forget(plan.name)
    result = executor.run(plan)
    if not result.ok:
        return _refuse(f"{result.error}{console.restore()}")
    if not console.took_effect():
        where = loader.path + ".d"
        return _refuse(f"{loader.path} is changed, but the boot menu lacks it: look for {loader.key} in {where}")
    sys.stdout.write(CONFIGURED + "\n")
    return DONE


class Console:
    """The change of one boot loader's configuration.

    Args:
        agent: the command's agent.
        loader: what is changed.
    """

    def __init__(self, agent: Agent, loader: Loader) -> None:
        self._agent = agent
        self._loader = loader
        self._before: str | None = None
        self._applied: set[str] = set()
        self._getty_tried = False

    def plan(self) -> Plan:
        """Return the plan."""
        return Plan("serial console", self._probe, self._missing)

    def difference(self) -> str:
        """Return the change of the file for people to read, empty when there is none."""
        import difflib

        before = self._text()
        after = self._loader.edited(before)
        name = self._loader.path
        lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), name, name)
        return "".join(line if line.endswith("\n") else line + "\n" for line in lines)

    def restore(self) -> str:
        """Put the file back as it was; return what to tell about it."""
        if self._before is None:
            return ""
        try:
            self._write(self._before)
        except (OSError, AgentError) as problem:
            return f"; {self._loader.path} could not be put back from {self._loader.path}{BACKUP}: {problem}"
        return f"; {self._loader.path} is as it was before"

    def took_effect(self) -> bool:
        """Return whether GRUB's menu starts no kernel without the words; other loaders are taken at their word."""
        if self._loader.kind != bootloaders.GRUB:
            return True
        for name in bootloaders.GRUB_MENUS:
            try:
                text = read_limited(self._agent.paths.at(name), 16 << 20).decode("utf-8", "replace")
            except OSError:
                continue
            kernels = [
                line for line in text.split("\n") if line.split(None, 1)[:1] in (["linux"], ["linux16"], ["linuxefi"])
            ]
            return not kernels or any(bootloaders.WORDS[0] in line for line in kernels)
        return True

    def _probe(self) -> dict[str, Any]:
        text = self._text()
        edited = self._loader.edited(text) == text
        at = self._agent.paths.at
        return {
            "edited": edited,
            # An edit without its effect is finished by the next call: the commands can be repeated.
            "commands": tuple(command for command in self._loader.commands if command[-1] not in self._applied),
            "getty": not os.path.isdir(at("/run/systemd/system"))
            or os.path.lexists(at(_GETTY_LINK))
            or self._getty_tried,
        }

    def _missing(self, facts: Mapping[str, Any]) -> list[Step]:
        steps = []
        path = self._loader.path
        if not facts["edited"]:
            words = " ".join(
                bootloaders.FREEBSD_LINES if self._loader.kind == bootloaders.FREEBSD else bootloaders.WORDS
            )
            where = f"{self._loader.key} of {path}" if self._loader.key else path
            summary = f"put `{words}` into {where}, with a copy of the file in {path}{BACKUP}"
            steps.append(Step("edit", summary, self._edit, gives={"edited": True}))
        for number, command in enumerate(facts["commands"]):
            rest = facts["commands"][number + 1 :]

            def apply(command: tuple[str, ...] = command) -> None:
                self._apply(command)

            summary = f"run `{' '.join(command)}`"
            steps.append(Step(f"apply {command[-1]}", summary, apply, gives={"commands": rest}))
        if not facts["getty"]:
            summary = f"enable {GETTY}: a login prompt on the serial port"
            steps.append(Step("getty", summary, self._enable_getty, gives={"getty": True}, optional=True))
        return steps

    def _edit(self) -> None:
        before = self._text()
        if before:
            mode = stat.S_IMODE(os.stat(self._loader.path).st_mode)
            write_atomic(self._loader.path + BACKUP, before.encode("utf-8", "surrogateescape"), mode)
        self._before = before
        self._write(self._loader.edited(before))

    def _apply(self, command: tuple[str, ...]) -> None:
        self._agent.run(command, timeout=_TIMEOUT, check=True)
        self._applied.add(command[-1])

    def _enable_getty(self) -> None:
        self._getty_tried = True
        self._agent.distro.service_action(GETTY, "enable")

    def _text(self) -> str:
        try:
            return read_limited(self._loader.path, _LIMIT).decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return ""

    def _write(self, text: str) -> None:
        path = os.path.realpath(self._loader.path)
        try:
            mode = stat.S_IMODE(os.stat(path).st_mode)
        except FileNotFoundError:
            mode = 0o644
        write_atomic(path, text.encode("utf-8", "surrogateescape"), mode)


def _refuse(reason: str) -> int:
    sys.stderr.write(f"waagent: serialconsole: {reason}\n")
    return FAILED
