"""The façade: order, containment and the meaning of answers."""

from __future__ import annotations

import types

import pytest

from waagent import HealthCheck, Launch, NoAnswer, Option, Periodic, Plan, PluginError, StatusReport, Veto, hookimpl
from waagent.containment import Containment
from waagent.hooks import Hooks
from waagent.registry import DISTROS, Registry, Standing, examine


class Plugins:
    """A registry that takes functions: ``add("acme", on_start=...)``."""

    def __init__(self, log):
        self.registry = Registry()
        self.containment = Containment(log)
        self.hooks = Hooks(self.registry, self.containment)

    def add(self, name, *, first_party=False, group=None, level=0, beside=False, any_root=False, **functions):
        plugin = types.ModuleType(name)
        plugin.waagent_any_root = any_root
        for hook, function in functions.items():
            function.__name__ = hook
            setattr(plugin, hook, hookimpl(function))
        standing = Standing(name, first_party, group or "waagent.plugins", level, beside)
        self.registry.register(examine(plugin, name), standing)

    def everybody(self, hook, make):
        """Register one plugin of each kind, in an order that means nothing."""
        for name, given in {
            "telemetry": {"first_party": True},
            "zeta": {},
            "ubuntu": {"first_party": True, "group": DISTROS, "level": 2},
            "alpha": {},
            "linux": {"first_party": True, "group": DISTROS, "level": 0},
            "debian.acme": {"group": DISTROS, "level": 1, "beside": True},
            "extensions": {"first_party": True},
            "debian": {"first_party": True, "group": DISTROS, "level": 1},
            "provisioning": {"first_party": True},
            "brandnew": {"first_party": True},
        }.items():
            self.add(name, **given, **{hook: make(name)})


@pytest.fixture
def plugins(log):
    return Plugins(log)


@pytest.fixture
def hooks(plugins):
    return plugins.hooks


def raising(agent):
    raise ValueError("no luck")


AGENT = object()
DECISION_ORDER = [
    "alpha", "zeta", "ubuntu", "debian.acme", "debian", "linux", "provisioning", "extensions", "telemetry", "brandnew",
]  # fmt: skip
EVENT_ORDER = [
    "linux", "debian", "ubuntu", "provisioning", "extensions", "telemetry", "brandnew", "alpha", "debian.acme", "zeta",
]  # fmt: skip


def test_events_reach_ours_in_a_fixed_order_then_third_parties_by_name(plugins, hooks):
    called = []
    plugins.everybody("on_start", lambda name: lambda agent: called.append(name))
    hooks.on_start(AGENT)
    assert called == EVENT_ORDER


def test_operations_and_vetoes_ask_third_parties_then_from_special_to_general(plugins, hooks):
    asked = []
    plugins.everybody("service_name", lambda name: lambda agent: asked.append(name))
    with pytest.raises(NoAnswer):
        hooks.call_operation("service_name", {"agent": AGENT})
    assert asked == DECISION_ORDER


def test_vetoes_are_asked_in_the_same_order(plugins, hooks):
    asked = []
    plugins.everybody("decide_resource_disk", lambda name: lambda agent, facts: asked.append(name))
    assert hooks.decide_resource_disk(AGENT, {}) is None
    assert asked == DECISION_ORDER


def test_tryfirst_does_not_change_the_order(plugins, hooks):
    called = []

    class Late:
        @hookimpl(tryfirst=True)
        def on_start(self):
            called.append("zeta")

    plugins.add("alpha", on_start=lambda: called.append("alpha"))
    plugins.registry.register(examine(Late(), "zeta"), Standing("zeta"))
    hooks.on_start(AGENT)
    assert called == ["alpha", "zeta"]


def test_one_failure_keeps_nobody_else_from_being_called(plugins, hooks, lines):
    called = []
    plugins.add("a", on_start=lambda agent: called.append("a"))
    plugins.add("b", on_start=raising)
    plugins.add("c", on_start=lambda agent: called.append("c"))
    hooks.on_start(AGENT)
    assert called == ["a", "c"]
    assert lines.having("WARNING plugin b failed in on_start: ValueError: no luck")
    assert hooks.problems() == ["plugin b: on_start: ValueError: no luck"]
    assert hooks.failing("on_start") == {"b": "on_start: ValueError: no luck"}


