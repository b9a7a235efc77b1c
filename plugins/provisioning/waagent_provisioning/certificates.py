"""Keys that the document names by the thumbprint of a certificate in the goal state (provisioning §8.4, §8.5)."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from waagent import AgentError, ProtocolError, StateError, read_limited, ssh_public_key
from waagent_provisioning.errors import ProvisioningError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from waagent import Agent

KEY_PATIENCE = 60.0
"""Seconds that the helper which makes the transport key is waited for."""
FETCH_PATIENCE = 300.0
ANSWERS = 3
"""Goal states without the certificate after which it is not waited for any more."""
_PAUSE = 2.0
_LOOK = 0.05


def fetch(agent: Agent, thumbprints: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
    """Make sure that the certificates are in the state directory.

    Raises:
        ProvisioningError: they do not come; says which and why.
    """
    wanted = [one for one in thumbprints if not os.path.exists(agent.paths.lib(one + ".crt"))]
    if not wanted:
        return
    begun = clock()
    # Another process makes the key at the start of the service; certificates are encrypted for it.
    while not os.path.exists(agent.paths.lib("TransportCert.pem")) and clock() - begun < KEY_PATIENCE:
        if agent.stopping.wait(_LOOK):
            break
    answers = 0
    while True:
        try:
            agent.connect().update_goal_state(force=True)
            answers += 1
            reason = "the goal state does not hold it"
        except ProtocolError as problem:
            reason = str(problem)
        missing = [one for one in wanted if not os.path.exists(agent.paths.lib(one + ".crt"))]
        if not missing:
            return
        if answers >= ANSWERS or clock() - begun > FETCH_PATIENCE or agent.stopping.wait(_PAUSE):
            raise ProvisioningError(f"Can't find {missing[0]}.crt: {reason}")


def public_key(agent: Agent, thumbprint: str) -> str:
    """Return the public key of a certificate in OpenSSH form.

    Raises:
        ProvisioningError: it cannot be had.
    """
    try:
        return ssh_public_key(agent.paths, thumbprint)
    except AgentError as problem:
        raise ProvisioningError(str(problem)) from None


def private_key(agent: Agent, thumbprint: str) -> str:
    """Return the private key of a certificate as PEM, a secret.

    Raises:
        ProvisioningError: the goal state does not hold it.
    """
    name = thumbprint + ".prv"
    try:
        return read_limited(agent.paths.lib(name), 1 << 16).decode("ascii")
    except (OSError, StateError, UnicodeDecodeError):
        raise ProvisioningError(f"Can't find {name}") from None
