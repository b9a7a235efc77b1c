"""Just-in-time accounts: the table of provisioning §24, name clashes, and runs that are cut short."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.upkeep.machine import Machine
from waagent import CryptError, GoalState, RemoteAccess, RemoteUser
from waagent_upkeep.jit import JitPlugin
from waagent_upkeep.remoteusers import RemoteUsers, Wish, missing

NOW = 1_794_564_000  # Fri, 13 Nov 2026 10:00:00 UTC
LATER, EARLIER = "Fri, 13 Nov 2026 11:00:00 UTC", "Fri, 13 Nov 2026 09:00:00 GMT"
PASSWORD = "correct horse"


class Killed(BaseException):
    """The process ends here."""


class Accounts:
    """A password file, and a distribution that keeps it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.now = [float(NOW)]
        self.sudo: set[str] = set()
        self.passwords: dict[str, str] = {}
        machine.write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000:Ann,,,:/home/ann:/bin/sh\n")
        machine.distro.answers.update(
            create_user=self.create, delete_user=self.delete, set_password=self.set_password, configure_sudo=self.grant
        )
        machine.platform = self
        self.users = RemoteUsers(machine, lambda: self.now[0])

    def create(self, name: str, comment: str, expiration: str) -> bool:
        line = f"{name}:x:2000:2000:{comment}:/home/{name}:/bin/sh\n"
        self.machine.write("/etc/passwd", self.machine.read("/etc/passwd") + line)
        return True

    def delete(self, name: str) -> bool:
        lines = self.machine.read("/etc/passwd").splitlines(keepends=True)
        self.machine.write("/etc/passwd", "".join(line for line in lines if not line.startswith(name + ":")))
        self.sudo.discard(name)
        self.passwords.pop(name, None)
        return True

    def set_password(self, name: str, password: str) -> bool:
        self.passwords[name] = password
        return True

    def grant(self, name: str, password_required: bool) -> bool:
        assert password_required
        self.sudo.add(name)
        return True

    def decrypt_password(self, encrypted: str) -> str:
        if encrypted == "BAD":
            raise CryptError("decrypt-password: no recipient")
        return encrypted.replace("enc:", "")

    def listed(self, *users: tuple[str, str], incarnation: str = "1", encrypted: str = f"enc:{PASSWORD}") -> None:
        self.users.offer(RemoteAccess(incarnation, tuple(RemoteUser(name, encrypted, until) for name, until in users)))

    @property
    def names(self) -> list[str]:
        return [line.split(":")[0] for line in self.machine.read("/etc/passwd").splitlines()][1:]

    def asked(self, name: str) -> list[tuple[Any, ...]]:
        return self.machine.distro.asked(name)

    @property
    def failures(self) -> list[str]:
        return [event.message for event in self.machine.happened if not event.success]


@pytest.fixture
def known(machine: Machine) -> Accounts:
    return Accounts(machine)


USER = RemoteUser("jit-bob", "x", LATER)
FACTS = {"account": "none", "finished": True, "begun": False, "password": False, "sudo": False, "now": NOW}
WHOLE = ["create", "password", "sudo", "finish"]


@pytest.mark.parametrize(
    ("wish", "changes", "steps"),
    [
        (Wish("u", USER, NOW + 1), {}, WHOLE),
        (Wish("u", USER, NOW), {}, []),  # its time is over
        (Wish("u", USER, None), {}, []),  # nobody knows when
        (Wish("u", USER, None), {"account": "ours"}, []),
        (Wish("u"), {}, []),
        (Wish("u"), {"account": "ours"}, ["remove"]),
        (Wish("u"), {"account": "ordinary"}, []),
        (Wish("u", USER, NOW + 1), {"account": "ordinary"}, []),
        (Wish("u", USER, NOW - 1), {"account": "ordinary"}, []),
        (Wish("u", USER, NOW - 1), {"account": "ours"}, ["remove"]),
        (Wish("u", USER, NOW + 1), {"account": "ours"}, []),
        (Wish("u", USER, NOW + 1), {"account": "ours", "finished": False}, ["remove", *WHOLE]),
        (Wish("u", USER, NOW + 1), {"account": "ours", "finished": False, "begun": True}, WHOLE[1:]),
        (
            Wish("u", USER, NOW + 1),
            {"account": "ours", "finished": False, "begun": True, "password": True},
            ["sudo", "finish"],
        ),
    ],
)
def test_the_planner(wish: Wish, changes: dict[str, Any], steps: list[str]) -> None:
    assert missing(wish, {**FACTS, **changes}) == steps


