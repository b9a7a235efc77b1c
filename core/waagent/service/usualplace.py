"""The usual state directory leads to one elsewhere: handlers know ``/var/lib/waagent`` by heart (extensions §24)."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from waagent.log import Log
    from waagent.paths import Paths

USUAL = "/var/lib/waagent"


def link(paths: Paths, log: Log) -> None:
    """Put a link to ``Lib.Dir`` where its default would be, unless somebody has anything there."""
    usual, place = paths.at(USUAL), paths.lib_dir
    real, wanted = os.path.realpath(usual), os.path.realpath(place)
    if os.path.commonpath((real, wanted)) in (real, wanted):
        return  # the same, or one lies in the other and a link would lead round in circles
    problem = "is there"
    if not os.path.islink(usual):
        try:
            if os.path.lexists(usual):
                os.rmdir(usual)
            os.symlink(place, usual)
            return
        except OSError as error:
            problem = error.strerror or str(error)
    log.warning(
        f"{usual} cannot become a link to Lib.Dir ({place}): {problem}; extensions that look there for their "
        f"certificates do not find them"
    )
