"""The key-value pool that the host reads from the machine, also without a network (provisioning §11).

The file is the Hyper-V daemon's: records of 2560 bytes, a key of 512 and a value of 2048, both padded with NUL.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from waagent.paths import Paths

POOL = "/var/lib/hyperv/.kvp_pool_1"
REPORT_KEY = "PROVISIONING_REPORT"

_KEY, _VALUE = 512, 2048
_RECORD = _KEY + _VALUE
_MOST_VALUE = 1022
"""Bytes of a value that the host shows whole."""
_MOST_RECORDS = 4096
_LOCK_TRIES, _LOCK_PAUSE = 50, 0.1


def report_to_pool(paths: Paths, result: str, fields: Mapping[str, str]) -> bool:
    """Leave a provisioning report in the pool; return whether there is one.

    Args:
        paths: the agent's places.
        result: ``success`` or ``error``.
        fields: what is told, in order; a ``reason`` is cut when all of it would be too long.

    Raises:
        OSError: the pool cannot be written.
    """
    return write_record(paths.at(POOL), REPORT_KEY, provisioning_report(result, fields))


def provisioning_report(result: str, fields: Mapping[str, str]) -> str:
    """Return the value of a provisioning report: ``result=…|key=value|…``; see :func:`report_to_pool`."""
    while True:
        stream = io.StringIO()
        writer = csv.writer(stream, delimiter="|", quotechar="'", lineterminator="")
        writer.writerow([f"result={result}", *(f"{key}={_line(value)}" for key, value in fields.items())])
        text = stream.getvalue()
        excess = len(text.encode("utf-8")) - _MOST_VALUE
        reason = fields.get("reason", "")
        if excess <= 0 or not reason:
            return text.encode("utf-8")[:_MOST_VALUE].decode("utf-8", "ignore")
        fields = {**fields, "reason": reason[: max(0, len(reason) - max(excess // 8, 8) - 3)].rstrip(".") + "..."}
        if len(fields["reason"]) >= len(reason):
            fields = {**fields, "reason": ""}


def write_record(path: str, key: str, value: str) -> bool:
    """Put a record into the pool at *path*, over an earlier one with this key; return whether there is a pool.

    Raises:
        OSError: the pool cannot be written.
        ValueError: the key or the value does not fit.
    """
    wanted, content = key.encode("utf-8"), value.encode("utf-8")
    if not 0 < len(wanted) <= _KEY or len(content) > _VALUE or b"\0" in wanted + content:
        raise ValueError(f"{key!r} with {len(content)} bytes does not fit into a record")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        _lock(descriptor)
        place = 0
        for number in range(_MOST_RECORDS):
            place = number * _RECORD
            found = os.pread(descriptor, _KEY, place)
            if len(found) < _KEY or found.rstrip(b"\0") == wanted:
                break
        os.pwrite(descriptor, wanted.ljust(_KEY, b"\0") + content.ljust(_VALUE, b"\0"), place)
    finally:
        os.close(descriptor)  # which lets the lock go
    return True


def _lock(descriptor: int) -> None:
    """Take the lock; whoever keeps it for seconds is not waited for."""
    for _ in range(_LOCK_TRIES - 1):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
