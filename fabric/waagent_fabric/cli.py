"""The command ``waagent-fabric``: serve a platform, and steer and watch one that runs."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

LISTS = ("requests", "statuses", "health", "observations", "roles", "telemetry", "violations")


class CommandFailed(Exception):
    """A command that cannot be done; the text is for the user."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="waagent-fabric", description="An embedded Azure platform for guest agents: serve one, steer it, watch it."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve a platform until interrupted")
    serve.add_argument(
        "--address", choices=("loopback", "real"), default="loopback",
        help="free ports on 127.0.0.1, or the platform's own addresses, which must be on an interface",
    )  # fmt: skip
    serve.add_argument("--scenario", metavar="FILE.json", help="packages, goal states and faults to begin with")
    serve.add_argument("--port-file", metavar="FILE", help="write the addresses here as JSON, once all are served")
    serve.add_argument("--conf-file", metavar="FILE", help="write the lines of waagent.conf that lead an agent here")
    serve.add_argument("--control-port", type=int, default=0, metavar="N", help="port of the control endpoint")
    serve.add_argument("--blob-port", type=int, default=0, metavar="N", help="port of the blob store")

    def client(name: str, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text)
        made.add_argument(
            "--at", metavar="HOST:PORT|FILE", default=os.environ.get("WAAGENT_FABRIC"),
            help="control endpoint, or the port file of the serving one (default: $WAAGENT_FABRIC)",
        )  # fmt: skip
        return made

    publish = client("publish", "publish a goal state")
    publish.add_argument("file", metavar="FILE.json|-", help="the goal state, with its packages if it needs new ones")

    status = client("status", "print the last status document, or what else was seen, as JSON")
    status.add_argument("--show", choices=LISTS, help="a list instead of the last status")
    status.add_argument("--last", type=int, metavar="N", help="only the newest N of the list")
    status.add_argument("--wait", type=float, metavar="SECONDS", help="wait so long for a status if there is none")

    fault = client("fault", "inject a fault, or end all")
    what = fault.add_mutually_exclusive_group(required=True)
    what.add_argument("json", nargs="?", metavar="JSON", help='for instance \'{"kind": "status", "statuses": [503]}\'')
    what.add_argument("--clear", action="store_true", help="end all faults")

    move = client("reallocate", "move the machine: new container id")
    move.add_argument("--incarnation", type=int, metavar="N", help="the incarnation it starts again with")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, 1 when it failed, 2 for wrong usage, 3 when something was violated."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "serve":
            return _serve(arguments)
        return _client(arguments)
    except (CommandFailed, OSError, ValueError) as error:
        print(f"waagent-fabric: {error}", file=sys.stderr)
        return 1


# -- serving


def _write(path: str, text: str) -> None:
    """Write *path* whole, so that whoever waits for it never reads half."""
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


def _serve(arguments: argparse.Namespace) -> int:
    from waagent_fabric import scenario
    from waagent_fabric.api import Fabric
    from waagent_fabric.control import Control

    plan = scenario.load(arguments.scenario) if arguments.scenario else scenario.Scenario()
    options = {"vm": plan.vm, **plan.fabric_options}
    if arguments.address == "real":
        fabric = Fabric.at_real_addresses(arguments.blob_port or 10000, **options)
    else:
        fabric = Fabric(blob_port=arguments.blob_port, **options)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with fabric, Control(fabric, arguments.control_port) as control:
        timers = []
        for seconds, publish in plan.begin(fabric):
            timers.append(threading.Timer(seconds, publish))
            timers[-1].daemon = True
            timers[-1].start()
        text = json.dumps({**control.info(), "pid": os.getpid()}, indent=2) + "\n"
        if arguments.conf_file:
            _write(arguments.conf_file, fabric.conf())
        if arguments.port_file:
            _write(arguments.port_file, text)
        print(text, end="", flush=True)
        while not ended.wait(3600):
            pass
        for timer in timers:
            timer.cancel()
        violations = list(fabric.violations)
    for violation in violations:
        print(f"violation: {violation}", file=sys.stderr)
    return 3 if violations else 0


# -- talking to one that serves


def _endpoint(at: str | None) -> str:
    if not at:
        raise CommandFailed("say where with --at HOST:PORT, --at PORT-FILE or $WAAGENT_FABRIC")
    if os.path.exists(at):
        with open(at, encoding="utf-8") as file:
            return str(json.load(file)["control"])
    return at


def _ask(at: str, method: str, path: str, body: Any = None) -> Any:
    host, _, port = at.rpartition(":")
    if not host or not port.isdigit():
        raise CommandFailed(f"{at!r} is neither a file nor HOST:PORT")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        value = json.loads(response.read())
    finally:
        connection.close()
    if response.status != 200:
        raise CommandFailed(value.get("error", f"{method} {path}: {response.status}"))
    return value


def _client(arguments: argparse.Namespace) -> int:
    at = _endpoint(arguments.at)
    if arguments.command == "publish":
        if arguments.file == "-":
            goal_state = json.load(sys.stdin)
        else:
            with open(arguments.file, encoding="utf-8") as file:
                goal_state = json.load(file)
        answer = _ask(at, "POST", "/publish", goal_state)
    elif arguments.command == "fault":
        answer = _ask(at, "DELETE", "/faults") if arguments.clear else _ask(
            at, "POST", "/faults", json.loads(arguments.json)
        )  # fmt: skip
    elif arguments.command == "reallocate":
        body = {} if arguments.incarnation is None else {"incarnation": arguments.incarnation}
        answer = _ask(at, "POST", "/reallocate", body)
    elif arguments.show:
        limit = f"?last={arguments.last}" if arguments.last else ""
        answer = _ask(at, "GET", f"/{arguments.show}{limit}")
    else:
        answer = _status(at, arguments.wait or 0.0)
    print(json.dumps(answer, indent=2))
    return 0


def _status(at: str, wait: float) -> Any:
    deadline = time.monotonic() + wait
    while True:
        answer = _ask(at, "GET", "/status")
        if answer is not None or time.monotonic() >= deadline:
            break
        time.sleep(0.2)
    if answer is None:
        raise CommandFailed("no status was reported yet")
    return answer


if __name__ == "__main__":
    sys.exit(main())
