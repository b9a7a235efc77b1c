"""The agent's main job, live: an embedded platform, the real agent in a scratch directory, one extension.

Run by ``make demo``. Needs no root and touches nothing outside the directory it prints. Exit status 0 means that the
status the platform received says success.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

from waagent_fabric import Fabric, HandlerSpec, SettingsSpec
from waagent_fabric.agentprocess import RunningAgent

HERE = Path(__file__).resolve().parent
NAME, VERSION = "Example.Greeter", "1.0.0"
SECRET = "correct horse battery staple"  # what only this machine may read

# What the platform is asked and told, in the words of a timeline.
MILESTONES = (
    ("wireserver", "comp=versions", "asked which protocol versions the platform speaks"),
    ("wireserver", "comp=goalstate", "read the goal state"),
    ("wireserver", "type=extensionsConfig", "read what extensions are wanted"),
    ("wireserver", "comp=certificates", "fetched the certificates, encrypted for this machine"),
    ("blobs", "manifest", "fetched the extension's version manifest"),
    ("blobs", ".zip", "fetched the extension's package"),
    ("hostplugin", "/status", "uploaded the first status"),
)


def sample_files() -> dict[str, bytes]:
    """Return the sample extension's package: path in the zip to content."""
    folder = HERE / "sample_extension"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Follower(threading.Thread):
    """Print the agent's log while it grows."""

    def __init__(self, agent: RunningAgent, began: float) -> None:
        super().__init__(daemon=True)
        self._agent = agent
        self._began = began
        self.ended = threading.Event()

    def run(self) -> None:
        """Print line by line until the demonstration ends."""
        shown = 0
        while True:
            last = self.ended.is_set()
            text = self._agent.log()
            whole = text.rfind("\n") + 1
            for line in text[shown:whole].splitlines():
                # Lines of more than one line (what a command printed) carry their time only once.
                body = line[28:] if line[:2] == "20" and line[26:28] == "Z " else f"    {line}"
                if body.strip():
                    print(f"  {time.monotonic() - self._began:6.2f} s  {body[:150]}", flush=True)
            shown = whole
            if last:
                return
            self.ended.wait(0.05)


def timeline(fabric: Fabric, began: float, ended: float) -> list[tuple[float, str]]:
    """Return (seconds since the start, what happened) as the platform saw it."""
    rows = []
    for server, part, words in MILESTONES:
        for record in fabric.requests:
            if record.server == server and part in record.path:
                rows.append((record.time - began, words))
                break
    rows.append((ended - began, "the uploaded status says success"))
    return sorted(rows)


def show_status(document: dict[str, Any]) -> None:
    """Print the status document as a table."""
    agent = document["aggregateStatus"]["guestAgentStatus"]
    print(f"  agent       {agent['version']:<10} {agent['status']:<10} {agent['formattedMessage']['message']}")
    for item in document["aggregateStatus"]["handlerAggregateStatus"]:
        print(
            f"  handler     {item['handlerVersion']:<10} {item['status']:<10} {item['handlerName']}: "
            f"{(item.get('formattedMessage') or {}).get('message', '')}"
        )
        settings = item.get("runtimeSettingsStatus")
        if settings:
            status = settings["settingsStatus"]["status"]
            number = f"no. {settings['sequenceNumber']}"
            print(f"  extension   {number:<10} {status['status']:<10} {status['formattedMessage']['message']}")


def show_files(root: Path) -> None:
    """Print what the agent left, and where."""
    interesting = ("*.log", "*.settings", "*.status", "*.crt", "HandlerState", "HandlerEnvironment.json", "status.json")
    for pattern in interesting:
        for path in sorted(root.rglob(pattern)):
            print(f"  {path.relative_to(root)}")


def main() -> int:
    """Run the demonstration; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=HERE.parent / "build" / "demo", help="scratch directory")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds to wait for success")
    arguments = parser.parse_args()
    root: Path = arguments.directory.resolve()
    if root.exists():
        shutil.rmtree(root)
    root.mkdir(parents=True)

    with Fabric() as fabric:
        fabric.add_package(NAME, VERSION, sample_files())
        settings = SettingsSpec(public={"greet": "world"}, protected={"secret": SECRET}, sequence_number=0)
        fabric.publish([HandlerSpec(NAME, VERSION, settings=[settings])])
        print(f"The platform listens at {fabric.wireserver} (WireServer), {fabric.host_plugin} (host plugin).")
        print(f"The agent runs under {root}; its log:\n")
        began, wall = time.monotonic(), time.time()
        agent = RunningAgent(root, fabric, conf={"Logs.Verbose": "n"})
        follower = Follower(agent, began)
        with agent:
            follower.start()
            try:
                fabric.wait_for_extension(NAME, "success", sequence_number=0, timeout=arguments.timeout)
                failure = None
            except TimeoutError as problem:
                failure = str(problem)
            ended = time.time()
            document = fabric.status
        follower.ended.set()
        follower.join(5)

        print("\nWhat the platform saw:\n")
        for seconds, words in timeline(fabric, wall, ended):
            print(f"  {seconds:6.2f} s  {words}")
        print("\nThe status it received:\n")
        if document is None:
            print("  none")
        else:
            show_status(document)
        print(f"\nWhere things are, under {root}:\n")
        show_files(root)
        for violation in fabric.violations:
            print(f"\nThe agent broke a rule of the platform: {violation}")
        leak = [path for path in root.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
        for path in leak:
            print(f"\nThe secret stands in {path}!")
        if failure is not None:
            print(f"\nFailed: {failure}")
        return 1 if failure is not None or fabric.violations or leak else 0


if __name__ == "__main__":
    sys.exit(main())
