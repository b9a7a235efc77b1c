"""What the acceptance tests share: fake installed plugins, looking at processes, gaps between moments."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from waagent_fabric import Fabric
from waagent_fabric.agentprocess import RunningAgent
from waagent_fabric.seen import find_handler

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str, seconds: float = 30.0) -> T:
    """Wait until *condition* returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def install_plugin(place: Path, name: str, module: str) -> None:
    """Put an installed distribution with one plugin, whose module is *module*, into *place*."""
    package = f"acme_{name}"
    for folder in (place, place / package, place / f"{package}-1.0.dist-info"):
        folder.mkdir(mode=0o755, exist_ok=True)
    files = {
        f"{package}/__init__.py": module,
        f"{package}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: acme-{name}\nVersion: 1.0\n",
        f"{package}-1.0.dist-info/entry_points.txt": f"[waagent.plugins]\n{name} = {package}:plugin\n",
    }
    for path, text in files.items():
        (place / path).write_text(text)
        (place / path).chmod(0o644)


def install_bad_plugins(place: Path) -> None:
    """Install three plugins that break at import, each in its own way."""
    install_plugin(place, "raises", "raise RuntimeError('broken on purpose')\n")
    install_plugin(place, "hangs", "import time\nwhile True:\n    time.sleep(3600)\n")
    install_plugin(place, "exits", "import sys\nsys.exit(3)\n")


def gaps(moments: Iterable[float]) -> list[float]:
    """Return the seconds between each moment and the next."""
    ordered = sorted(moments)
    return [later - earlier for earlier, later in zip(ordered, ordered[1:])]


def resident_kib(pid: int) -> int:
    """Return the resident memory of a process in KiB; 0 when it is gone."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


def peak_kib(pid: int) -> int:
    """Return the most memory that a process ever had resident, in KiB; 0 when it is gone."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def files_below(*places: Path) -> Iterator[Path]:
    """Yield every regular file below *places*."""
    for place in places:
        for folder, _, names in os.walk(place):
            for name in names:
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink():
                    yield path


def seen_at(fabric: Fabric, incarnation: int) -> float | None:
    """Return when the agent first asked for the extensions of that goal state, in seconds since the epoch."""
    for record in fabric.requests:
        words = record.path.partition("?")[2].split("&")
        if record.server == "wireserver" and {"type=extensionsConfig", f"incarnation={incarnation}"} <= set(words):
            return record.time
    return None


def agent_message(document: dict[str, Any]) -> str:
    """Return what a status document says of the agent itself."""
    message: str = document["aggregateStatus"]["guestAgentStatus"]["formattedMessage"]["message"]
    return message


def word_of(document: dict[str, Any] | None, handler: str) -> str | None:
    """Return the status word that a document reports of the handler's extension."""
    settings = (find_handler(document, handler) or {}).get("runtimeSettingsStatus") or {}
    word: str | None = settings.get("settingsStatus", {}).get("status", {}).get("status")
    return word


def live_worker(agent: RunningAgent, seconds: float = 20.0) -> int:
    """Return the worker's pid, as soon as there is one."""
    return wait_for(lambda: agent.worker, "a worker", seconds)


def upload_moments(fabric: Fabric) -> list[float]:
    """Return when each status document came."""
    return [record.time for record in fabric.statuses]


def evenly(items: Sequence[T], count: int) -> list[T]:
    """Return at most *count* of *items*, spread evenly, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(index * (len(items) - 1) / (count - 1))] for index in range(count)]
