"""The SSH server's configuration: what counts is the first value that sshd reads."""

from __future__ import annotations

import stat

import pytest

from waagent.errors import NoAnswer
from waagent_distro.steps import sshd

OFF = [("PasswordAuthentication", "no"), ("ChallengeResponseAuthentication", "no"), ("ClientAliveInterval", "180")]
THREE = "PasswordAuthentication no\nChallengeResponseAuthentication no\nClientAliveInterval 180\n"
ALIVE = "ClientAliveInterval 180\n"
MAIN, DROP_IN = "etc/ssh/sshd_config", "etc/ssh/sshd_config.d/10-waagent.conf"
IMAGES = "etc/ssh/sshd_config.d/50-cloud-init.conf"
INCLUDE = "Include /etc/ssh/sshd_config.d/*.conf\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Port 22\n#PasswordAuthentication yes\n", "Port 22\n#PasswordAuthentication yes\n" + THREE),
        (
            "Port 22\nMatch User x\n PasswordAuthentication yes\n",
            "Port 22\n" + THREE + "Match User x\n PasswordAuthentication yes\n",
        ),
        (
            "Match User x\n PasswordAuthentication yes\nMatch all\n# tail\n",
            "Match User x\n PasswordAuthentication yes\nMatch all\n# tail\n" + THREE,
        ),
        (
            "MATCH User x\nMatch All\nMatch Group y\n X11Forwarding no\n",
            "MATCH User x\nMatch All\n" + THREE + "Match Group y\n X11Forwarding no\n",
        ),
        (
            "PasswordAuthentication yes\nPort 22\nPasswordAuthentication yes\n",
            "PasswordAuthentication no\nPort 22\nPasswordAuthentication yes\n" + THREE.partition("\n")[2],
        ),
        ("Port 22", "Port 22\n" + THREE),
        ("", THREE),
        (
            "passwordauthentication=yes\n  KbdInteractiveAuthentication yes\nClientAliveIntervalX 1\n",
            "passwordauthentication no\nKbdInteractiveAuthentication no\nClientAliveIntervalX 1\n" + ALIVE,
        ),
    ],
)
def test_settings_end_up_outside_match_blocks(before, after):
    assert sshd.edited(before, OFF) == after
    assert sshd.edited(after, OFF) == after


@pytest.mark.parametrize(
    ("text", "directory"),
    [
        ("Include /etc/ssh/sshd_config.d/*.conf\n", "/etc/ssh/sshd_config.d"),
        ("  include sshd_config.d/*.conf other\n", "/etc/ssh/sshd_config.d"),
        ('Include "/etc/other/*"\n', "/etc/other"),
        ("#Include /etc/ssh/sshd_config.d/*.conf\n", ""),
        ("Match User x\nInclude /etc/ssh/sshd_config.d/*.conf\n", ""),
        ("Include /etc/ssh/one.conf\n", ""),
        ("Include /etc/ssh/sshd_config.d/50-*.conf\n", ""),
    ],
)
def test_the_directory_of_drop_ins_is_the_included_one(text, directory):
    assert sshd.included_directory(text) == directory


