"""``waagent -deprovision`` and ``-deprovision+user``: warnings, the question, and all of it done (cli §5)."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from waagent import NoAnswer
from waagent_deprovision import guard, leftovers, record

if TYPE_CHECKING:
    from waagent import Agent, Plan, Step

DONE, FAILED, INTERRUPTED = 0, 1, 130
PROMPT = "Do you want to proceed (y/n)"
JOURNAL = "deprovision"
"""Directory of the journal in the runtime directory: that in the state directory is removed on the way (ruling 19e)."""

_HARMFUL_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(agent: Agent, *, delete_user: bool, force: bool = False, dry_run: bool = False) -> int:
    """Deprovision this machine; returns the exit code.

    Args:
        agent: the command's agent.
        delete_user: the provisioned user goes too.
        force: do not ask.
        dry_run: only show the warnings and the steps.
    """
    try:
        inside = guard.inside_service(agent, leftovers.services(agent))
        if inside and not dry_run:
            return _fail(f"this would stop the service in its own work: {inside}; run it from a shell")
        plans = agent.hooks.on_deprovision(agent, delete_user)
    except NoAnswer as problem:
        return _fail(f"nothing was removed: {problem}")
    executor = agent.executor_in(agent.paths.run(JOURNAL))
    steps: list[Step] = []
    for plugin, plan in plans:
        try:
            steps += executor.dry_run(plan)
        except Exception as problem:
            return _fail(f"nothing was removed: plan {plan.name} of plugin {plugin}: {problem}")
    try:
        for line in warnings(steps):
            _say(f"WARNING! {line}\n")
        if dry_run:
            for step in steps:
                _say(f"would {step.summary}\n")
            return DONE
        if not force:
            answer = _ask()
            if answer is None:
                return _fail("nothing was removed: there is nobody to answer (-force does not ask)")
            if not answer.lower().startswith("y"):
                return DONE
    except KeyboardInterrupt:
        _say("\nDeprovision is interrupted.\n")
        return INTERRUPTED
    with _undisturbed():
        return _act(agent, plans)


def warnings(steps: list[Step]) -> list[str]:
    """Return what is shown before anything is done, each line once."""
    lines = [line for step in steps for line in (step.warning or "").split("\n") if line]
    return list(dict.fromkeys(lines))


def _act(agent: Agent, plans: list[tuple[str, Plan]]) -> int:
    executor = agent.executor_in(agent.paths.run(JOURNAL))
    failed = []
    for plugin, plan in plans:
        result = executor.run(plan)
        if result.error:
            failed.append(f"plan {plan.name} of plugin {plugin} ended early: {result.error}")
        failed += [
            f"{step.name}: {step.error}" for step in result.steps if not step.ok and step.error not in result.error
        ]
    executor.journal.close()
    # What failed may be tried as often as it takes; the facts stay for that, as nobody else knows the user any more.
    _forget_journal(executor.journal.path)
    if failed:
        for line in failed:
            _fail(line)
        return FAILED
    record.forget(agent)
    return DONE


def _forget_journal(path: str) -> None:
    for remove, place in ((os.unlink, path), (os.rmdir, os.path.dirname(path))):
        try:
            remove(place)
        except OSError:
            return  # it dies with the runtime directory


def _ask() -> str | None:
    """Return the answer of whoever started the command, ``None`` when nobody is there."""
    _say(PROMPT)
    try:
        answer = sys.stdin.readline() if sys.stdin is not None else ""
    except (OSError, ValueError):
        return None
    return answer.strip() if answer else None


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Go on when somebody presses Ctrl-C or the connection is lost: half an image helps nobody."""

    def refuse(signum: int, frame: FrameType | None) -> None:
        # Past the buffers: a second signal may come while this one is answered.
        with suppress(OSError):
            os.write(1, b"Deprovisioning may not be interrupted.\n")

    before = {number: signal.signal(number, refuse) for number in _HARMFUL_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, ValueError):
        return  # the terminal is gone: no reason to stop half-way


def _fail(reason: str) -> int:
    try:
        sys.stderr.write(f"waagent: deprovision: {reason}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return FAILED
    return FAILED
