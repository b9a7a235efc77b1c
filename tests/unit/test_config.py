"""Typed options with origin: what is accepted, what is refused and said (configuration §3, §12)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.conffile import RawConfig, parse_text, read_chain
from waagent.config import Config, Origin
from waagent.log import Log, Sinks
from waagent.options import CORE, owner_of
from waagent.records import Option

REPOSITORY = Path(__file__).resolve().parents[2]


def config(text: str = "") -> Config:
    raw = RawConfig()
    raw.files.append("/etc/waagent.conf")
    raw.lines = parse_text(text, "/etc/waagent.conf")
    raw.settings = {setting.key: setting for setting in raw.lines}
    return Config(raw)


def warnings(of: Config) -> list[str]:
    return [str(problem) for problem in of.problems if problem.level == "warning"]


def infos(of: Config) -> list[str]:
    return [str(problem) for problem in of.problems if problem.level == "info"]


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("Provisioning.RegenerateSshHostKeyPair", True),
        ("Provisioning.MonitorHostName", True),
        ("Provisioning.DeleteRootPassword", False),
        ("ResourceDisk.Format", True),
        ("ResourceDisk.Filesystem", "ext4"),
        ("OS.RootDeviceScsiTimeout", 300),
        ("OS.EnableFirewall", False),
        ("OS.EnableFirewallPeriod", 300),
        ("OS.CheckRdmaDriver", True),
        ("OS.OpensslPath", "/usr/bin/openssl"),
        ("HttpProxy.Port", None),
        ("Extensions.GoalStatePeriod", 6),
        ("Extensions.InitialGoalStatePeriod", 6),
        ("Status.MaxInterval", 30),
        ("Logs.File", "/var/log/waagent.log"),
        ("Debug.EnableExtensionPolicy", True),
    ],
)
def test_defaults_are_the_documented_ones(name: str, default: object) -> None:
    assert config().value(name) == default
    assert config().origin(name) == Origin("default")


def test_every_default_fits_its_kind_and_every_reference_exists() -> None:
    options = config().options
    assert config().problems == ()
    for option in options.values():
        assert option.help
        assert option.default_from is None or option.default_from in options
        assert option.choices is None or option.default in option.choices
        assert option.minimum is None or option.default is None or option.default >= option.minimum  # type: ignore[operator]
    assert len(options) == len(CORE), "a name stands twice"


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("Logs.Verbose=y", "Logs.Verbose", True),
        ("Logs.Verbose=Y", "Logs.Verbose", True),
        ("Logs.Collect=n", "Logs.Collect", False),
        ("Logs.Collect=N", "Logs.Collect", False),
        ("Logs.Collect=None", "Logs.Collect", True),
        ("HttpProxy.Port=1_0", "HttpProxy.Port", 10),
        ("HttpProxy.Port= +80 ", "HttpProxy.Port", 80),
        ("ResourceDisk.SwapSizeMB=-1", "ResourceDisk.SwapSizeMB", -1),
        ("ResourceDisk.MountOptions=", "ResourceDisk.MountOptions", ""),
        ("OS.OpensslPath=None", "OS.OpensslPath", "/usr/bin/openssl"),
        ("Extensions.WaitForCloudInitTimeout=60", "Extensions.WaitForCloudInitTimeout", 60),
    ],
)
def test_what_is_accepted(line: str, name: str, value: object) -> None:
    assert config(line).value(name) == value
    assert [text for text in warnings(config(line)) if "HttpProxy.Host" not in text] == []


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("Logs.Collect=yes", "Logs.Collect", True),
        ("Logs.Collect=0", "Logs.Collect", True),
        ("Logs.Collect=", "Logs.Collect", True),
        ("HttpProxy.Port=", "HttpProxy.Port", None),
        ("Autoupdate.Frequency=soon", "Autoupdate.Frequency", 3600),
        ("Autoupdate.Frequency=" + "9" * 5000, "Autoupdate.Frequency", 3600),
        ("Autoupdate.Frequency=99999999999", "Autoupdate.Frequency", 3600),
        ("Provisioning.PasswordCryptId=7", "Provisioning.PasswordCryptId", "6"),
        ("Lib.Dir=relative", "Lib.Dir", "/var/lib/waagent"),
        ("Lib.Dir=", "Lib.Dir", "/var/lib/waagent"),
    ],
)
def test_what_is_refused_is_said_once_with_place_and_default(line: str, name: str, value: object) -> None:
    read = config("\n" + line)
    assert read.value(name) == value
    assert read.origin(name) == Origin("default")
    (warning,) = warnings(read)
    assert warning.startswith(f"/etc/waagent.conf:2: {name}=")
    text = {True: "y", None: "None"}.get(value, str(value))  # type: ignore[arg-type]
    assert warning.endswith(f"the default {text} is used")
    assert len(warning) < 250


@pytest.mark.parametrize("number", [0, -5])
def test_periods_below_a_second_become_one(number: int) -> None:
    read = config(f"Extensions.GoalStatePeriod={number}")
    assert read.integer("Extensions.GoalStatePeriod") == 1
    assert "is below 1" in warnings(read)[0]


def test_no_period_of_the_registry_can_spin() -> None:
    for option in CORE:
        if re.search(r"(Period|Frequency)$", option.name) and not option.ignored:
            assert config(f"{option.name}=0").integer(option.name) == 1, option.name


def test_unknown_keys_share_one_line_that_names_each_and_the_nearest_known() -> None:
    read = config("logs.verbose=y\nAcme.Interval=3\nResourcedisk.Formt=n\n  # Old=y\n=stray\n")
    (info,) = infos(read)
    assert "logs.verbose (/etc/waagent.conf:1, did you mean Logs.Verbose?)" in info
    assert "Acme.Interval (/etc/waagent.conf:2)" in info
    assert "did you mean ResourceDisk.Format?" in info
    assert "Old" not in info
    assert warnings(read) == []
    assert read.raw("Acme.Interval") == "3"


def test_a_flood_of_unknown_keys_stays_one_short_line() -> None:
    read = config("".join(f"Q{number}{'x' * 300}=1\n" for number in range(500)))
    (info,) = infos(read)
    assert "and 480 more" in info
    assert len(info) < 4000


def test_an_old_name_acts_as_the_new_one_with_a_warning() -> None:
    read = config("Home.Dir=/x")
    assert read.text("OS.HomeDir") == "/x"
    assert read.origin("OS.HomeDir") == Origin("file", "/etc/waagent.conf", 1)
    (warning,) = warnings(read)
    assert "OS.HomeDir" in warning
    both = config("Home.Dir=/x\nOS.HomeDir=/y")
    assert both.text("OS.HomeDir") == "/y"
    assert "passed over" in warnings(both)[0]


@pytest.mark.parametrize(
    ("text", "newest", "conflict"),
    [
        ("", True, False),
        ("AutoUpdate.Enabled=n", False, False),
        ("AutoUpdate.UpdateToLatestVersion=y\nAutoUpdate.Enabled=n", True, True),
        ("AutoUpdate.UpdateToLatestVersion=n\nAutoUpdate.Enabled=y", False, True),
        ("AutoUpdate.UpdateToLatestVersion=n", False, False),
    ],
)
def test_the_two_update_keys(text: str, newest: bool, conflict: bool) -> None:
    read = config(text)
    assert read.boolean("AutoUpdate.UpdateToLatestVersion") is newest
    assert any("overrides AutoUpdate.Enabled" in warning for warning in warnings(read)) is conflict


def test_a_default_can_be_another_options_value() -> None:
    read = config("Extensions.GoalStatePeriod=20")
    assert read.integer("Extensions.InitialGoalStatePeriod") == 20
    assert read.origin("Extensions.InitialGoalStatePeriod").line == 1
    assert not read.given("Extensions.InitialGoalStatePeriod")
    assert (
        config("Extensions.GoalStatePeriod=20\nExtensions.InitialGoalStatePeriod=2").integer(
            "Extensions.InitialGoalStatePeriod"
        )
        == 2
    )


@pytest.mark.parametrize(
    ("text", "proxy", "warned"),
    [
        ("", None, False),
        ("HttpProxy.Host=proxy\nHttpProxy.Port=3128", ("proxy", 3128), False),
        ("HttpProxy.Host=proxy", ("proxy", 80), True),
        ("HttpProxy.Host=proxy\nHttpProxy.Port=123456", ("proxy", 80), True),
        ("HttpProxy.Host=proxy\nHttpProxy.Port=0", ("proxy", 80), True),
        ("HttpProxy.Host=proxy\nHttpProxy.Port=-8080", ("proxy", 80), True),
        ("HttpProxy.Port=3128", None, True),
    ],
)
def test_a_proxy_without_a_port_is_on_80(text: str, proxy: tuple[str, int] | None, warned: bool) -> None:
    read = config(text)
    assert read.http_proxy == proxy
    assert bool(warnings(read)) is warned


def test_ignored_keys_say_why_and_keep_their_default() -> None:
    read = config("LBProbeResponder=y\nOS.AllowHTTP=y\nOS.SshdConfigPath=/etc/sshd\n")
    assert read.value("LBProbeResponder") is None
    assert read.boolean("OS.AllowHTTP") is False
    assert any("OS.SshDir" in info for info in infos(read))
    assert any("OS.AllowHTTP is refused" in warning for warning in warnings(read))


def test_swap_is_encrypted_on_freebsd_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "ResourceDisk.EnableSwapEncryption=y\n"
    (warning,) = warnings(config(text))
    assert warning.endswith("is not done here: swap is not encrypted")
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(sysname="FreeBSD"))
    assert warnings(config(text)) == []
    assert config(text).boolean("ResourceDisk.EnableSwapEncryption") is True


def test_provisioning_enabled_n_points_at_the_key_that_counts() -> None:
    (warning,) = warnings(config("Provisioning.Enabled=n"))
    assert "Provisioning.Agent=disabled" in warning
    assert warnings(config("Provisioning.Enabled=n\nProvisioning.Agent=cloud-init")) == []
    assert "acts as disabled" in warnings(config("Provisioning.Agent=cloudinit"))[0]


def test_a_misspelt_word_about_third_parties_is_named() -> None:
    assert "Plugins.ThirdParty is 'Listed', which acts as listed" in warnings(config("Plugins.ThirdParty=Listed"))[0]
    for word in ("all", "listed", ""):
        assert warnings(config(f"Plugins.ThirdParty={word}")) == []


def test_origins_tell_the_layers_apart(tmp_path: Path) -> None:
    for name, text in {
        "usr/lib/waagent/conf.d/v.conf": "Logs.Collect=n\n",
        "etc/waagent.conf": "\nLogs.Verbose=y\n",
        "etc/waagent.conf.d/d.conf": "ResourceDisk.Format=n\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    read = Config(read_chain(str(tmp_path)))
    assert read.origin("Logs.Collect") == Origin("vendor", str(tmp_path / "usr/lib/waagent/conf.d/v.conf"), 1)
    assert read.origin("Logs.Verbose") == Origin("file", str(tmp_path / "etc/waagent.conf"), 2)
    assert read.origin("ResourceDisk.Format").kind == "drop-in"
    assert str(read.origin("OS.SshDir")) == "default"


def test_a_plugin_adds_options_and_gives_defaults_to_known_ones() -> None:
    read = config("Acme.Interval=5\n")
    assert infos(read)
    read.declare(
        "acme",
        [
            Option("Acme.Interval", "int", 60, "seconds", minimum=1),
            Option("Acme.Mode", "text", "fast", "mode"),
            Option("OS.PasswordPath", "text", "/etc/master.passwd", "passwords"),
        ],
    )
    assert infos(read) == []
    assert read.integer("Acme.Interval") == 5
    assert read.origin("Acme.Mode") == Origin("plugin default", plugin="acme")
    assert read.text("OS.PasswordPath") == "/etc/master.passwd"
    assert str(read.origin("OS.PasswordPath")) == "default of plugin acme"
    assert read.plugin("Acme.Mode") == "acme"
    assert read.plugin("ResourceDisk.Format") == "resourcedisk"


def test_a_file_wins_over_a_plugins_default() -> None:
    read = config("OS.PasswordPath=/etc/mine\n")
    read.declare("bsd", [Option("OS.PasswordPath", "text", "/etc/master.passwd", "passwords")])
    assert read.text("OS.PasswordPath") == "/etc/mine"


@pytest.mark.parametrize(
    "option",
    [
        Option("Acme.X", "list", "a", "kind"),
        Option("Acme.X", "bool", None, "no default"),
        Option("Acme.X", "int", True, "a switch for a number"),
        Option("Acme.X", "text", 3, "a number for a text"),
        Option("Logs.Verbose", "text", "y", "another kind"),
        Option("Home.Dir", "text", "/h", "an alias"),
    ],
)
def test_a_plugins_faulty_option_is_left_out_and_named(option: Option) -> None:
    read = config()
    read.declare("acme", [option, Option("Acme.Good", "bool", True, "good")])
    assert read.boolean("Acme.Good") is True
    (warning,) = warnings(read)
    assert option.name in warning
    assert "plugin acme" in warning
    assert read.boolean("Logs.Verbose") is False


def test_two_plugins_with_one_name_do_not_share_it() -> None:
    read = config()
    read.declare("first", [Option("Acme.X", "int", 1, "x")])
    read.declare("second", [Option("Acme.X", "int", 2, "x")])
    assert read.integer("Acme.X") == 1
    assert "second" in warnings(read)[0]


def test_defaults_that_lead_in_a_circle_end() -> None:
    raw = RawConfig()
    read = Config(raw, [Option("A", "int", 1, "a", default_from="B"), Option("B", "int", 2, "b", default_from="A")])
    assert read.value("A") in (1, 2)


def test_getters_refuse_the_wrong_kind_and_unknown_names() -> None:
    read = config()
    with pytest.raises(TypeError):
        read.boolean("Lib.Dir")
    with pytest.raises(TypeError):
        read.text("Logs.Verbose")
    with pytest.raises(TypeError):
        read.integer("Logs.Verbose")
    with pytest.raises(TypeError):
        read.integer("HttpProxy.Port")
    with pytest.raises(KeyError):
        read.value("No.Such")


def _sample_of(path: Path, first: str) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    begin = lines.index(first)
    end = next(number for number in range(begin, len(lines)) if "=" not in lines[number])
    return "\n".join(lines[begin:end])


@pytest.mark.parametrize(
    ("pattern", "first", "count"),
    [("001_*.txt", "Provisioning.Enabled=y", 23), ("002_*.txt", "Extensions.Enabled=y", 29)],
)
def test_the_documented_samples_are_understood_key_by_key(seeds: Path, pattern: str, first: str, count: int) -> None:
    sample = _sample_of(next(seeds.glob(pattern)), first)
    read = config(sample)
    assert read.unknown == ()
    assert warnings(read) == []
    keys = [line.split("=")[0] for line in sample.splitlines()]
    assert len(keys) == count
    assert read.value("Provisioning.SshHostKeyPairType") == "rsa"
    assert read.value("ResourceDisk.MountOptions") is None
    for key in keys:
        assert read.options[key].ignored or read.raw(key) is None or read.given(key), key


BASE = {
    "Extensions.Enabled": "y",
    "Extensions.GoalStatePeriod": "6",
    "Provisioning.Agent": "auto",
    "Provisioning.DeleteRootPassword": "y",
    "Provisioning.RegenerateSshHostKeyPair": "y",
    "Provisioning.SshHostKeyPairType": "rsa",
    "Provisioning.MonitorHostName": "y",
    "Provisioning.MonitorHostNamePeriod": "30",
    "Provisioning.DecodeCustomData": "n",
    "Provisioning.ExecuteCustomData": "n",
    "Provisioning.AllowResetSysUser": "n",
    "ResourceDisk.Format": "y",
    "ResourceDisk.Filesystem": "ext4",
    "ResourceDisk.MountPoint": "/mnt/resource",
    "ResourceDisk.MountOptions": "None",
    "ResourceDisk.EnableSwap": "n",
    "ResourceDisk.SwapSizeMB": "0",
    "Logs.Verbose": "n",
    "Logs.Collect": "y",
    "Logs.CollectPeriod": "3600",
    "OS.EnableFIPS": "n",
    "OS.EnableFirewall": "y",
    "OS.EnableFirewallPeriod": "30",
    "OS.MonitorDhcpClientRestartPeriod": "30",
    "OS.RemovePersistentNetRulesPeriod": "30",
    "OS.RootDeviceScsiTimeout": "300",
    "OS.RootDeviceScsiTimeoutPeriod": "30",
    "OS.OpensslPath": "None",
    "OS.SshDir": "/etc/ssh",
}
"""What is set, and not commented out, in the file that most packages start from (configuration §4)."""

ROLES = {"Role.StateConsumer": "None", "Role.ConfigurationConsumer": "None", "Role.TopologyConsumer": "None"}
PROBES = {"LBProbeResponder": "y"}

SHIPPED = {
    # name: (what differs from the base file; "" is a key that the file lacks, what it comes to)
    "Ubuntu": (
        {
            **PROBES,
            "Provisioning.RegenerateSshHostKeyPair": "n",
            "Provisioning.MonitorHostName": "n",
            "ResourceDisk.Format": "n",
            "ResourceDisk.MountPoint": "/mnt",
            "OS.EnableFirewallPeriod": "",
        },
        {"ResourceDisk.Format": False, "ResourceDisk.MountPoint": "/mnt", "OS.EnableFirewallPeriod": 300},
    ),
    "Debian": (
        {
            "Provisioning.Agent": "cloud-init",
            "Provisioning.SshHostKeyPairType": "auto",
            "OS.EnableFirewall": "n",
            "AutoUpdate.Enabled": "n",
        },
        {"Provisioning.Agent": "cloud-init", "AutoUpdate.UpdateToLatestVersion": False, "OS.EnableFirewall": False},
    ),
    "Devuan": (
        {"Provisioning.SshHostKeyPairType": "auto", "CGroups.EnforceLimits": "n", "CGroups.Excluded": "a,b"},
        {"Provisioning.SshHostKeyPairType": "auto", "CGroups.EnforceLimits": False, "CGroups.Excluded": "a,b"},
    ),
    "SUSE": (
        {**PROBES, "ResourceDisk.Filesystem": "btrfs", "ResourceDisk.MountOptions": "compress=lzo"},
        {"ResourceDisk.Filesystem": "btrfs", "ResourceDisk.MountOptions": "compress=lzo"},
    ),
    "SUSE micro": (
        {"Extensions.Enabled": "n", "Provisioning.Agent": "disabled", "AutoUpdate.Enabled": "n", "OS.EnableRDMA": "y"},
        {"Extensions.Enabled": False, "Provisioning.Agent": "disabled", "OS.EnableRDMA": True},
    ),
    "Azure Linux": (
        {**ROLES, "Provisioning.Enabled": "n", "Provisioning.DecodeCustomData": "y", "ResourceDisk.Format": "n"},
        {"Provisioning.DecodeCustomData": True, "ResourceDisk.Format": False, "Provisioning.Agent": "auto"},
    ),
    "Photon": (
        {
            **ROLES,
            "Provisioning.Enabled": "n",
            "Provisioning.UseCloudInit": "y",
            "Provisioning.Agent": "",
            "Extensions.Enabled": "",
            "OS.EnableFirewall": "",
            "ResourceDisk.Format": "n",
        },
        {"Provisioning.Agent": "auto", "Extensions.Enabled": True, "OS.EnableFirewall": False},
    ),
    "Flatcar": (
        {
            **PROBES,
            "Provisioning.DeleteRootPassword": "n",
            "Provisioning.SshHostKeyPairType": "ed25519",
            "OS.AllowHTTP": "y",
            "AutoUpdate.Enabled": "n",
        },
        {"Provisioning.SshHostKeyPairType": "ed25519", "OS.AllowHTTP": False, "Provisioning.DeleteRootPassword": False},
    ),
    "Clear Linux": ({**ROLES, "Extensions.Enabled": ""}, {"Extensions.Enabled": True, "Role.StateConsumer": None}),
    "Arch": ({**PROBES, "Provisioning.DeleteRootPassword": "n"}, {"Provisioning.DeleteRootPassword": False}),
    "Alpine": (
        {
            **PROBES,
            "Network.Interface": "eth0",
            "Provisioning.MonitorHostName": "n",
            "Provisioning.DecodeCustomData": "y",
            "Provisioning.ExecuteCustomData": "y",
        },
        {"Provisioning.ExecuteCustomData": True, "Network.Interface": None, "Provisioning.MonitorHostName": False},
    ),
    "Chainguard": (
        {"Extensions.Enabled": "n", "AutoUpdate.UpdateToLatestVersion": "n"},
        {"Extensions.Enabled": False, "AutoUpdate.UpdateToLatestVersion": False, "AutoUpdate.Enabled": True},
    ),
    "FreeBSD": (
        {
            "ResourceDisk.Filesystem": "ufs",
            "ResourceDisk.EnableSwap": "y",
            "ResourceDisk.SwapSizeMB": "16384",
            "OS.PasswordPath": "/etc/master.passwd",
            "OS.SudoersDir": "/usr/local/etc/sudoers.d",
            "Provisioning.AllowResetSysUser": "",
        },
        {"ResourceDisk.SwapSizeMB": 16384, "OS.SudoersDir": "/usr/local/etc/sudoers.d"},
    ),
    "OpenBSD": (
        {
            "ResourceDisk.Filesystem": "ufs2",
            "ResourceDisk.EnableSwap": "y",
            "ResourceDisk.SwapSizeMB": "65536",
            "OS.OpensslPath": "/usr/local/bin/eopenssl",
            "OS.PasswordPath": "/etc/master.passwd",
        },
        {"ResourceDisk.SwapSizeMB": 65536, "OS.PasswordPath": "/etc/master.passwd"},
    ),
    "NSBSD": (
        {"Lib.Dir": "/usr/Firewall/lib/waagent", "Extension.LogDir": "/log/azure", "OS.EnableFirewall": "n"},
        {"Lib.Dir": "/usr/Firewall/lib/waagent", "Extension.LogDir": "/log/azure"},
    ),
    "BIG-IP": (
        {**ROLES, **PROBES, "Lib.Dir": "/shared/vadc/azure/waagent/", "OS.SshdConfigPath": "/config/ssh/sshd_config"},
        {"Lib.Dir": "/shared/vadc/azure/waagent/"},
    ),
    "Gaia": (
        {
            "Provisioning.PasswordCryptId": "1",
            "Provisioning.AllowResetSysUser": "y",
            "OS.OpensslPath": "/var/lib/waagent/openssl",
            "ResourceDisk.Filesystem": "ext3",
            "ResourceDisk.EnableSwap": "y",
            "ResourceDisk.SwapSizeMB": "1024",
        },
        {"Provisioning.PasswordCryptId": "1", "Provisioning.AllowResetSysUser": True, "ResourceDisk.SwapSizeMB": 1024},
    ),
    "IOS XE": (
        {"Extensions.Enabled": "", "Provisioning.RegenerateSshHostKeyPair": "n", "ResourceDisk.Format": "n"},
        {"Extensions.Enabled": True, "Provisioning.RegenerateSshHostKeyPair": False},
    ),
    "RHEL": ({"Logs.Collect": "n", "OS.EnableFIPS": ""}, {"Logs.Collect": False, "OS.EnableFIPS": False}),
}


@pytest.mark.parametrize("system", SHIPPED)
def test_files_that_distributions_ship_come_to_what_they_say(system: str) -> None:
    """The tables of configuration §10."""
    changes, expected = SHIPPED[system]
    lines = {key: value for key, value in {**BASE, **changes}.items() if value}
    read = config("".join(f"{key}={value}\n" for key, value in lines.items()))
    assert read.unknown == ()
    assert {name: read.value(name) for name in expected} == expected
    words = {"y": True, "n": False, "None": None}
    for key, value in lines.items():
        option = read.options[key]
        if not option.ignored and value != "None":
            assert read.value(key) == (words[value] if option.kind == "bool" else type(read.value(key))(value)), key


# ---- who acts on an option ----

NOT_HERE_YET = ("firewall", "logcollector", "updates")
"""Plugins whose options are known, because files in the field have them, and which this version does not bring."""


def entry_points() -> set[str]:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    table = text.partition('[project.entry-points."waagent.plugins"]\n')[2].partition("\n[")[0]
    return set(re.findall(r"^(\w+) = ", table, re.MULTILINE))


def test_every_option_is_acted_on_or_says_why_not() -> None:
    """Nothing is accepted in silence (architecture §10)."""
    sources = [*REPOSITORY.glob("core/waagent/**/*.py"), *REPOSITORY.glob("plugins/*/*/**/*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources if path.name != "options.py")
    idle = [option.name for option in CORE if not option.ignored and f'"{option.name}"' not in code]
    assert [name for name in idle if owner_of(name) not in NOT_HERE_YET] == []
    assert set(NOT_HERE_YET) & entry_points() == set()


def test_every_owner_of_an_option_is_a_plugin() -> None:
    owners = {owner_of(option.name) for option in CORE} - {None, *NOT_HERE_YET}
    assert owners <= entry_points()
    assert owner_of("Extensions.GoalStatePeriod") is None, "the core polls whatever plugins there are"


def test_keys_that_nobody_acts_on_are_told_with_the_reason() -> None:
    read = config("OS.EnableFirewall=y\nLogs.Collect=y\nResourceDisk.Format=n\nHome.Dir=/x\nAcme.X=1\nOther.Y=1\n")
    states = {"resourcedisk": "off", "acme": "untrusted", "extensions": "on"}
    assert [(setting.key, setting.line, reason) for setting, reason in read.idle(states)] == [
        ("OS.EnableFirewall", 1, "owned by plugin firewall, which is not installed"),
        ("ResourceDisk.Format", 3, "owned by disabled plugin resourcedisk"),
        ("Acme.X", 5, "owned by plugin acme, which is untrusted"),
    ]
    assert read.idle({}) == [], "nothing is known of plugins"
    assert config("OS.EnableFirewall=n\n").idle(states) == [], "it is so anyway"


def test_the_log_of_a_start_names_keys_that_nobody_acts_on(tmp_path: Path) -> None:
    sinks = Sinks()
    sinks.path = str(tmp_path / "log")
    config("OS.EnableFirewall=y\n").report(Log(sinks, "Daemon", "Boot"), {"extensions": "on"})
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.endswith(
        "INFO Boot Daemon Configuration: keys that nobody acts on: "
        "OS.EnableFirewall (owned by plugin firewall, which is not installed)"
    )


@given(
    st.sampled_from([option.name for option in CORE]), st.text(st.characters(blacklist_characters="\n"), max_size=60)
)
def test_no_value_of_any_option_raises_or_changes_its_type(name: str, value: str) -> None:
    read = config(f"{name}={value}")
    option = read.options[name]
    expected = {"bool": bool, "int": int, "text": str}[option.kind]
    result = read.value(name)
    assert type(result) is expected or (result is None and option.default is None)
    assert all(str(problem) for problem in read.problems)


def test_the_worker_pays_for_no_difflib_and_no_heavy_module() -> None:
    code = (
        "import sys, attrs; before = set(sys.modules);"  # older attrs bring some themselves
        "from waagent.config import Config; from waagent.conffile import RawConfig; Config(RawConfig());"
        "names = 'difflib ssl logging dataclasses subprocess pathlib json'.split();"
        "print([name for name in names if name in sys.modules and name not in before])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
