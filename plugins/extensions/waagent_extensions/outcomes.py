"""What a command's end means: error codes, the texts that the portal shows, hints for people (extensions §12.1)."""

from __future__ import annotations

import os

import attrs

from waagent_extensions import codes, output
from waagent_extensions.commands import Order, Result

TIMEOUTS = {"install": 900.0, "update": 900.0, "enable": 300.0, "disable": 900.0, "uninstall": 300.0}
"""Seconds per command (ruling 31)."""
CODES = {
    "install": codes.INSTALL_FAILED,
    "update": codes.UPDATE_FAILED,
    "enable": codes.ENABLE_FAILED,
    "disable": codes.DISABLE_FAILED,
    "uninstall": codes.UNINSTALL_FAILED,
}
EVENTS = {"install": "Install", "update": "Update", "enable": "Enable", "disable": "Disable", "uninstall": "UnInstall"}
"""The word that events carry; the last one is spelt like this since ever (extensions §20)."""
PREFIX = "[ExtensionOperationError] "
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_MISSING_DEPENDENCY = (_NOT_FOUND, 51, 52)
_INTERPRETERS = ("python", "python3")


@attrs.frozen(eq=False, repr=False)
class Verdict:
    """What the end of a command means.

    Attributes:
        error: the code for the status blob, 0 on success.
        exit_code: what later commands of an update are told.
        text: for the status blob and the log.
        no_exec: the mount point that forbids executing, when that was the cause.
    """

    ok: bool
    error: int
    exit_code: str
    text: str
    no_exec: str | None = None


def judge(order: Order, result: Result, lib_dir: str, path_variable: str) -> Verdict:
    """Return what *result* means.

    Args:
        order: the command.
        result: how it ended.
        lib_dir: where packages lie, for the hint about its mount.
        path_variable: the command's ``PATH``, for the hint about interpreters.
    """
    said = output.layout(result.out, result.err)
    failure = CODES[order.operation]
    if result.problem:
        text = f"{PREFIX}Failed to launch '{order.line}': {result.problem}"
        return Verdict(False, failure, str(failure), text)
    if result.timed_out:
        quota = "" if result.throttled is None else f";CPUThrottledTime({result.throttled:.0f}secs)"
        text = f"{PREFIX}Timeout({order.timeout:.0f}){quota}: {order.line}\n{said}"
        return Verdict(False, codes.TIMED_OUT, str(codes.TIMED_OUT), text)
    if result.lost or result.code is None:
        text = f"{PREFIX}Interrupted, its exit code is unknown: {order.line}\n{said}"
        return Verdict(False, failure, str(failure), text)
    if result.code == 0:
        return Verdict(True, 0, "0", said)
    text = f"{PREFIX}Non-zero exit code: {result.code}, {order.line}\n{said}"
    no_exec = None
    if result.code == _NOT_EXECUTABLE:
        no_exec = no_exec_mount(lib_dir)
        if no_exec:
            text += (
                f"\nWARNING: {no_exec} is mounted with the noexec flag, which can prevent execution of VM Extensions."
            )
    elif result.code in _MISSING_DEPENDENCY:
        missing = missing_interpreters(path_variable)
        if missing:
            text += f"\nHINT: no {' or '.join(missing)} command was found in PATH ({path_variable})."
    return Verdict(False, failure, str(result.code), text, no_exec)


def no_exec_mount(path: str, mounts: str = "/proc/mounts") -> str | None:
    """Return the mount point that holds *path* when it forbids executing, else ``None``."""
    path = os.path.realpath(path)  # a link to another file system is what people do about noexec
    best, forbids = "", False
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as stream:
            for line in stream:
                fields = line.split()
                if len(fields) < 4:
                    continue
                point = fields[1].replace("\\040", " ")
                inside = point == "/" or path == point or path.startswith(point + "/")
                # The longest mount point counts; of equal ones the last, which covers the others.
                if inside and len(point) >= len(best):
                    best, forbids = point, "noexec" in fields[3].split(",")
    except OSError:
        return None
    return best if forbids else None


def missing_interpreters(path_variable: str) -> list[str]:
    """Return the names of Python interpreters when none of them is in *path_variable*."""
    directories = [directory for directory in path_variable.split(":") if directory]
    for name in _INTERPRETERS:
        if any(os.access(os.path.join(directory, name), os.X_OK) for directory in directories):
            return []
    return list(_INTERPRETERS)
