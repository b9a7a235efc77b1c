"""Users: found, made, removed; passwords set, root's locked (spec/provisioning.md §7, spec/distro.md §3)."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Collection
from typing import TYPE_CHECKING

import attrs

from waagent import AgentError
from waagent_distro.steps import sudoers, textfiles

if TYPE_CHECKING:
    from waagent import Agent

LOCKED_ROOT = "root:*LOCK*:14600::::::"
"""The line of the password file that lets nobody in as root with a password."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]{0,31}\Z")
_DAY = re.compile(r"\d{4}-\d\d-\d\d\Z", re.ASCII)
_LOGIN_DEFS = ("/etc/login.defs", "/usr/etc/login.defs")
_UID_MIN = 100
_ADDED_BEFORE, _NO_SUCH_USER = 9, 6  # exit codes of useradd and userdel
_LOCK_TRIES = 30
_NOT_STARTED = (126, 127)


@attrs.frozen
class User:
    """One line of the password file."""

    name: str
    uid: int
    gid: int
    comment: str
    home: str
    shell: str


def check_name(name: str) -> None:
    """Refuse a name that a tool or a configuration file could take for something else (provisioning §3.3).

    Raises:
        AgentError: it is no user name.
    """
    if not _NAME.match(name):
        raise AgentError(f"{name!r} is no user name: letters, digits and _.@- are allowed, 32 at most")


def find_user(agent: Agent, name: str) -> User | None:
    """Return the user *name*: from the password file, on the real root also from the directory services."""
    for line in textfiles.read_or_empty(agent.paths.at("/etc/passwd"), 16 << 20).split("\n"):
        fields = line.split(":")
        if len(fields) == 7 and fields[0] == name and fields[2].isdigit() and fields[3].isdigit():
            return User(name, int(fields[2]), int(fields[3]), fields[4], fields[5], fields[6])
    if not agent.paths.is_real:
        return None
    import pwd

    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    return User(name, found.pw_uid, found.pw_gid, found.pw_gecos, found.pw_dir, found.pw_shell)


def is_system_user(agent: Agent, name: str, but: Collection[str] = ()) -> bool:
    """Return whether *name* belongs to the system rather than to a person: its uid is below ``UID_MIN``.

    Never with ``Provisioning.AllowResetSysUser=y``, never for a name in *but*, never for an unknown user.
    """
    if name in but or agent.config.boolean("Provisioning.AllowResetSysUser"):
        return False
    user = find_user(agent, name)
    return user is not None and user.uid < _uid_min(agent)


def create_user(agent: Agent, name: str, comment: str | None, expiration: str | None, shell: str = "") -> bool:
    """Make a user with a home directory; one that is there already only gets a home that is missing.

    Args:
        expiration: the last day, ``YYYY-MM-DD``.
        shell: the login shell; empty for the system's default.

    Raises:
        AgentError: the name or the day cannot be used.
        CommandError: ``useradd`` failed.
    """
    check_name(name)
    if expiration is not None and not _DAY.match(expiration):
        raise AgentError(f"{expiration!r} is no day as YYYY-MM-DD")
    user = find_user(agent, name)
    if user is not None:
        agent.log.info(f"User {name} already exists, skip useradd")
        _make_missing_home(agent, user)
        return True
    command = ["useradd", "-m"]
    shell = shell or _default_shell(agent)
    if shell:
        command += ["-s", shell]
    if expiration is not None:
        command += ["-e", expiration]
    if comment is not None:
        command += ["-c", comment.replace(":", " ").replace("\n", " ")]
    if _has_group(agent, name):
        command += ["-g", name]  # useradd refuses to make a group that is there
    done = agent.run((*command, name), timeout=60)
    if done.returncode == _ADDED_BEFORE and find_user(agent, name) is not None:
        return True
    if not done.ok:
        raise AgentError(f"cannot create user {name}: {done.describe()}")
    return True


def delete_user(agent: Agent, name: str, but: Collection[str] = ()) -> bool:
    """Remove a user with home directory and sudo rights; one that is gone already only loses the rights.

    Raises:
        AgentError: it is a system user, or ``userdel`` failed.
    """
    if is_system_user(agent, name, but):
        raise AgentError(f"User {name} is a system user, will not delete it.")
    if find_user(agent, name) is not None:
        _touch_utmp(agent)
        done = agent.run(("userdel", "-f", "-r", name), timeout=80)
        if not done.ok and done.returncode != _NO_SUCH_USER:
            raise AgentError(f"cannot delete user {name}: {done.describe()}")
    sudoers.revoke(agent, name)
    return True


