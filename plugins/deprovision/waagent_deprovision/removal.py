"""The plan of a deprovision: what is found, what is done about it, and what is left (cli §5.2)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from waagent import AgentError, Plan, Step, parse_provisioning_document, read_limited
from waagent_deprovision import emptying, extras, guard, leftovers, planner, record
from waagent_deprovision.plugin import ALSO
from waagent_deprovision.record import Record

if TYPE_CHECKING:
    from waagent import Agent

NAME = "localhost.localdomain"
"""What a machine is called that has no name yet."""

_RESOLVER = "/etc/resolv.conf"
_HISTORY = "/root/.bash_history"
_DEFAULT_LOG = "/var/log/waagent.log"
_OPENBSD_SECRETS = (
    "/etc/random.seed",
    "/var/db/host.random",
    "/etc/isakmpd/local.pub",
    "/etc/isakmpd/private/local.key",
    "/etc/iked/private/local.key",
    "/etc/iked/local.pub",
)
_NOTE = "note"
_OVF_LIMIT = 1 << 20


@attrs.frozen(eq=False, repr=False)
class Action:
    """One thing to do.

    Attributes:
        summary: for people, in the imperative.
        run: does it.
        left: what it has not removed; nothing for what cannot be looked at.
    """

    summary: str
    run: Callable[[], None]
    left: Callable[[], Sequence[str]] = tuple


class Removal:
    """One deprovision.

    Args:
        agent: the command's agent.
        delete_user: the provisioned user goes too.
    """

    def __init__(self, agent: Agent, delete_user: bool) -> None:
        self._agent = agent
        self._delete_user = delete_user
        self._done: set[str] = set()
        self._resolver: tuple[str, ...] | None = None

    def plan(self) -> Plan:
        """Return the plan; its first step notes what was found."""
        return Plan("deprovision", self.probe, self.steps)

    # -- facts -----------------------------------------------------------------------------------------------------

    def probe(self) -> dict[str, Any]:
        """Return what :func:`planner.actions` asks for, and ``open``: the actions that are not through.

        Raises:
            AgentError: an option names what must not be removed, or asks for what nobody knows.
        """
        agent = self._agent
        noted = record.load(agent) or Record()
        ovf, user = self._provisioned_user()
        users = tuple(dict.fromkeys([*noted.users, *([user] if user else [])]))
        if self._resolver is None:  # package managers are asked who owns them: once is enough
            self._resolver = tuple(agent.distro.find_resolver_files())
        resolver = tuple(dict.fromkeys([*noted.resolver, *self._resolver]))
        facts: dict[str, Any] = {
            "service": guard.service_name(agent, leftovers.services(agent)),
            "host_keys": agent.config.boolean("Provisioning.RegenerateSshHostKeyPair"),
            "root_password": agent.config.boolean("Provisioning.DeleteRootPassword"),
            "resolver": resolver,
            "resolver_stays": tuple(path for path in _existing((agent.paths.at(_RESOLVER),)) if path not in resolver),
            "delete_user": self._delete_user,
            "users": users,
            "ovf": "read" if "read" in (ovf, noted.ovf) else ovf,
            "distribution": agent.distro.id,
            "also": self._also(),
        }
        for path in self._directories():
            emptying.check_directory(agent.paths, path)
        names = [name for name, _warning in planner.actions(facts)]
        facts["open"] = tuple(name for name in (_NOTE, *names) if self._is_open(name, facts))
        return facts

    def _is_open(self, name: str, facts: Mapping[str, Any]) -> bool:
        return name not in self._done or (name != _NOTE and bool(self._action(name, facts).left()))

    def _also(self) -> tuple[str, ...]:
        words = (self._agent.config.text(ALSO) or "").replace(",", " ").split()
        unknown = planner.unknown(words)
        if unknown:
            known = ", ".join(planner.EXTRAS)
            raise AgentError(f"{ALSO} asks for {', '.join(unknown)}, which nobody knows (known: {known})")
        return tuple(words)

    def _provisioned_user(self) -> tuple[str, str | None]:
        """Return what became of reading ``ovf-env.xml``, and the user that it names."""
        path = self._agent.paths.lib("ovf-env.xml")
        try:
            document = parse_provisioning_document(read_limited(path, _OVF_LIMIT), complete=False)
        except FileNotFoundError:
            return "missing", None
        except (OSError, AgentError) as problem:
            self._agent.log.warning(f"{path} cannot be read: {problem}")
            return "unreadable", None
        return ("read", document.user_name) if document.user_name else ("unreadable", None)

    def _directories(self) -> tuple[str, str]:
        return self._agent.paths.lib_dir, self._agent.paths.extension_log_dir

    # -- steps -----------------------------------------------------------------------------------------------------

    def steps(self, facts: Mapping[str, Any]) -> list[Step]:
        """Return the steps that are missing. A failure of one keeps none of the others from being tried."""
        open_ = facts["open"]
        rows = planner.actions(facts)
        found = []
        if _NOTE in open_:
            warnings = tuple(line for _name, warning in rows for line in (warning or "").split("\n") if line)
            note = Record(facts["users"], facts["ovf"], facts["resolver"], warnings)
            found.append(self._step(_NOTE, Action("note what is to be removed", lambda: self._save(note)), None, facts))
        for name, warning in rows:
            if name in open_:
                found.append(self._step(name, self._action(name, facts), warning, facts))
        return found

    def _save(self, note: Record) -> None:
        record.save(self._agent, note)

    def _step(self, name: str, action: Action, warning: str | None, facts: Mapping[str, Any]) -> Step:
        def run() -> None:
            self._done.add(name)
            action.run()

        gives = {"open": tuple(other for other in facts["open"] if other != name)}
        # Without the note an interruption could not be made good: then nothing is begun.
        return Step(name, action.summary, run, gives=gives, optional=name != _NOTE, warning=warning)

    def _action(self, name: str, facts: Mapping[str, Any]) -> Action:
        agent = self._agent
        if name.startswith(planner.USER + " "):
            user = name.partition(" ")[2]
            return Action(f"delete the user {user}", lambda: self._delete(user))
        if name in planner.EXTRAS:
            files, run, summary = extras.removal_of(agent, name)
            return Action(summary, run, files)
        table: dict[str, Callable[[], Action]] = {
            planner.SERVICE: lambda: Action(f"stop the {facts['service']} service", self._stop(facts["service"])),
            planner.HOST_KEYS: lambda: self._unlinking("delete the SSH host keys", leftovers.host_keys),
            planner.LEASES: lambda: Action(
                "delete cached DHCP leases",
                lambda: leftovers.delete_leases(agent),
                lambda: leftovers.leases(agent),
            ),
            planner.HOST_NAME: lambda: Action(f"name the machine {NAME}", self._rename),
            planner.ROOT_PASSWORD: lambda: Action("lock root's password", self._lock_root),
            planner.RESOLVER: lambda: self._unlinking(
                f"delete {', '.join(facts['resolver'])}", lambda _agent: _existing(facts["resolver"])
            ),
            planner.STATE: lambda: Action(
                f"empty {' and '.join(self._directories())}", self._empty, self._left_in_directories
            ),
            planner.LOGS: lambda: self._unlinking("delete root's shell history and the agent's log", self._logs),
            planner.UNITS: lambda: self._unlinking("delete units that set up the firewall", leftovers.units),
            planner.DROP_INS: lambda: self._unlinking("delete drop-ins of the service", leftovers.drop_ins),
            planner.MACHINE_ID: lambda: self._unlinking("delete /etc/machine-id", leftovers.machine_id),
        }
        return table[name]()

    def _unlinking(self, summary: str, find: Callable[[Agent], Sequence[str]]) -> Action:
        agent = self._agent
        files = find(agent)
        what = f"{summary}: {len(files)} files" if len(files) > 1 else summary
        return Action(what, lambda: emptying.unlink(find(agent)), lambda: find(agent))

    # -- what is done ----------------------------------------------------------------------------------------------

    def _stop(self, service: str) -> Callable[[], None]:
        def run() -> None:
            agent = self._agent
            present = guard.running(agent)
            if not present:
                return  # an image that is built offline has no service to stop
            agent.distro.service_action(service, "stop")
            for _ in range(100):
                present = guard.running(agent)
                if not present or agent.stopping.wait(0.1):
                    break
            if present:
                raise AgentError(f"the service was stopped, but {present}")

        return run

    def _rename(self) -> None:
        agent = self._agent
        problems = []
        for operation in (agent.distro.set_hostname, agent.distro.set_dhcp_hostname):
            try:
                operation(NAME)
            except AgentError as problem:
                problems.append(str(problem))
        if problems:
            raise AgentError("; ".join(problems))

    def _lock_root(self) -> None:
        self._agent.distro.lock_root_password()
        leftovers.refresh_backups(self._agent)

    def _delete(self, user: str) -> None:
        if leftovers.uid(self._agent, user) == 0:
            raise AgentError(f"{user} is a system user and is not deleted")
        self._agent.distro.delete_user(user)
        leftovers.refresh_backups(self._agent)

    def _empty(self) -> None:
        failed = []
        for path in self._directories():
            place = emptying.check_directory(self._agent.paths, path)
            outcome = emptying.empty(place)
            for kept in outcome.kept:
                self._agent.log.warning(f"{kept} stays: something is mounted there")
            failed += outcome.failed
        if failed:
            raise AgentError("; ".join(failed[:3]) + (f" and {len(failed) - 3} more" if len(failed) > 3 else ""))

    def _left_in_directories(self) -> list[str]:
        paths = self._agent.paths
        return [
            path for one in self._directories() for path in emptying.remaining(emptying.check_directory(paths, one))
        ]

    def _logs(self, agent: Agent) -> list[str]:
        places = [agent.paths.at(_HISTORY), agent.paths.log_file, agent.paths.at(_DEFAULT_LOG)]
        if agent.distro.id == "openbsd":
            places += [agent.paths.at(path) for path in _OPENBSD_SECRETS]
        return _existing(tuple(dict.fromkeys(places)))


def _existing(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if os.path.lexists(path) and not (os.path.isdir(path) and not os.path.islink(path))]