def test_implementations_get_the_arguments_they_name(plugins, hooks):
    got = []
    plugins.add("a", on_extension_status=lambda status, handler: got.append((handler, status)))
    plugins.add("b", on_extension_status=lambda: got.append("nothing"))
    hooks.on_extension_status(AGENT, "Acme.Backup", None, "error")
    assert got == [("Acme.Backup", "error"), "nothing"]


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (None, []),
        (Option("A.B", "int", 1, ""), ["A.B"]),
        ([Option("A.B", "int", 1, ""), Option("A.C", "int", 1, "")], ["A.B", "A.C"]),
        ((), []),
        ((Option(f"A.{n}", "int", 1, "") for n in "BC"), ["A.B", "A.C"]),
    ],
)
def test_a_contribution_is_nothing_one_record_or_several(plugins, hooks, answer, names):
    plugins.add("acme", declare_options=lambda: answer)
    assert [(plugin, option.name) for plugin, option in hooks.declare_options()] == [("acme", name) for name in names]


@pytest.mark.parametrize("answer", [True, "A.B", 3, {"A.B": 1}, [Option("A.B", "int", 1, ""), "A.C"]])
def test_a_contribution_of_another_kind_is_a_failure_of_its_plugin(plugins, hooks, lines, answer):
    plugins.add("acme", declare_options=lambda: answer)
    plugins.add("fine", declare_options=lambda: Option("F.X", "int", 1, ""))
    assert [plugin for plugin, _ in hooks.declare_options()] == ["fine"]
    assert lines.having("WARNING plugin acme failed in declare_options", "Option")


def test_a_generator_that_raises_half_way_gives_nothing(plugins, hooks, lines):
    def halfway():
        yield Option("A.B", "int", 1, "")
        raise ValueError("half way")

    plugins.add("acme", declare_options=halfway)
    assert hooks.declare_options() == []
    assert lines.having("WARNING plugin acme failed in declare_options: ValueError: half way")


def test_plans_come_with_the_plugin_that_wants_them(plugins, hooks):
    plan = Plan("motd", probe=dict, planner=lambda facts: [])
    plugins.add("acme", on_boot=lambda agent: [plan])
    plugins.add("lazy", on_boot=lambda agent: None)
    assert hooks.on_boot(AGENT) == [("acme", plan)]


def test_deprovisioning_does_not_begin_when_a_plugin_cannot_say_what_it_removes(plugins, hooks):
    plugins.add("acme", on_deprovision=lambda: Plan("x", probe=dict, planner=lambda facts: []))
    plugins.add("bad", on_deprovision=lambda agent: raising(agent))
    with pytest.raises(NoAnswer, match="bad: ValueError: no luck"):
        hooks.on_deprovision(AGENT, delete_user=False)


def test_a_failed_health_check_is_itself_a_check(plugins, hooks):
    plugins.add("acme", check_health=lambda agent: HealthCheck("acme.disk", "ok", "fine"))
    plugins.add("bad", check_health=raising)
    found = {check.id: check.result for _plugin, check in hooks.check_health(AGENT)}
    assert found == {"acme.disk": "ok", "plugins.bad": "failed"}


def test_status_parts_are_collected_and_a_failing_plugin_is_backed_off(plugins, hooks):
    calls = []

    def bad(agent):
        calls.append(1)
        raise ValueError("no luck")

    plugins.add("bad", report_status=bad)
    plugins.add("good", report_status=lambda agent: StatusReport(details={"x": 1}))
    for _ in range(20):
        assert [plugin for plugin, _ in hooks.report_status(AGENT)] == ["good"]
    assert 5 < len(calls) < 10
    assert hooks.problems() == ["plugin bad: report_status: ValueError: no luck"]


