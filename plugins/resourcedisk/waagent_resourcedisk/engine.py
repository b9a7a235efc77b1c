"""Probe, decide, act: what the boot stage and the command line run (spec/resourcedisk.md §1, §8–§11)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from waagent import AgentError, NoAnswer, Plan, StateError, Step, Veto, ensure_dir, read_limited, write_atomic
from waagent_resourcedisk import drivers, warning
from waagent_resourcedisk.decision import (
    ADOPT,
    CHANGING,
    FORMAT,
    MOUNT,
    NONE,
    REFUSE,
    WAIT,
    Decision,
    decide,
    others_at_work,
)
from waagent_resourcedisk.records import DiskFacts, Mounted, Surroundings, Survey, Wishes

if TYPE_CHECKING:
    from waagent import Agent

BUDGET = 120.0
"""Seconds that the disk phase takes at most; what is not done by then goes on in the background."""
DISK_WAIT, OTHERS_WAIT, LONG_WAIT, MOUNT_WAIT = 10.0, 60.0, 900.0, 120.0
"""Seconds to wait for the disk itself; for whoever else mounts it; for cloud-init, in the background; for a mount that
swap could use, in the background."""
_LEAST, _LOOK, _LOCK_WAIT = 30.0, 0.5, 600.0
OPERATION = "ActivateResourceDisk"
VETOED = "vetoed"


@attrs.frozen
class View:
    """Everything at one moment.

    Attributes:
        survey: who is who among the disks.
        disk: what is on the candidate, ``None`` without one.
        around: what else matters.
        decision: what follows from it, vetoes included.
    """

    survey: Survey
    disk: DiskFacts | None
    around: Surroundings
    decision: Decision

    @property
    def mount(self) -> Mounted | None:
        """The mount that is used, ``None`` when there is none."""
        is_mounted = self.disk is not None and self.decision.action == ADOPT
        return self.disk.mounted[0] if self.disk is not None and is_mounted else None


def wishes_of(agent: Agent) -> Wishes:
    """Return what the configuration says."""
    config = agent.config
    return Wishes(
        format=config.boolean("ResourceDisk.Format"),
        filesystem=_filesystem(agent),
        mount_point=_tidy(config.text("ResourceDisk.MountPoint") or "/mnt/resource"),
        options=config.text("ResourceDisk.MountOptions"),
        reformat=config.boolean("ResourceDisk.AllowReformat"),
        swap=config.boolean("ResourceDisk.EnableSwap"),
        swap_mib=config.integer("ResourceDisk.SwapSizeMB"),
    )


def _filesystem(agent: Agent) -> str:
    """Return the configured file system; the default is Linux's, and the BSDs have three names for theirs."""
    name = "ResourceDisk.Filesystem"
    text = (agent.config.text(name) or "ext4").strip().lower()
    is_bsd = agent.distro.facts.base != "linux"
    return "ufs" if is_bsd and (text in ("ffs", "ufs2") or not agent.config.given(name)) else text


def _tidy(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part) if path.startswith("/") else path


