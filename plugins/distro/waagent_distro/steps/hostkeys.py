"""Host keys of the SSH server (spec/provisioning.md §8.1): new ones are complete before the old ones go."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from typing import TYPE_CHECKING

from waagent import AgentError

if TYPE_CHECKING:
    from waagent import Agent

KINDS = ("rsa", "dsa", "ecdsa", "ed25519", "auto")
_TIMEOUT = 110.0


def regenerate(agent: Agent, kind: str) -> bool:
    """Replace all host keys by new ones.

    Args:
        kind: ``rsa``, ``dsa``, ``ecdsa`` or ``ed25519`` for one pair; ``auto`` for one of each kind that this
            version of OpenSSH uses.

    Raises:
        AgentError: the kind is unknown, or no key was made; the old keys are there.
    """
    if kind not in KINDS:
        raise AgentError(f"{kind!r} is no kind of host key: {', '.join(KINDS)}")
    directory = agent.paths.at(agent.config.text("OS.SshDir") or "/etc/ssh")
    os.makedirs(directory, 0o755, exist_ok=True)
    scratch = tempfile.mkdtemp(prefix=".waagent-", dir=directory)
    try:
        new = _make(agent, kind, scratch)
        old = set(glob.glob(os.path.join(glob.escape(directory), "ssh_host_*key*")))
        for path in new:
            target = os.path.join(directory, os.path.basename(path))
            os.chmod(path, 0o644 if path.endswith(".pub") else 0o600)
            os.rename(path, target)
            old.discard(target)
        for path in old:
            os.unlink(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for path in new:
        agent.distro.label_path(os.path.join(directory, os.path.basename(path)))
    return True


def _make(agent: Agent, kind: str, scratch: str) -> list[str]:
    """Return the files of the new keys; each private one comes after its public one, which sshd does without."""
    if kind == "auto":
        # -A writes below "<prefix>/etc/ssh", whatever directory was compiled in on top of it.
        place = os.path.join(scratch, "etc", "ssh")
        os.makedirs(place, 0o700)
        done = agent.run(("ssh-keygen", "-A", "-f", scratch), timeout=_TIMEOUT)
    else:
        place = scratch
        target = os.path.join(scratch, f"ssh_host_{kind}_key")
        done = agent.run(("ssh-keygen", "-q", "-N", "", "-t", kind, "-f", target), timeout=_TIMEOUT)
    found = sorted(glob.glob(os.path.join(glob.escape(place), "ssh_host_*_key*")), reverse=True)
    if not done.ok or not found:
        raise AgentError(f"no host key was made, the old ones stay: {done.describe()}")
    return found
