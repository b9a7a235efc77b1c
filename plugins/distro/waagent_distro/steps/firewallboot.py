"""The firewall's rules at the next boot, before the network: by firewalld, else by a unit without Python."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from waagent import ensure_dir
from waagent_distro.steps import firewall, services, textfiles

if TYPE_CHECKING:
    from waagent import Agent

UNIT = "waagent-firewall"
_RULES = "waagent-firewall.rules"
_DIRECT = ("firewall-cmd", "--permanent", "--direct")


def persist(agent: Agent, endpoint: str, uid: int) -> bool:
    """See to it that the rules are there early; nothing is done where neither firewalld nor systemd runs.

    Raises:
        AgentError: there is no tool for the rules.
        CommandError: firewalld or systemd refuses.
    """
    if _has_firewalld(agent):
        for rule in _passthroughs(endpoint, uid):
            if not agent.run((*_DIRECT, "--query-passthrough", *rule)).ok:
                agent.run((*_DIRECT, "--passthrough", *rule), check=True)
        return True
    if services.manager(agent) != services.SYSTEMD:
        agent.log.verbose("The firewall's rules are set when the agent starts: nothing here would set them earlier")
        return True
    unit, rules = _places(agent)
    tool = firewall.tool(agent)
    if tool == firewall.NFT:
        script, command = firewall.nft_script(endpoint, uid), f"nft -f {rules}"
    else:
        script = "\n".join(["*security", *firewall.rules(endpoint, uid), "COMMIT", ""])
        command = f"iptables-restore -w -n {rules}"
    ensure_dir(os.path.dirname(rules))
    textfiles.replace_if_different(rules, script, 0o600)
    if textfiles.replace_if_different(unit, _unit(command, rules)):
        agent.run(("systemctl", "daemon-reload"), timeout=60, check=True)
    return services.act(agent, UNIT, "enable")


def forget(agent: Agent, endpoint: str, uid: int) -> None:
    """Undo :func:`persist`.

    Raises:
        CommandError: firewalld or systemd refuses.
    """
    if _has_firewalld(agent):
        for rule in _passthroughs(endpoint, uid):
            if agent.run((*_DIRECT, "--query-passthrough", *rule)).ok:
                agent.run((*_DIRECT, "--remove-passthrough", *rule), check=True)
    unit, rules = _places(agent)
    if os.path.exists(unit):
        services.act(agent, UNIT, "disable")
        textfiles.remove(unit)
        agent.run(("systemctl", "daemon-reload"), timeout=60, check=True)
    textfiles.remove(rules)


def _places(agent: Agent) -> tuple[str, str]:
    return os.path.join(agent.distro.unit_directory(), UNIT + ".service"), agent.paths.lib(_RULES)


def _has_firewalld(agent: Agent) -> bool:
    return agent.run(("firewall-cmd", "--state"), timeout=10).stdout.strip() == "running"


def _passthroughs(endpoint: str, uid: int) -> list[tuple[str, ...]]:
    return [("ipv4", "-t", "security", *rule.split()) for rule in firewall.rules(endpoint, uid)]


def _unit(command: str, rules: str) -> str:
    return f"""[Unit]
Description=Keep other users from the Azure platform's endpoint
DefaultDependencies=no
After=local-fs.target
Before=network-pre.target shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target
ConditionPathExists={rules}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={command}

[Install]
WantedBy=network.target
"""
