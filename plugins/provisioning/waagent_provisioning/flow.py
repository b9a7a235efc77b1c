"""One start's provisioning: the facts, and what each step does (provisioning §6, §13, §14)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from waagent import (
    AgentError,
    NoAnswer,
    OvfError,
    Plan,
    ProvisioningDocument,
    StateError,
    Step,
    conceal,
    parse_provisioning_document,
    read_limited,
    redact,
    write_atomic,
)
from waagent_provisioning import hostkey, medium, modes, planner
from waagent_provisioning.errors import ProvisioningError
from waagent_provisioning.progress import MARKER, Progress, read_marker, ready_is_due
from waagent_provisioning.reporter import FAILED, NOT_READY, READY, Reporter

if TYPE_CHECKING:
    from waagent import Agent
    from waagent_provisioning.cloudinit import Waits

PLAN, REPORT_PLAN = "provisioning", "provisioning report"
DISABLE_AGENT, PUBLISHED = "disable_agent", "published_hostname"
UNKNOWN_FAILURE = "Provisioning failed; the log of the agent says why"

_SUMMARIES: Mapping[str, str] = {
    "refuse": "find out who may provision this machine",
    "medium": "read the provisioning document from its medium",
    "starting": "tell the platform that provisioning starts",
    "host-name": "set the host name",
    "user": "create the user",
    "password": "set the user's password",
    "sudo": "let the user become root",
    "sshd": "set the options of the SSH server",
    "public-keys": "deploy the user's public keys",
    "key-pairs": "deploy the user's key pairs",
    "root-password": "lock root's password",
    "host-keys": "make new SSH host keys",
    "restart-ssh": "let the SSH server read its configuration and keys",
    "publish": "publish the host name",
    "custom-data": "keep the custom data",
    "run-custom-data": "run the custom data",
    "marker": "mark this machine as provisioned",
    "guest-agent": "heed whether the owner wants an agent",
    "eject": "eject the provisioning medium",
    "wait-document": "wait for cloud-init's copy of the provisioning document",
    "wait-host-key": "wait for the SSH host key that cloud-init makes",
    "report": "report the outcome to the platform",
    "fingerprint": "tell the platform the fingerprint of the SSH host key",
}
_OPTIONAL = frozenset({"starting", "host-name", "restart-ssh", "publish", "eject", "fingerprint", "guest-agent"})
"""Steps whose failure is told and lived with: the owner can log in without them."""


@attrs.define(eq=False, repr=False)
class Memory:
    """What one process knows; gone with it.

    Attributes:
        document: as it was read.
        failure: why the last step failed.
        done: steps of this process that leave no other trace.
        begun: monotonic seconds.
    """

    document: ProvisioningDocument | None = None
    failure: str = ""
    done: set[str] = attrs.field(factory=set)
    begun: float = attrs.field(factory=time.monotonic)


class Flow:
    """Makes the plans of one start.

    Args:
        agent: of the boot stage, or of a command.
        reporter: tells the platform.
    """

    def __init__(self, agent: Agent, reporter: Reporter | None = None) -> None:
        self.agent = agent
        self.reporter = reporter or Reporter(agent)
        self.memory = Memory()
        self._choice: modes.Choice | None = None
        self._vm_id: str | None = None
        self._progress: Progress | None = None
        self._waits: Waits | None = None

    def plans(self) -> list[Plan]:
        """Return the plan that provisions, and the one that tells the platform; in this order."""
        return [
            Plan(PLAN, self.facts, self.steps, phase="provision"),
            Plan(REPORT_PLAN, self.report_facts, self.report_steps, phase="provision"),
        ]

    # -- facts ---------------------------------------------------------------------------------------------------

    @property
    def vm_id(self) -> str:
        """This machine's unique id, empty when it does not tell."""
        if self._vm_id is None:
            try:
                self._vm_id = str(self.agent.distro.read_vm_id()).strip().upper()
            except NoAnswer:
                self._vm_id = ""
        return self._vm_id

    @property
    def progress(self) -> Progress:
        """How far it is."""
        if self._progress is None:
            self._progress = Progress(self.agent, self.vm_id)
        return self._progress

    @property
    def choice(self) -> modes.Choice:
        """Who provisions; found out once."""
        if self._choice is None:
            self._choice = modes.choose(self.agent)
            if self._choice.mode == modes.DISABLED:
                self.agent.log.info("Provisioning is disabled")
        return self._choice

    def facts(self) -> dict[str, Any]:
        """Look at the machine; changes nothing."""
        marker = read_marker(self.agent)
        config, memory = self.agent.config, self.memory
        facts: dict[str, Any] = dict.fromkeys(_SUMMARIES, False)
        facts.update(marker=marker, vm_id=self.vm_id, mode="", problem="", wanted=None)
        if marker is None:
            facts.update(mode=self.choice.mode, problem=self.choice.problem)
        facts.update(
            open=self.progress.open,
            delete_root_password=config.boolean("Provisioning.DeleteRootPassword"),
            regenerate_host_keys=config.boolean("Provisioning.RegenerateSshHostKeyPair"),
            execute_custom_data=config.boolean("Provisioning.ExecuteCustomData"),
        )
        if facts["mode"] != modes.CLOUD_INIT:
            facts.update({name: True for name in _SUMMARIES if self.progress.is_done(name)})
        facts.update(dict.fromkeys(memory.done, True))
        document = memory.document
        facts["medium"] = document is not None
        if document is not None:
            facts["wanted"] = wanted_of(document)
        return facts

    def steps(self, facts: planner.Facts) -> list[Step]:
        """Return the missing steps."""
        return [self._step(name, facts["mode"]) for name in planner.missing(facts)]

    def report_facts(self) -> dict[str, Any]:
        """Look at what the platform has not been told."""
        owed, told = self.reporter.owed, "report" in self.memory.done
        if read_marker(self.agent) is None:
            return {"report": not told, "fingerprint": False}
        due = not told and (owed.report is not None or ready_is_due(self.agent))
        return {"report": due, "fingerprint": bool(owed.fingerprint)}

    def report_steps(self, facts: planner.Facts) -> list[Step]:
        """Return the missing reports."""
        return [self._step(name, "") for name in planner.missing_reports(facts)]

    # -- steps ---------------------------------------------------------------------------------------------------

    def _step(self, name: str, mode: str) -> Step:
        gives: dict[str, Any] = {name: True}
        if name == "medium":
            gives["wanted"] = planner.TYPICAL
        elif name == "marker":
            gives.update(marker=self.vm_id or "?", open=mode == modes.OURS)
        elif name in ("report", "fingerprint"):
            gives[name] = False  # it is not wanted any more
        once = name == "run-custom-data"
        return Step(
            # Another machine made from this disk runs its own custom data.
            f"{name} {self.vm_id}" if once else name,
            _SUMMARIES[name],
            lambda: self._run(name, mode),
            gives=gives,
            once=once,
            settle=self._settle_custom_data if once else None,
            optional=name in _OPTIONAL,
        )

    def _run(self, name: str, mode: str) -> None:
        action: Callable[[], object] = getattr(self, "_do_" + name.replace("-", "_"))
        try:
            if action() is False:
                return  # the service is being stopped: the next start goes on
        except Exception as problem:
            reason = self._without_secrets(problem)
            if self.agent.stopping.is_set():
                self.agent.log.info(f"Provisioning is interrupted while it was to {_SUMMARIES[name]}: {reason}")
                return
            if name not in _OPTIONAL:
                self.memory.failure = reason
            raise ProvisioningError(reason) from None
        self._mark(name, mode)

    def _mark(self, name: str, mode: str) -> None:
        if name in ("starting", "report", "fingerprint") or mode == modes.CLOUD_INIT:
            self.memory.done.add(name)
            return
        after_marker = name in planner.AFTER_MARKER and self.progress.open
        if after_marker or (mode == modes.OURS and name not in ("refuse", "medium")):
            self.progress.mark(name)
        if name == "eject":
            self.progress.close()

    @staticmethod
    def _without_secrets(problem: Exception) -> str:
        text = " ".join(redact(str(problem)).split()) or type(problem).__name__
        if isinstance(problem, (ProvisioningError, OvfError)):
            return text
        known = isinstance(problem, (AgentError, OSError))
        return f"Failed to provision: {text}" if known else f"Failed to provision: {type(problem).__name__}: {text}"

    @property
    def _document(self) -> ProvisioningDocument:
        assert self.memory.document is not None
        return self.memory.document

    @property
    def _user(self) -> str:
        assert self._document.user_name is not None
        return self._document.user_name

    def _do_refuse(self) -> None:
        raise ProvisioningError(self.choice.problem)

    def _do_medium(self) -> None:
        found = medium.obtain(self.agent)
        document = found.document
        # From here on a tool or a plugin may quote them: nothing that this process writes shows them.
        for secret in (document.password, document.custom_data):
            if secret is not None:
                conceal(secret)
        for note in document.notes:
            self.agent.log.warning(f"{medium.NAME}: {note}")
        if document.preprovisioned:
            raise ProvisioningError(
                f"This machine is from a pool of pre-provisioned ones ({document.preprovisioned}), which this agent "
                f"does not complete: use cloud-init, or a plugin that brings the final document"
            )
        if document.password_withheld and not self.progress.is_done("password"):
            raise ProvisioningError(
                f"[CopyOvfEnv] There is no provisioning medium, and the copy {self.agent.paths.lib(medium.NAME)} does "
                f"not hold the password"
            )
        self.memory.document = document
        self.progress.set("device", found.device or self.progress.get("device", ""))
        self.progress.set("guest_agent", document.guest_agent)

    def _do_starting(self) -> None:
        self.reporter.begin()

    def _do_host_name(self) -> None:
        self.agent.distro.set_hostname(self._document.host_name)

    def _do_user(self) -> None:
        self.agent.distro.create_user(self._user)

    def _do_password(self) -> None:
        if self._document.password is not None:
            self.agent.distro.set_password(self._user, self._document.password)

    def _do_sudo(self) -> None:
        self.agent.distro.configure_sudo(self._user, self._document.wants_password)

    def _do_sshd(self) -> None:
        self.agent.distro.configure_sshd(
            password_authentication=not self._document.disable_password_login,
            client_alive_interval=self.agent.config.integer("OS.SshClientAliveInterval"),
        )

    def _do_public_keys(self) -> None:
        from waagent_provisioning import certificates

        keys = self._document.public_keys
        certificates.fetch(self.agent, [key.thumbprint for key in keys if key.thumbprint is not None])
        for key in keys:
            line = key.value
            if line is None:
                assert key.thumbprint is not None
                line = certificates.public_key(self.agent, key.thumbprint)
            self.agent.distro.deploy_ssh_key(self._user, key.path, public_key=line)

    def _do_key_pairs(self) -> None:
        from waagent_provisioning import certificates

        pairs = self._document.key_pairs
        certificates.fetch(self.agent, [pair.thumbprint for pair in pairs])
        for pair in pairs:
            private = certificates.private_key(self.agent, pair.thumbprint)
            conceal(private)
            public = certificates.public_key(self.agent, pair.thumbprint)
            self.agent.distro.deploy_ssh_key(self._user, pair.path, public_key=public, private_key=private)

    def _do_root_password(self) -> None:
        self.agent.distro.lock_root_password()

    def _do_host_keys(self) -> None:
        self.agent.distro.regenerate_host_keys(hostkey.kind(self.agent))

    def _do_restart_ssh(self) -> None:
        self._note_fingerprint(hostkey.public_key_path(self.agent))
        self.agent.distro.restart_ssh()

    def _note_fingerprint(self, path: str) -> None:
        found = hostkey.fingerprint(path) or hostkey.fingerprint(hostkey.any_public_key(self.agent))
        if not found:
            self.agent.log.warning(f"There is no SSH host key at {path}: its fingerprint is not reported")
            return
        self.agent.log.info(f"Fingerprint of the SSH host key: {found}")
        self.reporter.owed.note_fingerprint(found)

    def _do_publish(self) -> None:
        host_name = self._document.host_name
        assert host_name is not None
        self.agent.distro.publish_hostname(host_name)
        write_atomic(self.agent.paths.lib(PUBLISHED), host_name, 0o644)

    def _do_custom_data(self) -> None:
        from waagent_provisioning import customdata

        assert self._document.custom_data is not None
        customdata.save(self.agent, self._document.custom_data)

    def _do_run_custom_data(self) -> None:
        from waagent_provisioning import customdata

        if self.progress.get("custom_data_begun"):
            self._settle_custom_data()  # another process's journal does not know of it
            return
        self.progress.set("custom_data_begun", True)
        customdata.run(self.agent)

    def _settle_custom_data(self) -> str:
        self.agent.log.warning("The custom data was run before, and its end is unknown: it is not run again")
        self.progress.mark("run-custom-data")
        return "done"

    def _do_marker(self) -> None:
        self.reporter.owed.owe(READY)
        write_atomic(self.agent.paths.lib(MARKER), self.vm_id, 0o600)
        self.reporter.owed.note_failure("")
        if self._choice is None or self._choice.mode == modes.DISABLED:
            return
        how = " with cloud-init" if self._choice.mode == modes.CLOUD_INIT else ""
        message = f"Provisioning{how} succeeded ({uptime():.2f}s)"
        self.agent.log.info(message)
        self.agent.events.add(
            "Provision", message=message, duration_ms=int((time.monotonic() - self.memory.begun) * 1000)
        )
        if self._choice.mode == modes.OURS:
            self.reporter.to_pool("success", self.vm_id)

    def _do_guest_agent(self) -> None:
        document = self.memory.document
        wanted = document.guest_agent if document is not None else self.progress.get("guest_agent", True)
        self.agent.events.add("ProvisionGuestAgent", message=str(wanted).lower())
        if not wanted:
            path = self.agent.paths.lib(DISABLE_AGENT)
            self.agent.log.info(f"The owner wants no agent in this machine (ProvisionGuestAgent): {path} says so")
            write_atomic(path, b"", 0o600)

    def _do_eject(self) -> None:
        device = self.progress.get("device", "")
        try:
            if device:
                self.agent.distro.eject_provisioning_media(device)
        except AgentError as problem:
            self.agent.log.warning(f"{device} cannot be ejected: {problem}")

    def _do_wait_document(self) -> bool:
        path = self.agent.paths.lib(medium.NAME)
        if not self._cloud_init_waits().for_document(path):
            return False
        try:
            self.memory.document = parse_provisioning_document(read_limited(path, 1 << 20), complete=False)
        except (OSError, StateError) as problem:
            raise ProvisioningError(f"[CopyOvfEnv] Error reading file {path}: {problem}") from None
        from waagent_provisioning import cloudinit

        if cloudinit.has_reported(self.agent):
            self.memory.done.add("starting")  # it has reported Ready: another first word would take that back
        return True

    def _do_wait_host_key(self) -> bool:
        path = self._cloud_init_waits().for_host_key()
        if path:
            self._note_fingerprint(path)
        return bool(path)

    def _cloud_init_waits(self) -> Waits:
        if self._waits is None:
            from waagent_provisioning.cloudinit import Waits

            self._waits = Waits(self.agent)
        return self._waits

    # -- reports -------------------------------------------------------------------------------------------------

    def _do_report(self) -> None:
        if read_marker(self.agent) is None:
            reason = self.memory.failure or self.reporter.owed.failure or UNKNOWN_FAILURE
            self.reporter.owed.note_failure(reason)
            self.agent.log.error(f"Provisioning failed: {reason} ({uptime():.2f}s)")
            self.agent.events.add("Provision", success=False, message=f"Provisioning failed: {reason}", logged=True)
            self.reporter.owed.owe(NOT_READY, FAILED, reason)
            self.reporter.to_pool("error", self.vm_id, reason)
        elif self.reporter.owed.report is None:
            self.reporter.owed.owe(READY)
        self.reporter.settle()

    def _do_fingerprint(self) -> None:
        self.reporter.tell_fingerprint()


def wanted_of(document: ProvisioningDocument) -> planner.Wanted:
    """Return what *document* asks for, as far as it decides about steps."""
    return planner.Wanted(
        password=document.password is not None,
        public_keys=bool(document.public_keys),
        key_pairs=bool(document.key_pairs),
        custom_data=document.custom_data is not None,
    )


def uptime() -> float:
    """Return the seconds since the machine started."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
