"""Measure this agent and the distribution's own in turn, on the same embedded platform at the platform's addresses.

Needs root (namespaces of its own; nothing outside them and the scratch directory is touched). ``make bench``.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from agents import HANDLER, Agent, Other, Ours
from instruments import ProcessEvents, cpu, memory, tree

from waagent_fabric import Fabric, HandlerSpec, SettingsSpec

NAME, VERSION = "Example.Quick", "1.0.0"
STARTS = 5
"""How often an agent is started on a machine that it does not know."""
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWNET = 0x20000, 0x4000000, 0x40000000

# What is measured: key, words, unit.
ROWS = (
    ("rss", "resident memory, idle with one extension (RSS)", "MB"),
    ("pss", "the same, shared pages divided (PSS)", "MB"),
    ("cpu_idle", "CPU idle, share of one core", "%"),
    ("requests", "requests idle, per hour", ""),
    ("sent", "bytes of request bodies idle, per hour", "kB"),
    ("received", "bytes of answers idle, per hour", "kB"),
    ("connections", "TCP connections opened idle, per hour", ""),
    ("forks", "processes started while idle, per hour", ""),
    ("first_request", "start → first goal-state request, median", "s"),
    ("first_status", "start → first status uploaded, median", "s"),
    ("cpu_start", "CPU spent until then, median", "s"),
    ("handler_start", "new settings → handler starts, median", "s"),
    ("success", "new settings → success in the blob, median", "s"),
    ("first_install", "a new handler → success in the blob, median", "s"),
    ("twenty", "20 new extensions in one goal state → all successes in the blob, median", "s"),
    ("one_of_twenty", "new settings for one of those 20 → its success in the blob, median", "s"),
    ("many", "200 new extensions in one goal state → all successes in the blob", "s"),
    ("many_cpu", "CPU of the agent and its handlers for those 200", "s"),
    ("many_growth", "memory that stays after those 200 (RSS)", "MB"),
)


def enter_namespaces() -> None:
    """Leave the machine's network, mounts and host name; take the platform's addresses in the new network."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS):
        raise OSError(ctypes.get_errno(), "unshare")
    for command in (
        "mount --make-rprivate /",
        "ip link set lo up",
        "ip addr add 168.63.129.16/32 dev lo",
        "ip addr add 169.254.169.254/32 dev lo",
        "ip link add eth0 type veth peer name eth1",
        "ip addr add 10.0.0.4/24 dev eth0",
        "ip link set eth0 up",
        "ip link set eth1 up",
        "ip route add default via 10.0.0.1",
        "ip route add 168.63.129.16/32 dev lo",
    ):
        subprocess.run(command.split(), check=True)


def successes(document: dict[str, Any] | None) -> set[tuple[str, int]]:
    """Return handler and sequence number of every extension that the status document reports as successful."""
    found = set()
    for item in (document or {}).get("aggregateStatus", {}).get("handlerAggregateStatus", ()):
        settings = item.get("runtimeSettingsStatus") or {}
        if settings.get("settingsStatus", {}).get("status", {}).get("status") == "success":
            found.add((str(item["handlerName"]), int(settings["sequenceNumber"])))
    return found


