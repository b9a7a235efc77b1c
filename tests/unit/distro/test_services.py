"""Services under every manager, and the agent's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from waagent.errors import NoAnswer
from waagent_distro.steps import bsdservice, servicefiles

PACKAGED = Path(__file__).resolve().parents[3] / "packaging/systemd/waagent.service"


def openrc(machine):
    machine.write("run/openrc/softlevel", "default")


def sysv_debian(machine):
    machine.write("usr/sbin/update-rc.d", "")


def sysv_redhat(machine):
    machine.write("sbin/chkconfig", "")


MANAGERS = {
    "systemd": (
        lambda machine: (machine.root / "run/systemd/system").mkdir(parents=True),
        {"start": "systemctl start x.service", "reload": "systemctl reload x.service",
         "enable": "systemctl enable x.service", "mask": "systemctl mask x.service"},
    ),
    "openrc": (
        openrc,
        {"restart": "rc-service x restart", "enable": "rc-update add x default",
         "disable": "rc-update del x default", "mask": None},
    ),
    "procd": (
        lambda machine: machine.write("sbin/procd", ""),
        {"stop": "/etc/init.d/x stop", "enable": "/etc/init.d/x enable", "unmask": None},
    ),
    "debian's sysv": (
        sysv_debian,
        {"start": "service x start", "enable": "update-rc.d x defaults", "disable": "update-rc.d x remove"},
    ),
    "red hat's sysv": (sysv_redhat, {"enable": "chkconfig --add x", "disable": "chkconfig --del x", "mask": None}),
    "bare sysv": (lambda machine: None, {"start": "service x start", "enable": None}),
}  # fmt: skip


@pytest.mark.parametrize("name", MANAGERS)
def test_actions(bare, name):
    prepare, actions = MANAGERS[name]
    prepare(bare)
    bare.answer(())  # every command succeeds
    distro = bare.become("ID=acmeos\n").distro
    for action, command in actions.items():
        bare.ran.clear()
        if command is None:
            with pytest.raises(NoAnswer):
                distro.service_action("x", action)
            assert bare.ran == []
        else:
            assert distro.service_action("x", action) is True
            assert bare.commands() == [command]


@pytest.mark.parametrize(("service", "action"), [("x", "explode"), ("", "start"), ("--now", "stop"), ("../x", "start")])
def test_what_is_no_action_on_a_service(machine, service, action):
    with pytest.raises(NoAnswer, match="is no"):
        machine.distro.service_action(service, action)
    assert machine.ran == []


def test_a_refusal_is_told(machine):
    machine.answer("systemctl start", (5, "", "Failed to start x.service: Unit x.service not found.\n"))
    with pytest.raises(NoAnswer, match=r"Unit x\.service not found"):
        machine.distro.service_action("x", "start")


# ---- The agent's own service ----


@pytest.fixture
def program(machine):
    return str(machine.write("opt/some where/waagent", "", 0o755))


def test_registering_writes_enables_and_starts(machine, program):
    unit = machine.root / "etc/systemd/system/waagent.service"
    for _ in range(2):
        assert machine.distro.register_service(program) is True
    text = unit.read_text()
    assert f'ExecStart="{program}" -daemon\n' in text
    assert "Alias=walinuxagent.service\n" in text
    assert machine.commands()[:4] == [
        "systemctl daemon-reload", "systemctl unmask waagent.service", "systemctl enable waagent.service",
        "systemctl restart waagent.service",
    ]  # fmt: skip
    machine.ran.clear()
    machine.distro.unregister_service()
    machine.distro.unregister_service()
    assert not unit.exists()
    lines = machine.commands()
    assert lines[:2] == ["systemctl stop waagent.service", "systemctl disable waagent.service"]


def test_unregistering_gives_udevs_rules_back(machine, program):
    rules = machine.write("etc/udev/rules.d/70-persistent-net.rules", "SUBSYSTEM==...")
    machine.distro.register_service(program)
    machine.distro.move_persistent_net_rules()
    assert not rules.exists()
    machine.distro.unregister_service()
    assert rules.read_text() == "SUBSYSTEM==..."


def test_another_program_takes_its_place(machine, program):
    other = str(machine.write("opt/new/waagent", "", 0o755))
    machine.distro.register_service(program)
    machine.distro.register_service(other)
    assert f"ExecStart={other} -daemon\n" in machine.read("etc/systemd/system/waagent.service")


def test_a_units_file_of_somebody_else_stays(machine, program):
    unit = machine.write("etc/systemd/system/waagent.service", "[Service]\nExecStart=/usr/sbin/waagent -daemon\n")
    with pytest.raises(NoAnswer, match="belongs to somebody else and runs another program"):
        machine.distro.register_service(program)
    machine.distro.unregister_service()
    assert unit.read_text() == "[Service]\nExecStart=/usr/sbin/waagent -daemon\n"


def test_a_packages_unit_for_the_same_program_is_used(machine):
    program = machine.write("usr/sbin/waagent", "", 0o755)
    machine.write("usr/lib/systemd/system/waagent.service", f"[Service]\nExecStart={program} -daemon\n")
    machine.distro.register_service(str(program))
    assert not (machine.root / "etc/systemd/system/waagent.service").exists()
    assert machine.commands()[-1] == "systemctl restart waagent.service"


@pytest.mark.parametrize("program", ["waagent", "/nowhere/waagent", "/etc"])
def test_only_programs_are_registered(machine, program):
    path = program if program == "waagent" else machine.at(program)
    if program == "/etc":
        path += "/waagent.conf"
        machine.write("etc/waagent.conf", "")
    with pytest.raises(NoAnswer, match="is no program to run"):
        machine.distro.register_service(path)


@pytest.mark.parametrize(
    ("prepare", "path"),
    [
        (openrc, "etc/init.d/waagent"),
        (sysv_debian, "etc/init.d/waagent"),
        (lambda m: m.write("sbin/procd", ""), "etc/init.d/waagent"),
    ],
)
def test_scripts_of_other_managers(bare, prepare, path):
    prepare(bare)
    bare.answer(())
    program = str(bare.write("opt/some where/waagent", "", 0o755))
    bare.become("ID=acmeos\n").distro.register_service(program)
    assert os.access(bare.root / path, os.X_OK)
    assert f"'{program}'" in bare.read(path)
    bare.distro.unregister_service()
    assert not (bare.root / path).exists()


SCRIPTS = [servicefiles.openrc, servicefiles.procd, servicefiles.init_script]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_scripts_are_shell(script):
    text = script("/opt/it's here/waagent", "waagent")
    subprocess.run(["sh", "-n"], input=text, text=True, check=True, timeout=30)


@pytest.mark.parametrize("script", [bsdservice.freebsd_script, bsdservice.openbsd_script])
def test_scripts_of_the_bsds_are_shell(script):
    subprocess.run(["sh", "-n"], input=script("/usr/local/sbin/waagent"), text=True, check=True, timeout=30)


@pytest.mark.parametrize(
    ("program", "quoted"),
    [("/usr/sbin/waagent", "/usr/sbin/waagent"), ("/a b/w", '"/a b/w"'), ("/a%b$c/w", '"/a%%b$$c/w"')],
)
def test_paths_reach_systemd_as_they_are(program, quoted):
    assert f"ExecStart={quoted} -daemon\n" in servicefiles.unit(program, "waagent")


@pytest.mark.skipif(not PACKAGED.exists(), reason="this tree carries no packaging")
def test_registering_writes_the_unit_that_packages_ship():
    packaged = PACKAGED.read_text()
    assert packaged.rpartition("\n[")[2].startswith("Install]\n"), "the alias is added at the end"
    assert packaged.count("ExecStart=/usr/sbin/waagent -daemon\n") == 1
    written = servicefiles.unit("/usr/sbin/waagent", "waagent")
    assert written == f"# {servicefiles.MARK}\n{packaged}Alias=walinuxagent.service\n"
    assert servicefiles.unit("/opt/w", "walinuxagent").endswith("WantedBy=multi-user.target\nAlias=waagent.service\n")