def set_password(agent: Agent, name: str, password: str, but: Collection[str] = ()) -> bool:
    """Set a user's password; neither it nor its hash is seen in the list of processes.

    Raises:
        AgentError: it is a system user, the hash cannot be made, or the tool failed.
    """
    from waagent_distro.steps import passwords

    check_name(name)
    if is_system_user(agent, name, but):
        raise AgentError(f"User {name} is a system user, will not set password.")
    hashed = passwords.hash_password(agent, password)
    done = agent.run(("chpasswd", "-e"), input=f"{name}:{hashed}\n".encode(), timeout=50)
    if done.returncode in _NOT_STARTED:
        done = agent.run(("usermod", "-p", hashed, name), timeout=50)
    if not done.ok:
        reason = (done.stderr.strip() or f"exit code {done.returncode}").replace(hashed, "<redacted>")
        raise AgentError(f"cannot set the password of {name}: {reason}")
    return True


def lock_root_password(agent: Agent, create: bool = False) -> bool:
    """Put a line that fits no password in the place of root's in ``OS.PasswordPath``.

    Args:
        create: make the file when it is missing (stateless systems).

    Raises:
        AgentError: the password file is missing, or somebody keeps it locked.
    """
    path = agent.paths.at(agent.config.text("OS.PasswordPath") or "/etc/shadow")
    if not create and not os.path.exists(path):
        raise AgentError(f"cannot lock root's password: there is no {path}")
    with _PasswordLock(agent):
        lines = textfiles.read_or_empty(path).splitlines()
        kept = [line for line in lines if not line.startswith("root:")]
        textfiles.replace_if_different(path, "\n".join([LOCKED_ROOT, *kept]) + "\n", 0o600)
    return True


class _PasswordLock:
    """The lock that ``passwd`` and its like hold while they write (lckpwdf)."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._path = agent.paths.at("/etc/.pwd.lock")
        self._descriptor = -1

    def __enter__(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                self._agent.stopping.wait(0.5)
        os.close(self._descriptor)
        raise AgentError(f"somebody keeps {self._path} locked")

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _uid_min(agent: Agent) -> int:
    for path in _LOGIN_DEFS:
        for line in textfiles.read_or_empty(agent.paths.at(path)).split("\n"):
            words = line.split()
            if len(words) > 1 and words[0] == "UID_MIN" and words[1].isdigit():
                return int(words[1])
    return _UID_MIN


def _default_shell(agent: Agent) -> str:
    """Return bash where it is and the system names no default shell, else an empty text (provisioning §7.1)."""
    defaults = textfiles.read_or_empty(agent.paths.at("/etc/default/useradd"))
    named = any(line.strip().startswith("SHELL=") for line in defaults.split("\n"))
    return "" if named or not os.path.exists(agent.paths.at("/bin/bash")) else "/bin/bash"


def _has_group(agent: Agent, name: str) -> bool:
    groups = textfiles.read_or_empty(agent.paths.at("/etc/group"), 16 << 20)
    return any(line.startswith(name + ":") for line in groups.split("\n"))


def _make_missing_home(agent: Agent, user: User) -> None:
    """Finish what a ``useradd`` that was killed half-way left undone."""
    home = agent.paths.at(user.home)
    if os.path.lexists(home) or user.uid < _uid_min(agent) or os.path.dirname(user.home) != _homes(agent):
        return
    agent.log.info(f"User {user.name} has no home directory yet: making {user.home}")
    os.mkdir(home, 0o700)
    skeleton = agent.paths.at("/etc/skel")
    if os.path.isdir(skeleton):
        agent.run(("cp", "-R", skeleton + "/.", home), timeout=50, check=True)
    agent.run(("chown", "-R", f"{user.uid}:{user.gid}", home), timeout=50, check=True)


def _homes(agent: Agent) -> str:
    return (agent.config.text("OS.HomeDir") or "/home").rstrip("/")


def _touch_utmp(agent: Agent) -> None:
    try:
        os.close(os.open(agent.paths.at("/run/utmp"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o664))
    except OSError:
        return  # userdel only warns without it
