"""The short-lived process that makes the transport key beside boot stage and worker (rulings 15, 19a).

The key work itself is :mod:`waagent.platform.certhelper`'s; here is only what the supervisor, which speaks no JSON,
cannot say on its command line.
"""

from __future__ import annotations

from waagent.agent import make_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from waagent.service.start import Options


def main(options: Options) -> int:
    """Make the key pair where it is missing or no longer good; returns 0 when there is one, 1 otherwise."""
    agent = make_agent("boot", options.root, options.conf, options.verbose)
    log = agent.log.bind("Daemon", "KeyHelper")
    from waagent.platform import certhelper

    try:
        made = certhelper.transport_key(agent.paths.lib_dir, vm_id(agent.paths.at("/sys/class/dmi/id/product_uuid")))
    except Exception as problem:
        log.error(f"The transport key cannot be made: {type(problem).__name__}: {problem}")
        return 1
    if made:
        log.info("Made a transport key and its certificate")
    return 0


def vm_id(path: str) -> str | None:
    """Return the machine's identity as the firmware says it, upper case, ``None`` when it does not."""
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            return stream.read(64).strip().upper() or None
    except OSError:
        return None
