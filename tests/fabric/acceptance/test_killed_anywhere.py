"""Killed at any step from the fetch to the report, the agent ends where it would have ended (extensions §23.14).

One run that nobody disturbs gives the list of moments: every request that the platform saw and every entry of the
journals. Then the worker, and the supervisor, are killed with SIGKILL when such a moment comes: at a request before its
answer leaves, at an entry as soon as it can be read. By default some of the moments are taken, evenly spread;
``WAAGENT_KILL_EVERYWHERE=1`` takes all.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Union

import attrs
import pytest

from tests.fabric.acceptance import tools
from waagent_fabric import Fabric, HandlerSpec, RequestRecord, RunningAgent, SettingsSpec, read_calls, sample_package
from waagent_fabric.seen import find_handler

pytestmark = [pytest.mark.fabric, pytest.mark.slow]

NAME = "Contoso.Sample"
SAMPLES = 14
AT_ONCE = 3
EVERYWHERE = bool(os.environ.get("WAAGENT_KILL_EVERYWHERE"))
STATUS_UPLOADS = 2
"""How many of the uploads are taken: there are always two, and often more."""


@attrs.frozen
class Request:
    """The *count*-th request of its kind."""

    kind: str
    count: int


@attrs.frozen
class Entry:
    """A line of a journal, by its number."""

    journal: str
    number: int
    text: str = attrs.field(eq=False, default="")


Moment = Union[Request, Entry]


def kind_of(record: RequestRecord) -> str:
    path, _, query = record.path.partition("?")
    words = [word for word in query.split("&") if word.startswith(("comp=", "type="))]
    if record.server == "wireserver" and words:
        path = ""
    if record.server == "blobs" and record.method == "GET":
        path = path[2:]  # each artifact lies in two places, asked in random order
    return f"{record.server} {record.method} {path}{'&'.join(words)}"


class Machine:
    """One agent with its own platform, and who is to be killed when."""

    def __init__(self, place: Path, victim: str = "", moment: Moment | None = None) -> None:
        self.root = place / "root"
        self.root.mkdir(parents=True)
        self.fabric = Fabric()
        self.agent: RunningAgent | None = None
        self.killed_at = 0.0
        self.restarted_at = 0.0
        self.pass_was_over = False
        self._victim = victim
        self._moment = moment
        self._counts: dict[str, int] = {}
        self._dead = threading.Event()

    def __enter__(self) -> Machine:
        self.fabric.start()
        fabric = self.fabric
        fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0", install="sleep 0.3", enable="sleep 0.3"))
        fabric.publish([HandlerSpec(NAME, "1.0.0", settings=[SettingsSpec({"a": 1}, {"b": 2})])])
        if isinstance(self._moment, Request):
            record_request = fabric.platform.add_request

            def add_request(record: RequestRecord) -> None:
                # In the platform's thread: the answer leaves after this.
                self._on_request(record)
                record_request(record)

            fabric.platform.add_request = add_request  # type: ignore[method-assign]
        self.agent = RunningAgent(self.root, fabric).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.agent is not None
        self.agent.stop()
        self.fabric.stop()

    # -- killing

    def _on_request(self, record: RequestRecord) -> None:
        assert isinstance(self._moment, Request)
        kind = kind_of(record)
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if kind == self._moment.kind and self._counts[kind] == self._moment.count and not self._dead.is_set():
            self._kill()

    def _kill(self) -> None:
        assert self.agent is not None
        assert self.agent.process is not None
        pid = self.agent.process.pid if self._victim == "supervisor" else self.agent.worker
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        self.killed_at = time.time()
        self._dead.set()

    def disturb(self) -> None:
        """Kill at the moment, and see to it that the agent runs again."""
        agent = self.agent
        assert agent is not None
        if isinstance(self._moment, Entry):
            worker = tools.live_worker(agent)
            path, wanted = self.root / self._moment.journal, self._moment.number + 1
            deadline = time.monotonic() + 30
            while lines_of(path) < wanted:
                assert time.monotonic() < deadline, f"{self._moment} never came"
                time.sleep(0.0005)
            if self._victim == "worker":
                os.kill(worker, signal.SIGKILL)
                self.killed_at = time.time()
            else:
                self._kill()
        else:
            assert self._dead.wait(30), f"{self._moment} never came"
        if self._victim == "worker":
            # The supervisor waits a second before it starts the next one.
            self.pass_was_over = self._pass_is_over()
            self.restarted_at = self.killed_at + 0.5
            return
        assert agent.process is not None
        agent.process.wait(10)
        lock = self.root / "run/waagent/worker.lock"
        # The orphan notices by itself and leaves; what it did until then counts.
        tools.wait_for(lambda: not is_locked(lock), "the orphaned worker's end", 10)
        self.pass_was_over = self._pass_is_over()
        agent.process = None
        self.restarted_at = time.time()
        agent.start()

    def _pass_is_over(self) -> bool:
        return any("ended" in line for line in journal_lines(self.root / "run/waagent/extensions.jsonl"))

    # -- looking

    def settled(self) -> bool:
        """Whether the platform was told by the agent that runs now that all is done."""
        for record in self.fabric.statuses:
            aggregate = record.document["aggregateStatus"]
            processed = (aggregate.get("vmArtifactsAggregateStatus") or {}).get("goalStateAggregateStatus") or {}
            if (
                record.time > self.restarted_at
                and processed.get("status") == "Success"
                and tools.word_of(record.document, NAME) == "success"
                and find_handler(record.document, NAME)["status"] == "Ready"  # type: ignore[index]
            ):
                return True
        return False

    def result(self) -> dict[str, Any]:
        """Return what is on the disk, apart from moments and this run's own places."""
        handler = self.root / "var/lib/waagent" / f"{NAME}-1.0.0"
        return {
            str(path.relative_to(handler)): path.read_text().replace(str(self.root), "ROOT").replace(*self._own())
            for path in tools.files_below(handler)
        }

    def _own(self) -> tuple[str, str]:
        """What differs from run to run in the settings: the sealed text and the thumbprint."""
        settings = json.loads((self.root / f"var/lib/waagent/{NAME}-1.0.0/config/0.settings").read_text())
        return json.dumps(settings), "SETTINGS"

    def moments(self) -> list[Moment]:
        """Return the moments of an undisturbed run, in the order of journals and requests."""
        found: list[Moment] = []
        counts: dict[str, int] = {}
        for record in self.fabric.requests:
            kind = kind_of(record)
            counts[kind] = counts.get(kind, 0) + 1
            if counts[kind] <= (STATUS_UPLOADS if kind == "hostplugin PUT /status" else 1):
                found.append(Request(kind, counts[kind]))
        for path in (*sorted((self.root / "var/lib/waagent/journal").glob("*.jsonl")), self.root / LEDGER):
            name = str(path.relative_to(self.root))
            found += [Entry(name, number, line[:100]) for number, line in enumerate(journal_lines(path))]
        return found


