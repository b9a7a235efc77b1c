"""Where our own processes begin: ``python -I -S start.py --path=DIR:DIR… -WORD [options]`` (measured §2).

Run as a script by an interpreter that did no site pass, so nothing of the agent can be imported before
``sys.path`` is right. :mod:`waagent.service.launch` writes the command line.
"""

from __future__ import annotations

import os
import signal
import sys


class Options:
    """What a role is told on its command line.

    Attributes:
        root: the root under which every path lies.
        conf: the configuration file that replaces the chain, or ``None``.
        verbose: also log VERBOSE lines.
        beat_fd: write end of the heartbeat pipe to the supervisor, ``None`` when started by hand.
        boot_fd: boot stage: write end that reports the end of boot; worker: read end that shows it.
        stale_list: the plugin list that was there before the boot stage began (:mod:`waagent.service.beats`).
    """

    __slots__ = ("beat_fd", "boot_fd", "conf", "root", "stale_list", "verbose")

    def __init__(self) -> None:
        self.root = "/"
        self.conf: str | None = None
        self.verbose = False
        self.beat_fd: int | None = None
        self.boot_fd: int | None = None
        self.stale_list = ""


def parse(argv: list[str]) -> tuple[list[str], str, Options]:
    """Return the search path, the role word and the options of *argv* (without the script's name).

    Raises:
        ValueError: something is missing or unknown.
    """
    path: list[str] = []
    word = ""
    options = Options()
    for argument in argv:
        name, _, value = argument.partition("=")
        if name == "--path":
            path = [entry for entry in value.split(os.pathsep) if os.path.isabs(entry)]
        elif name == "--root" and os.path.isabs(value):
            options.root = value
        elif name == "--conf" and value:
            options.conf = value
        elif argument == "--verbose":
            options.verbose = True
        elif name == "--beat-fd":
            options.beat_fd = int(value)
        elif name == "--boot-fd":
            options.boot_fd = int(value)
        elif name == "--stale-list":
            options.stale_list = value
        elif argument.startswith("-") and not argument.startswith("--") and not word:
            word = argument[1:]
        else:
            raise ValueError(f"unknown argument {argument!r}")
    if not path or not word:
        raise ValueError("needs --path=… and one role word")
    return path, word, options


def run(word: str, options: Options) -> int:
    """Run the role *word* and return the process's exit code."""
    if word == "daemon":
        from waagent.service import supervisor

        return supervisor.main(options)
    if word == "run-exthandlers":
        from waagent.service import worker

        return worker.main(options)
    if word == "run-boot":
        from waagent.service import boot

        return boot.main(options)
    if word == "make-transport-key":
        from waagent.service import keyhelper

        return keyhelper.main(options)
    sys.stderr.write(f"waagent: unknown role {word!r}\n")
    return 2


def _standard_descriptors() -> None:
    # A process started without 0, 1 or 2 would get a lock or a pipe there, and a stray print would go into it.
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor < 2:
        descriptor = os.dup(descriptor)
    if descriptor > 2:
        os.close(descriptor)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - for good


def main(argv: list[str]) -> int:
    """Set the process up and run its role; returns the exit code."""
    # Until the role listens itself, SIGTERM is a wish to be down: nothing has been begun that would have to be ended.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    _standard_descriptors()
    os.umask(0o077)
    try:
        path, word, options = parse(argv)
    except ValueError as problem:
        sys.stderr.write(f"waagent: {problem}\n")
        return 2
    sys.path[:] = path
    for descriptor in (options.beat_fd, options.boot_fd):
        if descriptor is not None:
            os.set_inheritable(descriptor, False)
    return run(word, options)


if __name__ == "__main__":
    code = 1
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    except Exception:
        sys.excepthook(*sys.exc_info())
    finally:
        # No interpreter shutdown: an abandoned plugin thread must not keep the process from ending.
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                pass
        os._exit(code)
