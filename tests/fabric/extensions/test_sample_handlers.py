"""Handlers in the styles of the field, run unmodified by a whole agent (extensions §21, §23 #15)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from waagent_fabric import Fabric, HandlerSpec, SettingsSpec
from waagent_fabric.seen import find_handler

pytestmark = pytest.mark.fabric
REPOSITORY = Path(__file__).resolve().parents[3]
HANDLERS = REPOSITORY / "examples" / "handlers"


def package(name: str) -> dict[str, bytes | str]:
    """Return the files of a sample handler."""
    place = HANDLERS / name
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }


def goal(name: str, version: str, sequence: int = 0, state: str = "enabled", **settings: Any) -> HandlerSpec:
    return HandlerSpec(name, version, state, (SettingsSpec(sequence_number=sequence, **settings),))


def extension_of(item: dict[str, Any] | None) -> dict[str, Any]:
    assert item is not None
    found: dict[str, Any] = item["runtimeSettingsStatus"]["settingsStatus"]["status"]
    return found


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_shell_handler_that_works_on_after_its_command_ended(
    fabric: Fabric, agent_root: Path, running_agent: Any
) -> None:
    name = "Contoso.Reporter"
    fabric.add_package(name, "1.0.0", package("reporter"))
    fabric.publish([goal(name, "1.0.0", public={"work": "echo all done", "seconds": 3})])
    agent = running_agent(agent_root, fabric)
    # The command is over and the work is not: the handler's own word is what is reported.
    document = fabric.wait_for_status(
        lambda found: bool(find_handler(found, name)) and "'message': 'working'" in str(found), 40.0
    )
    assert extension_of(find_handler(document, name))["status"] == "transitioning"
    agent.kill_worker()
    assert extension_of(fabric.wait_for_extension(name))["formattedMessage"]["message"] == "all done"
    # The worker's end made another enable, which the handler knew for done.
    logs = agent_root / "var/log/azure" / name
    assert (logs / "reporter.log").read_text().count("number 0 is done") == 1
    assert (agent_root / "var/lib/waagent" / f"{name}-1.0.0" / "mrseq").read_text().strip() == "0"

    fabric.publish([goal(name, "1.0.0", 1, public={"work": "echo broken; exit 7", "seconds": 0})])
    failed = extension_of(fabric.wait_for_extension(name, status="error", sequence_number=1))
    assert (failed["code"], failed["formattedMessage"]["message"]) == (7, "broken")


def test_a_python_handler_that_loads_the_agent_as_a_module(
    fabric: Fabric, agent_root: Path, running_agent: Any
) -> None:
    name = "Contoso.Utility"
    fabric.add_package(name, "1.0.0", package("utility"))
    command = REPOSITORY / "packaging" / "sbin" / "waagent"
    log = agent_root / "var/log/waagent.log"
    public = {"agentModule": str(command), "agentLog": str(log)}
    fabric.publish([goal(name, "1.0.0", public=public, protected={"user": "u", "password": "p"})])
    agent = running_agent(agent_root, fabric)
    status = extension_of(fabric.wait_for_extension(name))
    # Both protected settings were opened with the certificate that the agent had put in its place.
    assert status["formattedMessage"]["message"] == "opened: password, user"
    parts = {part["name"]: part["formattedMessage"]["message"] for part in status["substatus"]}
    # The installed command is a module that declines; then the package's own copy is taken.
    assert parts["refused"].startswith(f"{command}: ImportError: ")
    assert parts["agent module"].endswith(f"{name}-1.0.0/waagent")
    # The handler writes into the agent's log, and the agent goes on writing there.
    agent.wait_for_log("op=Enable, message=Launch command succeeded: utility.py -enable", 20.0)
    lines = agent.log().splitlines()
    own = next(at for at, line in enumerate(lines) if line.endswith(f"{name} 1.0.0 started to handle."))
    assert any("op=Enable, message=Launch command succeeded: utility.py -enable" in line for line in lines[own:])

    fabric.publish([goal(name, "1.0.0", 0, "uninstall", public=public)])
    fabric.wait_for(lambda: find_handler(fabric.status, name) is None, 30.0, "it is no longer reported")
    calls = (agent_root / "var/log/azure" / name / "utility.log").read_text().splitlines()
    assert calls == ["install 1.0.0", "enable 1.0.0", "disable 1.0.0", "uninstall 1.0.0"]


def test_a_service_with_a_heartbeat_outlives_the_agent_and_is_handed_on_in_an_update(
    fabric: Fabric, agent_root: Path, running_agent: Any
) -> None:
    name = "Contoso.Beacon"
    lib = agent_root / "var/lib/waagent"
    for version in ("1.0.0", "1.1.0"):
        fabric.add_package(name, version, package("beacon"))

    def service() -> int:
        return int((lib / "beacon.pid").read_text().split()[0])

    def beats(version: str) -> None:
        def heard() -> bool:
            item = find_handler(fabric.status, name) or {}
            message = (item.get("formattedMessage") or {}).get("message")
            return bool(item.get("status") == "Ready" and message == f"version {version} lives")

        fabric.wait_for(heard, 40.0, "the heartbeat")

    fabric.publish([goal(name, "1.0.0", public={})])
    agent = running_agent(agent_root, fabric)
    beats("1.0.0")
    first = service()
    # A restart of the agent calls enable again and leaves the service alone: it is in nobody's process group.
    agent.process.terminate()
    agent.wait_exit()
    assert lives(first)
    seen = len(fabric.statuses)
    agent.start()
    agent.wait_until(lambda: len(fabric.statuses) > seen, 30.0, "a status of the next agent")
    beats("1.0.0")
    assert service() == first

    fabric.publish([goal(name, "1.1.0", 1, public={})])
    beats("1.1.0")
    agent.wait_until(lambda: not lives(first), 10.0, "the old service's end")
    assert lives(service())
    assert not (lib / "beacon.update.tag").exists()
    log = (agent_root / "var/log/azure" / name / "beacon.log").read_text().splitlines()
    assert [line.rstrip() for line in log if "1.1.0" in line or line.startswith("uninstall")] == [
        "update 1.1.0 from 1.0.0",
        "uninstall 1.0.0 for an update: the service is left alone",
        "install 1.1.0",
        "enable 1.1.0 after uninstall: 0",
    ]

    # A service that dies is seen to be silent: its last beat grows old.
    last = service()
    os.kill(last, 9)
    beat = lib / f"{name}-1.1.0" / "heartbeat.log"
    agent.wait_until(lambda: not lives(last), 10.0, "the service's end")
    os.utime(beat, (1, 1))
    fabric.wait_for_status(lambda found: (find_handler(found, name) or {}).get("status") == "Unresponsive", 30.0)

    fabric.publish([goal(name, "1.1.0", 1, "uninstall", public={})])
    fabric.wait_for(lambda: find_handler(fabric.status, name) is None, 30.0, "it is no longer reported")
    assert not list(lib.glob(f"{name}*"))
