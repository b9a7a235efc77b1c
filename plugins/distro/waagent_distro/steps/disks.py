"""Timeouts of SCSI disks (spec/provisioning.md §22.3)."""

from __future__ import annotations

import glob
from typing import TYPE_CHECKING

from waagent import AgentError
from waagent_distro.steps import textfiles

if TYPE_CHECKING:
    from waagent import Agent

_LONGEST_TIMEOUT = 86400


def set_scsi_timeout(agent: Agent, seconds: int) -> bool:
    """Set the timeout of every ``sd*`` disk that has another one (provisioning §22.3).

    Raises:
        AgentError: it is no number of seconds from 1 to a day.
    """
    if not 1 <= seconds <= _LONGEST_TIMEOUT:
        raise AgentError(f"{seconds} s is no timeout for disks: 1 to {_LONGEST_TIMEOUT}")
    for path in sorted(glob.glob(agent.paths.at("/sys/block/sd*/device/timeout"))):
        if textfiles.first_line(path) == str(seconds):
            continue
        try:
            with open(path, "w", encoding="ascii") as stream:
                stream.write(str(seconds))
        except FileNotFoundError:
            continue  # the disk was taken away meanwhile
        agent.log.info(f"Set the timeout of {path.split('/')[-3]} to {seconds} s")
    return True
