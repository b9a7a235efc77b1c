"""Kill an agent at every change it makes to the disk while it processes a goal state, and let another one go on.

Prints one JSON line per point: the commands that ran, the states on disk, what is reported. Arguments: a scratch
directory, the distance between two points, and the first point.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from tests.unit.extensions.fakes import Bench, multi, wanted

CHANGES = frozenset(
    {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.posix_spawn", "os.chmod", "os.truncate"}
)


class Killer:
    """Counts changes in this process and ends it before the one that is its turn."""

    def __init__(self) -> None:
        self.left = -1

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.left < 0 or event not in CHANGES:
            return
        if event == "open" and not self._writes(arguments):
            return
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def _writes(arguments: tuple[object, ...]) -> bool:
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def machine(root: Path) -> Bench:
    bench = Bench(root)
    bench.publish("A", "1.0")
    bench.publish("A", "2.0")
    bench.publish("B", "1.0")
    bench.publish("C", "3.0")
    bench.publish("M", "4.0", supportsMultipleExtensions=True)
    return bench


def process(root: Path, number: int, killer: Killer, kill_at: int) -> bool:
    """Process a goal state in a process of its own; return whether it lived."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            bench = machine(root)
            bench.number = number
            if number == 0:
                goal = bench.goal(wanted("A", "1.0"), wanted("B", "1.0"), multi("M", "4.0", ("x", 0, "enabled")))
            else:
                goal = bench.goal(
                    wanted("A", "2.0", sequence=1),
                    wanted("B", "1.0", "uninstall"),
                    wanted("C", "3.0"),
                    multi("M", "4.0", ("x", 1, "disabled"), ("y", 0, "enabled")),
                )
            killer.left = kill_at
            bench.process(goal)
            killer.left = -1
            (root / "reported").write_text(json.dumps(bench.status()))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit(f"a process failed with {os.WEXITSTATUS(status)}")
    return os.WIFEXITED(status)


def main() -> None:
    scratch, distance, point = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    killer = Killer()
    sys.addaudithook(killer)
    while True:
        root = scratch / "machine"
        if root.exists():
            shutil.rmtree(root)
        root.mkdir()
        assert process(root, 0, killer, -1)
        before = len((root / "trace").read_text().splitlines())
        lived = process(root, 1, killer, point)
        ledger = (root / "run/waagent/extensions.jsonl").read_text()
        assert process(root, 1, killer, -1)
        lib = root / "var/lib/waagent"
        print(
            json.dumps(
                {
                    "point": point,
                    "lived": lived,
                    "ended": '"ended"' in ledger and '"goal_state": "incarnation_2"' in ledger,
                    "ran": [line.split("|")[0] for line in (root / "trace").read_text().splitlines()[before:]],
                    "lib": sorted(entry for entry in os.listdir(lib) if entry not in ("state", "journal")),
                    "states": {
                        entry: (lib / entry / "config/HandlerState").read_text()
                        for entry in os.listdir(lib)
                        if (lib / entry / "config/HandlerState").exists()
                    },
                    "reported": json.loads((root / "reported").read_text()),
                    "runs": os.listdir(root / "run/waagent/commands"),
                }
            ),
            flush=True,
        )
        if lived:
            return
        point += distance


if __name__ == "__main__":
    main()
