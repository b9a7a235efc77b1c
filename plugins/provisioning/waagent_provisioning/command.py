"""``waagent provision``: what the boot stage does, by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import Command
from waagent_provisioning import planner
from waagent_provisioning.flow import Flow
from waagent_provisioning.lock import Lock
from waagent_provisioning.progress import read_marker

if TYPE_CHECKING:
    import argparse

    from waagent import Agent

DONE, FAILED = 0, 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--dry-run", action="store_true", help="print the steps that are missing and take none")


def run(agent: Agent, arguments: argparse.Namespace) -> int:
    """Provision this machine as far as it is not; 1 when that failed."""
    if not agent.distro.may_change:
        print(f"Nothing is changed under the root {agent.paths.root}: no plugin here does that")
        return FAILED
    flow = Flow(agent)
    if arguments.dry_run:
        return _show(agent, flow)
    lock = Lock(agent)
    if not lock.acquire():
        print("The service is provisioning this machine right now; its log tells how it goes")
        return FAILED
    try:
        return _provision(agent, flow)
    finally:
        lock.release()


def _show(agent: Agent, flow: Flow) -> int:
    facts = flow.facts()
    steps = [step for plan in flow.plans() for step in agent.executor.dry_run(plan)]
    if not steps:
        print(_provisioned(agent))
        return DONE
    if facts["problem"]:
        print(f"This would fail: {facts['problem']}")
        return FAILED
    for step in steps:
        print(f"{step.name:<16} {step.summary}")
    if any(step.name == planner.FIRST for step in steps):
        print("The provisioning document decides about passwords, keys and custom data; it was not read.")
    return DONE


def _provision(agent: Agent, flow: Flow) -> int:
    results = [agent.executor.run(plan, stop=agent.stopping) for plan in flow.plans()]
    for step in (step for result in results for step in result.steps):
        print(f"{step.name:<16} {step.outcome}{': ' + step.error if step.error else ''}")
    if not all(result.ok for result in results):
        return FAILED
    if not any(result.steps for result in results):
        print(_provisioned(agent))
    return DONE


def _provisioned(agent: Agent) -> str:
    return f"This machine is provisioned ({read_marker(agent) or 'id unknown'}); nothing is missing"


COMMAND = Command("provision", "provision this machine, as the service does at boot", run, configure)
