"""Run a handler's command so that it outlives the agent and still runs exactly once (measured.md §5, ruling 32).

Each command has a directory. A small shell wrapper holds a lock there, keeps the output in files and writes the exit
code at the end; whichever agent process comes later finds out by looking what became of it:

======================================  =====================================================
lock held                               running: wait for its end
``exit`` there                          ended, with that code
``timeout`` there                       killed by us when its time was up
no ``pid``                              never started: safe to start
``pid`` without ``exit``                lost: living members of its session are waited for
======================================  =====================================================
"""

from __future__ import annotations

import binascii
import contextlib
import fcntl
import os
import re
import signal
import time
from collections.abc import Callable, Mapping

import attrs

from waagent import Log, StateError, ensure_dir, read_json, read_limited, write_json
from waagent_extensions import output, throttling, watch

WRAPPER = (
    "trap : HUP INT TERM; "
    'echo $$ >"$2/pid"; '
    '( umask 022; cd "$3" && exec /bin/sh -c "$1" ) 9>&- </dev/null >>"$2/out" 2>>"$2/err"; '
    'echo $? >"$2/exit"'
)
LOCK_FD = 9
ABSENT, NEVER, RUNNING, ENDED, KILLED, LOST = "absent", "never", "running", "ended", "killed", "lost"
_SLOW, _FAST = 5.0, 0.5
_GROWTH = output.LIMIT // 4


@attrs.frozen(eq=False, repr=False)
class Order:
    """A command to run.

    Attributes:
        id: names the directory; the same id is the same run, however often it is asked for.
        line: for ``/bin/sh -c``; its first word is a file below ``cwd``.
        timeout: seconds.
        goal_state: for which it runs; for people.
    """

    id: str
    handler: str
    version: str
    extension: str | None
    operation: str
    line: str
    cwd: str
    timeout: float
    goal_state: str = ""

    @property
    def short(self) -> str:
        """The command as the handler's manifest has it: relative to its directory."""
        return self.line[len(self.cwd) + 1 :] if self.line.startswith(self.cwd + "/") else self.line