def test_an_account_comes_and_goes(known: Accounts) -> None:
    known.listed(("jit-bob", LATER))
    assert known.names == ["ann", "jit-bob"]
    assert known.asked("create_user") == [("jit-bob", "JIT_Account", "2026-11-14")]
    assert known.passwords == {"jit-bob": PASSWORD}
    assert known.sudo == {"jit-bob"}
    known.listed(("jit-bob", LATER), incarnation="2", encrypted="enc:another")
    assert known.passwords == {"jit-bob": PASSWORD}, "the password of an account that is there stays"
    assert len(known.asked("create_user")) == 1
    known.listed(incarnation="3")
    assert known.names == ["ann"]
    assert known.sudo == set()


def test_it_goes_by_itself_when_its_time_is_over(known: Accounts) -> None:
    known.listed(("jit-bob", LATER), ("jit-eve", "Fri, 13 Nov 2026 10:30:00 UTC"))
    for _ in range(31):
        known.now[0] += 60
        known.machine.loop.advance(60)
    assert known.names == ["ann", "jit-bob"]
    for _ in range(31):
        known.now[0] += 60
        known.machine.loop.advance(60)
    assert known.names == ["ann"]


def test_an_expired_one_is_never_made(known: Accounts) -> None:
    known.listed(("jit-bob", EARLIER))
    assert not known.asked("create_user")


def test_an_ordinary_account_of_that_name_is_left_as_it_is(known: Accounts) -> None:
    known.listed(("ann", LATER), ("root", LATER), ("jit-bob", LATER))
    assert known.names == ["ann", "jit-bob"]
    assert set(known.passwords) == {"jit-bob"}
    assert known.sudo == {"jit-bob"}
    assert [text.partition(":")[0] for text in known.failures] == [
        "just-in-time account ann",
        "just-in-time account root",
    ]
    known.listed(("ann", EARLIER), incarnation="2")
    known.users.offer(None)
    assert known.names == ["ann"], "and it is not deleted either"


@pytest.mark.parametrize("text", ["2019-01-01", "", "Fri, 32 Nov 2026 10:00:00 UTC", "Fri, 13 Nov 2026 10:00:00 CET"])
def test_an_expiration_that_cannot_be_read_concerns_that_account_alone(known: Accounts, text: str) -> None:
    known.listed(("jit-bad", text), ("jit-bob", LATER))
    assert known.names == ["ann", "jit-bob"]
    assert len(known.failures) == 1
    assert "jit-bad" in known.failures[0]


def test_a_failure_after_the_creation_takes_the_account_away_again(known: Accounts) -> None:
    known.listed(("jit-bob", LATER), encrypted="BAD")
    assert known.names == ["ann"]
    assert "no recipient" in known.failures[0]
    known.listed(("jit-bob", LATER), incarnation="2")
    assert known.names == ["ann", "jit-bob"], "the next list is a new chance"


def test_one_users_failure_is_not_anothers(known: Accounts) -> None:
    known.machine.distro.answers["configure_sudo"] = lambda name, _: (
        known.sudo.add(name) if name != "jit-a" else (_ for _ in ()).throw(OSError("disk full"))
    )
    known.listed(("jit-a", LATER), ("jit-b", LATER))
    assert known.names == ["ann", "jit-b"]


