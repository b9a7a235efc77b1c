"""Secrets stay where they belong, at the most verbose level, also when everything fails (wireserver §22)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.fabric.acceptance import tools
from waagent_fabric import Fault, HandlerSpec, RemoteUserSpec, SettingsSpec, sample_package
from waagent_fabric.agentprocess import RunningAgent, descendants

pytestmark = [pytest.mark.fabric, pytest.mark.slow]

PROTECTED = "canary-of-protected-settings"
PASSWORD = "canary-of-a-password"
PROXY = "canary-of-a-proxy-password"
MALFORMED = "canary-in-malformed-settings"
TOKEN = "canaryOfAHandlersOwnToken"
SAS = f"https://store.example/scripts/run.sh?sv=2020-01-01&sr=b&sig={TOKEN}%3D"
GOOD, FAILING, LOST = "Contoso.Good", "Contoso.Failing", "Contoso.Lost"


class ProcessList:
    """Keeps every command line and environment that anybody could have seen in the process table."""

    def __init__(self, agent: RunningAgent) -> None:
        self.lines: set[bytes] = set()
        self.environments: set[bytes] = set()
        self._agent = agent
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.005):
            process = self._agent.process
            for pid in [process.pid, *descendants(process.pid)] if process is not None else ():
                with contextlib.suppress(OSError):
                    self.lines.add(Path(f"/proc/{pid}/cmdline").read_bytes())
                    self.environments.add(Path(f"/proc/{pid}/environ").read_bytes())

    def stop(self) -> None:
        self._over.set()
        self._thread.join(10)


def contents(path: Path) -> Iterator[bytes]:
    """Yield what a file holds, and what is packed in it."""
    data = path.read_bytes()
    yield data
    if path.suffix == ".zip":
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield archive.read(name)


def key_lines(path: Path) -> list[str]:
    """Return lines from the middle of a private key's PEM, which are nobody else's."""
    lines = [line for line in path.read_text().splitlines() if len(line) == 64 and "-" not in line]
    return lines[5:10]


def in_every_spelling(secret: str) -> set[bytes]:
    escaped = quote(secret, safe="")
    lower = re.sub("%[0-9A-F]{2}", lambda match: match.group().lower(), escaped)
    twice = quote(lower, safe="")
    return {word.encode() for word in (secret, escaped, lower, twice, json.dumps(secret)[1:-1])}


@pytest.mark.timeout(180)
def test_no_secret_is_seen_by_anybody(fabric, agent_root, running_agent) -> None:
    fabric.add_package(GOOD, "1.0.0", sample_package(GOOD, "1.0.0", message=f"fetched {SAS}"))
    fabric.add_package(
        FAILING, "1.0.0", sample_package(FAILING, "1.0.0", enable=f"echo 'from {SAS}'; echo 'no {SAS}' >&2; exit 7")
    )
    nowhere = fabric.platform.store.grant("/a/nothing-is-here.xml")

    def wanted(number: int, *names: str) -> list[HandlerSpec]:
        settings = [SettingsSpec({"number": number}, {"password": PROTECTED}, sequence_number=number)]
        return [
            HandlerSpec(GOOD, "1.0.0", settings=settings),
            HandlerSpec(FAILING, "1.0.0", settings=settings),
            *(HandlerSpec(name, "1.0.0", settings=settings, location=nowhere, failover_location="") for name in names),
            HandlerSpec(
                "Contoso.Malformed",
                "1.0.0",
                settings=[SettingsSpec(raw=f'{{"runtimeSettings": [{{"protectedSettings": "{MALFORMED}')],
            ),
        ]

    fabric.publish(wanted(0), users=[RemoteUserSpec("jit", PASSWORD)])
    agent = running_agent(
        agent_root,
        fabric,
        arguments=("-verbose", "-daemon"),
        # Nobody listens there: every direct transfer fails with this address in hand, the host plugin helps out.
        environment={"http_proxy": f"http://user:{PROXY}@127.0.0.1:9/", "no_proxy": None},
    )
    processes = ProcessList(agent)
    public: set[str] = set()
    try:
        fabric.wait_for_extension(GOOD, timeout=30)
        fabric.wait_for_extension(FAILING, "error", timeout=30)
        agent.stop()
        agent.environment["http_proxy"] = None
        agent.start()
        # What fails says why: uploads on both channels, parts, fast-track documents that cannot be read.
        fabric.inject(Fault("status", server="hostplugin", method="PUT", path="/status", statuses=500, times=3))
        fabric.inject(Fault("truncate", path="type=extensionsConfig", times=1))
        fabric.publish(wanted(1, LOST), users=[RemoteUserSpec("jit", PASSWORD)])
        fabric.wait_for_extension(GOOD, sequence_number=1, timeout=30)
        etag, vm_settings = fabric.platform.vm_settings
        with fabric.platform.changed:
            # Fast track, and cut off in the middle of what it should not show.
            text = vm_settings.decode().replace('"Fabric"', '"FastTrack"')
            cut = text.index("protectedSettings") + 60 if "protectedSettings" in text else len(text) - 10
            fabric.platform.vm_settings = (etag + "1", text[:cut].encode())
        agent.wait_for_log("Error fetching the goal state")
        public.add((agent_root / "run/waagent/status.json").read_text())
        fabric.publish(wanted(2, LOST), channel="fasttrack")
        fabric.wait_for_extension(GOOD, sequence_number=2, timeout=30)
        fabric.inject(Fault("outage", seconds=2.5))
        over = time.time() + 2.5
        fabric.wait_for(lambda: fabric.requests[-1].time > over, what="a request after the outage")
        agent.kill_worker()
        moment = time.time()
        fabric.wait_for(lambda: tools.upload_moments(fabric)[-1] > moment, what="a status of the next worker")
        fabric.publish((), channel="fabric")
        tools.wait_for(lambda: not fabric.status["aggregateStatus"]["handlerAggregateStatus"], "an empty goal state")
        public.add((agent_root / "run/waagent/status.json").read_text())
    finally:
        processes.stop()

    lib = agent_root / "var/lib/waagent"
    secrets = {PROTECTED, PASSWORD, PROXY, MALFORMED, TOKEN}
    secrets |= {signature for signature, _ in fabric.platform.store._grants.values()}
    for path in [*lib.glob("*.prv"), lib / "TransportPrivate.pem"]:
        secrets |= set(key_lines(path))
    assert len(secrets) > 15, "there are no keys to look for"
    canaries = {word for secret in secrets for word in in_every_spelling(secret)}
    config = fabric.platform.previous.extensions_config
    sealed = {
        match.encode() for match in re.findall(r'protectedSettings(?:"|&quot;):\s*(?:"|&quot;)([^"&]{40,})', config)
    }
    assert sealed

    assert_absent(canaries, "an uploaded status", *(json.dumps(r.document).encode() for r in fabric.statuses))
    assert_absent(canaries, "the public status", *(text.encode() for text in public))
    assert_absent(canaries, "telemetry", *(repr(record).encode() for record in fabric.telemetry))
    assert_absent(canaries, "a health report", *(repr(record).encode() for record in fabric.health_reports))
    assert_absent(canaries, "an observation", *(repr(record).encode() for record in fabric.observations))
    assert_absent(canaries, "a command line", *processes.lines)
    mine = in_every_spelling(PROXY)  # the agent's own environment is what it was started with
    assert_absent(canaries - mine, "an environment", *processes.environments)
    assert len(processes.lines) > 5, "no process was seen"

    looked_at = 0
    for path in tools.files_below(agent_root):
        name = str(path.relative_to(agent_root))
        mode = stat.S_IMODE(path.stat().st_mode)
        is_record = name.startswith(("var/log/", "var/lib/waagent/history/", "var/lib/waagent/journal/", "run/")) or (
            name == "console.log"
        )
        if is_record or mode & 0o077:
            looked_at += 1
            allowed = in_every_spelling(TOKEN) if is_handlers_own(name) else set()
            if "environment." in name:
                allowed |= mine
            assert_absent(canaries - allowed, f"{name} (mode {mode:o})", *contents(path))
            assert_absent(sealed, f"{name} (mode {mode:o})", *contents(path))
    assert looked_at > 20
    assert (lib / "TransportPrivate.pem").stat().st_mode & 0o077 == 0
    assert os.stat(lib).st_mode & 0o077 == 0


def is_handlers_own(name: str) -> bool:
    """Whether a handler wrote the file: what it writes there is not the agent's to change."""
    return bool(re.search(r"(^|/)bin/handler\.sh$|/status/[^/]*\.status$", name))


def assert_absent(canaries: set[bytes], where: str, *texts: bytes) -> None:
    for text in texts:
        for canary in canaries:
            if canary in text:
                at = text.index(canary)
                pytest.fail(f"{canary!r} in {where}: …{text[max(0, at - 150) : at + 80]!r}…")