@attrs.frozen(eq=False, repr=False)
class Result:
    """How a command ended.

    Attributes:
        code: exit code; ``None`` when it was killed for its time, was lost, or did not start.
        lost: nobody knows how it ended.
        throttled: seconds for which a CPU quota held it back, of one that was killed for its time.
        problem: why it could not be started.
        started: when, in seconds since the epoch.
        adopted: it was started by an earlier agent process.
        launch_problem: what the launcher said that failed before the command began; it was started without it.
    """

    code: int | None = None
    timed_out: bool = False
    lost: bool = False
    throttled: float | None = None
    problem: str = ""
    out: output.Captured = output.NOTHING
    err: output.Captured = output.NOTHING
    seconds: float = 0.0
    started: float = 0.0
    adopted: bool = False
    launch_problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether the command ended with exit code 0."""
        return self.code == 0


@attrs.frozen(eq=False, repr=False)
class Running:
    """A command that runs right now.

    Attributes:
        started: seconds since the epoch.
        pid: of the wrapper, when known.
    """

    order: Order
    directory: str
    started: float
    pid: int | None = None

    @property
    def last_line(self) -> str:
        """The last line it printed, at most 200 characters, without secrets."""
        return output.last_line(os.path.join(self.directory, "out"), os.path.join(self.directory, "err"))


class Runner:
    """Run commands, and find again those that an earlier process started.

    Args:
        directory: where the commands' directories lie; must die at boot.
        log: for what operators may want to know.
        boot_id: tells directories that survived a boot from living ones.
    """

    def __init__(self, directory: str, log: Log, boot_id: str = "") -> None:
        self._directory = directory
        self._log = log
        self._boot_id = boot_id

    def path(self, command_id: str) -> str:
        """Return the directory of a command."""
        return os.path.join(self._directory, command_id)

    def state(self, command_id: str) -> str:
        """Return what has become of a command: one of the words of the table above."""
        directory = self.path(command_id)
        if not os.path.isdir(directory):
            return ABSENT
        document = _document(directory)
        if document is None or document.get("boot") != self._boot_id:
            return NEVER
        # The lock is looked at first: once it is free, no file changes any more.
        if watch.is_locked(os.path.join(directory, "lock")):
            return RUNNING
        if _number(directory, "exit") is not None:
            return ENDED
        if os.path.exists(os.path.join(directory, "timeout")):
            return KILLED
        return LOST if os.path.exists(os.path.join(directory, "pid")) else NEVER

    def known(self) -> list[Order]:
        """Return every command of this boot whose end nobody has taken note of."""
        found = []
        for name in _entries(self._directory):
            directory = self.path(name)
            document = _document(directory)
            if os.path.exists(os.path.join(directory, "taken")):
                continue
            if document is None or document.get("boot") != self._boot_id:
                _remove(directory)
                continue
            with contextlib.suppress(KeyError, TypeError):
                found.append(_order(document))
        return found

    def run(
        self,
        order: Order,
        environment: Mapping[str, str],
        *,
        prefix: tuple[str, ...] = (),
        wake: watch.Wake | None = None,
        leave: Callable[[], bool] = lambda: False,
        progress: Callable[[Running], None] = lambda _running: None,
        start: bool = True,
    ) -> Result | None:
        """Run a command to its end, or take up the run that exists under its id.

        Args:
            order: what to run.
            environment: the command's whole environment.
            prefix: words before the wrapper, such as a launcher that gives it a scope of its own; a launcher that is
                missing or fails before the wrapper runs is left out and the command started without it.
            wake: interrupts the wait so that *leave* is asked.
            leave: whether to go and let the command run on.
            progress: called when the wait begins and now and then while the command runs.
            start: whether to start a command that never was; otherwise it counts as lost.

        Returns:
            The result, or ``None`` when left running.
        """
        state = self.state(order.id)
        directory = self.path(order.id)
        if state in (ABSENT, NEVER) and not start:
            return Result(lost=True, problem="it was never started")
        if state in (ABSENT, NEVER):
            problem = ""
            try:
                pid = self._start(order, environment, prefix)
            except OSError as refused:
                problem = refused.strerror or str(refused)
                if not prefix:
                    return Result(problem=problem)
            else:
                result = self._wait(order, pid, wake, leave, progress, adopted=False)
                if result is None or not prefix or self.state(order.id) != NEVER:
                    return result
                problem = _launcher_said(directory) or "it said nothing"
            self._log.warning(f"Starting through {prefix[0]} failed; starting without it: {problem}")
            result = self.run(order, environment, wake=wake, leave=leave, progress=progress)
            return attrs.evolve(result, launch_problem=problem) if result is not None else None
        if state == RUNNING:
            return self._wait(order, _number(directory, "pid"), wake, leave, progress, adopted=True)
        if state == LOST:
            return self._wait_for_lost(order, directory, leave)
        return self._result(order, adopted=True)

    def _start(self, order: Order, environment: Mapping[str, str], prefix: tuple[str, ...]) -> int:
        directory = self.path(order.id)
        _remove(directory)
        ensure_dir(self._directory, 0o700)
        os.mkdir(directory, 0o700)
        document = attrs.asdict(order)
        document.update(boot=self._boot_id, started=time.time(), started_monotonic=time.monotonic())
        write_json(os.path.join(directory, "command.json"), document, durable=False)
        opened = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Its number must differ from the one the wrapper gets: only a copy loses the close-on-exec mark.
            lock = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, LOCK_FD + 1)
        finally:
            os.close(opened)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            argv = [*prefix, "/bin/sh", "-c", WRAPPER, "waagent-command", order.line, directory, order.cwd]
            launcher = os.path.join(directory, "launcher") if prefix else "/dev/null"
            return _spawn(argv, dict(environment), lock, launcher)
        finally:
            # From here on the wrapper alone holds the lock.
            os.close(lock)

    def _wait(
        self,
        order: Order,
        pid: int | None,
        wake: watch.Wake | None,
        leave: Callable[[], bool],
        progress: Callable[[Running], None],
        *,
        adopted: bool,
    ) -> Result | None:
        directory = self.path(order.id)
        document = _document(directory) or {}
        started = _float(document.get("started"), time.time())
        deadline = _float(document.get("started_monotonic"), time.monotonic()) + order.timeout
        running = Running(order, directory, started, pid)
        end = watch.EndWatch(os.path.join(directory, "lock"), pid, own_child=not adopted)
        ended = killed = False
        wake_fd = wake.fileno() if wake is not None else None
        look = time.monotonic() + 1.0
        sizes = 0
        try:
            progress(running)
            while True:
                now = time.monotonic()
                ended, woken = watch.wait_readable(end.fileno(), wake_fd, min(deadline, look) - now)
                if ended:
                    break
                if woken and wake is not None:
                    wake.clear()
                if leave():
                    return None
                now = time.monotonic()
                if now >= deadline:
                    if killed:
                        break  # even SIGKILL did not end it: it hangs in the kernel
                    killed = True
                    self._kill(directory, pid)
                    deadline = now + 10.0
                if now >= look:
                    before, (sizes, was_cut) = sizes, _trim(directory)
                    look = now + (_FAST if was_cut or sizes - before > _GROWTH else _SLOW)
                    progress(running)
        finally:
            end.close()
            if ended and not adopted and pid is not None:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        if not killed and self.state(order.id) == RUNNING:
            # What was started has ended and left the wrapper running elsewhere, as some launchers do.
            return self._wait(order, _number(directory, "pid"), wake, leave, progress, adopted=True)
        return self._result(order, adopted=adopted)

    def _kill(self, directory: str, pid: int | None) -> None:
        """End the command's process group; members that left it for a session of their own live on."""
        wrapper = _number(directory, "pid") or pid
        if wrapper is None or not watch.is_locked(os.path.join(directory, "lock")):
            return
        # The mark comes first: a wrapper found dead without an exit code is then not taken for lost.
        held_back = throttling.seconds_held_back(wrapper)
        with open(os.path.join(directory, "timeout"), "w", encoding="ascii") as mark:
            mark.write("" if held_back is None else f"{held_back:.0f}\n")
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(os.getpgid(wrapper), signal.SIGKILL)

    def _wait_for_lost(self, order: Order, directory: str, leave: Callable[[], bool]) -> Result | None:
        """Wait until no member of the session lives; nobody will tell their exit code."""
        session = _number(directory, "pid") or 0
        document = _document(directory) or {}
        deadline = _float(document.get("started_monotonic"), time.monotonic()) + order.timeout
        while True:
            members = watch.session_members(session) if session else []
            if not members:
                break
            if leave():
                return None
            if time.monotonic() >= deadline:
                with open(os.path.join(directory, "timeout"), "wb"):
                    pass
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(session, signal.SIGKILL)
                break
            watch.wait_for_strangers(members, leave, min(deadline - time.monotonic(), 30.0))
        return self._result(order, adopted=True)

    def _result(self, order: Order, *, adopted: bool) -> Result:
        directory = self.path(order.id)
        document = _document(directory) or {}
        code = _number(directory, "exit")
        timed_out = code is None and os.path.exists(os.path.join(directory, "timeout"))
        return Result(
            code=code,
            timed_out=timed_out,
            lost=code is None and not timed_out,
            throttled=_number(directory, "timeout") if timed_out else None,
            out=output.read(os.path.join(directory, "out")),
            err=output.read(os.path.join(directory, "err")),
            seconds=max(time.monotonic() - _float(document.get("started_monotonic"), time.monotonic()), 0.0),
            started=_float(document.get("started"), 0.0),
            adopted=adopted,
        )

    def release(self, command_id: str) -> None:
        """Give a command's directory back once its result is on record elsewhere.

        A directory whose output files are still written to, by what the command left running, stays until
        :meth:`sweep` finds them closed: a file without a name could not be kept small.
        """
        directory = self.path(command_id)
        if any(output.has_writers(os.path.join(directory, name)) for name in ("out", "err")):
            with contextlib.suppress(OSError), open(os.path.join(directory, "taken"), "wb"):
                return
        _remove(directory)

    def sweep(self) -> None:
        """Keep the output of what commands left running small, and remove directories nobody writes to any more."""
        for name in _entries(self._directory):
            directory = self.path(name)
            if os.path.exists(os.path.join(directory, "taken")):
                _trim(directory)
                self.release(name)


