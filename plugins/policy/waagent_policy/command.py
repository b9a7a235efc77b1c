"""``waagent policy check [FILE]``: is this a valid policy, and what does it say (extensions §15)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from waagent import Command

if TYPE_CHECKING:
    import argparse

    from waagent import Agent
    from waagent_policy.policyfile import Policy


def configure(parser: argparse.ArgumentParser) -> None:
    """Take a file."""
    parser.add_argument("file", nargs="?", help="the file to check instead of the one in force")


def run(agent: Agent, arguments: argparse.Namespace) -> int:
    """Print what the policy says and return 0, or what is wrong with it and return 1."""
    from waagent_policy.source import path_of, read

    path = arguments.file or path_of(agent)
    if path is None:
        sys.stdout.write("policies are switched off (Debug.EnableExtensionPolicy)\n")
        return 0
    found = read(path)
    if found is None:
        sys.stdout.write(f"{path}: there is no such file\n")
        return 1 if arguments.file else 0
    if found.policy is None:
        sys.stdout.write(f"{path}: invalid: {found.problem}\n")
        return 1
    sys.stdout.write(f"{path}: valid, version {found.policy.version}\n")
    sys.stdout.writelines(f"{line}\n" for line in describe(found.policy))
    return 0


def describe(policy: Policy) -> list[str]:
    """Return what *policy* means, in sentences."""
    allowed = "only those listed here" if policy.allow_listed_only else "all"
    signed = "required" if policy.signature_required else "not required"
    lines = [f"extensions allowed: {allowed}", f"signed packages: {signed} unless said otherwise"]
    for rule in policy.rules.values():
        words = []
        if rule.signature_required is not None:
            words.append("signed packages required" if rule.signature_required else "signed packages not required")
        if rule.has_runtime:
            words.append("has a runtime policy")
        name = rule.name.encode("unicode_escape").decode("ascii")
        lines.append(f"  {name}: {', '.join(words) or 'allowed'}")
    return lines


CHECK = Command(
    "policy check",
    "check an extension policy file and say what it means",
    run=run,
    configure=configure,
    root=False,
)
