"""Goal states are seen and status flows, whatever runs: a long install, a detached child, plugins that break."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.fabric.acceptance import tools
from waagent_fabric import Fabric, HandlerSpec, SettingsSpec, read_calls, sample_package
from waagent_fabric.seen import find_handler

pytestmark = [pytest.mark.fabric, pytest.mark.slow]

PATIENCE = 5.0
INSTALL, ENABLE = 40, 35
FIRST, SECOND = "Contoso.Detached", "Contoso.Slow"


def wanted(number: int) -> list[HandlerSpec]:
    return [
        HandlerSpec(FIRST, "1.0.0", settings=[SettingsSpec({"number": 0})]),
        HandlerSpec(SECOND, "1.0.0", settings=[SettingsSpec({"number": number}, sequence_number=number)]),
    ]


def seconds_to_first_status(running_agent, root: Path) -> float:
    """Return how long an agent with nothing in its way needs to its first status, here and now."""
    with Fabric() as fabric:
        started = time.time()
        agent = running_agent(root, fabric)
        fabric.wait_for_status(timeout=30)
        agent.stop()
        return tools.upload_moments(fabric)[0] - started


@pytest.mark.timeout(180)
def test_long_commands_detached_children_and_broken_plugins_hold_nothing_up(
    fabric, agent_root, running_agent, tmp_path: Path
) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir(mode=0o755)
    tools.install_bad_plugins(plugins)
    fabric.add_package(FIRST, "1.0.0", sample_package(FIRST, "1.0.0", long_run=ENABLE))
    fabric.add_package(SECOND, "1.0.0", sample_package(SECOND, "1.0.0", install=f"sleep {INSTALL}"))
    fabric.publish(wanted(0))

    usual = seconds_to_first_status(running_agent, tmp_path / "undisturbed")
    started = time.time()
    # A status that does not change is uploaded at least so often: that rhythm, too, is to be seen here.
    agent = running_agent(
        agent_root, fabric, conf={"Status.MaxInterval": "3"}, environment={"PYTHONPATH": str(plugins)}
    )
    fabric.wait_for_status(timeout=30)
    late = tools.upload_moments(fabric)[0] - started - usual
    # The import that hangs is given up after five seconds; on a busy machine no two starts take the same time.
    assert late < PATIENCE + 1.0 + usual, f"{late:.1f} s later than without the three ({usual:.1f} s)"

    tools.wait_for(lambda: read_calls(agent_root, SECOND), "the install command")
    installing = time.time()
    # Both wait at once: one handler's detached child, the other one's install command.
    document = fabric.wait_for_status(
        lambda status: tools.word_of(status, FIRST) == "transitioning" and find_handler(status, SECOND) is not None
    )
    for name in ("raises", "hangs", "exits"):
        assert f"plugin {name}" in tools.agent_message(document), "the status names the plugin that is not loaded"

    delays = []
    for number in (1, 2, 3):
        published = time.time()
        incarnation = int(fabric.publish(wanted(number)).partition("_")[2])
        tools.wait_for(lambda: tools.seen_at(fabric, incarnation), f"goal state {incarnation} is fetched")  # noqa: B023
        seen = tools.seen_at(fabric, incarnation)
        assert seen is not None
        delays.append(seen - published)
    assert read_calls(agent_root, SECOND)[0].exit_code is None, "the install ended too early to prove anything"
    assert max(delays) < PATIENCE

    # The worker's end costs a second, not the five of the hanging plugin once more.
    killed = time.time()
    agent.kill_worker(wait=False)
    tools.wait_for(lambda: tools.upload_moments(fabric)[-1] > killed, "a status of the next worker")

    fabric.wait_for_extension(SECOND, sequence_number=3, timeout=INSTALL + 30)
    fabric.wait_for_status(lambda status: tools.word_of(status, FIRST) == "success")
    moments = tools.upload_moments(fabric)
    pauses = tools.gaps(moments)
    assert moments[-1] - installing > INSTALL - 1
    assert max(pauses) < PATIENCE, f"the longest pause between two statuses was {max(pauses):.1f} s"
    installs = [call for call in read_calls(agent_root, SECOND) if call.operation == "install"]
    assert [call.exit_code for call in installs] == [0], "it ran once, although the worker was killed meanwhile"
    assert fabric.violations == []
