"""The SSH server: its options (spec/provisioning.md §8.3, ruling 41) and how it takes note of a change."""

from __future__ import annotations

import fnmatch
import os
import posixpath
from collections.abc import Sequence
from typing import TYPE_CHECKING

from waagent import AgentError
from waagent_distro.steps import services, textfiles

if TYPE_CHECKING:
    from waagent import Agent

DROP_IN = "10-waagent.conf"
"""Sorts before the drop-ins of images (``50-cloud-init.conf``): sshd obeys the first value that it reads."""

_ALIASES = {"challengeresponseauthentication": "kbdinteractiveauthentication"}
_SSH_DIR = "/etc/ssh"
_VENDOR_CONFIG = "/usr/etc/ssh/sshd_config"  # SUSE and others that keep /etc empty
_UNITS = ("sshd.service", "ssh.service")

Settings = Sequence["tuple[str, str]"]


def configure(
    agent: Agent, password_authentication: bool | None, client_alive_interval: int | None, edit_main: bool = True
) -> bool:
    """Set options of the server, in the main file, and in a drop-in what the main file alone cannot put in force.

    A drop-in comes before the main file. One that says no more than it must leaves the main file to those who edit it
    later: the VMAccess extension, which a password is reset with, knows no other.

    Args:
        password_authentication: allowed or not; ``None`` leaves it.
        client_alive_interval: seconds; ``None`` leaves it.
        edit_main: ``False`` where the main file belongs to the package alone: then only a drop-in is written.

    Raises:
        AgentError: the server refuses the result; everything is as it was.
    """
    settings = _settings(password_authentication, client_alive_interval)
    directory = agent.config.text("OS.SshDir") or _SSH_DIR
    main = agent.paths.at(posixpath.join(directory, "sshd_config"))
    text = textfiles.read_or_empty(main)
    writes: dict[str, str | None] = {}
    edits_main = bool(edit_main and text)
    drop_ins = included_directory(text or textfiles.read_or_empty(agent.paths.at(_VENDOR_CONFIG)), directory)
    if not (edits_main or drop_ins):
        agent.log.info(f"The SSH server's configuration is left as it is: {main} includes no directory")
        return True
    if drop_ins:
        folder = agent.paths.at(drop_ins)
        path = os.path.join(folder, DROP_IN)
        others = [*_further_includes(text), *_other_drop_ins(folder)] if edits_main else []
        needed = [one for one in settings if not edits_main or _is_overridden(others, *one)]
        ours = _without(textfiles.read_or_empty(path), [key for key, value in settings if (key, value) not in needed])
        ours = edited(ours, needed)
        if ours or os.path.exists(path):
            writes[path] = ours or None
    if edits_main:
        writes[main] = edited(text, settings)
    _write_all(agent, writes, main)
    return True


def restart(agent: Agent, options: Sequence[str] = ()) -> bool:
    """Make the server read its configuration and host keys again; open connections stay.

    Nothing is done where the server is not running, or is started for each connection.

    Args:
        options: more options for ``systemctl``.

    Raises:
        CommandError: the server does not obey.
    """
    manager = services.manager(agent)
    if manager == services.SYSTEMD:
        unit = next((unit for unit in _UNITS if services.is_loaded(agent, unit)), None)
        if unit is None:
            agent.log.info("There is no SSH server to reload")
            return True
        agent.run(("systemctl", *options, "try-reload-or-restart", unit), timeout=60, check=True)
        return True
    for name in ("sshd", "ssh"):
        if services.exists(agent, name):
            return services.act(agent, name, "reload")
    agent.log.info("There is no SSH server to reload")
    return True


def edited(text: str, settings: Settings) -> str:
    """Return the configuration *text* with *settings* in force outside ``Match`` blocks.

    A line that sets one is replaced. Otherwise the setting goes before the first ``Match`` that is still open at the
    end, or to the end. Keywords are compared as sshd does: case and indentation do not count.
    """
    lines = text.split("\n")
    for key, value in settings:
        _set(lines, key, value)
    return "\n".join(lines)


def included_directory(text: str, ssh_dir: str = _SSH_DIR) -> str:
    """Return the directory of drop-ins that the configuration includes outside ``Match``, empty when there is none."""
    for line in text.split("\n"):
        words = _words(line)
        if words[:1] == ["match"]:
            break
        if words[:1] == ["include"]:
            for pattern in line.split()[1:]:
                path = posixpath.join(ssh_dir, pattern.strip('"'))
                if fnmatch.fnmatch(DROP_IN, posixpath.basename(path)) and path.endswith((".conf", "*")):
                    return posixpath.dirname(path)
    return ""


