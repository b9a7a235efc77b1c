"""A process that runs one plan and is killed with SIGKILL at a numbered point; see test_plan_kill.py.

Points lie before and after each record of the journal, in the middle of each record, and before, in the middle of and
after each step. ``python plan_victim.py ROOT`` kills at point 0, resumes, reports, kills at point 1, … and prints one
JSON line per point until a run ends without reaching its point.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys

from waagent.journal import Journal
from waagent.log import Log, Sinks
from waagent.plan import Executor, Plan, Step


class Points:
    """Counts points and dies at one of them."""

    def __init__(self, deadly: int | None) -> None:
        self.deadly = deadly
        self.count = 0

    def here(self) -> None:
        if self.count == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1


class DeadlyJournal(Journal):
    """A journal with a point before, in the middle of and after each record."""

    points: Points

    def _append(self, line: bytes) -> None:
        self.points.here()
        if self.points.count == self.points.deadly:
            os.write(self._descriptor, line[: len(line) // 2])
        self.points.here()
        super()._append(line)
        self.points.here()


def make_plan(root: str, points: Points) -> Plan:
    """A plan of four steps: two repeatable, one that never runs twice, and one that builds on all of them."""

    def at(name: str) -> str:
        return os.path.join(root, name)

    def lines(name: str) -> int:
        try:
            with open(at(name), encoding="ascii") as stream:
                return len(stream.read().splitlines())
        except FileNotFoundError:
            return 0

    def write(name: str, text: str) -> None:
        points.here()
        with open(at(name + ".tmp"), "w", encoding="ascii") as stream:
            stream.write(text)
        points.here()
        os.rename(at(name + ".tmp"), at(name))
        points.here()

    def pay() -> None:
        points.here()
        with open(at("ledger"), "a", encoding="ascii") as stream:
            stream.write("paid\n")
        points.here()
        write("receipt", "thank you")

    def settle() -> str:
        # The outside world knows whether the payment came through; the receipt may have been lost.
        if not lines("ledger"):
            return "redo"
        write("receipt", "thank you")
        return "done"

    def probe() -> dict[str, object]:
        return {name: os.path.exists(at(name)) for name in ("hostname", "users", "receipt", "summary")}

    def planner(facts) -> list[Step]:
        steps = []
        if not facts["hostname"]:
            steps.append(Step("hostname", "set the host name", lambda: write("hostname", "vm1")))
        if not facts["users"]:
            steps.append(Step("users", "create the users", lambda: write("users", "azureuser"), deadline=30))
        if not facts["receipt"]:
            steps.append(Step("pay", "pay once", pay, once=True, settle=settle))
        if not facts["summary"]:
            steps.append(Step("summary", "sum up", lambda: write("summary", f"ledger has {lines('ledger')}")))
        return steps

    return Plan("demo", probe, planner)


def run_once(root: str, journal_path: str, deadly: int | None) -> int | None:
    """Run the plan in a process of its own; return its exit code, ``None`` when it was killed."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            points = Points(deadly)
            journal = DeadlyJournal(journal_path, boot="boot-1")
            journal.points = points
            result = Executor(journal, Log(Sinks(), "Test")).run(make_plan(root, points))
            code = 0 if result.ok else 1
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def main(base: str) -> None:
    """Kill at every point in turn, resume, and print what became of it."""
    point = 0
    while True:
        root = os.path.join(base, str(point))
        os.mkdir(root)
        journal = os.path.join(base, f"journal-{point}", "boot.jsonl")
        killed = run_once(root, journal, point)
        resumed = run_once(root, journal, None)
        again = run_once(root, journal, None)
        state = {}
        for name in sorted(os.listdir(root)):
            if not name.endswith(".tmp"):
                with open(os.path.join(root, name), encoding="ascii") as stream:
                    state[name] = stream.read()
        print(json.dumps({"point": point, "killed": killed, "resumed": resumed, "again": again, "state": state}))
        shutil.rmtree(root)
        if killed is not None:
            return
        point += 1


if __name__ == "__main__":
    main(sys.argv[1])
