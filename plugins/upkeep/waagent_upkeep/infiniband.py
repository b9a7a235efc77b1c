"""Addresses of InfiniBand cards: the host's words, the cards, and what is missing (provisioning §21)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from waagent import AgentError, Plan, StateError, Step, read_limited

if TYPE_CHECKING:
    from waagent import Agent

POOL = "/var/lib/hyperv/.kvp_pool_0"
KEY = "IPoIB_Data"
_DIRECT_KEY = "NdDriverVersion"
_NAME_BYTES, _VALUE_BYTES = 512, 2048
TRIES = 60
"""Looks for the cards, a second apart: their driver needs its time."""
PREFIX = 16
_ALREADY = 2  # of ``ip addr add``
_CARD = re.compile(r"ib\w+\Z")
_SHARED = re.compile(r'rdmaIPv4Address="([0-9.]+)"')
_LIMIT = 4 << 20


def parse_pool(data: bytes) -> dict[str, str]:
    """Return the keys and values of the host's pool; what is cut short at its end does not count."""
    size = _NAME_BYTES + _VALUE_BYTES
    found = {}
    for start in range(0, len(data) - size + 1, size):
        name = data[start : start + _NAME_BYTES].partition(b"\0")[0]
        value = data[start + _NAME_BYTES : start + size].partition(b"\0")[0]
        found[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    return found


def parse_pairs(text: str) -> dict[str, str]:
    """Return hardware address (twelve hexadecimal digits, upper case) to IPv4 address.

    Args:
        text: ``NUMPAIRS:2|00155D33FF16:172.16.1.1|…``.

    Raises:
        AgentError: it has another form, or another number of pairs than it says.
    """
    head, *entries = [part for part in text.strip().split("|") if part] or [""]
    name, _, count = head.partition(":")
    pairs = {}
    for entry in entries:
        hardware, _, address = entry.rpartition(":")
        digits = re.sub(r"[^0-9A-F]", "", hardware.upper())
        if len(digits) != 12 or not _is_address(address):
            raise AgentError(f"{KEY}: {entry[:60]!r} is no pair of hardware and IPv4 address")
        pairs[digits] = address
    if name != "NUMPAIRS" or not count.isdigit() or int(count) != len(entries):
        raise AgentError(f"{KEY}: {head[:60]!r} does not tell the number of pairs that follow, {len(entries)}")
    return pairs


def short_address(text: str) -> str:
    """Return the hardware address of an InfiniBand card as the host writes it: six of its last eight bytes."""
    parts = text.strip().upper().split(":")
    if len(parts) < 8:
        return "".join(parts)
    tail = parts[-8:]
    return "".join(tail[:3] + tail[5:])


class Cards:
    """The cards of this machine.

    Args:
        agent: the boot stage's agent.
        tries: looks for the cards.
    """

    def __init__(self, agent: Agent, tries: int = TRIES) -> None:
        self._agent = agent
        self._tries = tries
        self._waited = False
        self._set: set[str] = set()

    def plan(self) -> Plan:
        """Return the plan; nobody waits for it."""
        return Plan("rdma", self._probe, self._missing, phase="background")

    def _probe(self) -> dict[str, Any]:
        wanted = self._wanted()
        found = self._match(wanted, self._cards()) if wanted else {}
        return {
            "wanted": wanted,
            "cards": {card: address for card, address in found.items() if card not in self._set},
            "absent": len(found) < len(wanted) and not self._waited,
        }

    def _missing(self, facts: Mapping[str, Any]) -> list[Step]:
        if facts["absent"]:
            summary = f"wait up to {self._tries} s for {len(facts['wanted'])} InfiniBand cards"
            return [Step("wait for cards", summary, self._wait, gives={"absent": False}, optional=True)]
        steps = []
        for card, address in facts["cards"].items():
            rest = {other: one for other, one in facts["cards"].items() if other != card}

            def run(card: str = card, address: str = address) -> None:
                self._address(card, address)

            summary = f"give {card} the address {address}/{PREFIX}"
            steps.append(Step(f"{card} {address}", summary, run, gives={"cards": rest}, optional=True))
        return steps

    def _wanted(self) -> dict[str, str]:
        """Return what the host names; the empty text stands for the only card there is."""
        agent = self._agent
        pool = parse_pool(_bytes(agent.paths.at(POOL)))
        if pool.get(KEY):
            return parse_pairs(pool[KEY])
        if pool.get(_DIRECT_KEY):
            agent.log.warning("OS.EnableRDMA: Network Direct needs a driver and a configuration that nobody sets here")
            return {}
        shared = _SHARED.search(_bytes(agent.paths.lib("SharedConfig.xml")).decode("utf-8", "replace"))
        return {"": shared.group(1)} if shared and _is_address(shared.group(1)) else {}

    def _cards(self) -> dict[str, str]:
        place = self._agent.paths.at("/sys/class/net")
        try:
            names = sorted(filter(_CARD.match, os.listdir(place)))
        except OSError:
            return {}
        texts = {name: _bytes(os.path.join(place, name, "address")).decode("ascii", "replace") for name in names}
        return {short_address(text): name for name, text in texts.items() if text.strip()}

    @staticmethod
    def _match(wanted: Mapping[str, str], cards: Mapping[str, str]) -> dict[str, str]:
        if "" in wanted:
            return dict.fromkeys(list(cards.values())[:1], wanted[""])
        return {cards[hardware]: address for hardware, address in wanted.items() if hardware in cards}

    def _wait(self) -> None:
        wanted = self._wanted()
        for _ in range(self._tries):
            if len(self._match(wanted, self._cards())) == len(wanted) or self._agent.stopping.wait(1):
                break
        self._waited = True
        if len(self._match(wanted, self._cards())) < len(wanted):
            raise AgentError("not every InfiniBand card that the host names is there")

    def _address(self, card: str, address: str) -> None:
        agent = self._agent
        self._set.add(card)
        agent.run(("ip", "link", "set", card, "up"), check=True)
        done = agent.run(("ip", "addr", "add", f"{address}/{PREFIX}", "dev", card))
        if not done.ok and done.returncode != _ALREADY:
            raise AgentError(done.describe())


def _is_address(text: str) -> bool:
    parts = text.split(".")
    return len(parts) == 4 and all(part.isascii() and part.isdigit() and int(part) < 256 for part in parts)


def _bytes(path: str) -> bytes:
    try:
        return read_limited(path, _LIMIT)
    except (OSError, StateError):
        return b""