def _settings(password_authentication: bool | None, client_alive_interval: int | None) -> list[tuple[str, str]]:
    found = []
    if password_authentication is not None:
        word = "yes" if password_authentication else "no"
        found += [("PasswordAuthentication", word), ("ChallengeResponseAuthentication", word)]
    if client_alive_interval is not None:
        found.append(("ClientAliveInterval", str(client_alive_interval)))
    return found


def _further_includes(text: str) -> list[str]:
    """Return a line for each file or directory that the configuration includes besides the first."""
    included = [word for line in text.split("\n") if _words(line)[:1] == ["include"] for word in _words(line)[1:]]
    return [f"include {word}" for word in included[1:]]


def _other_drop_ins(folder: str) -> list[str]:
    """Return the text of the drop-ins of others, in the order in which sshd reads them."""
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    paths = [os.path.join(folder, name) for name in names if name != DROP_IN]
    return [textfiles.read_or_empty(path) for path in paths if os.path.isfile(path)]


def _is_overridden(texts: Sequence[str], key: str, value: str) -> bool:
    """Return whether the first of *texts* that sets *key* for everybody sets something else than *value*.

    What a text includes is not looked into: it might.
    """
    names = _names(key)
    for text in texts:
        everybody = True
        for line in text.split("\n"):
            words = _words(line)
            if words[:1] == ["match"]:
                everybody = words[1:2] == ["all"]
            elif words[:1] == ["include"]:
                return True
            elif everybody and words and words[0] in names:
                return words[1:2] != [value]
    return False


def _without(text: str, keys: Sequence[str]) -> str:
    """Return *text* without the lines that set one of *keys*."""
    names = {name for key in keys for name in _names(key)}
    return "\n".join(line for line in text.split("\n") if not names.intersection(_words(line)[:1]))


def _names(key: str) -> set[str]:
    return {key.lower(), _ALIASES.get(key.lower(), key.lower())}


def _set(lines: list[str], key: str, value: str) -> None:
    names = _names(key)
    open_match: int | None = None
    for number, line in enumerate(lines):
        words = _words(line)
        if not words:
            continue
        if words[0] == "match":
            if words[1:2] == ["all"]:
                open_match = None
            elif open_match is None:
                open_match = number
        elif open_match is None and words[0] in names:
            keyword = line.replace("=", " ").split()[0]
            lines[number] = f"{keyword} {value}"
            return
    if open_match is not None:
        lines.insert(open_match, f"{key} {value}")
        return
    if lines[-1]:
        lines.append("")  # a last line without its line break
    lines.insert(len(lines) - 1, f"{key} {value}")


def _words(line: str) -> list[str]:
    """Return the words of a line in lower case; none for a comment."""
    stripped = line.strip()
    return [] if stripped.startswith("#") else stripped.replace("=", " ", 1).lower().split()


def _write_all(agent: Agent, writes: dict[str, str | None], main: str) -> None:
    before = {path: textfiles.read(path) if os.path.exists(path) else None for path in writes}
    if all(before[path] == text for path, text in writes.items()):
        return
    complaint = _complaint(agent, main)
    try:
        for path, text in writes.items():
            if text is None:
                textfiles.remove(path)
            else:
                textfiles.replace(path, text, 0o600)
        # A complaint that was there before (no host keys yet, no /run/sshd) is not about what was written.
        after = _complaint(agent, main)
        if after and after != complaint:
            raise AgentError(f"sshd refuses the new configuration, the old one stays: {after}")
    except BaseException:
        for path, old in before.items():
            if old is None:
                textfiles.remove(path)
            else:
                textfiles.replace(path, old, 0o600)
        raise


def _complaint(agent: Agent, main: str) -> str:
    """Return what ``sshd -t`` says against the configuration; empty when it is content or not installed."""
    for program in ("sshd", "/usr/sbin/sshd"):
        # sshd insists on its absolute path, to run itself again.
        path = program if os.path.isabs(program) else _which(program)
        if path:
            done = agent.run((path, "-t", "-f", main) if os.path.exists(main) else (path, "-t"))
            return "" if done.ok or done.returncode in (126, 127) else done.stderr.strip() or done.stdout.strip()
    return ""


def _which(program: str) -> str:
    for directory in ("/usr/sbin", "/usr/bin", "/usr/local/sbin", "/sbin"):
        path = os.path.join(directory, program)
        if os.access(path, os.X_OK):
            return path
    return ""