def command_id(*parts: object) -> str:
    """Return a directory name for a command: readable, and unique for *parts*."""
    # hashlib would bring the whole of OpenSSL into the resident worker.
    text = "|".join(str(part) for part in parts)
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(str(part) for part in parts if part)).strip("-.")
    return f"{readable[-140:]}-{binascii.crc32(text.encode()):08x}"


def _spawn(argv: list[str], environment: dict[str, str], lock: int, errors_to: str) -> int:
    try:
        return os.posix_spawn(
            _program(argv[0]),
            argv,
            environment,
            file_actions=(
                (os.POSIX_SPAWN_DUP2, lock, LOCK_FD),
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, errors_to, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            ),
            setsid=True,
            setsigmask=(),
            # What Python ignores for itself would stay ignored in the handler and all it starts.
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
        )
    except NotImplementedError:  # no POSIX_SPAWN_SETSID here (FreeBSD, old C libraries)
        import subprocess

        with open(errors_to, "ab") as errors:
            started = subprocess.Popen(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
                close_fds=False,  # every other descriptor closes at exec by itself
                preexec_fn=lambda: os.dup2(lock, LOCK_FD),  # noqa: PLW1509
            )
        started.returncode = 0  # reaped here, not by its destructor
        return started.pid


def _program(word: str) -> str:
    if "/" in word:
        return word
    from shutil import which  # only for a launcher: the shell has a full path

    return which(word) or word


