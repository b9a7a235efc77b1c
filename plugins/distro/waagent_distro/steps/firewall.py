"""The rules that keep other users from the platform's endpoint (spec/distro.md §5.6), in iptables or nft."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from waagent import AgentError

if TYPE_CHECKING:
    from waagent import Agent

PRESENT, ABSENT = "present", "absent"
IPTABLES, NFT = "iptables", "nft"
TABLE = "walinuxagent"
"""The table of nft; that of iptables is ``security``."""

DNS, OWNER, DROP, LEGACY = "dns", "owner", "drop", "legacy"
_ORDER = [DNS, OWNER, DROP]
_NAMES = {DNS: "name service", OWNER: "agent", DROP: "everybody else"}
_COUNTERS = re.compile(r"counter packets \d+ bytes \d+")


def rules(endpoint: str, uid: int) -> list[str]:
    """Return the three rules as iptables writes them, in the order in which they have to stand."""
    head = f"-A OUTPUT -d {endpoint}/32 -p tcp"
    return [
        f"{head} -m tcp --dport 53 -j ACCEPT",
        f"{head} -m owner --uid-owner {uid} -j ACCEPT",
        f"{head} -m conntrack --ctstate INVALID,NEW -j DROP",
    ]


def nft_script(endpoint: str, uid: int) -> str:
    """Return what makes the table of nft whatever was there before, in one transaction."""
    rule = f"ip daddr {endpoint} tcp dport != 53 meta skuid != {uid} ct state invalid,new counter drop"
    return (
        f"add table ip {TABLE}\ndelete table ip {TABLE}\n"
        f"table ip {TABLE} {{\n chain output {{\n"
        f"  type filter hook output priority 0; policy accept;\n  {rule}\n }}\n}}\n"
    )


def read(agent: Agent, endpoint: str, uid: int) -> str:
    """Return ``present``, ``absent``, or in one line what is wrong.

    Raises:
        AgentError: there is neither tool, or it fails.
    """
    if tool(agent) == NFT:
        return _read_nft(agent, endpoint, uid)
    found = [kind for _line, kind in _ours(agent, endpoint, uid)]
    if found == _ORDER:
        return PRESENT
    if not found:
        return ABSENT
    if LEGACY in found:
        return "there is a rule of an agent before 2.2.26"
    missing = [_NAMES[kind] for kind in _ORDER if kind not in found]
    if missing:
        return f"rules are missing: {', '.join(missing)}"
    return "the rules are repeated or out of order"


def write(agent: Agent, endpoint: str, uid: int) -> bool:
    """Put the rules in place, in one transaction; rules of others stay.

    Raises:
        AgentError: there is neither tool.
        CommandError: the tool refuses.
    """
    if tool(agent) == NFT:
        agent.run(("nft", "-f", "-"), input=nft_script(endpoint, uid).encode(), check=True)
        return True
    _restore(agent, [*_deletions(agent, endpoint, uid), *rules(endpoint, uid)])
    return True


def remove(agent: Agent, endpoint: str, uid: int) -> bool:
    """Delete the rules, whichever tool made them.

    Raises:
        CommandError: they are there and the tool refuses.
    """
    if _works(agent, IPTABLES):
        deletions = _deletions(agent, endpoint, uid)
        if deletions:
            _restore(agent, deletions)
    if _works(agent, NFT) and agent.run(("nft", "list", "table", "ip", TABLE)).ok:
        agent.run(("nft", "delete", "table", "ip", TABLE), check=True)
    return True


def tool(agent: Agent) -> str:
    """Return the tool to use: iptables where it is installed, else nft.

    Raises:
        AgentError: neither is.
    """
    for name in (IPTABLES, NFT):
        if _works(agent, name):
            return name
    raise AgentError("neither iptables nor nft is installed")


def _works(agent: Agent, name: str) -> bool:
    return agent.run((name, "--version"), timeout=10).ok


def _ours(agent: Agent, endpoint: str, uid: int) -> Iterator[tuple[str, str]]:
    """Yield our rules in the chain, as iptables prints them, with what each of them is."""
    done = agent.run((IPTABLES, "-w", "-t", "security", "-S", "OUTPUT"))
    if not done.ok:
        raise AgentError(f"the firewall's rules cannot be read: {done.describe()}")
    for line in done.stdout.splitlines():
        kind = _kind(line, endpoint, uid)
        if kind:
            yield line, kind


def _kind(line: str, endpoint: str, uid: int) -> str:
    words = line.split()
    if words[:2] != ["-A", "OUTPUT"] or f"-d {endpoint}/32 -p tcp " not in line + " ":
        return ""
    rest = [word for word in words[6:] if word != "-m"]
    if rest == ["tcp", "--dport", "53", "-j", "ACCEPT"]:
        return DNS
    if rest == ["owner", "--uid-owner", str(uid), "-j", "ACCEPT"]:
        return OWNER
    if rest[:2] == ["conntrack", "--ctstate"] and set(rest[2].split(",")) == {"INVALID", "NEW"}:
        return {"DROP": DROP, "ACCEPT": LEGACY}.get(rest[-1], "")
    return ""


def _deletions(agent: Agent, endpoint: str, uid: int) -> list[str]:
    return ["-D" + line[2:] for line, _kind in _ours(agent, endpoint, uid)]


def _restore(agent: Agent, lines: list[str]) -> None:
    script = "\n".join(["*security", *lines, "COMMIT", ""])
    agent.run(("iptables-restore", "-w", "-n"), input=script.encode(), check=True)


def _read_nft(agent: Agent, endpoint: str, uid: int) -> str:
    done = agent.run((NFT, "-n", "list", "table", "ip", TABLE))
    if not done.ok:
        return ABSENT
    text = _COUNTERS.sub("counter", " ".join(done.stdout.split()))
    whole = re.search(
        r"type filter hook output priority (?:0|filter); policy accept; "
        rf"ip daddr {re.escape(endpoint)} tcp dport != 53 (?:meta )?skuid != {uid} "
        r"ct state (?:invalid,new|0x1,0x8|0x8,0x1|0x1\|0x8|0x9) counter drop \}",
        text,
    )
    return PRESENT if whole else f"the table {TABLE} of nft holds other rules"
