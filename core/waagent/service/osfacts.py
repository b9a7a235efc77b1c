"""The two words of os-release that the supervisor's second log line shows (cli §4.8). Standard library alone."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from waagent.paths import Paths


def describe(paths: Paths) -> str:
    """Return ``<id> <version>`` of the operating system, from os-release, else from the kernel."""
    found: dict[str, str] = {}
    for place in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(paths.at(place), encoding="utf-8", errors="replace") as stream:
                text = stream.read(65536)
        except OSError:
            continue
        for line in text.splitlines():
            key, equals, value = line.partition("=")
            if equals:
                found[key.strip()] = value.strip().strip("\"'")
        break
    kernel = os.uname()
    return f"{found.get('ID') or kernel.sysname.lower()} {found.get('VERSION_ID') or kernel.release}"
