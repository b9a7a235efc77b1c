"""A platform that serves packages from memory, an agent without processes, and handlers that leave a trace."""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
import zipfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from waagent import (
    ExtensionDownloadError,
    ExtensionSettings,
    ExtensionsGoalState,
    Handler,
    Launch,
    Log,
    Manifest,
    ManifestVersion,
    Package,
    Paths,
    Veto,
)
from waagent.journal import Journal
from waagent.log import Sinks
from waagent.plan import Executor
from waagent.state import State
from waagent_extensions.convergence import Convergence
from waagent_extensions.engine import Engine
from waagent_extensions.report import Reporter
from waagent_extensions.site import Site

OPERATIONS = ("install", "update", "enable", "disable", "uninstall")
_VARIABLES = (
    "VERSION",
    "ConfigSequenceNumber",
    "ConfigExtensionName",
    "AZURE_GUEST_AGENT_UPDATING_FROM_VERSION",
    "AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE",
    "AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE",
    "AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODES_MULTIPLE_EXTENSIONS",
)


def package(
    version: str, trace: Path, commands: Mapping[str, str] | None = None, limits: Any = None, **manifest: Any
) -> bytes:
    """Return a handler package whose commands write their name and variables to *trace*, then do *commands*."""
    variables = " ".join(f'"{name}=${{{name}-}}"' for name in _VARIABLES)
    script = f'#!/bin/sh\nfor v in "$1 {version}" {variables}; do printf \'%s|\' "$v"; done >>{trace}\necho >>{trace}\n'
    script += 'succeed() { echo \'[{"status":{"status":"success","code":0,"formattedMessage":{"lang":"en-US",'
    script += '"message":"done"}}}]\' >"status/${ConfigExtensionName:+$ConfigExtensionName.}'
    script += '$ConfigSequenceNumber.status"; }\n'
    script += 'case "$1" in\n'
    for operation in OPERATIONS:
        body = (commands or {}).get(operation, "succeed" if operation == "enable" else ":")
        script += f"{operation}) {body};;\n"
    script += "esac\n"
    body_of_manifest = {f"{operation}Command": f"bin/run {operation}" for operation in OPERATIONS}
    document: list[dict[str, Any]] = [{"handlerManifest": {**body_of_manifest, **manifest}}]
    if limits is not None:
        document[0]["resourceLimits"] = limits
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("HandlerManifest.json", json.dumps(document))
        archive.writestr("bin/run", script)
    return data.getvalue()