def _remove(directory: str) -> None:
    """Delete a command's directory, which holds files only."""
    for name in _entries(directory):
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(directory, name))
    with contextlib.suppress(OSError):
        os.rmdir(directory)


def _entries(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _document(directory: str) -> dict[str, object] | None:
    try:
        found = read_json(os.path.join(directory, "command.json"))
    except StateError:
        return None
    return found if isinstance(found, dict) else None


def _order(document: dict[str, object]) -> Order:
    extension = document["extension"]
    return Order(
        id=str(document["id"]),
        handler=str(document["handler"]),
        version=str(document["version"]),
        extension=str(extension) if extension is not None else None,
        operation=str(document["operation"]),
        line=str(document["line"]),
        cwd=str(document["cwd"]),
        timeout=_float(document["timeout"], 300.0),
        goal_state=str(document.get("goal_state") or ""),
    )


def _number(directory: str, name: str) -> int | None:
    try:
        text = read_limited(os.path.join(directory, name), 64)
    except (OSError, StateError):
        return None
    # Without its newline the number was cut off by a kill.
    return int(text) if text.endswith(b"\n") and text.strip().isdigit() else None


def _float(value: object, default: float) -> float:
    return float(value) if isinstance(value, (int, float)) else default


def _launcher_said(directory: str) -> str:
    try:
        data = read_limited(os.path.join(directory, "launcher"), 65536)
    except (OSError, StateError):
        return ""
    return data.decode("utf-8", "backslashreplace").strip()[:500]


def _trim(directory: str) -> tuple[int, bool]:
    """Keep a command's output small; return its bytes, and whether something had to go."""
    size, was_cut = 0, False
    for name in ("out", "err"):
        path = os.path.join(directory, name)
        was_cut = output.trim(path) or was_cut
        with contextlib.suppress(OSError):
            size += os.stat(path).st_size
    return size, was_cut