LEDGER = "run/waagent/extensions.jsonl"


def journal_lines(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return path.read_text().splitlines()
    return []


def lines_of(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.read_bytes().count(b"\n")
    return 0


def is_locked(path: Path) -> bool:
    import fcntl

    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def unreadable(root: Path) -> Iterator[str]:
    """Yield every state file that is not what it should be."""
    for path in tools.files_below(root / "var/lib/waagent", root / "run/waagent"):
        try:
            if path.name in ("HandlerStatus", "HandlerEnvironment.json") or path.suffix in (
                ".json",
                ".settings",
                ".status",
            ):
                json.loads(path.read_text())
            elif path.suffix == ".jsonl":
                for line in path.read_text().splitlines():
                    json.loads(line)
            elif path.name == "HandlerState":
                assert path.read_text() in ("NotInstalled", "Installed", "Enabled")
            elif path.suffix in (".zip", ".partial", ".tmp") or path.name.endswith((".exit", ".new")):
                yield f"{path} was left behind"
        except (ValueError, AssertionError, UnicodeDecodeError) as problem:
            yield f"{path}: {problem}: {path.read_bytes()[:200]!r}"


def run_killed(place: Path, victim: str, moment: Moment, expected: dict[str, Any]) -> str:
    """Run once with a kill; return what is wrong, "" when nothing is."""
    with Machine(place, victim, moment) as machine:
        assert machine.agent is not None
        try:
            machine.disturb()
            tools.wait_for(machine.settled, "the end", 40)
            # A temporary file may be that of a write under way: what is wrong stays wrong.
            with contextlib.suppress(AssertionError):
                tools.wait_for(lambda: not list(complaints(machine, expected)), "nothing wrong", 3)
            wrong = list(complaints(machine, expected))
        except AssertionError as problem:
            wrong = [str(problem)]
        if wrong:
            (place / "log").write_text(machine.agent.log())
            return f"{victim} killed at {moment}: {wrong}; its log is {place / 'log'}"
        return ""


def complaints(machine: Machine, expected: dict[str, Any]) -> Iterator[str]:
    calls = read_calls(machine.root, NAME)
    operations = [call.operation for call in calls]
    # A command that ran when the agent was killed is taken up and not run twice. Once a goal state is through, a start
    # of the agent enables everything again (extensions §11.2).
    wanted = ["install", "enable", "enable"] if machine.pass_was_over else ["install", "enable"]
    if operations != wanted:
        yield f"ran {operations}, expected {wanted}"
    if any(call.exit_code != 0 for call in calls):
        yield f"exit codes {[call.exit_code for call in calls]}"
    log = (machine.root / f"var/log/azure/{NAME}/calls.log").read_text().splitlines()
    if [line.partition("=")[0] for line in log] != ["call", "end"] * len(calls):
        yield f"commands ran beside each other: {log}"
    found = machine.result()
    if found != expected:
        differing = [name for name in {*found, *expected} if found.get(name) != expected.get(name)]
        yield f"other files: {[(name, found.get(name), expected.get(name)) for name in differing]}"
    yield from unreadable(machine.root)
    commands = machine.root / "run/waagent/commands"
    if commands.is_dir() and list(commands.iterdir()):
        yield f"left in {commands}: {[path.name for path in commands.iterdir()]}"
    hidden = [path.name for path in (machine.root / "var/lib/waagent").glob(".*")]
    if hidden:
        yield f"left behind: {hidden}"
    documents = [record.document for record in machine.fabric.statuses]
    ready = [(find_handler(document, NAME) or {}).get("status") == "Ready" for document in documents]
    if True in ready and not all(find_handler(document, NAME) for document in documents[ready.index(True) :]):
        yield "the handler vanished from the status after it had been ready"
    if machine.fabric.violations:
        yield f"violations: {machine.fabric.violations}"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Moment], dict[str, Any]]:
    """Return the moments of a run that nobody disturbs, and what it left on the disk."""
    with Machine(tmp_path_factory.mktemp("undisturbed")) as machine:
        tools.wait_for(machine.settled, "the end of an undisturbed run", 40)
        moments, result = machine.moments(), machine.result()
    assert result["config/HandlerState"] == "Enabled"
    kinds = {moment.kind for moment in moments if isinstance(moment, Request)}
    assert any("__1.0.0.zip" in kind for kind in kinds), kinds
    assert sum(isinstance(moment, Entry) for moment in moments) > 15
    return moments, result


@pytest.mark.timeout(900 if EVERYWHERE else 240)
@pytest.mark.parametrize("victim", ["worker", "supervisor"])
def test_killed_at_any_moment_it_ends_as_if_nothing_had_been(
    victim: str, undisturbed: tuple[list[Moment], dict[str, Any]], tmp_path: Path
) -> None:
    moments, expected = undisturbed
    chosen = moments if EVERYWHERE else tools.evenly(moments, SAMPLES)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = [
            pool.submit(run_killed, tmp_path / str(number), victim, moment, expected)
            for number, moment in enumerate(chosen)
        ]
        wrong = [problem for problem in (run.result() for run in runs) if problem]
    print(f"{len(chosen)} of {len(moments)} moments")
    assert not wrong, f"{len(wrong)} of {len(chosen)}:\n" + "\n\n".join(wrong)
