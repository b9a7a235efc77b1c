"""The agent as a service of FreeBSD and OpenBSD."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from waagent import AgentError
from waagent_distro.steps import servicefiles, textfiles

if TYPE_CHECKING:
    from waagent import Agent


def register(agent: Agent, program: str, path: str, script: str) -> bool:
    """Write *script* to *path*, enable the service and start it.

    Raises:
        AgentError: the program is not there, or the name is taken.
        CommandError: the manager of services refuses.
    """
    if not os.path.isabs(program) or not os.access(program, os.X_OK):
        raise AgentError(f"{program} is no program to run as a service")
    place = agent.paths.at(path)
    if os.path.exists(place) and servicefiles.MARK not in textfiles.read(place):
        raise AgentError(f"{place} belongs to somebody else: remove it first")
    textfiles.replace_if_different(place, script, 0o555)
    os.chmod(place, 0o555)
    name = agent.distro.service_name()
    agent.distro.service_action(name, "enable")
    agent.distro.service_action(name, "restart")
    return True


def unregister(agent: Agent, path: str) -> bool:
    """Stop and disable the service; remove a script that registering wrote.

    Raises:
        CommandError: the manager of services refuses.
    """
    place = agent.paths.at(path)
    if not os.path.exists(place):
        return True
    name = agent.distro.service_name()
    agent.distro.service_action(name, "stop")
    agent.distro.service_action(name, "disable")
    if servicefiles.MARK in textfiles.read(place):
        textfiles.remove(place)
    return True


def freebsd_script(program: str) -> str:
    """Return the script for ``rc.d`` of FreeBSD."""
    return f"""#!/bin/sh
# {servicefiles.MARK}
# PROVIDE: waagent
# REQUIRE: sshd netif dhclient
# KEYWORD: nojail

. /etc/rc.subr

name="waagent"
desc="Azure guest agent"
rcvar="waagent_enable"
pidfile="/var/run/waagent.rc.pid"
command="/usr/sbin/daemon"
command_args="-f -P ${{pidfile}} {shlex.quote(program)} -daemon"
extra_commands="reload"

load_rc_config $name
: ${{waagent_enable:="NO"}}
run_rc_command "$1"
"""


def openbsd_script(program: str) -> str:
    """Return the script for ``rc.d`` of OpenBSD."""
    return f"""#!/bin/ksh
# {servicefiles.MARK}

daemon={shlex.quote(program)}
daemon_flags="-daemon"
pexp=".*{program}.* -daemon.*"
rc_bg=YES

. /etc/rc.d/rc.subr

rc_cmd $1
"""
