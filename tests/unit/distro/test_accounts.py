"""Users, passwords and root's lock."""

from __future__ import annotations

import stat
import subprocess
import sys

import pytest

from waagent.errors import NoAnswer

PASSWD = (
    "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:/usr/sbin/nologin\namy:x:1000:1000:Amy,,,:/home/amy:/bin/sh\n"
)


@pytest.fixture
def people(machine):
    machine.write("etc/passwd", PASSWD)
    machine.write("etc/group", "root:x:0:\namy:x:1000:\nadmin:x:110:\n")
    machine.write("etc/login.defs", "# UID_MIN 500\nUID_MIN\t\t 1000\n")
    (machine.root / "home/amy").mkdir(parents=True)
    for command in ("useradd", "userdel", "chpasswd", "usermod", "visudo"):
        machine.answer(command)
    return machine


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (("bob",), "useradd -m bob"),
        (("Bob.D-1",), "useradd -m Bob.D-1"),
        (("bob", "JIT_Account", "2030-01-31"), "useradd -m -e 2030-01-31 -c JIT_Account bob"),
        (("bob", "a:b\nc"), "useradd -m -c a b c bob"),
        (("admin",), "useradd -m -g admin admin"),
    ],
)
def test_users_are_made(people, arguments, command):
    people.distro.create_user(*arguments)
    assert people.commands() == [command]


@pytest.mark.parametrize(
    ("defaults", "bash", "command"),
    [
        ("", True, "useradd -m -s /bin/bash bob"),
        ("GROUP=100\n", True, "useradd -m -s /bin/bash bob"),
        ("SHELL=/bin/zsh\n", True, "useradd -m bob"),
        ("", False, "useradd -m bob"),
    ],
)
def test_bash_is_the_shell_where_it_is_and_nothing_else_is_said(people, defaults, bash, command):
    people.write("etc/default/useradd", defaults)
    if bash:
        people.write("bin/bash", "")
    people.distro.create_user("bob")
    assert people.commands() == [command]


def test_a_user_who_is_there_is_left_alone(people):
    assert people.distro.create_user("amy") is True
    assert people.ran == []
    assert "INFO User amy already exists, skip useradd" in people.lines


def test_a_home_that_a_killed_useradd_did_not_make_is_made(people):
    people.write("etc/passwd", PASSWD + "kim:x:1001:1001::/home/kim:/bin/sh\n")
    people.answer("chown")
    assert people.distro.create_user("kim") is True
    home = people.root / "home/kim"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert people.commands() == [f"chown -R 1001:1001 {home}"]


def test_a_user_whom_somebody_else_makes_meanwhile_is_no_failure(people):
    def useradd(_command, _data):
        people.write("etc/passwd", PASSWD + "bob:x:1001:1001::/home/bob:/bin/sh\n")
        return 9

    people.answer("useradd", useradd)
    assert people.distro.create_user("bob") is True


@pytest.mark.parametrize("name", ["", "-rf", "a b", "a:b", "a/b", "1a", "x" * 33, "a\nb ALL=(ALL) ALL", "é"])
def test_names_that_mean_something_else_never_reach_a_command(people, name):
    for call in (
        lambda: people.distro.create_user(name),
        lambda: people.distro.set_password(name, "x"),
        lambda: people.distro.configure_sudo(name, True),
    ):
        with pytest.raises(NoAnswer, match="is no user name"):
            call()
    assert people.ran == []


def test_what_useradd_says_reaches_the_caller(people):
    people.answer("useradd", (12, "", "useradd: cannot create directory /home/bob\n"))
    with pytest.raises(NoAnswer, match=r"cannot create user bob.*cannot create directory /home/bob"):
        people.distro.create_user("bob")
    with pytest.raises(NoAnswer, match="'tomorrow' is no day"):
        people.distro.create_user("bob", expiration="tomorrow")


