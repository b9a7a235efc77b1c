"""udev's persistent names of network interfaces, which may be those of another machine (provisioning §22.4)."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from waagent import ensure_dir

if TYPE_CHECKING:
    from waagent import Agent

FILES = ("/lib/udev/rules.d/75-persistent-net-generator.rules", "/etc/udev/rules.d/70-persistent-net.rules")


def move(agent: Agent) -> bool:
    """Move the files into ``Lib.Dir``, in place of older copies; a link to ``/dev/null`` stays, it keeps rules away."""
    for path in FILES:
        place = agent.paths.at(path)
        if not os.path.isfile(place):
            continue
        ensure_dir(agent.paths.lib_dir)
        agent.log.warning(f"Move rules file {os.path.basename(path)} to {agent.paths.lib_dir}")
        shutil.move(place, agent.paths.lib(os.path.basename(path)))
    return True


def restore(agent: Agent) -> bool:
    """Put the files back from ``Lib.Dir``; one that has come again meanwhile stays."""
    for path in FILES:
        kept, place = agent.paths.lib(os.path.basename(path)), agent.paths.at(path)
        if os.path.exists(kept) and not os.path.exists(place):
            ensure_dir(os.path.dirname(place), 0o755)
            shutil.move(kept, place)
    return True
