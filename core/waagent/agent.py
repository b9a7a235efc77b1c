"""The agent, as hooks and commands are handed it: everything they may use hangs here (architecture §5)."""

from __future__ import annotations

import os
import sys
import threading

import attrs

from waagent.conffile import read_chain, values_for_paths
from waagent.config import Config
from waagent.events import Events
from waagent.log import Log, make_log
from waagent.paths import Paths
from waagent.state import State
from waagent.version import WIRE_VERSION

TYPE_CHECKING = False  # the resident worker does without the typing module
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from waagent.commands import Completed
    from waagent.distro import Distro
    from waagent.hooks import Hooks
    from waagent.loop import Lane, Loop
    from waagent.plan import Executor
    from waagent.platform.client import Platform
    from waagent.plugins import PluginHost

CLI, BOOT, WORKER = "cli", "boot", "worker"

_PREFIX = {CLI: "", BOOT: "Daemon", WORKER: "ExtHandler"}
_THREAD = {BOOT: "Boot"}


@attrs.define(eq=False, repr=False)
class Agent:
    """One process of the agent.

    Attributes:
        version: four parts, as the platform sees it.
        role: ``cli``, ``boot`` or ``worker``.
        config: the configuration, with the options of the plugins that are loaded.
        paths: where files lie.
        log: the process's log.
        events: what happened, for log and telemetry.
        state: small values that outlive the process.
        stopping: set when the process was asked to end; long work looks at it.
        platform: the wire; ``None`` where nothing talked to it yet (see :meth:`connect`).
    """

    version: str
    role: str
    config: Config
    paths: Paths
    log: Log
    events: Events
    state: State
    stopping: threading.Event
    platform: Platform | None = None
    _plugins: PluginHost | None = None
    _distro: Distro | None = None
    _loop: Loop | None = None
    _executor: Executor | None = None
    _on_status_request: Callable[[], object] | None = None
    _lanes: dict[str, Lane] = attrs.field(factory=dict)
    _phases: dict[str, threading.Event] = attrs.field(factory=dict)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    @property
    def plugins(self) -> PluginHost:
        """The plugins of this process.

        Raises:
            RuntimeError: they are not loaded yet.
        """
        if self._plugins is None:
            raise RuntimeError("the plugins are not loaded yet")
        return self._plugins

    @property
    def hooks(self) -> Hooks:
        """The façade that hooks are fired through.

        Raises:
            RuntimeError: the plugins are not loaded yet.
        """
        return self.plugins.hooks

    @property
    def distro(self) -> Distro:
        """The operating system: every operation of ``waagent.operations`` as a method.

        Raises:
            RuntimeError: the plugins are not loaded yet.
        """
        with self._lock:
            if self._distro is None:
                from waagent.distro import Distro

                self._distro = Distro(self.plugins.distribution, self.hooks, self)
            return self._distro

    @property
    def executor(self) -> Executor:
        """Runs plans, with this role's journal (ruling 19e)."""
        with self._lock:
            if self._executor is None:
                from waagent.journal import Journal
                from waagent.plan import Executor

                self._executor = Executor(Journal(self.paths.lib("journal", self.role + ".jsonl")), self.log)
            return self._executor

    def executor_in(self, directory: str) -> Executor:
        """Return an executor with a journal of its own in *directory*: for plans that remove the state directory.

        Args:
            directory: made when the first step begins; the journal in it is named after this process's role.
        """
        from waagent.journal import Journal
        from waagent.plan import Executor

        return Executor(Journal(os.path.join(directory, self.role + ".jsonl")), self.log)

    def connect(self) -> Platform:
        """Return the platform; made now in a process that had none yet."""
        with self._lock:
            if self.platform is None:
                from waagent.platform.client import Platform

                self.platform = Platform(
                    self.config,
                    self.paths,
                    self.log,
                    self.events,
                    version=self.version,
                    stopping=self.stopping,
                    distro=lambda: self.distro if self.plugins_loaded else None,
                )
            return self.platform

    def wait_for_phase(self, name: str, seconds: float) -> bool:
        """Wait until the plans of a phase of the boot stage have ended; return whether they have.

        Args:
            name: ``disk``, the only phase that runs beside others. In a process that runs no phases nothing waits.
            seconds: at most.
        """
        phase = self._phases.get(name)
        return phase is None or phase.wait(seconds)

    @property
    def plugins_loaded(self) -> bool:
        """Whether :attr:`plugins`, :attr:`hooks` and :attr:`distro` can be used."""
        return self._plugins is not None

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 30,
        input: bytes | str | None = None,  # noqa: A002 - the name that everybody knows
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        output_limit: int | None = None,
        check: bool = False,
        stop: threading.Event | None = None,
    ) -> Completed:
        """Run a command of the system; see :func:`waagent.commands.run`, which this is.

        Raises:
            CommandError: with *check*, when it did not end with 0.
        """
        from waagent import commands

        limit = commands.OUTPUT_LIMIT if output_limit is None else output_limit
        return commands.run(
            argv, timeout=timeout, input=input, env=env, cwd=cwd, output_limit=limit, check=check, stop=stop
        )

    def lane(self, name: str) -> Lane:
        """Return the lane *name*, a thread of its own for work that may block; made when it is first asked for.

        Raises:
            RuntimeError: a command line has no lanes.
        """
        if self._loop is None:
            raise RuntimeError(f"there are no lanes in role {self.role}")
        with self._lock:
            lane = self._lanes.get(name)
            if lane is None:
                from waagent.loop import Lane

                lane = self._lanes[name] = Lane(name, self._loop, self.log)
            return lane

    @property
    def lanes(self) -> dict[str, Lane]:
        """The lanes that exist, by name."""
        with self._lock:
            return dict(self._lanes)

    @property
    def loop(self) -> Loop:
        """The event loop of this process.

        Raises:
            RuntimeError: a command line has none.
        """
        if self._loop is None:
            raise RuntimeError(f"there is no event loop in role {self.role}")
        return self._loop

    def request_status(self) -> None:
        """Say that the status changed: it is collected, and uploaded if it differs, as soon as possible.

        Any thread may call; many calls make few uploads. Does nothing outside the worker.
        """
        if self._on_status_request is not None:
            self._on_status_request()

    def call_soon(self, fn: Callable[[], object]) -> None:
        """Run *fn* on the loop's thread at the next turn; where there is no loop, run it now."""
        if self._loop is not None:
            self._loop.call_soon(fn)
        else:
            fn()

    def use_plugins(self, host: PluginHost) -> None:
        """Adopt loaded plugins and declare their options."""
        self._plugins = host
        options: dict[str, list[object]] = {}
        for plugin, option in host.hooks.declare_options():
            options.setdefault(plugin, []).append(option)
        for plugin, declared in options.items():
            self.config.declare(plugin, declared)  # type: ignore[arg-type]

    def begin_phase(self, name: str) -> threading.Event:
        """Say that a phase runs beside others; the event is to be set when it has ended."""
        return self._phases.setdefault(name, threading.Event())

    def use_loop(self, loop: Loop, on_status_request: Callable[[], object] | None = None) -> None:
        """Let lanes and timers run on *loop*."""
        self._loop = loop
        self._on_status_request = on_status_request


