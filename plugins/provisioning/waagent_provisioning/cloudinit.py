"""Waiting for what cloud-init leaves, with one budget for all of it (provisioning §13)."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from waagent import StateError, read_json
from waagent_provisioning import hostkey, modes
from waagent_provisioning.errors import ProvisioningError

if TYPE_CHECKING:
    from collections.abc import Callable

    from waagent import Agent

BUDGET = 1800.0
"""Seconds for all waits together: two of them would be longer than the platform's own patience."""
QUICK = 60.0
"""Seconds of looking once a second; later every five seconds."""

_FIRST_WORD, _MOST_QUIET = 10.0, 320.0
_RESULT = "/run/cloud-init/result.json"
_STAGES = "/run/cloud-init/status.json"
_LAST_WORDS = ("error", "disabled")
_STATUS_TIMEOUT = 10.0


class Waits:
    """The waits of one start, which share :data:`BUDGET` seconds.

    Args:
        agent: whose machine it is.
        clock: monotonic seconds.
        sleep: waits; returns whether the agent is being stopped.
    """

    def __init__(
        self,
        agent: Agent,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], bool] | None = None,
    ) -> None:
        self._agent = agent
        self._clock = clock
        self._sleep = sleep or agent.stopping.wait
        self._begun: float | None = None

    def for_document(self, path: str) -> bool:
        """Wait until cloud-init has put the provisioning document to *path*; ``False`` when the agent is stopped first.

        Raises:
            ProvisioningError: it did not, or it says that it failed or is off.
        """
        return self._wait(
            lambda: os.path.exists(path),
            f"cloud-init to copy ovf-env.xml to {path}",
            f"ovf-env.xml was not copied to {path}",
            self._last_word,
        )

    def for_host_key(self) -> str:
        """Wait for the SSH host key; return the file of its public half, empty when the agent is stopped first.

        The key of another type will do once cloud-init has finished without making one of the configured type.

        Raises:
            ProvisioningError: there is none.
        """
        wanted = hostkey.public_key_path(self._agent)
        found: list[str] = []

        def there() -> bool:
            path = wanted if hostkey.fingerprint(wanted) else ""
            if not path and finished(self._agent):
                path = hostkey.any_public_key(self._agent)
            if path:
                found.append(path)
            return bool(path)

        what, failure = f"cloud-init to make the SSH host key {wanted}", f"ssh host key was not found at {wanted}"
        if not self._wait(there, what, failure, lambda: ""):
            return ""
        if found[0] != wanted:
            self._agent.log.info(f"There is no {wanted}; {found[0]} is the host key that is reported")
        return found[0]

    def _wait(self, there: Callable[[], bool], what: str, failure: str, last_word: Callable[[], str]) -> bool:
        agent = self._agent
        if self._begun is None:
            self._begun = self._clock()
        begun_here = self._clock()
        next_word, pause_of_words = 0.0, _FIRST_WORD
        while not there():
            now = self._clock()
            if now - self._begun >= BUDGET:
                raise ProvisioningError(f"Giving up, {failure} after {BUDGET:.0f}s")
            if now - begun_here >= next_word:
                agent.log.info(f"Waiting for {what}")
                reason = last_word()
                if reason:
                    raise ProvisioningError(f"Giving up, {failure}: {reason}")
                if not modes.cloud_init_enabled(agent):
                    agent.log.warning("cloud-init is not enabled, and yet it is waited for")
                next_word += pause_of_words
                pause_of_words = min(pause_of_words * 2, _MOST_QUIET)
            if self._sleep(1.0 if now - self._begun < QUICK else 5.0):
                return False
        return True

    def _last_word(self) -> str:
        """Return why cloud-init will not bring anything any more, empty when it may."""
        if not self._agent.paths.is_real:
            return ""
        done = self._agent.run(("cloud-init", "status"), timeout=_STATUS_TIMEOUT)
        for line in done.stdout.splitlines():
            key, colon, value = line.partition(":")
            if colon and key.strip() == "status" and value.strip() in _LAST_WORDS:
                return f"cloud-init reports status: {value.strip()}"
        return ""


def finished(agent: Agent) -> bool:
    """Return whether cloud-init is through on this boot."""
    return os.path.exists(agent.paths.at(_RESULT))


def has_reported(agent: Agent) -> bool:
    """Return whether cloud-init has told the platform Ready on this boot: it does so in its first stage."""
    if finished(agent):
        return True
    try:
        stages = read_json(agent.paths.at(_STAGES), 1 << 20)
        local = stages["v1"]["init-local"]
        return bool(local["finished"]) and not local["errors"]
    except (OSError, StateError, KeyError, TypeError):
        return False
