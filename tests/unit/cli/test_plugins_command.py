"""``waagent plugins …`` as people and scripts see it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

import pytest

import waagent
from waagent.cli import plugins as commands
from waagent.paths import Paths

GOOD = "from waagent import hookimpl\n\n@hookimpl\ndef on_start(agent):\n    pass\n"
PLACES = [os.path.dirname(os.path.dirname(waagent.__file__))]


class Machine:
    def __init__(self, tmp_path):
        self.root = tmp_path / "root"
        self.site = tmp_path / "site"
        (self.root / "etc").mkdir(parents=True)
        self.site.mkdir()
        self.conf = self.root / "etc/waagent.conf"
        self.conf.write_text("")
        self.drop_in = self.root / "etc/waagent.conf.d/99-plugins.conf"

    def install(self, name, body=GOOD):
        metadata = self.site / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[waagent.plugins]\n{name} = {name}_module\n")
        (self.site / f"{name}_module.py").write_text(body)

    def run(self, *words, code=0, root=True):
        """Run ``waagent plugins WORDS`` and return standard output and error."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.site), *PLACES])}
        done = subprocess.run(
            [sys.executable, "-m", "waagent", *(["--root", str(self.root)] if root else []), "plugins", *words],
            env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout, done.stderr

    def json(self, *words, code=0):
        return json.loads(self.run(*words, "--json", code=code)[0])

    def state(self, name):
        return self.json("show", name)["state"]


@pytest.fixture
def machine(tmp_path):
    before = os.umask(0o022)
    yield Machine(tmp_path)
    os.umask(before)


def test_the_list_names_what_said_no_with_file_and_line(machine):
    machine.conf.write_text("# a comment\nPlugins.Disabled=acme\n")
    machine.install("acme")
    machine.install("beta")
    machine.install("broken", "raise SystemExit(3)\n")
    rows = {line.split()[0]: line for line in machine.run("list")[0].splitlines()}
    assert rows["NAME"].split() == ["NAME", "STATE", "FROM", "WHY"]
    assert f"{machine.conf}:2" in rows["acme"]
    assert rows["acme"].split()[1:4] == ["off", "acme", "1.0"]
    assert rows["beta"].split()[1] == "on"
    assert rows["broken"].split()[1] == "failed"
    assert "SystemExit: 3" in rows["broken"]


def test_the_list_for_scripts(machine):
    machine.install("acme")
    found = {one["name"]: one for one in machine.json("list")["plugins"]}
    acme = found["acme"]
    assert (acme["state"], acme["distribution"], acme["version"], acme["hooks"]) == ("on", "acme", "1.0", ["on_start"])
    assert acme["in_the_service"] is None


def test_show_prints_what_is_known(machine):
    machine.install("acme")
    out = machine.run("show", "acme")[0]
    assert "name: acme\n" in out
    assert "hooks: on_start\n" in out
    assert "first party: no\n" in out


def test_why_prints_every_line_about_a_plugin_in_order(machine):
    vendor = machine.root / "usr/lib/waagent/conf.d/10.conf"
    vendor.parent.mkdir(parents=True)
    vendor.write_text("Plugins.Disabled=ac*\n")
    machine.conf.write_text("\nPlugins.Enabled=acme\nPlugins.Disabled=beta\n")
    machine.install("acme")
    out = machine.run("why", "acme")[0].splitlines()
    assert out[:2] == [f"{vendor}:1: Plugins.Disabled=ac*", f"{machine.conf}:2: Plugins.Enabled=acme"]
    assert out[2].startswith("acme is on: switched on by")
    assert [one["line"] for one in machine.json("why", "acme")["statements"]] == [1, 2]


@pytest.mark.parametrize("word", ["show", "why", "enable", "disable"])
def test_an_unknown_name_is_said_with_the_known_ones(machine, word):
    machine.install("acme")
    out, err = machine.run(word, "acne", code=1)
    assert out == ""
    assert "no plugin is called 'acne'" in err
    assert "acme" in err
    assert not machine.drop_in.exists()


def test_disable_and_enable_write_a_drop_in_that_counts(machine):
    machine.install("acme")
    out, _ = machine.run("disable", "acme")
    assert str(machine.drop_in) in out
    assert machine.drop_in.stat().st_mode & 0o777 == 0o644
    assert machine.state("acme") == "off"
    document = machine.json("show", "acme")
    assert document["file"] == str(machine.drop_in)
    assert machine.drop_in.read_text().splitlines()[document["line"] - 1] == "Plugins.Disabled=acme"

    machine.run("enable", "acme")
    assert machine.state("acme") == "on"
    assert "Plugins.Disabled" not in machine.drop_in.read_text()


def test_other_plugins_and_lines_of_the_drop_in_are_left_alone(machine):
    machine.install("acme")
    machine.install("beta")
    machine.drop_in.parent.mkdir()
    machine.drop_in.write_text("# mine\nLogs.Verbose=y\nPlugins.Disabled=gamma, beta\nPlugins.Enabled=delta\n")
    machine.run("disable", "acme")
    machine.run("enable", "beta")
    text = machine.drop_in.read_text()
    assert text.splitlines() == [
        "# mine",
        "Logs.Verbose=y",
        "Plugins.Disabled=gamma,acme",
        "Plugins.Enabled=delta,beta",
    ]
    assert (machine.state("acme"), machine.state("beta")) == ("off", "on")


def test_a_line_that_takes_back_what_the_vendor_said_is_kept(machine):
    vendor = machine.root / "usr/lib/waagent/conf.d/10.conf"
    vendor.parent.mkdir(parents=True)
    vendor.write_text("Plugins.Disabled=beta\n")
    machine.install("acme")
    machine.install("beta")
    machine.drop_in.parent.mkdir()
    for empty in ("", "None"):
        machine.drop_in.write_text(f"Plugins.Disabled=gamma\nPlugins.Disabled={empty}\n")
        machine.run("disable", "acme")
        assert machine.drop_in.read_text() == f"Plugins.Disabled={empty}\nPlugins.Disabled=acme\n"
        assert (machine.state("acme"), machine.state("beta")) == ("off", "on")


def test_enable_wins_over_a_glob_in_the_same_file(machine):
    machine.install("acme")
    machine.drop_in.parent.mkdir()
    machine.drop_in.write_text("Plugins.Enabled=*\nPlugins.Disabled=*\n")
    machine.run("enable", "acme")
    assert machine.state("acme") == "on"
    machine.run("disable", "acme")
    assert machine.state("acme") == "off"


def test_a_later_file_that_overrules_is_named(machine):
    machine.install("acme")
    machine.drop_in.parent.mkdir()
    (machine.drop_in.parent / "zz-image.conf").write_text("Plugins.Disabled=acme\n")
    out, err = machine.run("enable", "acme", code=3)
    assert out == ""
    assert "acme stays off" in err
    assert "zz-image.conf:1" in err
    assert machine.json("enable", "acme", code=3)["on"] is False


def test_a_plugin_that_is_off_is_not_imported_by_looking_at_it(machine, tmp_path):
    machine.conf.write_text("Plugins.Disabled=acme\n")
    machine.install("acme", f"open({str(tmp_path / 'imported')!r}, 'w').close()\n" + GOOD)
    machine.run("list")
    machine.run("show", "acme")
    machine.run("why", "acme")
    machine.run("disable", "acme")
    assert not (tmp_path / "imported").exists()


def test_the_state_in_the_running_service_is_shown(machine):
    machine.install("acme")
    run_dir = machine.root / "run/waagent"
    run_dir.mkdir(parents=True)
    entry = {
        "name": "acme", "group": "waagent.plugins", "value": "acme_module", "distribution": "acme", "version": "1.0",
        "state": "late", "reason": "its import took longer than 5 s",
    }  # fmt: skip
    (run_dir / "plugins.json").write_text(json.dumps({"schema": 1, "facts": {}, "plugins": [entry]}))
    assert machine.json("show", "acme")["in_the_service"] == "late"
    (run_dir / "plugins.json").write_text("{")
    assert machine.json("show", "acme")["in_the_service"] is None


@pytest.mark.parametrize("command", [commands.enable, commands.disable])
def test_switching_on_the_machine_itself_needs_root(command, monkeypatch, capsys):
    class Agent:
        paths = Paths("/")  # it has nothing else: whoever is not root gets no further

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert command(Agent(), argparse.Namespace(name="acme", json=False)) == 77
    assert "must be run as root" in capsys.readouterr().err