def test_only_what_is_asked_for_is_set(machine):
    path = machine.write(MAIN, "Port 22\n", 0o640)
    machine.distro.configure_sshd()
    assert machine.read(MAIN) == "Port 22\n"
    machine.distro.configure_sshd(client_alive_interval=60)
    assert machine.read(MAIN) == "Port 22\nClientAliveInterval 60\n"
    machine.distro.configure_sshd(password_authentication=True)
    assert machine.read(MAIN).endswith("PasswordAuthentication yes\nChallengeResponseAuthentication yes\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not (machine.root / DROP_IN).exists()


@pytest.mark.parametrize(
    ("images", "ours"),
    [
        ("", None),
        ("PasswordAuthentication no\nX11Forwarding no\n", None),
        ("#PasswordAuthentication yes\nMatch User x\nPasswordAuthentication yes\n", None),
        ("passwordauthentication=YES\n", "PasswordAuthentication no\n"),
        ("Match User x\nMatch all\nPasswordAuthentication yes\n", "PasswordAuthentication no\n"),
        ("Include /etc/ssh/more/*.conf\n", THREE),
        ("KbdInteractiveAuthentication yes\nClientAliveInterval 3m\n", THREE.partition("\n")[2]),
    ],
)
def test_a_drop_in_says_what_those_of_the_image_would_override(machine, images, ours):
    machine.write(MAIN, INCLUDE)
    machine.write(IMAGES, images)
    machine.distro.configure_sshd(False, 180)
    assert machine.read(MAIN) == INCLUDE + THREE
    assert machine.read(IMAGES) == images
    assert (machine.root / DROP_IN).exists() is (ours is not None)
    if ours is not None:
        assert machine.read(DROP_IN) == ours
        assert stat.S_IMODE((machine.root / DROP_IN).stat().st_mode) == 0o600


def test_a_main_file_with_other_includes_gets_the_whole_drop_in(machine):
    machine.write(MAIN, INCLUDE + "Include /etc/ssh/more/*.conf\n")
    machine.distro.configure_sshd(False, 180)
    assert machine.read(DROP_IN) == THREE


def test_the_first_drop_in_of_the_image_counts(machine):
    machine.write(MAIN, INCLUDE)
    machine.write(IMAGES, "PasswordAuthentication no\n")
    machine.write("etc/ssh/sshd_config.d/60-cloudimg-settings.conf", "PasswordAuthentication yes\n")
    machine.distro.configure_sshd(False)
    assert not (machine.root / DROP_IN).exists()


def test_our_drop_in_does_not_speak_against_who_edits_the_main_file_later(machine):
    # The VMAccess extension resets a password and allows it in sshd_config, which a drop-in comes before.
    machine.write(MAIN, INCLUDE)
    machine.write(DROP_IN, "PasswordAuthentication yes\nKbdInteractiveAuthentication yes\n")
    machine.distro.configure_sshd(False)
    assert not (machine.root / DROP_IN).exists()
    machine.write(DROP_IN, "PasswordAuthentication yes\nX11Forwarding no\n")
    machine.distro.configure_sshd(False)
    assert machine.read(DROP_IN) == "X11Forwarding no\n"


def test_a_vendors_file_in_usr_is_not_copied(machine):
    machine.write("usr/etc/ssh/sshd_config", "Include /etc/ssh/sshd_config.d/*.conf\n")
    machine.distro.configure_sshd(False, 180)
    assert machine.read(DROP_IN) == THREE
    assert not (machine.root / MAIN).exists()


def test_a_configuration_that_sshd_refuses_is_taken_back(machine, monkeypatch):
    machine.write(MAIN, INCLUDE + "Port 22\n")
    machine.write(IMAGES, "PasswordAuthentication yes\n")
    monkeypatch.setattr(sshd, "_which", lambda _program: "/usr/sbin/sshd")
    machine.answer(
        "/usr/sbin/sshd -t",
        lambda _command, _data: (255, "", "line 3: bad value") if (machine.root / DROP_IN).exists() else 0,
    )
    with pytest.raises(NoAnswer, match="sshd refuses the new configuration, the old one stays: line 3: bad value"):
        machine.distro.configure_sshd(False, 180)
    assert machine.read(MAIN) == INCLUDE + "Port 22\n"
    assert [path.name for path in (machine.root / "etc/ssh/sshd_config.d").iterdir()] == ["50-cloud-init.conf"]


def test_a_complaint_that_was_there_before_is_not_held_against_it(machine, monkeypatch):
    machine.write(MAIN, "Port 22\n")
    monkeypatch.setattr(sshd, "_which", lambda _program: "/usr/sbin/sshd")
    machine.answer("/usr/sbin/sshd -t", (255, "", "sshd: no hostkeys available -- exiting."))
    assert machine.distro.configure_sshd(False, 180) is True
    assert machine.read(MAIN) == "Port 22\n" + THREE


@pytest.mark.parametrize(
    ("loaded", "commands"),
    [
        (("sshd.service", "ssh.service"), ["systemctl try-reload-or-restart sshd.service"]),
        (("ssh.service",), ["systemctl try-reload-or-restart ssh.service"]),
        ((), []),
    ],
)
def test_the_server_is_reloaded_where_it_is(machine, loaded, commands):
    machine.answer(
        "systemctl show",
        lambda command, _data: f"LoadState={'loaded' if command[-1] in loaded else 'not-found'}\n",
    )
    assert machine.distro.restart_ssh() is True
    assert machine.commands() == commands


def test_a_server_that_does_not_reload_is_a_failure(machine):
    machine.answer("systemctl try-reload-or-restart", (1, "", "Job for sshd.service failed.\n"))
    with pytest.raises(NoAnswer, match=r"Job for sshd\.service failed"):
        machine.distro.restart_ssh()


def test_without_systemd_the_script_is_asked(bare):
    bare.become("ID=acmeos\n").answer("service")
    assert bare.distro.restart_ssh() is True
    assert bare.ran == []
    bare.write("etc/init.d/ssh", "")
    bare.distro.restart_ssh()
    assert bare.commands() == ["service ssh reload"]
