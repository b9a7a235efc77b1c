"""The resident side of the transfer helper: one process kept while there is something to transfer (ruling 30a)."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "transfer.py")
GRACE = 10.0
"""Seconds over its deadline after which a transfer's helper is killed."""
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")


class HelperFailed(Exception):
    """The helper could not be started, or ended without an answer, twice."""


class Stopped(Exception):
    """The job was given up: the agent is being stopped, or nobody wants it any more."""


class _Waiter:
    __slots__ = ("answer", "done")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.answer: dict[str, Any] | None = None


class _Process:
    """One running helper. Its answers are read by a thread that ends with it."""

    def __init__(self, argv: list[str], hello: bytes) -> None:
        self._waiters: dict[int, _Waiter] = {}
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self.ended = False
        self.pid = 0
        child_in, self._sink = os.pipe()
        source, child_out = os.pipe()
        try:
            actions = [
                (os.POSIX_SPAWN_DUP2, child_in, 0),
                (os.POSIX_SPAWN_DUP2, child_out, 1),
                # A traceback could show a URL.
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ]
            environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
            self.pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions, setpgroup=0, setsigmask=())
        except BaseException:
            os.close(self._sink)
            os.close(source)
            raise
        finally:
            os.close(child_in)
            os.close(child_out)
        os.set_blocking(self._sink, False)
        threading.Thread(target=self._read, args=(source,), name="transfers", daemon=True).start()
        self._write(hello, 10.0)

    def submit(self, number: int, line: bytes, seconds: float) -> _Waiter | None:
        """Hand over a job; ``None`` when the helper has ended meanwhile."""
        waiter = _Waiter()
        with self._lock:
            if self.ended:
                return None
            self._waiters[number] = waiter
        if not self._write(line, seconds):
            self.kill()
        return waiter

    def _write(self, data: bytes, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        poll = select.poll()
        with self._writing:
            if self._sink < 0:
                return False
            poll.register(self._sink, select.POLLOUT)
            while data:
                left = deadline - time.monotonic()
                if left <= 0 or not poll.poll(left * 1000):
                    return False
                try:
                    data = data[os.write(self._sink, data) :]
                except BlockingIOError:
                    continue
                except OSError:
                    return False
        return True

    def kill(self) -> None:
        """End the helper now; jobs under way get no answer from it."""
        with self._lock:
            if not self.ended:
                os.kill(self.pid, signal.SIGKILL)

    def _read(self, source: int) -> None:
        buffer = b""
        pieces: list[bytes] = []
        while True:
            data = os.read(source, 1 << 16)
            if not data:
                break
            if b"\n" not in data:
                pieces.append(data)
                continue
            buffer = b"".join([*pieces, data])
            pieces = []
            *lines, rest = buffer.split(b"\n")
            if rest:
                pieces.append(rest)
            for line in lines:
                self._answer(line)
        os.close(source)
        with self._lock:
            # Reaped under the lock, so that nobody signals a number that belongs to another process by then.
            self.ended = True
            try:
                os.waitpid(self.pid, 0)
            except ChildProcessError:
                pass
            waiters, self._waiters = self._waiters, {}
        with self._writing:
            os.close(self._sink)
            self._sink = -1
        for waiter in waiters.values():
            waiter.done.set()

    def _answer(self, line: bytes) -> None:
        try:
            answer = json.loads(line)
            number = answer["id"]
        except (ValueError, KeyError, TypeError):
            return
        with self._lock:
            waiter = self._waiters.pop(number, None)
        if waiter is not None:
            waiter.answer = answer
            waiter.done.set()


class TransferHelper:
    """Runs jobs in the helper: starts it when there is a job, starts it again when it dies.

    It leaves by itself when nothing comes for :attr:`idle` seconds, and with this process.

    Args:
        user_agent: what servers are told.
        idle: seconds.
        argv: the helper's command, for tests.
    """

    def __init__(self, user_agent: str, idle: float = 5.0, argv: Sequence[str] | None = None) -> None:
        self.idle = idle
        self.started = 0
        self._user_agent = user_agent
        self._argv = list(argv) if argv else [sys.executable, "-I", "-S", SCRIPT]
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self._number = 0

    @property
    def pid(self) -> int | None:
        """Of the running helper, ``None`` when there is none."""
        process = self._process
        return process.pid if process is not None and not process.ended else None

    def call(self, function: str, arguments: dict[str, Any], deadline: float, is_stopping: Callable[[], bool]) -> Any:
        """Call ``module:function`` in the helper with keyword *arguments*, and return its result; both are JSON.

        Raises:
            HelperFailed: it raised something, did not come back within *deadline* seconds, or no helper could do it.
            Stopped: *is_stopping* said so.
        """
        answer = self.run({"call": function, "arguments": arguments, "deadline": deadline}, is_stopping)
        if "failed" in answer:
            raise HelperFailed(answer["failed"])
        return answer["result"]

    def run(self, job: dict[str, Any], is_stopping: Callable[[], bool]) -> dict[str, Any]:
        """Run one job (:mod:`waagent.platform.transfer`) and return its answer; several threads may.

        Args:
            job: without its ``id``.
            is_stopping: asked every second; true gives the job up. The helper ends with it, so that nothing is written
                any more to a file that nobody waits for; other jobs go to the next one.

        Raises:
            HelperFailed: no helper could do it.
            Stopped: *is_stopping* said so.
        """
        allowed = float(job["deadline"]) + GRACE
        for _ in range(2):
            number, process = self._running()
            waiter = process.submit(number, json.dumps({**job, "id": number}).encode("ascii") + b"\n", allowed)
            if waiter is None:
                continue
            overdue = time.monotonic() + allowed
            while not waiter.done.wait(1.0):
                if is_stopping():
                    process.kill()
                    waiter.done.wait(GRACE)
                    raise Stopped("it was given up")
                if time.monotonic() > overdue:
                    process.kill()
                    waiter.done.wait(GRACE)
                    raise HelperFailed("the transfer helper did not keep its deadline and was ended")
            if waiter.answer is not None:
                return waiter.answer
        raise HelperFailed("the transfer helper ended without an answer")

    def _running(self) -> tuple[int, _Process]:
        with self._lock:
            self._number += 1
            if self._process is None or self._process.ended:
                hello = {"path": sys.path, "user_agent": self._user_agent, "idle": self.idle}
                try:
                    self._process = _Process(self._argv, json.dumps(hello).encode("ascii") + b"\n")
                except OSError as problem:
                    raise HelperFailed(f"the transfer helper cannot be started: {problem.strerror}") from None
                self.started += 1
            return self._number, self._process
