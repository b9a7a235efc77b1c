"""``waagent extensions …``: how extensions stand, what ran, and what a recorded goal state would do."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from waagent import AgentError, Command, StateError, load_goal_state, read_json
from waagent_extensions import output, records
from waagent_extensions.history import NAME as HISTORY
from waagent_extensions.history import History
from waagent_extensions.layout import HandlerDir, Layout
from waagent_extensions.settings import newest_sequence
from waagent_extensions.statusfile import StatusReader

if TYPE_CHECKING:
    import argparse

    from waagent import Agent

DONE, FAILED = 0, 1
_NOT_ROOT = "more is shown to root"


def list_extensions(agent: Agent, arguments: argparse.Namespace) -> int:
    """Print one line per extension: what the platform was told, and what goes on."""
    view = _View(agent)
    found = view.extensions()
    if arguments.json:
        return _print({"goalState": view.details.get("goalState"), "asOf": view.moment, "extensions": found})
    if not found:
        _say("there are no extensions" if view.known else view.unknown)
        return DONE if view.known else FAILED
    rows = [("NAME", "VERSION", "HANDLER", "EXTENSION", "NUMBER", "NOW")]
    for item in found:
        number = item["sequenceNumber"]
        rows.append(
            (
                item["fullName"],
                item["version"],
                _with_code(item["status"], item["code"]),
                _with_code(item["extensionStatus"], item["extensionCode"]),
                "-" if number is None else str(number),
                item["now"],
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        _say("  ".join([*(text.ljust(width) for text, width in zip(row, widths)), row[5]]).rstrip())
    _say(f"as of {view.moment}" if view.moment else view.unknown)
    return DONE


def show(agent: Agent, arguments: argparse.Namespace) -> int:
    """Print everything about one handler or extension."""
    view = _View(agent)
    document = view.everything(arguments.name)
    if document is None:
        names = ", ".join(sorted({item["fullName"] for item in view.extensions()})) or "none"
        sys.stderr.write(f"waagent: no extension is called {arguments.name!r}; there are: {names}\n")
        return FAILED
    if arguments.json:
        return _print(document)
    for key in ("handler", "version", "state", "status", "code", "message", "directory"):
        if document[key] not in (None, ""):
            _say(f"{key}: {document[key]}")
    for item in document["extensions"]:
        head = f"extension {item['name']}: " if item["name"] else "extension: "
        _say(f"{head}{_with_code(item['status'], item['code'])}, number {item['sequenceNumber']}")
        if item["message"]:
            _say(f"  {item['message']}")
    running = document["running"]
    if running:
        _say(f"running: {running['operation']} since {running['since']}, at most until {running['deadline']}")
        if running["lastLine"]:
            _say(f"  last line: {running['lastLine']}")
    elif document["now"]:
        _say(f"now: {document['now']}")
    if document["commands"]:
        _say("last commands:")
    for entry in document["commands"]:
        code = "-" if entry.get("exitCode") is None else entry["exitCode"]
        _say(
            f"  {entry.get('started') or '-'}  {entry.get('operation')} {entry.get('version')}: {entry.get('end')}, "
            f"exit code {code}, {entry.get('seconds')} s ({entry.get('command')})"
        )
    _say("logs:")
    for path in document["logs"]:
        _say(f"  {path}")
    if document["remark"]:
        _say(document["remark"])
    return DONE


def plan(agent: Agent, arguments: argparse.Namespace) -> int:
    """Print what a recorded goal state would do."""
    from waagent_extensions.forecast import outlook
    from waagent_extensions.site import failed_disables

    try:
        goal_state = load_goal_state(arguments.file)
    except (AgentError, OSError) as problem:
        reason = f"{arguments.file}: {problem.strerror}" if isinstance(problem, OSError) else str(problem)
        sys.stderr.write(f"waagent: {reason}\n")
        return FAILED
    found = outlook(agent, goal_state, failed_disables(agent))
    if arguments.json:
        return _print(found.as_json())
    _say(f"{found.goal_state}, if it came now and everything succeeded:")
    if found.obstacle:
        _say(f"  nothing would be done: {found.obstacle}")
    elif not found.units and not found.removed:
        _say("  nothing to do: there are no extensions in it")
    for unit in found.units:
        _say(f"{unit.name} {unit.version}: {unit.wanted}")
        if unit.waits_for and unit.verdict == "run":
            _say(f"  waits for {', '.join(unit.waits_for)}")
        if unit.verdict in ("refused", "invalid"):
            _say(f"  {unit.verdict}: {unit.reason}")
        elif unit.verdict == "nothing":
            _say("  nothing to do")
        for step in unit.steps:
            _say(f"  {step}")
        for note in unit.notes:
            _say(f"  note: {note}")
    for directory in found.removed:
        _say(f"remove {directory}: the goal state does not name it")
    return DONE


class _View:
    """What can be known: the copy of the status that anybody may read, and for root the handlers' own files."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._layout = Layout(agent.paths.lib_dir, agent.paths.extension_log_dir)
        self._path = agent.paths.run("status.json")
        try:
            document = read_json(self._path)
        except StateError:
            document = None
        document = document if isinstance(document, dict) else {}
        details = (document.get("details") or {}).get("extensions")
        self.details: dict[str, Any] = details if isinstance(details, dict) else {}
        self.moment: str | None = (document.get("moments") or {}).get("written") if self.details else None

    @property
    def known(self) -> bool:
        """Whether it is known which extensions there are."""
        return bool(self.details) or self._may_look()

    @property
    def unknown(self) -> str:
        """Why little is known."""
        reason = f"the service has not written {self._path} since the machine started"
        return reason if self._may_look() else f"{reason}; {_NOT_ROOT}"

    def _may_look(self) -> bool:
        return os.access(self._layout.lib_dir, os.R_OK | os.X_OK)

    def extensions(self) -> list[dict[str, Any]]:
        """Return one item per extension, as the platform was told; without the service, what is on disk."""
        found = []
        for item in self.details.get("handlers") or self._on_disk():
            extension = item.get("extension") or {}
            name = f"{item['name']}.{extension['name']}" if extension.get("name") else item["name"]
            found.append(
                {
                    "fullName": name,
                    "handler": item["name"],
                    "version": item["version"],
                    "status": item["status"],
                    "code": item["code"],
                    "extension": extension.get("name"),
                    "extensionStatus": extension.get("status"),
                    "extensionCode": extension.get("code"),
                    "sequenceNumber": extension.get("sequenceNumber"),
                    "now": self._now(name),
                }
            )
        return found

    def _on_disk(self) -> list[dict[str, Any]]:
        found = []
        for place in self._layout.installed():
            status = records.read_status(place)
            if status is not None:
                found.append(
                    {"name": place.name, "version": place.version, "status": status.status, "code": status.code}
                )
        return found

    def _now(self, full_name: str) -> str:
        running, activity = self.details.get("running") or {}, self.details.get("activity") or {}
        if running.get("extension") == full_name:
            return f"{running['operation']} runs since {running['since']}, at most until {running['deadline']}"
        if activity.get("extension") == full_name:
            return f"{activity['doing']} since {activity['since']}"
        return str((self.details.get("waiting") or {}).get(full_name) or "")

    def everything(self, name: str) -> dict[str, Any] | None:
        """Return what is known of the handler or extension *name*, or ``None`` when there is none."""
        listed = self.extensions()
        items = [item for item in listed if name in (item["fullName"], item["handler"])]
        if not items:
            folded = name.lower()
            items = [item for item in listed if folded in (item["fullName"].lower(), item["handler"].lower())]
        if not items:
            return None
        first = items[0]
        place = self._layout.handler(first["handler"], first["version"])
        status = records.read_status(place)
        may_look = self._may_look()
        return {
            "handler": place.name,
            "version": place.version,
            "state": records.read_state(place) if may_look else None,
            "status": first["status"],
            "code": first["code"],
            "message": status.message if status is not None and status.status == first["status"] else None,
            "directory": place.base,
            "extensions": [self._extension(place, item) for item in items if self._number(place, item) is not None],
            "running": self._running({item["fullName"] for item in items}),
            "now": next((item["now"] for item in items if item["now"]), ""),
            "commands": self._commands(place.name),
            "logs": _logs(place, items, self._agent.paths.log_file),
            "asOf": self.moment,
            "remark": None if may_look else _NOT_ROOT,
        }

    @staticmethod
    def _number(place: HandlerDir, item: dict[str, Any]) -> int | None:
        if item["sequenceNumber"] is not None:
            return int(item["sequenceNumber"])
        newest = newest_sequence(place, item["extension"]) if item["extensionStatus"] is None else -1
        path = place.settings_file(item["extension"], newest)
        return newest if newest >= 0 and os.path.exists(path) and os.path.getsize(path) else None

    def _extension(self, place: HandlerDir, item: dict[str, Any]) -> dict[str, Any]:
        number = self._number(place, item)
        said = None
        if number is not None and os.path.exists(place.status_file(item["extension"], number)):
            said = StatusReader(lambda: 0.0).read(place, item["extension"], number, item["fullName"])
        status = item["extensionStatus"] or (said.status if said is not None else None)
        same = said is not None and said.status == status
        return {
            "name": item["extension"],
            "sequenceNumber": number,
            "status": status,
            "code": item["extensionCode"] if item["extensionStatus"] else said.code if said is not None else None,
            "message": said.message if said is not None and same else None,
        }

    def _running(self, names: set[str]) -> dict[str, Any] | None:
        running = self.details.get("running") or {}
        if running.get("extension") not in names:
            return None
        directory = self._agent.paths.run("commands", str(running.get("id")))
        last = output.last_line(os.path.join(directory, "out"), os.path.join(directory, "err"))
        wanted = ("extension", "version", "operation", "since", "deadline")
        return {**{key: running.get(key) for key in wanted}, "lastLine": last}

    def _commands(self, handler: str) -> list[dict[str, Any]]:
        try:
            return History(self._agent.paths.lib("state", HISTORY)).read(handler)
        except OSError:
            return []


