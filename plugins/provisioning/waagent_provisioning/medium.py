"""The provisioning document: from the medium, else from an earlier copy, else from the metadata (provisioning §4)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from waagent import (
    AgentError,
    OvfError,
    ProvisioningDocument,
    StateError,
    build_provisioning_document,
    document_from_metadata,
    ensure_dir,
    parse_provisioning_document,
    read_limited,
    redact_provisioning_document,
    write_atomic,
)
from waagent_provisioning.errors import ProvisioningError

if TYPE_CHECKING:
    from waagent import Agent

NAME = "ovf-env.xml"
SCANS = 5
PAUSE = 5.0
"""Seconds between two scans: the kernel may still be finding a drive, and a drive its medium."""
LOOK = 1.0
"""Seconds between two looks in a pause: a drive that is new ends it."""

_MOST_DEVICES = 32
_LIMIT = 1 << 20
_UNREAD = "Error reading file"


@attrs.frozen
class Found:
    """A document and where it came from: *device* is empty when that was no medium."""

    document: ProvisioningDocument
    device: str


def obtain(agent: Agent) -> Found:
    """Read the document and leave a copy without the password in the state directory.

    Raises:
        ProvisioningError: it is nowhere to be had; says what was tried.
        OvfError: it was found, and cannot be used.
    """
    copy = agent.paths.lib(NAME)
    problems: list[str] = []
    medium = _from_drives(agent, problems)
    if medium is not None:
        device, data = medium
        document = parse_provisioning_document(data)
        _write_copy(agent, copy, data)
        return Found(document, device)
    document_of_copy = _from_copy(agent, copy)
    if document_of_copy is not None:
        return Found(document_of_copy, "")
    compute = agent.connect().imds_compute()
    told = document_from_metadata(compute) if compute is not None else None
    if told is None:
        told_by_drive = next((one for one in problems if one.startswith(_UNREAD)), "")
        raise ProvisioningError(f"[CopyOvfEnv] {told_by_drive or 'Error mounting dvd: ' + '; '.join(problems)}")
    agent.log.warning(f"{'; '.join(problems)}: the instance metadata is used instead")
    _write(copy, build_provisioning_document(told))
    return Found(told, "")


def _from_drives(agent: Agent, problems: list[str]) -> tuple[str, bytes] | None:
    """Return the drive and its document, ``None`` when no drive has one; *problems* says of each why."""
    for scan in range(SCANS):
        looked_at: list[str] = []
        problems.clear()
        while len(looked_at) < _MOST_DEVICES:
            device = agent.distro.find_provisioning_media(tuple(looked_at))
            if not device or device in looked_at:
                break
            looked_at.append(device)
            data = _read(agent, device, problems)
            if data is not None:
                return device, data
        if not looked_at:
            problems.append("there is no drive with a provisioning medium")
        if scan < SCANS - 1:
            agent.log.info(f"There is no {NAME} yet ({scan + 1} of {SCANS}): {'; '.join(problems)}")
            if _pause(agent, tuple(looked_at)):
                break
    return None


def _pause(agent: Agent, seen: tuple[str, ...]) -> bool:
    """Wait for the next scan, at most until there is a drive that is not in *seen*; return whether to stop."""
    for _ in range(int(PAUSE / LOOK)):
        if agent.stopping.wait(LOOK):
            return True
        if agent.distro.find_provisioning_media(seen):
            break
    return False


def _read(agent: Agent, device: str, problems: list[str]) -> bytes | None:
    mount_point = agent.paths.at(agent.config.text("DVD.MountPoint") or "/mnt/cdrom/secure")
    ensure_dir(mount_point, 0o700)
    try:
        agent.distro.mount_provisioning_media(device, mount_point)
    except AgentError as problem:
        problems.append(str(problem))
        return None
    path = os.path.join(mount_point, NAME)
    try:
        return read_limited(path, _LIMIT)
    except FileNotFoundError:
        problems.append(f"{device} holds no {NAME}")
    except OSError as problem:
        problems.append(f"{_UNREAD} {path}: {problem}")
    except StateError as problem:
        raise ProvisioningError(f"[CopyOvfEnv] {_UNREAD} {path}: {problem}") from None  # too large, also later
    finally:
        try:
            agent.distro.unmount_provisioning_media(mount_point)
        except AgentError as problem:
            agent.log.warning(f"{mount_point} cannot be unmounted: {problem}")
    return None


def _write_copy(agent: Agent, path: str, data: bytes) -> None:
    try:
        redacted = redact_provisioning_document(data)
    except OvfError as problem:  # pragma: no cover - whatever was parsed can be redacted
        agent.log.warning(f"No copy of {NAME} is kept: {problem}")
        return
    _write(path, redacted)


def _write(path: str, data: bytes) -> None:
    try:
        write_atomic(path, data, 0o600)
    except OSError as problem:
        raise ProvisioningError(f"[CopyOvfEnv] Error writing file {path}: {problem}") from None


def _from_copy(agent: Agent, path: str) -> ProvisioningDocument | None:
    try:
        data = read_limited(path, _LIMIT)
    except FileNotFoundError:
        return None
    except (OSError, StateError) as problem:
        agent.log.warning(f"{path} cannot be read: {problem}")
        return None
    agent.log.info(f"There is no provisioning medium: {path}, the copy of an earlier attempt, is used")
    return parse_provisioning_document(data)
