"""Which distribution is found, and how operations are asked of it."""

from __future__ import annotations

import copy
import types

import pytest

from waagent import NoAnswer, NotOnThisRoot, hookimpl
from waagent.containment import Containment
from waagent.distro import Distro, DistroFacts, detect, parse_os_release
from waagent.hooks import Hooks
from waagent.paths import Paths
from waagent.registry import DISTROS, Registry, Standing, examine

LINUX = ("Linux", "6.1.0-18-cloud-amd64")


def found(tmp_path, files, kernel=LINUX):
    for name, text in files.items():
        path = tmp_path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text) if isinstance(text, bytes) else path.write_text(text)
    return detect(Paths(str(tmp_path)), kernel)


DEBIAN = """PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION_CODENAME=bookworm
ID=debian
"""


def test_debian(tmp_path):
    facts = found(tmp_path, {"/etc/os-release": DEBIAN})
    assert facts == DistroFacts(
        "debian", (), "12", "Debian GNU/Linux", "bookworm", "Debian GNU/Linux 12 (bookworm)", "linux", str(tmp_path)
    )
    assert facts.words == ("linux", "debian")


def test_the_vendors_copy_counts_only_without_one_in_etc(tmp_path):
    assert found(tmp_path, {"/usr/lib/os-release": "ID=vendor\n"}).id == "vendor"
    assert found(tmp_path, {"/etc/os-release": "ID=local\n"}).id == "local"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', ("linux", "debian", "ubuntu", "linuxmint")),
        ('ID="almalinux"\nID_LIKE="rhel centos fedora"\n', ("linux", "fedora", "centos", "rhel", "almalinux")),
        ("ID=amzn\nID_LIKE=fedora fedora\n", ("linux", "fedora", "amzn")),
        ("ID=debian\nID_LIKE=debian\n", ("linux", "debian")),
        ("ID=DEBIAN\n", ("linux", "debian")),
        ('ID="../../etc"\n', ("linux",)),
        ("ID=x;reboot\n", ("linux",)),
        ("", ("linux",)),
        ("\x00\xff\n=\nID\n", ("linux",)),
        (
            "ID=azurelinux\nVARIANT_ID=azurecontainerlinux\nID_LIKE=mariner\n",
            ("linux", "mariner", "azurelinux", "azurecontainerlinux"),
        ),
        ("ID=fedora\nVARIANT_ID=coreos\n", ("linux", "fedora")),
    ],
)
def test_plugins_are_named_by_id_and_id_like_from_the_most_general(tmp_path, text, words):
    assert found(tmp_path, {"/etc/os-release": text}).words == words


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=plain", "plain"),
        ('A="two words"', "two words"),
        ("A='two words'", "two words"),
        (r'A="a \"quote\" and \$5"', 'a "quote" and $5'),
        ("A=cut here", "cut"),
        ('A="open', "open"),
        ("A=\\", ""),
        ("  A=indented  ", "indented"),
    ],
)
def test_values_are_read_as_a_shell_would(line, value):
    assert parse_os_release(f"# a comment\n{line}\n1B=no\n")["A"] == value


@pytest.mark.parametrize(
    ("files", "identity", "likes", "version", "pretty"),
    [
        ({"/etc/alpine-release": "3.19.1\n"}, "alpine", (), "3.19.1", "Alpine Linux 3.19.1"),
        (
            {"/etc/redhat-release": "Red Hat Enterprise Linux Server release 7.9 (Maipo)\n"},
            "rhel", ("fedora",), "7.9", "Red Hat Enterprise Linux 7.9",
        ),
        (
            {"/etc/openwrt_release": "DISTRIB_ID='OpenWrt'\nDISTRIB_RELEASE='23.05'\n"},
            "openwrt", (), "23.05", "OpenWrt 23.05",
        ),
        (
            {"/shared/vadc": "", "/VERSION": "Product: BIG-IQ\nVersion: 8.3.0\n", "/etc/os-release": "ID=centos\n"},
            "bigiq", ("centos", "rhel"), "8.3.0", "BIG-IQ 8.3.0",
        ),
        (
            {"/etc/cp-release": "", "/etc/cloud-version": "take: 12\nbuild: 5\n", "/etc/os-release": "ID=rhel\n"},
            "gaia", ("rhel",), "12.5", "Check Point Gaia 12.5",
        ),
        (
            {"/home/guestshell/azure": "", "/etc/os-release": "ID=centos\n"},
            "iosxe", ("centos", "rhel"), "csr1000v", "Cisco IOSXE Linux csr1000v",
        ),
        ({"/etc/alpine-release": "3.19.1\n", "/etc/os-release": "ID=mine\nPRETTY_NAME=Mine\n"}, "mine", (), "", "Mine"),
        (
            {"/etc/oracle-release": "x", "/etc/os-release": 'ID="ol"\nPRETTY_NAME="Oracle Linux Server 9"\n'},
            "ol", (), "", "Oracle Linux",
        ),
    ],
)  # fmt: skip
def test_systems_that_a_file_tells(tmp_path, files, identity, likes, version, pretty):
    facts = found(tmp_path, files)
    assert (facts.id, facts.id_like, facts.version, facts.pretty) == (identity, likes, version, pretty)