def _logs(place: HandlerDir, items: list[dict[str, Any]], agent_log: str) -> list[str]:
    own = [place.command_log(item["extension"]) for item in items]
    return [*dict.fromkeys(own), place.log_dir, agent_log]


def _with_code(status: str | None, code: Any) -> str:
    if status is None:
        return "-"
    return status if code in (0, None) else f"{status} ({code})"


def _print(document: dict[str, Any]) -> int:
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
    return DONE


def _say(line: str) -> None:
    """Print a line; what a handler wrote into it cannot steer the terminal."""
    shown = (sign if sign.isprintable() or sign in "\n\t" else ascii(sign)[1:-1] for sign in line)
    sys.stdout.write("".join(shown) + "\n")


def _takes_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _takes_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME", help="a handler, or one extension as `waagent extensions list` calls it"
    )
    _takes_json(parser)


def _takes_file(parser: argparse.ArgumentParser) -> None:
    help_text = "an ExtensionsConfig (XML) or vmSettings (JSON) document, for instance from the history directory"
    parser.add_argument("file", metavar="GOALSTATE-FILE", help=help_text)
    _takes_json(parser)


COMMANDS = (
    Command(
        "extensions list", "print every extension, how it stands and what runs", list_extensions, _takes_json, False
    ),
    Command(
        "extensions show", "print everything about one extension: commands, exit codes, logs", show, _takes_name, False
    ),
    Command("extensions plan", "print what a recorded goal state would do here, without doing it", plan, _takes_file),
)
