"""Installed distributions on disk, good and bad: what is imported, what is not, and what is said about it."""

from __future__ import annotations

import os
import sys

import pytest

from waagent import HOOK_API, StateError, hookimpl, plugins
from waagent.plugins import PluginHost

GOOD = """
from waagent import hookimpl

@hookimpl
def on_start(agent):
    agent.append(__name__)
"""


def marking(path):
    """Return a module that leaves a file behind when it is imported."""
    return f"open({str(path)!r}, 'w').close()\n" + GOOD


def state(host, name):
    return host.plugin(name).state


def started(host):
    called = []
    host.hooks.on_start(called)
    return called


def test_an_installed_plugin_is_on_and_says_where_it_comes_from(machine, lines):
    machine.install("Acme-Waagent", {"acme": "acme_good"}, {"acme_good.py": GOOD}, version="1.2")
    host = machine.loaded()
    info = host.plugin("acme")
    assert (info.state, info.loaded, info.hooks) == ("on", True, ("on_start",))
    assert (info.distribution, info.version, info.first_party) == ("Acme-Waagent", "1.2", False)
    assert started(host) == ["acme_good"]
    assert not lines.having("WARNING")


def test_a_plugin_may_be_an_attribute_of_a_module(machine):
    machine.install(
        "acme", {"acme": "acme_pkg.deep:holder.plugin"},
        {"acme_pkg/__init__.py": "", "acme_pkg/deep.py": GOOD + """
class Plugin:
    @hookimpl
    def on_start(self, agent):
        agent.append("instance")

class holder:
    plugin = Plugin()
"""},
    )  # fmt: skip
    assert started(machine.loaded()) == ["instance"]


def test_ours_are_recognised_by_their_distribution(machine):
    machine.install("waagent", {"extensions": "acme_ours"}, {"acme_ours.py": GOOD}, version="3.0.0")
    assert machine.loaded().plugin("extensions").first_party


@pytest.mark.parametrize(
    "conf",
    ["Plugins.Disabled=acme", "Plugins.Disabled=*", "Plugins.ThirdParty=listed", "Plugins.ThirdParty=Listed"],
)
def test_what_is_off_is_never_imported(machine, tmp_path, conf):
    machine.write("etc/waagent.conf", f"# a comment\n{conf}\n")
    machine.install("acme", {"acme": "acme_mark"}, {"acme_mark.py": marking(tmp_path / "imported")})
    host = machine.loaded()
    info = host.plugin("acme")
    assert (info.state, info.file, info.line) == ("off", str(machine.root / "etc/waagent.conf"), 2)
    assert not (tmp_path / "imported").exists()
    assert started(host) == []


@pytest.mark.parametrize("word", ["all", "", "None"])
def test_third_parties_are_on_by_default(machine, word):
    machine.write("etc/waagent.conf", f"Plugins.ThirdParty={word}\n")
    machine.install("acme", {"acme": "acme_good"}, {"acme_good.py": GOOD})
    assert state(machine.loaded(), "acme") == "on"


def test_the_same_plugin_is_imported_when_nothing_says_no(machine, tmp_path):
    machine.install("acme", {"acme": "acme_mark"}, {"acme_mark.py": marking(tmp_path / "imported")})
    machine.host()
    assert not (tmp_path / "imported").exists(), "looking is not importing"
    machine.loaded()
    assert (tmp_path / "imported").exists()


def test_a_hardened_image_loads_the_third_parties_it_names(machine):
    machine.write("etc/waagent.conf", "Plugins.ThirdParty=listed\nPlugins.Enabled=acme\n")
    machine.install("acme", {"acme": "acme_good", "beta": "acme_beta"}, {"acme_good.py": GOOD, "acme_beta.py": GOOD})
    machine.install("waagent", {"extensions": "acme_ours"}, {"acme_ours.py": GOOD})
    host = machine.loaded()
    assert [(info.name, info.state) for info in host.listing()] == [
        ("acme", "on"),
        ("beta", "off"),
        ("extensions", "on"),
    ]


