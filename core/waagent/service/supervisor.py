"""The supervisor: takes the lock, starts key helper, boot stage and worker, and keeps them right (architecture §3).

Standard library alone, at most 12 MB resident: it survives anything that a plugin does. It alone speaks to the service
manager (ruling 11). Rules: service §1.3 to §1.6, rulings 9, 12, 15, 19a to 19d; log lines: cli §4.8.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from waagent.errors import ConfigError
from waagent.files import ensure_dir, move_aside, write_atomic
from waagent.log import INFO, VERBOSE, make_log
from waagent.service import children, launch, osfacts, usualplace
from waagent.service.beats import BEAT_FD, BOOT_FD, PLUGIN_LIST
from waagent.service.bootwatch import BootWatch
from waagent.service.lock import Lock
from waagent.service.notify import Notifier
from waagent.service.reactor import Reactor
from waagent.service.settings import Settings
from waagent.service.workerwatch import Timing, WorkerWatch
from waagent.version import WIRE_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from waagent.log import Log
    from waagent.service.start import Options

FOUND_ENDPOINT = ("WireServerEndpoint", "Protocol")
STOP_SECONDS = 9.0
"""After this the children are killed: the whole service is down within ten seconds of SIGTERM."""


def _command(role: str, options: Options, code: str | None, extra: tuple[str, ...]) -> list[str]:
    return launch.command(role, root=options.root, conf=options.conf, verbose=options.verbose, code=code, extra=extra)


class Supervisor:
    """One service.

    Args:
        options: root, configuration file and verbosity, as given on the command line.
        command: builds the argv of a role; tests put small programs in its place.
        timing: the periods of the worker's watch.
        installed: the version of the package.
    """

    def __init__(
        self,
        options: Options,
        *,
        command: Callable[[str, Options, str | None, tuple[str, ...]], list[str]] = _command,
        timing: Timing | None = None,
        installed: str = WIRE_VERSION,
    ) -> None:
        self._options = options
        self._command = command
        self._settings = Settings(options.root, options.conf)
        self.paths = self._settings.paths
        self._prepare_log_dir()
        self.log: Log = make_log(
            "Daemon",
            "Daemon",
            path=self.paths.log_file,
            verbose=options.verbose,
            verbose_file=self._settings.verbose_file,
        )
        self._notifier = Notifier.from_environment(os.environ)
        self._reactor = Reactor(self.log)
        self._installed = installed
        self._lock = Lock(self.paths.run("daemon.lock"))
        self._stopping = False
        self._reloading = False
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._reactor.on_signal(signum, self._stop)
        self._reactor.on_signal(signal.SIGHUP, self._reload)
        self._reactor.on_signal(signal.SIGCHLD, self._reap)
        self._boot = BootWatch(self._reactor, self.log, self.paths, self._start_installed)
        self._worker = WorkerWatch(
            self._reactor,
            self.log,
            self.paths,
            installed,
            self._start,
            lambda: self._boot.reader,
            self._notifier.status,
            timing or Timing(),
        )

    def run(self) -> int:
        """Run the service until it is told to stop; returns the exit code."""
        self.log.info(f"Azure Linux Agent Version: {self._installed}")
        self.log.info(f"OS: {osfacts.describe(self.paths)}")
        self.log.info("Python: " + ".".join(str(part) for part in sys.version_info[:3]))
        self.log.info("Run daemon")
        try:
            if not self._lock.acquire():
                holder = self._lock.holder()
                text = f"Daemon is already running: {holder[0] if holder else 'unknown process'}"
                self.log.info(text)
                return 0
        except OSError as problem:
            self.log.error(f"{self._lock.path} cannot be locked: {problem}")
            return 1
        self._write_pid()
        for directory, mode in ((self.paths.lib_dir, 0o700), (self.paths.extension_log_dir, 0o755)):
            try:
                ensure_dir(directory, mode)
            except OSError as problem:
                self.log.error(f"{directory} cannot be made: {problem}")
        usualplace.link(self.paths, self.log)
        self._forget_endpoint()
        self._notifier.send("READY=1", "STATUS=Starting")
        if self._notifier.watchdog_period:
            self._ping()
        # Children start from the loop: a SIGTERM that has come by now is seen first.
        self._reactor.after(0.0, self._begin)
        code = self._run_loop()
        self._remove_pid()
        return code

    def _run_loop(self) -> int:
        while True:
            try:
                return self._reactor.run()
            except Exception as problem:
                self.log.warning("Daemon ended with exception -- Sleep 15 seconds and restart daemon")
                self.log.error(f"{type(problem).__name__}: {problem}")
                time.sleep(15)

    def _prepare_log_dir(self) -> None:
        try:
            ensure_dir(os.path.dirname(self.paths.log_file), 0o755)
        except OSError:
            pass

    def _write_pid(self) -> None:
        path = self.paths.pid_file
        try:
            ensure_dir(os.path.dirname(path), 0o755)
            if os.path.isdir(path) and not os.path.islink(path):
                move_aside(path)
            write_atomic(path, f"{os.getpid()}\n", 0o644, durable=False)
        except OSError as problem:
            self.log.warning(f"{path} cannot be written: {problem}")

    def _forget_endpoint(self) -> None:
        """Forget where the platform was: the disk may have moved to another environment since (wireserver §2.2)."""
        for name in FOUND_ENDPOINT:
            self._delete(self.paths.lib(name))

    def _delete(self, path: str) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as problem:
            self.log.warning(f"{path} cannot be deleted: {problem}")

    def _remove_pid(self) -> None:
        try:
            with open(self.paths.pid_file, "rb") as stream:
                ours = stream.read(32).strip() == str(os.getpid()).encode("ascii")
            if ours:
                os.unlink(self.paths.pid_file)
        except OSError:
            pass  # gone or never written: nothing depends on it

    def _ping(self) -> None:
        self._notifier.send("WATCHDOG=1")
        self._reactor.after(self._notifier.watchdog_period or 1.0, self._ping)

    def _begin(self) -> None:
        if self._stopping:
            return
        self._worker.packaged_only = self._settings.packaged_only
        # The worker first: it has the longest way to the first request, and two cores are not enough for three starts.
        self._worker.begin()
        self._boot.begin()

    # -- children ------------------------------------------------------------------------------------------------

    def _start_installed(self, role: str, descriptors: dict[int, int]) -> children.Child:
        return self._start(role, None, descriptors)

    def _start(self, role: str, code: str | None, descriptors: dict[int, int]) -> children.Child:
        extra = []
        if BEAT_FD in descriptors:
            extra.append(f"--beat-fd={BEAT_FD}")
        if BOOT_FD in descriptors:
            extra.append(f"--boot-fd={BOOT_FD}")
        if role == launch.WORKER:
            extra.append("--stale-list=" + self._boot.stale_list)
        argv = self._command(role, self._options, code, tuple(extra))
        environ = launch.environment()
        if self._settings.fips:
            environ["OPENSSL_FIPS"] = "1"
        return children.Child(role, children.spawn(argv, environ, descriptors), self._reactor.clock())

    def _reap(self) -> None:
        for child in self._alive():
            try:
                pid, status = os.waitpid(child.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = child.pid, 0
            if pid != child.pid:
                continue
            if child is self._worker.worker:
                self._worker.reaped(status)
            else:
                self._boot.reaped(child, status)
        self._check_ended()

    def _alive(self) -> list[children.Child]:
        worker = self._worker.worker
        return ([worker] if worker is not None else []) + self._boot.alive()

    # -- signals -------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self.log.info("Daemon is asked to stop")
        self._notifier.send("STOPPING=1", "STATUS=Stopping")
        self._boot.cancel()
        self._worker.stop()
        for child in self._boot.alive():
            child.signal(signal.SIGTERM)
        self._reactor.after(STOP_SECONDS, self._kill_all)
        self._check_ended()

    def _kill_all(self) -> None:
        for child in self._alive():
            self.log.warning(f"Process {child.pid} ({child.name}) did not stop within {STOP_SECONDS:g} s and is killed")
            child.signal(signal.SIGKILL)

    def _check_ended(self) -> None:
        if self._stopping and not self._alive():
            self.log.info("Daemon stopped")
            self._reactor.stop(0)
        elif self._reloading and self._worker.worker is None:
            self._finish_reload()

    def _reload(self) -> None:
        if self._stopping or self._reloading:
            return
        self._reloading = True
        self.log.info("Reloading the configuration")
        # systemd wants the moment of the request, so that it can tell this reload's READY=1 from an earlier one.
        self._notifier.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=Reloading")
        self._worker.stop()
        worker = self._worker.worker
        if worker is not None:
            self._reactor.after(STOP_SECONDS, lambda: self._kill_for_reload(worker))
        self._check_ended()

    def _kill_for_reload(self, worker: children.Child) -> None:
        if self._worker.worker is worker:
            self.log.warning(f"Worker [pid {worker.pid}] did not stop within {STOP_SECONDS:g} s and is killed")
            worker.signal(signal.SIGKILL)

    def _finish_reload(self) -> None:
        self._reloading = False
        try:
            settings = Settings(self._options.root, self._options.conf)
        except ConfigError as problem:
            self.log.error(f"The configuration cannot be read again, the old one stays: {problem}")
        else:
            for key in ("lib_dir", "log_file", "pid_file"):
                if getattr(settings.paths, key) != getattr(self.paths, key):
                    self.log.warning(f"A new place for {key} counts from the next restart of the service")
            self._settings = settings
            self.log.sinks.level = VERBOSE if self._options.verbose or settings.verbose_file else INFO
            self._worker.packaged_only = settings.packaged_only
        self._delete(self.paths.run(PLUGIN_LIST))
        try:
            self._boot.begin_again()
        except OSError as problem:
            self.log.error(f"The boot stage cannot be run again: {problem}")
        self._worker.begin_again()
        self._notifier.send("READY=1", "STATUS=Reloaded")


def main(options: Options) -> int:
    """Run the service; returns 0 after a stop or beside a running daemon, 1 when it cannot run."""
    try:
        os.chdir("/")
    except OSError:
        pass
    try:
        supervisor = Supervisor(options)
    except ConfigError as problem:
        sys.stderr.write(f"waagent: {problem}\n")
        return 1
    return supervisor.run()