@pytest.mark.parametrize(
    ("kernel", "identity", "words"),
    [
        (("FreeBSD", "14.1-RELEASE-p3"), "freebsd", ("posix", "freebsd")),
        (("OpenBSD", "7.5"), "openbsd", ("posix", "openbsd")),
        (("NS-BSD", "4.3"), "nsbsd", ("posix", "freebsd", "nsbsd")),
    ],
)
def test_a_bsd_is_told_by_its_kernel_and_never_falls_through_to_linux(tmp_path, kernel, identity, words):
    facts = found(tmp_path, {"/etc/os-release": "ID=whatever\nID_LIKE=linux\n"}, kernel)
    assert (facts.id, facts.words, facts.version) == (identity, words, kernel[1].split("-")[0])


@pytest.mark.parametrize("content", [b"\xff\xfe\x00ID=x", b"ID=x\n" * 100000])
def test_an_os_release_that_cannot_be_read_is_no_end(tmp_path, content):
    assert found(tmp_path, {"/etc/os-release": content}).base == "linux"


def test_old_spellings_are_kept_for_tools():
    assert DistroFacts("ol").legacy_id == "oracle"
    assert DistroFacts("debian").legacy_id == "debian"


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("linux", (0, False)),
        ("debian", (1, False)),
        ("ubuntu", (2, False)),
        ("debian.acme", (1, True)),
        ("linux.networkd", (0, True)),
        ("ubuntu.acme.two", (2, True)),
        ("suse", None),
        ("suse.acme", None),
        ("debianish", None),
    ],
)
def test_where_a_distribution_plugin_belongs(name, level):
    assert DistroFacts("ubuntu", ("debian",)).level(name) == level


def test_an_id_with_a_dot_is_an_id():
    assert DistroFacts("acme.os").level("acme.os") == (1, False)


# ---- Operations ------------------------------------------------------------------------------------------------------


class Set:
    """A distribution whose operations are functions."""

    def __init__(self, log, root="/"):
        self.registry = Registry()
        self.agent = types.SimpleNamespace(paths=Paths(root))
        facts = DistroFacts("debian", root=root)
        self.distro = Distro(facts, Hooks(self.registry, Containment(log)), self.agent)

    def add(self, name, level=0, any_root=False, **functions):
        plugin = types.ModuleType(name)
        plugin.waagent_any_root = any_root
        for operation, function in functions.items():
            function.__name__ = operation
            setattr(plugin, operation, hookimpl(function))
        self.registry.register(examine(plugin, name), Standing(name, True, DISTROS, level))


@pytest.fixture
def real(log):
    return Set(log)


@pytest.fixture
def scratch(log, tmp_path):
    return Set(log, str(tmp_path))


def test_an_operation_is_a_method_and_implementations_get_the_agent(real):
    got = []
    real.add("linux", set_hostname=lambda agent, hostname: got.append((agent, hostname)) or True)
    assert real.distro.set_hostname("web1") is True
    assert real.distro.set_hostname(hostname="web2") is True
    assert got == [(real.agent, "web1"), (real.agent, "web2")]


def test_arguments_that_may_be_left_out_have_values(real):
    got = []
    real.add("linux", create_user=lambda name, comment, expiration: got.append((name, comment, expiration)) or True)
    real.distro.create_user("amy")
    real.distro.create_user("bob", expiration="2030-01-01")
    assert got == [("amy", None, None), ("bob", None, "2030-01-01")]


@pytest.mark.parametrize(
    ("values", "named", "said"),
    [
        ((), {}, "argument 'name' is missing"),
        (("a", "b", "c", "d"), {}, "was given 4 arguments"),
        (("a",), {"name": "b"}, "argument 'name' was given twice"),
        (("a",), {"shell": "b"}, "argument 'shell' is unknown"),
        ((), {"agent": None, "name": "a"}, "argument 'agent' is unknown"),
    ],
)
def test_wrong_arguments_are_the_callers_fault(real, values, named, said):
    real.add("linux", create_user=lambda name: True)
    with pytest.raises(TypeError, match=said):
        real.distro.create_user(*values, **named)


def test_what_is_no_operation_is_no_attribute(real):
    for name in ("frobnicate", "on_boot", "allow_extension", "_private"):
        assert not hasattr(real.distro, name)
    assert copy.copy(real.distro).id == "debian"


def test_facts_are_attributes(real):
    assert (real.distro.id, real.distro.id_like, real.distro.version, real.distro.full_name) == ("debian", (), "", "")


def test_under_another_root_nothing_is_changed(scratch):
    called = []
    scratch.add("linux", set_hostname=lambda: called.append(1) or True, service_name=lambda: "waagent")
    with pytest.raises(NotOnThisRoot, match="set_hostname changes the machine"):
        scratch.distro.set_hostname("web1")
    assert called == []
    assert scratch.distro.service_name() == "waagent"


def test_a_plugin_made_for_other_roots_answers_there(scratch):
    called = []
    scratch.add("linux", set_hostname=lambda: called.append("linux") or True)
    scratch.add("sandbox", level=1, any_root=True, set_hostname=lambda: called.append("sandbox") or True)
    assert scratch.distro.set_hostname("web1") is True
    assert called == ["sandbox"]


def test_a_failure_of_such_a_plugin_is_not_taken_for_another_root(scratch):
    scratch.add("sandbox", any_root=True, set_hostname=lambda: 1 / 0)
    with pytest.raises(NoAnswer, match="sandbox: ZeroDivisionError"):
        scratch.distro.set_hostname("web1")