def test_users_are_deleted_with_home_and_rights(people):
    people.write("etc/sudoers.d/waagent", "amy ALL=(ALL) ALL\namyas ALL=(ALL) ALL\n", 0o440)
    people.answer("userdel", lambda command, data: people.write("etc/passwd", "") and 0)
    assert people.distro.delete_user("amy") is True
    assert people.distro.delete_user("amy") is True  # again: gone already
    assert [line for line in people.commands() if "userdel" in line] == ["userdel -f -r amy"]
    assert people.read("etc/sudoers.d/waagent") == "amyas ALL=(ALL) ALL\n"
    people.distro.delete_user("amyas")
    assert not (people.root / "etc/sudoers.d/waagent").exists()


def test_system_users_are_neither_deleted_nor_given_a_password(people):
    with pytest.raises(NoAnswer, match="User daemon is a system user, will not delete it"):
        people.distro.delete_user("daemon")
    with pytest.raises(NoAnswer, match=r"User daemon is a system user, will not set password\."):
        people.distro.set_password("daemon", "secret")
    assert people.ran == []
    people.write("etc/waagent.conf", "Provisioning.AllowResetSysUser=y\n")
    assert people.distro.set_password("daemon", "secret") is True


def test_where_no_limit_is_written_it_is_one_hundred(people):
    (people.root / "etc/login.defs").unlink()
    people.write("etc/passwd", "low:x:99:99::/:/x\nhigh:x:100:100::/:/x\n")
    with pytest.raises(NoAnswer, match="low is a system user"):
        people.distro.set_password("low", "secret")
    assert people.distro.set_password("high", "secret") is True


def test_neither_password_nor_hash_is_on_a_command_line(people):
    people.distro.set_password("amy", "pass word$")
    assert people.ran == [("chpasswd", "-e")]
    name, _, hashed = people.inputs[0].decode().rstrip("\n").partition(":")
    assert name == "amy"
    assert hashed.startswith("$6$")


def test_without_chpasswd_usermod_does_it_and_messages_hide_the_hash(people):
    people.answer("chpasswd", (127, "", "cannot be started"))
    people.answer("usermod", lambda command, data: (1, "", f"usermod: {command[2]} is bad"))
    with pytest.raises(NoAnswer, match="cannot set the password of amy: usermod: <redacted> is bad"):
        people.distro.set_password("amy", "secret")
    assert [command[0] for command in people.ran] == ["chpasswd", "usermod"]


def test_a_failing_chpasswd_is_not_papered_over(people):
    people.answer("chpasswd", (1, "", "chpasswd: line 1: user 'kim' does not exist\n"))
    with pytest.raises(NoAnswer, match="user 'kim' does not exist"):
        people.distro.set_password("kim", "secret")
    assert [command[0] for command in people.ran] == ["chpasswd"]


def test_roots_password_is_locked_and_the_file_stays_what_it_was(people):
    path = people.write("etc/shadow", "daemon:*:1::::::\nroot:$6$secret:1::::::\nrooty:x:1::::::\n", 0o640)
    people.distro.lock_root_password()
    people.distro.lock_root_password()
    assert people.read("etc/shadow") == "root:*LOCK*:14600::::::\ndaemon:*:1::::::\nrooty:x:1::::::\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [entry.name for entry in (people.root / "etc").iterdir() if "tmp" in entry.name] == []


def test_the_password_file_is_the_configured_one_and_is_not_made(people):
    people.write("etc/waagent.conf", "OS.PasswordPath=/etc/master.passwd\n")
    with pytest.raises(NoAnswer, match=r"there is no .*/etc/master\.passwd"):
        people.distro.lock_root_password()


HOLDER = """
import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600)
fcntl.lockf(lock, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


def test_whoever_holds_the_password_lock_is_waited_for(people):
    people.write("etc/shadow", "root:x:1::::::\n")
    place = str(people.root / "etc/.pwd.lock")
    command = [sys.executable, "-c", HOLDER, place]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(NoAnswer, match=r"somebody keeps .*pwd\.lock locked"):
            people.distro.lock_root_password()
        holder.stdin.close()
    assert sum(people.stopping.slept) == 15
    assert people.distro.lock_root_password() is True
