"""What a service of the agent looks like to each manager of services."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable

_PACKAGED = "ExecStart=/usr/sbin/waagent -daemon"
MARK = 'written by "waagent -register-service"'
"""Stands in what registering writes, so that unregistering removes nothing else."""


def unit(program: str, name: str) -> str:
    """Return the unit for systemd: the one that packages ship, ``waagent.service`` beside this module.

    It runs *program*, and the other name that the service goes by is an alias, so that both words work.
    """
    other = "waagent" if name == "walinuxagent" else "walinuxagent"
    with open(os.path.join(os.path.dirname(__file__), "waagent.service"), encoding="utf-8") as stream:
        text = stream.read()
    return f"# {MARK}\n{text.replace(_PACKAGED, f'ExecStart={_quoted(program)} -daemon')}Alias={other}.service\n"


def openrc(program: str, name: str) -> str:
    """Return the script for OpenRC."""
    return f"""#!/sbin/openrc-run
# {MARK}
description="Azure guest agent"
command={shlex.quote(program)}
command_args="-daemon"
command_background="yes"
pidfile="/run/{name}.openrc.pid"
retry="TERM/20/KILL/5"

depend() {{
    need localmount
    use net
    after sshd bootmisc
}}
"""


def procd(program: str, name: str) -> str:
    """Return the script for OpenWrt's procd."""
    return f"""#!/bin/sh /etc/rc.common
# {MARK}
START=60
STOP=80
USE_PROCD=1

start_service() {{
    procd_open_instance {name}
    procd_set_param command {shlex.quote(program)} -daemon
    procd_set_param respawn
    procd_close_instance
}}
"""


def init_script(program: str, name: str) -> str:
    """Return the script for ``/etc/init.d``, with what ``update-rc.d`` and ``chkconfig`` read."""
    return f"""#!/bin/sh
# {MARK}
# chkconfig: 345 60 80
### BEGIN INIT INFO
# Provides:          {name}
# Required-Start:    $network $remote_fs
# Required-Stop:     $network $remote_fs
# Should-Start:      sshd ssh
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: Azure guest agent
### END INIT INFO

PROGRAM={shlex.quote(program)}
PIDFILE=/run/{name}.init.pid

case "$1" in
start)
    start-stop-daemon --start --quiet --oknodo --background --make-pidfile --pidfile "$PIDFILE" \\
        --startas "$PROGRAM" -- -daemon
    ;;
stop)
    start-stop-daemon --stop --quiet --oknodo --retry TERM/20/KILL/5 --pidfile "$PIDFILE"
    ;;
restart)
    "$0" stop
    "$0" start
    ;;
reload)
    start-stop-daemon --stop --quiet --signal HUP --pidfile "$PIDFILE"
    ;;
status)
    start-stop-daemon --status --pidfile "$PIDFILE"
    ;;
*)
    echo "usage: $0 start|stop|restart|reload|status" >&2
    exit 2
    ;;
esac
"""


TEMPLATES: dict[str, Callable[[str, str], str]] = {
    "systemd": unit,
    "openrc": openrc,
    "procd": procd,
    "sysv": init_script,
}
"""The text of a service, by the manager of services (:mod:`waagent_distro.steps.services`)."""


def _quoted(program: str) -> str:
    """Return a path as a unit takes it: systemd expands ``%`` and ``$`` and splits at blanks."""
    text = program.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return text if text == program and not any(letter.isspace() for letter in text) else f'"{text}"'