@pytest.mark.parametrize("operation", ["create_user", "set_password", "configure_sudo"])
@pytest.mark.parametrize("before", [True, False])
def test_a_run_that_is_cut_short_is_made_good(known: Accounts, operation: str, before: bool) -> None:
    answer = known.machine.distro.answers[operation]

    def die(*arguments: Any) -> bool:
        if not before:
            answer(*arguments)
        raise Killed

    known.machine.distro.answers[operation] = die
    # The wrapper of the notes takes Exception for an answer; what ends a process must go through.
    with pytest.raises(Killed):
        known.listed(("jit-bob", LATER))
    known.machine.distro.answers[operation] = answer
    again = RemoteUsers(known.machine, lambda: known.now[0])
    again.offer(RemoteAccess("1", (RemoteUser("jit-bob", f"enc:{PASSWORD}", LATER),)))
    assert known.names == ["ann", "jit-bob"]
    assert known.passwords == {"jit-bob": PASSWORD}
    assert known.sudo == {"jit-bob"}


def test_accounts_of_a_former_agent_count(known: Accounts) -> None:
    known.create("jit-old", "JIT_Account", "")
    known.listed(("jit-old", LATER))
    assert known.asked("create_user") == []
    known.listed(incarnation="2")
    assert known.names == ["ann"]


def test_without_a_list_the_machine_is_searched_once(known: Accounts) -> None:
    known.create("jit-old", "JIT_Account", "")
    known.create("likely", "JIT_Account of mine", "")
    known.users.offer(None)
    assert known.names == ["ann", "likely"]
    known.create("jit-new", "JIT_Account", "")
    known.users.offer(None)
    assert "jit-new" in known.names, "not searched again"
    known.listed(incarnation="2")
    assert "jit-new" not in known.names


def test_a_failed_removal_is_tried_again(known: Accounts) -> None:
    known.create("jit-old", "JIT_Account", "")
    known.machine.distro.answers["delete_user"] = OSError("busy")
    known.users.offer(None)
    known.machine.distro.answers["delete_user"] = known.delete
    known.users.offer(None)
    assert known.names == ["ann"]


def test_an_expired_account_that_cannot_be_deleted_is_not_forgotten(known: Accounts) -> None:
    known.listed(("jit-bob", LATER))
    known.machine.distro.answers["delete_user"] = OSError("busy")
    tries: list[float] = []
    for _ in range(3 * 3600 // 30):
        before = len(known.asked("delete_user"))
        known.now[0] += 30
        known.machine.loop.advance(30)
        tries += [known.now[0] - NOW - 3600] * (len(known.asked("delete_user")) - before)
    assert [round(later - earlier) for earlier, later in zip(tries, tries[1:])][:3] == [60, 300, 1500]
    assert len(known.failures) == 1, "and it is told once"
    known.machine.distro.answers["delete_user"] = known.delete
    known.now[0] += 3600
    known.machine.loop.advance(3600)
    assert known.names == ["ann"]


def test_what_will_not_change_is_not_tried_again(known: Accounts) -> None:
    known.listed(("ann", LATER), ("jit-bad", "tomorrow"))
    known.now[0] += 50
    known.machine.loop.advance(50)
    assert [timer for timer in known.machine.loop.timers if timer.due < known.machine.loop.now + 3000] == []
    assert len(known.failures) == 2
    known.listed(("ann", LATER), incarnation="2")
    assert len(known.failures) == 3, "the next list is told of anew"


def test_a_distribution_where_they_do_not_work(known: Accounts) -> None:
    known.machine.distro.answers["supports_remote_access"] = lambda: False
    known.listed(("jit-bob", LATER))
    known.listed(("jit-bob", LATER), incarnation="2")
    assert known.names == ["ann"]
    assert len(known.machine.logged("do not work on this distribution")) == 1


def test_no_password_is_ever_written_down(known: Accounts) -> None:
    known.listed(("jit-bob", LATER))
    everything = "\n".join(known.machine.lines) + "".join(
        path.read_text() for path in known.machine.root.rglob("*") if path.is_file()
    )
    assert PASSWORD not in everything


def test_the_hook_hands_over_what_the_goal_state_lists(known: Accounts) -> None:
    plugin = JitPlugin()
    plugin._users = known.users
    state = GoalState.__new__(GoalState)
    object.__setattr__(state, "remote_access", RemoteAccess("1", (RemoteUser("jit-bob", "enc:x", LATER),)))
    plugin.on_goal_state(known.machine, state)
    assert known.names == ["ann", "jit-bob"]
