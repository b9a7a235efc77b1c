"""The owner's custom data: kept, decoded, run (provisioning §9)."""

from __future__ import annotations

import base64
import binascii
import os
import threading
import time
from typing import TYPE_CHECKING

from waagent import write_atomic

if TYPE_CHECKING:
    from waagent import Agent

NAME = "CustomData"
PATIENCE = 30 * 60.0
"""Seconds that provisioning waits for the script; then it goes on, and so does the script."""
DISK_PATIENCE = 120.0
"""Seconds that a script waits for the resource disk (ruling 14)."""
OUTPUT_LIMIT = 64 << 10

_LIFE = 20 * 86400.0
"""Seconds after which a script would be ended: the most that can be waited for, a month being none of our business."""
_LOOK = 0.5
_PROGRAMS = (b"#!", b"\x7fELF")


def decode(text: str) -> bytes | None:
    """Return what *text* holds as base64, ``None`` when it is none."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def save(agent: Agent, text: str) -> None:
    """Keep the custom data in the state directory, decoded where the configuration asks for that.

    Raises:
        OSError: it cannot be written.
    """
    execute = agent.config.boolean("Provisioning.ExecuteCustomData")
    content: bytes = text.encode("utf-8")
    mode = 0o600
    if execute or agent.config.boolean("Provisioning.DecodeCustomData"):
        decoded = decode(text)
        if decoded is None:
            agent.log.warning("The custom data is no base64: it is kept as it is")
        else:
            content = decoded
            mode = 0o700 if execute else 0o600
    write_atomic(agent.paths.lib(NAME), content, mode)


def run(agent: Agent, patience: float = PATIENCE) -> None:
    """Run the custom data; whatever becomes of it, provisioning goes on.

    It runs in a session of its own, with its output in a file, so that neither the end of this process nor that of the
    service disturbs it.
    """
    path = agent.paths.lib(NAME)
    try:
        with open(path, "rb") as stream:
            runnable = stream.read(4).startswith(_PROGRAMS)
    except OSError as problem:
        _tell(agent, False, f"The custom data cannot be read: {problem}", 0.0)
        return
    if not runnable or not os.access(path, os.X_OK):
        _tell(agent, False, "The custom data is not run: it is neither a script with #! nor a program", 0.0)
        return
    if not agent.wait_for_phase("disk", DISK_PATIENCE):
        agent.log.warning(f"The resource disk is not ready after {DISK_PATIENCE:g} s: the custom data runs without it")
    output = agent.paths.run("custom-data.out")
    script = _Script(agent, path, output)
    script.start()
    begun = time.monotonic()
    while script.is_alive() and time.monotonic() - begun < patience and not agent.stopping.is_set():
        script.join(min(_LOOK, patience))
    if script.is_alive():
        agent.log.warning(
            f"The custom data still runs after {time.monotonic() - begun:.1f} s; it is not waited for any longer"
        )
        return
    _show(agent, output)
    _tell(agent, script.exit_code == 0, f"The custom data ended with exit code {script.exit_code}", script.seconds)


class _Script(threading.Thread):
    """Waits for the script; a daemon thread, so that the process may end before it."""

    def __init__(self, agent: Agent, path: str, output: str) -> None:
        super().__init__(name="CustomData", daemon=True)
        self._agent = agent
        # "$0" is the program: exec runs it in the place of the shell, and nothing of it is on a command line.
        self._argv = ("/bin/sh", "-c", 'umask 077; exec "$0" >"$1" 2>&1', path, output)
        self.exit_code: int | None = None
        self.seconds = 0.0

    def run(self) -> None:
        done = self._agent.run(self._argv, timeout=_LIFE, cwd=self._agent.paths.lib_dir)
        self.exit_code, self.seconds = done.returncode, done.seconds


def _show(agent: Agent, output: str) -> None:
    try:
        size = os.stat(output).st_size
        with open(output, "rb") as stream:
            text = stream.read(OUTPUT_LIMIT).decode("utf-8", "replace")
        os.unlink(output)
    except OSError:
        return
    if text.strip():
        cut = f"\n[... {size - OUTPUT_LIMIT} bytes left out ...]" if size > OUTPUT_LIMIT else ""
        agent.log.info(f"Output of the custom data:\n{text.rstrip()}{cut}")


def _tell(agent: Agent, success: bool, message: str, seconds: float) -> None:
    (agent.log.info if success else agent.log.error)(message)
    agent.events.add("CustomData", success=success, message=message, duration_ms=int(seconds * 1000), logged=True)
