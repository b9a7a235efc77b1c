"""A machine that is a directory, as plugins see it: real plans and files, and a distribution that only takes notes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from waagent import Paths, Plan
from waagent.conffile import read_chain
from waagent.config import Config
from waagent.distro import DistroFacts
from waagent.events import Events
from waagent.journal import Journal
from waagent.log import Log, Sinks
from waagent.plan import Executor
from waagent.state import State

LEVELS = ("VERBOSE", "INFO", "WARNING", "ERROR")


class NotingDistro:
    """Answers every operation, and remembers that it was asked."""

    def __init__(self) -> None:
        self.facts = DistroFacts("linux")
        self.calls: list[tuple[Any, ...]] = []
        self.answers: dict[str, Any] = {}

    @property
    def id(self) -> str:
        return self.facts.id

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            self.calls.append((name, *arguments))
            answer = self.answers.get(name, True)
            if isinstance(answer, Exception):
                raise answer
            return answer(*arguments) if callable(answer) else answer

        return call

    def asked(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == name]


class Timer:
    def __init__(self, due: float, fn: Callable[[], object]) -> None:
        self.due, self.fn, self.cancelled = due, fn, False

    def cancel(self) -> None:
        self.cancelled = True


class HandLoop:
    """A loop whose clock is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []
        self.watched: dict[int, tuple[int, Callable[[int], object]]] = {}

    def call_later(self, seconds: float, fn: Callable[[], object], name: str = "") -> Timer:
        timer = Timer(self.now + seconds, fn)
        self.timers.append(timer)
        return timer

    def watch(self, fd: int, mask: int, fn: Callable[[int], object]) -> None:
        self.watched[fd] = (mask, fn)

    def unwatch(self, fd: int) -> None:
        self.watched.pop(fd, None)

    def advance(self, seconds: float) -> None:
        """Let time pass, firing what becomes due in its order."""
        end = self.now + seconds
        while True:
            due = [timer for timer in self.timers if not timer.cancelled and timer.due <= end]
            if not due:
                break
            first = min(due, key=lambda timer: timer.due)
            self.timers.remove(first)
            self.now = max(self.now, first.due)
            first.fn()
        self.now = end


class InlineLane:
    """A lane whose work is done before :meth:`submit` returns."""

    def submit(self, fn: Callable[[], Any], *, name: str = "", on_done: Any = None, **_: Any) -> bool:
        result, problem = None, None
        try:
            result = fn()
        except Exception as raised:
            problem = raised
        if on_done is not None:
            on_done(result, problem)
        return True

    def submit_once(self, key: object, fn: Callable[[], Any], *, name: str = "", on_done: Any = None) -> bool:
        return self.submit(fn, name=name, on_done=on_done)


class Machine:
    """What a plugin is handed as its agent."""

    def __init__(self, root: Path, role: str = "worker") -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        (root / "etc").mkdir(exist_ok=True)
        self.role = role
        self.paths = Paths(str(root))
        self.lines: list[str] = []
        self.log = Log(Sinks(), "Test")
        self.log.also = lambda level, text: self.lines.append(f"{LEVELS[level]} {text}")
        self.happened: list[Any] = []
        self.events = Events(self.log)
        self.events.subscribe(self.happened.append)
        self.state = State(self.paths.lib("state"), self.log)
        self.stopping = threading.Event()
        self.distro = NotingDistro()
        self.executor = self.executor_in(self.paths.lib("journal"))
        self.loop = HandLoop()
        self.platform: Any = None
        self.hooks: Any = None
        self.commands: list[tuple[str, ...]] = []
        self.configure("")

    def executor_in(self, directory: str) -> Executor:
        return Executor(Journal(f"{directory}/{self.role}.jsonl", "this boot"), self.log)

    def configure(self, text: str, *options: Any) -> None:
        (self.root / "etc" / "waagent.conf").write_text(text)
        self.config = Config(read_chain(str(self.root)))
        if options:
            self.config.declare("test", options)

    def lane(self, name: str) -> InlineLane:
        return InlineLane()

    def call_soon(self, fn: Callable[[], object]) -> None:
        fn()

    def write(self, path: str, text: str | bytes = "") -> Path:
        place = Path(self.paths.at(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text.encode() if isinstance(text, str) else text)
        return place

    def read(self, path: str) -> str:
        return Path(self.paths.at(path)).read_text()

    def there(self, path: str) -> bool:
        return Path(self.paths.at(path)).exists()

    def names(self, plan: Plan) -> list[str]:
        """The steps of a plan as a dry run sees them."""
        return [step.name for step in self.executor.dry_run(plan)]

    def logged(self, *parts: str) -> list[str]:
        return [line for line in self.lines if all(part in line for part in parts)]