class FakePlatform:
    """The part of the platform that the engine needs."""

    endpoint = "168.63.129.16"
    goal_state = None

    def __init__(self) -> None:
        self.packages: dict[str, dict[str, bytes]] = {}
        self.unreachable = False
        self.hopeless: dict[str, str] = {}
        self.broken_downloads = 0
        self.sound: set[str] = set()
        self.on_hold = False
        self.forced = 0
        self.on_forced: Callable[[], None] = lambda: None
        self.downloads: list[str] = []

    def hang(self, what: str, handler: Handler, stop: threading.Event) -> None:
        """Do what a server does that never answers: nothing, until the download is given up."""
        if self.hopeless.get(handler.name) == what:
            self.downloads.append(f"{handler.name} {what}")
            assert stop.wait(20), "nobody gave the download up"
            raise ExtensionDownloadError(f"the {what} was given up", 1001)

    def fetch_manifest(self, handler: Handler, *, stop: threading.Event) -> Manifest:
        self.hang("manifest", handler, stop)
        if self.unreachable:
            raise ExtensionDownloadError("the manifest cannot be fetched", 1001)
        versions = self.packages.get(handler.name, {})
        return Manifest(tuple(ManifestVersion(version, ("http://x/",)) for version in versions), "http://x/manifest")

    def download_package(
        self,
        handler: Handler,
        version: ManifestVersion,
        manifest: Manifest,
        target: str,
        *,
        stop: threading.Event,
        check: Callable[[str], None] | None = None,
    ) -> None:
        self.hang("package", handler, stop)
        self.downloads.append(f"{handler.name} {version.version}")
        if self.unreachable:
            raise ExtensionDownloadError("the package cannot be fetched", 1001)
        data = self.packages[handler.name][version.version]
        if self.broken_downloads and handler.name not in self.sound:
            self.broken_downloads -= 1
            data = data[: len(data) // 2]
        partial = target + ".partial"
        try:
            Path(partial).write_bytes(data)
            if check is not None:
                check(partial)
            os.replace(partial, target)
        except Exception as problem:
            Path(partial).unlink(missing_ok=True)
            raise ExtensionDownloadError(f"no location has it: {problem}", 1001) from problem

    def update_goal_state(self, force: bool = False) -> bool:
        assert force, "only what was fetched before is fetched again"
        self.forced += 1
        self.on_forced()
        return False

    def fetch_on_hold(self, *, stop: threading.Event) -> bool:
        return self.on_hold

    def apart(self, function: str, arguments: dict[str, Any]) -> Any:
        module, _, name = function.partition(":")
        return json.loads(json.dumps(getattr(import_module(module), name)(**arguments)))


class FakeHooks:
    """Answers of other plugins."""

    def __init__(self) -> None:
        self.vetoes: dict[str, Veto] = {}
        self.package_veto: Veto | None = None
        self.unpacked_veto: Veto | None = None
        self.unpacked: list[tuple[Package, list[str]]] = []
        self.command_vetoes: dict[str, Veto] = {}
        self.commands: list[str] = []
        self.launcher: Launch | None = None
        self.launched: list[Any] = []
        self.ended: list[tuple[Any, Any]] = []
        self.on_before_command: Callable[[Any], None] = lambda command: None
        self.before = 0

    def before_extensions(self, agent: Any) -> None:
        self.before += 1

    def allow_extension(self, agent: Any, handler: Handler, operation: str) -> Veto | None:
        return self.vetoes.get(handler.name)

    def verify_package(self, agent: Any, package: Package) -> Veto | None:
        return self.package_veto

    def accept_package(self, agent: Any, package: Package, directory: str) -> Veto | None:
        self.unpacked.append((package, sorted(os.listdir(directory))))
        return self.unpacked_veto

    def allow_command(self, agent: Any, command: Any) -> Veto | None:
        self.commands.append(command.operation)
        return self.command_vetoes.get(command.operation)

    def before_handler_command(self, agent: Any, command: Any) -> None:
        self.on_before_command(command)

    def after_handler_command(self, agent: Any, command: Any, result: Any) -> None:
        self.ended.append((command, result))

    def launch(self, agent: Any, command: Any) -> Launch | None:
        self.launched.append(command)
        return self.launcher


class FakeConfig:
    """Configuration values."""

    def __init__(self) -> None:
        self.values = {"Extensions.Enabled": True, "EnableOverProvisioning": True}
        self.texts: dict[str, str] = {}

    def boolean(self, name: str) -> bool:
        return self.values[name]

    def text(self, name: str) -> str | None:
        return self.texts.get(name)

    def origin(self, name: str) -> Any:
        class Origin:
            file = "/etc/waagent.conf"

        return Origin


class FakeLane:
    """Runs nothing by itself."""

    def submit_once(self, key: str, fn: Callable[[], None], *, name: str = "") -> bool:
        return True


class FakeAgent:
    """What the engine sees of the worker."""

    def __init__(self, root: Path, platform: FakePlatform) -> None:
        self.paths = Paths(str(root))
        os.makedirs(self.paths.lib_dir, exist_ok=True)
        os.makedirs(os.path.dirname(self.paths.log_file), exist_ok=True)
        sinks = Sinks()
        sinks.path = self.paths.log_file
        self.log = Log(sinks, "ExtHandler")
        self.platform = platform
        self.hooks = FakeHooks()
        self.config = FakeConfig()
        self.events = self
        self.seen: list[tuple[str, str, bool, str]] = []
        self.state = State(self.paths.lib("state"))
        self.executor = Executor(Journal(self.paths.lib("journal", "worker.jsonl")), self.log)
        self.stopping = threading.Event()

    def add(self, operation: str, *, name: str = "", success: bool = True, message: str = "", **more: Any) -> None:
        self.seen.append((operation, name, success, message))

    def lane(self, name: str) -> FakeLane:
        return FakeLane()

    def request_status(self) -> None:
        pass


class Bench:
    """A machine under a directory, and one agent process after another on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trace_file = root / "trace"
        self.platform = FakePlatform()
        self.number = 0
        self.changes: list[tuple[str, str | None, str]] = []
        self.restart()

    def restart(self) -> None:
        """Start another agent process."""
        self.agent = FakeAgent(self.root, self.platform)
        self.site = Site(self.agent, "boot")  # type: ignore[arg-type]
        self.engine = Engine(self.site)
        self.reporter = Reporter(self.site, self.engine.reader)
        self.convergence = Convergence(
            self.agent.paths.lib_dir, self.agent.log, lambda *change: self.changes.append(change)
        )

    def boot(self) -> None:
        """Start the machine anew: the runtime directory is empty."""
        shutil.rmtree(self.agent.paths.run_dir, ignore_errors=True)
        self.restart()

    def publish(self, name: str, version: str, commands: Mapping[str, str] | None = None, **manifest: Any) -> None:
        """Put a version of a handler into the repository."""
        data = package(version, self.trace_file, commands, **manifest)
        self.platform.packages.setdefault(name, {})[version] = data

    def goal(self, *handlers: Handler, **more: Any) -> ExtensionsGoalState:
        """Return a new goal state."""
        self.number += 1
        return ExtensionsGoalState(
            f"incarnation_{self.number}", "WireServer", "Fabric", str(self.number), handlers=handlers, **more
        )

    def apply(self, *handlers: Handler, **more: Any) -> list[str]:
        """Process a new goal state; return the commands that ran, as ``<operation> <version>``."""
        return self.process(self.goal(*handlers, **more))

    def process(self, goal_state: ExtensionsGoalState) -> list[str]:
        before = len(self.trace())
        self.engine.offer(goal_state)
        self.engine.work()
        return [line.split("|", 1)[0] for line in self.trace()[before:]]

    def trace(self) -> list[str]:
        """Return one line per command that ran."""
        return self.trace_file.read_text().splitlines() if self.trace_file.exists() else []

    def variables(self, operation: str) -> dict[str, str]:
        """Return the variables that the last command *operation* (``update 2.0``) got."""
        line = next(line for line in reversed(self.trace()) if line.startswith(operation + "|"))
        return dict(item.split("=", 1) for item in line.split("|")[1:] if "=" in item)

    def state(self, name: str, version: str) -> str | None:
        """Return the handler's recorded state."""
        path = Path(self.agent.paths.lib_dir) / f"{name}-{version}" / "config" / "HandlerState"
        return path.read_text() if path.exists() else None

    def status(self) -> dict[str, tuple[str, int, str | None, int | None]]:
        """Return what is reported: (handler status, code, extension status, extension code) by name."""
        found = {}
        for item in self.reporter.build().handlers:
            extension = item.extension
            name = f"{item.name}.{extension.name}" if item.multi_config and extension is not None else item.name
            found[name] = (
                item.status,
                item.code,
                extension.status if extension is not None else None,
                extension.code if extension is not None else None,
            )
        return found

    def message(self, name: str) -> str:
        """Return the handler's message in the report."""
        return next(item.message or "" for item in self.reporter.build().handlers if item.name == name)

    def log(self) -> str:
        """Return the agent's log."""
        return Path(self.agent.paths.log_file).read_text()

    def handler_dir(self, name: str, version: str) -> Path:
        """Return a handler's directory."""
        return Path(self.agent.paths.lib_dir) / f"{name}-{version}"


def wanted(
    name: str, version: str, state: str = "enabled", sequence: int | None = 0, level: int = 0, **settings: Any
) -> Handler:
    """Return a single-config handler of a goal state; *sequence* ``None`` leaves its settings out."""
    if sequence is None:
        return Handler(name, version, state)
    given = ExtensionSettings(name, sequence, state=state, dependency_level=level, public={"k": "v"}, **settings)
    return Handler(name, version, state, extensions=(given,))


def multi(name: str, version: str, *extensions: tuple[str, int, str], state: str = "enabled") -> Handler:
    """Return a multi-config handler with (name, sequence number, state) of its extensions."""
    settings = tuple(ExtensionSettings(one, sequence, state=its) for one, sequence, its in extensions)
    return Handler(name, version, state, multi_config=True, extensions=settings)
