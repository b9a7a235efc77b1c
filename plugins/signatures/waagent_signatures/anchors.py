"""The certificates that everything hangs on: Microsoft's, which come with the agent, or the administrator's own.

One is for the packages' signatures, the other for their timestamps, which come from another authority (extensions §16).
A file that claims to be one of Microsoft's roots has to have the known SHA-256.
"""

from __future__ import annotations

import binascii
import os
import stat
from typing import TYPE_CHECKING

import attrs

from waagent import AgentError, StateError, read_limited, write_atomic
from waagent_signatures.digests import digest

if TYPE_CHECKING:
    from waagent import Agent

PACKAGE_OPTION = "Signatures.TrustAnchor"
TIMESTAMP_OPTION = "Signatures.TimestampAnchor"
WRITTEN_NAME = "microsoft_root_certificate.pem"

_LIMIT = 1 << 20
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


@attrs.frozen(eq=False, repr=False)
class Root:
    """A root certificate that comes with the agent."""

    name: str
    sha256: str
    path: str


def _root(name: str, sha256: str, file: str) -> Root:
    return Root(name, sha256, os.path.join(os.path.dirname(os.path.abspath(__file__)), "certificates", file))


PACKAGES = _root(
    "Microsoft Root Certificate Authority 2011",
    "847DF6A78497943F27FC72EB93F9A637320A02B561D0A91B09E87A7807ED7C61",
    "microsoft-root-2011.pem",
)
TIMESTAMPS = _root(
    "Microsoft Root Certificate Authority 2010",
    "DF545BF919A2439C36983B54CDFC903DFA4F37D3996D8D84B4C31EEC6F3C163E",
    "microsoft-root-2010.pem",
)


class NoAnchor(AgentError):
    """There is no certificate to trust; says what was looked for, what is wrong and what to do."""


def for_packages(agent: Agent) -> str:
    """Return the file of the certificates that package signatures have to lead to.

    Raises:
        NoAnchor: there is none that can be used.
    """
    named = agent.config.text(PACKAGE_OPTION)
    if named:
        return _named(agent, named, PACKAGE_OPTION)
    return write(agent)


def for_timestamps(agent: Agent) -> str:
    """Return the file of the certificates that timestamps have to lead to.

    Raises:
        NoAnchor: there is none that can be used.
    """
    return look(agent, TIMESTAMP_OPTION, TIMESTAMPS)


def look(agent: Agent, option: str, root: Root) -> str:
    """Return where the certificates lie that *option* names, or that are there without it; writes nothing.

    Raises:
        NoAnchor: there are none that can be used.
    """
    named = agent.config.text(option)
    if named:
        return _named(agent, named, option)
    _shipped(root, option)
    return root.path


def write(agent: Agent) -> str:
    """Put Microsoft's root for packages where agents have always kept it, and return that file (extensions §3).

    Raises:
        NoAnchor: it did not come with the agent, or cannot be written.
    """
    content = _shipped(PACKAGES, PACKAGE_OPTION)
    path = agent.paths.lib(WRITTEN_NAME)
    try:
        if _has(path, content):
            return path
        write_atomic(path, content, 0o600, durable=False)
    except OSError as problem:
        raise NoAnchor(f"the certificate cannot be written: {problem}") from problem
    return path


def _has(path: str, content: bytes) -> bool:
    try:
        return stat.S_IMODE(os.lstat(path).st_mode) == 0o600 and read_limited(path, _LIMIT) == content
    except (OSError, StateError):
        return False


def _shipped(root: Root, option: str) -> bytes:
    try:
        content = read_limited(root.path, _LIMIT)
    except (OSError, StateError) as problem:
        raise NoAnchor(
            f"the certificate {root.name} is not installed with the agent ({problem}); put it there, or name a file "
            f"with {option}"
        ) from problem
    found = [_digest(certificate) for certificate in certificates(content)]
    if found != [root.sha256]:
        raise NoAnchor(f"{root.path} is not the certificate {root.name}: its SHA-256 is {', '.join(found) or 'none'}")
    return content


def _named(agent: Agent, name: str, option: str) -> str:
    path = agent.paths.at(name)
    try:
        status = os.stat(path)
        content = read_limited(path, _LIMIT)
    except (OSError, StateError) as problem:
        raise NoAnchor(f"the file that {option} names cannot be read: {problem}") from problem
    trusted = {0} if agent.paths.is_real else {0, os.geteuid()}
    if status.st_uid not in trusted or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NoAnchor(f"others than root may change {path}, which {option} names")
    check(content, f"{path}, which {option} names")
    return path


def check(content: bytes, what: str) -> None:
    """Make sure that *content* holds certificates, and that none of them takes the name of one of Microsoft's roots.

    Raises:
        NoAnchor: it holds none, or one that is not what it says; *what* tells people where it lies.
    """
    found = certificates(content)
    if not found:
        raise NoAnchor(f"there is no certificate in {what}")
    for certificate in found:
        for root in (PACKAGES, TIMESTAMPS):
            # A root names itself twice, as its issuer and as its subject; what it signed names it once.
            if certificate.count(root.name.encode()) > 1 and _digest(certificate) != root.sha256:
                raise NoAnchor(
                    f"the certificate in {what} says that it is {root.name}, but its SHA-256 is {_digest(certificate)} "
                    f"instead of {root.sha256}"
                )


def certificates(content: bytes) -> list[bytes]:
    """Return the certificates of a PEM file, in DER; blocks that are no base64 are left out."""
    found = []
    for block in content.split(_BEGIN)[1:]:
        body, end, _ = block.partition(_END)
        if end:
            try:
                found.append(binascii.a2b_base64(body))
            except binascii.Error:
                continue
    return found


def _digest(certificate: bytes) -> str:
    return digest("sha256", certificate).hex().upper()
