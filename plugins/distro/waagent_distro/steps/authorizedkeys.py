"""Keys of users (spec/provisioning.md §8.4, §8.5).

The directories below a home belong to a user, who may put links there while root writes: every step is taken from an
open directory and follows no link.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from waagent import AgentError
from waagent_distro.steps import accounts

if TYPE_CHECKING:
    from waagent import Agent

_TYPES = ("ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-")
_LIMIT = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


def deploy(agent: Agent, name: str, path: str, public_key: str | None, private_key: str | None) -> bool:
    """Give the user *name* a key: a public one is added to the file *path*; with *private_key* a pair is written.

    Args:
        path: absolute; ``$HOME`` at its beginning stands for ``OS.HomeDir``.

    Raises:
        AgentError: there is no such user, no key, or the path leads through a link.
    """
    user = accounts.find_user(agent, name)
    if user is None:
        raise AgentError(f"cannot give {name} a key: there is no such user")
    if path.startswith("$HOME"):
        path = (agent.config.text("OS.HomeDir") or "/home") + path[len("$HOME") :]
    if not path.startswith("/") or path.endswith("/"):
        raise AgentError(f"{path!r} is no path of a file for keys")
    place = agent.paths.at(path)
    line = None if public_key is None else checked_key(public_key)
    with _opened_directory(agent, user, os.path.dirname(place)) as directory:
        target = os.path.basename(place)
        written = [place]
        if private_key is not None:
            _write(directory, target, private_key.rstrip("\n") + "\n", 0o600, user)
            if line is not None:
                _write(directory, target + ".pub", line + "\n", 0o644, user)
                written.append(place + ".pub")
        elif line is not None:
            text = _read(directory, target)
            if not is_listed(text, line):
                text += "" if not text or text.endswith("\n") else "\n"
                text += line + "\n"
            _write(directory, target, text, 0o600, user)
        else:
            raise AgentError(f"neither a public nor a private key for {name} was given")
    for one in (os.path.dirname(place), *written):
        agent.distro.label_path(one)
    return True


def checked_key(text: str) -> str:
    """Return a public key as one line; wrapped lines, as the metadata service sends them, are joined.

    Raises:
        AgentError: it is no public key in OpenSSH form.
    """
    lines = [part.strip() for part in text.strip().splitlines()]
    line = "".join(lines) if len(lines) > 1 else " ".join(lines)
    if _identity(line) is None:
        raise AgentError(f"Bad public key: {line[:40]}")
    return line


def is_listed(text: str, line: str) -> bool:
    """Return whether the authorized keys *text* hold the key of *line*; options and comments do not count."""
    wanted = _identity(line)
    return any(_identity(one) == wanted for one in text.splitlines())


def _identity(line: str) -> tuple[str, str] | None:
    """Return the type and the blob of a key line, ``None`` for any other line."""
    if line.lstrip().startswith("#"):
        return None
    words = line.split()
    for kind, blob in zip(words, words[1:]):
        if kind.startswith(_TYPES) and _is_blob(kind, blob):
            return kind, blob.rstrip("=")
    return None


def _is_blob(kind: str, blob: str) -> bool:
    try:
        data = base64.b64decode(blob + "=" * (-len(blob) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False
    length = int.from_bytes(data[:4], "big")
    return data[4 : 4 + length] == kind.encode()  # each blob begins with its own type


@contextmanager
def _opened_directory(agent: Agent, user: accounts.User, directory: str) -> Iterator[int]:
    """Open *directory*, made where it is missing: the user's own below the home, root's elsewhere."""
    home = agent.paths.at(user.home)
    top, parts, inside = agent.paths.root, os.path.relpath(directory, agent.paths.root), False
    above = directory
    while os.path.isdir(home) and above != "/":
        if os.path.isdir(above) and os.path.samefile(above, home):  # /home may be a link to /var/home
            top, parts, inside = os.path.realpath(home), os.path.relpath(directory, above), True
            break
        above = os.path.dirname(above)
    descriptor = os.open(top, _DIRECTORY)
    try:
        for part in [] if parts == "." else parts.split("/"):
            below = _enter(descriptor, part, user if inside else None)
            os.close(descriptor)
            descriptor = below
        if inside and parts != ".":
            # sshd does not read keys in a directory that others may write.
            os.fchown(descriptor, user.uid, user.gid)
            os.fchmod(descriptor, 0o700)
        yield descriptor
    finally:
        os.close(descriptor)


def _enter(above: int, part: str, owner: accounts.User | None) -> int:
    try:
        return os.open(part, _DIRECTORY, dir_fd=above)
    except FileNotFoundError:
        os.mkdir(part, 0o700 if owner is not None else 0o755, dir_fd=above)
        descriptor = os.open(part, _DIRECTORY, dir_fd=above)
        if owner is not None:
            os.fchown(descriptor, owner.uid, owner.gid)
        return descriptor
    except OSError as problem:
        raise AgentError(f"no key is written through {part!r}: {problem.strerror}") from problem


def _read(directory: int, name: str) -> str:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return ""
    except OSError as problem:
        raise AgentError(f"the file of keys {name!r} cannot be read: {problem.strerror}") from problem
    with open(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise AgentError(f"the file of keys {name!r} is no regular file")
        data = stream.read(_LIMIT + 1)
    if len(data) > _LIMIT:
        raise AgentError(f"the file of keys {name!r} is larger than {_LIMIT} bytes")
    return data.decode("utf-8", "surrogateescape")


def _write(directory: int, name: str, text: str, mode: int, user: accounts.User) -> None:
    temporary = f".{name[:50]}.{os.urandom(4).hex()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        with open(descriptor, "wb") as stream:
            os.fchown(stream.fileno(), user.uid, user.gid)
            os.fchmod(stream.fileno(), mode)
            stream.write(text.encode("utf-8", "surrogateescape"))
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        try:
            os.unlink(temporary, dir_fd=directory)
        except OSError:
            pass
        raise
