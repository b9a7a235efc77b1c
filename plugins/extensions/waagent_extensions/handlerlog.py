"""The log of one handler's work: the agent's log, and ``CommandExecution.log`` beside it (extensions §3, §20)."""

from __future__ import annotations

import contextlib
import os

from waagent import Log, ensure_dir, timestamp
from waagent_extensions.layout import HandlerDir

LIMIT = 10 * 1024 * 1024
"""Bytes kept of ``CommandExecution.log``."""
_LEVELS = ("VERBOSE", "INFO", "WARNING", "ERROR")
INFO, ERROR = 1, 3


def handler_log(log: Log, handler: HandlerDir, extension: str | None = None) -> Log:
    """Return a log whose lines carry ``[<full name>-<version>]`` and also go to the handler's own file."""
    full_name = f"{handler.name}.{extension}" if extension else handler.name
    prefix = f"[{full_name}-{handler.version}]"
    bound = log.bind(prefix)
    path = handler.command_log(extension)
    with contextlib.suppress(OSError):
        ensure_dir(handler.log_dir, 0o755)
    cut(path)

    def also(level: int, text: str) -> None:
        if level < INFO:
            return
        line = f"{timestamp()} {_LEVELS[level]} {prefix} {text}\n".encode("ascii", "backslashreplace")
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                if not os.fstat(descriptor).st_size:
                    os.fchmod(descriptor, 0o644)  # the agent's umask is narrower
                os.write(descriptor, line)
            finally:
                os.close(descriptor)

    bound.also = also
    return bound


def tell_event(log: Log, level: int, text: str) -> None:
    """Write a line that begins with ``Event:``; unlike a handler's other lines it has no prefix (extensions §20)."""
    plain = log.bind("", "")
    plain.also = log.also
    plain.log(level, f"Event: {text}")


def cut(path: str) -> None:
    """Keep only the last 10 MiB of a command log, from the beginning of a line; a log that resists is deleted."""
    temporary = path + ".tmp"
    try:
        if os.stat(path).st_size <= LIMIT:
            return
        with open(path, "rb") as stream:
            stream.seek(-LIMIT, os.SEEK_END)
            stream.readline()
            kept = stream.read()
        with open(temporary, "wb") as stream:
            os.fchmod(stream.fileno(), 0o644)
            stream.write(kept)
        os.rename(temporary, path)
    except FileNotFoundError:
        return
    except OSError:
        for victim in (temporary, path):
            with contextlib.suppress(OSError):
                os.unlink(victim)
