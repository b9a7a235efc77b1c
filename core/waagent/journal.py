"""The journal of plans: append-only JSON lines, one file per process role (rulings 14, 19e; measured.md §6).

What it is asked: whether a step that must never run twice was begun or done, and how often a step failed since the
machine started. Everything else the facts decide. Its ``end`` lines keep what each step of the latest run took.

A record is one line: ``e`` (``started``, ``done``, ``failed``, ``end``), ``t`` (seconds since the epoch), ``b`` (boot
id), ``p`` (plan), ``s`` (step), and where they apply ``once``, ``sec`` (seconds), ``why``, ``error``. Lines that do
not parse are passed over: a kill or a power cut tears at most the last one.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import threading
import time

import attrs

from waagent.files import ensure_dir, move_aside, sync_directory, write_atomic

TYPE_CHECKING = False  # the resident worker does without the typing module
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    Record = dict[str, Any]

STARTED, DONE, FAILED, END = "started", "done", "failed", "end"
NO_EFFECT = "no effect"
_COMPACT_FROM = 128 << 10
_ENDS_KEPT = 256
_SIZE_LIMIT = 64 << 20
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO in the journal's place must hold nobody
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def boot_id() -> str:
    """Return what tells this start of the machine from every other one."""
    try:
        with open(_BOOT_ID, encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        # Where the kernel gives no id: the minute in which it started. A corrected clock makes it another one, which
        # grants a failed step two more tries.
        return f"minute-{round((time.time() - time.monotonic()) / 60)}"


@attrs.frozen
class Attempt:
    """What the journal knows of a step.

    Attributes:
        last: ``started`` (begun, end unknown), ``done``, ``failed``, or ``None`` when it never ran.
        failures: how often it failed under the present boot id since it last succeeded.
    """

    last: str | None = None
    failures: int = 0


class _Known:
    __slots__ = ("boot", "failures", "failures_before", "last", "once")

    def __init__(self) -> None:
        self.last: str | None = None
        self.once = False
        self.boot = ""
        self.failures = 0
        self.failures_before = 0


class Journal:
    """One journal file; usable from several threads of one process, and by one process at a time (ruling 19c, 19e).

    Args:
        path: the file; made at the first record, with its directory (0700). Reading creates nothing.
        boot: the boot id; default the machine's.
    """

    def __init__(self, path: str, boot: str | None = None) -> None:
        self.path = path
        self.boot = boot_id() if boot is None else boot
        self.passed_over = 0
        """How many lines could not be read."""
        self._lock = threading.RLock()
        self._descriptor: int | None = None
        self._known: dict[tuple[str, str], _Known] = {}
        self._ends: dict[str, Record] = {}
        self._open: dict[str, int] = {}
        self._torn = False
        self._size = 0
        self._compacted = 0
        self._read = False

    # Asked by the executor

    def attempt(self, plan: str, step: str) -> Attempt:
        """Return what is known of *step* of *plan*."""
        with self._lock:
            self._load()
            known = self._known.get((plan, step))
            if known is None:
                return Attempt()
            return Attempt(known.last, known.failures if known.boot == self.boot else 0)

    def runs(self) -> list[Record]:
        """Return the ``end`` record of the latest run of each plan, oldest first (for ``waagent analyze``)."""
        with self._lock:
            self._load()
            return list(self._ends.values())

    # Told by the executor

    def started(self, plan: str, step: str, once: bool = False) -> None:
        """Record that *step* begins; before one that must not run twice the record is on the disk on return.

        Raises:
            OSError: the record could not be written.
        """
        with self._lock:
            record = self._record(STARTED, plan, step)
            if once:
                record["once"] = True
            if not self._open.get(plan):
                self._open[plan] = 1
            self._write(record)
            if once:
                self._sync()

    def done(self, plan: str, step: str, seconds: float, once: bool = False) -> None:
        """Record that *step* succeeded after *seconds*.

        Raises:
            OSError: the record could not be written.
        """
        record = self._record(DONE, plan, step)
        record["sec"] = round(seconds, 3)
        if once:
            record["once"] = True
        self._write(record)

    def failed(self, plan: str, step: str, seconds: float, why: str, error: str, once: bool = False) -> None:
        """Record that *step* failed.

        Args:
            plan: the plan's name.
            step: the step's name.
            seconds: how long it ran.
            why: ``error``, ``deadline``, ``no effect`` or ``unknown end``.
            error: what a person is told; cut at 1000 characters.
            once: whether it must not run twice.

        Raises:
            OSError: the record could not be written.
        """
        record = self._record(FAILED, plan, step)
        record.update(sec=round(seconds, 3), why=why, error=error[:1000])
        if once:
            record["once"] = True
        self._write(record)

    def ended(self, plan: str, ok: bool, seconds: float, steps: Sequence[tuple[str, str, float]]) -> None:
        """Record the end of a run of *plan*, with (name, outcome, seconds) of each step, and make all of it durable.

        When no other plan is open and the file has grown, it is compacted.

        Raises:
            OSError: the records could not be written.
        """
        with self._lock:
            self._open.pop(plan, None)
            record = self._record(END, plan)
            record.update(ok=ok, sec=round(seconds, 3), steps=[[n, o, round(s, 3)] for n, o, s in steps])
            self._write(record)
            self._sync()
            if self._size > max(_COMPACT_FROM, 2 * self._compacted) and not self._open:
                self.compact()

    def forget(self, plan: str) -> None:
        """Forget every step of *plan*, also those that were never to run twice: its subject is gone for good.

        Raises:
            OSError: the shorter file could not be written.
        """
        with self._lock:
            self._load()
            for key in [key for key in self._known if key[0] == plan]:
                del self._known[key]
            self._ends.pop(plan, None)
            self._open.pop(plan, None)
            if self._size:
                self._rewrite()

    def compact(self) -> None:
        """Write the file anew without what nobody will ask for; nothing happens while a plan is open.

        Raises:
            OSError: the shorter file could not be written; the old one stands.
        """
        with self._lock:
            self._load()
            if not self._open and self._size:
                self._rewrite()

    def close(self) -> None:
        """Close the file; a later record opens it again."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    # Inside

    def _record(self, event: str, plan: str, step: str | None = None) -> Record:
        record: Record = {"e": event, "t": round(time.time(), 3), "b": self.boot, "p": plan}
        if step is not None:
            record["s"] = step
        return record

    def _write(self, record: Record) -> None:
        with self._lock:
            self._load()
            # What happened is known even when it cannot be written; what is only about to begin is not.
            if record["e"] != STARTED:
                self._take(record)
            if self._descriptor is None:
                self._open_file()
            self._append(json.dumps(record, separators=(",", ":")).encode("ascii") + b"\n")
            if record["e"] == STARTED:
                self._take(record)

    def _append(self, line: bytes) -> None:
        assert self._descriptor is not None
        data = b"\n" + line if self._torn else line
        self._torn = True  # until all of it is written
        written = os.write(self._descriptor, data)
        self._size += written
        if written < len(data):
            raise OSError(28, "no room for a record of the journal", self.path)
        self._torn = False

    def _sync(self) -> None:
        if self._descriptor is not None:
            getattr(os, "fdatasync", os.fsync)(self._descriptor)

    def _open_file(self) -> None:
        ensure_dir(os.path.dirname(self.path))
        new = not os.path.lexists(self.path)
        if not new and not stat.S_ISREG(os.lstat(self.path).st_mode):
            move_aside(self.path)  # steps that must not run twice are not begun without a journal
            new = True
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _FLAGS, 0o600)
        if new:
            sync_directory(os.path.dirname(self.path))

    def _load(self) -> None:
        if self._read:
            return
        self._read = True
        try:
            descriptor = os.open(self.path, os.O_RDONLY | _FLAGS)
        except OSError:
            return
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return
            with open(descriptor, "rb", closefd=False) as stream:
                data = stream.read(_SIZE_LIMIT)
        except OSError:
            return
        finally:
            os.close(descriptor)
        self._size = len(data)
        self._torn = bool(data) and not data.endswith(b"\n")
        for record in self._parse(data):
            self._take(record)

    def _parse(self, data: bytes) -> Iterator[Record]:
        for line in data.split(b"\n"):
            text = line.strip(b"\0 \r")  # a power cut may leave zeros where the file had grown
            if not text:
                continue
            record = None
            with contextlib.suppress(ValueError, RecursionError):
                record = json.loads(text)
            if not isinstance(record, dict) or not isinstance(record.get("p"), str):
                self.passed_over += 1
                continue
            yield record

    def _take(self, record: Record) -> None:
        event, plan, step = record.get("e"), record["p"], record.get("s")
        if event == END:
            self._ends.pop(plan, None)
            self._ends[plan] = record
            return
        if not isinstance(step, str) or event not in (STARTED, DONE, FAILED):
            return
        known = self._known.setdefault((plan, step), _Known())
        boot = str(record.get("b", ""))
        if known.boot != boot:
            known.boot, known.failures, known.failures_before = boot, 0, 0
        known.once = bool(record.get("once")) or known.once
        known.last = event
        if event == DONE:
            known.failures_before, known.failures = known.failures, 0
        elif event == FAILED:
            # "No effect" takes a success back, so the failures before that success count on.
            count = record.get("n")
            earlier = known.failures_before if record.get("why") == NO_EFFECT else 0
            known.failures = count if isinstance(count, int) else max(known.failures, earlier) + 1

    def _rewrite(self) -> None:
        lines: list[str] = []
        ends = dict(list(self._ends.items())[-_ENDS_KEPT:])
        lines.extend(json.dumps(end, separators=(",", ":")) for end in ends.values())
        kept: dict[tuple[str, str], _Known] = {}
        for (plan, step), known in self._known.items():
            failures = known.failures if known.boot == self.boot else 0
            if not (known.once or failures):
                continue
            kept[plan, step] = known
            known.failures_before = 0
            record: Record = {"e": known.last, "t": round(time.time(), 3), "b": known.boot, "p": plan, "s": step}
            if known.once:
                record["once"] = True
            if known.last == FAILED:
                record["n"] = failures
            elif failures:  # begun again after a failure
                before = dict(record, e=FAILED, n=failures)
                lines.append(json.dumps(before, separators=(",", ":")))
            lines.append(json.dumps(record, separators=(",", ":")))
        data = "".join(line + "\n" for line in lines)
        self.close()
        write_atomic(self.path, data)
        self._known, self._ends = kept, ends
        self._size = self._compacted = len(data)
        self._torn = False
