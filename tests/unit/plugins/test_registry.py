"""What passes as a plugin, and what is refused whole."""

from __future__ import annotations

import types

import attrs
import pytest

from waagent import HOOK_API, PluginError, hookimpl
from waagent.registry import IncompatiblePlugin, Registry, Standing, examine


@pytest.fixture
def registry():
    return Registry()


def register(registry, plugin, name="acme"):
    return registry.register(examine(plugin, name), Standing(name))


def module(**functions):
    found = types.ModuleType("acme_module")
    for name, function in functions.items():
        setattr(found, name, function)
    return found


@hookimpl
def on_start(agent):
    return agent


@hookimpl
def with_typo(agent, goal_stat):
    return goal_stat


with_typo.__name__ = "on_goal_state"


def test_a_module_and_an_instance_can_be_plugins(registry):
    class Plugin:
        @hookimpl
        def on_start(self, agent):
            return agent

        @staticmethod
        @hookimpl
        def on_stop(agent):
            return agent

        @classmethod
        @hookimpl
        def service_name(cls):
            return cls.__name__

    assert register(registry, module(on_start=on_start), "module") == ("on_start",)
    assert set(register(registry, Plugin(), "instance")) == {"on_start", "on_stop", "service_name"}
    assert [one.plugin for one in registry.implementations("on_start")] == ["instance", "module"]
    assert [one.function() for one in registry.implementations("service_name")] == ["Plugin"]


def test_attrs_classes_with_equality_are_plugins_like_any_other(registry):
    @attrs.define
    class Plugin:
        value: int

        @hookimpl
        def on_start(self, agent):
            return self.value

    register(registry, Plugin(1), "one")
    register(registry, Plugin(1), "two")
    assert [one.plugin for one in registry.implementations("on_start")] == ["one", "two"]
    registry.unregister("one")
    assert [one.plugin for one in registry.implementations("on_start")] == ["two"]


def test_no_property_of_a_plugin_is_run(registry):
    class Plugin:
        @property
        def disk(self):
            raise AssertionError("it was run")

        @hookimpl
        def on_start(self, agent):
            return None

    assert register(registry, Plugin()) == ("on_start",)


def defaults(agent, goal_state=None):
    return None


def keyword_only(agent, *, goal_state):
    return None


def variable(agent, **rest):
    return None


def unknown_argument(agent, goal_stat):
    return None


def fine(agent):
    return None


@pytest.mark.parametrize(
    ("functions", "said"),
    [
        ({"on_goal_state": hookimpl(defaults)}, "on_goal_state gives defaults to goal_state"),
        ({"on_goal_state": hookimpl(keyword_only)}, "on_goal_state has keyword-only or variable arguments"),
        ({"on_goal_state": hookimpl(variable)}, "on_goal_state has keyword-only or variable arguments"),
        ({"on_goal_state": hookimpl(unknown_argument)}, "goal_stat"),
        ({"on_golestate": hookimpl(fine)}, "on_golestate"),
        ({}, "it implements no hook"),
    ],
)
def test_a_plugin_that_breaks_a_rule_is_refused_whole(registry, functions, said):
    good = hookimpl(lambda agent: None)
    good.__name__ = "on_start"
    given = {"on_start": good, **functions} if functions else {}
    with pytest.raises(PluginError, match=said) as caught:
        register(registry, module(**given))
    assert caught.value.plugin == "acme"
    assert registry.implementations("on_start") == ()
    assert registry.implementations("on_goal_state") == ()
    register(registry, module(on_start=on_start))  # the name is free, and nothing was left behind


def test_wrappers_are_refused(registry):
    @hookimpl(hookwrapper=True)
    def around(agent):
        yield

    with pytest.raises(PluginError, match="on_start is a wrapper"):
        register(registry, module(on_start=around))


def test_two_functions_for_one_hook_are_refused(registry):
    @hookimpl(specname="on_start")
    def other(agent):
        return None

    with pytest.raises(PluginError, match="on_start is implemented twice"):
        register(registry, module(on_start=on_start, other=other))
    assert registry.implementations("on_start") == ()


def test_a_hook_of_newer_agents_can_be_marked_optional(registry):
    @hookimpl(optionalhook=True)
    def on_hibernation(agent):
        return None

    assert register(registry, module(on_start=on_start, on_hibernation=on_hibernation)) == ("on_start",)


def test_a_class_is_no_plugin():
    class Plugin:
        @hookimpl
        def on_start(self, agent):
            return None

    with pytest.raises(PluginError, match="names a class"):
        examine(Plugin, "acme")


def test_a_plugin_may_ask_for_the_interface_it_needs(registry):
    plugin = module(on_start=on_start)
    plugin.waagent_hook_api = HOOK_API
    assert register(registry, plugin) == ("on_start",)
    plugin.waagent_hook_api = HOOK_API + 1
    with pytest.raises(IncompatiblePlugin, match=f"needs hook interface {HOOK_API + 1}, this agent has {HOOK_API}"):
        examine(plugin, "acme")
    plugin.waagent_hook_api = "new"
    with pytest.raises(PluginError, match="is no number"):
        examine(plugin, "acme")


def test_a_name_can_be_registered_once(registry):
    register(registry, module(on_start=on_start))
    with pytest.raises(PluginError, match="registered already"):
        register(registry, module(on_start=on_start))
    assert len(registry.implementations("on_start")) == 1
