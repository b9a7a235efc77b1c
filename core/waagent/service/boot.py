"""The boot stage: lists the plugins, asks them what has to be done, and does it by phase (ruling 14, architecture §3).

It runs at every start of the service; facts decide what is missing, so with nothing to do it ends at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from waagent.agent import BOOT, Agent, make_agent
from waagent.errors import ConfigError
from waagent.files import write_json
from waagent.plugins import PluginHost
from waagent.service.beats import BOOT_RESULT, DONE, PLUGIN_LIST
from waagent.service.lock import Lock
from waagent.service.vmidentity import VmIdentity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from waagent.plan import Plan
    from waagent.service.start import Options

EARLY, DISK, PROVISION, AFTER, BACKGROUND = "early", "disk", "provision", "after", "background"
PHASES = (EARLY, DISK, PROVISION, AFTER, BACKGROUND)
"""``disk`` runs beside ``provision``; ``background`` (swap) follows all of them, and nobody waits for it."""

CONSOLE_END = "End of log to /dev/console. The agent will now check for updates and then will process extensions."
_LOCK_LOOK = 0.1
DISK_LIMIT = 300.0
"""Seconds after which the disk phase is not waited for: steps have deadlines, looking at a dead disk has none."""


class BootStage:
    """One run of the boot stage.

    Args:
        agent: the boot stage's agent, plugins loaded.
        report_fd: where to write that the work is done; ``None`` when started by hand.
    """

    def __init__(self, agent: Agent, report_fd: int | None) -> None:
        self._agent = agent
        self._report_fd = report_fd
        self._lock = threading.Lock()
        self._results: list[dict[str, Any]] = []
        self._disk: threading.Thread | None = None

    def run(self) -> int:
        """Do what is missing; returns 0 also when a plan failed: that is in the log and in the status."""
        began = time.monotonic()
        VmIdentity(self._agent).look(self._run_phase)
        plans = self._plans()
        if any(plans.values()):
            self._work(plans)
        if self._results:
            self._write_results()
            self._agent.log.info(f"The boot stage is done after {time.monotonic() - began:.1f} s")
        self.report()
        if self._disk is not None:
            self._disk.join()
        self._run_phase(plans[BACKGROUND])
        if plans[BACKGROUND]:
            self._write_results()
        return 0

    def report(self) -> None:
        """Tell the supervisor that the work is done; what is left disturbs nobody."""
        if self._report_fd is not None:
            descriptor, self._report_fd = self._report_fd, None
            try:
                os.write(descriptor, DONE)
            except OSError:
                pass  # the supervisor is gone; the next one runs a boot stage of its own
            os.close(descriptor)

    def _plans(self) -> dict[str, list[tuple[str, Plan]]]:
        found: dict[str, list[tuple[str, Plan]]] = {phase: [] for phase in PHASES}
        for plugin, plan in self._agent.hooks.on_boot(self._agent):
            phase = plan.phase or AFTER
            if phase not in found:
                self._agent.log.warning(
                    f"Plan {plan.name} of plugin {plugin} wants the unknown phase {phase!r}; it runs in {AFTER!r}"
                )
                phase = AFTER
            found[phase].append((plugin, plan))
        return found

    def _work(self, plans: dict[str, list[tuple[str, Plan]]]) -> None:
        self._run_phase(plans[EARLY])
        if plans[DISK]:
            self._disk = threading.Thread(target=self._run_disk, args=(plans[DISK],), name="Disk", daemon=True)
            self._agent.begin_phase(DISK)
            self._disk.start()
        self._run_phase(plans[PROVISION])
        self._run_phase(plans[AFTER])
        if self._disk is not None:
            self._disk.join(DISK_LIMIT)
            if self._disk.is_alive():
                self._agent.log.warning(f"The disk phase has not ended after {DISK_LIMIT:g} s; the agent goes on")

    def _run_disk(self, plans: list[tuple[str, Plan]]) -> None:
        try:
            self._run_phase(plans)
        finally:
            self._agent.begin_phase(DISK).set()

    def _run_phase(self, plans: list[tuple[str, Plan]]) -> None:
        agent = self._agent
        for plugin, plan in plans:
            if agent.stopping.is_set():
                return
            began = time.monotonic()
            try:
                result = agent.executor.run(plan, stop=agent.stopping)
                done, error, steps = result.ok, result.error, len(result.steps)
            except Exception as problem:
                done, error, steps = False, f"{type(problem).__name__}: {problem}", 0
            if not done:
                agent.log.error(f"Plan {plan.name} of plugin {plugin} did not reach its goal: {error}")
            with self._lock:
                self._results.append(
                    {
                        "plugin": plugin,
                        "plan": plan.name,
                        "ok": done,
                        "error": error,
                        "steps": steps,
                        "seconds": round(time.monotonic() - began, 3),
                    }
                )

    def _write_results(self) -> None:
        with self._lock:
            results = list(self._results)
        try:
            write_json(self._agent.paths.run(BOOT_RESULT), {"schema": 1, "plans": results}, durable=False)
        except OSError as problem:
            self._agent.log.warning(f"{self._agent.paths.run(BOOT_RESULT)} cannot be written: {problem}")


def _wait_for_lock(agent: Agent, lock: Lock) -> bool:
    told = False
    while not lock.acquire():
        if agent.stopping.is_set():
            return False
        if not told:
            agent.log.info(f"Waiting for the boot stage of an earlier start: {lock.holder()}")
            told = True
        agent.stopping.wait(_LOCK_LOOK)
    return True


def _open_console(agent: Agent) -> None:
    """Echo the log to the console until the machine is provisioned (cli §7.3)."""
    if agent.config.boolean("Logs.Console") and not os.path.exists(agent.paths.lib("provisioned")):
        console = agent.paths.at("/dev/console")
        if os.path.exists(console):
            agent.log.sinks.console = console


def _close_console(agent: Agent) -> None:
    if agent.log.sinks.console:
        agent.log.info(CONSOLE_END)
        agent.log.sinks.console = None


def main(options: Options) -> int:
    """Run the boot stage; returns 0, or 1 when it could not even begin."""
    threading.current_thread().name = "Boot"
    try:
        agent = make_agent(BOOT, options.root, options.conf, options.verbose)
    except ConfigError as problem:
        sys.stderr.write(f"waagent: {problem}\n")
        return 1
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: agent.stopping.set())
    lock = Lock(agent.paths.run("boot.lock"))
    try:
        if not _wait_for_lock(agent, lock):
            return 0
    except OSError as problem:
        agent.log.warning(f"The boot stage goes on without a lock: {problem}")
    _open_console(agent)
    _forget_results(agent)
    agent.use_plugins(PluginHost.boot(agent.log, agent.config, agent.paths, agent.paths.run(PLUGIN_LIST)))
    agent.config.report(agent.log, {info.name: info.state for info in agent.plugins.listing()})
    stage = BootStage(agent, options.boot_fd)
    code = stage.run()
    _close_console(agent)
    return code


def _forget_results(agent: Agent) -> None:
    try:
        os.unlink(agent.paths.run(BOOT_RESULT))
    except OSError:
        pass