class Engine:
    """One run: the boot stage's or a command's.

    Args:
        agent: the process's agent.
        driver: how the disk is reached; by default what suits the system.
        clock: monotonic seconds.
        forced: a person asked, so nothing is waited for and earlier failures do not count.
        curious: look closely also where nothing is to be done with the disk.
    """

    def __init__(
        self,
        agent: Agent,
        driver: drivers.Driver | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        forced: bool = False,
        curious: bool = False,
    ) -> None:
        self.agent = agent
        self.wishes = wishes_of(agent)
        self.driver = driver or drivers.choose(agent, forced=forced)
        self._clock = clock
        self._curious = curious
        # How often a step failed since the machine started is remembered by the plan's name.
        self._asked = f", asked for by process {os.getpid()}" if forced else ""
        self._begun: float | None = None
        self._waited: set[str] = {"disk", "others", "long", "mount"} if forced else set()
        self._announced = False
        self._deferred = False
        self._overdue = False
        self._lock = threading.Lock()
        self._vetoes: dict[str, Veto | None] = {}

    # ---- Probe -------------------------------------------------------------------------------------------------------

    def view(self) -> View:
        """Look at everything and decide. Nothing is written."""
        view = self._look()
        if view.disk is not None and view.decision.action in CHANGING:
            veto = self._veto(view.disk, view.decision.action, view.decision.reason)
            if veto is not None:
                refused = Decision(REFUSE, VETOED, veto.reason)
                return attrs.evolve(view, decision=refused)
        return view

    def _look(self) -> View:
        survey = self.driver.survey()
        candidate = survey.candidate
        around = self.driver.around(candidate, self.wishes, waited="others" in self._waited)
        # Neither what others work on nor what is not wanted is opened: the rows in question come before its contents.
        closely = (self.wishes.format or self._curious) and not others_at_work(around)
        disk = self.driver.look(candidate, self.wishes, closely=closely) if candidate is not None else None
        # Mounts are told in whole paths; the decision compares with the whole mount point.
        wishes = attrs.evolve(self.wishes, mount_point=self._mount_point)
        decision = decide(survey, disk, around, wishes)
        return View(survey, disk, around, decision)

    @property
    def _mount_point(self) -> str:
        point = self.wishes.mount_point
        return os.path.realpath(self.agent.paths.at(point)) if point.startswith("/") else point

    def _veto(self, disk: DiskFacts, action: str, reason: str) -> Veto | None:
        """Ask the plugins once for each action; one that cannot answer refuses (ruling 48)."""
        if action not in self._vetoes:
            try:
                veto = self.agent.hooks.decide_resource_disk(self.agent, disk.for_hooks(action, reason))
            except NoAnswer as problem:
                veto = Veto(f"a plugin could not be asked: {problem}")
            self._vetoes[action] = veto
        return self._vetoes[action]

    # ---- Plans -------------------------------------------------------------------------------------------------------

    def disk_plan(self) -> Plan:
        """Return the plan of the disk phase."""
        return Plan("resource disk" + self._asked, probe=self._probe, planner=self._disk_steps, phase="disk")

    def background_plan(self) -> Plan:
        """Return the plan of what nobody waits for: what the budget cut short, then swap."""
        name = "resource disk, in the background" + self._asked
        return Plan(name, self._probe_later, self._background_steps, phase="background")

    def _probe_later(self) -> dict[str, Any]:
        if self._lock.locked() and not self._overdue:
            self._overdue = True
            reason = f"the resource disk was not ready within {BUDGET:g} s; it goes on in the background"
            self.agent.log.warning(reason)
            self.agent.events.add(OPERATION, success=False, message=reason, logged=True)
        return self._probe()

    def _probe(self) -> dict[str, Any]:
        if self._begun is None:
            self._begun = self._clock()
            if self.wishes.format:
                self.agent.log.info("Activate resource disk")
        facts: dict[str, Any] = {"announced": self._announced, "waited": frozenset(self._waited)}
        facts["deferred"] = self._deferred
        if self._announced and not self.wishes.swap:
            return facts
        if self._lock.acquire(timeout=_LOCK_WAIT):  # an attempt that was over its budget may still be at it
            self._lock.release()
        facts["announced"] = self._announced
        view = self.view()
        mount = view.mount
        swapped = mount is not None and self.driver.swap_in_place(mount, self.wishes)
        facts.update(view=view, swapped=swapped, refused=False)
        if self.wishes.swap and mount is not None and view.disk is not None and not swapped:
            veto = self._veto(view.disk, "swap", f"{self.wishes.swap_mib} MiB of swap on {mount.device}")
            facts["refused"] = veto is not None
            if veto is not None and self._is_news(veto.reason):
                self.agent.log.info(f"No swap on the resource disk: {veto.reason}")
        return facts

    def _disk_steps(self, facts: Mapping[str, Any]) -> Sequence[Step]:
        if facts["announced"] or facts["deferred"] or not self.wishes.format:
            return []
        return [self._disk_step(facts["view"], facts["waited"], self._left())]

    def _disk_step(self, view: View, waited: frozenset[str], deadline: float) -> Step:
        action = view.decision.action
        if action == NONE and view.survey.pending and "disk" not in waited:
            return Step("wait for the disk", "wait for the resource disk to appear", self._wait_for_disk)
        if action == WAIT:
            summary = f"wait for the disk to be mounted: {view.decision.reason}"
            return Step("wait for others", summary, self._wait_for_others)
        if action in (MOUNT, FORMAT):
            verb = "format" if action == FORMAT else "mount"
            run = lambda: self._activate(view)  # noqa: E731
            return Step("activate", f"{verb} the resource disk: {view.decision.reason}", run, deadline=deadline)
        return Step("conclude", f"conclude: {view.decision.reason}", lambda: self._conclude(view))

    def _background_steps(self, facts: Mapping[str, Any]) -> Sequence[Step]:
        steps = []
        if self.wishes.format and not facts["announced"]:
            if facts["deferred"] and "long" not in facts["waited"]:
                return [Step("wait for cloud-init", "wait for cloud-init to finish", self._wait_long)]
            steps.append(self._disk_step(facts["view"], facts["waited"], _LOCK_WAIT + BUDGET))
        elif self.wishes.swap and not facts["swapped"] and not facts["refused"]:
            steps += self._swap_steps(facts["view"], facts["waited"])
        return steps

    def _swap_steps(self, view: View, waited: frozenset[str]) -> list[Step]:
        mount = view.mount
        if mount is None:
            if view.disk is None or self.wishes.format or "mount" in waited:
                return []
            return [Step("wait for a mount", "wait for the resource disk to be mounted", self._wait_for_mount)]
        summary = f"make {self.wishes.swap_mib} MiB of swap on {mount.device}"
        return [Step("swap", summary, lambda: self._enable_swap(mount))]

    def _left(self) -> float:
        begun = self._begun if self._begun is not None else self._clock()
        return max(_LEAST, BUDGET - (self._clock() - begun))

    # ---- Waiting -----------------------------------------------------------------------------------------------------

    def _wait(self, name: str, seconds: float, until: Callable[[], bool]) -> None:
        end = self._clock() + seconds
        while not until() and self._clock() < end:
            if self.agent.stopping.wait(_LOOK):
                break
        self._waited.add(name)

    def _wait_for_disk(self) -> None:
        self._wait("disk", DISK_WAIT, lambda: not self.driver.survey().pending)

    def _wait_for_others(self) -> None:
        self._wait("others", OTHERS_WAIT, lambda: self._look().decision.action != WAIT)

    def _wait_long(self) -> None:
        def finished() -> bool:
            return self.driver.around(None, self.wishes, waited=True).cloud_init != "running"

        self._wait("long", LONG_WAIT, finished)

    def _wait_for_mount(self) -> None:
        self._wait("mount", MOUNT_WAIT, lambda: self._look().mount is not None)

    # ---- Acting ------------------------------------------------------------------------------------------------------

    def _activate(self, seen: View) -> None:
        """Mount or format, under the disk's lock and only if a fresh look says the same as the one that was decided on.

        Raises:
            AgentError: it could not be done; the disk stays as it is.
        """
        if not self._lock.acquire(timeout=_LOCK_WAIT):
            raise AgentError("an earlier attempt has not come to an end")
        began = self._clock()
        try:
            self._act(seen)
        except Exception as problem:
            self._failed(f"{problem}", began)
            raise
        finally:
            self._lock.release()

    def _act(self, seen: View) -> None:
        disk = seen.disk
        assert disk is not None
        made = ""
        with self.driver.locked(disk):
            now = self._look()
            if now.decision.action == ADOPT:
                return  # another attempt, or another program, was there first
            if now.decision != seen.decision or now.disk != disk:
                raise AgentError(f"{disk.device} has changed since it was looked at: {now.decision.reason}")
            self._announce_intent(disk, now.decision)
            if now.decision.action == FORMAT:
                made = self.driver.make(disk, self.wishes)
        if made:
            from waagent_resourcedisk.formatting import settle

            settle(self.agent)
        partition = made or seen.decision.partition
        filesystem = self.wishes.filesystem if made else seen.decision.filesystem
        self.driver.mount(partition, filesystem, self.wishes)
        log = self.agent.log
        log.info(f"Resource disk {disk.candidate.name} is mounted at {self._mount_point} with {filesystem}")
        if filesystem != self.wishes.filesystem:
            log.warning(f"{partition} is {filesystem}, not {self.wishes.filesystem}: {seen.decision.reason}")

    def _announce_intent(self, disk: DiskFacts, decision: Decision) -> None:
        what = "Format" if decision.action == FORMAT else "Mount"
        evidence = "; ".join(disk.candidate.evidence)
        self.agent.log.info(
            f"{what} {disk.device}: serial {disk.serial or 'unknown'}, {disk.size >> 20} MiB, {disk.candidate.trust} "
            f"({evidence}); {decision.reason}"
        )

    def _conclude(self, view: View) -> None:
        """Tell everybody how it ended, once."""
        decision, agent = view.decision, self.agent
        is_cloud_init = decision.row == "others in charge" and view.around.cloud_init == "running"
        if is_cloud_init and not view.around.fstab and "long" not in self._waited:
            self._deferred = True  # it may finish later, and then the disk may be ours
            agent.log.info(f"The resource disk is looked at again in the background: {decision.reason}")
            return
        self._deferred = False
        self._announced = True
        mount = view.mount
        if mount is not None:
            agent.log.info(f"Resource disk [{mount.device}] is already mounted [{mount.point}]")
            if mount.point != self._mount_point:
                agent.log.info(f"It is used there: ResourceDisk.MountPoint is {self.wishes.mount_point}")
            assert view.disk is not None
            self.driver.keep()
            others = view.around.fstab
            is_theirs = others and (view.around.cloud_init or mount.point != self._mount_point)
            if is_theirs and self._is_news(f"fstab {others}"):
                agent.log.warning(f"/etc/fstab mounts the resource disk ({others}): that counts, not ResourceDisk.*")
            veto = self._veto(view.disk, "adopt", decision.reason)
            if veto is None:
                warning.write(agent, mount.point)
            elif self._is_news(veto.reason):
                agent.log.info(f"Nothing is written on the resource disk: {veto.reason}")
            agent.events.add(OPERATION, message=decision.reason)
            agent.hooks.on_resource_disk_ready(agent, mount.point, mount.device, mount.filesystem)
        elif decision.action == REFUSE:
            self._refused(decision)
        elif decision.action == NONE:
            agent.log.info(decision.reason[:1].upper() + decision.reason[1:])

    def _refused(self, decision: Decision) -> None:
        agent = self.agent
        text = f"The resource disk stays as it is: {decision.reason}"
        if decision.remedy:
            text += f". To change that: {decision.remedy}"
        if not self._is_news(decision.reason):
            agent.log.verbose(text)
        elif decision.row == VETOED:
            agent.log.info(text)  # an owner's choice is no failure
        else:
            agent.log.warning(text)
            agent.events.add(OPERATION, success=False, message=decision.reason, logged=True)
        agent.hooks.on_resource_disk_failed(agent, decision.reason)

    def _is_news(self, reason: str) -> bool:
        """Return whether this was not said yet since the machine started (its runtime directory is new then)."""
        path = self.agent.paths.run("resourcedisk-said")
        try:
            said = read_limited(path, 1 << 16).decode("utf-8", "replace").split("\n")
        except (OSError, StateError):
            said = []
        line = " ".join(reason.split())
        if line in said:
            return False
        try:
            ensure_dir(self.agent.paths.run_dir, 0o755)
            write_atomic(path, "\n".join([*said, line][-20:]), durable=False)
        except OSError:
            pass  # it is said once more at the next start
        return True

    def _failed(self, reason: str, began: float) -> None:
        self._announced = True
        agent = self.agent
        duration = int((self._clock() - began) * 1000)
        if not reason.startswith("Failed to mount resource disk"):
            reason = f"Failed to mount resource disk: {reason}"
        agent.log.error(reason)
        agent.events.add(OPERATION, success=False, message=reason, duration_ms=duration, logged=True)
        agent.hooks.on_resource_disk_failed(agent, reason)

    def _enable_swap(self, mount: Mounted) -> None:
        agent = self.agent
        agent.log.info("Enable swap")
        began = self._clock()
        try:
            self.driver.enable_swap(mount, self.wishes)
        except Exception as problem:
            duration = int((self._clock() - began) * 1000)
            reason = f"Failed to enable swap: {problem}"
            agent.log.error(reason)
            agent.events.add(OPERATION, success=False, message=reason, duration_ms=duration, logged=True)
            raise
