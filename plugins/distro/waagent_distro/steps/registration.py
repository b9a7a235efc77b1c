"""Make a program that was installed in any way the machine's service, and undo it (ruling 52)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from waagent import AgentError
from waagent_distro.steps import servicefiles, services, textfiles

if TYPE_CHECKING:
    from waagent import Agent


def register(agent: Agent, program: str) -> bool:
    """Install, enable and start the agent's service with *program*.

    A file of the distribution's package that names this very program is used as it is.

    Raises:
        AgentError: the program is not there.
        CommandError: the manager of services refuses.
    """
    if not os.path.isabs(program) or not os.access(program, os.X_OK):
        raise AgentError(f"{program} is no program to run as a service")
    name = agent.distro.service_name()
    kind = services.manager(agent)
    path, mode = _place(agent, kind, name)
    text = servicefiles.TEMPLATES[kind](program, name)
    if os.path.exists(path) and not _is_ours(path):
        if _names(textfiles.read(path), program):
            agent.log.info(f"{path} belongs to a package and is used as it is")
        else:
            raise AgentError(f"{path} belongs to somebody else and runs another program: remove it first")
    elif not _packaged(agent, kind, name, program):
        textfiles.replace_if_different(path, text, mode)
        os.chmod(path, mode)
    if kind == services.SYSTEMD:
        agent.run(("systemctl", "daemon-reload"), timeout=60, check=True)
        agent.distro.service_action(name, "unmask")
    agent.distro.service_action(name, "enable")
    # "start" would leave a service that runs already with the program it had.
    agent.distro.service_action(name, "restart")
    return True


def unregister(agent: Agent) -> bool:
    """Stop and disable the service; a file that :func:`register` wrote goes too, udev's rules come back.

    Raises:
        CommandError: the manager of services refuses.
    """
    name = agent.distro.service_name()
    kind = services.manager(agent)
    if services.exists(agent, name):
        agent.distro.service_action(name, "stop")
        agent.distro.service_action(name, "disable")
    path, _mode = _place(agent, kind, name)
    if os.path.exists(path) and _is_ours(path):
        textfiles.remove(path)
        if kind == services.SYSTEMD:
            agent.run(("systemctl", "daemon-reload"), timeout=60, check=True)
    agent.distro.restore_persistent_net_rules()
    return True


def _place(agent: Agent, kind: str, name: str) -> tuple[str, int]:
    if kind == services.SYSTEMD:
        return os.path.join(agent.distro.unit_directory(), name + ".service"), 0o644
    return agent.paths.at(f"/etc/init.d/{name}"), 0o755


def _is_ours(path: str) -> bool:
    return servicefiles.MARK in textfiles.read_or_empty(path)


def _packaged(agent: Agent, kind: str, name: str, program: str) -> bool:
    """Return whether a package's unit runs this program already."""
    if kind != services.SYSTEMD:
        return False
    for directory in ("/usr/lib/systemd/system", "/lib/systemd/system"):
        if _names(textfiles.read_or_empty(agent.paths.at(f"{directory}/{name}.service")), program):
            return True
    return False


def _names(text: str, program: str) -> bool:
    return any(program in line.replace('"', " ").replace("=", " ").split() for line in text.splitlines())
