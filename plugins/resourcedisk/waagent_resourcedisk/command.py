"""``waagent resourcedisk [--json] [--apply]``: every fact, the decision with its reason, the steps; and to do them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import attrs

from waagent import Command

if TYPE_CHECKING:
    import argparse

    from waagent import Agent
    from waagent_resourcedisk.decision import Decision
    from waagent_resourcedisk.engine import Engine, View
    from waagent_resourcedisk.records import DiskFacts, Wishes

_DONE, _FAILED, _WARNINGS = 0, 1, 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Take the two options."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--apply", action="store_true", help="do what is printed")


def run(agent: Agent, arguments: argparse.Namespace) -> int:
    """Print, and with ``--apply`` act.

    Returns:
        0; 3 when the disk is refused and nothing was asked to be done; 1 when what was asked could not be done.
    """
    from waagent_resourcedisk.engine import Engine

    engine = Engine(agent, forced=arguments.apply, curious=True)
    view = engine.view()
    if arguments.apply and not agent.paths.is_real:
        sys.stderr.write("waagent: disks are not changed under another root\n")
        return _FAILED
    results: list[tuple[str, str, str]] = []
    done = True
    if arguments.apply:
        for plan in (engine.disk_plan(), engine.background_plan()):
            ended = agent.executor.run(plan, stop=agent.stopping)
            results += [(one.name, one.outcome, one.error) for one in ended.steps]
            done = done and ended.ok
        view = engine.view()
    if arguments.json:
        _print_json(engine, view, results, applied=arguments.apply)
    else:
        _print_text(engine, view, results, applied=arguments.apply)
    if view.decision.action == "refuse":
        return _FAILED if arguments.apply else _WARNINGS
    return _DONE if done else _FAILED


def steps(view: View, wishes: Wishes, *, swapped: bool) -> list[str]:
    """Return what would be done, in sentences."""
    decision = view.decision
    found = []
    if not wishes.format and not wishes.swap:
        return []
    if decision.action == "wait":
        return ["wait up to 60 s for the disk to be mounted by whoever else does so, then decide again"]
    if wishes.format and decision.action == "format" and view.disk is not None:
        found.append(f"write a table with one partition on {view.disk.device} (everything on the disk is lost)")
        found.append(f"make {decision.filesystem} on it")
        found.append(f"mount it at {decision.mount_point}")
    elif wishes.format and decision.action == "mount":
        found.append(f"mount {decision.partition} ({decision.filesystem}) at {decision.mount_point}")
    usable = decision.action in ("format", "mount", "adopt")
    if wishes.format and usable:
        found.append(f"write the warning file in {decision.mount_point}")
    if wishes.swap and usable and not swapped and (wishes.format or decision.action == "adopt"):
        found.append(f"make {wishes.swap_mib} MiB of swap in {decision.mount_point}")
    return found


def _swapped(engine: Engine, view: View) -> bool:
    return view.mount is not None and engine.driver.swap_in_place(view.mount, engine.wishes)


def _print_json(engine: Engine, view: View, results: list[tuple[str, str, str]], *, applied: bool) -> None:
    import json

    swapped = _swapped(engine, view)
    document: dict[str, Any] = {
        "schema": 1,
        "survey": attrs.asdict(view.survey),
        "disk": None if view.disk is None else attrs.asdict(view.disk),
        "surroundings": attrs.asdict(view.around),
        "wishes": attrs.asdict(engine.wishes),
        "decision": attrs.asdict(view.decision),
        "swap_in_use": swapped,
        "steps": steps(view, engine.wishes, swapped=swapped),
        "applied": [{"step": name, "outcome": outcome, "error": error} for name, outcome, error in results],
    }
    if not applied:
        del document["applied"]
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def _print_text(engine: Engine, view: View, results: list[tuple[str, str, str]], *, applied: bool) -> None:
    swapped = _swapped(engine, view)
    lines = ["Disks"]
    lines += [f"  {name}: {role}" for name, role in sorted(view.survey.roles.items())] or ["  none that the bus names"]
    for one in view.survey.local:
        lines.append(f"  local NVMe disk {one.device} ({'; '.join(one.evidence)})")
    lines += _disk_lines(view.disk)
    lines += _surrounding_lines(view)
    lines += _decision_lines(view.decision)
    if applied:
        lines.append("Done" if results else "Nothing had to be done")
        lines += [f"  {name}: {outcome}{': ' + error if error else ''}" for name, outcome, error in results]
    else:
        todo = steps(view, engine.wishes, swapped=swapped)
        lines.append("Steps (--apply does them)" if todo else "Nothing to do")
        lines += [f"  {number}. {text}" for number, text in enumerate(todo, 1)]
    sys.stdout.write("\n".join(lines) + "\n")


def _disk_lines(disk: DiskFacts | None) -> list[str]:
    if disk is None:
        return ["Candidate", "  none"]
    lines = [
        "Candidate",
        f"  {disk.device} ({disk.candidate.kind}), {disk.candidate.trust}: {'; '.join(disk.candidate.evidence)}",
        f"  serial {disk.serial or 'unknown'}, {disk.size >> 20} MiB{', read-only' if disk.read_only else ''}",
        f"  table {disk.table or 'none'} {disk.table_id}".rstrip(),
    ]
    lines += [f"  signature {disk.signature}"] if disk.signature else []
    lines += ["  blank"] if disk.blank else []
    for part in disk.partitions:
        kind = part.filesystem or "no file system"
        more = f", label {part.label}" if part.label else ""
        if part.contents is not None:
            more += f", {len(part.contents)} files of somebody's"
        if part.problem:
            more += f", cannot be looked into: {part.problem}"
        lines.append(f"  partition {part.device}: type {part.type or 'unknown'}, {kind}, {part.size >> 20} MiB{more}")
    lines += [f"  mounted: {one.device} at {one.point} ({one.filesystem})" for one in disk.mounted]
    lines += [f"  holds the system's {point}" for point in disk.system]
    lines += [f"  used by {one}" for one in disk.holders]
    lines += [f"  used by swap on {path}" for path in disk.swaps]
    if disk.busy:
        lines.append("  in use, the kernel does not say by whom")
    if disk.unfinished:
        lines.append("  an earlier run of the agent was cut short while it formatted the disk")
    if disk.problem:
        lines.append(f"  {disk.problem}")
    return lines


def _surrounding_lines(view: View) -> list[str]:
    around = view.around
    facts = (
        (around.mount_point_problem, "{}"),
        (around.occupied_by, "the mount point is taken by {}"),
        (around.fstab, "/etc/fstab has {}"),
        (around.cloud_init, "cloud-init is enabled: {}"),
        ("y" if around.never_destroy_ntfs else "", "cloud-init is configured with never_destroy_ntfs"),
        (around.missing_tool, "{} is not installed"),
        (around.gave_up, "{}"),
    )
    lines = ["  " + text.format(value) for value, text in facts if value]
    return ["Surroundings", *lines] if lines else []


def _decision_lines(decision: Decision) -> list[str]:
    lines = ["Decision", f"  {decision.action} (row: {decision.row}): {decision.reason}"]
    if decision.remedy:
        lines.append(f"  to change that: {decision.remedy}")
    return lines


COMMAND = Command(
    "resourcedisk",
    "show what is known of the temporary disk and what would be done with it; --apply does it",
    run=run,
    configure=configure,
)
