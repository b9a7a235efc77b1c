"""The openssl program, as far as signatures need it: one command, and nothing trusted but what it is told to."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from waagent import Agent

OLDEST = (1, 1, 0)
_VERSION = re.compile(r"(?P<name>\w+) (?P<numbers>\d+\.\d+\.\d+)")
_KEPT = ("PATH", "LD_LIBRARY_PATH", "OPENSSL_CONF", "OPENSSL_FIPS", "OPENSSL_MODULES")
_NOWHERE = "/nonexistent"


class TooSlow(Exception):
    """The time was up."""


def program(agent: Agent) -> str:
    """Return the openssl program."""
    return agent.config.text("OS.OpensslPath") or "openssl"


def unusable(agent: Agent) -> str | None:
    """Return why openssl cannot verify signatures here, or ``None``."""
    done = agent.run((program(agent), "version"), timeout=10, env=environment())
    if not done.ok:
        return done.describe()
    match = _VERSION.match(done.stdout)
    if match is None or match["name"] != "OpenSSL":
        return f"{program(agent)} is not OpenSSL: {done.stdout.strip()[:80]}"
    if tuple(int(part) for part in match["numbers"].split(".")) < OLDEST:
        oldest = ".".join(str(part) for part in OLDEST)
        return f"OpenSSL {oldest} or newer is needed, {program(agent)} is {match['numbers']}"
    return None


def environment() -> dict[str, str]:
    """Return the environment of openssl.

    ``-CAfile`` adds to the certificates that openssl trusts by itself: without these two variables every public web
    authority could sign packages.
    """
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    kept.setdefault("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    return {**kept, "LC_ALL": "C", "SSL_CERT_DIR": _NOWHERE, "SSL_CERT_FILE": _NOWHERE}


def verify(agent: Agent, arguments: Sequence[str], timeout: float) -> str | None:
    """Run ``openssl cms -verify -binary -inform der`` with *arguments*; return what is wrong, ``None`` for nothing.

    Raises:
        TooSlow: *timeout* (seconds) did not suffice.
    """
    if timeout <= 0:
        raise TooSlow
    argv = (program(agent), "cms", "-verify", "-binary", "-inform", "der", *arguments)
    done = agent.run(argv, timeout=timeout, env=environment())
    if done.timed_out:
        raise TooSlow
    if done.ok:
        return None
    said = re.findall(r"Verify error:\s*(.+)", done.stderr) or re.findall(r":([^:\n]+):[^:\n]*:\d+:", done.stderr)
    return f"openssl ended with {done.returncode}: {'; '.join(said)[:300] or done.stderr.strip()[:300]}"