class Bench:
    """One agent on one fabric."""

    def __init__(
        self,
        fabric: Fabric,
        kind: type[Agent],
        scratch: Path,
        events: ProcessEvents,
        arguments: argparse.Namespace,
    ) -> None:
        self.fabric = fabric
        self.kind = kind
        self.scratch = scratch
        self.agent = kind(scratch)
        self.events = events
        self.arguments = arguments
        self.pid = 0
        self.results: dict[str, float] = {}

    def publish(self, wanted: dict[str, int]) -> float:
        """Publish a goal state with these handlers and the sequence numbers of their settings; return when."""
        handlers = [
            HandlerSpec(name, VERSION, settings=[SettingsSpec(public={"n": number}, sequence_number=number)])
            for name, number in wanted.items()
        ]
        now = time.time()
        self.fabric.publish(handlers)
        return now

    def wait(self, wanted: dict[str, int], timeout: float) -> float:
        """Wait until these are successful in the status blob; return when the document came."""
        awaited = set(wanted.items())
        words = f"the success of {len(awaited)}"
        self.fabric.wait_for(lambda: awaited <= successes(self.fabric.status), timeout, words)
        return next(record.time for record in self.fabric.statuses if awaited <= successes(record.document))

    def new_package(self, name: str) -> None:
        """Offer the package of another quick handler."""
        self.fabric.add_package(name, VERSION, package(name))

    def say(self, words: str) -> None:
        """Tell the reader of the terminal where the run is."""
        print(f"  [{self.agent.name}] {words}", file=sys.stderr, flush=True)

    def run(self) -> dict[str, float]:
        """Do everything; return the results by key."""
        try:
            self.start()
            self.idle()
            self.reaction()
            self.installs()
            self.twenty()
            if self.arguments.many:
                self.many()
        finally:
            self.agent.stop()
        return self.results

    def start(self) -> None:
        requests, spent, statuses = [], [], []
        self.fabric.publish([])
        for number in range(1, STARTS + 1):
            self.say(f"start {number} of {STARTS}")
            self.agent.stop()
            place = self.scratch / f"start{number}"
            place.mkdir()
            self.agent = self.kind(place)
            self.fabric.clear_records()
            self.pid = self.agent.start()
            record = self.fabric.wait_for_request("wireserver", "comp=goalstate", timeout=60)[0]
            requests.append(record.time - self.agent.started)
            self.fabric.wait_for_status(timeout=60)
            spent.append(cpu(self.pid))
            statuses.append(self.fabric.statuses[0].time - self.agent.started)
        self.results["first_request"] = statistics.median(requests)
        self.results["cpu_start"] = statistics.median(spent)
        self.results["first_status"] = statistics.median(statuses)

    def idle(self) -> None:
        seconds = self.arguments.idle
        self.publish({NAME: 0})
        self.wait({NAME: 0}, 120)
        self.say(f"idle for {seconds:.0f} s")
        time.sleep(20)
        known = {(record.server, record.peer) for record in self.fabric.requests}
        self.fabric.clear_records()
        family = tree(self.pid)
        self.events.watch(family)
        began = time.monotonic()
        shares = [self.share(seconds % 60)] if seconds % 60 else []
        shares += [self.share(60) for _ in range(int(seconds // 60))]
        hour = 3600 / (time.monotonic() - began)
        self.results["cpu_idle"] = statistics.median(shares)
        self.say("CPU by the minute: " + " ".join(f"{share:.4f} %" for share in shares))
        self.results["forks"] = self.events.started() * hour
        requests = self.fabric.requests
        self.results["requests"] = len(requests) * hour
        self.results["sent"] = sum(record.size for record in requests) * hour / 1000
        self.results["received"] = sum(record.answered for record in requests) * hour / 1000
        fresh = {(record.server, record.peer) for record in requests} - known
        self.results["connections"] = len(fresh) * hour
        used = memory(self.pid)
        self.results["rss"], self.results["pss"] = used.rss, used.pss
        for pid, rss, pss, words in used.processes:
            self.say(f"{pid} {rss:.1f} MB RSS {pss:.1f} MB PSS {words}")

    def share(self, seconds: float) -> float:
        """Return the percentage of one core that the agent uses in the next *seconds*."""
        spent, began = cpu(self.pid), time.monotonic()
        time.sleep(seconds)
        return 100 * (cpu(self.pid) - spent) / (time.monotonic() - began)

    def reaction(self) -> None:
        starts, ends = [], []
        for number in range(1, self.arguments.rounds + 1):
            self.say(f"new settings {number} of {self.arguments.rounds}")
            self.pause(number)
            before = len(self.agent.handler_starts())
            published = self.publish({NAME: number})
            ends.append(self.wait({NAME: number}, 120) - published)
            starts.append(self.agent.handler_starts()[before] - published)
        self.results["handler_start"] = statistics.median(starts)
        self.results["success"] = statistics.median(ends)

    def installs(self) -> None:
        ends = []
        for number in range(1, self.arguments.rounds + 1):
            self.say(f"a new handler {number} of {self.arguments.rounds}")
            name = f"Example.New{number}"
            self.new_package(name)
            self.pause(number)
            published = self.publish({name: 0})
            ends.append(self.wait({name: 0}, 120) - published)
        self.results["first_install"] = statistics.median(ends)

    def pause(self, number: int) -> None:
        """Let the last change settle; over all rounds every part of the time between two polls is met once."""
        time.sleep(6.5)
        self.fabric.clear_records()
        self.fabric.wait_for_request("wireserver", "comp=goalstate", timeout=60)
        time.sleep(6 * (number - 0.5) / self.arguments.rounds)

    def twenty(self) -> None:
        installed, changed = [], []
        for number in range(1, self.arguments.crowds + 1):
            self.say(f"20 extensions in one goal state, {number} of {self.arguments.crowds}")
            wanted = self.offer(f"Example.Crowd{number}x", 20)
            time.sleep(8 + 6 * number / self.arguments.crowds)
            published = self.publish(wanted)
            installed.append(self.wait(wanted, 600) - published)
            self.say("one of twenty changes")
            time.sleep(9 + 6 * number / self.arguments.crowds)
            name = list(wanted)[7]
            published = self.publish({**wanted, name: 1})
            changed.append(self.wait({name: 1}, 600) - published)
        self.results["twenty"] = statistics.median(installed)
        self.results["one_of_twenty"] = statistics.median(changed)

    def many(self) -> None:
        count = self.arguments.many
        self.say(f"{count} extensions in one goal state")
        wanted = self.offer("Example.Many", count)
        time.sleep(20)
        spent, before = cpu(self.pid), memory(self.pid).rss
        published = self.publish(wanted)
        self.results["many"] = self.wait(wanted, 2400) - published
        self.results["many_cpu"] = cpu(self.pid) - spent
        time.sleep(12)  # short-lived helpers have left
        self.results["many_growth"] = memory(self.pid).rss - before

    def offer(self, prefix: str, count: int) -> dict[str, int]:
        """Offer packages of so many new handlers; return them with their first sequence numbers."""
        wanted = {f"{prefix}{number}": 0 for number in range(count)}
        for name in wanted:
            self.new_package(name)
        return wanted


def package(name: str) -> dict[str, bytes | str]:
    """Return the files of a quick handler."""
    manifest = {"handlerManifest": {f"{word}Command": f"handler {word}" for word in ("install", "enable", "disable")}}
    for word in ("update", "uninstall"):
        manifest["handlerManifest"][f"{word}Command"] = f"handler {word}"
    manifest["handlerManifest"]["reportHeartbeat"] = False  # type: ignore[assignment]
    return {"HandlerManifest.json": json.dumps([manifest | {"name": name}]), "handler": HANDLER}


def table(results: dict[str, dict[str, float]]) -> str:
    """Return the results as a table with ratios."""
    ours, other = results.get("waagent", {}), results.get("other", {})
    lines = ["| What | waagent | other | ratio |", "|---|---|---|---|"]
    for key, words, unit in ROWS:
        if key not in ours and key not in other:
            continue
        cells = [f"{value[key]:.3g} {unit}".strip() if key in value else "–" for value in (ours, other)]
        ratio = f"{ours[key] / other[key]:.2f}" if key in ours and other.get(key) else "–"
        lines.append(f"| {words} | {cells[0]} | {cells[1]} | {ratio} |")
    return "\n".join(lines)


def main() -> int:
    """Run what was asked for; print the table; write it with the machine's facts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", default="waagent,other", help="which, in this order")
    parser.add_argument("--idle", type=float, default=300.0, help="seconds of the idle window")
    parser.add_argument("--rounds", type=int, default=8, help="how many new settings")
    parser.add_argument("--crowds", type=int, default=3, help="how often twenty extensions come at once")
    parser.add_argument("--many", type=int, default=0, help="also so many extensions in one goal state (200)")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"))
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("bench: needs root for namespaces", file=sys.stderr)
        return 77
    kinds: dict[str, type[Agent]] = {"waagent": Ours, "other": Other}
    scratch = Path(tempfile.mkdtemp(prefix="waagent-bench-"))
    results: dict[str, dict[str, float]] = {}
    try:
        wanted = arguments.agents.split(",")
        if "other" in wanted:
            Other.fetch(scratch / "packages")
        socket_first = ProcessEvents()
        enter_namespaces()
        socket_first.listen()
        for name in wanted:
            (scratch / name).mkdir()
            with Fabric.at_real_addresses() as fabric:
                fabric.add_package(NAME, VERSION, package(NAME))
                results[name] = Bench(fabric, kinds[name], scratch / name, socket_first, arguments).run()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, Linux {platform.release()}\n")
    print(table(results))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"python": platform.python_version(), "results": results}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
