"""A machine under random goal states, failing commands, broken downloads, kills, restarts and boots.

Each goal state is processed by a process of its own that may be killed at any of its changes to the disk; the next one
finds what it left. What must hold is looked at after every step, from outside, as the platform and people see it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.extensions.engine_victim import Killer
from tests.unit.extensions.fakes import Bench, multi, package, wanted
from waagent import ExtensionsGoalState, Handler
from waagent.platform.statusblob import build_status
from waagent_extensions import engine
from waagent_fabric.statusrules import status_problems

OPERATIONS = ("install", "update", "enable", "disable", "uninstall")
VERSIONS = {"A": ("1.0", "1.1"), "B": ("2.0", "2.1"), "M": ("3.0", "3.1")}
JOBS = ("x", "y")
OURS = ("var/lib/waagent", "var/log", "run/waagent", "fail", "trace")

single = st.none() | st.tuples(st.sampled_from(("enabled", "enabled", "uninstall", "disabled")), st.integers(0, 1))
several = st.none() | st.tuples(
    st.sampled_from(("enabled", "enabled", "uninstall")),
    st.integers(0, 1),
    st.lists(st.sampled_from(("enabled", "enabled", "disabled")), min_size=len(JOBS), max_size=len(JOBS)),
)
desired = st.fixed_dictionaries({"A": single, "B": single, "M": several})
failing = st.sets(
    st.tuples(st.sampled_from([v for both in VERSIONS.values() for v in both]), st.sampled_from(OPERATIONS)), max_size=2
)
kills = st.none() | st.integers(0, 250)


def contents(root: Path) -> dict[str, bytes]:
    """Return every file below *root* that is neither the agent's nor the test's own."""
    found = {}
    for directory, _, files in os.walk(root):
        for name in files:
            path = Path(directory, name)
            below = str(path.relative_to(root))
            if not below.startswith(OURS) or "stranger" in below:
                found[below] = path.read_bytes()
    return found


class Machine(RuleBasedStateMachine):
    """See the module."""

    @initialize()
    def prepare(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="machine"))
        self.number = 0
        self.passes: Counter[int] = Counter()
        self.goal: dict[str, Any] = {"A": None, "B": None, "M": None}
        self.complete = False
        self.failing: frozenset[tuple[str, str]] = frozenset()
        (self.root / "fail").mkdir()
        for name in ("etc/stranger.conf", "var/lib/waagent/stranger-1.2/data", "var/lib/waagent/stranger.tag"):
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        self.packages = {
            name: {version: self.package(version, name == "M") for version in versions}
            for name, versions in VERSIONS.items()
        }
        self.before = contents(self.root)

    def package(self, version: str, many: bool) -> bytes:
        def body(operation: str) -> str:
            fails = f"[ ! -e {self.root}/fail/{version}-{operation} ] || exit 7"
            return f"{fails}; succeed" if operation == "enable" else fails

        commands = {operation: body(operation) for operation in OPERATIONS}
        return package(version, self.root / "trace", commands, supportsMultipleExtensions=many)

    def teardown(self) -> None:
        if hasattr(self, "root"):
            self.wait_for_commands()
            shutil.rmtree(self.root)

    # What happens

    @rule(what=desired, broken=failing, kill=kills, downloads=st.sampled_from((0, 0, 0, 1, 2)))
    def another_goal_state(
        self, what: dict[str, Any], broken: set[tuple[str, str]], kill: int | None, downloads: int
    ) -> None:
        self.number += 1
        self.goal = what
        self.fail(broken)
        self.process(kill, downloads)

    @rule(kill=kills)
    def another_process(self, kill: int | None) -> None:
        self.process(kill, 0)

    @rule(kill=kills)
    def another_start_of_the_machine(self, kill: int | None) -> None:
        self.wait_for_commands()
        shutil.rmtree(self.root / "run", ignore_errors=True)
        self.process(kill, 0)

    @rule(what=desired, kill=kills, hopeless=st.sampled_from((None, None, "manifest", "package")))
    def a_newer_goal_state_while_one_is_processed(
        self, what: dict[str, Any], kill: int | None, hopeless: str | None
    ) -> None:
        self.number += 1
        older = self.goal_state()
        self.number += 1
        self.goal = what
        self.fail(set())
        self.process(kill, 0, older, hopeless)

    # How

    def fail(self, broken: set[tuple[str, str]]) -> None:
        self.failing = frozenset(broken)
        for path in (self.root / "fail").iterdir():
            path.unlink()
        for version, operation in broken:
            (self.root / "fail" / f"{version}-{operation}").touch()

    def goal_state(self) -> ExtensionsGoalState:
        handlers: list[Handler] = []
        for name, choice in self.goal.items():
            if choice is None:
                continue
            state, version = choice[0], VERSIONS[name][choice[1]]
            if name == "M":
                jobs = tuple((job, self.number, its) for job, its in zip(JOBS, choice[2]))
                handlers.append(multi(name, version, *jobs, state=state))
            else:
                handlers.append(wanted(name, version, state, sequence=self.number))
        return ExtensionsGoalState(
            f"incarnation_{self.number}", "WireServer", "Fabric", str(self.number), handlers=tuple(handlers)
        )

    def process(
        self,
        kill: int | None,
        downloads: int,
        older: ExtensionsGoalState | None = None,
        hopeless: str | None = None,
    ) -> None:
        """Process the goal state in a process of its own, which dies at its *kill*-th change of the disk."""
        goals = [older, self.goal_state()] if older is not None else [self.goal_state()]
        for goal in goals:
            if not self.is_under_way(goal):
                self.passes[int(str(goal.sequence))] += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads of the test's own tools do not matter here
            child = os.fork()
        if child == 0:
            code = 1
            try:
                code = self.serve(goals, kill, downloads, hopeless)
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, (self.root / "problem").read_text()
        self.complete = not os.WIFSIGNALED(status)

    def serve(self, goals: list[ExtensionsGoalState], kill: int | None, downloads: int, hopeless: str | None) -> int:
        try:
            engine.RETRY_AFTER = (0.01, 0.01, 0.01)
            bench = Bench(self.root)
            bench.platform.packages = self.packages
            bench.platform.broken_downloads = downloads
            killer = Killer()
            if kill is not None:
                sys.addaudithook(killer)
                killer.left = kill
            bench.engine.offer(goals[0])
            if len(goals) == 2:
                before = len(bench.trace())
                bench.platform.hopeless = {"B": hopeless} if hopeless else {}
                worker = threading.Thread(target=bench.engine.work)
                worker.start()
                while len(bench.trace()) == before and f"B {hopeless}" not in bench.platform.downloads:
                    if not worker.is_alive():
                        break
                    time.sleep(0.001)
                bench.platform.hopeless = {}
                bench.engine.offer(goals[1])
                worker.join()
            bench.engine.work()
            killer.left = -1
        except Exception:
            import traceback

            (self.root / "problem").write_text(traceback.format_exc() + bench.log()[-5000:])
            return 1
        return 0

    def is_under_way(self, goal: ExtensionsGoalState) -> bool:
        try:
            ledger = (self.root / "run/waagent/extensions.jsonl").read_text()
        except FileNotFoundError:
            return False
        return f'"goal_state": "{goal.id}"' in ledger and '"ended"' not in ledger

    def wait_for_commands(self) -> None:
        for lock in (self.root / "run/waagent/commands").glob("*/lock"):
            with lock.open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH)

    # What must hold

    @invariant()
    def one_version_of_a_handler_is_enabled_at_most(self) -> None:
        states = Counter(path.parts[-3].partition("-")[0] for path in self.states("Enabled"))
        assert all(count == 1 for count in states.values()), states

    def states(self, wanted_state: str) -> list[Path]:
        lib = getattr(self, "root", Path("/nonexistent")) / "var/lib/waagent"
        return [path for path in lib.glob("*/config/HandlerState") if path.read_text() == wanted_state]

    @invariant()
    def no_command_runs_twice_for_one_goal_state(self) -> None:
        if not hasattr(self, "root") or not (self.root / "trace").exists():
            return
        ran: Counter[tuple[int, str, str]] = Counter()
        for line in (self.root / "trace").read_text().splitlines():
            call, *variables = line.split("|")
            values = dict(item.split("=", 1) for item in variables if "=" in item)
            ran[int(values["ConfigSequenceNumber"]), call, values["ConfigExtensionName"]] += 1
        for (number, call, extension), count in ran.items():
            # An agent that starts after a goal state was through begins it anew (§11.2). What fails for a handler as a
            # whole is tried again by each of its further extensions (§11.8).
            tries = len(JOBS) if extension and not call.startswith("enable") else 1
            assert count <= max(self.passes[number], 1) * tries, (number, call, extension, count)

    @invariant()
    def the_status_can_always_be_read(self) -> None:
        if not hasattr(self, "root") or not self.number:
            return
        bench = Bench(self.root)
        bench.site.show(goal_state=self.goal_state(), processed=True)
        document = build_status([bench.reporter.build()], computer_name="vm", os_name="debian", os_version="12")
        assert status_problems(json.loads(json.dumps(document))) == []
        bench.site.wake.close()

    @invariant()
    def nothing_of_others_changes(self) -> None:
        if hasattr(self, "root"):
            after = contents(self.root)
            after.pop("problem", None)
            assert after == self.before

    @invariant()
    def what_was_not_disturbed_is_as_wanted(self) -> None:
        if not getattr(self, "complete", False):
            return
        lib = self.root / "var/lib/waagent"
        assert not list(lib.glob("*.zip*"))
        assert not [path for path in lib.iterdir() if path.name.startswith(".")]
        assert not list((self.root / "run/waagent/commands").glob("*/pid"))
        if self.failing:
            return
        for name, versions in VERSIONS.items():
            found = {path.name: (path / "config/HandlerState").read_text() for path in lib.glob(f"{name}-*")}
            choice = self.goal[name]
            if choice is None or choice[0] == "uninstall":
                assert found == {}, name
            elif choice[0] == "disabled":
                assert "Enabled" not in found.values()
            else:
                enables = name != "M" or "enabled" in choice[2]
                assert found == {f"{name}-{versions[choice[1]]}": "Enabled" if enables else "Installed"}


Machine.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
test_any_history = pytest.mark.slow(Machine.TestCase)