def make_agent(
    role: str = CLI, root: str = "/", conf: str | None = None, verbose: bool = False, *, plugins: bool | None = None
) -> Agent:
    """Return the agent of this process.

    Args:
        role: ``cli``, ``boot`` or ``worker``.
        root: what every path lies under (ruling 7).
        conf: a configuration file that replaces the chain.
        verbose: write VERBOSE lines to standard error too; ``Logs.Verbose=y`` writes them to the file alone.
        plugins: discover and load the plugins; by default in the command line only, the service does so at its time.

    Raises:
        ConfigError: *conf* does not exist.
    """
    raw = read_chain(root, conf)
    config = Config(raw)
    paths = Paths(root, values_for_paths(raw))
    log = make_log(
        _PREFIX[role],
        _THREAD.get(role),
        path=None if role == CLI else paths.log_file,
        verbose=verbose,
        verbose_file=config.boolean("Logs.Verbose"),
    )
    if role == CLI:
        log.sinks.stream = sys.stderr
        log.sinks.stream_is_journal = False
    agent = Agent(
        version=WIRE_VERSION,
        role=role,
        config=config,
        paths=paths,
        log=log,
        events=Events(log),
        state=State(paths.lib("state"), log),
        stopping=threading.Event(),
    )
    if plugins if plugins is not None else role == CLI:
        from waagent.plugins import PluginHost

        host = PluginHost(log, config, paths)
        host.discover()
        host.load()
        agent.use_plugins(host)
    return agent