def test_the_first_veto_counts_and_nobody_else_is_asked(plugins, hooks):
    asked = []
    plugins.add("a", verify_package=lambda package: asked.append("a"))
    plugins.add("b", verify_package=lambda package: Veto("not signed", 7))
    plugins.add("c", verify_package=lambda package: asked.append("c"))
    assert hooks.verify_package(AGENT, object()) == Veto("not signed", 7)
    assert asked == ["a"]


def test_nobody_objects_when_nobody_is_there(hooks):
    assert hooks.allow_extension(AGENT, object(), "install") is None
    assert hooks.select_provisioner(AGENT) is None


def test_a_failing_veto_is_no_permission(plugins, hooks):
    plugins.add("a", allow_extension=raising)
    plugins.add("b", allow_extension=lambda handler: None)
    with pytest.raises(NoAnswer, match="allow_extension: no plugin answered; a: ValueError: no luck") as caught:
        hooks.allow_extension(AGENT, object(), "install")
    assert caught.value.plugin == "a"


def test_a_veto_after_a_failure_is_the_veto(plugins, hooks):
    plugins.add("a", allow_extension=raising)
    plugins.add("b", allow_extension=lambda handler: Veto("no"))
    assert hooks.allow_extension(AGENT, object(), "install") == Veto("no")


@pytest.mark.parametrize("answer", [False, True, "no", 0])
def test_a_veto_of_another_kind_is_no_permission(plugins, hooks, answer):
    plugins.add("a", allow_extension=lambda handler: answer)
    with pytest.raises(NoAnswer, match="instead of Veto or None"):
        hooks.allow_extension(AGENT, object(), "install")


def test_a_plugin_that_fails_in_launch_does_not_keep_commands_from_starting(plugins, hooks):
    plugins.add("a", launch=raising)
    assert hooks.launch(AGENT, object()) is None
    plugins.add("b", launch=lambda command: Launch(("nice",), None))
    assert hooks.launch(AGENT, object()) == Launch(("nice",), None)


def test_a_failed_operation_falls_through_to_the_next_implementation(plugins, hooks, lines):
    plugins.add("linux", group=DISTROS, first_party=True, set_hostname=lambda hostname: True)
    plugins.add("debian", group=DISTROS, first_party=True, level=1, set_hostname=raising)
    assert hooks.call_operation("set_hostname", {"agent": AGENT, "hostname": "web1"}) is True
    assert lines.having("WARNING plugin debian failed in set_hostname")


@pytest.mark.parametrize("answer", [False, 0, "", ()])
def test_an_operation_may_answer_something_false(plugins, hooks, answer):
    plugins.add("linux", group=DISTROS, find_resource_disk=lambda: answer)
    assert hooks.call_operation("find_resource_disk", {"agent": AGENT}) == answer


def test_an_operation_nobody_answers_says_why(plugins, hooks):
    with pytest.raises(NoAnswer, match="no plugin implements it here"):
        hooks.call_operation("service_name", {"agent": AGENT})
    plugins.add("a", service_name=lambda: None)
    with pytest.raises(NoAnswer, match="every plugin left it to another"):
        hooks.call_operation("service_name", {"agent": AGENT})
    plugins.add("b", service_name=raising)
    plugins.add("c", service_name=lambda: 1 / 0)
    with pytest.raises(NoAnswer, match=r"b: ValueError: no luck; c: ZeroDivisionError") as caught:
        hooks.call_operation("service_name", {"agent": AGENT})
    assert caught.value.plugin == "b, c"


def test_an_unknown_hook_is_the_callers_fault(hooks):
    with pytest.raises(PluginError, match="there is no hook frobnicate"):
        hooks.call_operation("frobnicate", {})


def test_a_duty_runs_contained_and_is_backed_off(plugins, hooks):
    runs = []

    def run(agent):
        runs.append(agent)
        raise ValueError("no luck")

    duty = Periodic("look", 60, run)
    for _ in range(20):
        hooks.run_duty("acme", duty, AGENT)
    assert 5 < len(runs) < 10
    assert hooks.problems() == ["plugin acme: periodic look: ValueError: no luck"]
