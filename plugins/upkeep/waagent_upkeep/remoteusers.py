"""Just-in-time accounts: what the platform lists against what is there, and a plan per account (provisioning §24)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from waagent import AgentError, NoAnswer, Plan, RemoteAccess, RemoteUser, Step, redact
from waagent_upkeep import accounts
from waagent_upkeep.patience import LANE, numbered

if TYPE_CHECKING:
    from waagent import Agent

OPERATION = "RemoteAccessHandling"
RECORD = "remote-access"
"""Name of the state: account to ``begun`` or ``done``. One that only was begun may lack its password."""
LONGEST_WAIT = 3600.0
"""Seconds after which expirations are looked at again at the latest: clocks are set."""
FIRST_RETRY = 60.0
"""Seconds after which what failed is tried again: an account past its time must not stay. Then five times as long."""


@attrs.frozen(eq=False, repr=False)
class Wish:
    """What is wanted of one account.

    Attributes:
        user: what the platform says, ``None`` when it does not list the name.
        expires: seconds since the epoch; ``None`` when that cannot be read.
    """

    name: str
    user: RemoteUser | None = None
    expires: int | None = None


def missing(wish: Wish, facts: Mapping[str, Any]) -> list[str]:
    """Return the steps that are missing, in order. Pure.

    Args:
        wish: what is wanted.
        facts: ``account`` (``none``, ``ours``, ``ordinary``), ``finished`` (nothing is left undone), ``begun``
            (made in this run), ``password``, ``sudo`` (done in this run), ``now`` (seconds since the epoch).
    """
    account = facts["account"]
    if account == accounts.ORDINARY:
        return []
    if wish.user is not None and wish.expires is None:
        return []  # nobody knows how long: neither made nor taken away
    wanted = wish.user is not None and wish.expires is not None and facts["now"] < wish.expires
    if not wanted:
        return ["remove"] if account == accounts.OURS else []
    if account == accounts.OURS and not facts["begun"]:
        # What an interrupted run left has perhaps no password: begin anew.
        return [] if facts["finished"] else ["remove", "create", "password", "sudo", "finish"]
    steps = [] if account == accounts.OURS else ["create"]
    steps += [name for name in ("password", "sudo") if not facts[name]]
    return steps if facts["finished"] and not steps else [*steps, "finish"]


class RemoteUsers:
    """Keeps the accounts as the platform wants them. Everything but :meth:`offer` happens in one lane.

    Args:
        agent: the worker's agent.
        clock: seconds since the epoch.
    """

    def __init__(self, agent: Agent, clock: Callable[[], float] = time.time) -> None:
        self._agent = agent
        self._clock = clock
        self._listed: RemoteAccess | None = None
        self._clean = False
        self._failures = 0
        self._told: set[str] = set()
        self._unsupported_told = False
        self._timer: Any = None

    def offer(self, listed: RemoteAccess | None) -> None:
        """Take what a goal state lists, ``None`` for nothing at all; returns at once."""
        if listed is None and self._clean:
            return
        self._listed = listed
        self._told = set()
        self._agent.lane(LANE).submit_once(OPERATION, self.work, name="just-in-time accounts")

    def work(self) -> None:
        """Make the accounts as they are listed; never raises."""
        listed, done = self._listed, False
        moments: list[int] = []
        try:
            if not self._is_supported():
                return
            wishes = self._wishes(listed)
            moments = [wish.expires for wish in wishes if wish.expires is not None]
            token = listed.incarnation if listed is not None else "no list"
            # Another name each time: the executor leaves a step alone that failed twice.
            results = [self._one(wish, numbered(token, self._failures)) for wish in wishes]
            done = all(results)
        except Exception as problem:
            self._failed("", f"{type(problem).__name__}: {problem}")
        self._failures = 0 if done else self._failures + 1
        self._clean = done and listed is None
        self._wake_for(moments)

    def _is_supported(self) -> bool:
        agent = self._agent
        try:
            supported = bool(agent.distro.supports_remote_access())
        except NoAnswer:
            supported = False
        if not supported and self._listed is not None and not self._unsupported_told:
            self._unsupported_told = True
            agent.log.warning("The platform lists just-in-time accounts, which do not work on this distribution")
        return supported

    def _wishes(self, listed: RemoteAccess | None) -> list[Wish]:
        wishes = {name: Wish(name) for name in accounts.marked(self._agent)}
        for user in listed.users if listed is not None else ():
            wishes[user.name] = Wish(user.name, user, accounts.moment_of(user.expiration))
        return list(wishes.values())

    def _one(self, wish: Wish, token: str) -> bool:
        """Bring one account to what is wished; returns whether nothing is left to try."""
        agent = self._agent
        if wish.user is not None and wish.expires is None:
            self._failed(wish.name, f"its expiration {wish.user.expiration[:60]!r} cannot be read")
            return True
        if wish.user is not None and accounts.standing(agent, wish.name) == accounts.ORDINARY:
            self._failed(wish.name, "an ordinary account has this name, which is left as it is")
            return True
        work = _Work(agent, wish, token, self._clock)
        result = agent.executor.run(work.plan(), stop=agent.stopping)
        if result.ok:
            self._told.discard(wish.name)
            return True
        if result.stopped:
            return False
        if work.begun and accounts.standing(agent, wish.name) == accounts.OURS:
            # An account without a password helps nobody, and would be taken for complete.
            removal = _Work(agent, Wish(wish.name), f"{token}, after a failure", self._clock)
            agent.executor.run(removal.plan(), stop=agent.stopping)
        self._failed(wish.name, result.error)
        return False

    def _failed(self, name: str, reason: str) -> None:
        """Report that the account *name* (all of them when it is empty) failed, once for each list."""
        if name not in self._told:
            self._told.add(name)
            which = f"just-in-time account {name}: " if name else ""
            self._agent.events.add(OPERATION, success=False, message=which + redact(reason))

    def _wake_for(self, moments: list[int]) -> None:
        """Work again when the next account expires, and soon after a failure: the platform need not say anything."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock()
        waits = [moment - now + 0.1 for moment in moments if moment > now]
        if self._failures:
            waits.append(FIRST_RETRY * 5.0 ** min(self._failures - 1, 9))
        if waits:
            self._timer = self._agent.loop.call_later(min(*waits, LONGEST_WAIT), self._again, "just-in-time accounts")

    def _again(self) -> None:
        if not self._agent.stopping.is_set():
            self._agent.lane(LANE).submit_once(OPERATION, self.work, name="just-in-time accounts")


