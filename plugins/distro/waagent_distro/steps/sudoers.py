"""The file of sudo rights (spec/provisioning.md §7.3); lines of others in it stay."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from waagent import AgentError
from waagent_distro.steps import textfiles

if TYPE_CHECKING:
    from waagent import Agent

FILE_NAME = "waagent"
_MODE = 0o440
_NOT_FOUND = 127


def grant(agent: Agent, name: str, password_required: bool, directory: str = "") -> bool:
    """Let the user *name* do everything as root.

    Args:
        password_required: ``False`` where the user has none to type.
        directory: default ``OS.SudoersDir``.

    Raises:
        AgentError: ``visudo`` does not accept the file; the old one stays.
    """
    from waagent_distro.steps import accounts

    accounts.check_name(name)
    path = _path(agent, directory)
    _make_directory(agent, os.path.dirname(path))
    with_password, without = f"{name} ALL=(ALL) ALL", f"{name} ALL=(ALL) NOPASSWD: ALL"
    wanted, other = (with_password, without) if password_required else (without, with_password)
    # sudo obeys the last line that fits: the other form of ours would undo or weaken this one.
    lines = [line for line in textfiles.read_or_empty(path).splitlines() if line.strip() != other]
    if wanted not in lines:
        lines.append(wanted)
    _write(agent, path, lines)
    return True


def revoke(agent: Agent, name: str, directory: str = "") -> bool:
    """Take the rights of the user *name* out of the file: every line whose first word that is.

    Raises:
        AgentError: ``visudo`` does not accept what is left.
    """
    path = _path(agent, directory)
    lines = textfiles.read_or_empty(path).splitlines()
    kept = [line for line in lines if line.split(None, 1)[:1] != [name]]
    if kept == lines:
        return True
    if any(line.strip() for line in kept):
        _write(agent, path, kept)
    else:
        textfiles.remove(path)
    return True


def _path(agent: Agent, directory: str) -> str:
    return os.path.join(agent.paths.at(directory or agent.config.text("OS.SudoersDir") or "/etc/sudoers.d"), FILE_NAME)


def _write(agent: Agent, path: str, lines: list[str]) -> None:
    text = "\n".join(lines) + "\n"
    if os.path.exists(path) and textfiles.read(path) == text:
        os.chmod(path, _MODE)
        return
    draft = f"{path}.{os.urandom(4).hex()}.draft"  # sudo passes over names with a dot
    try:
        textfiles.replace(draft, text, _MODE)
        done = agent.run(("visudo", "-c", "-f", draft))
        if not done.ok and done.returncode != _NOT_FOUND:
            raise AgentError(f"visudo does not accept {path}: {done.stderr.strip() or done.stdout.strip()}")
        os.rename(draft, path)
    finally:
        textfiles.remove(draft)
    os.chmod(path, _MODE)


def _make_directory(agent: Agent, directory: str) -> None:
    if os.path.isdir(directory):
        return
    os.makedirs(directory, 0o750)
    main = os.path.join(os.path.dirname(directory), "sudoers")
    if not os.path.exists(main):
        return  # sudo is not installed; its own file will name the directory
    text = textfiles.read(main)
    named = agent.paths.at("/") if agent.paths.is_real else agent.paths.root
    line = f"#includedir /{os.path.relpath(directory, named)}"
    if line not in text.splitlines():
        textfiles.replace(main, text.rstrip("\n") + f"\n{line}\n", _MODE)
