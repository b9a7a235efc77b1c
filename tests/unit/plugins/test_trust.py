"""Whose files the agent runs: the rule of sudoers."""

from __future__ import annotations

import os
import sys

import pytest

from waagent.errors import ConfigError
from waagent.paths import Paths
from waagent.trust import AllowList, Place, fingerprint, locate, normalised, owners, untrusted, untrusted_file

ME = frozenset({0, os.geteuid()})


@pytest.fixture
def site(tmp_path, monkeypatch):
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    return site


def package(site, name="acme_pkg"):
    (site / name / "inner").mkdir(parents=True)
    (site / name / "__init__.py").write_text("raise AssertionError('it was imported')\n")
    (site / name / "inner" / "__init__.py").write_text("")
    (site / name / "plugin.py").write_text("")
    return site / name


def test_a_package_is_located_without_running_it(site):
    folder = package(site)
    place = locate("acme_pkg.plugin")
    assert (place.entry, place.files) == (str(site), (str(folder),))
    assert "acme_pkg" not in sys.modules


def test_a_module_and_a_part_of_a_namespace_are_located(site):
    (site / "acme_single.py").write_text("")
    assert locate("acme_single").files == (str(site / "acme_single.py"),)
    (site / "acme_space" / "part").mkdir(parents=True)
    (site / "acme_space" / "part" / "__init__.py").write_text("")
    assert locate("acme_space.part.plugin").files == (str(site / "acme_space" / "part"),)
    assert locate("acme_nowhere.plugin") is None
    assert locate("sys") is None


def test_what_pip_installs_is_trusted(site):
    package(site)
    assert untrusted(locate("acme_pkg.plugin"), ME) is None


@pytest.mark.parametrize(
    "which", ["acme_pkg/plugin.py", "acme_pkg/inner/__init__.py", "acme_pkg/inner", "acme_pkg", "."]
)
@pytest.mark.parametrize(("mode", "who"), [(0o020, "group"), (0o002, "others")])
def test_what_others_may_write_is_not_trusted(site, which, mode, who):
    package(site)
    path = site / which
    path.chmod(path.stat().st_mode | mode)
    reason = untrusted(locate("acme_pkg.plugin"), ME)
    assert str(path if which != "." else site) in reason
    assert f"can be written by {who}" in reason


def test_files_of_somebody_else_are_not_trusted(site):
    package(site)
    reason = untrusted(locate("acme_pkg.plugin"), frozenset({os.geteuid() + 1}))
    assert "belongs to user" in reason


def test_what_a_link_leads_to_counts_and_so_do_the_directories_above_it(site, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    package(elsewhere)
    (site / "acme_link").symlink_to(elsewhere / "acme_pkg")
    assert untrusted(locate("acme_link"), ME) is None
    elsewhere.chmod(0o777)
    assert f"{elsewhere} can be written by others" in untrusted(locate("acme_link"), ME)


def test_a_link_in_a_circle_ends(site):
    folder = package(site)
    (folder / "round").symlink_to(folder)
    assert untrusted(locate("acme_pkg"), ME) is None


def test_sticky_directories_of_root_pass():
    if os.stat("/tmp").st_uid != 0 or not os.stat("/tmp").st_mode & 0o1000:
        pytest.skip("this machine's /tmp is special")
    assert untrusted_file("/tmp", frozenset({0})) is None


def test_what_is_not_there_is_not_trusted(tmp_path):
    gone = Place(str(tmp_path), (str(tmp_path / "gone.py"),))
    assert "No such file" in untrusted(gone, ME)


def test_on_the_machine_itself_only_root_is_trusted(tmp_path):
    assert owners(Paths("/")) == {0}
    assert owners(Paths(str(tmp_path))) == {0, os.geteuid()}


def test_the_fingerprint_changes_with_a_file_and_not_with_a_first_import(site):
    folder = package(site)
    before = fingerprint(locate("acme_pkg"))
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "plugin.cpython-39.pyc").write_bytes(b"x")
    assert fingerprint(locate("acme_pkg")) == before
    (folder / "plugin.py").write_text("fixed = True\n")
    assert fingerprint(locate("acme_pkg")) != before


@pytest.mark.parametrize(
    ("name", "distribution", "version", "said"),
    [
        ("acme", "acme-waagent", "1.0", None),
        ("acme", "Acme_Waagent", "2.0", None),
        ("acme", "evil", "1.0", ("only the one of the distribution acme-waagent is allowed", 2)),
        ("pinned", "pin", "1.2", None),
        ("pinned", "pin", "1.3", ("only version 1.2 is allowed", 3)),
        ("other", "acme-waagent", "1.0", ("the list of allowed plugins does not name it", None)),
        ("four", "words", "are", ("the list of allowed plugins does not name it", None)),
    ],
)
def test_the_list_of_allowed_plugins(tmp_path, name, distribution, version, said):
    path = tmp_path / "allowed"
    path.write_text("# ours\nacme acme.waagent  # any version\npinned pin 1.2\nfour words are many\n")
    assert AllowList.read(str(path), ME).objection(name, distribution, version) == said


def test_a_list_that_is_not_there_or_not_trusted_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        AllowList.read(str(tmp_path / "gone"), ME)
    path = tmp_path / "allowed"
    path.write_text("acme acme\n")
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="can be written by others"):
        AllowList.read(str(path), ME)


def test_distribution_names_compare_as_registries_do():
    assert normalised("Acme__Waa.gent") == "acme-waa-gent"