def test_a_vendors_no_is_named_with_file_and_line_and_an_administrator_overrules_it(machine):
    vendor = machine.write("usr/lib/waagent/conf.d/10-image.conf", "\nPlugins.Disabled=acme\n")
    machine.install("acme", {"acme": "acme_good"}, {"acme_good.py": GOOD})
    info = machine.loaded().plugin("acme")
    assert (info.state, info.file, info.line) == ("off", str(vendor), 2)
    machine.write("etc/waagent.conf.d/90-mine.conf", "Plugins.Enabled=acme\n")
    assert state(machine.loaded(), "acme") == "on"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import acme_no_such_thing", "ModuleNotFoundError: No module named 'acme_no_such_thing'"),
        ("raise ImportError('libacme.so.1 is missing')", "ImportError: libacme.so.1 is missing"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("assert False, 'not on this machine'", "AssertionError: not on this machine"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("def broken(:", "SyntaxError"),
        ("from waagent import hookimpl\n@hookimpl\ndef on_start(agent, clock): pass", "clock"),
        ("from waagent import hookimpl\n@hookimpl\ndef on_strat(agent): pass", "on_strat"),
        ("from waagent import hookimpl\n@hookimpl\ndef on_start(agent=None): pass", "gives defaults to agent"),
        ("from waagent import hookimpl\n@hookimpl(hookwrapper=True)\ndef on_start(agent): yield", "wrapper"),
        ("x = 1", "it implements no hook"),
        ("def __dir__(): raise ValueError('no list')", "ValueError: no list"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_costs_only_itself(machine, lines, body, said):
    machine.install("acme-bad", {"bad": "acme_bad"}, {"acme_bad.py": body + "\n"})
    machine.install("acme", {"acme": "acme_good"}, {"acme_good.py": GOOD})
    host = machine.loaded()
    bad = host.plugin("bad")
    assert bad.state == "failed"
    assert said in bad.reason
    assert lines.having("WARNING plugin bad (acme-bad 1.0)", said)
    assert started(host) == ["acme_good"]


def test_an_attribute_that_is_not_there_and_a_class_are_failures(machine):
    machine.install(
        "acme", {"gone": "acme_good:nothing", "kind": "acme_good:Kind"}, {"acme_good.py": GOOD + "class Kind: pass\n"}
    )
    host = machine.loaded()
    assert state(host, "gone") == state(host, "kind") == "failed"
    assert "names a class" in host.plugin("kind").reason


def test_a_plugin_for_a_newer_agent_is_incompatible(machine):
    machine.install("acme", {"acme": "acme_new"}, {"acme_new.py": f"{GOOD}\nwaagent_hook_api = {HOOK_API + 1}\n"})
    info = machine.loaded().plugin("acme")
    assert info.state == "incompatible"
    assert "update waagent" in info.reason


def test_a_distribution_that_leaves_a_package_out_gets_no_warning(machine, lines):
    machine.install("waagent", {"extensions": "acme_not_packaged.plugin:plugin"})
    host = machine.loaded()
    assert state(host, "extensions") == "absent"
    assert not lines.having("WARNING")
    assert lines.having("INFO plugin extensions (waagent 1.0) is not installed")


def test_a_missing_part_of_a_package_that_is_there_is_a_failure(machine):
    machine.install("acme", {"acme": "acme_part.plugin"}, {"acme_part/__init__.py": ""})
    assert state(machine.loaded(), "acme") == "failed"


def test_two_plugins_of_one_name_are_both_refused_and_both_named(machine, lines):
    machine.install("acme-one", {"acme": "acme_one"}, {"acme_one.py": GOOD})
    machine.install("acme-two", {"acme": "acme_two"}, {"acme_two.py": GOOD}, group="waagent.distros", version="2.0")
    host = machine.loaded()
    info = host.plugin("acme")
    assert (info.state, info.loaded) == ("duplicate", False)
    assert "acme-one 1.0" in info.reason
    assert "acme-two 2.0" in info.reason
    assert lines.having("WARNING plugin acme is not loaded", "acme-one 1.0", "acme-two 2.0")
    assert started(host) == []
    assert "acme_one" not in sys.modules


def test_a_distribution_that_is_on_the_path_twice_is_no_duplicate(machine, tmp_path):
    machine.install("acme", {"acme": "acme_good"}, {"acme_good.py": GOOD}, version="1.0")
    newer = tmp_path / "newer"
    machine.install("acme", {"acme": "acme_good"}, {"acme_good.py": GOOD}, version="1.1", site=newer)
    sys.path.insert(0, str(newer))
    info = machine.loaded().plugin("acme")
    assert (info.state, info.version) == ("on", "1.1")


def test_broken_metadata_hides_no_other_plugin(machine):
    broken = machine.install("broken", {"broken": "acme_x"})
    (broken / "entry_points.txt").write_text("[waagent.plugins\nnonsense")
    machine.install("acme", {"acme": "acme_good"}, {"acme_good.py": GOOD})
    assert state(machine.loaded(), "acme") == "on"


def test_an_untrusted_file_keeps_a_third_party_out_and_is_named(machine, tmp_path, lines):
    machine.install("acme", {"acme": "acme_mark"}, {"acme_mark.py": marking(tmp_path / "imported")})
    (machine.site / "acme_mark.py").chmod(0o664)
    host = machine.loaded()
    info = host.plugin("acme")
    assert info.state == "untrusted"
    assert f"{machine.site}/acme_mark.py can be written by group" in info.reason
    assert not (tmp_path / "imported").exists()
    assert lines.having("WARNING plugin acme (acme 1.0) is not loaded: untrusted file")

    machine.write("etc/waagent.conf", "Plugins.RequireTrustedFiles=n\n")
    assert state(machine.loaded(), "acme") == "on"


def test_who_may_change_the_entry_points_may_change_what_runs(machine):
    metadata = machine.install("acme", {"acme": "acme_good"}, {"acme_good.py": GOOD})
    (metadata / "entry_points.txt").chmod(0o666)
    assert "entry_points.txt can be written by others" in machine.loaded().plugin("acme").reason


def test_the_list_of_allowed_plugins_pins_third_parties(machine):
    allowed = machine.write("etc/waagent.allowed", "# pinned\nacme acme 1.0\nbeta other\n")
    machine.write("etc/waagent.conf", "Plugins.AllowList=/etc/waagent.allowed\n")
    machine.install("acme", {"acme": "acme_good", "beta": "acme_beta"}, {"acme_good.py": GOOD, "acme_beta.py": GOOD})
    machine.install("waagent", {"extensions": "acme_ours"}, {"acme_ours.py": GOOD})
    host = machine.loaded()
    assert [(info.name, info.state) for info in host.listing()] == [
        ("acme", "on"),
        ("beta", "untrusted"),
        ("extensions", "on"),
    ]
    beta = host.plugin("beta")
    assert (beta.file, beta.line) == (str(allowed), 3)

    allowed.unlink()
    host = machine.loaded()
    assert [info.state for info in host.listing()] == ["untrusted", "untrusted", "on"]
    assert "cannot be read" in host.plugin("acme").reason


HANGING = "import acme_gate\nacme_gate.event.wait(30)\n" + GOOD


def test_a_hanging_import_is_left_behind_and_not_tried_again_until_its_files_change(
    machine, lines, gate, monkeypatch, eventually
):
    monkeypatch.setattr(plugins, "IMPORT_DEADLINE", 0.3)
    machine.install("acme-slow", {"slow": "acme_slow"}, {"acme_slow.py": HANGING})
    machine.install("acme", {"acme": "acme_good"}, {"acme_good.py": GOOD})
    host = machine.loaded()
    assert (state(host, "slow"), state(host, "acme")) == ("late", "on")
    assert started(host) == ["acme_good"]
    assert lines.having("WARNING", "slow", "it is here:", "acme_slow.py:2 in <module>")
    assert host.hooks.problems() == ["plugin slow hangs in import"]
    host.write_list()

    assert state(machine.host(), "slow") == "late", "remembered"
    with_list = PluginHost.from_list(machine.log, machine.config(), machine.paths)
    assert (state(with_list, "slow"), started(with_list)) == ("late", ["acme_good"])

    gate.set()
    eventually(lambda: not host.containment.stuck())
    (machine.site / "acme_slow.py").write_text(GOOD)
    assert state(machine.host(), "slow") == "on", "its files have changed"


def test_ours_are_waited_for_on_a_machine_that_is_busy_booting(machine, monkeypatch):
    """A boot stage without the provisioning plugin would leave the machine without its owner."""
    monkeypatch.setattr(plugins, "IMPORT_DEADLINE", 0.05)
    machine.install("waagent", {"extensions": "acme_ours"}, {"acme_ours.py": f"import time\ntime.sleep(0.3)\n{GOOD}"})
    assert state(machine.loaded(), "extensions") == "on"


def test_distribution_plugins_load_base_then_id_like_then_id(machine):
    names = ["linux", "debian", "ubuntu", "acmeos", "posix", "suse", "rhel.acme"]
    machine.install(
        "waagent",
        {name: f"acme_d_{name.replace('.', '_')}" for name in names},
        {f"acme_d_{name.replace('.', '_')}.py": GOOD for name in names},
        group="waagent.distros",
    )
    host = machine.loaded()
    assert {info.name: info.state for info in host.listing()} == {
        "acmeos": "on",
        "debian": "on",
        "linux": "on",
        "posix": "other-distribution",
        "rhel.acme": "other-distribution",
        "suse": "other-distribution",
        "ubuntu": "on",
    }
    assert started(host) == ["acme_d_linux", "acme_d_debian", "acme_d_ubuntu", "acme_d_acmeos"]
    assert "acme_d_suse" not in sys.modules


def test_a_packager_swaps_one_operation_of_a_distribution(machine):
    operation = "from waagent import hookimpl\n@hookimpl\ndef service_name(): return {!r}\n"
    machine.install("waagent", {"debian": "acme_d"}, {"acme_d.py": operation.format("ours")}, group="waagent.distros")
    machine.install(
        "acme", {"debian.acme": "acme_s"}, {"acme_s.py": operation.format("theirs")}, group="waagent.distros"
    )
    host = machine.loaded()
    assert [one.plugin for one in host.hooks.implementations("service_name")] == ["debian.acme", "debian"]
    assert host.hooks.call_operation("service_name", {"agent": None}) == "theirs"


def test_a_plugin_that_raises_or_hangs_in_a_hook_is_named_in_the_listing(machine, gate, monkeypatch):
    machine.install("acme", {"bad": "acme_bad", "slow": "acme_hang"}, {
        "acme_bad.py": "from waagent import hookimpl\n@hookimpl\ndef on_start(): raise ValueError('no luck')\n",
        "acme_hang.py": (
            "import acme_gate\nfrom waagent import hookimpl\n@hookimpl\ndef on_start(): acme_gate.event.wait(30)\n"
        ),
    })  # fmt: skip
    host = machine.loaded()
    monkeypatch.setattr(host._registry.traits["on_start"], "deadline", 0.2)
    host.hooks.on_start(None)
    assert (host.plugin("bad").failures, host.plugin("bad").last_error) == (1, "on_start: ValueError: no luck")
    assert host.plugin("slow").last_error == "hangs in on_start"
    assert host.hooks.problems() == ["plugin bad: on_start: ValueError: no luck", "plugin slow hangs in on_start"]


def test_a_plugin_object_can_be_given_by_the_program(machine):
    class Plugin:
        @hookimpl
        def on_start(self, agent):
            agent.append("given")

    host = PluginHost(machine.log, machine.config(), machine.paths)
    host.add("mine", Plugin())
    assert started(host) == ["given"]
    assert host.plugin("mine").hooks == ("on_start",)


def test_stevedore_leaves_no_cache_behind(machine, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    machine.install("acme", {"acme": "acme_good"}, {"acme_good.py": GOOD})
    assert state(machine.loaded(), "acme") == "on"
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "home").exists()


# ---- The list in the runtime directory -------------------------------------------------------------------------------


def test_the_worker_loads_from_the_list_what_the_boot_stage_found(machine):
    machine.install("acme", {"acme": "acme_pkg.sub:plugin", "off": "acme_off"}, {
        "acme_pkg/__init__.py": "",
        "acme_pkg/sub.py": GOOD + "import sys\nplugin = sys.modules[__name__]\n",
        "acme_off.py": "raise AssertionError('imported')",
    })  # fmt: skip
    machine.write("etc/waagent.conf", "Plugins.Disabled=off\n")
    PluginHost.boot(machine.log, machine.config(), machine.paths)
    place = machine.root / "run/waagent/plugins.json"
    assert place.stat().st_mode & 0o777 == 0o644
    host = PluginHost.from_list(machine.log, machine.config(), machine.paths)
    assert started(host) == ["acme_pkg.sub"]
    assert [(info.name, info.state) for info in host.listing()] == [("acme", "on"), ("off", "off")]


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", '{"schema": 2}', '{"schema": 1}', '{"schema":1,"facts":{},"plugins":[{}]}']
)
def test_a_list_that_cannot_be_used_is_an_error_that_says_so(machine, content):
    if content is not None:
        machine.write("run/waagent/plugins.json", content)
    with pytest.raises(StateError, match=r"plugins\.json"):
        PluginHost.from_list(machine.log, machine.config(), machine.paths)
    assert PluginHost.boot(machine.log, machine.config(), machine.paths).listing() == []


def test_a_list_that_others_may_write_is_not_used(machine):
    machine.install("acme", {"acme": "acme_good"}, {"acme_good.py": GOOD})
    PluginHost.boot(machine.log, machine.config(), machine.paths)
    (machine.root / "run/waagent/plugins.json").chmod(0o666)
    with pytest.raises(StateError, match="can be written by others"):
        PluginHost.from_list(machine.log, machine.config(), machine.paths)


def test_the_worker_looks_again_at_who_may_write_a_plugin(machine):
    machine.install("acme", {"acme": "acme_good"}, {"acme_good.py": GOOD})
    PluginHost.boot(machine.log, machine.config(), machine.paths)
    (machine.site / "acme_good.py").chmod(0o666)
    host = PluginHost.from_list(machine.log, machine.config(), machine.paths)
    assert state(host, "acme") == "untrusted"
    assert started(host) == []


class Search:
    """Counts how often installed distributions are looked for."""

    def __init__(self, monkeypatch):
        from waagent import discovery

        self.count = 0
        real = discovery.installed

        def installed(log):
            self.count += 1
            return real(log)

        monkeypatch.setattr(discovery, "installed", installed)


@pytest.mark.parametrize(
    "change",
    [
        "nothing",
        "drop-in",
        "configuration",
        "installed",
        "code without metadata",
        "removed",
        "entry points edited",
        "another path",
        "os-release",
        "another boot",
        "garbage",
    ],
)
def test_a_restart_uses_the_list_again_unless_something_changed(machine, monkeypatch, tmp_path, change):
    metadata = machine.install("acme", {"acme": "acme_good"}, {"acme_good.py": GOOD})
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    PluginHost.boot(machine.log, machine.config(), machine.paths)
    assert (machine.site / "__pycache__").is_dir(), "the import changed the directory"
    search = Search(monkeypatch)
    if change == "drop-in":
        machine.write("etc/waagent.conf.d/x.conf", "Plugins.Disabled=acme\n")
    elif change == "configuration":
        machine.write("etc/waagent.conf", "Plugins.Disabled=acme\n")
    elif change == "installed":
        machine.install("beta", {"beta": "acme_beta"}, {"acme_beta.py": GOOD})
    elif change == "code without metadata":
        (machine.site / "acme_good_more").mkdir()
    elif change == "removed":
        (metadata / "entry_points.txt").unlink()
    elif change == "entry points edited":
        (metadata / "entry_points.txt").write_text("[waagent.plugins]\nother = acme_good\n")
    elif change == "another path":
        sys.path.insert(0, str(tmp_path))
    elif change == "os-release":
        machine.write("etc/os-release", "ID=other\n")
    elif change == "another boot":
        monkeypatch.setattr(plugins.pluginlist, "_boot_id", lambda: "another")
    elif change == "garbage":
        machine.write("run/waagent/plugins.json", "{")
    host = PluginHost.boot(machine.log, machine.config(), machine.paths)
    assert search.count == (0 if change == "nothing" else 1)
    if change == "nothing":
        assert started(host) == ["acme_good"]


def test_a_restart_looks_again_after_a_failure(machine, monkeypatch):
    machine.install("acme", {"acme": "acme_flaky"}, {"acme_flaky.py": "raise ImportError('not yet')\n"})
    assert state(PluginHost.boot(machine.log, machine.config(), machine.paths), "acme") == "failed"
    (machine.site / "acme_flaky.py").write_text(GOOD + "# and longer than before\n")
    assert state(PluginHost.boot(machine.log, machine.config(), machine.paths), "acme") == "on"


def test_a_runtime_directory_that_cannot_be_written_does_not_keep_the_boot_stage_from_its_work(machine, lines):
    machine.install("acme", {"acme": "acme_good"}, {"acme_good.py": GOOD})
    machine.write("run", "a file in the way")
    host = PluginHost.boot(machine.log, machine.config(), machine.paths)
    assert started(host) == ["acme_good"]
    assert lines.having("WARNING the list of plugins cannot be written")
    assert os.path.isfile(machine.root / "run")
