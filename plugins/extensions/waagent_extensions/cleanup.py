"""Remove what nobody wants any more, and what earlier agents left (extensions §3, §11.7, §11.9)."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable

from waagent import Handler, Log, StateError, ensure_dir, read_json, read_limited, remove_leftovers
from waagent_extensions import order, package, records, unpacked
from waagent_extensions.layout import HandlerDir, Layout
from waagent_extensions.package import remove_version

_REMOVED = re.compile(r"\..+-\d[\w.]*\.removed\Z")


def remove_orphans(layout: Layout, handlers: Iterable[Handler], log: Log, keep: str | None = None) -> None:
    """Remove the directories and packages of handlers that the goal state does not name; no command is run.

    Only directories that carry what the agent writes are ours; a stranger's ``name-1.2`` stays, and so does what *keep*
    (globs with commas between) names.
    """
    for handler in orphans(layout, handlers, keep):
        log.info(f"Remove orphaned extension handler directory: {handler.base}")
        try:
            remove_version(handler)
        except OSError as problem:
            log.warning(f"Removing {handler.base} failed: {problem}")
    present = {(handler.name, handler.version) for handler in layout.installed()}
    for name, version, path in layout.stray_packages():
        if (name, version) not in present and _is_package(path):
            log.info(f"Remove orphaned extension package: {path}")
            with contextlib.suppress(OSError):
                os.unlink(path)


def orphans(layout: Layout, handlers: Iterable[Handler], keep: str | None = None) -> list[HandlerDir]:
    """Return the directories of ours whose handlers are none of *handlers*, without those that *keep* names."""
    installed = layout.installed()
    gone = set(order.orphans((handler.name for handler in installed), handlers))
    found = [handler for handler in installed if handler.name in gone and _is_ours(handler)]
    globs = [word.strip() for word in (keep or "").split(",") if word.strip()]
    if not globs:
        return found
    from fnmatch import fnmatchcase

    return [
        handler for handler in found if not any(fnmatchcase(os.path.basename(handler.base), glob) for glob in globs)
    ]


def _is_ours(handler: HandlerDir) -> bool:
    """Return whether the agent wrote into a directory: a name that looks like a handler's proves nothing (§11.7 D2)."""
    with contextlib.suppress(OSError, StateError):
        state = read_limited(handler.state_file, 64).decode("ascii", "replace").strip()
        if state in records.STATES:
            return True
    with contextlib.suppress(StateError):
        environment = read_json(handler.environment, 1 << 20)
        first = environment[0] if isinstance(environment, list) and environment else None
        return isinstance(first, dict) and first.get("name") == handler.name and "handlerEnvironment" in first
    return False


def _is_package(path: str) -> bool:
    """Return whether a zip file was a handler's package: named as the agent names them, or with a manifest in it."""
    if "__" in os.path.basename(path) and "." in os.path.basename(path).partition("__")[0]:
        return True
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return any(os.path.basename(name) == "HandlerManifest.json" for name in archive.namelist())
    except Exception:  # whatever it is, it is nothing of ours
        return False


def recover(layout: Layout, log: Log) -> None:
    """Finish what a kill cut short: downloads, expansions, removals; take over what very old agents kept elsewhere."""
    if not os.path.isdir(layout.lib_dir):
        return
    package.recover_all(layout.lib_dir, layout.log_root)
    for entry in os.listdir(layout.lib_dir):
        if _REMOVED.match(entry):
            import shutil

            shutil.rmtree(os.path.join(layout.lib_dir, entry), ignore_errors=True)
    for _, _, path in layout.stray_packages(".zip.partial"):
        if "__" in os.path.basename(path):  # as the agent names them; what is in it may be anything yet
            with contextlib.suppress(OSError):
                os.unlink(path)
    _take_over_old_state(layout, log)
    remove_leftovers(layout.lib_dir)
    for handler in layout.installed():
        for directory in (handler.base, handler.config_dir, handler.status_dir):
            remove_leftovers(directory)


def check_unpacked(layout: Layout, log: Log) -> None:
    """After a start of the machine: have what a power cut damaged installed anew."""
    for handler in unpacked.noted(layout):
        problem = unpacked.damage(handler) if handler.exists() else ""
        if problem:
            log.warning(
                f"The files of {handler.name} {handler.version} were damaged when the machine stopped: {problem}"
            )
            records.write_state(handler, records.NOT_INSTALLED)
        unpacked.forget(handler)


def _take_over_old_state(layout: Layout, log: Log) -> None:
    old = os.path.join(layout.lib_dir, "handler_state")
    if not os.path.isdir(old):
        return
    import shutil

    for entry in sorted(os.listdir(old)):
        base = os.path.join(layout.lib_dir, entry)
        if not os.path.isdir(base):
            continue
        config = os.path.join(base, "config")
        ensure_dir(config, 0o700)
        for name, target in (("state", "HandlerState"), ("status", "HandlerStatus")):
            source, place = os.path.join(old, entry, name), os.path.join(config, target)
            if os.path.isfile(source) and not os.path.exists(place):
                shutil.move(source, place)
    shutil.rmtree(old, ignore_errors=True)
    log.info("The handler states of an earlier agent were taken over")


def instance_files(layout: Layout) -> list[str]:
    """Return what tells handlers and agent which settings were executed: it belongs to one machine (§11.9)."""
    found = []
    for handler in layout.installed():
        candidates = [handler.status_record, handler.last_sequence]
        for directory, suffix in ((handler.status_dir, ".status"), (handler.config_dir, ".settings")):
            with contextlib.suppress(OSError):
                candidates += [os.path.join(directory, name) for name in os.listdir(directory) if name.endswith(suffix)]
        found += [path for path in candidates if os.path.lexists(path)]
    return sorted(found)


def forget_instance(layout: Layout) -> None:
    """Delete :func:`instance_files`, so that another machine's sequence numbers suppress nothing."""
    for path in instance_files(layout):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
