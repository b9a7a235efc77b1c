"""The SSH server's host key and its fingerprint (provisioning §8.2)."""

from __future__ import annotations

import base64
import binascii
import glob
import hashlib
import os
from typing import TYPE_CHECKING

from waagent import StateError, read_limited

if TYPE_CHECKING:
    from waagent import Agent

AUTO = "auto"


def kind(agent: Agent) -> str:
    """Return ``Provisioning.SshHostKeyPairType``."""
    return agent.config.text("Provisioning.SshHostKeyPairType") or "rsa"


def public_key_path(agent: Agent) -> str:
    """Return the file of the public key that is reported: that of the type asked for, with ``auto`` the RSA key."""
    wanted = kind(agent)
    return os.path.join(_directory(agent), f"ssh_host_{'rsa' if wanted == AUTO else wanted}_key.pub")


def any_public_key(agent: Agent) -> str:
    """Return the file of whatever host key there is, by name; empty when there is none."""
    found = sorted(glob.glob(os.path.join(glob.escape(_directory(agent)), "ssh_host_*_key.pub")))
    return next((path for path in found if fingerprint(path)), "")


def fingerprint(path: str) -> str:
    """Return the fingerprint as ``ssh-keygen -l`` prints it, empty when there is no key."""
    try:
        words = read_limited(path, 1 << 16).decode("ascii", "replace").split()
        blob = base64.b64decode(words[1], validate=True)
    except (OSError, StateError, IndexError, binascii.Error, ValueError):
        return ""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii").rstrip("=")


def _directory(agent: Agent) -> str:
    return agent.paths.at(agent.config.text("OS.SshDir") or "/etc/ssh")
