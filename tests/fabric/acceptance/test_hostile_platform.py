"""What the platform sends may be anything: a clear error where it belongs, nothing else harmed, and life goes on."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.fabric.acceptance import hostile, tools
from waagent_fabric import Fault, HandlerSpec, SettingsSpec, sample_package
from waagent_fabric.agentprocess import descendants
from waagent_fabric.seen import find_handler

pytestmark = [pytest.mark.fabric, pytest.mark.slow]

GOOD = "Contoso.Good"
GROWTH = 24 * 1024
"""KiB that the worker may grow by: one document of the largest size allowed, read and refused."""


def good(sequence: int) -> HandlerSpec:
    return HandlerSpec(GOOD, "1.0.0", settings=[SettingsSpec({"a": 1}, {"b": 2}, sequence_number=sequence)])


class Errors:
    """What the public status copy said of polls, as people saw it."""

    def __init__(self, root: Path) -> None:
        self._path = root / "run/waagent/status.json"
        self.seen: list[str] = []

    def look(self) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            error = json.loads(self._path.read_text())["poll"]["error"]
            if error and error not in self.seen:
                self.seen.append(error)


@pytest.mark.timeout(180)
def test_hostile_goal_states(fabric, agent_root, running_agent) -> None:
    fabric.add_package(GOOD, "1.0.0", sample_package(GOOD, "1.0.0"))
    fabric.publish([good(0)])
    agent = running_agent(agent_root, fabric)
    fabric.wait_for_extension(GOOD, sequence_number=0)
    worker = agent.worker
    assert worker is not None
    memory = tools.peak_kib(worker)
    sequence = 0
    for server, part, name in (
        ("wireserver", "comp=goalstate", "GoalState"),
        ("wireserver", "type=extensionsConfig", "ExtensionsConfig"),
        ("wireserver", "type=hostingEnvironmentConfig", "HostingEnvironmentConfig"),
        ("wireserver", "type=sharedConfig", "SharedConfig"),
        ("hostplugin", "/vmSettings", "vmSettings"),
    ):
        faults = [
            fabric.inject(Fault(kind, server=server, path=part, times=1, body=body, size=hostile.HUGE))
            for kind, body in (
                ("oversize", b""),
                ("replace", hostile.ENTITIES),
                ("replace", hostile.DEEP_XML),
                *((("garbage", b""), ("truncate", b""), ("replace", hostile.UTF_16)) if name == "GoalState" else ()),
            )
        ]
        errors = Errors(agent_root)
        sequence += 1
        before, start = len(tools.upload_moments(fabric)), len(agent.log())
        fabric.publish([good(sequence)], channel="fasttrack" if name == "vmSettings" else "fabric")
        tools.wait_for(lambda: errors.look() or all(fault.hits for fault in faults), f"every fault of {name}")  # noqa: B023
        # The next good goal state works, and status flowed all the while.
        fabric.wait_for_extension(GOOD, sequence_number=sequence, timeout=20)
        assert len(tools.upload_moments(fabric)) > before
        # The log tells the first three errors in a row, the public status the one that holds.
        said = "\n".join(errors.seen) + agent.log()[start:]
        assert "the answer has 104857600 bytes, allowed are 16777216" in said, said
        if name == "vmSettings":  # the bodies come without the tag that makes one worth reading
            assert "does not include an Etag" in said, said
        else:
            assert f"{name}: expected no document type declaration" in said, said
            assert f"{name}: expected at most 64 levels" in said, said
        if name == "GoalState":
            assert "GoalState: expected UTF-8 text" in said, said
            assert "cut short" in said, said
    assert agent.worker == worker, "the worker did not survive"

    for number, body in enumerate((hostile.DEEP_JSON, "not JSON", hostile.WRONG_TYPES, b"\xff\xfe{}")):
        errors = Errors(agent_root)
        sequence += 1
        with fabric.platform.changed:
            data = body.encode() if isinstance(body, str) else body
            fabric.platform.vm_settings = (f"90000{number}", data)
        tools.wait_for(lambda: errors.look() or errors.seen, f"an error about {body[:20]!r}")  # noqa: B023
        assert "vmSettings" in errors.seen[-1] or "VmSettings" in errors.seen[-1], errors.seen
        fabric.publish([good(sequence)], channel="fasttrack")
        fabric.wait_for_extension(GOOD, sequence_number=sequence, timeout=20)

    # Certificates are needed by some extensions only: without them the goal state is accepted (wireserver §25).
    faults = [
        fabric.inject(Fault(kind, path="comp=certificates", times=1, body=body, size=hostile.HUGE))
        for kind, body in (("oversize", b""), ("garbage", b""), ("replace", hostile.ENTITIES))
    ]
    sequence += 1
    start = len(agent.log())
    fabric.publish([good(sequence)])
    fabric.wait_for_extension(GOOD, sequence_number=sequence, timeout=30)
    assert faults[0].hits == 1
    assert "the certificates" in agent.log()[start:]

    assert agent.worker == worker, "the worker did not survive"
    grown = tools.peak_kib(worker) - memory
    assert grown < GROWTH, f"the worker grew by {grown} KiB at its worst"


@pytest.mark.timeout(180)
def test_hostile_manifests_and_packages(fabric, agent_root, running_agent, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    fabric.add_package(GOOD, "1.0.0", sample_package(GOOD, "1.0.0"))
    wanted: list[HandlerSpec] = []
    complaints: dict[str, str] = {}
    final: set[str] = set()

    def want(name: str, complaint: str, **options: Any) -> None:
        wanted.append(HandlerSpec(name, "1.0.0", settings=[SettingsSpec({"a": 1})], **options))
        complaints[name] = complaint

    def package(kind: str, complaint: str, data: bytes, *, again: bool = False) -> None:
        name = f"Contoso.Package.{kind}"
        fabric.add_package(name, "1.0.0", data)
        want(name, complaint)
        if not again:
            final.add(name)

    def manifest(kind: str, complaint: str, location: str) -> None:
        want(f"Contoso.Manifest.{kind}", complaint, location=location, failover_location="")

    def document(kind: str, data: bytes) -> str:
        return fabric.platform.store.put(f"/a/{kind}.hostile.xml", data)

    package("Dots", "is not allowed", hostile.zip_with("../" * 12 + str(outside / "escaped-dots")[1:]))
    package("Beside", "is not allowed", hostile.zip_with("../escaped-beside"))
    package("Backslashes", "is not allowed", hostile.zip_with("..\\..\\escaped-backslash"))
    package("Absolute", "is not allowed", hostile.zip_with(f"{outside}/escaped-absolute"))
    package("Link", "is a link", hostile.zip_through_link(outside))
    package("Bomb", "expands to more than", hostile.zip_bomb(10 << 30))
    package("LyingBomb", "zeros.bin", hostile.zip_bomb(10 << 30, declared=1000), again=True)
    package("NoZip", "not a usable zip file", b"this is no zip file" * 100, again=True)
    package("NoManifest", "HandlerManifest.json not found", hostile.build_zip({"readme": "nothing here"}))
    for kind, text in (("XmlManifest", hostile.ENTITIES), ("DeepManifest", hostile.DEEP_JSON)):
        package(kind, "HandlerManifest.json is malformed", hostile.build_zip({"HandlerManifest.json": text}))
    for kind, data in hostile.DOCUMENTS.items():
        manifest(kind, "PluginVersionManifest: expected", document(kind, data))
    manifest("huge", "allowed are 16777216", document("huge", bytes(hostile.HUGE)))
    want("../escaped-name", "config errors", location=document("name", b""))

    agent = running_agent(agent_root, fabric)
    fabric.wait_for_status()
    processes = agent.pids()
    memory = tools.peak_kib(processes["worker"])
    helpers: dict[int, int] = {}

    def complained() -> bool:
        for pid in descendants(processes["supervisor"]):
            if pid != processes["worker"]:
                helpers[pid] = max(helpers.get(pid, 0), tools.peak_kib(pid))
        return all(complaints[name] in message_of(fabric.status, name) for name in complaints)

    with hostile.raw_server() as raw:
        for kind in hostile.ANSWERS:
            manifest(f"raw-{kind}", "manifest", f"{raw}/{kind}.xml")
        fabric.publish([*wanted, good(0)])
        try:
            tools.wait_for(complained, "every handler's error in the status", 60)
        except AssertionError:
            missing = {name: message_of(fabric.status, name) for name in complaints}
            pytest.fail(f"{ {name: text for name, text in missing.items() if complaints[name] not in text} }")
        # A good one among them is not held up.
        fabric.wait_for_extension(GOOD, sequence_number=0)
    for name in complaints:
        item = find_handler(fabric.status, name)
        assert item is not None
        assert item["status"] == "NotReady", item
        if name in final:
            assert item["code"] != 0, item
            assert tools.word_of(fabric.status, name) == "error", item

    assert list(outside.iterdir()) == []
    assert [path for path in tmp_path.rglob("*escaped*") if path.suffix != ".log"] == []
    assert sum(path.stat().st_size for path in tools.files_below(agent_root)) < 50 << 20
    assert agent.pids() == processes, "the worker did not survive"
    grown = tools.peak_kib(processes["worker"]) - memory
    assert grown < GROWTH, f"the worker grew by {grown} KiB at its worst"
    assert helpers, "no helper was seen at work"
    assert max(helpers.values()) < 150 << 10, f"a helper had {max(helpers.values())} KiB"

    fabric.publish([good(1)])
    fabric.wait_for_extension(GOOD, sequence_number=1, timeout=20)
    assert all(find_handler(fabric.status, name) is None for name in complaints)


def message_of(status: dict[str, Any] | None, name: str) -> str:
    message: str = ((find_handler(status, name) or {}).get("formattedMessage") or {}).get("message", "")
    return message
