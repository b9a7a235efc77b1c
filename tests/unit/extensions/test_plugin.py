"""The plugin as the core sees it, and what it does beside goal states."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from tests.unit.extensions.fakes import Bench, multi, wanted
from waagent import GoalState
from waagent_extensions import cleanup, handlerlog, health
from waagent_extensions.convergence import Convergence
from waagent_extensions.layout import HandlerDir
from waagent_extensions.plugin import ExtensionsPlugin

NAME = "Contoso.Tools.Sample"


class Lane:
    """Runs at once."""

    def submit(self, fn: Any, *, name: str) -> bool:
        fn()
        return True

    def submit_once(self, key: str, fn: Any, *, name: str) -> bool:
        return self.submit(fn, name=name)


def test_from_goal_state_to_status_through_the_hooks(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    told: list[tuple[str, str | None, str]] = []
    agent: Any = bench.agent
    agent.lane = lambda name: Lane()
    agent.hooks.on_extension_status = lambda agent, handler, extension, status: told.append(
        (handler, extension, status)
    )
    plugin = ExtensionsPlugin()
    assert plugin.report_status(agent) is None
    plugin.on_start(agent)
    before = plugin.report_status(agent)
    assert before is not None
    assert before.handlers == ()
    assert before.goal_state is None, "nothing is said about a goal state that was not processed"
    plugin.on_goal_state(agent, GoalState("1", "c", "r", "x", bench.goal(wanted(NAME, "1.4.2"))))
    report = plugin.report_status(agent)
    assert report is not None
    assert [(item.name, item.status) for item in report.handlers] == [(NAME, "Ready")]
    assert told == [(NAME, None, "success")]
    assert (Path(agent.paths.lib_dir) / "initial_goal_state").exists()
    plugin.on_stop(agent)


def test_a_command_left_running_keeps_its_time_limit_though_no_goal_state_comes(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2", {"install": "echo $$ >running; sleep 60"})
    goal = bench.goal(wanted(NAME, "1.4.2"))
    bench.engine.offer(goal)
    thread = threading.Thread(target=bench.engine.work)
    thread.start()
    running = bench.handler_dir(NAME, "1.4.2") / "running"
    deadline = time.monotonic() + 10
    while not running.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    bench.engine.stop()
    thread.join(10)
    # As if it had been started long ago.
    known = bench.site.runner.known()[0]
    document = Path(bench.site.runner.path(known.id)) / "command.json"
    document.write_text(document.read_text().replace('"started_monotonic": ', '"started_monotonic": -'))
    bench.restart()
    bench.engine.attend()
    assert bench.process(goal) == []
    assert bench.status()[NAME][:2] == ("NotReady", 1011)


def test_another_machine_in_the_same_image_starts_without_old_sequence_numbers(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    bench.apply(wanted(NAME, "1.4.2", sequence=7))
    base = bench.handler_dir(NAME, "1.4.2")
    (base / "mrseq").write_text("7")
    plan = ExtensionsPlugin().on_vm_identity_change(bench.agent, "old", "new")  # type: ignore[arg-type]
    assert bench.agent.executor.run(plan).ok
    left = sorted(str(path.relative_to(base)) for path in base.rglob("*") if path.is_file())
    assert left == ["HandlerEnvironment.json", "HandlerManifest.json", "bin/run", "config/HandlerState"]
    assert bench.agent.executor.run(plan).steps == []


def test_doctor_names_handlers_that_failed(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2", {"enable": "exit 1"})
    bench.apply(wanted(NAME, "1.4.2"))
    found = {check.id: check for check in health.checks(bench.agent.paths.lib_dir, "/var/log/azure")}
    assert found["extensions.handlers"].result == "warning"
    assert f"{NAME}-1.4.2 (1009)" in found["extensions.handlers"].detail


def test_what_a_kill_and_very_old_agents_left_is_set_straight(bench: Bench) -> None:
    lib = Path(bench.agent.paths.lib_dir)
    (lib / f".{NAME}-1.0.removed" / "bin").mkdir(parents=True)
    for name in (NAME, "Contoso"):
        (lib / f"{name}__3.0.zip.partial").write_bytes(b"no zip yet")
    (lib / f"{NAME}-2.0" / "config").mkdir(parents=True)
    old = lib / "handler_state" / f"{NAME}-2.0"
    old.mkdir(parents=True)
    (old / "state").write_text("Enabled")
    cleanup.recover(bench.site.layout, bench.agent.log)
    assert sorted(path.name for path in lib.iterdir() if "Contoso" in path.name) == [f"{NAME}-2.0"]
    assert bench.state(NAME, "2.0") == "Enabled"
    assert not (lib / "handler_state").exists()


def test_the_command_log_is_cut_to_its_last_lines(tmp_path: Path, bench: Bench) -> None:
    handler = HandlerDir(str(tmp_path / "lib"), str(tmp_path / "log"), NAME, "1.0")
    path = Path(handler.command_log(None))
    path.parent.mkdir(parents=True)
    line = "x" * 99 + "\n"
    path.write_text("first\n" + line * (handlerlog.LIMIT // 100 + 50))
    handlerlog.handler_log(bench.agent.log, handler).info("last")
    text = path.read_text()
    assert handlerlog.LIMIT - 200 < len(text) <= handlerlog.LIMIT + 200
    assert text.startswith(line)
    assert text.endswith("last\n")


def test_a_full_name_stands_before_the_version_of_a_multi_config_line(bench: Bench) -> None:
    bench.publish(NAME, "1.0", supportsMultipleExtensions=True)
    bench.apply(multi(NAME, "1.0", ("jobA", 0, "enabled")))
    assert f"[{NAME}.jobA-1.0] Requested extension state: enabled" in bench.log()
    logs = os.listdir(os.path.join(bench.agent.paths.extension_log_dir, NAME))
    assert "CommandExecution_jobA.log" in logs


def test_a_status_that_comes_and_goes_is_told_each_time(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2", {"enable": ":"})
    goal = bench.goal(wanted(NAME, "1.4.2"))
    bench.process(goal)
    assert isinstance(bench.convergence, Convergence)
    bench.convergence.look(goal, bench.reporter.build().handlers, True)
    status = bench.handler_dir(NAME, "1.4.2") / "status" / "0.status"
    status.write_text('[{"status":{"status":"success"}}]')
    bench.convergence.look(goal, bench.reporter.build().handlers, True)
    assert bench.changes == [(NAME, None, "transitioning"), (NAME, None, "success")]
    assert "All extensions in the goal state have reached a terminal state" in bench.log()


def test_a_new_goal_state_before_the_last_one_is_through_is_worth_a_warning(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2", {"enable": ":"})
    bench.apply(wanted(NAME, "1.4.2"))
    bench.apply(wanted(NAME, "1.4.2", sequence=1))
    assert "but not all the extensions in the previous goal state (incarnation_1) have completed" in bench.log()
