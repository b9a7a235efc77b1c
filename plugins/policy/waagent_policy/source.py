"""Find and read the policy file, afresh whenever it may have changed (extensions §15.1)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from waagent import StateError, read_limited

if TYPE_CHECKING:
    from waagent import Agent
    from waagent_policy.policyfile import Policy


@attrs.frozen(eq=False, repr=False)
class Found:
    """A policy file that is there.

    Attributes:
        path: where it lies.
        policy: ``None`` when it is invalid.
        problem: what is wrong with it; empty when it is valid.
        content: the file, ``b""`` when it cannot be read.
    """

    path: str
    policy: Policy | None
    problem: str = ""
    content: bytes = attrs.field(default=b"", repr=False)

    @property
    def invalid_reason(self) -> str:
        """Why no extension is processed while the file is like this (extensions §15.2)."""
        return (
            f"Extension will not be processed: [InvalidPolicyError] Customer-provided policy file ('{self.path}') is "
            f"invalid, please correct the following error: {self.problem}"
        )


def path_of(agent: Agent) -> str | None:
    """Return where the policy file lies when there is one, or ``None`` when policies are switched off."""
    path = agent.config.text("Policy.PolicyFilePath")
    if not path or not agent.config.boolean("Debug.EnableExtensionPolicy"):
        return None
    return agent.paths.at(path)


class Source:
    """The policy file of a machine; remembers what it said for as long as the file stays the same."""

    def __init__(self) -> None:
        self._known: tuple[str, tuple[int, int, int, int], Found] | None = None

    def forget(self) -> None:
        """Read the file again when it is asked for next."""
        self._known = None

    def current(self, agent: Agent) -> Found | None:
        """Return the policy in force, valid or not; ``None`` when there is none."""
        path = path_of(agent)
        if path is None:
            return None
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as problem:
            return Found(path, None, f"the file cannot be read: {problem.strerror}")
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns)
        known = self._known
        if known is not None and known[0] == path and known[1] == stamp:
            return known[2]
        found = read(path)
        self._known = (path, stamp, found) if found is not None else None
        return found


def read(path: str) -> Found | None:
    """Return what the policy file *path* says; ``None`` when it is not there."""
    from waagent_policy.policyfile import LIMIT, InvalidPolicy, parse  # most machines have no policy

    try:
        content = read_limited(path, LIMIT)
    except FileNotFoundError:
        return None
    except OSError as problem:
        return Found(path, None, f"the file cannot be read: {problem.strerror}")
    except StateError as problem:
        return Found(path, None, f"the file cannot be used: {str(problem).rpartition(': ')[2]}")
    try:
        return Found(path, parse(content), content=content)
    except InvalidPolicy as problem:
        return Found(path, None, str(problem), content)
