"""The short-lived process that makes the transport key beside boot stage and worker (rulings 15, 19a).

The key work itself is :mod:`waagent.platform.certhelper`'s; here is only what the supervisor, which speaks no JSON,
cannot say on its command line.
"""

from __future__ import annotations

import sys

from waagent.errors import ConfigError
from waagent.files import ensure_dir
from waagent.log import make_log
from waagent.service.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from waagent.service.start import Options

PRODUCT_UUID = "/sys/class/dmi/id/product_uuid"


def main(options: Options) -> int:
    """Make the key pair where it is missing or no longer good; returns 0 when there is one, 1 otherwise."""
    try:
        settings = Settings(options.root, options.conf)
    except ConfigError as problem:
        sys.stderr.write(f"waagent: {problem}\n")
        return 1
    paths = settings.paths
    log = make_log(
        "Daemon", "KeyHelper", path=paths.log_file, verbose=options.verbose, verbose_file=settings.verbose_file
    )
    from waagent.platform import certhelper

    try:
        ensure_dir(paths.lib_dir)
        made = certhelper.transport_key(paths.lib_dir, vm_id(paths.at(PRODUCT_UUID)))
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