class _Work:
    """One run of one account's plan."""

    def __init__(self, agent: Agent, wish: Wish, token: str, clock: Callable[[], float]) -> None:
        self.begun = False
        self._agent = agent
        self._wish = wish
        self._token = token
        self._clock = clock
        self._done: set[str] = set()

    def plan(self) -> Plan:
        """Return the plan."""
        return Plan(f"just-in-time account {self._wish.name}", self._probe, self._steps)

    def _probe(self) -> dict[str, Any]:
        name = self._wish.name
        return {
            "account": accounts.standing(self._agent, name),
            # A former agent's accounts have no record: it made them whole or not at all.
            "finished": self._record().get(name, "done") == "done",
            "begun": self.begun,
            "password": "password" in self._done,
            "sudo": "sudo" in self._done,
            "now": self._clock(),
        }

    def _steps(self, facts: Mapping[str, Any]) -> list[Step]:
        name = self._wish.name
        table: dict[str, tuple[str, Callable[[], None], dict[str, Any]]] = {
            "remove": (f"delete the account {name}", self._remove, {"account": accounts.NONE}),
            "create": (
                f"create the account {name} until {self._wish.user.expiration if self._wish.user else ''}",
                self._create,
                {"account": accounts.OURS, "begun": True, "finished": False},
            ),
            "password": (f"set the password of {name}", self._set_password, {"password": True}),
            "sudo": (f"let {name} use sudo", self._grant, {"sudo": True}),
            "finish": (f"note that {name} is complete", self._finish, {"finished": True}),
        }
        found = []
        for key in missing(self._wish, facts):
            summary, run, gives = table[key]
            found.append(Step(f"{key} ({self._token})", summary, run, gives=gives))
        return found

    def _create(self) -> None:
        wish = self._wish
        assert wish.expires is not None
        self._note("begun")
        self.begun = True
        self._agent.distro.create_user(wish.name, accounts.MARK, accounts.last_day(wish.expires))

    def _set_password(self) -> None:
        agent, user = self._agent, self._wish.user
        if agent.platform is None or user is None:
            raise AgentError("there is no platform to open the password with")
        agent.distro.set_password(user.name, agent.platform.decrypt_password(user.encrypted_password))
        self._done.add("password")

    def _grant(self) -> None:
        self._agent.distro.configure_sudo(self._wish.name, True)
        self._done.add("sudo")

    def _finish(self) -> None:
        self._note("done")

    def _remove(self) -> None:
        name = self._wish.name
        if accounts.standing(self._agent, name) != accounts.OURS:
            raise AgentError(f"{name} is no just-in-time account (any more)")
        self._agent.distro.delete_user(name)
        self._note(None)

    def _record(self) -> dict[str, str]:
        content = self._agent.state.load(RECORD, {})
        return content if isinstance(content, dict) else {}

    def _note(self, state: str | None) -> None:
        record = {name: value for name, value in self._record().items() if name != self._wish.name}
        if state is not None:
            record[self._wish.name] = state
        self._agent.state.save(RECORD, record)
