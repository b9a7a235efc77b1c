"""What the kernel says of a group of processes: memory, CPU, and every process that is started."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

LIBC = ctypes.CDLL(None)
TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Memory:
    """Megabytes, summed over the processes of an agent."""

    rss: float = 0.0
    pss: float = 0.0
    processes: list[tuple[int, float, float, str]] = field(default_factory=list)


def tree(root: int) -> list[int]:
    """Return *root* and everything below it."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as stream:
                    parent = int(stream.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError):
                continue
            parents.setdefault(parent, []).append(int(entry))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting.extend(parents.get(pid, []))
    return found


def memory(root: int) -> Memory:
    """Return the resident and the proportional set of *root* and everything below it."""
    total = Memory()
    for pid in tree(root):
        try:
            with open(f"/proc/{pid}/smaps_rollup") as stream:
                fields = dict(line.split(":", 1) for line in stream if ":" in line)
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                words = stream.read().replace(b"\0", b" ").decode(errors="replace").strip()
        except (OSError, ValueError):
            continue
        if "Rss" not in fields:
            continue
        rss, pss = (int(fields[name].split()[0]) / 1024 for name in ("Rss", "Pss"))
        total.rss += rss
        total.pss += pss
        total.processes.append((pid, rss, pss, words[-60:]))
    return total


def cpu(root: int) -> float:
    """Return the CPU seconds spent by *root* and everything below it, ended children included.

    Of living processes to the nanosecond: an idle agent spends less in minutes than the ticks of ``/proc`` can show.
    """
    spent = 0.0
    for pid in tree(root):
        clock = ctypes.c_int()
        try:
            with open(f"/proc/{pid}/stat", "rb") as stream:
                fields = stream.read().rpartition(b")")[2].split()
            if LIBC.clock_getcpuclockid(pid, ctypes.byref(clock)) == 0:
                spent += time.clock_gettime(clock.value)
        except OSError:
            continue
        spent += (int(fields[13]) + int(fields[14])) / TICK
    return spent


class ProcessEvents:
    """Count the processes that a group starts, from the kernel's process events (threads do not count).

    Needs root in the initial network namespace: make it before entering another one.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 11)
        self._socket.bind((0, 1))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        message = struct.pack("=IHHII", 40, 3, 0, 0, 0) + struct.pack("=IIIIHHI", 1, 1, 0, 0, 4, 0, 1)
        self._socket.send(message)
        self._family: set[int] = set()
        self._started: list[int] = []
        self._lock = threading.Lock()

    def listen(self) -> None:
        """Begin to read: apart from the constructor because a thread forbids entering a mount namespace."""
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                data = self._socket.recv(8192)
            except OSError as problem:
                if problem.errno == 105:  # the kernel dropped events: the count would be too low
                    with self._lock:
                        self._started.append(-1)
                    continue
                return
            (what,) = struct.unpack_from("=I", data, 36)
            if what != 1:
                continue
            _, parent, child, group = struct.unpack_from("=IIII", data, 52)
            if child != group:
                continue
            with self._lock:
                if parent in self._family:
                    self._family.add(child)
                    self._started.append(child)

    def watch(self, pids: list[int]) -> None:
        """Count from now on what *pids* and their descendants start."""
        with self._lock:
            self._family = set(pids)
            self._started = []

    def started(self) -> int:
        """Return how many processes were started since :meth:`watch`."""
        with self._lock:
            return len(self._started)
